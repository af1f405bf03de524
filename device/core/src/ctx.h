/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ctx.h - what the functions of one context share.
 *
 * The reactor thread is the only writer of everything that DMA depends on, and writes
 * it under a lock as the writer; DMA workers and queries read under that lock as
 * readers, and the reactor itself without it.
 *   dma_lock  memory maps, and what voids transactions. Held for a whole slice of DMA:
 *             a writer has waited for the slices in flight.
 *   map_lock  domains, mappings, attachments, bypass. Held for a lookup, not for the
 *             copy: what a copy goes by is taken away by dma_revoke() instead.
 * Order of locks: ctx->lock, an endpoint model's lock, dma_lock, map_lock; a fault queue's is
 * innermost, and never held together with those two.
 */
#ifndef CTX_H
#define CTX_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "inject.h"
#include "viommu.h"

struct endpoint;
struct iommu;
struct log;
struct pool;
struct reactor;
struct vfu;

/* In the order of viommu_ctx_add_*(): one of the two is set. */
struct ctx_function {
	struct iommu *iommu;
	struct endpoint *endpoint;
};

struct viommu_ctx {
	struct log *log;
	struct reactor *reactor;
	struct pool *pool;
	pthread_rwlock_t dma_lock, map_lock;
	bool can_abort_copies; /* else whoever takes a mapping away waits for slices in flight */
	struct inject inject;
	uint32_t poll_us, nr_cpus;
	pthread_mutex_t lock; /* of what follows */
	struct ctx_function *functions;
	uint32_t nr_functions;
	bool started;
};

/* Raises an interrupt for a function; VFU_INTX as the vector for INTx, -1 for no endpoint. */
void ctx_irq_raise(struct viommu_ctx *ctx, struct vfu *vfu, int64_t endpoint, int vector);

#endif /* CTX_H */
