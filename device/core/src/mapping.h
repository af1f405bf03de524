/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapping.h - the mappings of one domain, ordered by address.
 *
 * A join-based AVL tree. Mappings never overlap, so a tree ordered by start is
 * all an interval lookup needs; cutting a whole range out of it costs two
 * splits and one join, O(log n), however many mappings are in the range. That is
 * the only part of an UNMAP that DMA must wait for: what was cut out is freed
 * later, at leisure. A B+tree would look up faster, and split slower.
 *
 * No locking here: see dma.h.
 */
#ifndef MAPPING_H
#define MAPPING_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MAPPING_READ 1u /* as VIRTIO_IOMMU_MAP_F_READ, _WRITE, _MMIO */
#define MAPPING_WRITE 2u
#define MAPPING_MMIO 4u

/*
 * 48 bytes, taken from slabs of 1 KiB, then 2, up to 64: a full domain of 1 Mi mappings
 * is 48 MiB, and ten thousand domains of a few mappings are not much either.
 */
struct mapping {
	uint64_t start;
	uint64_t end; /* inclusive: 2^64 - 1 is a valid end */
	uint64_t phys;
	struct mapping *left;
	struct mapping *right;
	uint32_t flags;
	uint32_t height;
};

struct mapping_slab;

struct mapping_tree {
	struct mapping *root;
	struct mapping *free;
	struct mapping_slab *slabs;
	size_t slab_size; /* of the last slab */
	/*
	 * Atomic, because queries read them while the reclaim below counts down; changed
	 * by one thread only, as the rest of the tree.
	 */
	_Atomic uint64_t nr_mappings;
	_Atomic uint64_t nr_bytes; /* modulo 2^64 */
};

void mapping_tree_init(struct mapping_tree *tree);
void mapping_tree_deinit(struct mapping_tree *tree);

/* A mapping outside the tree, ready to be inserted; NULL without memory. */
struct mapping *mapping_alloc(struct mapping_tree *tree);
/* The caller has made sure that nothing overlaps. Cannot fail. */
void mapping_insert(struct mapping_tree *tree, struct mapping *mapping);

/* The mapping that covers addr, or NULL. */
const struct mapping *mapping_find(const struct mapping_tree *tree, uint64_t addr);
/* The first mapping that has a byte in [start, end], or NULL. */
const struct mapping *mapping_first(const struct mapping_tree *tree, uint64_t start, uint64_t end);

/*
 * Takes every mapping that starts in [start, end] out of the tree, O(log n).
 * What it returns goes to mapping_reclaim().
 */
struct mapping *mapping_cut(struct mapping_tree *tree, uint64_t start, uint64_t end);
void mapping_reclaim(struct mapping_tree *tree, struct mapping *cut);

/* The bytes mapped; 2^64 is reported as 2^64 - 1. */
uint64_t mapping_bytes(const struct mapping_tree *tree);

#endif /* MAPPING_H */
