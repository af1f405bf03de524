/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dma.h - the one place through which endpoints reach memory.
 *
 * A transaction is moved in slices of at most DMA_SLICE bytes. Each slice runs
 * under the context's dma_lock as a reader, and looks at the endpoint's right to
 * do it (reset generation, bus mastering) under that lock. Whoever takes the right
 * away does so as the writer: once the lock is his, the slices in flight have ended,
 * and later ones see the new state.
 *
 * A guest that takes a mapping away spins until it is gone, so that does not wait for
 * slices: the endpoint's count of revocations changes, and copies that went by the old
 * one are aborted (abortable_copy.h). The slice then looks again what its addresses
 * mean. Where copies cannot be aborted, slices in flight are waited for after all.
 *
 * The exception: addresses outside the memory that the client has shared (ROM,
 * other devices' BARs, memory behind a QEMU vIOMMU) are reached by a message to
 * the client, 4 KiB at most, without the lock. Such a write may take effect just
 * after the right to it has gone; the client then refuses it if bus mastering is off.
 */
#ifndef DMA_H
#define DMA_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dma_engine.h"
#include "viommu.h"

#define DMA_SLICE 65536
#define MSI_WRITE_SIZE 4

struct dma_tlb;
struct domain;
struct iommu;
struct vfu;
struct viommu_ctx;

/* What issues DMA: the part of an endpoint that translation knows. */
struct endpoint {
	struct viommu_ctx *ctx;
	struct iommu *iommu; /* NULL: addresses are the client's own */
	struct vfu *vfu;
	enum viommu_model kind;
	uint32_t id;
	struct endpoint *requester; /* whose id its DMA carries: itself, or a bridge's */
	uint32_t source;
	char name[VIOMMU_NAME_MAX];
	struct viommu_resv_mem *resv; /* disjoint, in the order of the addresses */
	size_t nr_resv;
	struct endpoint *next; /* of the same IOMMU */
	struct endpoint *next_in_bucket;
	struct dma_tlb *tlbs;  /* DMA_NR_TLBS */
	struct endpoint *next_id; /* of the same IOMMU, and no function either */
	/* Attachment: written by the reactor, under map_lock as the writer. */
	struct domain *domain;
	struct endpoint *next_in_domain;
	_Atomic uint64_t transactions;
	_Atomic uint64_t faults;
	_Atomic uint32_t in_flight;
	/* Of a requester. Changes when something that dma_translate() has said is no longer so. */
	_Atomic uint64_t revocations;
	_Atomic uint32_t nr_slices; /* being moved now */
};

/*
 * Copies and checks what the configuration says of an endpoint. -EINVAL for a
 * name that is too long or reserved regions that are inverted, overlap, or hold
 * a second MSI window; -ENOENT for a requester that the IOMMU does not have; -ENOMEM.
 */
int endpoint_init(struct endpoint *endpoint, struct viommu_ctx *ctx, struct iommu *iommu,
		  uint32_t source, const struct viommu_endpoint_config *config);
void endpoint_deinit(struct endpoint *endpoint);

struct dma_fault {
	enum dma_engine_fault reason;
	bool is_write;
	uint64_t addr; /* the first address that was refused */
};

/* One transaction. It is void as soon as *generation differs from expected. */
struct dma_transfer {
	struct endpoint *endpoint;
	const _Atomic uint64_t *generation;
	uint64_t expected;
	struct dma_fault fault; /* set when dma_slice() returns DMA_STATUS_FAULT */
};

/*
 * Moves len bytes, DMA_SLICE at most, between buf and memory at iova, in order:
 * bytes before the first refused one are moved, none after it. Adds the number
 * moved to *ret_moved, and to *done, unless NULL, before a writer of dma_lock can
 * look at it.
 *
 * DMA_STATUS_OK, _FAULT, _NO_BUS_MASTER or _ABORTED. Worker threads only.
 */
enum dma_engine_status dma_slice(struct dma_transfer *transfer, uint64_t iova, void *buf,
				 size_t len, bool is_write, _Atomic uint64_t *done,
				 size_t *ret_moved);

/*
 * A transaction has ended, of which the record says status, flags, start, end and
 * target; the rest is filled in here, the time being now. Logs and counts. Any thread.
 */
void dma_log(struct endpoint *endpoint, struct viommu_log_record record, uint64_t start_ns);

/* Where an access goes. */
struct dma_target {
	uint64_t addr;
	size_t len;      /* contiguous from addr on, under one rule */
	bool is_msi;     /* consumed by the MSI window: addr is the address in it */
	bool is_injected; /* a rule had a part in it: the next access may go elsewhere */
	enum dma_engine_fault fault; /* not NONE: refused */
};

/*
 * Translates the first bytes of an access of len bytes; map_lock is held, or this is
 * the reactor. The target's len is not cut to the access, but says how far the same
 * would hold for a longer one.
 */
struct dma_target dma_translate(const struct endpoint *endpoint, uint64_t iova, size_t len,
				bool is_write);

/*
 * What the endpoint's addresses meant is no longer so: no access begins by it any
 * more. True if one may be going on; then dma_finish_revoke() is due, without
 * map_lock. map_lock is held as the writer. Reactor.
 */
bool dma_revoke(struct endpoint *endpoint);
/* Returns when nothing goes on that was revoked, if anything was in use. */
void dma_finish_revoke(struct viommu_ctx *ctx, bool in_use);

#endif /* DMA_H */
