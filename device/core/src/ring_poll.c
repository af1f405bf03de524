// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring_poll.h"

#include "log.h"
#include "pool.h"
#include "virtqueue.h"

/* So many waits are left out after one that was for nothing, and after many in a row. */
#define MIN_SKIP 1u
#define MAX_SKIP 16u

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

static void adapt(struct ring_poll_history *history, bool hit)
{
	history->distrust = hit ? 0 : 2 * history->distrust ?: MIN_SKIP;
	if (history->distrust > MAX_SKIP)
		history->distrust = MAX_SKIP;
	history->skip = history->distrust;
}

bool ring_poll_wait(struct ring_poll *poll, struct virtqueue *vq, unsigned kind)
{
	struct ring_poll_history *history = &poll->histories[kind % RING_POLL_NR_KINDS];
	uint64_t now, end;
	int nr;

	if (!poll->max_ns || !processor_is_free(poll))
		return false;
	if (history->skip) {
		history->skip--;
		return false;
	}
	virtqueue_disarm(vq);
	now = log_now_ns();
	end = now + poll->max_ns;
	while (!(nr = virtqueue_poll(vq)) && now < end) {
		relax();
		now = log_now_ns();
	}
	adapt(history, nr);
	return nr;
}
