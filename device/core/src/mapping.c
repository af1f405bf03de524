// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping.h"

#include <stdbool.h>
#include <stdlib.h>

#define MIN_SLAB_SIZE 1024
#define MAX_SLAB_SIZE 65536
#define MAX_HEIGHT 64 /* 1.44 log2(n) at most, so there is no such tree */

struct mapping_slab {
	struct mapping_slab *next;
	struct mapping mappings[];
};

_Static_assert(sizeof(struct mapping) <= 64, "a mapping must stay within a cache line");

void mapping_tree_init(struct mapping_tree *tree)
{
	tree->root = NULL;
	tree->free = NULL;
	tree->slabs = NULL;
	tree->slab_size = 0;
	atomic_init(&tree->nr_mappings, 0);
	atomic_init(&tree->nr_bytes, 0);
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

static size_t next_slab_size(const struct mapping_tree *tree)
{
	if (!tree->slab_size)
		return MIN_SLAB_SIZE;
	return tree->slab_size < MAX_SLAB_SIZE ? 2 * tree->slab_size : MAX_SLAB_SIZE;
}

/* False without memory. */
static bool add_slab(struct mapping_tree *tree)
{
	size_t size = next_slab_size(tree);
	struct mapping_slab *slab = malloc(size);

	if (!slab)
		return false;
	tree->slab_size = size;
	slab->next = tree->slabs;
	tree->slabs = slab;
	for (size_t i = 0; i < (size - sizeof(*slab)) / sizeof(slab->mappings[0]); i++) {
		slab->mappings[i].left = tree->free;
		tree->free = &slab->mappings[i];
	}
	return true;
}

struct mapping *mapping_alloc(struct mapping_tree *tree)
{
	struct mapping *mapping;

	if (!tree->free && !add_slab(tree))
		return NULL;
	mapping = tree->free;
	tree->free = mapping->left;
	mapping->left = NULL;
	mapping->right = NULL;
	return mapping;
}

static uint32_t height(const struct mapping *node)
{
	return node ? node->height : 0;
}

static struct mapping *update(struct mapping *node)
{
	uint32_t left = height(node->left), right = height(node->right);

	node->height = 1 + (left > right ? left : right);
	return node;
}

static struct mapping *rotate_left(struct mapping *node)
{
	struct mapping *right = node->right;

	node->right = right->left;
	right->left = update(node);
	return update(right);
}

static struct mapping *rotate_right(struct mapping *node)
{
	struct mapping *left = node->left;

	node->left = left->right;
	left->right = update(node);
	return update(left);
}

/* Repairs a node whose children differ in height by two at most. */
static struct mapping *balance(struct mapping *node)
{
	if (height(node->left) > height(node->right) + 1) {
		if (height(node->left->left) < height(node->left->right))
			node->left = rotate_left(node->left);
		return rotate_right(node);
	}
	if (height(node->right) > height(node->left) + 1) {
		if (height(node->right->right) < height(node->right->left))
			node->right = rotate_right(node->right);
		return rotate_left(node);
	}
	return update(node);
}

/*
 * One tree of left < middle < right. Descends the taller side until the heights
 * meet. Recursion is as deep as the tree is high: 1.44 log2(n), below 50.
 */
static struct mapping *join(struct mapping *left, struct mapping *middle, struct mapping *right)
{
	if (height(left) > height(right) + 1) {
		left->right = join(left->right, middle, right);
		return balance(left);
	}
	if (height(right) > height(left) + 1) {
		right->left = join(left, middle, right->left);
		return balance(right);
	}
	middle->left = left;
	middle->right = right;
	return update(middle);
}

/* Takes the last node out of a tree that is not empty. */
static struct mapping *take_last(struct mapping *node, struct mapping **ret)
{
	struct mapping *rest;

	if (!node->right) {
		*ret = node;
		return node->left;
	}
	rest = take_last(node->right, ret);
	return join(node->left, node, rest);
}

static struct mapping *join_pair(struct mapping *left, struct mapping *right)
{
	struct mapping *middle;

	if (!left)
		return right;
	left = take_last(left, &middle);
	return join(left, middle, right);
}

/* ret_left: the mappings that start below addr; ret_right: the others. */
static void split(struct mapping *node, uint64_t addr, struct mapping **ret_left,
		  struct mapping **ret_right)
{
	struct mapping *inner;

	if (!node) {
		*ret_left = NULL;
		*ret_right = NULL;
	} else if (node->start < addr) {
		split(node->right, addr, &inner, ret_right);
		*ret_left = join(node->left, node, inner);
	} else {
		split(node->left, addr, ret_left, &inner);
		*ret_right = join(inner, node, node->right);
	}
}

static uint64_t mapping_size(const struct mapping *mapping)
{
	return mapping->end - mapping->start + 1; /* 0 stands for 2^64 */
}

/* The links from the root down to where something changes. */
struct path {
	unsigned depth;
	struct mapping **links[MAX_HEIGHT];
};

/* Where the mapping that starts at start is, or would be. */
static struct mapping **descend(struct mapping_tree *tree, uint64_t start, struct path *path)
{
	struct mapping **link = &tree->root;

	path->depth = 0;
	while (*link && (*link)->start != start) {
		path->links[path->depth++] = link;
		link = start < (*link)->start ? &(*link)->left : &(*link)->right;
	}
	return link;
}

/* Repairs the nodes of a path from its end up, as far as heights change. */
static void repair(struct path *path)
{
	while (path->depth) {
		struct mapping **link = path->links[--path->depth];
		uint32_t before = (*link)->height;

		*link = balance(*link);
		if ((*link)->height == before)
			return;
	}
}

/* Takes the node at link, to which path leads, out of the tree. */
static struct mapping *take_out(struct mapping **link, struct path *path)
{
	struct mapping *node = *link, *last, **inner = &node->left;
	unsigned top = path->depth;

	if (!node->left || !node->right) {
		*link = node->left ? node->left : node->right;
		repair(path);
		return node;
	}
	/* The one before it takes its place. */
	path->links[path->depth++] = link;
	while ((*inner)->right) {
		path->links[path->depth++] = inner;
		inner = &(*inner)->right;
	}
	last = *inner;
	*inner = last->left;
	last->left = node->left;
	last->right = node->right;
	last->height = node->height;
	*link = last;
	if (path->depth > top + 1)
		path->links[top + 1] = &last->left;
	repair(path);
	return node;
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

void mapping_insert(struct mapping_tree *tree, struct mapping *mapping)
{
	struct path path;

	*descend(tree, mapping->start, &path) = update(mapping);
	repair(&path);
	count(tree, 1, mapping_size(mapping));
}

const struct mapping *mapping_find(const struct mapping_tree *tree, uint64_t addr)
{
	const struct mapping *node = tree->root;

	while (node) {
		if (addr < node->start)
			node = node->left;
		else if (addr > node->end)
			node = node->right;
		else
			return node;
	}
	return NULL;
}

const struct mapping *mapping_first(const struct mapping_tree *tree, uint64_t start, uint64_t end)
{
	const struct mapping *node = tree->root, *first = NULL;

	while (node) {
		if (node->end < start) {
			node = node->right;
		} else {
			first = node;
			node = node->left;
		}
	}
	return first && first->start <= end ? first : NULL;
}

struct mapping *mapping_cut(struct mapping_tree *tree, uint64_t start, uint64_t end)
{
	struct mapping *below, *rest, *cut, *above = NULL, **link;
	struct path path;

	/* Most often it is one mapping: then the tree changes at one place only. */
	link = descend(tree, start, &path);
	if (*link && (*link)->end == end) {
		cut = take_out(link, &path);
		cut->left = cut->right = NULL;
		return cut;
	}
	split(tree->root, start, &below, &rest);
	if (end == UINT64_MAX)
		cut = rest;
	else
		split(rest, end + 1, &cut, &above);
	tree->root = join_pair(below, above);
	return cut;
}

void mapping_reclaim(struct mapping_tree *tree, struct mapping *cut)
{
	struct mapping *right;

	if (!cut)
		return;
	right = cut->right;
	mapping_reclaim(tree, cut->left);
	count(tree, -1, -mapping_size(cut));
	cut->left = tree->free;
	tree->free = cut;
	mapping_reclaim(tree, right);
}

uint64_t mapping_bytes(const struct mapping_tree *tree)
{
	uint64_t nr_bytes = atomic_load(&tree->nr_bytes);

	return nr_bytes == 0 && atomic_load(&tree->nr_mappings) ? UINT64_MAX : nr_bytes;
}
