// SPDX-License-Identifier: GPL-2.0-or-later
/* The dma engine: operations, exact ends, resets, interrupts, DMA that races with requests. */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "ctx.h"
#include "abortable_copy.h"
#include "engine.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

static struct rig rig;

TEST(crc32_is_the_usual_one)
{
	struct crc32_table *table;
	const char *digits = "123456789";

	REQUIRE(!crc32_table_create(&table));
	CHECK_EQ(crc32_update(table, 0, digits, 9), 0xcbf43926u);
	CHECK_EQ(crc32_update(table, crc32_update(table, 0, digits, 3), digits + 3, 6),
		 0xcbf43926u);
	CHECK_EQ(crc32_update(table, 0, "", 0), 0);
	CHECK_EQ(crc32_update(table, 0,
			      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
			      "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
			      32),
		 0x2c642644u);
	crc32_table_destroy(table);
}

TEST(global_registers)
{
	rig_start(&rig, NULL);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC, 4), DMA_ENGINE_MAGIC_VALUE);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC, 8), DMA_ENGINE_MAGIC_VALUE | 1ull << 32);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_NR_SLOTS, 4), 128);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_NR_VECTORS, 4), 4);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC, 1), 0xff);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC + 2, 4), 0xffffffff);
	CHECK_EQ(rig_ep_read(&rig, 0, 0x3ffc, 4), 0);
	rig_ep_write(&rig, 0, DMA_ENGINE_SCRATCH, 0x12345678, 4);
	rig_ep_write(&rig, 0, DMA_ENGINE_SCRATCH, 0xff, 1);
	rig_ep_write(&rig, 0, DMA_ENGINE_MAGIC, 0, 4);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_SCRATCH, 4), 0x12345678);
	rig_ep_write(&rig, 0, DMA_ENGINE_CONTROL, DMA_ENGINE_CONTROL_RESET, 4);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_SCRATCH, 4), 0);
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_ENGINE);
	rig_stop(&rig);
}

TEST(read_and_write)
{
	static uint8_t local[4096], back[4096];

	rig_start(&rig, NULL);
	for (size_t i = 0; i < sizeof(local); i++)
		local[i] = i * 7;
	write_local(&rig, 2, 0x1003, local, sizeof(local));
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_WRITE, RAM_DATA + 5, 0x1003, sizeof(local)),
		 DMA_STATUS_OK);
	CHECK(!memcmp(ram_data(&rig, 5), local, sizeof(local)));
	CHECK_EQ(*ram_data(&rig, 4), 0);
	CHECK_EQ(*ram_data(&rig, 5 + sizeof(local)), 0);
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_READ, RAM_DATA + 5, DMA_ENGINE_LOCAL_SIZE - 4096, 4096),
		 DMA_STATUS_OK);
	read_local(&rig, 2, DMA_ENGINE_LOCAL_SIZE - 4096, back, sizeof(back));
	CHECK(!memcmp(back, local, sizeof(local)));
	check_fault(&rig, 2, 0, 0, 4096);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), 2);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_READ_BYTES), 4096);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_WRITE_BYTES), 4096);
	rig_stop(&rig);
}

TEST(fill_copy_and_checksum)
{
	const uint64_t len = 3 * MIB + 5;
	struct crc32_table *table;
	uint64_t pattern = PATTERN;

	rig_start(&rig, NULL);
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_FILL, RAM_DATA + 3, PATTERN, len), DMA_STATUS_OK);
	for (uint64_t i = 0; i < len; i += 65521)
		CHECK_EQ(*ram_data(&rig, 3 + i), ((uint8_t *)&pattern)[i % 8]);
	CHECK_EQ(*ram_data(&rig, 2), 0);
	CHECK_EQ(*ram_data(&rig, 3 + len), 0);
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_COPY, RAM_DATA + 3, RAM_DATA + 8 * MIB + 1, len),
		 DMA_STATUS_OK);
	CHECK(!memcmp(ram_data(&rig, 3), ram_data(&rig, 8 * MIB + 1), len));
	CHECK_EQ(*ram_data(&rig, 8 * MIB + 1 + len), 0);
	REQUIRE(!crc32_table_create(&table));
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_CHECKSUM, RAM_DATA + 3, 0, len), DMA_STATUS_OK);
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_RESULT, 8),
		 crc32_update(table, 0, ram_data(&rig, 3), len));
	crc32_table_destroy(table);
	rig_stop(&rig);
}

TEST(invalid_commands)
{
	static const struct rig_dma invalid[] = {
		{ 0, RAM_DATA, 0, 8 },
		{ 6, RAM_DATA, 0, 8 },
		{ DMA_OP_READ, RAM_DATA, 0, 0 },
		{ DMA_OP_READ, RAM_DATA, DMA_ENGINE_LOCAL_SIZE - 7, 8 },
		{ DMA_OP_WRITE, RAM_DATA, UINT64_MAX, 8 },
		{ DMA_OP_READ, RAM_DATA, 0, DMA_ENGINE_LOCAL_SIZE + 1 },
		{ DMA_OP_FILL, RAM_DATA, 0, (1ull << 30) + 1 },
		{ DMA_OP_CHECKSUM, UINT64_MAX, 0, 2 },
		{ DMA_OP_COPY, RAM_DATA, RAM_DATA + 7, 8 },
		{ DMA_OP_COPY, RAM_DATA, UINT64_MAX, 2 },
		{ DMA_OP_FILL | DMA_COMMAND_IRQ_MSIX | 4 << 16, RAM_DATA, 0, 8 },
		{ DMA_OP_FILL | DMA_COMMAND_IRQ_MASK, RAM_DATA, 0, 8 },
	};

	rig_start(&rig, NULL);
	for (size_t i = 0; i < sizeof(invalid) / sizeof(invalid[0]); i++) {
		rig_dma_start(&rig, 2, 5, &invalid[i]);
		CHECK_EQ(rig_slot(&rig, 2, 5, DMA_SLOT_STATUS, 4), DMA_STATUS_INVALID);
		CHECK_EQ(rig_slot(&rig, 2, 5, DMA_SLOT_DONE, 8), 0);
	}
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_ERRORS), sizeof(invalid) / sizeof(invalid[0]));
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_IN_FLIGHT, 4), 0);
	rig_stop(&rig);
}

TEST(the_end_of_a_refused_transaction_is_exact)
{
	const uint64_t good = 0x23000; /* bytes mapped at 1 MiB, in pages; then a hole */

	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	CHECK_EQ(rig_map(&rig, 1, MIB, MIB + good - 1, RAM_DATA, 3), 0);
	CHECK_EQ(rig_map(&rig, 1, 4 * MIB, 5 * MIB - 1, RAM_DATA + 4 * MIB, 3), 0);
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_FILL, MIB + 1, PATTERN, MIB), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_MAPPING | 0x100, MIB + good, good - 1);
	CHECK_EQ(*ram_data(&rig, good), 0);
	CHECK_EQ(*ram_data(&rig, good - 1), ((PATTERN >> 8 * ((good - 2) % 8)) & 0xff));
	/* A copy whose source ends first moves what it could read. */
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_COPY, MIB, 4 * MIB, MIB), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_MAPPING, MIB + good, good);
	CHECK(!memcmp(ram_data(&rig, 0), ram_data(&rig, 4 * MIB), good));
	CHECK_EQ(*ram_data(&rig, 4 * MIB + good), 0);
	/* One whose destination does. */
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_COPY, MIB, 5 * MIB - 16, MIB), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_MAPPING | 0x100, 5 * MIB, 16);
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_CHECKSUM, MIB, 0, MIB), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_MAPPING, MIB + good, good);
	CHECK_EQ(rig_slot(&rig, 0, 0, DMA_SLOT_RESULT, 8), 0);
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_READ, MIB + good - 3, 0, 8), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_MAPPING, MIB + good, 3);
	rig_stop(&rig);
}

TEST(scattered_mappings_are_one_range)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(rig_map_page(&rig, 1, MIB + i * PAGE, 63 - i), 0);
	for (unsigned i = 0; i < 64; i++)
		memset(ram_data(&rig, i * PAGE), i, PAGE);
	CHECK_EQ(rig_dma(&rig, 0, DMA_OP_READ, MIB, 0, 64 * PAGE), DMA_STATUS_OK);
	for (unsigned i = 0; i < 64; i++) {
		uint8_t byte;

		read_local(&rig, 0, i * PAGE + 17, &byte, 1);
		CHECK_EQ(byte, 63 - i);
	}
	rig_stop(&rig);
}

TEST(interrupts)
{
	int msix[4], intx = make_eventfd();
	struct rig_dma dma = { DMA_OP_FILL | DMA_COMMAND_IRQ_MSIX | 2 << 16, RAM_DATA, 1, 8 };

	rig_start(&rig, NULL);
	for (int i = 0; i < 4; i++)
		msix[i] = make_eventfd();
	REQUIRE(!client_set_irqs(rig.endpoints[2], 0x24, 2, 0, 4, msix, 4));
	REQUIRE(!client_set_irqs(rig.endpoints[2], 0x24, 0, 0, 1, &intx, 1));
	rig_dma_start(&rig, 2, 7, &dma);
	CHECK_EQ(eventfd_wait(msix[2]), 1);
	/* Who has the interrupt finds the result. */
	CHECK_EQ(rig_slot(&rig, 2, 7, DMA_SLOT_STATUS, 4), DMA_STATUS_OK);
	dma.command = DMA_OP_FILL | DMA_COMMAND_IRQ_INTX;
	rig_dma_start(&rig, 2, 7, &dma);
	CHECK_EQ(eventfd_wait(intx), 1);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_INTX_STATUS, 4), 1);
	rig_ep_write(&rig, 2, DMA_ENGINE_INTX_STATUS, 1, 4);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_INTX_STATUS, 4), 0);
	rig_ep_write(&rig, 2, DMA_ENGINE_IRQ_TRIGGER, 3, 4);
	CHECK_EQ(eventfd_count(msix[3]), 1);
	rig_ep_write(&rig, 2, DMA_ENGINE_IRQ_TRIGGER, 4, 4);
	client_config_write(rig.endpoints[2], 4, 2, 2);
	rig_ep_write(&rig, 2, DMA_ENGINE_IRQ_TRIGGER, 0, 4);
	CHECK_EQ(eventfd_count(msix[0]), 0);
	for (int i = 0; i < 4; i++)
		close(msix[i]);
	close(intx);
	rig_stop(&rig);
}

#define NR_MANY 6

/*
 * Two long writes, which run at once, and reads elsewhere, which wait for a
 * worker. No two touch the same bytes: that would be the guest's own race.
 */
static void start_many(unsigned ep)
{
	for (unsigned slot = 0; slot < NR_MANY; slot++) {
		struct rig_dma dma = { DMA_OP_FILL, RAM_DATA + slot * 8 * MIB, PATTERN, 8 * MIB };

		if (slot >= 2) {
			dma.command = DMA_OP_CHECKSUM;
			dma.iova = RAM_DATA + 16 * MIB;
		}
		rig_dma_start(&rig, ep, slot, &dma);
	}
}

/* Nothing is written once the call that ended it has returned. */
static void check_quiet(void)
{
	memset(ram_data(&rig, 0), 0, 16 * MIB);
	for (unsigned i = 0; i < 200; i++)
		rig_ep_read(&rig, 2, DMA_ENGINE_MAGIC, 4);
	for (uint64_t i = 0; i < 16 * MIB; i += 509)
		REQUIRE(*ram_data(&rig, i) == 0);
}

static void check_all(unsigned ep, uint32_t status)
{
	CHECK_EQ(rig_ep_read(&rig, ep, DMA_ENGINE_IN_FLIGHT, 4), 0);
	for (unsigned slot = 0; slot < NR_MANY; slot++) {
		uint32_t is = rig_slot(&rig, ep, slot, DMA_SLOT_STATUS, 4);

		CHECK(is == status || is == DMA_STATUS_OK);
	}
}

TEST(bus_master_off_ends_what_is_in_flight)
{
	rig_start(&rig, NULL);
	start_many(2);
	client_config_write(rig.endpoints[2], 4, 2, 2);
	check_all(2, DMA_STATUS_NO_BUS_MASTER);
	check_quiet();
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_FILL, RAM_DATA, 1, 8), DMA_STATUS_NO_BUS_MASTER);
	client_config_write(rig.endpoints[2], 4, 6, 2);
	CHECK_EQ(rig_dma(&rig, 2, DMA_OP_FILL, RAM_DATA, 1, 8), DMA_STATUS_OK);
	rig_stop(&rig);
}

TEST(resets_end_what_is_in_flight)
{
	uint64_t local = 1;

	rig_start(&rig, NULL);
	for (int kind = 0; kind < 3; kind++) {
		write_local(&rig, 2, 0x100, &local, 8);
		start_many(2);
		if (kind == 0)
			rig_ep_write(&rig, 2, DMA_ENGINE_CONTROL, DMA_ENGINE_CONTROL_RESET, 4);
		else if (kind == 1)
			REQUIRE(!client_reset(rig.endpoints[2]));
		else
			client_config_write(rig.endpoints[2],
					    client_find_cap(rig.endpoints[2], 0x10) + 8, 0x8000, 2);
		check_all(2, DMA_STATUS_IDLE);
		check_quiet();
		CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), 0);
		read_local(&rig, 2, 0x100, &local, 8);
		CHECK_EQ(local, 0);
		local = 1;
		client_config_write(rig.endpoints[2], 4, 6, 2);
		/* The same slots at once again. */
		start_many(2);
		for (unsigned slot = 0; slot < NR_MANY; slot++)
			CHECK_EQ(rig_dma_wait(&rig, 2, slot), DMA_STATUS_OK);
		rig_ep_write(&rig, 2, DMA_ENGINE_CONTROL, DMA_ENGINE_CONTROL_RESET, 4);
	}
	rig_stop(&rig);
}

TEST(a_lost_client_ends_what_is_in_flight)
{
	struct viommu_endpoint_info info[3];

	rig_start(&rig, NULL);
	start_many(2);
	close(rig.endpoints[2]);
	rig_wait_log(&rig, VIOMMU_LOG_CLIENT_GONE);
	CHECK_EQ(viommu_ctx_query_endpoints(rig.ctx, info, 3), 3);
	CHECK(!info[2].connected && !info[2].in_flight && !info[2].bus_master);
	memset(ram_data(&rig, 0), 0, 16 * MIB);
	for (unsigned i = 0; i < 200; i++)
		rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC, 4);
	for (uint64_t i = 0; i < 16 * MIB; i += 509)
		REQUIRE(*ram_data(&rig, i) == 0);
	rig_stop(&rig);
}

/* Whether whoever unmaps can abort copies, or must wait for slices. */
static void check_unmap_while_dma_goes_on(bool can_abort)
{
	const struct rig_dma dma = { DMA_OP_FILL, 16 * MIB, UINT64_MAX, 8 * MIB };
	unsigned nr_interrupted = 0;

	rig_start_ready(&rig, NULL);
	rig.ctx->can_abort_copies &= can_abort;
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	for (unsigned round = 0; round < 60; round++) {
		uint64_t touched = 0, done;
		uint32_t status;

		CHECK_EQ(rig_map(&rig, 1, 16 * MIB, 24 * MIB - 1, RAM_DATA, 3), 0);
		rig_dma_start(&rig, 0, 0, &dma);
		for (unsigned i = 0; i < round % 8; i++)
			rig_ep_read(&rig, 0, DMA_ENGINE_MAGIC, 4);
		if (round % 2)
			CHECK_EQ(rig_unmap(&rig, 1, 0, UINT64_MAX), 0);
		else
			CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), 0);
		/* What was moved was moved before the answer. */
		while (touched < 8 * MIB && *ram_data(&rig, touched))
			touched++;
		status = rig_dma_wait(&rig, 0, 0);
		done = rig_slot(&rig, 0, 0, DMA_SLOT_DONE, 8);
		/* A copy that is aborted may be a little ahead of its count. */
		CHECK(done <= touched && touched <= done + ABORTABLE_COPY_UNCOUNTED);
		CHECK_EQ(status, done == 8 * MIB ? DMA_STATUS_OK : DMA_STATUS_FAULT);
		nr_interrupted += status == DMA_STATUS_FAULT;
		memset(ram_data(&rig, 0), 0, 8 * MIB);
		CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
		if (round % 2 == 0)
			CHECK_EQ(rig_unmap(&rig, 1, 0, UINT64_MAX), 0);
	}
	CHECK(nr_interrupted > 0);
	rig_stop(&rig);
}

TEST(unmap_while_dma_goes_on)
{
	check_unmap_while_dma_goes_on(true);
}

TEST(unmap_while_dma_goes_on_and_must_be_waited_for)
{
	check_unmap_while_dma_goes_on(false);
}
