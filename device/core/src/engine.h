/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * engine.h - the dma engine: an endpoint that does exactly the DMA it is told.
 *
 * engine.c      its life: creation, resets, bus mastering
 * engine_regs.c registers and slots, on the reactor
 * engine_run.c  one transaction, on a worker
 *
 * Registers in dma_engine.h.
 */
#ifndef ENGINE_H
#define ENGINE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dma.h"
#include "dma_engine.h"
#include "endpoint_model.h"
#include "pool.h"
#include "viommu.h"

#define ENGINE_DEFAULT_VECTORS 4
#define ENGINE_MAX_VECTORS 32
#define ENGINE_MAX_LENGTH (1ull << 30)

struct engine;

/* What a transaction was asked for: a slot's registers when COMMAND was written. */
struct engine_command {
	uint32_t command;
	uint64_t iova;
	uint64_t operand;
	uint64_t length;
	uint64_t start_ns;
	uint64_t generation; /* the slot's at that time */
};

struct engine_slot {
	struct pool_job job; /* first */
	struct engine_command command;
	uint32_t status; /* enum dma_engine_status */
	uint32_t fault_info;
	uint64_t fault_addr;
	uint64_t result;
	/*
	 * Changes when transactions are taken away, under dma_lock as the writer. One
	 * that was submitted before is void from then on, also if no worker has begun
	 * it: no slice of it runs, and whoever changed the generation finishes it.
	 */
	_Atomic uint64_t generation;
	/* Moved so far, counted by the worker inside the slice. */
	_Atomic uint64_t done;
	/*
	 * A worker runs it. One that took an older transaction off the queue and comes
	 * late finds this, no BUSY, or a command of another generation; or else it
	 * runs the newer transaction, and who comes for that one finds this.
	 */
	bool taken;
	struct engine *engine;
};

struct engine {
	struct endpoint endpoint; /* first: what DMA sees of us */
	struct viommu_ctx *ctx;
	unsigned nr_vectors;
	uint8_t *local;
	struct crc32_table *crc32;
	pthread_mutex_t lock; /* registers and slots; dma_lock may be taken inside, not outside */
	uint64_t completed;
	uint32_t scratch;
	bool intx;
	struct engine_slot slots[DMA_ENGINE_NR_SLOTS_VALUE];
};

/* What a transaction came to. */
struct engine_result {
	enum dma_engine_status status;
	struct dma_fault fault; /* if the status is FAULT */
	uint64_t result;
};

extern const struct endpoint_model engine_model;

/* The reset that CONTROL asks for; the transport's resets end here, too. Reactor. */
void engine_reset(struct engine *engine);

/* Register accesses, with the signatures of vfu_ops. */
void engine_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count);
void engine_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count);

/*
 * Ends the slot's transaction that was submitted in the generation: log, counters,
 * registers, interrupt, in an order that lets whoever sees one find the ones before
 * it. Nothing happens if it has ended already. engine->lock is held.
 */
void engine_finish(struct engine_slot *slot, uint64_t generation,
		   const struct engine_result *result);
void engine_interrupt(struct engine *engine, int vector); /* engine->lock is held */

/* The job of a slot: runs its transaction. */
void engine_run(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce);

/* CRC-32 as zlib's; start with 0. */
struct crc32_table;
int crc32_table_create(struct crc32_table **ret);
void crc32_table_destroy(struct crc32_table *table);
uint32_t crc32_update(const struct crc32_table *table, uint32_t crc, const void *buf, size_t len);

#endif /* ENGINE_H */
