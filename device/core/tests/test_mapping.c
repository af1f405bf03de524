// SPDX-License-Identifier: GPL-2.0-or-later
/* The mapping store against a table with one entry per page. */
#include "harness.h"

#include <stdlib.h>
#include <string.h>

#include "mapping.h"

#define MODEL_PAGES 512

struct model {
	struct mapping_tree tree;
	/* The id of the mapping at each page, 0 for none. */
	uint32_t pages[MODEL_PAGES];
	uint32_t next_id;
};

/* A generator of our own: the same sequence everywhere. */
static uint32_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ull + 1442695040888963407ull;
	return *state >> 33;
}

static void insert(struct mapping_tree *tree, uint64_t start, uint64_t end, uint64_t phys)
{
	struct mapping *mapping = mapping_alloc(tree);

	REQUIRE(mapping);
	mapping->start = start;
	mapping->end = end;
	mapping->phys = phys;
	mapping->flags = MAPPING_READ;
	mapping_insert(tree, mapping);
}

/* The height of a subtree; order, balance and stored height are checked on the way. */
static uint32_t check_subtree(const struct mapping *node, uint64_t low, uint64_t high)
{
	uint32_t left, right;

	if (!node)
		return 0;
	CHECK(node->start >= low && node->end <= high && node->start <= node->end);
	left = node->left ? check_subtree(node->left, low, node->start - 1) : 0;
	right = node->right ? check_subtree(node->right, node->end + 1, high) : 0;
	CHECK(left <= right + 1 && right <= left + 1);
	CHECK_EQ(node->height, 1 + (left > right ? left : right));
	return node->height;
}

static void model_map(struct model *model, unsigned first, unsigned last)
{
	for (unsigned i = first; i <= last; i++) {
		if (model->pages[i]) {
			CHECK(mapping_first(&model->tree, first, last));
			return;
		}
	}
	CHECK(!mapping_first(&model->tree, first, last));
	model->next_id++;
	insert(&model->tree, first, last, model->next_id);
	for (unsigned i = first; i <= last; i++)
		model->pages[i] = model->next_id;
}

static bool is_edge(const struct model *model, unsigned a, unsigned b)
{
	return !model->pages[a] || model->pages[a] != model->pages[b];
}

static void model_cut(struct model *model, unsigned first, unsigned last)
{
	/* As domain_unmap() does: only where no mapping is cut in half. */
	if ((first && !is_edge(model, first - 1, first)) ||
	    (last + 1 < MODEL_PAGES && !is_edge(model, last, last + 1)))
		return;
	mapping_reclaim(&model->tree, mapping_cut(&model->tree, first, last));
	memset(&model->pages[first], 0, (last - first + 1) * sizeof(model->pages[0]));
}

static void model_compare(const struct model *model)
{
	uint64_t nr_bytes = 0, nr = 0;

	for (unsigned i = 0; i < MODEL_PAGES; i++) {
		const struct mapping *found = mapping_find(&model->tree, i);

		CHECK_EQ(found ? found->phys : 0, model->pages[i]);
		nr_bytes += model->pages[i] != 0;
		nr += model->pages[i] && (!i || model->pages[i - 1] != model->pages[i]);
	}
	CHECK_EQ(atomic_load(&model->tree.nr_mappings), nr);
	CHECK_EQ(mapping_bytes(&model->tree), nr_bytes);
	check_subtree(model->tree.root, 0, UINT64_MAX);
}

TEST(random_operations_agree_with_a_page_table)
{
	static struct model model;
	uint64_t state = 1;

	mapping_tree_init(&model.tree);
	for (unsigned step = 0; step < 20000; step++) {
		unsigned first = next_random(&state) % MODEL_PAGES;
		unsigned span = next_random(&state) % (step % 8 ? 4 : 64);
		unsigned last = first + span < MODEL_PAGES ? first + span : MODEL_PAGES - 1;

		if (next_random(&state) % 5 < 3)
			model_map(&model, first, last);
		else
			model_cut(&model, first, last);
		if (step % 50 == 0)
			model_compare(&model);
	}
	model_compare(&model);
	mapping_tree_deinit(&model.tree);
}

TEST(edges_of_the_address_space)
{
	struct mapping_tree tree;

	mapping_tree_init(&tree);
	insert(&tree, 0, UINT64_MAX, 0);
	CHECK(mapping_find(&tree, 0) && mapping_find(&tree, UINT64_MAX));
	CHECK_EQ(mapping_bytes(&tree), UINT64_MAX);
	mapping_reclaim(&tree, mapping_cut(&tree, 0, UINT64_MAX));
	CHECK(!mapping_find(&tree, 0));
	CHECK_EQ(mapping_bytes(&tree), 0);
	insert(&tree, UINT64_MAX - 0xfff, UINT64_MAX, 0);
	insert(&tree, 0, 0xfff, 0);
	CHECK(!mapping_find(&tree, 0x1000));
	CHECK(!mapping_find(&tree, UINT64_MAX - 0x1000));
	CHECK(mapping_first(&tree, 0x1000, UINT64_MAX) == mapping_find(&tree, UINT64_MAX));
	CHECK(!mapping_first(&tree, 0x1000, UINT64_MAX - 0x1000));
	mapping_reclaim(&tree, mapping_cut(&tree, 0x1000, UINT64_MAX));
	CHECK_EQ(atomic_load(&tree.nr_mappings), 1);
	mapping_tree_deinit(&tree);
}

TEST(a_million_in_order_stay_balanced_and_go_at_once)
{
	const uint64_t nr = 1 << 20;
	struct mapping_tree tree;

	mapping_tree_init(&tree);
	for (uint64_t i = 0; i < nr; i++)
		insert(&tree, i << 12, (i << 12) + 0xfff, i);
	CHECK(tree.root->height <= 24);
	CHECK_EQ(mapping_find(&tree, 0x12345678)->phys, 0x12345);
	mapping_reclaim(&tree, mapping_cut(&tree, 0x1000, UINT64_MAX));
	CHECK_EQ(atomic_load(&tree.nr_mappings), 1);
	CHECK_EQ(mapping_bytes(&tree), 0x1000);
	mapping_tree_deinit(&tree);
}

TEST(freed_mappings_are_used_again)
{
	struct mapping_tree tree;
	struct mapping_slab *slab;

	mapping_tree_init(&tree);
	insert(&tree, 0, 1, 0);
	slab = tree.slabs;
	for (unsigned i = 0; i < 100000; i++) {
		mapping_reclaim(&tree, mapping_cut(&tree, 0, 1));
		insert(&tree, 0, 1, 0);
	}
	CHECK(tree.slabs == slab);
	mapping_tree_deinit(&tree);
}
