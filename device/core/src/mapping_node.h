/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapping_node.h - the nodes of the tree in mapping.h.
 *
 * A leaf has up to MAPPING_FANOUT mappings, an inner node as many children; all but the
 * root at least MAPPING_MIN_FILL. Child i has the mappings whose end is at most bound[i],
 * and above bound[i - 1]; that of the last child is its parent's business, and only
 * known to be no smaller than the others. Bounds need not be sharp: mappings go, and
 * bounds stay.
 *
 * 832 bytes: 64 for each mapping at worst, where every node is as empty as it may be.
 */
#ifndef MAPPING_NODE_H
#define MAPPING_NODE_H

#include <stdint.h>

/* A test makes it small, so that few mappings make a deep tree. */
#ifndef MAPPING_FANOUT
#define MAPPING_FANOUT 32u
#endif
/* Less than half, so that two that are merged have room, and are not split again at once. */
#define MAPPING_MIN_FILL (MAPPING_FANOUT * 7 / 16)
#define MAPPING_LINE_KEYS 8u /* that a cache line holds */

/* Where a mapping begins, and leads. */
struct mapping_place {
	uint64_t start;
	uint64_t phys;
};

struct mapping_node {
	struct mapping_node *next; /* in a list of nodes that are in no tree */
	uint16_t nr;
	uint16_t height; /* of a leaf 0 */
	uint8_t flags[MAPPING_FANOUT]; /* of a leaf; on the line that any lookup reads first */
	/* What is searched: the ends of a leaf's mappings, or the bounds of children; then ~0. */
	_Alignas(64) uint64_t keys[MAPPING_FANOUT];
	union {
		struct mapping_place places[MAPPING_FANOUT];
		struct mapping_node *children[MAPPING_FANOUT];
	};
};

_Static_assert(MAPPING_MIN_FILL >= 2, "a child that is too small has a neighbour");
_Static_assert(MAPPING_FANOUT % MAPPING_LINE_KEYS == 0, "keys are searched by lines");

/*
 * The first of a node's entries whose key is at least key; nr if there is none. Without
 * branches, which could only be guessed: first which line, then which of the line.
 */
static inline unsigned mapping_node_search(const struct mapping_node *node, uint64_t key)
{
	const uint64_t *line = node->keys;
	unsigned i = 0;

	for (unsigned at = MAPPING_LINE_KEYS; at < MAPPING_FANOUT; at += MAPPING_LINE_KEYS)
		line += MAPPING_LINE_KEYS * (node->keys[at - 1] < key);
	for (unsigned at = 0; at < MAPPING_LINE_KEYS; at++)
		i += line[at] < key;
	return line - node->keys + i;
}

/* The child in whose part of the address space key is. */
static inline unsigned mapping_node_child(const struct mapping_node *node, uint64_t key)
{
	unsigned i = mapping_node_search(node, key);

	return i < node->nr ? i : node->nr - 1u;
}

void mapping_node_init(struct mapping_node *node, unsigned height);
/* Makes room for an entry at i, which the caller fills. The node is not full. */
void mapping_node_open(struct mapping_node *node, unsigned i);
/* Removes the entries [from, to). */
void mapping_node_close(struct mapping_node *node, unsigned from, unsigned to);
/* Moves the entries of a node from the middle on to an empty one. */
void mapping_node_split(struct mapping_node *node, struct mapping_node *right);
/* Moves all of right to the end of left, which has room. */
void mapping_node_merge(struct mapping_node *left, struct mapping_node *right);
/* Moves entries between neighbours until they have equally many. */
void mapping_node_balance(struct mapping_node *left, struct mapping_node *right);

#endif /* MAPPING_NODE_H */
