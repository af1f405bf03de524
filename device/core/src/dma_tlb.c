// SPDX-License-Identifier: GPL-2.0-or-later
#include "dma_tlb.h"

struct dma_tlb *dma_tlb_get(struct dma_tlb *tlbs)
{
	for (unsigned i = 0; i < DMA_NR_TLBS; i++) {
		/* Looked at first: a line that another worker owns is not fought for. */
		if (!atomic_load_explicit(&tlbs[i].in_use, memory_order_relaxed) &&
		    !atomic_exchange_explicit(&tlbs[i].in_use, true, memory_order_acquire))
			return &tlbs[i];
	}
	return NULL;
}

void dma_tlb_put(struct dma_tlb *tlb)
{
	if (tlb)
		atomic_store_explicit(&tlb->in_use, false, memory_order_release);
}
