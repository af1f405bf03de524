/* SPDX-License-Identifier: GPL-2.0-or-later */
/* clock.h - CLOCK_MONOTONIC in nanoseconds, and waiting against a deadline. */
#ifndef PROBE_CLOCK_H
#define PROBE_CLOCK_H

#include <poll.h>
#include <stdint.h>
#include <time.h>

#define NS_PER_SEC 1000000000ull
#define NS_PER_MS 1000000ull
#define NS_PER_US 1000ull

#define TIMEOUT_MS_DEFAULT 5000ull
#define TIMEOUT_MS_MAX 600000ull

static inline uint64_t clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * NS_PER_SEC + (uint64_t)now.tv_nsec;
}

/* Wait for input on @fd (or only for time with -1) for at most @ns. As ppoll(2). */
static inline int clock_poll(int fd, uint64_t ns)
{
	struct pollfd item = { .fd = fd, .events = POLLIN };
	struct timespec timeout = {
		.tv_sec = (time_t)(ns / NS_PER_SEC),
		.tv_nsec = (long)(ns % NS_PER_SEC),
	};

	return ppoll(&item, 1, &timeout, NULL);
}

#endif /* PROBE_CLOCK_H */
