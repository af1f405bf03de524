/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring.h - a virtio-iommu whose request queue is replayed: full rings of
 * requests, written beforehand, and no socket or thread in the way.
 */
#ifndef RING_H
#define RING_H

#include <stddef.h>
#include <stdint.h>

#include "rig.h"

#define RING_REQUESTS 128u /* in one batch: 256 descriptors */
#define RING_BUFFERS 0x10000u /* offset in RAM: the rings are before it */

struct ring {
	struct rig rig;
	struct iommu *iommu;
	uint16_t avail;
};

void ring_start(struct ring *ring);
void ring_stop(struct ring *ring);
/* For a rig that was started by other means: from here on no thread but ours runs it. */
void ring_take_over(struct ring *ring);
/* Resets the device, and makes the queue anew with these features accepted. */
void ring_init_driver(struct ring *ring, uint64_t features);

/* Where a request's two buffers are: offsets in RAM, and sizes. */
struct ring_chain {
	uint32_t readable_at, readable;
	uint32_t writable_at, writable;
};

/* Writes request n of the batch, n < RING_REQUESTS; size without the tail. */
void ring_set(struct ring *ring, unsigned n, const void *request, size_t size);
void ring_set_map(struct ring *ring, unsigned n, uint32_t domain, uint64_t page);
void ring_set_unmap(struct ring *ring, unsigned n, uint32_t domain, uint64_t page);
void ring_set_attach(struct ring *ring, unsigned n, uint32_t domain, uint32_t endpoint);

/* The same, for any two buffers. */
void ring_set_chain(struct ring *ring, unsigned n, const struct ring_chain *chain);

/* Has the first nr requests answered, whatever the answers are; nanoseconds. */
uint64_t ring_submit(struct ring *ring, unsigned nr);
/* The same for what ring_set() wrote; all are answered OK, or the program ends. */
uint64_t ring_run(struct ring *ring, unsigned nr);

#endif /* RING_H */
