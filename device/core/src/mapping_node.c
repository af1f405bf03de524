// SPDX-License-Identifier: GPL-2.0-or-later
#include "mapping_node.h"

#include <string.h>

/* Of nodes of one height; the ranges may overlap. */
static void move(struct mapping_node *to, unsigned to_i, const struct mapping_node *from,
		 unsigned from_i, unsigned nr)
{
	if (!nr)
		return;
	memmove(&to->keys[to_i], &from->keys[from_i], nr * sizeof(to->keys[0]));
	if (to->height) {
		memmove(&to->children[to_i], &from->children[from_i], nr * sizeof(to->children[0]));
		return;
	}
	memmove(&to->places[to_i], &from->places[from_i], nr * sizeof(to->places[0]));
	memmove(&to->flags[to_i], &from->flags[from_i], nr * sizeof(to->flags[0]));
}

static void resize(struct mapping_node *node, unsigned nr)
{
	for (unsigned i = nr; i < node->nr; i++)
		node->keys[i] = UINT64_MAX;
	node->nr = nr;
}

void mapping_node_init(struct mapping_node *node, unsigned height)
{
	node->height = height;
	node->nr = MAPPING_FANOUT;
	resize(node, 0);
}

void mapping_node_open(struct mapping_node *node, unsigned i)
{
	move(node, i + 1, node, i, node->nr - i);
	resize(node, node->nr + 1u);
}

void mapping_node_close(struct mapping_node *node, unsigned from, unsigned to)
{
	move(node, from, node, to, node->nr - to);
	resize(node, node->nr - (to - from));
}

/* The last nr entries of left go to the beginning of right. */
static void move_right(struct mapping_node *left, struct mapping_node *right, unsigned nr)
{
	move(right, nr, right, 0, right->nr);
	move(right, 0, left, left->nr - nr, nr);
	resize(right, right->nr + nr);
	resize(left, left->nr - nr);
}

/* The first nr entries of right go to the end of left. */
static void move_left(struct mapping_node *left, struct mapping_node *right, unsigned nr)
{
	move(left, left->nr, right, 0, nr);
	resize(left, left->nr + nr);
	mapping_node_close(right, 0, nr);
}

void mapping_node_split(struct mapping_node *node, struct mapping_node *right)
{
	move_right(node, right, node->nr / 2u);
}

void mapping_node_merge(struct mapping_node *left, struct mapping_node *right)
{
	move_left(left, right, right->nr);
}

void mapping_node_balance(struct mapping_node *left, struct mapping_node *right)
{
	unsigned half = (left->nr + right->nr) / 2u;

	if (left->nr < half)
		move_left(left, right, half - left->nr);
	else
		move_right(left, right, left->nr - half);
}
