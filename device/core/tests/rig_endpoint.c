// SPDX-License-Identifier: GPL-2.0-or-later
/* The endpoints of a rig, and the log of what they and the IOMMU do. */
#include "rig.h"

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "harness.h"

#define PATIENCE_NS 10000000000ull

/* --- endpoints --- */

uint64_t rig_ep_read(struct rig *rig, unsigned ep, uint64_t offset, unsigned count)
{
	uint64_t value = 0;

	REQUIRE(client_region_read(rig->endpoints[ep], DMA_ENGINE_BAR_REGS, offset, &value,
				   count) >= 0);
	return value;
}

void rig_ep_write(struct rig *rig, unsigned ep, uint64_t offset, uint64_t value, unsigned count)
{
	REQUIRE(client_region_write(rig->endpoints[ep], DMA_ENGINE_BAR_REGS, offset, &value,
				    count) >= 0);
}

uint64_t rig_slot(struct rig *rig, unsigned ep, unsigned slot, unsigned offset, unsigned count)
{
	return rig_ep_read(rig, ep, DMA_ENGINE_SLOTS + slot * DMA_ENGINE_SLOT_SIZE + offset, count);
}

void rig_dma_start(struct rig *rig, unsigned ep, unsigned slot, const struct rig_dma *dma)
{
	uint64_t base = DMA_ENGINE_SLOTS + slot * DMA_ENGINE_SLOT_SIZE;

	rig_ep_write(rig, ep, base + DMA_SLOT_IOVA, dma->iova, 8);
	rig_ep_write(rig, ep, base + DMA_SLOT_OPERAND, dma->operand, 8);
	rig_ep_write(rig, ep, base + DMA_SLOT_LENGTH, dma->length, 8);
	rig_ep_write(rig, ep, base + DMA_SLOT_COMMAND, dma->command, 4);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ull + now.tv_nsec;
}

uint32_t rig_dma_wait(struct rig *rig, unsigned ep, unsigned slot)
{
	uint64_t deadline = now_ns() + PATIENCE_NS;
	uint32_t status;

	do {
		status = rig_slot(rig, ep, slot, DMA_SLOT_STATUS, 4);
		REQUIRE(now_ns() < deadline);
	} while (status == DMA_STATUS_BUSY);
	return status;
}

uint32_t rig_dma(struct rig *rig, unsigned ep, uint32_t opcode, uint64_t iova, uint64_t operand,
		 uint64_t length)
{
	const struct rig_dma dma = { opcode, iova, operand, length };

	rig_dma_start(rig, ep, 0, &dma);
	return rig_dma_wait(rig, ep, 0);
}

static uint32_t probe(struct rig *rig, unsigned ep, uint32_t opcode, uint64_t iova, bool is_write)
{
	uint32_t status = rig_dma(rig, ep, opcode, iova, 0, 1), info;

	if (status == DMA_STATUS_OK)
		return DMA_FAULT_NONE;
	CHECK_EQ(status, DMA_STATUS_FAULT);
	info = rig_slot(rig, ep, 0, DMA_SLOT_FAULT_INFO, 4);
	CHECK_EQ(info >> 8, is_write);
	CHECK_EQ(rig_slot(rig, ep, 0, DMA_SLOT_FAULT_ADDR, 8), iova);
	CHECK_EQ(rig_slot(rig, ep, 0, DMA_SLOT_DONE, 8), 0);
	return info & 0xff;
}

uint32_t rig_probe_read(struct rig *rig, unsigned ep, uint64_t iova)
{
	return probe(rig, ep, DMA_OP_READ, iova, false);
}

uint32_t rig_probe_write(struct rig *rig, unsigned ep, uint64_t iova)
{
	return probe(rig, ep, DMA_OP_WRITE, iova, true);
}

/* --- log --- */

uint64_t rig_counter(struct rig *rig, enum viommu_counter counter)
{
	return __atomic_load_n(&viommu_ctx_log(rig->ctx)->counters[counter], __ATOMIC_RELAXED);
}

struct viommu_log_record rig_wait_log(struct rig *rig, enum viommu_log_kind kind)
{
	uint64_t deadline = now_ns() + PATIENCE_NS, dropped;
	struct pollfd pfd = { .fd = viommu_ctx_event_fd(rig->ctx), .events = POLLIN };
	struct viommu_log_record record;
	uint64_t count;

	viommu_ctx_set_event_mask(rig->ctx, 1ull << kind);
	for (;;) {
		while (viommu_ctx_log_read(rig->ctx, &rig->log_seq, &record, 1, &dropped)) {
			if (record.kind == kind)
				return record;
		}
		REQUIRE(now_ns() < deadline);
		if (poll(&pfd, 1, 100) > 0)
			REQUIRE(read(pfd.fd, &count, sizeof(count)) == sizeof(count));
	}
}
