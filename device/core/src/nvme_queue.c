// SPDX-License-Identifier: GPL-2.0-or-later
/* Commands off a submission queue, and what is put on its completion queue. */
#include "nvme.h"

#include <endian.h>
#include <string.h>

#include "ctx.h"
#include "fault.h"
#include "log.h"
#include "regs.h"

/* Then others have their turn. */
#define BATCH 8

/* --- the lock is held --- */

bool nvme_is_mine(const struct nvme_run *run)
{
	return atomic_load(&run->sq->generation) == run->transfer.expected;
}

static bool has_room(const struct nvme_cq *cq)
{
	uint32_t used = (cq->tail + cq->size - cq->head) % cq->size;

	return used + cq->nr_reserved + 1 < cq->size;
}

static bool has_event(const struct nvme *nvme)
{
	return nvme->event != NVME_EVENT_NONE && nvme->nr_events && !nvme->event_masked;
}

static bool has_work(const struct nvme_sq *sq)
{
	const struct nvme *nvme = sq->nvme;

	return sq->exists && !(nvme->csts & NVME_CSTS_FATAL) && has_room(&nvme->cqs[sq->cq]) &&
	       (sq->head != sq->tail || (!sq->id && has_event(nvme)));
}

void nvme_kick(struct nvme_sq *sq)
{
	/* A worker on it looks again before it leaves. */
	if (!sq->taken && has_work(sq))
		pool_submit(sq->nvme->endpoint.ctx->pool, &sq->job);
}

void nvme_kick_all(struct nvme *nvme, unsigned cq)
{
	for (unsigned i = 0; i < NVME_NR_QUEUES; i++) {
		if (nvme->sqs[i].exists && nvme->sqs[i].cq == cq)
			nvme_kick(&nvme->sqs[i]);
	}
}

static void set_busy(struct nvme_sq *sq, bool busy)
{
	struct nvme *nvme = sq->nvme;

	if (busy == sq->busy)
		return;
	sq->busy = busy;
	if (busy) {
		nvme->cqs[sq->cq].nr_reserved++;
		atomic_fetch_add(&nvme->endpoint.in_flight, 1);
	} else {
		nvme->cqs[sq->cq].nr_reserved--;
		atomic_fetch_sub(&nvme->endpoint.in_flight, 1);
	}
}

bool nvme_revoke(struct nvme_sq *sq, bool remove)
{
	struct nvme *nvme = sq->nvme;
	struct viommu_ctx *ctx = nvme->endpoint.ctx;
	bool was_busy;

	pool_cancel(ctx->pool, &sq->job);
	pthread_rwlock_wrlock(&ctx->dma_lock);
	atomic_fetch_add(&sq->generation, 1);
	pthread_rwlock_unlock(&ctx->dma_lock);
	pthread_mutex_lock(&nvme->lock);
	was_busy = sq->busy;
	set_busy(sq, false);
	sq->taken = false;
	if (remove && sq->exists) {
		nvme->cqs[sq->cq].nr_sqs--;
		sq->exists = false;
	}
	pthread_mutex_unlock(&nvme->lock);
	return was_busy;
}

/* --- one command --- */

/* The controller cannot reach its queues any more: nothing but a reset helps (9.5). */
static void fail(struct nvme_run *run)
{
	struct nvme *nvme = run->nvme;

	pthread_mutex_lock(&nvme->lock);
	if (nvme_is_mine(run)) {
		if (run->status == DMA_STATUS_FAULT)
			fault_report(&nvme->endpoint, &run->transfer.fault);
		nvme->csts |= NVME_CSTS_FATAL;
		set_busy(run->sq, false);
		run->sq->taken = false;
	}
	pthread_mutex_unlock(&nvme->lock);
}

static bool fetch(struct nvme_run *run, uint64_t addr)
{
	struct nvme_command *command = &run->command;
	uint8_t raw[NVME_SQE_SIZE];

	run->start_ns = log_now_ns();
	run->result = 0;
	run->length = 0;
	run->media = 0;
	run->status = DMA_STATUS_OK;
	if (!nvme_access(run, addr, raw, sizeof(raw), false))
		return false;
	command->opcode = raw[0];
	command->flags = raw[1];
	command->cid = regs_get(raw, 2, 2);
	command->nsid = regs_get(raw, 4, 4);
	command->prp1 = regs_get(raw, 24, 8);
	command->prp2 = regs_get(raw, 32, 8);
	for (unsigned i = 0; i < 6; i++)
		command->dwords[i] = regs_get(raw, 40 + 4 * i, 4);
	return true;
}

/* The lock is held, so that nothing of a revoked queue follows the record of its reset. */
static void log_command(struct nvme_run *run)
{
	struct endpoint *endpoint = &run->nvme->endpoint;
	const struct viommu_log_record record = {
		.status = run->status,
		.flags = run->is_write ? DMA_OP_WRITE : DMA_OP_READ,
		.start = run->command.prp1,
		.end = run->command.prp1 + run->length - 1,
		.target = run->media,
	};

	if (run->status == DMA_STATUS_FAULT)
		fault_report(endpoint, &run->transfer.fault);
	if (run->length)
		dma_log(endpoint, record, run->start_ns);
}

/*
 * Puts an entry on the completion queue and interrupts. The place is taken under
 * the lock and written without it; who comes with the next place may be faster,
 * but the driver waits for the phase bit of this one, and its interrupt follows.
 */
static bool post(struct nvme_run *run, uint16_t cid, uint16_t status, uint32_t result)
{
	struct nvme *nvme = run->nvme;
	struct nvme_cq *cq;
	uint8_t raw[NVME_CQE_SIZE] = { 0 };
	uint64_t addr;
	int vector = -1;
	bool mine;

	pthread_mutex_lock(&nvme->lock);
	mine = nvme_is_mine(run);
	if (mine) {
		cq = &nvme->cqs[run->sq->cq];
		addr = cq->base + (uint64_t)cq->tail * NVME_CQE_SIZE;
		regs_put(raw, 0, result, 4);
		regs_put(raw, 8, run->sq->head, 2);
		regs_put(raw, 10, run->sq->id, 2);
		regs_put(raw, 12, cid, 2);
		regs_put(raw, 14, status << 1 | cq->phase, 2);
		cq->tail = (cq->tail + 1) % cq->size;
		cq->phase ^= !cq->tail;
		vector = cq->interrupts ? (int)cq->vector : -1;
		set_busy(run->sq, false);
	}
	pthread_mutex_unlock(&nvme->lock);
	if (!mine || !nvme_access(run, addr, raw, sizeof(raw), true))
		return false;
	/* An interrupt too many is what a queue may have that is just going. */
	if (vector >= 0)
		ctx_irq_raise(nvme->endpoint.ctx, nvme->endpoint.vfu, nvme->endpoint.id, vector);
	return true;
}

static bool run_command(struct nvme_run *run)
{
	uint16_t status;
	bool mine;

	/* No fused commands, no scatter gather lists. */
	if (run->command.flags)
		status = NVME_INVALID_FIELD | NVME_DNR;
	else
		status = run->sq->id ? nvme_io(run) : nvme_admin(run);
	if (status != NVME_SUCCESS && run->status == DMA_STATUS_OK)
		run->status = DMA_STATUS_INVALID;
	pthread_mutex_lock(&run->nvme->lock);
	mine = nvme_is_mine(run);
	if (mine) {
		log_command(run);
		if (status == NVME_LATER)
			set_busy(run->sq, false);
	}
	pthread_mutex_unlock(&run->nvme->lock);
	if (!mine || status == NVME_LATER)
		return mine;
	run->status = DMA_STATUS_OK;
	return post(run, run->command.cid, status, run->result);
}

/* An event has happened, and a request waits for one. */
static bool post_event(struct nvme_run *run, uint16_t cid, int event)
{
	return post(run, cid, NVME_SUCCESS, (uint32_t)event << 8 | NVME_LOG_ERROR << 16);
}

/* --- the queue --- */

enum step { STEP_NONE, STEP_COMMAND, STEP_EVENT };

/* What is to be done next; with none, the queue is nobody's again. */
static enum step next_step(struct nvme_run *run, uint64_t *addr, uint16_t *cid, int *event)
{
	struct nvme_sq *sq = run->sq;
	struct nvme *nvme = run->nvme;
	enum step step = STEP_NONE;

	pthread_mutex_lock(&nvme->lock);
	if (nvme_is_mine(run) && sq->taken) {
		if (!has_work(sq)) {
			sq->taken = false;
		} else if (!sq->id && has_event(nvme)) {
			step = STEP_EVENT;
			*cid = nvme->event_cids[--nvme->nr_events];
			*event = nvme->event;
			nvme->event = NVME_EVENT_NONE;
			nvme->event_masked = true;
		} else {
			step = STEP_COMMAND;
			*addr = sq->base + (uint64_t)sq->head * NVME_SQE_SIZE;
			sq->head = (sq->head + 1) % sq->size;
		}
		set_busy(sq, step != STEP_NONE);
	}
	pthread_mutex_unlock(&nvme->lock);
	return step;
}

static bool do_step(struct nvme_run *run)
{
	uint64_t addr = 0;
	uint16_t cid = 0;
	int event = 0;
	bool ok = false;

	switch (next_step(run, &addr, &cid, &event)) {
	case STEP_NONE:
		return false;
	case STEP_COMMAND:
		ok = fetch(run, addr) && run_command(run);
		break;
	case STEP_EVENT:
		run->status = DMA_STATUS_OK;
		ok = post_event(run, cid, event);
		break;
	}
	if (!ok)
		fail(run);
	return ok;
}

static bool take(struct nvme_run *run)
{
	struct nvme_sq *sq = run->sq;
	bool ok;

	pthread_mutex_lock(&run->nvme->lock);
	run->transfer.expected = atomic_load(&sq->generation);
	ok = !sq->taken && has_work(sq);
	sq->taken |= ok;
	run->nvme->nr_workers += ok;
	pthread_mutex_unlock(&run->nvme->lock);
	return ok;
}

void nvme_run_queue(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce)
{
	struct nvme_sq *sq = (struct nvme_sq *)job;
	struct nvme_run run = {
		.nvme = sq->nvme,
		.sq = sq,
		.transfer = {
			.endpoint = &sq->nvme->endpoint,
			.generation = &sq->generation,
		},
		.bounce = bounce,
	};
	unsigned i = 0;

	if (!take(&run))
		return;
	while (i < BATCH && !atomic_load(stop) && do_step(&run))
		i++;
	pthread_mutex_lock(&sq->nvme->lock);
	sq->nvme->nr_workers--;
	/* Back into the queue, behind everybody else's work. */
	if (nvme_is_mine(&run) && sq->taken) {
		sq->taken = false;
		nvme_kick(sq);
	}
	pthread_mutex_unlock(&sq->nvme->lock);
}
