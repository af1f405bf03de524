// SPDX-License-Identifier: GPL-2.0-or-later
#include "fake_engine.h"

#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pattern.h"

struct fake fake;

uint64_t fake_reg(uint64_t offset, size_t size)
{
	uint64_t value = 0;

	memcpy(&value, fake.registers + offset, size);
	return value;
}

void fake_set_reg(uint64_t offset, uint64_t value, size_t size)
{
	memcpy(fake.registers + offset, &value, size);
}

void fake_reset(void)
{
	memset(fake.registers, 0, sizeof(fake.registers));
	memset(fake.local, 0, sizeof(fake.local));
	fake_set_reg(DMA_ENGINE_MAGIC, getenv("FAKE_MAGIC") ? 0 : DMA_ENGINE_MAGIC_VALUE, 4);
	fake_set_reg(DMA_ENGINE_VERSION, 1, 4);
	fake_set_reg(DMA_ENGINE_NR_SLOTS, DMA_ENGINE_NR_SLOTS_VALUE, 4);
	fake_set_reg(DMA_ENGINE_NR_VECTORS, NR_VECTORS, 4);
}

void fake_raise(unsigned int kind, unsigned int vector)
{
	static int nr_raised;
	const char *lose = getenv("FAKE_LOSE");
	uint64_t one = 1;
	int fd;

	if (lose && ++nr_raised == atoi(lose))
		return;
	if (getenv("FAKE_SILENT") || !kind || kind > 2 || vector >= NR_VECTORS)
		return;
	if (kind == 2) {
		fake_set_reg(DMA_ENGINE_INTX_STATUS, 1, 4);
		if (fake.intx_masked)
			return;
		fake.intx_masked = true;
	}
	fd = fake.eventfds[kind - 1][vector];
	if (fd > 0 && write(fd, &one, sizeof(one)) != sizeof(one))
		abort();
}

static uint8_t *translate(uint64_t iova, uint32_t need, enum dma_engine_fault *fault)
{
	for (int i = 0; fake.attached && i < NR_MAPS; i++) {
		if (fake.maps[i].ioas != fake.attached_ioas ||
		    iova - fake.maps[i].iova >= fake.maps[i].size)
			continue;
		*fault = fake.maps[i].flags & need ? DMA_FAULT_NONE : DMA_FAULT_PERMISSION;
		return *fault ? NULL : fake.maps[i].memory + (iova - fake.maps[i].iova);
	}
	*fault = DMA_FAULT_MAPPING;
	return NULL;
}

/* Move one byte; return its address in memory, or NULL with the fault. */
static uint8_t *move(unsigned int op, uint64_t iova, uint64_t operand, uint64_t i,
		     enum dma_engine_fault *fault)
{
	bool write = op == DMA_OP_WRITE || op == DMA_OP_FILL;
	uint8_t *byte = translate(iova + i,
				  write ? VFIO_DMA_MAP_FLAG_WRITE : VFIO_DMA_MAP_FLAG_READ, fault);
	uint8_t *to;

	if (!byte)
		return NULL;
	if (op == DMA_OP_READ)
		fake.local[operand + i] = *byte;
	else if (op == DMA_OP_WRITE)
		*byte = fake.local[operand + i];
	else if (op == DMA_OP_FILL)
		*byte = (uint8_t)(operand >> i % 8 * 8);
	if (op != DMA_OP_COPY)
		return byte;
	to = translate(operand + i, VFIO_DMA_MAP_FLAG_WRITE, fault);
	if (to)
		*to = *byte;
	return to;
}

void fake_start_slot(uint64_t slot, uint32_t command)
{
	if (!getenv("FAKE_LATE")) {
		fake_run_slot(slot, command);
		return;
	}
	fake_set_reg(slot + DMA_SLOT_STATUS, DMA_STATUS_BUSY, 4);
}

void fake_run_late(uint64_t offset)
{
	uint64_t slot = offset & ~(DMA_ENGINE_SLOT_SIZE - 1ull);

	if (getenv("FAKE_LATE") && offset == slot + DMA_SLOT_STATUS && slot >= DMA_ENGINE_SLOTS &&
	    slot < DMA_ENGINE_REGS_SIZE && fake_reg(offset, 4) == DMA_STATUS_BUSY)
		fake_run_slot(slot, (uint32_t)fake_reg(slot + DMA_SLOT_COMMAND, 4));
}

void fake_run_slot(uint64_t slot, uint32_t command)
{
	unsigned int op = command & 0xff, status = DMA_STATUS_OK;
	uint64_t iova = fake_reg(slot + DMA_SLOT_IOVA, 8),
		 operand = fake_reg(slot + DMA_SLOT_OPERAND, 8);
	uint64_t length = fake_reg(slot + DMA_SLOT_LENGTH, 8), done = 0, result = 0;
	enum dma_engine_fault fault = DMA_FAULT_NONE;

	if (!(fake.config[4] & 4))
		status = DMA_STATUS_NO_BUS_MASTER;
	else if (!length || (op <= DMA_OP_WRITE && length > sizeof(fake.local)))
		status = DMA_STATUS_INVALID;
	while (status == DMA_STATUS_OK && done < length)
		if (move(op, iova, operand, done, &fault))
			done++;
		else
			status = DMA_STATUS_FAULT;
	if (op == DMA_OP_CHECKSUM && status == DMA_STATUS_OK)
		result = crc32_of(translate(iova, VFIO_DMA_MAP_FLAG_READ, &fault), length);
	fake_set_reg(DMA_ENGINE_COMPLETED, fake_reg(DMA_ENGINE_COMPLETED, 8) + 1, 8);
	fake_set_reg(slot + DMA_SLOT_DONE, done, 8);
	fake_set_reg(slot + DMA_SLOT_RESULT, result, 8);
	fake_set_reg(slot + DMA_SLOT_FAULT_ADDR, fault ? iova + done : 0, 8);
	fake_set_reg(slot + DMA_SLOT_FAULT_INFO, fault | (op == DMA_OP_WRITE && fault ? 0x100 : 0),
		     4);
	fake_set_reg(slot + DMA_SLOT_STATUS, getenv("FAKE_STUCK") ? DMA_STATUS_BUSY : status, 4);
	fake_raise(command >> 8 & 3, command >> 16);
}
