// SPDX-License-Identifier: GPL-2.0-or-later
/* Adaptive polling: when the window opens and closes, and what it sees. */
#include <linux/virtio_ring.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
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
	ring_poll_init(&bench->poll, bench->pool, RING_POLL_MAX_US, nr_cpus);
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

TEST(window_opens_for_requests_that_come_closely)
{
	struct bench bench = { 0 };

	setup(&bench, 1);
	ring_poll_woken(&bench.poll, log_now_ns());
	CHECK_EQ(bench.poll.window_ns, 0); /* the first one says nothing */
	CHECK(!ring_poll_wait(&bench.poll, &bench.vq));
	ring_poll_woken(&bench.poll, bench.poll.asleep_ns + (RING_POLL_MAX_US + 1) * US);
	CHECK_EQ(bench.poll.window_ns, 0);
	for (unsigned i = 0; i < 8; i++)
		ring_poll_woken(&bench.poll, bench.poll.asleep_ns + US);
	CHECK_EQ(bench.poll.window_ns, RING_POLL_MAX_US * US);
	teardown(&bench);
}

TEST(window_closes_when_nothing_comes)
{
	struct bench bench = { 0 };
	uint64_t start;

	setup(&bench, 1);
	bench.poll.window_ns = RING_POLL_MAX_US * US;
	start = log_now_ns();
	CHECK(!ring_poll_wait(&bench.poll, &bench.vq));
	CHECK(log_now_ns() - start >= RING_POLL_MAX_US * US);
	CHECK_EQ(bench.poll.window_ns, RING_POLL_MAX_US * US / 2);
	for (unsigned i = 0; i < 4; i++)
		CHECK(!ring_poll_wait(&bench.poll, &bench.vq));
	CHECK_EQ(bench.poll.window_ns, 0);
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
	bench.poll.max_ns = bench.poll.window_ns = 2000000000;
	REQUIRE(!pthread_create(&thread, NULL, post_one, &bench));
	CHECK(ring_poll_wait(&bench.poll, &bench.vq));
	CHECK_EQ(virtqueue_poll(&bench.vq), 1);
	pthread_join(thread, NULL);
	/* The driver was asked to keep silent, and is asked for news again. */
	CHECK_EQ(((struct vring_used *)(bench.ram + USED))->flags, VRING_USED_F_NO_NOTIFY);
	CHECK_EQ(virtqueue_arm(&bench.vq), 1);
	CHECK_EQ(((struct vring_used *)(bench.ram + USED))->flags, 0);
	teardown(&bench);
}

TEST(window_is_closed_without_a_processor)
{
	struct bench bench = { 0 };

	setup(&bench, 0);
	bench.poll.window_ns = RING_POLL_MAX_US * US;
	make_available(&bench);
	CHECK(!ring_poll_wait(&bench.poll, &bench.vq));
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
