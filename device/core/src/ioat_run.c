// SPDX-License-Identifier: GPL-2.0-or-later
/* A channel's descriptors, on a worker. */
#include "ioat.h"

#include <endian.h>
#include <string.h>

#include "ctx.h"
#include "fault.h"
#include "log.h"
#include "regs.h"

/* Then others have their turn. */
#define BATCH 32

struct descriptor {
	uint64_t addr;
	uint32_t length, control;
	uint64_t source, destination, next;
	uint64_t start_ns;
};

struct run {
	struct ioat_channel *channel;
	struct ioat *ioat;
	struct dma_transfer transfer;
	uint8_t *bounce;
	struct descriptor desc;
	bool is_first; /* of its chain */
	/* Why the channel has to halt, CHANERR bits; 0: it need not. */
	uint32_t error;
	bool refused; /* by the IOMMU: transfer.fault says what */
};

/* Whether the worker's channel is still its own; the lock is held. */
static bool is_mine(const struct run *run)
{
	return atomic_load(&run->channel->generation) == run->transfer.expected;
}

/* One access. False if the channel cannot go on: for that reason, or because it was stopped. */
static bool access_memory(struct run *run, uint64_t iova, void *buf, size_t len, bool is_write,
			  uint32_t error)
{
	size_t moved = 0;
	enum dma_engine_status status =
		dma_slice(&run->transfer, iova, buf, len, is_write, NULL, &moved);

	if (status == DMA_STATUS_OK)
		return true;
	/* Without bus mastering, it is refused as well, though by no IOMMU. */
	run->error = error;
	run->refused = status == DMA_STATUS_FAULT;
	return false;
}

static bool fetch(struct run *run)
{
	struct descriptor *desc = &run->desc;
	uint8_t raw[IOAT_DESCRIPTOR_SIZE];

	if (desc->addr % IOAT_DESCRIPTOR_SIZE) {
		run->error = run->is_first ? IOAT_CHANERR_CHAIN_ADDRESS :
					     IOAT_CHANERR_NEXT_ALIGNMENT;
		return false;
	}
	if (!access_memory(run, desc->addr, raw, sizeof(raw), false,
			   run->is_first ? IOAT_CHANERR_CHAIN_ADDRESS : IOAT_CHANERR_NEXT_ADDRESS))
		return false;
	desc->length = regs_get(raw, IOAT_DESC_LENGTH, 4);
	desc->control = regs_get(raw, IOAT_DESC_CONTROL, 4);
	desc->source = regs_get(raw, IOAT_DESC_SOURCE, 8);
	desc->destination = regs_get(raw, IOAT_DESC_DESTINATION, 8);
	desc->next = regs_get(raw, IOAT_DESC_NEXT, 8);
	if (IOAT_CONTROL_OPERATION(desc->control) != IOAT_OPERATION_COPY)
		run->error = IOAT_CHANERR_CONTROL;
	else if (!desc->length || desc->length > 1u << IOAT_XFERCAP_VALUE)
		run->error = IOAT_CHANERR_LENGTH;
	return !run->error;
}

_Static_assert(1u << IOAT_XFERCAP_VALUE <= DMA_SLICE, "a descriptor fits the bounce buffer");

static bool copy(struct run *run)
{
	const struct descriptor *desc = &run->desc;

	if (desc->control & IOAT_CONTROL_NULL)
		return true;
	return access_memory(run, desc->source, run->bounce, desc->length, false,
			     IOAT_CHANERR_READ_DATA) &&
	       access_memory(run, desc->destination, run->bounce, desc->length, true,
			     IOAT_CHANERR_WRITE_DATA);
}

/* Lays CHANSTS down where the driver wants it. */
static bool write_back(struct run *run, uint64_t chancmp, uint64_t status)
{
	status = htole64(status);
	return access_memory(run, chancmp, &status, sizeof(status), true,
			     IOAT_CHANERR_COMPLETION_ADDRESS);
}

static enum dma_engine_status engine_status(const struct run *run)
{
	if (!run->error)
		return DMA_STATUS_OK;
	if (run->refused)
		return DMA_STATUS_FAULT;
	return vfu_bus_master(run->ioat->endpoint.vfu) ? DMA_STATUS_INVALID :
							 DMA_STATUS_NO_BUS_MASTER;
}

/* The lock is held, so that no record of a stopped channel follows the reset's. */
static void log_descriptor(struct run *run)
{
	const struct descriptor *desc = &run->desc;
	uint32_t snoop = desc->control &
			 (IOAT_CONTROL_SOURCE_NO_SNOOP | IOAT_CONTROL_DESTINATION_NO_SNOOP);
	const struct viommu_log_record record = {
		.status = engine_status(run),
		/* Bits 8 and 9: no-snoop reads and writes. */
		.flags = DMA_OP_COPY | snoop << 7,
		/* One that could not be read itself has nothing but its address. */
		.start = desc->length ? desc->source : desc->addr,
		.end = desc->length ? desc->source + desc->length - 1 : desc->addr,
		.target = desc->destination,
	};

	dma_log(&run->ioat->endpoint, record, desc->start_ns);
}

/*
 * The channel halts: registers, then the write-back, then the interrupt. A
 * write-back that is refused itself only adds its bit.
 */
static void halt(struct run *run)
{
	struct ioat_channel *channel = run->channel;
	uint32_t error = run->error;
	uint64_t chancmp, status;
	bool wanted;

	pthread_mutex_lock(&run->ioat->lock);
	if (!is_mine(run)) {
		pthread_mutex_unlock(&run->ioat->lock);
		return;
	}
	if (run->refused)
		fault_report(&run->ioat->endpoint, &run->transfer.fault);
	log_descriptor(run);
	wanted = channel->control & IOAT_CHANCTRL_ERR_COMPLETION_EN &&
		 !(error & IOAT_CHANERR_COMPLETION_ADDRESS);
	chancmp = channel->chancmp;
	status = (channel->completed & IOAT_CHANSTS_ADDRESS) | IOAT_HALTED;
	pthread_mutex_unlock(&run->ioat->lock);

	run->refused = false;
	if (wanted && !write_back(run, chancmp, status))
		error |= run->error;
	pthread_mutex_lock(&run->ioat->lock);
	if (is_mine(run)) {
		if (run->refused)
			fault_report(&run->ioat->endpoint, &run->transfer.fault);
		channel->taken = false;
		ioat_channel_halt(channel, error);
		if (channel->control & IOAT_CHANCTRL_ERR_INT_EN)
			ioat_interrupt(channel);
	}
	pthread_mutex_unlock(&run->ioat->lock);
}

/* What the channel rests in if this was the last; the lock is held. */
static enum ioat_state state_after(const struct ioat_channel *channel, uint16_t nr_done)
{
	if (channel->suspend)
		return IOAT_SUSPENDED;
	return nr_done == channel->dmacount ? IOAT_DONE : IOAT_ACTIVE;
}

/* Data are in place: the write-back, then the registers, then the interrupt. */
static bool complete(struct run *run)
{
	struct ioat_channel *channel = run->channel;
	const struct descriptor *desc = &run->desc;
	uint64_t chancmp, status;
	bool mine;

	pthread_mutex_lock(&run->ioat->lock);
	chancmp = channel->chancmp;
	status = desc->addr | state_after(channel, channel->nr_done + 1);
	pthread_mutex_unlock(&run->ioat->lock);
	if (desc->control & IOAT_CONTROL_COMPLETION && !write_back(run, chancmp, status))
		return false;
	pthread_mutex_lock(&run->ioat->lock);
	mine = is_mine(run);
	if (mine) {
		log_descriptor(run);
		channel->nr_done++;
		channel->completed = desc->addr;
		channel->next = desc->next;
		channel->is_first = false;
		/* Before the interrupt: its handler may look. */
		if (state_after(channel, channel->nr_done) != IOAT_ACTIVE) {
			channel->taken = false;
			ioat_channel_rest(channel, state_after(channel, channel->nr_done));
		}
		if (desc->control & IOAT_CONTROL_INTERRUPT)
			ioat_interrupt(channel);
	}
	pthread_mutex_unlock(&run->ioat->lock);
	return mine;
}

/* The channel's next descriptor; false if it has none, or is not ours. */
static bool begin(struct run *run)
{
	struct ioat_channel *channel = run->channel;
	bool ok;

	pthread_mutex_lock(&run->ioat->lock);
	ok = is_mine(run) && channel->taken && channel->state == IOAT_ACTIVE;
	if (ok && channel->suspend) {
		channel->taken = false;
		ioat_channel_rest(channel, IOAT_SUSPENDED);
		ok = false;
	}
	run->is_first = channel->is_first;
	run->desc = (struct descriptor){ .addr = channel->next, .start_ns = log_now_ns() };
	pthread_mutex_unlock(&run->ioat->lock);
	return ok;
}

static bool take(struct run *run)
{
	struct ioat_channel *channel = run->channel;
	bool ok;

	pthread_mutex_lock(&run->ioat->lock);
	run->transfer.expected = atomic_load(&channel->generation);
	ok = channel->state == IOAT_ACTIVE && !channel->taken;
	channel->taken |= ok;
	pthread_mutex_unlock(&run->ioat->lock);
	return ok;
}

/* Back into the queue, behind everybody else's work. */
static void give_way(struct run *run)
{
	pthread_mutex_lock(&run->ioat->lock);
	if (is_mine(run) && run->channel->taken) {
		run->channel->taken = false;
		pool_submit(run->ioat->endpoint.ctx->pool, &run->channel->job);
	}
	pthread_mutex_unlock(&run->ioat->lock);
}

void ioat_run(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce)
{
	struct ioat_channel *channel = (struct ioat_channel *)job;
	struct run run = {
		.channel = channel,
		.ioat = channel->ioat,
		.transfer = {
			.endpoint = &channel->ioat->endpoint,
			.generation = &channel->generation,
		},
		.bounce = bounce,
	};

	if (!take(&run))
		return;
	for (unsigned i = 0; i < BATCH && !atomic_load(stop); i++) {
		if (!begin(&run))
			return;
		if (!fetch(&run) || !copy(&run) || !complete(&run)) {
			/* Stopped in the middle, it is not ours to halt. */
			if (run.error)
				halt(&run);
			return;
		}
	}
	give_way(&run);
}
