// SPDX-License-Identifier: GPL-2.0-or-later
#include "ring_poll.h"

#include "log.h"
#include "pool.h"
#include "virtqueue.h"

/* What a window opens with; one that would be smaller is closed. */
#define MIN_WINDOW_NS 2500u

void ring_poll_init(struct ring_poll *poll, const struct pool *pool, uint32_t max_us,
		    uint32_t nr_cpus)
{
	*poll = (struct ring_poll){ .pool = pool, .max_ns = max_us * 1000, .nr_cpus = nr_cpus };
}

static void widen(struct ring_poll *poll)
{
	poll->window_ns = poll->window_ns ? 2 * poll->window_ns : MIN_WINDOW_NS;
	if (poll->window_ns > poll->max_ns)
		poll->window_ns = poll->max_ns;
}

static void narrow(struct ring_poll *poll)
{
	poll->window_ns /= 2;
	if (poll->window_ns < MIN_WINDOW_NS)
		poll->window_ns = 0;
}

void ring_poll_woken(struct ring_poll *poll, uint64_t now_ns)
{
	/* The longest window would have seen it come. */
	if (poll->asleep_ns && now_ns - poll->asleep_ns < poll->max_ns)
		widen(poll);
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

bool ring_poll_wait(struct ring_poll *poll, struct virtqueue *vq)
{
	uint64_t now = log_now_ns(), end = now + poll->window_ns;
	int nr = 0;

	if (poll->window_ns && processor_is_free(poll)) {
		virtqueue_disarm(vq);
		while (!(nr = virtqueue_poll(vq)) && now < end) {
			relax();
			now = log_now_ns();
		}
		if (nr)
			widen(poll);
		else
			narrow(poll);
	}
	poll->asleep_ns = now;
	return nr;
}
