/* SPDX-License-Identifier: GPL-2.0-or-later */
/* bench.h - what the benchmarks share. Each prints JSON, one object a line. */
#ifndef BENCH_H
#define BENCH_H

#include <stdint.h>
#include <time.h>

static inline uint64_t bench_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

#endif /* BENCH_H */
