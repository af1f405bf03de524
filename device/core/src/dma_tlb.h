/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dma_tlb.h - where an endpoint's recent accesses went, down to the host address.
 *
 * An entry says that a range of addresses lies at a host address, for reads or for
 * writes. It is right as long as nothing is taken away, so a MAP leaves all of them,
 * and what takes away (UNMAP, ATTACH, DETACH, bypass, resets, the client's DMA_UNMAP)
 * changes one of two numbers: the endpoint's revocations or the generation of the
 * client's memory. Whoever finds a number changed forgets all. What was refused is
 * never remembered, nor is what an injected defect answered.
 *
 * A cache belongs to one slice at a time, so its entries need no lock. There are two
 * for each endpoint; a slice that finds both in use does without.
 */
#ifndef DMA_TLB_H
#define DMA_TLB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Of each kind. With pages of 4 KiB: 8 MiB read, and 8 MiB written. */
#define DMA_TLB_ENTRIES 2048u
#define DMA_TLB_PAGE_SHIFT 12
#define DMA_NR_TLBS 2

struct dma_tlb_entry {
	uint64_t start, end; /* inclusive */
	uint8_t *host;       /* of start */
	uint64_t epoch;      /* valid if it is the cache's; 0 never is */
};

struct dma_tlb {
	atomic_bool in_use;
	/* Under in_use. */
	uint64_t epoch;
	uint64_t revocations, memory; /* the numbers that the epoch stands for */
	struct dma_tlb_entry entries[2][DMA_TLB_ENTRIES]; /* reads, writes */
};

/* A cache for one slice, until the put; NULL if all are in use. */
struct dma_tlb *dma_tlb_get(struct dma_tlb *tlbs);
void dma_tlb_put(struct dma_tlb *tlb); /* accepts NULL */

/* Leaves nothing in it that these numbers do not vouch for. */
static inline void dma_tlb_check(struct dma_tlb *tlb, uint64_t revocations, uint64_t memory)
{
	if (tlb->epoch && tlb->revocations == revocations && tlb->memory == memory)
		return;
	/* No entry has the new epoch. 64 bits do not come round. */
	tlb->epoch++;
	tlb->revocations = revocations;
	tlb->memory = memory;
}

static inline struct dma_tlb_entry *dma_tlb_slot(struct dma_tlb *tlb, uint64_t iova, bool is_write)
{
	return &tlb->entries[is_write][(iova >> DMA_TLB_PAGE_SHIFT) % DMA_TLB_ENTRIES];
}

/* The host address of iova, with *len cut to what lies behind it; NULL if it is not known. */
static inline uint8_t *dma_tlb_find(struct dma_tlb *tlb, uint64_t iova, bool is_write, size_t *len)
{
	const struct dma_tlb_entry *entry = dma_tlb_slot(tlb, iova, is_write);

	if (entry->epoch != tlb->epoch || iova < entry->start || iova > entry->end)
		return NULL;
	if (*len > entry->end - iova)
		*len = entry->end - iova + 1;
	return entry->host + (iova - entry->start);
}

/* Remembers that len bytes from iova on, at least one, lie at host. */
static inline void dma_tlb_add(struct dma_tlb *tlb, uint64_t iova, bool is_write, uint8_t *host,
			       size_t len)
{
	*dma_tlb_slot(tlb, iova, is_write) = (struct dma_tlb_entry){
		.start = iova,
		.end = iova + (len - 1),
		.host = host,
		.epoch = tlb->epoch,
	};
}

#endif /* DMA_TLB_H */
