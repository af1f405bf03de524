// SPDX-License-Identifier: GPL-2.0-or-later
#include "engine.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "ctx.h"
#include "log.h"
#include "vfio_user.h"

/*
 * Makes every transaction void that has been submitted. When this returns, no
 * slice is in flight, and no worker will run another, finish one, or begin one:
 * not even one that has it from the queue already. Those that are BUSY still are
 * left to finish_all(). Only the reactor submits, so no new ones come in between.
 */
static void revoke(struct engine *engine)
{
	for (unsigned i = 0; i < DMA_ENGINE_NR_SLOTS_VALUE; i++)
		pool_cancel(engine->ctx->pool, &engine->slots[i].job);
	pthread_rwlock_wrlock(&engine->ctx->dma_lock);
	for (unsigned i = 0; i < DMA_ENGINE_NR_SLOTS_VALUE; i++)
		atomic_fetch_add(&engine->slots[i].generation, 1);
	pthread_rwlock_unlock(&engine->ctx->dma_lock);
}

/* Ends what revoke() made void; engine->lock is held. */
static void finish_all(struct engine *engine, enum dma_engine_status status)
{
	const struct engine_result result = { .status = status };

	for (unsigned i = 0; i < DMA_ENGINE_NR_SLOTS_VALUE; i++)
		engine_finish(&engine->slots[i], engine->slots[i].command.generation, &result);
}

static void clear_slot(struct engine_slot *slot)
{
	memset(&slot->command, 0, sizeof(slot->command));
	slot->status = DMA_STATUS_IDLE;
	slot->fault_info = 0;
	slot->fault_addr = 0;
	slot->result = 0;
	atomic_store(&slot->done, 0);
}

void engine_reset(struct engine *engine)
{
	revoke(engine);
	pthread_mutex_lock(&engine->lock);
	finish_all(engine, DMA_STATUS_ABORTED);
	for (unsigned i = 0; i < DMA_ENGINE_NR_SLOTS_VALUE; i++)
		clear_slot(&engine->slots[i]);
	engine->completed = 0;
	engine->scratch = 0;
	engine->intx = false;
	vfu_intx_deassert(engine->endpoint.vfu);
	pthread_mutex_unlock(&engine->lock);
	/* Fresh zero pages, cheaper than clearing 4 MiB that nobody may have touched. */
	if (madvise(engine->local, DMA_ENGINE_LOCAL_SIZE, MADV_DONTNEED) < 0)
		memset(engine->local, 0, DMA_ENGINE_LOCAL_SIZE);
}

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	(void)kind; /* all are alike to an engine */
	engine_reset(opaque);
}

/* Bus mastering that goes off ends what is in flight; what comes later finds it off. */
static void bus_master(void *opaque, bool on)
{
	struct engine *engine = opaque;

	if (on)
		return;
	revoke(engine);
	pthread_mutex_lock(&engine->lock);
	finish_all(engine, DMA_STATUS_NO_BUS_MASTER);
	pthread_mutex_unlock(&engine->lock);
}

static void log_transaction(const struct engine_slot *slot, enum dma_engine_status status)
{
	const struct engine_command *command = &slot->command;
	uint32_t opcode = command->command & 0xff;
	const struct viommu_log_record record = {
		.status = status,
		.flags = opcode,
		.start = command->iova,
		.end = command->iova + (command->length ? command->length - 1 : 0),
		.target = opcode == DMA_OP_COPY ? command->operand : 0,
	};

	dma_log(&slot->engine->endpoint, record, command->start_ns);
}

void engine_interrupt(struct engine *engine, int vector)
{
	/* Here also INTx needs bus mastering: dma_engine.h says so. */
	if (!vfu_bus_master(engine->endpoint.vfu))
		return;
	if (vector == VFU_INTX)
		engine->intx = true;
	ctx_irq_raise(engine->ctx, engine->endpoint.vfu, engine->endpoint.id, vector);
}

void engine_finish(struct engine_slot *slot, uint64_t generation,
		   const struct engine_result *result)
{
	struct engine *engine = slot->engine;
	uint32_t command = slot->command.command, vector = command >> 16;

	if (slot->status != DMA_STATUS_BUSY || slot->command.generation != generation)
		return;
	log_transaction(slot, result->status);
	atomic_fetch_sub(&engine->endpoint.in_flight, 1);
	slot->result = result->result;
	if (result->status == DMA_STATUS_FAULT) {
		slot->fault_addr = result->fault.addr;
		slot->fault_info = result->fault.reason | (result->fault.is_write ? 0x100 : 0);
	}
	engine->completed++;
	slot->status = result->status;
	/* A reset is silent. */
	if (result->status == DMA_STATUS_ABORTED)
		return;
	if ((command & DMA_COMMAND_IRQ_MASK) == DMA_COMMAND_IRQ_MSIX && vector < engine->nr_vectors)
		engine_interrupt(engine, vector);
	else if ((command & DMA_COMMAND_IRQ_MASK) == DMA_COMMAND_IRQ_INTX)
		engine_interrupt(engine, VFU_INTX);
}

static int init(struct endpoint *endpoint, const struct viommu_endpoint_config *config,
		unsigned nr_vectors)
{
	struct engine *engine = (struct engine *)endpoint;

	(void)config;
	engine->ctx = endpoint->ctx;
	engine->nr_vectors = nr_vectors;
	pthread_mutex_init(&engine->lock, NULL);
	for (unsigned i = 0; i < DMA_ENGINE_NR_SLOTS_VALUE; i++) {
		engine->slots[i].engine = engine;
		engine->slots[i].job.run = engine_run;
	}
	engine->local = mmap(NULL, DMA_ENGINE_LOCAL_SIZE, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (engine->local == MAP_FAILED) {
		engine->local = NULL;
		return -errno;
	}
	return crc32_table_create(&engine->crc32);
}

static void deinit(struct endpoint *endpoint)
{
	struct engine *engine = (struct engine *)endpoint;

	if (engine->local)
		munmap(engine->local, DMA_ENGINE_LOCAL_SIZE);
	crc32_table_destroy(engine->crc32);
	pthread_mutex_destroy(&engine->lock);
}

const struct endpoint_model engine_model = {
	.size = sizeof(struct engine),
	.default_vectors = ENGINE_DEFAULT_VECTORS,
	.max_vectors = ENGINE_MAX_VECTORS,
	.pci = {
		.vendor_id = DMA_ENGINE_VENDOR_ID,
		.device_id = DMA_ENGINE_DEVICE_ID,
		.subsystem_vendor_id = DMA_ENGINE_VENDOR_ID,
		.subsystem_id = DMA_ENGINE_DEVICE_ID,
		.class_code = DMA_ENGINE_CLASS,
		.revision = 1,
		.bars[DMA_ENGINE_BAR_REGS] = { .size = DMA_ENGINE_REGS_SIZE, .is_64bit = true },
		.bars[DMA_ENGINE_BAR_LOCAL] = {
			.size = DMA_ENGINE_LOCAL_SIZE, .is_64bit = true, .prefetchable = true,
		},
		.bars[DMA_ENGINE_BAR_MSIX] = { .size = DMA_ENGINE_MSIX_SIZE, .is_64bit = true },
		.intx = true,
		.nr_msi = 1, /* at least: see create_vfu() */
		.msix_bar = DMA_ENGINE_BAR_MSIX,
		.msix_table_offset = 0,
		.msix_pba_offset = 0x800,
		.ops = {
			.bar_read = engine_bar_read,
			.bar_write = engine_bar_write,
			.reset = reset,
			.bus_master = bus_master,
		},
	},
	.init = init,
	.deinit = deinit,
};
