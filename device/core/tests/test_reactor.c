// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "fixture.h"
#include "harness.h"
#include "log.h"
#include "reactor.h"

struct loop {
	struct log *log;
	struct reactor *reactor;
	int fds[2]; /* eventfds */
	int done;   /* written by handlers */
	atomic_uint nr_calls;
};

static void loop_start(struct loop *loop)
{
	*loop = (struct loop){ .fds = { make_eventfd(), make_eventfd() }, .done = make_eventfd() };
	REQUIRE(!log_create(NULL, 64, &loop->log));
	REQUIRE(!reactor_create(loop->log, &loop->reactor));
}

static void loop_stop(struct loop *loop)
{
	reactor_stop(loop->reactor);
	reactor_destroy(loop->reactor);
	log_destroy(loop->log);
	close(loop->fds[0]);
	close(loop->fds[1]);
	close(loop->done);
}

static void add_one(int fd)
{
	uint64_t one = 1;

	REQUIRE(write(fd, &one, sizeof(one)) == sizeof(one));
}

/* Both eventfds are ready at once; whoever comes first removes both. */
static void remove_both(void *opaque, uint32_t events)
{
	struct loop *loop = opaque;

	CHECK(events & EPOLLIN);
	atomic_fetch_add(&loop->nr_calls, 1);
	reactor_remove(loop->reactor, loop->fds[0]);
	reactor_remove(loop->reactor, loop->fds[1]);
	add_one(loop->done);
}

TEST(reactor_removed_fd_is_not_called_in_the_same_batch)
{
	struct loop loop;

	loop_start(&loop);
	add_one(loop.fds[0]);
	add_one(loop.fds[1]);
	REQUIRE(!reactor_add(loop.reactor, loop.fds[0], EPOLLIN, remove_both, &loop));
	REQUIRE(!reactor_add(loop.reactor, loop.fds[1], EPOLLIN, remove_both, &loop));
	CHECK_EQ(reactor_add(loop.reactor, loop.fds[1], EPOLLIN, remove_both, &loop), -EEXIST);
	REQUIRE(!reactor_start(loop.reactor));
	CHECK_EQ(eventfd_wait(loop.done), 1);
	loop_stop(&loop);
	CHECK_EQ(loop.nr_calls, 1);
}

static void count_call(void *opaque, uint32_t events)
{
	struct loop *loop = opaque;

	CHECK_EQ(events, 0);
	atomic_fetch_add(&loop->nr_calls, 1);
	add_one(loop->done);
}

TEST(reactor_work_posted_twice_runs_once)
{
	struct reactor_work *work;
	struct loop loop;

	loop_start(&loop);
	REQUIRE(!reactor_work_create(loop.reactor, count_call, &loop, &work));
	reactor_work_post(work);
	reactor_work_post(work);
	REQUIRE(!reactor_start(loop.reactor));
	CHECK_EQ(eventfd_wait(loop.done), 1);
	reactor_work_post(work);
	CHECK_EQ(eventfd_wait(loop.done), 1);
	reactor_stop(loop.reactor);
	reactor_work_destroy(work);
	reactor_work_destroy(NULL);
	loop_stop(&loop);
	CHECK_EQ(loop.nr_calls, 2);
}

struct poster {
	struct reactor_work *work;
	atomic_uint *posted;
};

static void *post_many(void *opaque)
{
	struct poster *poster = opaque;

	for (int i = 0; i < 10000; i++) {
		atomic_fetch_add(poster->posted, 1);
		reactor_work_post(poster->work);
	}
	return NULL;
}

struct last_seen {
	atomic_uint posted, seen;
};

static void note_posted(void *opaque, uint32_t events)
{
	struct last_seen *last = opaque;

	(void)events;
	atomic_store(&last->seen, atomic_load(&last->posted));
}

/* What is posted is seen: no wake-up is lost between the flag and the eventfd. */
TEST(reactor_work_posted_from_many_threads_is_not_lost)
{
	struct last_seen last = { 0 };
	struct reactor_work *work;
	struct poster poster;
	pthread_t threads[3];
	struct loop loop;
	uint64_t deadline;

	loop_start(&loop);
	REQUIRE(!reactor_work_create(loop.reactor, note_posted, &last, &work));
	REQUIRE(!reactor_start(loop.reactor));
	poster = (struct poster){ .work = work, .posted = &last.posted };
	for (int i = 0; i < 3; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, post_many, &poster));
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	deadline = log_now_ns() + 10000000000u;
	while (atomic_load(&last.seen) != 30000 && log_now_ns() < deadline)
		sched_yield();
	CHECK_EQ(atomic_load(&last.seen), 30000);
	loop_stop(&loop);
}

TEST(reactor_renews_the_heartbeat_and_is_idle_otherwise)
{
	struct timespec cpu_before, cpu_after, nap = { .tv_nsec = 500000000 };
	uint64_t before, after;
	struct loop loop;

	loop_start(&loop);
	REQUIRE(!reactor_start(loop.reactor));
	before = log_header(loop.log)->start_ns;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_before);
	/* The time passing is the subject here. */
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu_after);
	after = __atomic_load_n(&log_header(loop.log)->heartbeat_ns, __ATOMIC_RELAXED);
	CHECK(after - before >= 300000000);
	CHECK((cpu_after.tv_sec - cpu_before.tv_sec) * 1000000000l + cpu_after.tv_nsec -
		      cpu_before.tv_nsec <
	      50000000);
	loop_stop(&loop);
}

TEST(reactor_stop_without_start_is_harmless)
{
	struct loop loop;

	loop_start(&loop);
	loop_stop(&loop);
	reactor_destroy(NULL);
}
