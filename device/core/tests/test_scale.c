// SPDX-License-Identifier: GPL-2.0-or-later
/* Ten thousand domains, a million mappings, and the answers past the limits. */
#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include <linux/virtio_iommu.h>

#include "ctx.h"
#include "dma.h"
#include "domain.h"
#include "harness.h"
#include "iommu.h"
#include "reactor.h"
#include "rig.h"
#include "shorthand.h"

#define NR_DOMAINS 10000u
#define NR_MAPPINGS (1u << 20)
#define FIRST_ID 0x10000u
#define BASE 0x100000000ull

static struct rig rig;
static struct iommu *iommu;

/* This thread stands for the reactor. */
static void start(const struct viommu_iommu_config *config)
{
	rig_start_ready(&rig, config);
	iommu = rig.ctx->functions[rig.iommu_index].iommu;
	reactor_stop(rig.ctx->reactor);
}

static size_t heap_bytes(void)
{
	struct mallinfo2 info = mallinfo2();

	return info.uordblks + info.hblkhd;
}

static int map(uint32_t domain, uint64_t page)
{
	const struct domain_map map = {
		.domain = domain,
		.flags = 3,
		.start = BASE + page * PAGE,
		.end = BASE + page * PAGE + PAGE - 1,
		.phys = RIG_RAM,
	};

	return domain_map(iommu, &map);
}

/* Endpoints that nobody can connect to: a domain lives by its endpoints. */
static struct endpoint *add_endpoints(unsigned nr)
{
	struct endpoint *endpoints = calloc(nr, sizeof(*endpoints));

	REQUIRE(endpoints);
	for (unsigned i = 0; i < nr; i++) {
		const struct viommu_endpoint_config config = { .name = "ep", .id = FIRST_ID + i };

		REQUIRE(!endpoint_init(&endpoints[i], rig.ctx, iommu, 0, &config));
		REQUIRE(!iommu_add_endpoint(iommu, &endpoints[i]));
	}
	return endpoints;
}

static unsigned longest_bucket(void)
{
	unsigned longest = 0;

	for (unsigned i = 0; i < IOMMU_ENDPOINT_BUCKETS; i++) {
		unsigned len = 0;

		for (const struct endpoint *ep = iommu->endpoints_by_id[i]; ep;
		     ep = ep->next_in_bucket)
			len++;
		if (len > longest)
			longest = len;
	}
	return longest;
}

TEST(ten_thousand_domains)
{
	const struct viommu_iommu_config config = { .max_domains = NR_DOMAINS };
	struct endpoint *endpoints;
	struct mapping mapping;
	size_t before;

	start(&config);
	endpoints = add_endpoints(NR_DOMAINS + 1);
	CHECK(longest_bucket() <= 40); /* 10 on average */
	before = heap_bytes();
	for (unsigned i = 0; i < NR_DOMAINS; i++) {
		CHECK(iommu_find_endpoint(iommu, FIRST_ID + i) == &endpoints[i]);
		REQUIRE(!domain_attach(iommu, &endpoints[i], i, false));
		REQUIRE(!map(i, i));
	}
	printf("# %zu bytes for a domain with a mapping\n", (heap_bytes() - before) / NR_DOMAINS);
	CHECK((heap_bytes() - before) / NR_DOMAINS < 2048);
	CHECK_EQ(viommu_ctx_query_domains(rig.ctx, NULL, 0), NR_DOMAINS);
	CHECK_EQ(domain_attach(iommu, &endpoints[NR_DOMAINS], NR_DOMAINS, false), -ENOMEM);
	/* Each has its own mapping and no other's. */
	for (unsigned i = 0; i < NR_DOMAINS; i += 97) {
		const struct mapping_tree *tree = &domain_find(&iommu->domains, i)->mappings;

		CHECK(mapping_find(tree, BASE + i * PAGE, &mapping));
		CHECK(!mapping_find(tree, BASE + (i + 1) * PAGE, &mapping));
	}
	/* Room again as soon as one goes. */
	CHECK_EQ(domain_detach(iommu, &endpoints[5], 5), 0);
	CHECK_EQ(domain_attach(iommu, &endpoints[NR_DOMAINS], NR_DOMAINS, false), 0);
	domain_detach_all(iommu);
	CHECK_EQ(viommu_ctx_query_domains(rig.ctx, NULL, 0), 0);
	rig_stop(&rig);
	for (unsigned i = 0; i <= NR_DOMAINS; i++)
		endpoint_deinit(&endpoints[i]);
	free(endpoints);
}

/* Multiplied by an odd number, pages come in an order without order. */
static void fill_domain(uint64_t factor, size_t *ret_bytes)
{
	size_t before = heap_bytes();

	for (unsigned i = 0; i < NR_MAPPINGS; i++)
		REQUIRE(!map(1, i * factor % NR_MAPPINGS));
	*ret_bytes = (heap_bytes() - before) / NR_MAPPINGS;
	printf("# %zu bytes for a mapping\n", *ret_bytes);
	/* The sanitizers' allocators do not tell. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
	CHECK(*ret_bytes > 0);
#endif
	CHECK(*ret_bytes <= 64);
}

TEST(a_million_mappings_in_a_domain)
{
	/* The last one is -1: backwards. */
	static const uint64_t factors[] = { 7919, 1, NR_MAPPINGS - 1 };

	for (unsigned i = 0; i < sizeof(factors) / sizeof(factors[0]); i++) {
		size_t bytes;

		start(NULL);
		CHECK_EQ(domain_attach(iommu, iommu_find_endpoint(iommu, RIG_ID1), 1, false), 0);
		fill_domain(factors[i], &bytes);
		CHECK_EQ(map(1, NR_MAPPINGS), -ENOMEM);
		CHECK_EQ(domain_unmap(iommu, 1, BASE, BASE + PAGE - 1), 0);
		CHECK_EQ(map(1, NR_MAPPINGS), 0);
		rig_stop(&rig);
	}
}

/* Whoever takes three of four away at random and maps others must not need more. */
TEST(mappings_that_come_and_go_leave_no_gaps)
{
	size_t before, bytes;

	start(NULL);
	CHECK_EQ(domain_attach(iommu, iommu_find_endpoint(iommu, RIG_ID1), 1, false), 0);
	before = heap_bytes();
	for (unsigned i = 0; i < NR_MAPPINGS; i++)
		REQUIRE(!map(1, i));
	for (unsigned i = 0; i < NR_MAPPINGS; i++) {
		uint64_t at = BASE + i * 7919ull % NR_MAPPINGS * PAGE;

		if (i % 4)
			REQUIRE(!domain_unmap(iommu, 1, at, at + PAGE - 1));
	}
	for (unsigned i = 0; i < NR_MAPPINGS * 3 / 4; i++)
		REQUIRE(!map(1, NR_MAPPINGS + i * 7919ull % NR_MAPPINGS));
	bytes = (heap_bytes() - before) / NR_MAPPINGS;
	printf("# %zu bytes for a mapping\n", bytes);
	CHECK(bytes <= 64);
	rig_stop(&rig);
}
