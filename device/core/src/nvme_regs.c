// SPDX-License-Identifier: GPL-2.0-or-later
/* Registers and doorbells of the NVMe controller. Reactor thread. */
#include "nvme.h"

#include <string.h>

#include "ctx.h"
#include "regs.h"

#define TIMEOUT 20ull /* 10 s */
#define DOORBELLS_END (NVME_DOORBELLS + 8 * NVME_NR_QUEUES)
/* Enable, page size and so on, shutdown, entry sizes. */
#define CC_WRITABLE 0x00fffff1u
#define AQA_WRITABLE 0x0fff0fffu

static const struct regs_field writable[] = {
	{ NVME_CC, 4 },      { NVME_AQA, 4 }, { NVME_ASQ, 4 },
	{ NVME_ASQ + 4, 4 }, { NVME_ACQ, 4 }, { NVME_ACQ + 4, 4 },
};

/* --- the lock is held --- */

/* While a worker still has a command of before the reset, the reset has not ended. */
static uint32_t read_csts(const struct nvme *nvme)
{
	bool ready = nvme->cc & NVME_CC_ENABLE ? !(nvme->csts & NVME_CSTS_FATAL) :
						 nvme->nr_workers > 0;

	return nvme->csts | (ready ? NVME_CSTS_READY : 0);
}

static void read_regs(const struct nvme *nvme, uint64_t offset, void *buf, size_t count)
{
	uint8_t regs[NVME_REGS_SIZE] = { 0 };
	size_t left = offset < sizeof(regs) ? sizeof(regs) - offset : 0;

	regs_put(regs, NVME_CAP,
		 (NVME_MAX_ENTRIES - 1) | NVME_CAP_CONTIGUOUS | TIMEOUT << NVME_CAP_TIMEOUT_SHIFT |
			 NVME_CAP_NVM_COMMANDS,
		 8);
	regs_put(regs, NVME_VS, NVME_VS_1_4, 4);
	regs_put(regs, NVME_CC, nvme->cc, 4);
	regs_put(regs, NVME_CSTS, read_csts(nvme), 4);
	regs_put(regs, NVME_AQA, nvme->aqa, 4);
	regs_put(regs, NVME_ASQ, nvme->asq, 8);
	regs_put(regs, NVME_ACQ, nvme->acq, 8);
	memcpy(buf, regs + offset % sizeof(regs), count < left ? count : left);
}

static void enable(struct nvme *nvme)
{
	uint32_t nr_sqes = (nvme->aqa & 0xfff) + 1, nr_cqes = (nvme->aqa >> 16 & 0xfff) + 1;

	if (nvme->cc & NVME_CC_CHOICES || nr_sqes < 2 || nr_cqes < 2 || nvme->asq % NVME_PAGE ||
	    nvme->acq % NVME_PAGE) {
		nvme->csts |= NVME_CSTS_FATAL;
		return;
	}
	nvme->cqs[0] = (struct nvme_cq){
		.exists = true,
		.interrupts = true,
		.base = nvme->acq,
		.size = nr_cqes,
		.phase = true,
		.nr_sqs = 1,
	};
	nvme->sqs[0].exists = true;
	nvme->sqs[0].base = nvme->asq;
	nvme->sqs[0].size = nr_sqes;
	nvme->sqs[0].head = 0;
	nvme->sqs[0].tail = 0;
	nvme->sqs[0].cq = 0;
}

static void shut_down(struct nvme *nvme)
{
	nvme->csts |= NVME_CSTS_SHUTDOWN_RUNS;
	pool_submit(nvme->endpoint.ctx->pool, &nvme->shutdown);
}

/* A controller reset is what the caller has to do if this says so. */
static bool write_cc(struct nvme *nvme, uint32_t value)
{
	uint32_t before = nvme->cc;

	nvme->cc = value & CC_WRITABLE;
	if (before & NVME_CC_ENABLE && !(value & NVME_CC_ENABLE))
		return true;
	if (!(before & NVME_CC_ENABLE) && value & NVME_CC_ENABLE)
		enable(nvme);
	if (value & NVME_CC_SHUTDOWN && !(before & NVME_CC_SHUTDOWN))
		shut_down(nvme);
	return false;
}

static bool write_reg(struct nvme *nvme, unsigned offset, uint32_t value)
{
	bool enabled = nvme->cc & NVME_CC_ENABLE;

	/* "If EN is 1 and these are written, the result is undefined": nothing. */
	switch (offset) {
	case NVME_CC:
		return write_cc(nvme, value);
	case NVME_AQA:
		if (!enabled)
			nvme->aqa = value & AQA_WRITABLE;
		break;
	case NVME_ASQ:
	case NVME_ASQ + 4:
		if (!enabled)
			regs_set_half(&nvme->asq, offset, value);
		break;
	case NVME_ACQ:
	case NVME_ACQ + 4:
		if (!enabled)
			regs_set_half(&nvme->acq, offset, value);
		break;
	}
	return false;
}

/* A doorbell that means nothing is ignored, and an error event (3.1.18). */
static void raise_event(struct nvme *nvme, int event)
{
	if (nvme->event == NVME_EVENT_NONE)
		nvme->event = event;
	nvme_kick(&nvme->sqs[0]);
}

static void ring(struct nvme *nvme, unsigned queue, bool is_completion, uint32_t value)
{
	struct nvme_sq *sq = &nvme->sqs[queue];
	struct nvme_cq *cq = &nvme->cqs[queue];

	if (is_completion ? !cq->exists : !sq->exists) {
		raise_event(nvme, NVME_EVENT_DOORBELL_REGISTER);
	} else if (is_completion) {
		/* From the old head on to the tail, and no further. */
		if (value >= cq->size || (value + cq->size - cq->head) % cq->size >
						 (cq->tail + cq->size - cq->head) % cq->size) {
			raise_event(nvme, NVME_EVENT_DOORBELL_VALUE);
			return;
		}
		cq->head = value;
		nvme_kick_all(nvme, queue);
	} else if (value >= sq->size) {
		raise_event(nvme, NVME_EVENT_DOORBELL_VALUE);
	} else {
		sq->tail = value;
		nvme_kick(sq);
	}
}

/* --- without the lock --- */

void nvme_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count)
{
	struct nvme *nvme = opaque;

	(void)bar;
	memset(buf, 0, count);
	pthread_mutex_lock(&nvme->lock);
	read_regs(nvme, offset, buf, count);
	pthread_mutex_unlock(&nvme->lock);
}

static void write_doorbell(struct nvme *nvme, uint64_t offset, const void *buf, size_t count)
{
	unsigned index = (offset - NVME_DOORBELLS) / 4;

	if (offset % 4 || count != 4)
		return;
	pthread_mutex_lock(&nvme->lock);
	if (offset < DOORBELLS_END)
		ring(nvme, index / 2, index % 2, regs_get(buf, 0, 4));
	else
		raise_event(nvme, NVME_EVENT_DOORBELL_REGISTER);
	pthread_mutex_unlock(&nvme->lock);
}

void nvme_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count)
{
	struct nvme *nvme = opaque;
	bool disabled = false;
	uint32_t value;

	(void)bar;
	if (offset >= NVME_DOORBELLS && offset < NVME_MSIX_TABLE) {
		write_doorbell(nvme, offset, buf, count);
		return;
	}
	pthread_mutex_lock(&nvme->lock);
	for (size_t i = 0; i < sizeof(writable) / sizeof(writable[0]); i++) {
		if (regs_covered(&writable[i], offset, buf, count, &value))
			disabled |= write_reg(nvme, writable[i].offset, value);
	}
	pthread_mutex_unlock(&nvme->lock);
	/* Waits for slices in flight. */
	if (disabled)
		nvme_controller_reset(nvme);
}
