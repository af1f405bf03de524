// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping.h"

#include <errno.h>
#include <stdlib.h>

#include "mapping_node.h"

#define MAX_SLAB_NODES 64u
#define MAX_HEIGHT 64 /* each level at least doubles, so there is no such tree */
#define LINE 64u

struct mapping_slab {
	struct mapping_slab *next;
	struct mapping_node nodes[];
};

/* -- nodes */

void mapping_tree_init(struct mapping_tree *tree)
{
	*tree = (struct mapping_tree){ 0 };
}

void mapping_tree_deinit(struct mapping_tree *tree)
{
	struct mapping_slab *slab = tree->slabs;

	while (slab) {
		struct mapping_slab *next = slab->next;

		free(slab);
		slab = next;
	}
	mapping_tree_init(tree);
}

static void free_node(struct mapping_tree *tree, struct mapping_node *node)
{
	node->next = tree->free;
	tree->free = node;
	tree->nr_free++;
}

/* Slabs grow with the tree, so that ten thousand small domains are not much either. */
static int add_slab(struct mapping_tree *tree)
{
	size_t nr = tree->slab_nodes ? 2 * tree->slab_nodes : 1;
	struct mapping_slab *slab;

	if (nr > MAX_SLAB_NODES)
		nr = MAX_SLAB_NODES;
	slab = aligned_alloc(LINE, sizeof(*slab) + nr * sizeof(slab->nodes[0]));
	if (!slab)
		return -ENOMEM;
	slab->next = tree->slabs;
	tree->slabs = slab;
	tree->slab_nodes = nr;
	while (nr)
		free_node(tree, &slab->nodes[--nr]);
	return 0;
}

/* One that mapping_prepare() has provided for. */
static struct mapping_node *take_node(struct mapping_tree *tree, unsigned height)
{
	struct mapping_node *node = tree->free;

	tree->free = node->next;
	tree->nr_free--;
	mapping_node_init(node, height);
	return node;
}

/* One node for each that may have to be split, and a new root. */
static unsigned nodes_wanted(const struct mapping_tree *tree)
{
	const struct mapping_node *root = tree->root;

	if (!root)
		return 1;
	if (!root->height && root->nr < MAPPING_FANOUT)
		return 0;
	return root->height + 2u;
}

int mapping_prepare(struct mapping_tree *tree)
{
	unsigned wanted = nodes_wanted(tree);
	int r = 0;

	while (r == 0 && tree->nr_free < wanted)
		r = add_slab(tree);
	return r;
}

/* One thread changes them, so that there is no need to lock the bus. */
static void count(struct mapping_tree *tree, uint64_t nr_mappings, uint64_t nr_bytes)
{
	atomic_store_explicit(&tree->nr_mappings,
			      atomic_load_explicit(&tree->nr_mappings, memory_order_relaxed) +
				      nr_mappings,
			      memory_order_relaxed);
	atomic_store_explicit(&tree->nr_bytes,
			      atomic_load_explicit(&tree->nr_bytes, memory_order_relaxed) +
				      nr_bytes,
			      memory_order_relaxed);
}

uint64_t mapping_bytes(const struct mapping_tree *tree)
{
	uint64_t nr_bytes = atomic_load(&tree->nr_bytes);

	return nr_bytes == 0 && atomic_load(&tree->nr_mappings) ? UINT64_MAX : nr_bytes;
}

/* -- lookup */

/* All lines at once: one that is missed takes as long, and an insertion moves most of them. */
static void prefetch(const struct mapping_node *node)
{
	const char *line = (const char *)node;

	for (size_t at = 0; at < sizeof(*node); at += LINE)
		__builtin_prefetch(line + at);
}

static const struct mapping_node *first_leaf(const struct mapping_node *node)
{
	while (node->height)
		node = node->children[0];
	return node;
}

static void get(const struct mapping_node *leaf, unsigned i, struct mapping *ret)
{
	*ret = (struct mapping){
		.start = leaf->places[i].start,
		.end = leaf->keys[i],
		.phys = leaf->places[i].phys,
		.flags = leaf->flags[i],
	};
}

/* The first mapping that ends at addr or behind it. */
static bool lower_bound(const struct mapping_tree *tree, uint64_t addr, struct mapping *ret)
{
	const struct mapping_node *node = tree->root, *next = NULL;
	unsigned i;

	if (!node)
		return false;
	while (node->height) {
		i = mapping_node_child(node, addr);
		if (i + 1 < node->nr)
			next = node->children[i + 1];
		node = node->children[i];
		prefetch(node);
	}
	i = mapping_node_search(node, addr);
	/* The leaf's bound was not sharp: it is the first of the leaf behind. */
	if (i == node->nr) {
		if (!next)
			return false;
		node = first_leaf(next);
		i = 0;
	}
	get(node, i, ret);
	return true;
}

bool mapping_find(const struct mapping_tree *tree, uint64_t addr, struct mapping *ret)
{
	return lower_bound(tree, addr, ret) && ret->start <= addr;
}

bool mapping_first(const struct mapping_tree *tree, uint64_t start, uint64_t end,
		   struct mapping *ret)
{
	return lower_bound(tree, start, ret) && ret->start <= end;
}

/* -- insertion */

/* The nodes from the root down to a leaf, by height, and which child is the next. */
struct path {
	struct mapping_node *nodes[MAX_HEIGHT];
	unsigned children[MAX_HEIGHT];
};

static struct mapping_node *descend(struct mapping_tree *tree, uint64_t end, struct path *path)
{
	struct mapping_node *node = tree->root;

	while (node->height) {
		unsigned i = mapping_node_child(node, end);

		path->nodes[node->height] = node;
		path->children[node->height] = i;
		node = node->children[i];
	}
	return node;
}

/* What a node that was full has given away. */
struct half {
	struct mapping_node *node; /* NULL: it was not full */
	uint64_t bound; /* of what is left */
};

/*
 * Splits a node if it is full. *where becomes what it was within the half that is
 * returned.
 */
static struct mapping_node *make_room(struct mapping_tree *tree, struct mapping_node *node,
				      unsigned *where, struct half *ret)
{
	ret->node = NULL;
	if (node->nr < MAPPING_FANOUT)
		return node;
	ret->node = take_node(tree, node->height);
	mapping_node_split(node, ret->node);
	ret->bound = node->keys[node->nr - 1];
	if (*where < node->nr)
		return node;
	*where -= node->nr;
	return ret->node;
}

static void put_leaf(struct mapping_node *leaf, unsigned i, const struct mapping *mapping)
{
	mapping_node_open(leaf, i);
	leaf->keys[i] = mapping->end;
	leaf->places[i] = (struct mapping_place){ mapping->start, mapping->phys };
	leaf->flags[i] = mapping->flags;
}

/* Child i was full: its half goes behind it, and takes its bound over. */
static void put_child(struct mapping_node *node, unsigned i, const struct half *half)
{
	/* That of the last child may be from when the node ended earlier. */
	uint64_t old_bound = i + 1 < node->nr ? node->keys[i] : UINT64_MAX;

	mapping_node_open(node, i + 1);
	node->children[i + 1] = half->node;
	node->keys[i + 1] = old_bound;
	node->keys[i] = half->bound;
}

static void grow_root(struct mapping_tree *tree, const struct half *half)
{
	struct mapping_node *root = take_node(tree, tree->root->height + 1u);

	mapping_node_open(root, 0);
	root->children[0] = tree->root;
	put_child(root, 0, half);
	tree->root = root;
}

void mapping_insert(struct mapping_tree *tree, const struct mapping *mapping)
{
	struct mapping_node *leaf;
	struct half half;
	struct path path;
	unsigned i;

	if (!tree->root)
		tree->root = take_node(tree, 0);
	leaf = descend(tree, mapping->end, &path);
	i = mapping_node_search(leaf, mapping->end);
	leaf = make_room(tree, leaf, &i, &half);
	put_leaf(leaf, i, mapping);
	for (unsigned height = 1; half.node && height <= tree->root->height; height++) {
		struct half child = half;
		struct mapping_node *node = path.nodes[height];

		i = path.children[height];
		node = make_room(tree, node, &i, &half);
		put_child(node, i, &child);
	}
	if (half.node)
		grow_root(tree, &half);
	count(tree, 1, mapping->end - mapping->start + 1); /* 0 stands for 2^64 */
}

/* -- cutting */

/* What trimming has done. */
enum {
	TRIM_CUT = 1, /* a mapping is gone */
	TRIM_LOW = 2, /* a node has become too small */
};

static void count_cut(struct mapping_tree *tree, const struct mapping_node *leaf, unsigned from,
		      unsigned to)
{
	uint64_t nr_bytes = 0;

	for (unsigned i = from; i < to; i++)
		nr_bytes += leaf->keys[i] - leaf->places[i].start + 1;
	count(tree, -(uint64_t)(to - from), -nr_bytes);
}

static unsigned trim_leaf(struct mapping_tree *tree, struct mapping_node *leaf, uint64_t start,
			  uint64_t end)
{
	unsigned from = mapping_node_search(leaf, start);
	unsigned to = from;

	/* Most often it is one mapping. */
	if (to < leaf->nr && leaf->keys[to] == end)
		to++;
	else
		to = end < UINT64_MAX ? mapping_node_search(leaf, end + 1) : leaf->nr;
	if (from == to)
		return 0;
	count_cut(tree, leaf, from, to);
	mapping_node_close(leaf, from, to);
	return TRIM_CUT;
}

/* The children [from, to) leave with all that is in them. */
static unsigned discard(struct mapping_tree *tree, struct mapping_node *node, unsigned from,
			unsigned to)
{
	for (unsigned i = from; i < to; i++) {
		node->children[i]->next = tree->cut;
		tree->cut = node->children[i];
	}
	mapping_node_close(node, from, to);
	return from < to ? TRIM_CUT : 0;
}

/*
 * Takes out what ends in [start, end]. At most two nodes of each height have entries on
 * both sides of an edge; they are left as small as they become, leaves even empty. The others
 * are whole or gone.
 */
static unsigned trim(struct mapping_tree *tree, struct mapping_node *node, uint64_t start,
		     uint64_t end)
{
	unsigned first, last, done;

	if (node->height) {
		first = mapping_node_child(node, start);
		last = end <= node->keys[first] ? first : mapping_node_child(node, end);
		done = trim(tree, node->children[first], start, end);
		if (last > first) {
			done |= trim(tree, node->children[last], start, end);
			done |= discard(tree, node, first + 1, last);
		}
	} else {
		done = trim_leaf(tree, node, start, end);
	}
	return node->nr < MAPPING_MIN_FILL ? done | TRIM_LOW : done;
}

/* Children i and i + 1 become one node, or share what they have. Whether a node is gone. */
static bool join(struct mapping_tree *tree, struct mapping_node *node, unsigned i)
{
	struct mapping_node *left = node->children[i], *right = node->children[i + 1];

	if (left->height)
		left->keys[left->nr - 1] = node->keys[i];
	if (left->nr + right->nr > (int)MAPPING_FANOUT) {
		mapping_node_balance(left, right);
		node->keys[i] = left->keys[left->nr - 1];
		return false;
	}
	mapping_node_merge(left, right);
	free_node(tree, right);
	node->children[i + 1] = left;
	mapping_node_close(node, i, i + 1);
	return true;
}

static bool mend_child(struct mapping_tree *tree, struct mapping_node *node, unsigned i)
{
	if (i >= node->nr || node->nr < 2 || node->children[i]->nr >= MAPPING_MIN_FILL)
		return false;
	return join(tree, node, i ? i - 1 : 0);
}

/*
 * Goes down along the place where start is, or was, and mends what is too small on both
 * sides of it. Whether a node is gone: then its parent may have become too small.
 */
static bool mend(struct mapping_tree *tree, uint64_t start)
{
	struct mapping_node *node = tree->root, *next = NULL; /* next: the one behind it */
	bool gone = false;

	while (node->height) {
		unsigned i = mapping_node_child(node, start);

		gone |= mend_child(tree, node, i + 1);
		gone |= mend_child(tree, node, i);
		if (next)
			gone |= mend_child(tree, next, 0);
		i = mapping_node_child(node, start);
		if (i + 1 < node->nr)
			next = node->children[i + 1];
		else if (next)
			next = next->children[0];
		node = node->children[i];
	}
	return gone;
}

static void shrink_root(struct mapping_tree *tree)
{
	struct mapping_node *root = tree->root;

	while (root && (!root->nr || (root->height && root->nr == 1))) {
		tree->root = root->nr ? root->children[0] : NULL;
		free_node(tree, root);
		root = tree->root;
	}
}

bool mapping_cut(struct mapping_tree *tree, uint64_t start, uint64_t end)
{
	unsigned done = tree->root ? trim(tree, tree->root, start, end) : 0;

	if (!(done & TRIM_CUT))
		return false;
	shrink_root(tree);
	/* As often as there are levels at most: each round but the last has merged one. */
	while (done & TRIM_LOW && tree->root && mend(tree, start))
		shrink_root(tree);
	return true;
}

static void reclaim(struct mapping_tree *tree, struct mapping_node *node)
{
	if (node->height) {
		for (unsigned i = 0; i < node->nr; i++)
			reclaim(tree, node->children[i]);
	} else {
		count_cut(tree, node, 0, node->nr);
	}
	free_node(tree, node);
}

void mapping_reclaim(struct mapping_tree *tree)
{
	while (tree->cut) {
		struct mapping_node *node = tree->cut;

		tree->cut = node->next;
		reclaim(tree, node);
	}
}
