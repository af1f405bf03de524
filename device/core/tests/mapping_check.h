/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mapping_check.h - what must hold of a mapping tree between any two operations. All of
 * it here, because it is compiled for trees of different fanout.
 */
#ifndef MAPPING_CHECK_H
#define MAPPING_CHECK_H

#include "mapping.h"
#include "mapping_node.h"

struct mapping_walk {
	const struct mapping_tree *tree;
	uint64_t nr_mappings, nr_bytes;
	uint64_t last; /* the end of the mapping before; if there is one */
	bool is_behind_one;
};

static inline const char *mapping_check_leaf(struct mapping_walk *walk,
					     const struct mapping_node *leaf, uint64_t bound)
{
	for (unsigned i = 0; i < leaf->nr; i++) {
		uint64_t start = leaf->places[i].start, end = leaf->keys[i];

		if (start > end)
			return "a mapping ends before it starts";
		if (walk->is_behind_one && start <= walk->last)
			return "mappings overlap, or are in no order";
		if (end > bound)
			return "a mapping lies behind its node's bound";
		walk->last = end;
		walk->is_behind_one = true;
		walk->nr_mappings++;
		walk->nr_bytes += end - start + 1;
	}
	return NULL;
}

static inline const char *mapping_check_node(struct mapping_walk *walk,
					     const struct mapping_node *node, uint64_t bound)
{
	const char *wrong = NULL;

	if (node->nr > MAPPING_FANOUT)
		return "a node has too many entries";
	if (node == walk->tree->root ? node->nr < (node->height ? 2 : 1) :
				       node->nr < MAPPING_MIN_FILL)
		return "a node has too few entries";
	for (unsigned i = 1; i < MAPPING_FANOUT; i++) {
		if (node->keys[i - 1] > node->keys[i])
			return "keys are in no order";
	}
	if (node->nr < MAPPING_FANOUT && node->keys[node->nr] != UINT64_MAX)
		return "a key that is not in use can be found";
	if (!node->height)
		return mapping_check_leaf(walk, node, bound);
	for (unsigned i = 0; i < node->nr && !wrong; i++) {
		uint64_t key = i + 1u < node->nr ? node->keys[i] : bound;

		if (key > bound)
			return "a child's bound lies behind its parent's";
		if (walk->is_behind_one && walk->last > key)
			return "a bound lies before a mapping of the child before";
		if (node->children[i]->height + 1 != node->height)
			return "a child has not the height below its parent's";
		wrong = mapping_check_node(walk, node->children[i], key);
	}
	return wrong;
}

/* What does not hold, in words; NULL if all does. */
static inline const char *mapping_check(const struct mapping_tree *tree)
{
	struct mapping_walk walk = { .tree = tree };
	const char *wrong = tree->root ? mapping_check_node(&walk, tree->root, UINT64_MAX) : NULL;
	unsigned nr_free = 0;

	if (wrong)
		return wrong;
	for (const struct mapping_node *node = tree->free; node; node = node->next)
		nr_free++;
	if (nr_free != tree->nr_free)
		return "free nodes are not counted";
	if (tree->cut)
		return "something is not reclaimed";
	if (walk.nr_mappings != atomic_load(&tree->nr_mappings))
		return "mappings are not counted";
	return walk.nr_bytes == atomic_load(&tree->nr_bytes) ? NULL : "bytes are not counted";
}

#endif /* MAPPING_CHECK_H */
