// SPDX-License-Identifier: GPL-2.0-or-later
/* Adaptive polling: when the window opens and closes, and what it sees. */
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "engine.h"
#include "fixture.h"
#include "harness.h"
#include "log.h"
#include "memory.h"
#include "ring_poll.h"
#include "rig.h"
#include "virtqueue.h"

#define SIZE 0x4000u
#define AVAIL 0x1000u
#define USED 0x2000u
#define US 1000u
#define MAX_US 20u

struct bench {
	struct pool *pool;
	struct memory *memory;
	struct virtqueue vq;
	struct ring_poll poll;
	uint8_t *ram;
	int fd;
};

static void setup(struct bench *bench, uint32_t nr_cpus)
{
	bench->fd = make_memfd(SIZE, true);
	bench->ram = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, bench->fd, 0);
	REQUIRE(bench->ram != MAP_FAILED && !memory_create(&bench->memory));
	REQUIRE(!memory_map(bench->memory, 0, SIZE, 3, bench->fd, 0));
	REQUIRE(!pool_create(1, &bench->pool));
	bench->vq.memory = bench->memory;
	virtqueue_reset(&bench->vq);
	bench->vq.driver = AVAIL;
	bench->vq.device = USED;
	ring_poll_init(&bench->poll, bench->pool, MAX_US, nr_cpus);
}

static void teardown(struct bench *bench)
{
	pool_destroy(bench->pool);
	memory_destroy(bench->memory);
	munmap(bench->ram, SIZE);
	close(bench->fd);
}

static void make_available(struct bench *bench)
{
	struct vring_avail *avail = (struct vring_avail *)(bench->ram + AVAIL);

	__atomic_fetch_add(&avail->idx, 1, __ATOMIC_SEQ_CST);
}

/* How many waits it takes until one looks, which is told by the driver being silenced. */
static unsigned waits_until_tried(struct bench *bench, unsigned kind)
{
	uint16_t *flags = &((struct vring_used *)(bench->ram + USED))->flags;
	unsigned nr = 0;

	*flags = 0;
	while (!*flags && ++nr < 100)
		ring_poll_wait(&bench->poll, &bench->vq, kind);
	return nr;
}

TEST(waits_for_nothing_become_rare)
{
	static const unsigned expected[] = { 1, 2, 3, 5, 9, 17, 17 };
	struct bench bench = { 0 };

	setup(&bench, 1);
	for (unsigned i = 0; i < 7; i++)
		CHECK_EQ(waits_until_tried(&bench, 3), expected[i]);
	teardown(&bench);
}

TEST(wait_that_sees_a_request_restores_trust)
{
	struct bench bench = { 0 };

	setup(&bench, 1);
	for (unsigned i = 0; i < 7; i++)
		waits_until_tried(&bench, 3);
	make_available(&bench);
	CHECK_EQ(waits_until_tried(&bench, 3), 17); /* this one sees it */
	bench.vq.next_avail++;
	CHECK_EQ(waits_until_tried(&bench, 3), 1);
	teardown(&bench);
}

TEST(trust_depends_on_what_was_answered)
{
	struct bench bench = { 0 };

	setup(&bench, 1);
	for (unsigned i = 0; i < 7; i++)
		waits_until_tried(&bench, 3);
	CHECK_EQ(waits_until_tried(&bench, 4), 1);
	teardown(&bench);
}

TEST(what_comes_too_late_is_tried_with_a_nap_first)
{
	struct bench bench = { 0 };
	const struct ring_poll_history *history = &bench.poll.histories[3];

	setup(&bench, 1);
	CHECK(!history->naps_first);
	waits_until_tried(&bench, 3);
	CHECK(history->naps_first);
	waits_until_tried(&bench, 3);
	CHECK(!history->naps_first);
	CHECK(!bench.poll.histories[4].naps_first);
	teardown(&bench);
}

TEST(nap_is_left_out_when_the_window_is_long_enough)
{
	struct bench bench = { 0 };
	struct ring_poll_history *history = &bench.poll.histories[3];

	setup(&bench, 1);
	make_available(&bench);
	history->naps_first = true;
	bench.poll.max_ns = 1;
	CHECK(ring_poll_wait(&bench.poll, &bench.vq, 3));
	CHECK(history->naps_first);
	/* Longer than any nap. */
	bench.poll.max_ns = 2000000000;
	CHECK(ring_poll_wait(&bench.poll, &bench.vq, 3));
	CHECK(!history->naps_first);
	teardown(&bench);
}

TEST(wait_lasts_as_long_as_it_may)
{
	struct bench bench = { 0 };
	uint64_t start;

	setup(&bench, 1);
	start = log_now_ns();
	CHECK(!ring_poll_wait(&bench.poll, &bench.vq, 0));
	CHECK(log_now_ns() - start >= MAX_US * US);
	teardown(&bench);
}

static void *post_one(void *opaque)
{
	make_available(opaque);
	return NULL;
}

TEST(window_sees_a_request_without_a_notification)
{
	struct bench bench = { 0 };
	pthread_t thread;

	setup(&bench, 1);
	/* Much longer than allowed, so that a busy machine does not matter. */
	bench.poll.max_ns = 2000000000;
	REQUIRE(!pthread_create(&thread, NULL, post_one, &bench));
	CHECK(ring_poll_wait(&bench.poll, &bench.vq, 0));
	CHECK_EQ(virtqueue_poll(&bench.vq), 1);
	pthread_join(thread, NULL);
	/* The driver was asked to keep silent, and is asked for news again. */
	CHECK_EQ(((struct vring_used *)(bench.ram + USED))->flags, VRING_USED_F_NO_NOTIFY);
	CHECK_EQ(virtqueue_arm(&bench.vq), 1);
	CHECK_EQ(((struct vring_used *)(bench.ram + USED))->flags, 0);
	teardown(&bench);
}

/* Long after any nap. On a machine that is too busy for that, it is only seen earlier. */
static void *post_one_late(void *opaque)
{
	const struct timespec late = { .tv_nsec = 20000000 };

	nanosleep(&late, NULL);
	make_available(opaque);
	return NULL;
}

TEST(window_opens_after_a_nap)
{
	struct bench bench = { 0 };
	pthread_t thread;

	setup(&bench, 1);
	bench.poll.max_ns = 2000000000;
	bench.poll.histories[0].naps_first = true;
	REQUIRE(!pthread_create(&thread, NULL, post_one_late, &bench));
	CHECK(ring_poll_wait(&bench.poll, &bench.vq, 0));
	pthread_join(thread, NULL);
	teardown(&bench);
}

TEST(window_is_closed_without_a_processor)
{
	struct bench bench = { 0 };

	setup(&bench, 0);
	make_available(&bench);
	CHECK(!ring_poll_wait(&bench.poll, &bench.vq, 0));
	CHECK_EQ(((struct vring_used *)(bench.ram + USED))->flags, 0);
	CHECK_EQ(virtqueue_arm(&bench.vq), 1);
	teardown(&bench);
}

TEST(a_context_that_polls_answers_as_any_other)
{
	const struct viommu_config config = { .log_capacity = 1 << 14,
					      .poll_us = 20,
					      .nr_cpus = 64 };
	static struct rig rig;

	rig_start_with(&rig, &config, NULL);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	for (unsigned i = 0; i < 1000; i++) {
		CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
		CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), 0);
	}
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DETACH), 1000);
	rig_stop(&rig);
}
