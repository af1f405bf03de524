// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests to the rig's virtio-iommu. */
#include "rig.h"

#include <string.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_ring.h>

#include "harness.h"

/* Offsets in RAM. */
#define BUFFERS 0x10000ull
#define WRITABLE (BUFFERS + 0x1000)

uint32_t rig_request(struct rig *rig, const void *readable, size_t readable_len, void *writable,
		     size_t writable_len)
{
	struct rig_desc request = { RIG_RAM + BUFFERS, readable_len, 0, 1 };
	uint32_t head = 0, len = 0;

	memcpy(rig->ram + BUFFERS, readable, readable_len);
	memset(rig->ram + WRITABLE, 0xaa, writable_len + 64);
	request.flags = writable_len ? VRING_DESC_F_NEXT : 0;
	rig_set_desc(rig, 0, 0, request);
	rig_set_desc(rig, 0, 1,
		     (struct rig_desc){
			     RIG_RAM + WRITABLE,
			     writable_len,
			     VRING_DESC_F_WRITE,
			     0,
		     });
	rig_make_available(rig, 0, 0);
	rig_kick(rig, 0);
	REQUIRE(rig_take_used(rig, 0, &head, &len));
	CHECK_EQ(head, 0);
	memcpy(writable, rig->ram + WRITABLE, writable_len);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(rig->ram[WRITABLE + writable_len + i], 0xaa);
	return len;
}

int rig_call(struct rig *rig, const void *readable, size_t len)
{
	struct virtio_iommu_req_tail tail;

	if (rig_request(rig, readable, len, &tail, sizeof(tail)) != sizeof(tail))
		return -1;
	CHECK(!tail.reserved[0] && !tail.reserved[1] && !tail.reserved[2]);
	return tail.status;
}

int rig_attach(struct rig *rig, uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = domain,
		.endpoint = endpoint,
		.flags = flags,
	};

	return rig_call(rig, &attach, offsetof(typeof(attach), tail));
}

int rig_detach(struct rig *rig, uint32_t domain, uint32_t endpoint)
{
	struct virtio_iommu_req_detach detach = {
		.head.type = VIRTIO_IOMMU_T_DETACH,
		.domain = domain,
		.endpoint = endpoint,
	};

	return rig_call(rig, &detach, offsetof(typeof(detach), tail));
}

int rig_map(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end, uint64_t phys,
	    uint32_t flags)
{
	struct virtio_iommu_req_map map = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = domain,
		.virt_start = start,
		.virt_end = end,
		.phys_start = phys,
		.flags = flags,
	};

	return rig_call(rig, &map, offsetof(typeof(map), tail));
}

int rig_unmap(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end)
{
	struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = domain,
		.virt_start = start,
		.virt_end = end,
	};

	return rig_call(rig, &unmap, offsetof(typeof(unmap), tail));
}

int rig_map_page(struct rig *rig, uint32_t domain, uint64_t iova, unsigned page)
{
	return rig_map(rig, domain, iova, iova + 0xfff, RIG_RAM + RIG_DATA + page * 0x1000ull, 3);
}
