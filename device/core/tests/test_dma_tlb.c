// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The translation cache: what it remembers, and that nothing taken away is found in
 * it. Each test of the latter makes an access first, so that there is an entry.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>

#include "client.h"
#include "ctx.h"
#include "dma.h"
#include "dma_tlb.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define IOVA 0x40000ull
#define BYPASS_FIELD (0x2000 + 36)

static struct rig rig;

TEST(entries_cover_ranges_of_one_kind)
{
	struct dma_tlb *tlbs = calloc(DMA_NR_TLBS, sizeof(*tlbs)), *tlb;
	uint8_t memory[64];
	size_t len = 100;

	REQUIRE(tlbs);
	tlb = dma_tlb_get(tlbs);
	REQUIRE(tlb);
	dma_tlb_check(tlb, 0, 0);
	CHECK(!dma_tlb_find(tlb, 0, false, &len));
	dma_tlb_add(tlb, 0x1010, true, memory, 32);
	CHECK(dma_tlb_find(tlb, 0x1010, true, &len) == memory);
	CHECK_EQ(len, 32);
	len = 3;
	CHECK(dma_tlb_find(tlb, 0x1020, true, &len) == memory + 16);
	CHECK_EQ(len, 3);
	len = 100;
	CHECK(dma_tlb_find(tlb, 0x102f, true, &len) == memory + 31);
	CHECK_EQ(len, 1);
	CHECK(!dma_tlb_find(tlb, 0x1030, true, &len));
	CHECK(!dma_tlb_find(tlb, 0x100f, true, &len));
	CHECK(!dma_tlb_find(tlb, 0x1010, false, &len));
	/* Another page of the same slot takes its place; the last page of all has an end. */
	dma_tlb_add(tlb, 0x1010 + ((uint64_t)DMA_TLB_ENTRIES << 12), true, memory, 1);
	CHECK(!dma_tlb_find(tlb, 0x1010, true, &len));
	dma_tlb_add(tlb, UINT64_MAX - 31, false, memory, 32);
	len = 100;
	CHECK(dma_tlb_find(tlb, UINT64_MAX, false, &len) == memory + 31);
	CHECK_EQ(len, 1);
	free(tlbs);
}

TEST(a_changed_number_forgets_all)
{
	struct dma_tlb *tlbs = calloc(DMA_NR_TLBS, sizeof(*tlbs));
	struct dma_tlb *tlb = tlbs ? dma_tlb_get(tlbs) : NULL;
	static const uint64_t numbers[][2] = { { 1, 1 }, { 2, 1 }, { 2, 2 }, { 1, 1 } };
	uint8_t memory[1];
	size_t len = 1;

	REQUIRE(tlb);
	for (unsigned i = 0; i < 4; i++) {
		dma_tlb_check(tlb, numbers[i][0], numbers[i][1]);
		CHECK(!dma_tlb_find(tlb, 0, false, &len));
		dma_tlb_add(tlb, 0, false, memory, 1);
		dma_tlb_check(tlb, numbers[i][0], numbers[i][1]);
		CHECK(dma_tlb_find(tlb, 0, false, &len) == memory);
	}
	free(tlbs);
}

TEST(a_cache_has_one_user_at_a_time)
{
	struct dma_tlb *tlbs = calloc(DMA_NR_TLBS, sizeof(*tlbs)), *got[DMA_NR_TLBS];

	REQUIRE(tlbs);
	for (unsigned i = 0; i < DMA_NR_TLBS; i++) {
		got[i] = dma_tlb_get(tlbs);
		CHECK(got[i] && (!i || got[i] != got[0]));
	}
	CHECK(!dma_tlb_get(tlbs));
	dma_tlb_put(NULL);
	dma_tlb_put(got[1]);
	CHECK(dma_tlb_get(tlbs) == got[1]);
	free(tlbs);
}

/* RIG_ID0 in domain 1, IOVA on the first page of data, and both kinds of entries. */
static void start_remembered(void)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, IOVA, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IOVA), DMA_FAULT_NONE);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, IOVA), DMA_FAULT_NONE);
}

static void check_refused(uint32_t fault)
{
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IOVA), fault);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, IOVA), fault);
}

static uint8_t local_byte(void)
{
	uint8_t byte = 0xff;

	read_local(&rig, RIG_EP0, 0, &byte, 1);
	return byte;
}

/* Which page of data IOVA is on, by what lies in it. */
static uint8_t page_at_iova(void)
{
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_READ, IOVA, 0, 1), DMA_STATUS_OK);
	return local_byte();
}

TEST(unmap_is_not_outlived)
{
	start_remembered();
	CHECK_EQ(rig_unmap(&rig, 1, 0, UINT64_MAX), OK);
	check_refused(DMA_FAULT_MAPPING);
	for (unsigned i = 0; i < 3; i++)
		rig.ram[RIG_DATA + i * PAGE] = i;
	/* Mapped elsewhere, and with other permissions. */
	CHECK_EQ(rig_map_page(&rig, 1, IOVA, 2), OK);
	CHECK_EQ(page_at_iova(), 2);
	CHECK_EQ(rig_unmap(&rig, 1, IOVA, IOVA + PAGE - 1), OK);
	CHECK_EQ(rig_map(&rig, 1, IOVA, IOVA + PAGE - 1, RAM_DATA + PAGE, 1), OK);
	CHECK_EQ(page_at_iova(), 1);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, IOVA), DMA_FAULT_PERMISSION);
	rig_stop(&rig);
}

TEST(attach_and_detach_are_not_outlived)
{
	start_remembered();
	for (unsigned i = 0; i < 3; i++)
		rig.ram[RIG_DATA + i * PAGE] = i;
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 2, IOVA, 2), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(page_at_iova(), 2);
	/* Domain 1 went with its last endpoint: the new one has nothing of the old. */
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	check_refused(DMA_FAULT_MAPPING);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(page_at_iova(), 2);
	CHECK_EQ(rig_detach(&rig, 2, RIG_ID0), OK);
	check_refused(DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(resets_are_not_outlived)
{
	for (unsigned kind = 0; kind < 3; kind++) {
		start_remembered();
		if (kind == 0)
			rig_write(&rig, VIRTIO_PCI_COMMON_STATUS, 0, 1);
		else if (kind == 1)
			REQUIRE(!client_reset(rig.iommu));
		else
			client_config_write(rig.iommu, client_find_cap(rig.iommu, 0x10) + 8, 0x8000,
					    2);
		check_refused(DMA_FAULT_DOMAIN);
		rig_stop(&rig);
	}
}

TEST(bypass_is_not_outlived)
{
	rig_start_ready(&rig, NULL);
	rig_write(&rig, BYPASS_FIELD, 1, 1);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RAM_DATA), DMA_FAULT_NONE);
	rig_write(&rig, BYPASS_FIELD, 0, 1);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RAM_DATA), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, VIRTIO_IOMMU_ATTACH_F_BYPASS), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RAM_DATA), DMA_FAULT_NONE);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RAM_DATA), DMA_FAULT_MAPPING);
	rig_stop(&rig);
}

TEST(the_clients_memory_is_not_outlived)
{
	rig_start(&rig, NULL);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP_DIRECT, RAM_DATA), DMA_FAULT_NONE);
	/* The same memory the other way round: its second half first. */
	rig.ram[RIG_DATA] = 1;
	rig.ram[RIG_DATA + RIG_RAM_SIZE / 2] = 2;
	REQUIRE(!client_dma_unmap(rig.endpoints[RIG_EP_DIRECT], RIG_RAM, RIG_RAM_SIZE));
	REQUIRE(!client_dma_map(rig.endpoints[RIG_EP_DIRECT], RIG_RAM, RIG_RAM_SIZE / 2, 3,
				rig.memfd, RIG_RAM_SIZE / 2));
	CHECK_EQ(rig_dma(&rig, RIG_EP_DIRECT, DMA_OP_COPY, RAM_DATA, RAM_DATA + PAGE, 1),
		 DMA_STATUS_OK);
	CHECK_EQ(rig.ram[RIG_DATA + RIG_RAM_SIZE / 2 + PAGE], 2);
	rig_stop(&rig);
}

/* A rule decides on every access, also on one that is remembered; and leaves nothing behind. */
TEST(rules_are_asked_for_every_access)
{
	const struct viommu_inject_rule rule = {
		.action = VIOMMU_INJECT_OFF_BY_PAGE,
		.endpoint = -1,
		.domain = -1,
		.after = 1,
		.count = 1,
	};
	uint32_t id = 0;

	start_remembered();
	for (unsigned i = 0; i < 3; i++)
		rig.ram[RIG_DATA + i * PAGE] = i;
	CHECK_EQ(page_at_iova(), 0);
	REQUIRE(!viommu_ctx_inject_add(rig.ctx, &rule, &id));
	CHECK_EQ(page_at_iova(), 0);
	CHECK_EQ(page_at_iova(), 1);
	CHECK_EQ(page_at_iova(), 0);
	REQUIRE(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(page_at_iova(), 0);
	rig_stop(&rig);
}

/* A rule that comes when the slice has a cache in hand already, and goes again. */
TEST(what_a_late_rule_decided_is_not_remembered)
{
	const struct viommu_inject_rule rule = {
		.action = VIOMMU_INJECT_OFF_BY_PAGE,
		.endpoint = -1,
		.domain = -1,
	};
	const struct rig_dma dma = { DMA_OP_READ, IOVA, 0, 1 };
	const struct endpoint *endpoint;
	uint32_t id = 0;

	rig_start_ready(&rig, NULL);
	endpoint = rig.ctx->functions[rig.endpoint_index[RIG_EP0]].endpoint;
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, IOVA, 0), OK);
	rig.ram[RIG_DATA + PAGE] = 1;
	/* Its worker waits to be let at the mappings. */
	pthread_rwlock_wrlock(&rig.ctx->map_lock);
	rig_dma_start(&rig, RIG_EP0, 0, &dma);
	while (!atomic_load(&endpoint->nr_slices))
		;
	REQUIRE(!viommu_ctx_inject_add(rig.ctx, &rule, &id));
	pthread_rwlock_unlock(&rig.ctx->map_lock);
	CHECK_EQ(rig_dma_wait(&rig, RIG_EP0, 0), DMA_STATUS_OK);
	CHECK_EQ(local_byte(), 1);
	REQUIRE(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(page_at_iova(), 0);
	rig_stop(&rig);
}

/* The cache is the endpoint's, but what takes away from it concerns the bridge's id. */
TEST(what_a_bridge_loses_is_not_outlived_behind_it)
{
	rig_start_bridged(&rig);
	for (unsigned round = 0; round < 5; round++) {
		uint32_t fault = round == 0 || round == 2 ? DMA_FAULT_MAPPING : DMA_FAULT_DOMAIN;

		CHECK_EQ(rig_attach(&rig, 1, RIG_BRIDGE_ID, 0), OK);
		CHECK_EQ(rig_map_page(&rig, 1, IOVA, 0), OK);
		CHECK_EQ(rig_probe_read(&rig, RIG_EP1, IOVA), DMA_FAULT_NONE);
		CHECK_EQ(rig_probe_write(&rig, RIG_EP1, IOVA), DMA_FAULT_NONE);
		if (round == 0)
			CHECK_EQ(rig_unmap(&rig, 1, 0, UINT64_MAX), OK);
		else if (round == 1)
			CHECK_EQ(rig_detach(&rig, 1, RIG_BRIDGE_ID), OK);
		else if (round == 2)
			CHECK_EQ(rig_attach(&rig, 2, RIG_BRIDGE_ID, 0), OK);
		else if (round == 3)
			rig_write(&rig, VIRTIO_PCI_COMMON_STATUS, 0, 1);
		else
			REQUIRE(!client_reset(rig.iommu));
		CHECK_EQ(rig_probe_read(&rig, RIG_EP1, IOVA), fault);
		CHECK_EQ(rig_probe_write(&rig, RIG_EP1, IOVA), fault);
		client_config_write(rig.iommu, 4, 6, 2);
		rig_init_driver(&rig, RIG_ALL_FEATURES);
	}
	rig_stop(&rig);
}

/* A write into the MSI window is one of exactly four bytes, whatever else was done there. */
TEST(reserved_regions_are_never_remembered)
{
	rig_start_ready(&rig, &(struct viommu_iommu_config){ .bypass = 1 });
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, RIG_MSI, 1, 4), DMA_STATUS_OK);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, RIG_MSI, 1, 8), DMA_STATUS_FAULT);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, RIG_MSI, 1, 4), DMA_STATUS_OK);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, RIG_RESERVED), DMA_FAULT_RESERVED);
	rig_stop(&rig);
}

/* More workers than caches, all for one endpoint, while its domain changes. */
TEST(many_workers_for_one_endpoint)
{
	const struct viommu_config config = { .log_capacity = 1 << 14, .nr_workers = 4 };
	const unsigned nr_slots = 8;

	rig_start_with(&rig, &config, NULL);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	for (unsigned i = 0; i < 256; i++)
		CHECK_EQ(rig_map_page(&rig, 1, MIB + i * PAGE, 255 - i), OK);
	for (unsigned round = 0; round < 10; round++) {
		for (unsigned slot = 0; slot < nr_slots; slot++) {
			const uint64_t len = 256 * PAGE / nr_slots;
			const struct rig_dma dma = { DMA_OP_FILL, MIB + slot * len,
						     0x0101010101010101ull * (slot + round + 1),
						     len };

			rig_dma_start(&rig, RIG_EP0, slot, &dma);
		}
		for (unsigned i = 0; i < 20; i++) {
			CHECK_EQ(rig_map_page(&rig, 1, IOVA, 256), OK);
			CHECK_EQ(rig_unmap(&rig, 1, IOVA, IOVA + PAGE - 1), OK);
		}
		for (unsigned slot = 0; slot < nr_slots; slot++)
			CHECK_EQ(rig_dma_wait(&rig, RIG_EP0, slot), DMA_STATUS_OK);
		for (unsigned i = 0; i < 256; i++)
			CHECK_EQ(rig.ram[RIG_DATA + i * PAGE], (255 - i) / 32 + round + 1);
	}
	rig_stop(&rig);
}
