// SPDX-License-Identifier: GPL-2.0-or-later
#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "clock.h"
#include "irq.h"
#include "mmio.h"

/* A transaction of a few pages ends within these; then be kind to the device. */
#define NR_BUSY_POLLS 64
#define POLL_PAUSE_NS (100 * NS_PER_US)

_Static_assert(ENGINE_SLOTS_MAX == (DMA_ENGINE_REGS_SIZE - DMA_ENGINE_SLOTS) / DMA_ENGINE_SLOT_SIZE,
	       "the slots end with the BAR");

static int reg_read(struct vfio *vfio, uint64_t offset, unsigned int size, uint64_t *ret)
{
	*ret = 0;
	return vfio_access(vfio, DMA_ENGINE_BAR_REGS, offset, size, false, ret);
}

static int reg_write(struct vfio *vfio, uint64_t offset, unsigned int size, uint64_t value)
{
	return vfio_access(vfio, DMA_ENGINE_BAR_REGS, offset, size, true, &value);
}

static uint64_t slot_reg(uint32_t slot, uint32_t reg)
{
	return DMA_ENGINE_SLOTS + (uint64_t)slot * DMA_ENGINE_SLOT_SIZE + reg;
}

void engine_forget(struct engine *engine)
{
	memset(engine, 0, sizeof(*engine));
}

int engine_require(struct engine *engine, struct vfio *vfio, struct reply *reply)
{
	uint64_t magic, version, nr_slots, nr_vectors;
	int error = vfio_require(vfio, reply);

	if (error || engine->nr_slots)
		return error;
	error = reg_read(vfio, DMA_ENGINE_MAGIC, 4, &magic);
	if (!error)
		error = reg_read(vfio, DMA_ENGINE_VERSION, 4, &version);
	if (!error)
		error = reg_read(vfio, DMA_ENGINE_NR_SLOTS, 4, &nr_slots);
	if (!error)
		error = reg_read(vfio, DMA_ENGINE_NR_VECTORS, 4, &nr_vectors);
	if (error)
		return reply_fail(reply, "engine", -error, "registers cannot be read: %s",
				  strerror(-error));
	if (magic != DMA_ENGINE_MAGIC_VALUE)
		return reply_fail(reply, "engine", ENODEV, "magic is %#llx",
				  (unsigned long long)magic);
	if (!nr_slots || nr_slots > ENGINE_SLOTS_MAX)
		return reply_fail(reply, "engine", EPROTO, "%llu slots",
				  (unsigned long long)nr_slots);
	engine->version = (uint32_t)version;
	engine->nr_slots = (uint32_t)nr_slots;
	engine->nr_vectors = (uint32_t)nr_vectors;
	return 0;
}

enum irq_kind engine_irq_kind(enum engine_irq irq)
{
	if (irq == ENGINE_IRQ_INTX)
		return IRQ_INTX;
	return irq == ENGINE_IRQ_MSI ? IRQ_MSI : IRQ_MSIX;
}

int engine_completed(struct vfio *vfio, uint64_t *ret)
{
	return reg_read(vfio, DMA_ENGINE_COMPLETED, 8, ret);
}

int engine_collect(struct vfio *vfio, enum engine_irq irq, unsigned int vector)
{
	int64_t count = irq_collect(vfio, engine_irq_kind(irq), vector);
	int error;

	if (count <= 0 || irq != ENGINE_IRQ_INTX)
		return count < 0 ? (int)count : 0;
	error = reg_write(vfio, DMA_ENGINE_INTX_STATUS, 4, 1);
	return error ? error : irq_action(vfio, IRQ_INTX, VFIO_IRQ_SET_ACTION_UNMASK, 0, 1);
}

/* Remember how the slot's end is announced, from a clean count on. */
static int prepare_irq(struct engine *engine, struct vfio *vfio,
		       const struct engine_transaction *transaction, struct reply *reply)
{
	enum irq_kind kind = engine_irq_kind(transaction->irq);
	struct engine_slot *slot = &engine->slots[transaction->slot];
	int error;

	if (transaction->irq != ENGINE_IRQ_NONE) {
		if (!irq_enabled(vfio, kind, transaction->vector))
			return reply_fail(reply, "irq", ENODEV, "%s vector %u is not enabled",
					  choices_irq[kind], transaction->vector);
		error = engine_collect(vfio, transaction->irq, transaction->vector);
		if (error)
			return reply_fail(reply, "irq", -error, NULL);
		slot->events = vfio->irqs[kind].vectors[transaction->vector].total;
	}
	slot->irq = transaction->irq;
	slot->vector = transaction->vector;
	return 0;
}

int engine_load(struct vfio *vfio, const struct engine_transaction *transaction)
{
	uint32_t slot = transaction->slot;
	int error = reg_write(vfio, slot_reg(slot, DMA_SLOT_IOVA), 8, transaction->iova);

	if (!error)
		error = reg_write(vfio, slot_reg(slot, DMA_SLOT_OPERAND), 8, transaction->operand);
	if (!error)
		error = reg_write(vfio, slot_reg(slot, DMA_SLOT_LENGTH), 8, transaction->length);
	return error;
}

int engine_start(struct vfio *vfio, const struct engine_transaction *transaction)
{
	static const uint32_t irq_bits[] = {
		DMA_COMMAND_IRQ_NONE,
		DMA_COMMAND_IRQ_MSIX,
		DMA_COMMAND_IRQ_INTX,
		/* With MSI enabled, the engine's vectors are those. */
		DMA_COMMAND_IRQ_MSIX,
	};

	/* What the device is to read must be in memory before it starts. */
	dma_barrier();
	return reg_write(vfio, slot_reg(transaction->slot, DMA_SLOT_COMMAND), 4,
			 transaction->opcode | irq_bits[transaction->irq] |
				 transaction->vector << 16);
}

int engine_submit(struct engine *engine, struct vfio *vfio,
		  const struct engine_transaction *transaction, struct reply *reply)
{
	uint64_t status;
	int error = engine_require(engine, vfio, reply);

	if (error)
		return error;
	if (transaction->slot >= engine->nr_slots || transaction->vector > 0xffff)
		return reply_fail(reply, "parse", EINVAL, "no slot %u or vector %u",
				  transaction->slot, transaction->vector);
	error = reg_read(vfio, slot_reg(transaction->slot, DMA_SLOT_STATUS), 4, &status);
	if (error)
		return reply_fail(reply, "read", -error, NULL);
	if (status == DMA_STATUS_BUSY)
		return reply_fail(reply, "submit", EBUSY, "slot %u is busy", transaction->slot);
	error = prepare_irq(engine, vfio, transaction, reply);
	if (error)
		return error;
	error = engine_load(vfio, transaction);
	if (!error)
		error = engine_start(vfio, transaction);
	if (error)
		return reply_fail(reply, "write", -error, NULL);
	return 0;
}

int engine_read_result(struct vfio *vfio, uint32_t slot, struct engine_result *ret)
{
	struct engine_result result;
	uint64_t status, fault_info;
	int error = reg_read(vfio, slot_reg(slot, DMA_SLOT_STATUS), 4, &status);

	/* The status first: if it says "ended", the others are final. */
	dma_barrier();
	if (!error)
		error = reg_read(vfio, slot_reg(slot, DMA_SLOT_RESULT), 8, &result.result);
	if (!error)
		error = reg_read(vfio, slot_reg(slot, DMA_SLOT_FAULT_ADDR), 8, &result.fault_addr);
	if (!error)
		error = reg_read(vfio, slot_reg(slot, DMA_SLOT_FAULT_INFO), 4, &fault_info);
	if (!error)
		error = reg_read(vfio, slot_reg(slot, DMA_SLOT_DONE), 8, &result.done);
	if (error)
		return error;
	result.status = (uint32_t)status;
	result.fault_info = (uint32_t)fault_info;
	*ret = result;
	return 0;
}

/* Has the slot's interrupt come? Also true if it was to have none. */
static int check_irq(struct vfio *vfio, const struct engine_slot *slot, bool *ret)
{
	struct irq_vector *vector;
	int error;

	*ret = true;
	if (slot->irq == ENGINE_IRQ_NONE)
		return 0;
	/* It was disabled since: nothing can come any more. */
	if (!irq_enabled(vfio, engine_irq_kind(slot->irq), slot->vector))
		return -ENODEV;
	error = engine_collect(vfio, slot->irq, slot->vector);
	if (error)
		return error;
	vector = &vfio->irqs[engine_irq_kind(slot->irq)].vectors[slot->vector];
	*ret = vector->total > slot->events;
	if (*ret)
		vector->taken = vector->total;
	return 0;
}

/* Let time pass until something may have changed. */
static void pause_wait(const struct vfio *vfio, const struct engine_slot *slot, bool interrupted,
		       uint64_t *polls, uint64_t left)
{
	uint64_t pause = left < POLL_PAUSE_NS ? left : POLL_PAUSE_NS;

	/* Without a result, ppoll() only ended early: the caller looks again. */
	if (!interrupted)
		clock_poll(vfio->irqs[engine_irq_kind(slot->irq)].vectors[slot->vector].fd, left);
	else if ((*polls)++ < NR_BUSY_POLLS)
		sched_yield();
	else
		clock_poll(-1, pause);
}

int engine_wait(struct engine *engine, struct vfio *vfio, uint32_t slot, uint64_t deadline,
		struct engine_result *ret, const char **ret_op)
{
	const struct engine_slot *state = &engine->slots[slot];
	uint64_t status, now, polls = 0;
	bool interrupted;
	int error;

	for (;;) {
		*ret_op = "interrupt";
		now = clock_ns();
		error = check_irq(vfio, state, &interrupted);
		if (error)
			return error;
		*ret_op = "read";
		error = reg_read(vfio, slot_reg(slot, DMA_SLOT_STATUS), 4, &status);
		if (error)
			return error;
		if (interrupted && status != DMA_STATUS_BUSY)
			break;
		if (now >= deadline)
			break;
		pause_wait(vfio, state, interrupted, &polls, deadline - now);
	}
	error = engine_read_result(vfio, slot, ret);
	if (error || (interrupted && ret->status != DMA_STATUS_BUSY))
		return error;
	*ret_op = ret->status == DMA_STATUS_BUSY ? "wait" : "interrupt";
	return -ETIMEDOUT;
}
