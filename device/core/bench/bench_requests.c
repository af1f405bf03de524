// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The core alone, replaying full rings: MAP, UNMAP and ATTACH per second in a
 * domain with 1 to a million mappings; and what a mapping costs in memory. The
 * figures are those of the median ring.
 *
 * The domain's mappings are every other page; what is timed are pages between
 * them, at random places.
 */
#include <malloc.h>
#include <stdio.h>

#include "bench.h"
#include "harness.h"
#include "iommu.h"
#include "ring.h"

#define DOMAIN 1u
#define OTHER_DOMAIN 2u
#define NR_ROUNDS 2000u
#define FIRST_PAGE 0x1000000ull /* above every reserved region */

static struct ring ring;
static uint64_t random_state = 88172645463325252ull;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static void populate(uint64_t from, uint64_t to)
{
	while (from < to) {
		unsigned nr = to - from < RING_REQUESTS ? to - from : RING_REQUESTS;

		for (unsigned n = 0; n < nr; n++)
			ring_set_map(&ring, n, DOMAIN, FIRST_PAGE + 2 * (from + n));
		ring_run(&ring, nr);
		from += nr;
	}
}

/* Distinct gaps: a window of the domain for each request of the batch. */
static void choose_pages(uint64_t nr_mappings, uint64_t *pages)
{
	uint64_t window = nr_mappings / RING_REQUESTS ?: 1;

	for (unsigned n = 0; n < RING_REQUESTS; n++)
		pages[n] = FIRST_PAGE + 2 * (n * window + next_random() % window) + 1;
}

static void report(const char *request, uint64_t nr_mappings, uint32_t *ring_ns, unsigned nr)
{
	double ns = (double)bench_median(ring_ns, nr) / RING_REQUESTS;

	printf("{\"bench\": \"requests\", \"request\": \"%s\", \"mappings\": %llu, "
	       "\"ns_per_request\": %.1f, \"requests_per_second\": %.0f}\n",
	       request, (unsigned long long)nr_mappings, ns, 1e9 / ns);
}

static void time_map_unmap(uint64_t nr_mappings)
{
	static uint32_t map_ns[NR_ROUNDS], unmap_ns[NR_ROUNDS];
	uint64_t pages[RING_REQUESTS];

	for (unsigned round = 0; round < NR_ROUNDS; round++) {
		choose_pages(nr_mappings, pages);
		for (unsigned n = 0; n < RING_REQUESTS; n++)
			ring_set_map(&ring, n, DOMAIN, pages[n]);
		map_ns[round] = ring_run(&ring, RING_REQUESTS);
		for (unsigned n = 0; n < RING_REQUESTS; n++)
			ring_set_unmap(&ring, n, DOMAIN, pages[n]);
		unmap_ns[round] = ring_run(&ring, RING_REQUESTS);
	}
	report("map", nr_mappings, map_ns, NR_ROUNDS);
	report("unmap", nr_mappings, unmap_ns, NR_ROUNDS);
}

/* An endpoint moves back and forth between the domain and one that lives only for it. */
static void time_attach(uint64_t nr_mappings)
{
	static uint32_t ns[NR_ROUNDS / 4];

	for (unsigned n = 0; n < RING_REQUESTS; n++)
		ring_set_attach(&ring, n, n % 2 ? DOMAIN : OTHER_DOMAIN, RIG_ID0);
	for (unsigned round = 0; round < NR_ROUNDS / 4; round++)
		ns[round] = ring_run(&ring, RING_REQUESTS);
	report("attach", nr_mappings, ns, NR_ROUNDS / 4);
}

static uint64_t heap_bytes(void)
{
	struct mallinfo2 info = mallinfo2();

	/* Slabs may be big enough to be mapped on their own. */
	return info.uordblks + info.hblkhd;
}

int main(void)
{
	static const uint64_t sizes[] = { 1, 10, 100, 1000, 10000, 100000, 1000000 };
	uint64_t nr = 0, before;

	ring_start(&ring);
	for (unsigned n = 0; n < 2; n++)
		ring_set_attach(&ring, n, DOMAIN, n ? RIG_ID1 : RIG_ID0);
	ring_run(&ring, 2);
	before = heap_bytes();
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		populate(nr, sizes[i]);
		nr = sizes[i];
		time_map_unmap(nr);
		time_attach(nr);
	}
	printf("{\"bench\": \"memory\", \"mappings\": %llu, \"bytes_per_mapping\": %.1f}\n",
	       (unsigned long long)nr, (double)(heap_bytes() - before) / nr);
	ring_stop(&ring);
	return 0;
}
