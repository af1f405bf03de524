// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring.h"

#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "bench.h"
#include "ctx.h"
#include "engine.h"
#include "harness.h"
#include "iommu.h"
#include "reactor.h"

#define QUEUE_SIZE 256u
/* Offsets in RAM. */
#define DESC 0x0u
#define AVAIL 0x2000u
#define USED 0x3000u
#define BUFFERS RING_BUFFERS
#define STRIDE 64u
#define STATUS_OFFSET 48u /* of the tail in its buffer */
#define PAGE 0x1000ull

static void poke(struct ring *ring, uint64_t offset, uint64_t value, unsigned count)
{
	virtio_pci_bar_write(&ring->iommu->vdev, VIRTIO_PCI_BAR, offset, &value, count);
}

static void negotiate(struct ring *ring, uint64_t features)
{
	poke(ring, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	poke(ring, VIRTIO_PCI_COMMON_STATUS, 0x3, 1);
	for (unsigned half = 0; half < 2; half++) {
		poke(ring, VIRTIO_PCI_COMMON_GFSELECT, half, 4);
		poke(ring, VIRTIO_PCI_COMMON_GF, features >> 32 * half & UINT32_MAX, 4);
	}
	poke(ring, VIRTIO_PCI_COMMON_STATUS, 0xb, 1);
}

static void setup_queue(struct ring *ring)
{
	poke(ring, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	poke(ring, VIRTIO_PCI_COMMON_Q_SIZE, QUEUE_SIZE, 2);
	poke(ring, VIRTIO_PCI_COMMON_Q_DESCLO, RIG_RAM + DESC, 8);
	poke(ring, VIRTIO_PCI_COMMON_Q_AVAILLO, RIG_RAM + AVAIL, 8);
	poke(ring, VIRTIO_PCI_COMMON_Q_USEDLO, RIG_RAM + USED, 8);
	poke(ring, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	poke(ring, VIRTIO_PCI_COMMON_STATUS, 0xf, 1);
	REQUIRE(virtio_pci_queue_ready(&ring->iommu->vdev, 0));
}

static struct vring_avail *avail_ring(struct ring *ring)
{
	return (struct vring_avail *)(ring->rig.ram + AVAIL);
}

/* Chains of two, as Linux makes them without indirect descriptors. */
static void write_descriptors(struct ring *ring)
{
	struct vring_desc *desc = (struct vring_desc *)(ring->rig.ram + DESC);
	struct vring_avail *avail = avail_ring(ring);

	for (unsigned n = 0; n < RING_REQUESTS; n++) {
		uint64_t at = RIG_RAM + BUFFERS + n * STRIDE;

		desc[2 * n] = (struct vring_desc){ at, 0, VRING_DESC_F_NEXT, 2 * n + 1 };
		desc[2 * n + 1] =
			(struct vring_desc){ at + STATUS_OFFSET, 4, VRING_DESC_F_WRITE, 0 };
		avail->ring[n] = avail->ring[n + RING_REQUESTS] = 2 * n;
	}
}

void ring_init_driver(struct ring *ring, uint64_t features)
{
	memset(ring->rig.ram, 0, BUFFERS);
	ring->avail = 0;
	negotiate(ring, features == RIG_ALL_FEATURES ? ring->iommu->vdev.offered : features);
	setup_queue(ring);
}

void ring_take_over(struct ring *ring)
{
	ring->iommu = ring->rig.ctx->functions[ring->rig.iommu_index].iommu;
	reactor_stop(ring->rig.ctx->reactor);
}

void ring_start(struct ring *ring)
{
	rig_start(&ring->rig, NULL);
	ring_take_over(ring);
	ring_init_driver(ring, RIG_ALL_FEATURES);
	write_descriptors(ring);
}

void ring_stop(struct ring *ring)
{
	rig_stop(&ring->rig);
}

void ring_set(struct ring *ring, unsigned n, const void *request, size_t size)
{
	struct vring_desc *desc = (struct vring_desc *)(ring->rig.ram + DESC);

	memcpy(ring->rig.ram + BUFFERS + n * STRIDE, request, size);
	desc[2 * n].len = size;
}

void ring_set_map(struct ring *ring, unsigned n, uint32_t domain, uint64_t page)
{
	const struct virtio_iommu_req_map map = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = domain,
		.virt_start = page * PAGE,
		.virt_end = page * PAGE + PAGE - 1,
		.phys_start = RIG_RAM,
		.flags = 3,
	};

	ring_set(ring, n, &map, offsetof(typeof(map), tail));
}

void ring_set_unmap(struct ring *ring, unsigned n, uint32_t domain, uint64_t page)
{
	const struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = domain,
		.virt_start = page * PAGE,
		.virt_end = page * PAGE + PAGE - 1,
	};

	ring_set(ring, n, &unmap, offsetof(typeof(unmap), tail));
}

void ring_set_attach(struct ring *ring, unsigned n, uint32_t domain, uint32_t endpoint)
{
	const struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = domain,
		.endpoint = endpoint,
	};

	ring_set(ring, n, &attach, offsetof(typeof(attach), tail));
}

void ring_set_chain(struct ring *ring, unsigned n, const struct ring_chain *chain)
{
	struct vring_desc *desc = (struct vring_desc *)(ring->rig.ram + DESC) + 2 * n;
	const struct vring_desc writable = { RIG_RAM + chain->writable_at, chain->writable,
					     VRING_DESC_F_WRITE, 0 };

	desc[0] = (struct vring_desc){ RIG_RAM + chain->readable_at, chain->readable, 0, 0 };
	desc[1] = writable;
	/* No buffer of no bytes, except for a request without any. */
	if (!chain->readable && chain->writable)
		desc[0] = writable;
	else if (chain->writable) {
		desc[0].flags = VRING_DESC_F_NEXT;
		desc[0].next = 2 * n + 1;
	}
}

uint64_t ring_submit(struct ring *ring, unsigned nr)
{
	struct vring_avail *avail = avail_ring(ring);
	uint64_t start;

	REQUIRE(nr <= RING_REQUESTS);
	for (unsigned n = 0; n < nr; n++)
		avail->ring[(uint16_t)(ring->avail + n) % QUEUE_SIZE] = 2 * n;
	ring->avail += nr;
	__atomic_store_n(&avail->idx, ring->avail, __ATOMIC_RELEASE);
	start = bench_now_ns();
	virtio_pci_notify(&ring->iommu->vdev, 0);
	return bench_now_ns() - start;
}

uint64_t ring_run(struct ring *ring, unsigned nr)
{
	const uint8_t *buffers = ring->rig.ram + BUFFERS;
	uint64_t ns = ring_submit(ring, nr);

	for (unsigned n = 0; n < nr; n++)
		REQUIRE(buffers[n * STRIDE + STATUS_OFFSET] == VIRTIO_IOMMU_S_OK);
	return ns;
}
