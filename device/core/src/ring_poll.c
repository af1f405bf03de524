// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring_poll.h"

#include <time.h>

#include "log.h"
#include "pool.h"
#include "virtqueue.h"

/* So many waits are left out after one that was for nothing, and after many in a row. */
#define MIN_SKIP 1u
#define MAX_SKIP 16u
/* Asked for; falling asleep and waking add 1 to 15 us, on a processor of a guest most. */
#define NAP_NS 3000

void ring_poll_init(struct ring_poll *poll, const struct pool *pool, uint32_t max_us,
		    uint32_t nr_cpus)
{
	*poll = (struct ring_poll){ .pool = pool, .max_ns = max_us * 1000, .nr_cpus = nr_cpus };
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

static bool processor_is_free(const struct ring_poll *poll)
{
	return 1 + pool_busy(poll->pool) <= poll->nr_cpus;
}

/* Nothing else is served meanwhile; a signal ends it, which is as good. */
static void nap(void)
{
	const struct timespec time = { .tv_nsec = NAP_NS };

	nanosleep(&time, NULL);
}

static void adapt(struct ring_poll_history *history, bool hit)
{
	history->distrust = hit ? 0 : 2 * history->distrust ?: MIN_SKIP;
	if (history->distrust > MAX_SKIP)
		history->distrust = MAX_SKIP;
	history->skip = history->distrust;
}

/* Looks at the ring until there is something on it, or max_ns are over. */
static int look(struct virtqueue *vq, uint32_t max_ns)
{
	uint64_t end = log_now_ns() + max_ns;
	int nr;

	while (!(nr = virtqueue_poll(vq)) && log_now_ns() < end)
		relax();
	return nr;
}

/*
 * The same, after a sleep. overslept: it was there on waking, so early that a look from
 * the start would have seen it.
 */
static int nap_and_look(struct virtqueue *vq, uint32_t max_ns, bool *overslept)
{
	uint64_t start = log_now_ns();
	int nr;

	nap();
	nr = virtqueue_poll(vq);
	*overslept = nr && log_now_ns() - start < max_ns;
	return nr ?: look(vq, max_ns);
}

/* What is on the ring in the end; notifications are off. */
static int wait(const struct ring_poll *poll, struct ring_poll_history *history,
		struct virtqueue *vq)
{
	bool overslept = false;
	int nr = history->naps_first ? nap_and_look(vq, poll->max_ns, &overslept) :
				       look(vq, poll->max_ns);

	if (!nr || overslept)
		history->naps_first = !history->naps_first;
	return nr;
}

bool ring_poll_wait(struct ring_poll *poll, struct virtqueue *vq, unsigned kind)
{
	struct ring_poll_history *history = &poll->histories[kind % RING_POLL_NR_KINDS];
	int nr;

	if (!poll->max_ns || !processor_is_free(poll))
		return false;
	if (history->skip) {
		history->skip--;
		return false;
	}
	virtqueue_disarm(vq);
	nr = wait(poll, history, vq);
	adapt(history, nr);
	return nr;
}
