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

struct ring {
	struct rig rig;
	struct iommu *iommu;
	uint16_t avail;
};

void ring_start(struct ring *ring);
void ring_stop(struct ring *ring);

/* Writes request n of the batch, n < RING_REQUESTS; size without the tail. */
void ring_set(struct ring *ring, unsigned n, const void *request, size_t size);
void ring_set_map(struct ring *ring, unsigned n, uint32_t domain, uint64_t page);
void ring_set_unmap(struct ring *ring, unsigned n, uint32_t domain, uint64_t page);
void ring_set_attach(struct ring *ring, unsigned n, uint32_t domain, uint32_t endpoint);

/* Has the first nr requests answered, all OK or the program ends; nanoseconds. */
uint64_t ring_run(struct ring *ring, unsigned nr);

#endif /* RING_H */
