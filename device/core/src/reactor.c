// SPDX-License-Identifier: GPL-2.0-or-later
#include "reactor.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "log.h"

#define EVENTS_PER_WAIT 32
#define HEARTBEAT_NS 100000000l

/* One fd of the epoll set. */
struct source {
	int fd;
	reactor_handler handler;
	void *opaque;
	bool removed;
	struct source *next;
};

struct reactor_work {
	struct reactor *reactor;
	reactor_handler handler;
	void *opaque;
	atomic_bool pending;
	bool removed;
	struct reactor_work *next;
};

struct reactor {
	struct log *log;
	int epoll_fd, work_fd, timer_fd;
	pthread_t thread;
	bool started;
	atomic_bool stopping;
	struct source *sources;
	/* Guards the list; no handler runs under it. */
	pthread_mutex_t work_lock;
	struct reactor_work *works;
};

int reactor_add(struct reactor *reactor, int fd, uint32_t events, reactor_handler handler,
		void *opaque)
{
	struct epoll_event event = { .events = events };
	struct source *source = calloc(1, sizeof(*source));

	if (!source)
		return -ENOMEM;
	source->fd = fd;
	source->handler = handler;
	source->opaque = opaque;
	event.data.ptr = source;
	if (epoll_ctl(reactor->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		int err = -errno;

		free(source);
		return err;
	}
	source->next = reactor->sources;
	reactor->sources = source;
	return 0;
}

void reactor_remove(struct reactor *reactor, int fd)
{
	for (struct source *source = reactor->sources; source; source = source->next) {
		if (source->fd != fd || source->removed)
			continue;
		epoll_ctl(reactor->epoll_fd, EPOLL_CTL_DEL, fd, NULL);
		/* The batch in hand may still name it: freed after the batch. */
		source->removed = true;
		return;
	}
}

static void free_removed(struct reactor *reactor, bool all)
{
	struct source **link = &reactor->sources;

	while (*link) {
		struct source *source = *link;

		if (!source->removed && !all) {
			link = &source->next;
			continue;
		}
		*link = source->next;
		free(source);
	}
}

static void drain(int fd)
{
	uint64_t count;

	/* Nonblocking. EAGAIN: somebody else took it, which is as good. */
	if (read(fd, &count, sizeof(count)) < 0)
		return;
}

static void beat(void *opaque, uint32_t events)
{
	struct reactor *reactor = opaque;

	(void)events;
	drain(reactor->timer_fd);
	log_heartbeat(reactor->log);
}

static void run_works(void *opaque, uint32_t events)
{
	struct reactor *reactor = opaque;
	struct reactor_work *work;

	(void)events;
	/* Before looking at the flags: what is posted from here on wakes us again. */
	drain(reactor->work_fd);
	pthread_mutex_lock(&reactor->work_lock);
	for (work = reactor->works; work; work = work->next) {
		if (work->removed || !atomic_exchange(&work->pending, false))
			continue;
		/* The list only grows at its head, and shrinks after the loop. */
		pthread_mutex_unlock(&reactor->work_lock);
		work->handler(work->opaque, 0);
		pthread_mutex_lock(&reactor->work_lock);
	}
	pthread_mutex_unlock(&reactor->work_lock);
}

static void free_removed_works(struct reactor *reactor, bool all)
{
	struct reactor_work **link = &reactor->works;

	pthread_mutex_lock(&reactor->work_lock);
	while (*link) {
		struct reactor_work *work = *link;

		if (!work->removed && !all) {
			link = &work->next;
			continue;
		}
		*link = work->next;
		free(work);
	}
	pthread_mutex_unlock(&reactor->work_lock);
}

int reactor_turn(struct reactor *reactor, int timeout_ms)
{
	struct epoll_event events[EVENTS_PER_WAIT];
	/* EINTR: a debugger, or SIGCONT after SIGSTOP. Other errors cannot happen. */
	int nr = epoll_wait(reactor->epoll_fd, events, EVENTS_PER_WAIT, timeout_ms);

	for (int i = 0; i < nr; i++) {
		struct source *source = events[i].data.ptr;

		if (!source->removed)
			source->handler(source->opaque, events[i].events);
	}
	free_removed(reactor, false);
	free_removed_works(reactor, false);
	return nr;
}

static void *reactor_thread(void *opaque)
{
	struct reactor *reactor = opaque;

	/* Handlers sleep for microseconds (ring_poll.c); the default is 50 us more. */
	prctl(PR_SET_TIMERSLACK, 1ul);
	while (!atomic_load(&reactor->stopping))
		reactor_turn(reactor, -1);
	return NULL;
}

static int open_fds(struct reactor *reactor)
{
	struct itimerspec period = {
		.it_value.tv_nsec = HEARTBEAT_NS,
		.it_interval.tv_nsec = HEARTBEAT_NS,
	};
	int err;

	reactor->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	reactor->work_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	reactor->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (reactor->epoll_fd < 0 || reactor->work_fd < 0 || reactor->timer_fd < 0 ||
	    timerfd_settime(reactor->timer_fd, 0, &period, NULL) < 0)
		return -errno;
	err = reactor_add(reactor, reactor->work_fd, EPOLLIN, run_works, reactor);
	if (!err)
		err = reactor_add(reactor, reactor->timer_fd, EPOLLIN, beat, reactor);
	return err;
}

int reactor_create(struct log *log, struct reactor **ret)
{
	struct reactor *reactor = calloc(1, sizeof(*reactor));
	int err;

	if (!reactor)
		return -ENOMEM;
	reactor->log = log;
	reactor->epoll_fd = reactor->work_fd = reactor->timer_fd = -1;
	pthread_mutex_init(&reactor->work_lock, NULL);
	err = open_fds(reactor);
	if (err) {
		reactor_destroy(reactor);
		return err;
	}
	*ret = reactor;
	return 0;
}

void reactor_destroy(struct reactor *reactor)
{
	if (!reactor)
		return;
	free_removed(reactor, true);
	free_removed_works(reactor, true);
	if (reactor->timer_fd >= 0)
		close(reactor->timer_fd);
	if (reactor->work_fd >= 0)
		close(reactor->work_fd);
	if (reactor->epoll_fd >= 0)
		close(reactor->epoll_fd);
	pthread_mutex_destroy(&reactor->work_lock);
	free(reactor);
}

int reactor_start(struct reactor *reactor)
{
	sigset_t all, old;
	int err;

	/* Signals belong to the program around us, never to its device threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&reactor->thread, NULL, reactor_thread, reactor);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	reactor->started = !err;
	return -err;
}

static void wake(struct reactor *reactor)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: it wakes all the same. */
	if (write(reactor->work_fd, &one, sizeof(one)) < 0)
		return;
}

void reactor_stop(struct reactor *reactor)
{
	if (!reactor->started)
		return;
	atomic_store(&reactor->stopping, true);
	wake(reactor);
	pthread_join(reactor->thread, NULL);
	reactor->started = false;
	atomic_store(&reactor->stopping, false);
}

int reactor_work_create(struct reactor *reactor, reactor_handler handler, void *opaque,
			struct reactor_work **ret)
{
	struct reactor_work *work = calloc(1, sizeof(*work));

	if (!work)
		return -ENOMEM;
	work->reactor = reactor;
	work->handler = handler;
	work->opaque = opaque;
	pthread_mutex_lock(&reactor->work_lock);
	work->next = reactor->works;
	reactor->works = work;
	pthread_mutex_unlock(&reactor->work_lock);
	*ret = work;
	return 0;
}

/* With the reactor stopped, or on its thread: a handler in progress is not waited for. */
void reactor_work_destroy(struct reactor_work *work)
{
	if (!work)
		return;
	pthread_mutex_lock(&work->reactor->work_lock);
	work->removed = true;
	pthread_mutex_unlock(&work->reactor->work_lock);
}

void reactor_work_post(struct reactor_work *work)
{
	if (!atomic_exchange(&work->pending, true))
		wake(work->reactor);
}
