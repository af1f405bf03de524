/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring_poll.h - whether to look at a ring for a while before going to sleep.
 *
 * A notification costs the guest an exit and a message; a request that follows
 * the last one closely can be had without. The window grows while requests come
 * that closely, shrinks when it was for nothing, and is closed while every
 * processor that the guest leaves has something better to do.
 *
 * Reactor thread only.
 */
#ifndef RING_POLL_H
#define RING_POLL_H

#include <stdbool.h>
#include <stdint.h>

#define RING_POLL_MAX_US 20u

struct pool;
struct virtqueue;

struct ring_poll {
	const struct pool *pool; /* whose workers count as busy */
	uint32_t max_ns;
	uint32_t nr_cpus; /* that are ours */
	uint32_t window_ns;
	uint64_t asleep_ns; /* since when; 0: not yet */
};

void ring_poll_init(struct ring_poll *poll, const struct pool *pool, uint32_t max_us,
		    uint32_t nr_cpus);
/* A notification has come, with requests. */
void ring_poll_woken(struct ring_poll *poll, uint64_t now_ns);
/* Waits for a request as long as it is worth it. True: there is one, or the ring is broken. */
bool ring_poll_wait(struct ring_poll *poll, struct virtqueue *vq);

#endif /* RING_POLL_H */
