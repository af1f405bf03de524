/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioat.h - the I/OAT-compatible endpoint, for the kernel's own driver.
 *
 * ioat.c      its life, global registers, interrupts
 * ioat_chan.c the registers of a channel, on the reactor
 * ioat_run.c  a channel's descriptors, on a worker
 *
 * Registers in ioat_regs.h.
 */
#ifndef IOAT_H
#define IOAT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dma.h"
#include "endpoint_model.h"
#include "ioat_regs.h"
#include "pool.h"

struct ioat;

/* Everything but the generation under ioat->lock. */
struct ioat_channel {
	struct pool_job job; /* first */
	struct ioat *ioat;
	unsigned index;
	/*
	 * Changes when the channel's work is taken away, under dma_lock as the writer:
	 * a worker that began before is on nothing any more, and touches nothing.
	 */
	_Atomic uint64_t generation;
	bool taken; /* a worker of this generation is on it */
	enum ioat_state state;
	bool suspend; /* asked for */
	bool is_first; /* next is CHAINADDR itself */
	uint64_t next;
	uint16_t nr_done; /* since CHAINADDR was written */
	uint64_t completed; /* address of the last descriptor done */
	bool irq_pending; /* behind INT_REARM */
	/* Registers. */
	uint16_t control;
	uint16_t dmacount;
	uint64_t chainaddr;
	uint64_t chancmp;
	uint32_t error;
	uint32_t error_mask;
	uint32_t dcactrl;
};

struct ioat {
	struct endpoint endpoint; /* first: what DMA sees of us */
	unsigned nr_channels;
	pthread_mutex_t lock; /* dma_lock may be taken inside, not outside */
	uint8_t intrctrl;
	uint32_t attention;
	struct ioat_channel channels[IOAT_MAX_CHANNELS];
};

extern const struct endpoint_model ioat_model;

/* All on the reactor, the lock held but for the two that quiesce. */
void ioat_channel_init(struct ioat_channel *channel, struct ioat *ioat, unsigned index);
void ioat_channel_read(const struct ioat_channel *channel, unsigned offset, void *buf,
		       size_t count);
/* What a write does to registers; a quiescing command is left to ioat_channel_command(). */
void ioat_channel_write(struct ioat_channel *channel, unsigned offset, const void *buf,
			size_t count);
/* The command that a write gives, 0 if none. */
uint8_t ioat_channel_command_of(unsigned offset, const void *buf, size_t count);
/* Without the lock. */
void ioat_channel_command(struct ioat_channel *channel, uint8_t command);
/* Takes the channel's work away and leaves it HALTED; forget: and all registers 0. Without the lock. */
void ioat_channel_stop(struct ioat_channel *channel, bool forget);

/* Any thread, the lock held. */
uint64_t ioat_channel_status(const struct ioat_channel *channel);
/* Ends in HALTED, with one more error. */
void ioat_channel_halt(struct ioat_channel *channel, uint32_t error);
/* Ends in DONE or SUSPENDED. */
void ioat_channel_rest(struct ioat_channel *channel, enum ioat_state state);
/* An interrupt of the channel is due. */
void ioat_interrupt(struct ioat_channel *channel);

/* The job of a channel. */
void ioat_run(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce);

#endif /* IOAT_H */
