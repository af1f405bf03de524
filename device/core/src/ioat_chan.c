// SPDX-License-Identifier: GPL-2.0-or-later
/* The registers of a channel. */
#include "ioat.h"

#include <string.h>

#include "ctx.h"
#include "log.h"
#include "regs.h"

/* Registers that can be written, the 64-bit ones by halves. */
static const struct regs_field writable[] = {
	{ IOAT_CHANCTRL, 2 },      { IOAT_DMACOUNT, 2 },   { IOAT_CHAINADDR, 4 },
	{ IOAT_CHAINADDR + 4, 4 }, { IOAT_CHANCMP, 4 },    { IOAT_CHANCMP + 4, 4 },
	{ IOAT_CHANERR, 4 },       { IOAT_CHANERRMSK, 4 }, { IOAT_DCACTRL, 4 },
};

static void clear(struct ioat_channel *channel)
{
	channel->suspend = false;
	channel->is_first = false;
	channel->next = 0;
	channel->nr_done = 0;
	channel->completed = 0;
	channel->irq_pending = false;
	channel->control = 0;
	channel->dmacount = 0;
	channel->chainaddr = 0;
	channel->chancmp = 0;
	channel->error = 0;
	channel->error_mask = 0;
	channel->dcactrl = 0;
}

void ioat_channel_init(struct ioat_channel *channel, struct ioat *ioat, unsigned index)
{
	channel->ioat = ioat;
	channel->index = index;
	channel->state = IOAT_HALTED;
	channel->job.run = ioat_run;
}

uint64_t ioat_channel_status(const struct ioat_channel *channel)
{
	return (channel->completed & IOAT_CHANSTS_ADDRESS) | channel->state;
}

static void set_state(struct ioat_channel *channel, enum ioat_state state)
{
	atomic_uint *in_flight = &channel->ioat->endpoint.in_flight;

	if (state == IOAT_ACTIVE && channel->state != IOAT_ACTIVE)
		atomic_fetch_add(in_flight, 1);
	else if (state != IOAT_ACTIVE && channel->state == IOAT_ACTIVE)
		atomic_fetch_sub(in_flight, 1);
	channel->state = state;
}

void ioat_channel_halt(struct ioat_channel *channel, uint32_t error)
{
	channel->error |= error;
	set_state(channel, IOAT_HALTED);
}

void ioat_channel_rest(struct ioat_channel *channel, enum ioat_state state)
{
	set_state(channel, state);
}

void ioat_channel_read(const struct ioat_channel *channel, unsigned offset, void *buf, size_t count)
{
	uint8_t regs[IOAT_CHANNEL_SIZE] = { 0 };

	regs_put(regs, IOAT_CHANCTRL, channel->control, 2);
	regs_put(regs, IOAT_DMA_COMP, 2, 2);
	regs_put(regs, IOAT_DMACOUNT, channel->dmacount, 2);
	regs_put(regs, IOAT_CHANSTS, ioat_channel_status(channel), 8);
	regs_put(regs, IOAT_CHAINADDR, channel->chainaddr, 8);
	regs_put(regs, IOAT_CHANCMP, channel->chancmp, 8);
	regs_put(regs, IOAT_CHANERR, channel->error, 4);
	regs_put(regs, IOAT_CHANERRMSK, channel->error_mask, 4);
	regs_put(regs, IOAT_DCACTRL, channel->dcactrl, 4);
	memcpy(buf, regs + offset, count);
}

/* Goes on if there is something to do and nothing against it. */
static void go(struct ioat_channel *channel)
{
	if (channel->state == IOAT_ACTIVE || channel->suspend || channel->error ||
	    channel->nr_done == channel->dmacount)
		return;
	set_state(channel, IOAT_ACTIVE);
	/* A worker that has just found nothing to do looks again under the lock. */
	if (!channel->taken)
		pool_submit(channel->ioat->endpoint.ctx->pool, &channel->job);
}

static void begin_chain(struct ioat_channel *channel, unsigned offset, uint32_t value)
{
	if (channel->state == IOAT_ACTIVE)
		return;
	regs_set_half(&channel->chainaddr, offset, value);
	channel->next = channel->chainaddr;
	channel->is_first = true;
	channel->suspend = false;
	channel->nr_done = 0;
	channel->dmacount = 0;
}

static void write_control(struct ioat_channel *channel, uint16_t value)
{
	uint16_t held = channel->control & IOAT_CHANCTRL_INT_REARM;

	if (value & IOAT_CHANCTRL_INT_REARM)
		held = 0;
	channel->control = (value & IOAT_CHANCTRL_WRITABLE) | held;
	if (!held && channel->irq_pending)
		ioat_interrupt(channel);
}

static void write_reg(struct ioat_channel *channel, unsigned offset, uint32_t value)
{
	switch (offset) {
	case IOAT_CHANCTRL:
		write_control(channel, value);
		break;
	case IOAT_DMACOUNT:
		channel->dmacount = value;
		go(channel);
		break;
	case IOAT_CHAINADDR:
	case IOAT_CHAINADDR + 4:
		begin_chain(channel, offset, value);
		break;
	case IOAT_CHANCMP:
		/* Eight bytes are written there. */
		regs_set_half(&channel->chancmp, offset, value & ~7u);
		break;
	case IOAT_CHANCMP + 4:
		regs_set_half(&channel->chancmp, offset, value);
		break;
	case IOAT_CHANERR:
		channel->error &= ~value;
		break;
	case IOAT_CHANERRMSK:
		channel->error_mask = value;
		break;
	case IOAT_DCACTRL:
		channel->dcactrl = value;
		break;
	}
}

void ioat_channel_write(struct ioat_channel *channel, unsigned offset, const void *buf,
			size_t count)
{
	uint32_t value;

	for (size_t i = 0; i < sizeof(writable) / sizeof(writable[0]); i++) {
		if (regs_covered(&writable[i], offset, buf, count, &value))
			write_reg(channel, writable[i].offset, value);
	}
}

uint8_t ioat_channel_command_of(unsigned offset, const void *buf, size_t count)
{
	if (offset > IOAT_CHANCMD || offset + count <= IOAT_CHANCMD)
		return 0;
	return ((const uint8_t *)buf)[IOAT_CHANCMD - offset];
}

void ioat_channel_stop(struct ioat_channel *channel, bool forget)
{
	struct viommu_ctx *ctx = channel->ioat->endpoint.ctx;

	pool_cancel(ctx->pool, &channel->job);
	pthread_rwlock_wrlock(&ctx->dma_lock);
	atomic_fetch_add(&channel->generation, 1);
	pthread_rwlock_unlock(&ctx->dma_lock);
	pthread_mutex_lock(&channel->ioat->lock);
	channel->taken = false;
	set_state(channel, IOAT_HALTED);
	if (forget)
		clear(channel);
	pthread_mutex_unlock(&channel->ioat->lock);
}

/* A channel's own reset is one that nobody else logs. */
static void reset_by_command(struct ioat_channel *channel)
{
	const struct endpoint *endpoint = &channel->ioat->endpoint;
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_RESET,
		.endpoint = endpoint->id,
		.domain = UINT32_MAX,
		.flags = VIOMMU_RESET_ENGINE,
		.start = channel->index,
		.source = endpoint->source,
	};

	ioat_channel_stop(channel, true);
	log_append(endpoint->ctx->log, &record);
	log_count(endpoint->ctx->log, VIOMMU_COUNT_RESETS, 1);
}

static void run_command(struct ioat_channel *channel, uint8_t command)
{
	pthread_mutex_lock(&channel->ioat->lock);
	switch (command) {
	case IOAT_CHANCMD_START:
	case IOAT_CHANCMD_APPEND:
	case IOAT_CHANCMD_RESUME:
		channel->suspend = false;
		/* With nothing left to do, it is done. */
		if (channel->state == IOAT_SUSPENDED)
			set_state(channel, IOAT_DONE);
		go(channel);
		break;
	case IOAT_CHANCMD_SUSPEND:
		channel->suspend = channel->state != IOAT_HALTED;
		/* A channel at work comes to it by itself. */
		if (channel->state == IOAT_DONE)
			set_state(channel, IOAT_SUSPENDED);
		break;
	default:
		ioat_channel_halt(channel, IOAT_CHANERR_COMMAND);
	}
	pthread_mutex_unlock(&channel->ioat->lock);
}

void ioat_channel_command(struct ioat_channel *channel, uint8_t command)
{
	if (command == IOAT_CHANCMD_RESET)
		reset_by_command(channel);
	else if (command == IOAT_CHANCMD_ABORT)
		ioat_channel_stop(channel, false);
	else
		run_command(channel, command);
}
