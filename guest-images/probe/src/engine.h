/* SPDX-License-Identifier: GPL-2.0-or-later */
/* engine.h - transactions of the dma engine, as its guest driver. */
#ifndef PROBE_ENGINE_H
#define PROBE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "dma_engine.h"
#include "reply.h"
#include "vfio.h"

#define ENGINE_SLOTS_MAX 192u /* what fits BAR 0 */

enum engine_irq { ENGINE_IRQ_NONE, ENGINE_IRQ_MSIX, ENGINE_IRQ_INTX, ENGINE_IRQ_MSI };

struct engine_slot {
	enum engine_irq irq; /* how its end is announced */
	unsigned int vector;
	uint64_t events; /* the vector's count when it was submitted */
};

struct engine {
	uint32_t nr_slots; /* 0: not looked at since the device was opened */
	uint32_t nr_vectors;
	uint32_t version;
	struct engine_slot slots[ENGINE_SLOTS_MAX];
};

struct engine_transaction {
	uint32_t slot;
	uint32_t opcode;
	enum engine_irq irq;
	unsigned int vector;
	uint64_t iova;
	uint64_t operand;
	uint64_t length;
};

struct engine_result {
	uint32_t status;
	uint32_t fault_info;
	uint64_t done;
	uint64_t result;
	uint64_t fault_addr;
};

/* Forget what was known about the slots: the device was opened or reset. */
void engine_forget(struct engine *engine);

/* Check that the open device is an engine; fails with op "engine". */
int engine_require(struct engine *engine, struct vfio *vfio, struct reply *reply);

/* Start a transaction. Its failure is in the reply. */
int engine_submit(struct engine *engine, struct vfio *vfio,
		  const struct engine_transaction *transaction, struct reply *reply);

/* The two halves of the same without any check: all but the command, and the command. */
int engine_load(struct vfio *vfio, const struct engine_transaction *transaction);
int engine_start(struct vfio *vfio, const struct engine_transaction *transaction);

/* How many transactions have ended since the last reset. Return 0 or -errno. */
int engine_completed(struct vfio *vfio, uint64_t *ret);

/*
 * Count what came on a vector. INTx is a level: vfio-pci masks it when it fires, so
 * the device is told that it was seen, then the line is opened for the next one.
 * Return 0 or -errno.
 */
int engine_collect(struct vfio *vfio, enum engine_irq irq, unsigned int vector);

/* The kind of VFIO's interrupt that an announcement comes by. */
enum irq_kind engine_irq_kind(enum engine_irq irq);

/*
 * Wait until a slot has ended, and its interrupt has come if it has one. Return 0,
 * -ETIMEDOUT with *@ret_op "wait" (still busy) or "interrupt" (ended in silence),
 * or another -errno with the step that failed. @ret is what the slot shows then.
 */
int engine_wait(struct engine *engine, struct vfio *vfio, uint32_t slot, uint64_t deadline,
		struct engine_result *ret, const char **ret_op);

/* Read a slot's result registers. Return 0 or -errno. */
int engine_read_result(struct vfio *vfio, uint32_t slot, struct engine_result *ret);

#endif /* PROBE_ENGINE_H */
