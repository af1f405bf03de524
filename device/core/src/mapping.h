/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapping.h - the mappings of one domain, ordered by address.
 *
 * A B+tree, because what costs is not comparing but fetching: a lookup among a million
 * mappings touches five nodes. Mappings never overlap, so a tree ordered by where
 * they end is all an interval lookup needs: the first that ends at an address or
 * behind it is the only one that can cover it.
 *
 * Cutting a range out is O(log n), however many mappings are in it: whole subtrees
 * leave, and only the nodes at the two edges are mended. That is the only part of
 * an UNMAP that DMA must wait for; what was cut out is counted and freed later, at
 * leisure.
 *
 * No locking here: see dma.h.
 */
#ifndef MAPPING_H
#define MAPPING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAPPING_READ 1u /* as VIRTIO_IOMMU_MAP_F_READ, _WRITE, _MMIO */
#define MAPPING_WRITE 2u
#define MAPPING_MMIO 4u

struct mapping {
	uint64_t start;
	uint64_t end; /* inclusive: 2^64 - 1 is a valid end */
	uint64_t phys;
	uint8_t flags;
};

struct mapping_node;
struct mapping_slab;

struct mapping_tree {
	struct mapping_node *root; /* NULL: no mapping */
	struct mapping_node *cut; /* subtrees that mapping_reclaim() has not seen yet */
	struct mapping_node *free;
	unsigned nr_free;
	struct mapping_slab *slabs;
	size_t slab_nodes; /* of the last slab */
	/*
	 * Atomic, because queries read them while the reclaim below counts down; changed
	 * by one thread only, as the rest of the tree.
	 */
	_Atomic uint64_t nr_mappings;
	_Atomic uint64_t nr_bytes; /* modulo 2^64 */
};

void mapping_tree_init(struct mapping_tree *tree);
void mapping_tree_deinit(struct mapping_tree *tree);

/* Makes sure that the next insertion finds memory: -ENOMEM, and nothing has changed. */
int mapping_prepare(struct mapping_tree *tree);
/* After mapping_prepare(), of what overlaps with nothing. Cannot fail. */
void mapping_insert(struct mapping_tree *tree, const struct mapping *mapping);

/* Whether a mapping covers addr; *ret is it. */
bool mapping_find(const struct mapping_tree *tree, uint64_t addr, struct mapping *ret);
/* Whether a mapping has a byte in [start, end]; *ret is the first of them. */
bool mapping_first(const struct mapping_tree *tree, uint64_t start, uint64_t end,
		   struct mapping *ret);

/*
 * Takes the mappings in [start, end] out of the tree; false if there are none. The caller
 * has made sure that none is there in part. Counted and freed by mapping_reclaim().
 */
bool mapping_cut(struct mapping_tree *tree, uint64_t start, uint64_t end);
void mapping_reclaim(struct mapping_tree *tree);

/* The bytes mapped; 2^64 is reported as 2^64 - 1. */
uint64_t mapping_bytes(const struct mapping_tree *tree);

#endif /* MAPPING_H */
