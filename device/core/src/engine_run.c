// SPDX-License-Identifier: GPL-2.0-or-later
/* One transaction on a worker thread, slice by slice. */
#include "engine.h"

#include <endian.h>
#include <string.h>

#include "ctx.h"
#include "fault.h"

/* A transaction's state between its slices. */
struct run {
	struct engine *engine;
	struct engine_command command;
	struct dma_transfer transfer;
	_Atomic uint64_t *done; /* the slot's */
	uint64_t offset;        /* bytes moved so far */
	uint8_t *bounce;        /* DMA_SLICE bytes */
	uint32_t crc;
};

static enum dma_engine_status run_local(struct run *run, size_t len, bool is_write)
{
	uint8_t *local = run->engine->local + run->command.operand + run->offset;

	return dma_slice(&run->transfer, run->command.iova + run->offset, local, len, is_write,
			 run->done, &run->offset);
}

/*
 * Byte n is read before byte n is written, and both before byte n + 1: what a
 * refused read leaves in the buffer is still written, and a refusal on the way
 * there is the earlier one.
 */
static enum dma_engine_status run_copy(struct run *run, size_t len)
{
	enum dma_engine_status read_status, status;
	struct dma_fault read_fault;
	size_t nr_read = 0;

	read_status = dma_slice(&run->transfer, run->command.iova + run->offset, run->bounce, len,
				false, NULL, &nr_read);
	read_fault = run->transfer.fault;
	if (read_status != DMA_STATUS_OK && read_status != DMA_STATUS_FAULT)
		return read_status;
	status = dma_slice(&run->transfer, run->command.operand + run->offset, run->bounce, nr_read,
			   true, run->done, &run->offset);
	if (status != DMA_STATUS_OK || read_status == DMA_STATUS_OK)
		return status;
	run->transfer.fault = read_fault;
	return read_status;
}

static enum dma_engine_status run_checksum(struct run *run, size_t len)
{
	enum dma_engine_status status;
	size_t moved = 0;

	status = dma_slice(&run->transfer, run->command.iova + run->offset, run->bounce, len, false,
			   run->done, &moved);
	/* Outside the lock: an UNMAP waits for the copy, not for the arithmetic. */
	run->crc = crc32_update(run->engine->crc32, run->crc, run->bounce, moved);
	run->offset += moved;
	return status;
}

static void prepare_fill(struct run *run)
{
	uint64_t pattern = htole64(run->command.operand);

	for (size_t i = 0; i < DMA_SLICE; i += sizeof(pattern))
		memcpy(run->bounce + i, &pattern, sizeof(pattern));
}

static enum dma_engine_status run_slice(struct run *run)
{
	uint64_t left = run->command.length - run->offset;
	size_t len = left < DMA_SLICE ? left : DMA_SLICE;

	switch (run->command.command & 0xff) {
	case DMA_OP_READ:
		return run_local(run, len, false);
	case DMA_OP_WRITE:
		return run_local(run, len, true);
	case DMA_OP_COPY:
		return run_copy(run, len);
	case DMA_OP_FILL:
		/* Slices are full but for the last, so the pattern is always in phase. */
		return dma_slice(&run->transfer, run->command.iova + run->offset, run->bounce, len,
				 true, run->done, &run->offset);
	default:
		return run_checksum(run, len);
	}
}

static void finish(struct engine_slot *slot, struct run *run, enum dma_engine_status status)
{
	struct engine_result result = {
		.status = status,
		.fault = run->transfer.fault,
	};
	struct engine *engine = run->engine;

	if (status == DMA_STATUS_OK && (run->command.command & 0xff) == DMA_OP_CHECKSUM)
		result.result = run->crc;
	pthread_mutex_lock(&engine->lock);
	/*
	 * If it is void, it is not ours to finish: the slot may even be in use again.
	 * If it is not, whoever makes it so now waits for the lock before it goes on.
	 */
	if (atomic_load(&slot->generation) == run->transfer.expected) {
		/* The driver may look for the event as soon as it sees the status. */
		if (status == DMA_STATUS_FAULT)
			fault_report(&engine->endpoint, &run->transfer.fault);
		engine_finish(slot, run->transfer.expected, &result);
	}
	pthread_mutex_unlock(&engine->lock);
}

void engine_run(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce)
{
	struct engine_slot *slot = (struct engine_slot *)job;
	struct engine *engine = slot->engine;
	enum dma_engine_status status = DMA_STATUS_OK;
	struct run run = {
		.engine = engine,
		.transfer.endpoint = &engine->endpoint,
		.transfer.generation = &slot->generation,
		.done = &slot->done,
		.bounce = bounce,
	};
	bool is_mine;

	pthread_mutex_lock(&engine->lock);
	run.command = slot->command;
	run.transfer.expected = run.command.generation;
	is_mine = slot->status == DMA_STATUS_BUSY && !slot->taken &&
		  atomic_load(&slot->generation) == run.transfer.expected;
	slot->taken |= is_mine;
	pthread_mutex_unlock(&engine->lock);
	/* Void, or ended, between the queue and here. */
	if (!is_mine)
		return;
	if ((run.command.command & 0xff) == DMA_OP_FILL)
		prepare_fill(&run);
	while (status == DMA_STATUS_OK && run.offset < run.command.length)
		status = atomic_load(stop) ? DMA_STATUS_ABORTED : run_slice(&run);
	finish(slot, &run, status);
}
