// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mappings that are taken away in the middle of a copy, which is made so long that it
 * is sure to be the middle. This thread stands for the reactor.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "abortable_copy.h"
#include "ctx.h"
#include "dma.h"
#include "domain.h"
#include "engine.h"
#include "harness.h"
#include "iommu.h"
#include "reactor.h"
#include "rig.h"

#define IOVA 0x100000000ull
#define SIZE (16u << 20)

static struct rig rig;
static struct iommu *iommu;
static struct engine *engine;
static uint8_t *target;

static void setup(void)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), VIRTIO_IOMMU_S_OK);
	CHECK_EQ(rig_map(&rig, 1, IOVA, IOVA + SIZE - 1, RIG_RAM + RIG_DATA, 3), VIRTIO_IOMMU_S_OK);
	iommu = rig.ctx->functions[rig.iommu_index].iommu;
	engine = (struct engine *)rig.ctx->functions[rig.endpoint_index[RIG_EP0]].endpoint;
	target = rig.ram + RIG_DATA;
	reactor_stop(rig.ctx->reactor);
}

struct copy {
	enum dma_engine_status status;
	enum dma_engine_fault reason;
	size_t moved;
	atomic_bool done;
};

static void *write_all(void *opaque)
{
	static uint8_t ones[SIZE];
	struct copy *copy = opaque;
	struct dma_transfer transfer = {
		.endpoint = &engine->endpoint,
		.generation = &engine->slots[0].generation,
		.expected = atomic_load(&engine->slots[0].generation),
	};

	memset(ones, 1, SIZE);
	copy->status = dma_slice(&transfer, IOVA, ones, SIZE, true, NULL, &copy->moved);
	copy->reason = transfer.fault.reason;
	atomic_store(&copy->done, true);
	return NULL;
}

/* What was copied, by halves: it goes on from the front to the back, if it does. */
static size_t nr_copied(void)
{
	size_t copied = 0, untouched = SIZE;

	while (copied < untouched) {
		size_t middle = (copied + untouched) / 2;

		if (__atomic_load_n(&target[middle], __ATOMIC_RELAXED))
			copied = middle + 1;
		else
			untouched = middle;
	}
	return copied;
}

static void take_away(unsigned how)
{
	if (how == 0)
		CHECK_EQ(domain_unmap(iommu, 1, 0, UINT64_MAX), 0);
	else if (how == 1)
		CHECK_EQ(domain_detach(iommu, &engine->endpoint, 1), 0);
	else if (how == 2)
		CHECK_EQ(domain_attach(iommu, &engine->endpoint, 2, false), 0);
	else
		domain_detach_all(iommu);
}

static void put_back(void)
{
	const struct domain_map map = { 1, 3, IOVA, IOVA + SIZE - 1, RIG_RAM + RIG_DATA };

	CHECK_EQ(domain_attach(iommu, &engine->endpoint, 1, false), 0);
	CHECK_EQ(domain_map(iommu, &map), 0);
}

/* True if the copy was caught in the middle. */
static bool check_round(unsigned how)
{
	struct copy copy = { .moved = 0 };
	pthread_t thread;
	size_t nr;

	memset(target, 0, SIZE);
	REQUIRE(!pthread_create(&thread, NULL, write_all, &copy));
	while (!__atomic_load_n(&target[0], __ATOMIC_RELAXED) && !atomic_load(&copy.done))
		;
	take_away(how);
	nr = nr_copied();
	/* The memory is the guest's again. */
	memset(target + nr, 2, SIZE - nr);
	pthread_join(thread, NULL);
	CHECK(copy.moved <= nr && nr <= copy.moved + ABORTABLE_COPY_UNCOUNTED);
	for (size_t i = nr; i < SIZE; i++)
		REQUIRE(target[i] == 2);
	CHECK_EQ(copy.status, copy.moved == SIZE ? DMA_STATUS_OK : DMA_STATUS_FAULT);
	if (copy.moved < SIZE)
		CHECK(copy.reason == DMA_FAULT_MAPPING || copy.reason == DMA_FAULT_DOMAIN);
	put_back();
	return nr > 0 && nr < SIZE;
}

/*
 * Whether a round catches its copy is up to the scheduler: this thread may lose its CPU
 * from the first byte to the last. So a way is tried until it did, or the runner's time
 * limit ends it.
 */
TEST(what_is_taken_away_is_not_written_any_more)
{
	setup();
	for (unsigned how = 0; how < 4; how++) {
		unsigned nr_caught = 0, round;

		for (round = 0; round < 10 || (rig.ctx->can_abort_copies && !nr_caught); round++)
			nr_caught += check_round(how);
		printf("# way %u: %u of %u copies ended in the middle\n", how, nr_caught, round);
	}
	rig_stop(&rig);
}

TEST(where_copies_cannot_be_aborted_they_are_waited_for)
{
	setup();
	rig.ctx->can_abort_copies = false;
	for (unsigned round = 0; round < 8; round++)
		CHECK(!check_round(round % 4));
	rig_stop(&rig);
}
