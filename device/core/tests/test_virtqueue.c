// SPDX-License-Identifier: GPL-2.0-or-later
/* Hostile descriptor chains: every one comes back with length 0, and the queue goes on. */
#include <string.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "harness.h"
#include "rig.h"

#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define BUFFER (RIG_RAM + 0x20000)
#define TABLE (RIG_RAM + 0x30000)
#define NOWHERE 0x123456789000ull

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
	memcpy(rig.ram + (BUFFER - RIG_RAM), &attach, 20);
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
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ BUFFER + 64, 4, WRITE, 0 });
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ NOWHERE, 20, NEXT, 1 });
	check_refused(0);
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
		{ NOWHERE, 32, INDIRECT, 0 },
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
