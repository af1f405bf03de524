/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench.h - what the benchmarks share. Each prints JSON, one object a line. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

static inline int bench_compare(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

/* The median: what it takes, and not what else the machine did meanwhile. Sorts. */
static inline uint32_t bench_median(uint32_t *samples, unsigned nr)
{
	qsort(samples, nr, sizeof(samples[0]), bench_compare);
	return samples[nr / 2];
}

#endif /* BENCH_H */
