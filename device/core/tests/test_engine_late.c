// SPDX-License-Identifier: GPL-2.0-or-later
/* The dma engine against time: workers, interrupts and clients that come late. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "ctx.h"
#include "engine.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

static struct rig rig;

/* Starts by a posted write, since the next message may be the server's own request. */
static void start_posted(unsigned ep, const struct rig_dma *dma)
{
	struct {
		struct vfio_user_region_access access;
		uint32_t command;
	} message = {
		{ DMA_ENGINE_SLOTS + DMA_SLOT_COMMAND, DMA_ENGINE_BAR_REGS, 4 },
		dma->command,
	};
	const struct vfio_user_header header = {
		.command = VFIO_USER_REGION_WRITE,
		.flags = VFIO_USER_NO_REPLY,
	};

	rig_ep_write(&rig, ep, DMA_ENGINE_SLOTS + DMA_SLOT_IOVA, dma->iova, 8);
	rig_ep_write(&rig, ep, DMA_ENGINE_SLOTS + DMA_SLOT_OPERAND, dma->operand, 8);
	rig_ep_write(&rig, ep, DMA_ENGINE_SLOTS + DMA_SLOT_LENGTH, dma->length, 8);
	client_send(rig.endpoints[ep], header, &message, 20, NULL, 0);
}

/* Takes the server's request for memory that is not shared; refuses it with error if not 0. */
static struct vfio_user_dma_access serve(unsigned ep, uint32_t command, uint32_t error,
					 uint8_t byte)
{
	struct {
		struct vfio_user_dma_access access;
		uint8_t bytes[4096];
	} message;
	struct vfio_user_header header;
	ssize_t len = client_receive(rig.endpoints[ep], &header, &message, sizeof(message));
	size_t reply = sizeof(message.access);

	REQUIRE(len >= (ssize_t)sizeof(message.access));
	CHECK_EQ(header.command, command);
	if (command == VFIO_USER_DMA_READ) {
		memset(message.bytes, byte, sizeof(message.bytes));
		reply += message.access.count;
	} else {
		CHECK_EQ(message.bytes[0], byte);
	}
	header.flags = VFIO_USER_REPLY | (error ? VFIO_USER_ERROR : 0);
	header.error = error;
	client_send(rig.endpoints[ep], header, &message, error ? 0 : reply, NULL, 0);
	return message.access;
}

/* A write that nobody waits for. */
static void post_write(unsigned ep, uint32_t region, uint64_t offset, uint32_t value)
{
	struct {
		struct vfio_user_region_access access;
		uint32_t value;
	} message = { { offset, region, 4 }, value };
	const struct vfio_user_header header = {
		.command = VFIO_USER_REGION_WRITE,
		.flags = VFIO_USER_NO_REPLY,
	};

	client_send(rig.endpoints[ep], header, &message, 20, NULL, 0);
}

static struct engine *engine_of(unsigned ep)
{
	return (struct engine *)rig.ctx->functions[rig.endpoint_index[ep]].endpoint;
}

/* The pool's workers end, and the test takes their place. */
static uint8_t bounce[DMA_SLICE];

static void run_slot(struct engine_slot *slot)
{
	static const atomic_bool never;

	engine_run(&slot->job, &never, bounce);
}

static void *late_worker(void *opaque)
{
	run_slot(opaque);
	return NULL;
}

/* What a worker that comes late must leave alone. */
static void check_untouched(uint32_t status)
{
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_IN_FLIGHT, 4), 0);
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_STATUS, 4), status);
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_DONE, 8), 0);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_WRITE_BYTES), 0);
	CHECK_EQ(*ram_data(&rig, 0), 0);
}

/* A worker has the slot from the queue, and begins when the generation is another. */
TEST(a_late_worker_finds_its_transaction_void)
{
	const struct rig_dma dma = { DMA_OP_FILL, RAM_DATA, PATTERN, MIB };
	struct engine_slot *slot;

	rig_start(&rig, NULL);
	pool_stop(rig.ctx->pool);
	slot = &engine_of(2)->slots[0];
	rig_dma_start(&rig, 2, 0, &dma);
	/* The reset has come this far: */
	pthread_rwlock_wrlock(&rig.ctx->dma_lock);
	atomic_fetch_add(&slot->generation, 1);
	pthread_rwlock_unlock(&rig.ctx->dma_lock);
	run_slot(slot);
	CHECK(!slot->taken);
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_STATUS, 4), DMA_STATUS_BUSY);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), 0);
	CHECK_EQ(*ram_data(&rig, 0), 0);
	rig_ep_write(&rig, 2, DMA_ENGINE_CONTROL, DMA_ENGINE_CONTROL_RESET, 4);
	run_slot(slot);
	check_untouched(DMA_STATUS_IDLE);
	/* Who is late enough runs the next one in its place, once. */
	rig_dma_start(&rig, 2, 0, &dma);
	run_slot(slot);
	run_slot(slot);
	CHECK_EQ(rig_dma_wait(&rig, 2, 0), DMA_STATUS_OK);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), 1);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_IN_FLIGHT, 4), 0);
	CHECK_EQ(*ram_data(&rig, MIB - 1), PATTERN >> 56);
	rig_stop(&rig);
}

/* The same with the reset's own steps: worker and reactor wait for the lock, in this order. */
TEST(a_late_worker_meets_the_end_of_its_transaction)
{
	const struct rig_dma dma = { DMA_OP_FILL, RAM_DATA, PATTERN, MIB };
	struct engine *engine;
	struct engine_slot *slot;

	rig_start(&rig, NULL);
	pool_stop(rig.ctx->pool);
	engine = engine_of(2);
	slot = &engine->slots[0];
	for (unsigned round = 0; round < 40; round++) {
		bool is_reset = round % 2;
		uint64_t generation = atomic_load(&slot->generation);
		pthread_t worker;

		rig_dma_start(&rig, 2, 0, &dma);
		pthread_mutex_lock(&engine->lock);
		REQUIRE(!pthread_create(&worker, NULL, late_worker, slot));
		usleep(1000);
		if (is_reset)
			post_write(2, DMA_ENGINE_BAR_REGS, DMA_ENGINE_CONTROL,
				   DMA_ENGINE_CONTROL_RESET);
		else
			post_write(2, VFU_REGION_CONFIG, 4, 2);
		while (atomic_load(&slot->generation) == generation)
			usleep(10);
		usleep(1000);
		pthread_mutex_unlock(&engine->lock);
		pthread_join(worker, NULL);
		check_untouched(is_reset ? DMA_STATUS_IDLE : DMA_STATUS_NO_BUS_MASTER);
		CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), !is_reset);
		client_config_write(rig.endpoints[2], 4, 6, 2);
	}
	rig_stop(&rig);
}

TEST(a_transaction_ends_once)
{
	const struct engine_result result = { .status = DMA_STATUS_OK };
	const struct rig_dma dma = { DMA_OP_FILL, RAM_DATA, PATTERN, 8 };
	struct engine *engine;
	struct engine_slot *slot;
	uint64_t generation;

	rig_start(&rig, NULL);
	pool_stop(rig.ctx->pool);
	engine = engine_of(2);
	slot = &engine->slots[0];
	rig_dma_start(&rig, 2, 0, &dma);
	pthread_mutex_lock(&engine->lock);
	generation = slot->command.generation;
	engine_finish(slot, generation + 1, &result);
	CHECK_EQ(slot->status, DMA_STATUS_BUSY);
	engine_finish(slot, generation, &result);
	engine_finish(slot, generation, &result);
	pthread_mutex_unlock(&engine->lock);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_IN_FLIGHT, 4), 0);
	CHECK_EQ(rig_ep_read(&rig, 2, DMA_ENGINE_COMPLETED, 8), 1);
	rig_stop(&rig);
}

/* The client refuses, and the transaction is void before its worker can finish it. */
TEST(no_fault_of_a_void_transaction)
{
	const struct rig_dma read = { DMA_OP_READ, 0xf0000000, 0, 8 };
	struct viommu_endpoint_info info[3];
	struct engine *engine;
	struct pollfd request;
	uint64_t generation;

	rig_start(&rig, NULL);
	engine = engine_of(2);
	generation = atomic_load(&engine->slots[0].generation);
	start_posted(2, &read);
	request = (struct pollfd){ .fd = rig.endpoints[2], .events = POLLIN };
	REQUIRE(poll(&request, 1, 10000) == 1);
	pthread_mutex_lock(&engine->lock);
	serve(2, VFIO_USER_DMA_READ, EPERM, 0);
	usleep(20000);
	post_write(2, DMA_ENGINE_BAR_REGS, DMA_ENGINE_CONTROL, DMA_ENGINE_CONTROL_RESET);
	while (atomic_load(&engine->slots[0].generation) == generation)
		usleep(10);
	pthread_mutex_unlock(&engine->lock);
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_STATUS, 4), DMA_STATUS_IDLE);
	pool_stop(rig.ctx->pool);
	CHECK_EQ(viommu_ctx_query_endpoints(rig.ctx, info, 3), 3);
	CHECK(!info[2].faults && !info[2].in_flight);
	rig_stop(&rig);
}

/* Of all threads but this one. */
TEST(device_threads_block_signals)
{
	DIR *tasks = opendir("/proc/self/task");
	struct dirent *entry;
	unsigned nr = 0;

	REQUIRE(tasks);
	rig_start(&rig, NULL);
	while ((entry = readdir(tasks))) {
		unsigned long long blocked = 0;
		char path[300], line[128];
		FILE *file;

		if (entry->d_name[0] == '.' || atoi(entry->d_name) == getpid())
			continue;
		snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
		file = fopen(path, "r");
		REQUIRE(file);
		while (fgets(line, sizeof(line), file) &&
		       sscanf(line, "SigBlk: %llx", &blocked) != 1)
			;
		fclose(file);
		CHECK(blocked & 1ull << (SIGTERM - 1) && blocked & 1ull << (SIGINT - 1));
		nr++;
	}
	CHECK(nr >= 2);
	closedir(tasks);
	rig_stop(&rig);
}

TEST(memory_that_only_the_client_reaches)
{
	const struct rig_dma write = { DMA_OP_FILL, RIG_RAM + RIG_RAM_SIZE - 16, 0x5a5a5a5a5a5a5a5a,
				       4112 };
	const struct rig_dma read = { DMA_OP_READ, 0xf0000ff0, 0, 32 };
	struct vfio_user_dma_access access;
	uint8_t local[32];

	rig_start(&rig, NULL);
	/* From shared memory into what is behind it, a page at a time. */
	start_posted(2, &write);
	access = serve(2, VFIO_USER_DMA_WRITE, 0, 0x5a);
	CHECK(access.address == RIG_RAM + RIG_RAM_SIZE && access.count == 4096);
	CHECK_EQ(rig_dma_wait(&rig, 2, 0), DMA_STATUS_OK);
	CHECK_EQ(rig.ram[RIG_RAM_SIZE - 1], 0x5a);
	start_posted(2, &read);
	access = serve(2, VFIO_USER_DMA_READ, 0, 0x11);
	CHECK(access.address == 0xf0000ff0 && access.count == 16);
	access = serve(2, VFIO_USER_DMA_READ, 0, 0x22);
	CHECK(access.address == 0xf0001000 && access.count == 16);
	CHECK_EQ(rig_dma_wait(&rig, 2, 0), DMA_STATUS_OK);
	read_local(&rig, 2, 0, local, sizeof(local));
	CHECK(local[0] == 0x11 && local[15] == 0x11 && local[16] == 0x22 && local[31] == 0x22);
	rig_stop(&rig);
}

TEST(what_a_refusal_by_the_client_means)
{
	static const struct {
		uint32_t error;
		uint32_t fault;
	} refusals[] = {
		{ EPERM, DMA_FAULT_PERMISSION }, { EACCES, DMA_FAULT_PERMISSION },
		{ ENODEV, DMA_FAULT_MAPPING },   { EFAULT, DMA_FAULT_MAPPING },
		{ EINVAL, DMA_FAULT_MAPPING },   { EIO, DMA_FAULT_BUS },
	};
	const struct rig_dma read = { DMA_OP_READ, 0xf0000ff8, 0, 32 };

	rig_start(&rig, &(struct viommu_iommu_config){ .bypass = 1 });
	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
		start_posted(2, &read);
		serve(2, VFIO_USER_DMA_READ, 0, 0);
		serve(2, VFIO_USER_DMA_READ, refusals[i].error, 0);
		CHECK_EQ(rig_dma_wait(&rig, 2, 0), DMA_STATUS_FAULT);
		check_fault(&rig, 2, refusals[i].fault, 0xf0001000, 8);
	}
	/* Behind our IOMMU the address was good: the bus refused. */
	start_posted(0, &read);
	serve(0, VFIO_USER_DMA_READ, EPERM, 0);
	CHECK_EQ(rig_dma_wait(&rig, 0, 0), DMA_STATUS_FAULT);
	check_fault(&rig, 0, DMA_FAULT_BUS, 0xf0000ff8, 0);
	rig_stop(&rig);
}

TEST(reset_while_the_client_is_asked)
{
	const struct rig_dma read = { DMA_OP_READ, 0xf0000000, 0, 8 };
	struct vfio_user_header header;
	uint8_t payload[64];
	uint64_t local = 1;

	rig_start(&rig, NULL);
	start_posted(2, &read);
	/* The request stays without an answer: the reset must not wait for it. */
	REQUIRE(client_receive(rig.endpoints[2], &header, payload, sizeof(payload)) > 0);
	CHECK_EQ(header.command, VFIO_USER_DMA_READ);
	REQUIRE(!client_reset(rig.endpoints[2]));
	CHECK_EQ(rig_slot(&rig, 2, 0, DMA_SLOT_STATUS, 4), DMA_STATUS_IDLE);
	read_local(&rig, 2, 0, &local, 8);
	CHECK_EQ(local, 0);
	rig_stop(&rig);
}
