/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ring_poll.h - whether to look at a ring for a while before going to sleep.
 *
 * A notification costs the guest an exit and a message, and us a wakeup; a request
 * that follows the last one closely can be had without. How closely they would come
 * cannot be told from those that were notified, for that slows them down: it is
 * tried, and less and less often while it is for nothing, as it also is when the
 * guest waits for this very processor. The pause depends on what the guest was just
 * answered: between MAP and UNMAP it is another than between UNMAP and MAP.
 *
 * A pause that is longer than the window is met by sleeping through its beginning:
 * what comes too late for the one kind of wait is tried with the other.
 *
 * Never while every processor that the guest leaves has something better to do.
 *
 * Reactor thread only.
 */
#ifndef RING_POLL_H
#define RING_POLL_H

#include <stdbool.h>
#include <stdint.h>

/* What can be asked for; more than 20 only makes sense with an emulated guest. */
#define RING_POLL_MAX_US 100u
#define RING_POLL_NR_KINDS 8u

struct pool;
struct virtqueue;

struct ring_poll_history {
	uint8_t distrust; /* how many waits the last misses in a row made us leave out */
	uint8_t skip; /* how many of them are left */
	bool naps_first;
};

struct ring_poll {
	const struct pool *pool; /* whose workers count as busy */
	uint32_t max_ns;
	uint32_t nr_cpus; /* that are ours */
	struct ring_poll_history histories[RING_POLL_NR_KINDS];
};

void ring_poll_init(struct ring_poll *poll, const struct pool *pool, uint32_t max_us,
		    uint32_t nr_cpus);
/*
 * Waits for a request as long as it is worth it. True: there is one, or the ring is
 * broken. kind: of the request answered last, any number.
 */
bool ring_poll_wait(struct ring_poll *poll, struct virtqueue *vq, unsigned kind);

#endif /* RING_POLL_H */
