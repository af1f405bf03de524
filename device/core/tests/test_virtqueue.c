// SPDX-License-Identifier: GPL-2.0-or-later
/* Hostile descriptor chains: every one comes back with length 0, and the queue goes on. */
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define BUFFER (RIG_RAM + 0x20000)
#define TABLE (RIG_RAM + 0x30000)
#define NOWHERE 0x123456789000ull
#define MMIO 0x20000000ull
#define ROM 0x30000000ull /* the first 256 KiB of RAM once more */
#define ROM_SIZE 0x40000ull

static struct rig rig;

static void set_indirect(unsigned i, struct rig_desc desc)
{
	struct vring_desc raw = { desc.addr, desc.len, desc.flags, desc.next };

	memcpy(rig.ram + (TABLE - RIG_RAM) + i * sizeof(raw), &raw, sizeof(raw));
}

static void check_refused(uint16_t first)
{
	uint32_t head = 0, len = 1;

	rig_make_available(&rig, 0, first);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len));
	CHECK_EQ(head, first);
	CHECK_EQ(len, 0);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1), 0xf);
}

/* A readable ATTACH of RIG_ID0 at BUFFER, in descriptor 0; 1 is for what follows it. */
static void start_with_attach(void)
{
	const struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = 1,
		.endpoint = RIG_ID0,
	};

	rig_start_ready(&rig, NULL);
	REQUIRE(!client_dma_map(rig.iommu, MMIO, 0x10000, 3, -1, 0));
	REQUIRE(!client_dma_map(rig.iommu, ROM, ROM_SIZE, 1, rig.memfd, 0));
	memcpy(rig.ram + (BUFFER - RIG_RAM), &attach, 20);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
}

static void check_attached(uint16_t first)
{
	uint32_t head = 0, len = 0;

	memset(rig.ram + (BUFFER - RIG_RAM) + 64, 0xaa, 4);
	rig_make_available(&rig, 0, first);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len));
	CHECK_EQ(head, first);
	CHECK_EQ(len, 4);
	for (unsigned i = 0; i < 4; i++)
		CHECK_EQ(rig.ram[BUFFER - RIG_RAM + 64 + i], 0);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), VIRTIO_IOMMU_S_OK);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
}

static void finish(void)
{
	/* None of them was executed, and the device still works. */
	CHECK_EQ(rig_unmap(&rig, 1, 0, 1), VIRTIO_IOMMU_S_NOENT);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), VIRTIO_IOMMU_S_OK);
	rig_stop(&rig);
}

TEST(loops_and_indices_out_of_range)
{
	start_with_attach();
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 1 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, RIG_QUEUE_SIZE });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 0xffff });
	check_refused(0);
	finish();
}

TEST(readable_after_writable)
{
	start_with_attach();
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 2 });
	rig_set_desc(&rig, 0, 2, (struct rig_desc){ BUFFER, 20, 0, 0 });
	check_refused(0);
	finish();
}

TEST(buffers_outside_memory)
{
	start_with_attach();
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ NOWHERE, 4, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ RIG_RAM + RIG_RAM_SIZE - 2, 4, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ UINT64_MAX, 4, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER, 0xffffffff, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ MMIO, 4, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ NOWHERE, 20, NEXT, 1 });
	check_refused(0);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ MMIO, 20, NEXT, 1 });
	check_refused(0);
	finish();
}

/* Nothing is executed whose answer cannot be written, and nothing is written in part. */
TEST(buffers_in_read_only_memory)
{
	const uint64_t in_rom = ROM + (BUFFER - RIG_RAM);

	start_with_attach();
	memset(rig.ram + (BUFFER - RIG_RAM) + 64, 0xaa, 16);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ in_rom + 64, 4, WRITE, 0 });
	check_refused(0);
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 2, WRITE | NEXT, 2 });
	rig_set_desc(&rig, 0, 2, (struct rig_desc){ in_rom + 66, 2, WRITE, 0 });
	check_refused(0);
	for (unsigned i = 64; i < 80; i++)
		CHECK_EQ(rig.ram[BUFFER - RIG_RAM + i], 0xaa);
	CHECK_EQ(rig_unmap(&rig, 1, 0, 1), VIRTIO_IOMMU_S_NOENT);
	/* What is only read may lie there. */
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ in_rom, 20, NEXT, 1 });
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	check_attached(0);
	rig_set_desc(&rig, 0, 5, (struct rig_desc){ ROM + (TABLE - RIG_RAM), 32, INDIRECT, 0 });
	set_indirect(0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
	set_indirect(1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	check_attached(5);
	finish();
}

TEST(broken_indirect_tables)
{
	static const struct rig_desc broken[] = {
		{ TABLE, 0, INDIRECT, 0 },
		{ TABLE, 8, INDIRECT, 0 },
		{ TABLE, 40, INDIRECT, 0 },
		{ TABLE, 0xfffffff0, INDIRECT, 0 },
		{ TABLE, 32, INDIRECT | NEXT, 2 },
		{ TABLE, 257 * 16, INDIRECT, 0 },
		{ NOWHERE, 32, INDIRECT, 0 },
		{ MMIO, 32, INDIRECT, 0 },
		{ RIG_RAM + RIG_RAM_SIZE - 16, 32, INDIRECT, 0 },
		{ UINT64_MAX - 15, 32, INDIRECT, 0 },
	};

	start_with_attach();
	set_indirect(0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
	set_indirect(1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	for (size_t i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
		rig_set_desc(&rig, 0, 5, broken[i]);
		check_refused(5);
	}
	/* Good tables with bad content: nested, looping, pointing out of themselves. */
	rig_set_desc(&rig, 0, 5, (struct rig_desc){ TABLE, 32, INDIRECT, 0 });
	set_indirect(1, (struct rig_desc){ TABLE, 32, INDIRECT, 0 });
	check_refused(5);
	set_indirect(1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 1 });
	check_refused(5);
	set_indirect(1, (struct rig_desc){ BUFFER + 64, 4, WRITE | NEXT, 2 });
	check_refused(5);
	finish();
}

TEST(a_full_ring_is_one_batch)
{
	const struct virtio_iommu_req_detach detach = {
		.head.type = VIRTIO_IOMMU_T_DETACH,
		.endpoint = 0x444,
	};
	uint32_t head = 0, len = 0;

	rig_start_ready(&rig, NULL);
	memcpy(rig.ram + (BUFFER - RIG_RAM), &detach, 20);
	for (unsigned round = 0; round < 1100; round++) {
		/* 32 chains of two each: past the wrap of the 16-bit indices. */
		for (unsigned i = 0; i < RIG_QUEUE_SIZE; i += 2) {
			rig_set_desc(&rig, 0, i, (struct rig_desc){ BUFFER, 20, NEXT, i + 1 });
			rig_set_desc(&rig, 0, i + 1,
				     (struct rig_desc){ BUFFER + 64 + i, 4, WRITE, 0 });
			rig_make_available(&rig, 0, i);
		}
		for (unsigned i = 0; round % 2 && i < RIG_QUEUE_SIZE / 2; i++)
			rig_make_available(&rig, 0, 0);
		rig_kick(&rig, 0);
		for (unsigned i = 0; i < RIG_QUEUE_SIZE / (round % 2 ? 1 : 2); i++)
			CHECK(rig_take_used(&rig, 0, &head, &len) && len == 4);
		CHECK(!rig_take_used(&rig, 0, &head, &len));
	}
	rig_stop(&rig);
}

TEST(indirect_tables_of_every_shape)
{
	start_with_attach();
	/* All of the chain. */
	set_indirect(0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
	set_indirect(1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	rig_set_desc(&rig, 0, 5, (struct rig_desc){ TABLE, 32, INDIRECT, 0 });
	check_attached(5);
	/* "the device MUST ignore the write-only flag" in the one that refers to the table. */
	rig_set_desc(&rig, 0, 5, (struct rig_desc){ TABLE, 32, INDIRECT | WRITE, 0 });
	check_attached(5);
	/* The end of a chain, in pieces, and in an order of its own. */
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ BUFFER, 7, NEXT, 5 });
	rig_set_desc(&rig, 0, 5, (struct rig_desc){ TABLE, 64, INDIRECT, 0 });
	set_indirect(0, (struct rig_desc){ BUFFER + 7, 1, NEXT, 3 });
	set_indirect(3, (struct rig_desc){ BUFFER + 8, 12, NEXT, 2 });
	set_indirect(2, (struct rig_desc){ BUFFER + 64, 1, WRITE | NEXT, 1 });
	set_indirect(1, (struct rig_desc){ BUFFER + 65, 3, WRITE, 0 });
	check_attached(0);
	rig_stop(&rig);
}

/* --- notifications --- */

#define EVENT_IDX (1ull << VIRTIO_RING_F_EVENT_IDX)

static uint16_t *avail_field(size_t offset)
{
	return (uint16_t *)(rig.ram + rig.queues[0].avail + offset);
}

static uint16_t *used_event(void)
{
	return avail_field(4 + 2 * RIG_QUEUE_SIZE);
}

static uint16_t avail_event(void)
{
	uint16_t *field = (uint16_t *)(rig.ram + rig.queues[0].used + 4 + 8 * RIG_QUEUE_SIZE);

	return __atomic_load_n(field, __ATOMIC_SEQ_CST);
}

/* With an eventfd for the request queue, and a request in descriptors 0 and 1. */
static int start_counting(uint64_t without)
{
	int fd = make_eventfd();

	start_with_attach();
	rig_init_driver(&rig, rig_offered(&rig) & ~without);
	rig.keep_used_event = true;
	/* VFIO_IRQ_SET_DATA_EVENTFD | ACTION_TRIGGER, MSI-X, vector 1 */
	REQUIRE(client_set_irqs(rig.iommu, 4 | 32, 2, 1, 1, &fd, 1) >= 0);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ BUFFER, 20, NEXT, 1 });
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	return fd;
}

static void send_requests(unsigned nr)
{
	uint32_t head, len;

	for (unsigned i = 0; i < nr; i++)
		rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	for (unsigned i = 0; i < nr; i++)
		CHECK(rig_take_used(&rig, 0, &head, &len) && len == 4);
}

TEST(interrupt_flag_without_event_idx)
{
	int fd = start_counting(EVENT_IDX);

	*used_event() = 0x1234;
	send_requests(3);
	CHECK_EQ(eventfd_count(fd), 1);
	*avail_field(0) = VRING_AVAIL_F_NO_INTERRUPT;
	send_requests(1);
	CHECK_EQ(eventfd_count(fd), 0);
	CHECK_EQ(avail_event(), 0);
	close(fd);
	rig_stop(&rig);
}

TEST(event_idx_decides_on_interrupts)
{
	int fd = start_counting(0);

	/* The flag means nothing now. */
	*avail_field(0) = VRING_AVAIL_F_NO_INTERRUPT;
	send_requests(1); /* used_event 0: at the first */
	CHECK_EQ(eventfd_count(fd), 1);
	send_requests(1); /* not again */
	CHECK_EQ(eventfd_count(fd), 0);
	*used_event() = 4;
	send_requests(2); /* 2, 3 */
	CHECK_EQ(eventfd_count(fd), 0);
	send_requests(3); /* 4, 5, 6 in one batch */
	CHECK_EQ(eventfd_count(fd), 1);
	*used_event() = 6; /* too late: it is there already */
	send_requests(1);
	CHECK_EQ(eventfd_count(fd), 0);
	close(fd);
	rig_stop(&rig);
}

TEST(event_idx_asks_for_the_next_notification)
{
	int fd = start_counting(0);

	CHECK_EQ(avail_event(), 0);
	send_requests(1);
	CHECK_EQ(eventfd_count(fd), 1);
	CHECK_EQ(avail_event(), 1);
	/* To the wrap of the indices and behind it. */
	for (unsigned nr = 1; nr < 0x10000 + 50; nr += 60) {
		*used_event() = nr + 59;
		send_requests(60);
		CHECK_EQ(avail_event(), (uint16_t)(nr + 60));
		CHECK_EQ(eventfd_count(fd), 1);
	}
	close(fd);
	rig_stop(&rig);
}

TEST(event_idx_behind_the_end_of_memory_breaks_the_queue)
{
	start_with_attach();
	REQUIRE(rig_negotiate(&rig, RIG_ALL_FEATURES));
	rig_setup_queues(&rig);
	/* The used ring ends with memory; avail_event would lie behind it. */
	rig_write(&rig, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	REQUIRE(rig_negotiate(&rig, RIG_ALL_FEATURES));
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, RIG_QUEUE_SIZE, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, RIG_RAM + rig.queues[0].desc, 8);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_AVAILLO, RIG_RAM + rig.queues[0].avail, 8);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_USEDLO, RIG_RAM + RIG_RAM_SIZE - 4 - 8 * RIG_QUEUE_SIZE,
		  8);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	rig_driver_ok(&rig);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1), 0x4f); /* NEEDS_RESET */
	rig_stop(&rig);
}
