// SPDX-License-Identifier: GPL-2.0-or-later
/* The mapping store against a table with one entry per page. */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mapping.h"
#include "mapping_check.h"
#include "mapping_node.h"

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
	const struct mapping mapping = { start, end, phys, MAPPING_READ };

	REQUIRE(!mapping_prepare(tree));
	/* Should every node on the way be full, and the root. */
	if (tree->root && (tree->root->height || tree->root->nr == MAPPING_FANOUT))
		CHECK(tree->nr_free >= tree->root->height + 2u);
	mapping_insert(tree, &mapping);
}

static bool cut(struct mapping_tree *tree, uint64_t start, uint64_t end)
{
	bool any = mapping_cut(tree, start, end);

	mapping_reclaim(tree);
	return any;
}

static bool covers(const struct mapping_tree *tree, uint64_t addr)
{
	struct mapping mapping;

	return mapping_find(tree, addr, &mapping);
}

static void expect_sound(const struct mapping_tree *tree)
{
	const char *wrong = mapping_check(tree);

	if (wrong)
		printf("# %s\n", wrong);
	CHECK(!wrong);
}

static void model_map(struct model *model, unsigned first, unsigned last)
{
	struct mapping found;

	for (unsigned i = first; i <= last; i++) {
		if (model->pages[i]) {
			CHECK(mapping_first(&model->tree, first, last, &found));
			return;
		}
	}
	CHECK(!mapping_first(&model->tree, first, last, &found));
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
	cut(&model->tree, first, last);
	memset(&model->pages[first], 0, (last - first + 1) * sizeof(model->pages[0]));
}

static void model_compare(const struct model *model)
{
	uint64_t nr_bytes = 0, nr = 0;

	for (unsigned i = 0; i < MODEL_PAGES; i++) {
		struct mapping found = { 0 };

		CHECK_EQ(mapping_find(&model->tree, i, &found) ? found.phys : 0, model->pages[i]);
		nr_bytes += model->pages[i] != 0;
		nr += model->pages[i] && (!i || model->pages[i - 1] != model->pages[i]);
	}
	CHECK_EQ(atomic_load(&model->tree.nr_mappings), nr);
	CHECK_EQ(mapping_bytes(&model->tree), nr_bytes);
	expect_sound(&model->tree);
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
	struct mapping found;

	mapping_tree_init(&tree);
	insert(&tree, 0, UINT64_MAX, 0);
	CHECK(covers(&tree, 0) && covers(&tree, UINT64_MAX));
	CHECK_EQ(mapping_bytes(&tree), UINT64_MAX);
	CHECK(cut(&tree, 0, UINT64_MAX));
	CHECK(!covers(&tree, 0));
	CHECK_EQ(mapping_bytes(&tree), 0);
	insert(&tree, UINT64_MAX - 0xfff, UINT64_MAX, 0);
	insert(&tree, 0, 0xfff, 0);
	CHECK(!covers(&tree, 0x1000));
	CHECK(!covers(&tree, UINT64_MAX - 0x1000));
	CHECK(mapping_first(&tree, 0x1000, UINT64_MAX, &found) && found.end == UINT64_MAX);
	CHECK(!mapping_first(&tree, 0x1000, UINT64_MAX - 0x1000, &found));
	CHECK(!cut(&tree, 0x1000, UINT64_MAX - 0x1000));
	CHECK(cut(&tree, 0x1000, UINT64_MAX));
	CHECK_EQ(atomic_load(&tree.nr_mappings), 1);
	mapping_tree_deinit(&tree);
}

#define MANY (1u << 20)

/* Pages in one of three orders; an odd number times any number has no pattern. */
static uint64_t page_in_order(unsigned order, uint64_t i)
{
	switch (order) {
	case 0:
		return i;
	case 1:
		return MANY - 1 - i;
	default:
		return i * 2654435761u % MANY;
	}
}

/* How high a tree of so many mappings can be: with each node as empty as it may be. */
static unsigned max_height(uint64_t nr)
{
	unsigned height = 0;

	for (nr /= 2; nr >= MAPPING_MIN_FILL; nr /= MAPPING_MIN_FILL)
		height++;
	return height;
}

TEST(a_million_in_any_order_are_low_and_go_at_once)
{
	for (unsigned order = 0; order < 3; order++) {
		struct mapping_tree tree;
		struct mapping found;

		mapping_tree_init(&tree);
		for (uint64_t i = 0; i < MANY; i++) {
			uint64_t page = page_in_order(order, i);

			insert(&tree, page << 12, (page << 12) + 0xfff, page);
		}
		expect_sound(&tree);
		CHECK(tree.root->height <= max_height(MANY));
		CHECK(mapping_find(&tree, 0x12345678, &found) && found.phys == 0x12345);
		CHECK(cut(&tree, 0x1000, UINT64_MAX));
		expect_sound(&tree);
		CHECK_EQ(tree.root->height, 0);
		CHECK_EQ(mapping_bytes(&tree), 0x1000);
		mapping_tree_deinit(&tree);
	}
}

/* Every range that begins and ends at one of so many mappings. */
TEST(any_range_leaves_a_sound_tree)
{
	const unsigned nr = 160;

	for (unsigned first = 0; first < nr; first++) {
		for (unsigned last = first; last < nr; last++) {
			struct mapping_tree tree;

			mapping_tree_init(&tree);
			for (unsigned i = 0; i < nr; i++)
				insert(&tree, 2 * i, 2 * i, i);
			CHECK(cut(&tree, 2 * first, 2 * last));
			CHECK_EQ(atomic_load(&tree.nr_mappings), nr - (last - first + 1));
			CHECK(!first || covers(&tree, 2 * (first - 1)));
			CHECK(!covers(&tree, 2 * first) && !covers(&tree, 2 * last));
			CHECK(last + 1 == nr || covers(&tree, 2 * (last + 1)));
			expect_sound(&tree);
			mapping_tree_deinit(&tree);
		}
	}
}

TEST(freed_nodes_are_used_again)
{
	struct mapping_tree tree;
	struct mapping_slab *slab;

	mapping_tree_init(&tree);
	insert(&tree, 0, 1, 0);
	slab = tree.slabs;
	for (unsigned i = 0; i < 100000; i++) {
		cut(&tree, 0, 1);
		insert(&tree, 0, 1, 0);
	}
	CHECK(tree.slabs == slab);
	mapping_tree_deinit(&tree);
}
