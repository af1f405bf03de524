// SPDX-License-Identifier: GPL-2.0-or-later
/* The engine's BARs: global registers, slots, local memory. Reactor thread. */
#include "engine.h"

#include <endian.h>
#include <string.h>

#include "ctx.h"
#include "log.h"
#include "regs.h"
#include "vfio_user.h"

#define SLOTS_END (DMA_ENGINE_SLOTS + DMA_ENGINE_NR_SLOTS_VALUE * DMA_ENGINE_SLOT_SIZE)

_Static_assert(SLOTS_END <= DMA_ENGINE_REGS_SIZE, "all slots lie inside the BAR");

static uint32_t half(uint64_t value, uint64_t offset)
{
	return offset & 4 ? value >> 32 : value;
}

static uint32_t read_slot(const struct engine_slot *slot, unsigned offset)
{
	switch (offset) {
	case DMA_SLOT_COMMAND:
		return slot->command.command;
	case DMA_SLOT_STATUS:
		return slot->status;
	case DMA_SLOT_FAULT_INFO:
		return slot->fault_info;
	}
	switch (offset & ~4u) {
	case DMA_SLOT_IOVA:
		return half(slot->command.iova, offset);
	case DMA_SLOT_OPERAND:
		return half(slot->command.operand, offset);
	case DMA_SLOT_LENGTH:
		return half(slot->command.length, offset);
	case DMA_SLOT_RESULT:
		return half(slot->result, offset);
	case DMA_SLOT_FAULT_ADDR:
		return half(slot->fault_addr, offset);
	case DMA_SLOT_DONE:
		/* "bytes moved before the end": not before it. */
		return slot->status == DMA_STATUS_BUSY ? 0 : half(atomic_load(&slot->done), offset);
	default:
		return 0;
	}
}

/* One aligned 32-bit register; engine->lock is held. */
static uint32_t read_reg(const struct engine *engine, uint64_t offset)
{
	if (offset >= DMA_ENGINE_SLOTS && offset < SLOTS_END) {
		offset -= DMA_ENGINE_SLOTS;
		return read_slot(&engine->slots[offset / DMA_ENGINE_SLOT_SIZE],
				 offset % DMA_ENGINE_SLOT_SIZE);
	}
	switch (offset) {
	case DMA_ENGINE_MAGIC:
		return DMA_ENGINE_MAGIC_VALUE;
	case DMA_ENGINE_VERSION:
		return 1;
	case DMA_ENGINE_NR_SLOTS:
		return DMA_ENGINE_NR_SLOTS_VALUE;
	case DMA_ENGINE_NR_VECTORS:
		return engine->nr_vectors;
	case DMA_ENGINE_IN_FLIGHT:
		return atomic_load(&engine->endpoint.in_flight);
	case DMA_ENGINE_INTX_STATUS:
		return engine->intx;
	case DMA_ENGINE_SCRATCH:
		return engine->scratch;
	case DMA_ENGINE_COMPLETED:
	case DMA_ENGINE_COMPLETED + 4:
		return half(engine->completed, offset);
	default:
		return 0;
	}
}

static bool wraps(uint64_t addr, uint64_t length)
{
	return addr + length - 1 < addr;
}

static bool overlap(uint64_t a, uint64_t b, uint64_t length)
{
	return a < b ? b - a < length : a - b < length;
}

static bool command_valid(const struct engine *engine, const struct engine_command *command)
{
	uint32_t irq = command->command & DMA_COMMAND_IRQ_MASK;

	if (irq == DMA_COMMAND_IRQ_MASK ||
	    (irq == DMA_COMMAND_IRQ_MSIX && command->command >> 16 >= engine->nr_vectors))
		return false;
	/* No memory lies across the end of the address space. */
	if (!command->length || command->length > ENGINE_MAX_LENGTH ||
	    wraps(command->iova, command->length))
		return false;
	switch (command->command & 0xff) {
	case DMA_OP_READ:
	case DMA_OP_WRITE:
		return command->length <= DMA_ENGINE_LOCAL_SIZE &&
		       command->operand <= DMA_ENGINE_LOCAL_SIZE - command->length;
	case DMA_OP_COPY:
		return !wraps(command->operand, command->length) &&
		       !overlap(command->iova, command->operand, command->length);
	case DMA_OP_FILL:
	case DMA_OP_CHECKSUM:
		return true;
	default:
		return false;
	}
}

static void start(struct engine *engine, struct engine_slot *slot, uint32_t command)
{
	struct engine_result refused = { .status = DMA_STATUS_OK };

	slot->command.command = command;
	slot->command.start_ns = log_now_ns();
	slot->command.generation = atomic_load(&slot->generation);
	slot->result = 0;
	slot->fault_addr = 0;
	slot->fault_info = 0;
	atomic_store(&slot->done, 0);
	slot->status = DMA_STATUS_BUSY;
	slot->taken = false;
	atomic_fetch_add(&engine->endpoint.in_flight, 1);
	if (!command_valid(engine, &slot->command))
		refused.status = DMA_STATUS_INVALID;
	else if (!vfu_bus_master(engine->endpoint.vfu))
		refused.status = DMA_STATUS_NO_BUS_MASTER;
	if (refused.status == DMA_STATUS_OK)
		pool_submit(engine->ctx->pool, &slot->job);
	else
		engine_finish(slot, slot->command.generation, &refused);
}

static void write_slot(struct engine *engine, struct engine_slot *slot, unsigned offset,
		       uint32_t value)
{
	if (slot->status == DMA_STATUS_BUSY)
		return;
	switch (offset & ~4u) {
	case DMA_SLOT_COMMAND:
		if (offset == DMA_SLOT_COMMAND)
			start(engine, slot, value);
		break;
	case DMA_SLOT_IOVA:
		regs_set_half(&slot->command.iova, offset, value);
		break;
	case DMA_SLOT_OPERAND:
		regs_set_half(&slot->command.operand, offset, value);
		break;
	case DMA_SLOT_LENGTH:
		regs_set_half(&slot->command.length, offset, value);
		break;
	}
}

static void trigger(struct engine *engine, uint32_t value)
{
	if (value == DMA_ENGINE_TRIGGER_INTX)
		engine_interrupt(engine, VFU_INTX);
	else if (value < engine->nr_vectors)
		engine_interrupt(engine, value);
}

/* One aligned 32-bit register; engine->lock is held. */
static void write_reg(struct engine *engine, uint64_t offset, uint32_t value)
{
	if (offset >= DMA_ENGINE_SLOTS && offset < SLOTS_END) {
		offset -= DMA_ENGINE_SLOTS;
		write_slot(engine, &engine->slots[offset / DMA_ENGINE_SLOT_SIZE],
			   offset % DMA_ENGINE_SLOT_SIZE, value);
		return;
	}
	switch (offset) {
	case DMA_ENGINE_INTX_STATUS:
		if (value & 1) {
			engine->intx = false;
			vfu_intx_deassert(engine->endpoint.vfu);
		}
		break;
	case DMA_ENGINE_SCRATCH:
		engine->scratch = value;
		break;
	case DMA_ENGINE_IRQ_TRIGGER:
		trigger(engine, value);
		break;
	}
}

static bool access_valid(uint64_t offset, size_t count)
{
	return (count == 4 || count == 8) && offset % count == 0;
}

static void read_regs(struct engine *engine, uint64_t offset, void *buf, size_t count)
{
	if (!access_valid(offset, count)) {
		memset(buf, 0xff, count);
		return;
	}
	pthread_mutex_lock(&engine->lock);
	for (size_t i = 0; i < count; i += sizeof(uint32_t)) {
		uint32_t value = htole32(read_reg(engine, offset + i));

		memcpy((uint8_t *)buf + i, &value, sizeof(value));
	}
	pthread_mutex_unlock(&engine->lock);
}

/* The engine's own reset is the only one that nobody else logs. */
static void reset_by_register(struct engine *engine)
{
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_RESET,
		.endpoint = engine->endpoint.id,
		.domain = UINT32_MAX,
		.flags = VIOMMU_RESET_ENGINE,
		.source = engine->endpoint.source,
	};

	engine_reset(engine);
	log_append(engine->ctx->log, &record);
	log_count(engine->ctx->log, VIOMMU_COUNT_RESETS, 1);
}

static void write_regs(struct engine *engine, uint64_t offset, const void *buf, size_t count)
{
	if (!access_valid(offset, count))
		return;
	for (size_t i = 0; i < count; i += sizeof(uint32_t)) {
		uint32_t value;

		memcpy(&value, (const uint8_t *)buf + i, sizeof(value));
		value = le32toh(value);
		if (offset + i == DMA_ENGINE_CONTROL) {
			/* Waits for slices in flight: without the lock. */
			if (value & DMA_ENGINE_CONTROL_RESET)
				reset_by_register(engine);
			continue;
		}
		pthread_mutex_lock(&engine->lock);
		write_reg(engine, offset + i, value);
		pthread_mutex_unlock(&engine->lock);
	}
}

void engine_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count)
{
	struct engine *engine = opaque;

	if (bar == DMA_ENGINE_BAR_REGS)
		read_regs(engine, offset, buf, count);
	else if (bar == DMA_ENGINE_BAR_LOCAL)
		memcpy(buf, engine->local + offset, count);
	else
		memset(buf, 0, count);
}

void engine_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count)
{
	struct engine *engine = opaque;

	if (bar == DMA_ENGINE_BAR_REGS)
		write_regs(engine, offset, buf, count);
	else if (bar == DMA_ENGINE_BAR_LOCAL)
		memcpy(engine->local + offset, buf, count);
}
