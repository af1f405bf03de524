// SPDX-License-Identifier: GPL-2.0-or-later
/* Admin commands (5), but for Identify. */
#include "nvme.h"

#include <string.h>

#include "regs.h"

#define HEALTH_TEMPERATURE 1 /* K, 16 bits */
#define HEALTH_SPARE 3 /* per cent */
#define HEALTH_SPARE_THRESHOLD 4
#define ROOM_TEMPERATURE 300
#define LOG_RETAIN 0x8000u

static uint16_t invalid(uint16_t status)
{
	return status | NVME_DNR;
}

/* --- queues --- */

static uint16_t check_queue(const struct nvme_run *run, unsigned id, uint32_t size)
{
	const uint32_t *dwords = run->command.dwords;

	if (!id || id >= NVME_NR_QUEUES)
		return invalid(NVME_QID_INVALID);
	if (size < 2 || size > NVME_MAX_ENTRIES)
		return invalid(NVME_QUEUE_SIZE);
	/* CAP says that queues have to be contiguous. */
	if (!(dwords[1] & NVME_QUEUE_CONTIGUOUS))
		return invalid(NVME_INVALID_FIELD);
	return run->command.prp1 % NVME_PAGE ? invalid(NVME_PRP_OFFSET) : NVME_SUCCESS;
}

static uint16_t create_cq(struct nvme_run *run)
{
	const uint32_t *dwords = run->command.dwords;
	unsigned id = dwords[0] & 0xffff, vector = dwords[1] >> 16;
	uint32_t size = (dwords[0] >> 16) + 1;
	uint16_t status = check_queue(run, id, size);
	struct nvme *nvme = run->nvme;

	if (status != NVME_SUCCESS)
		return status;
	if (dwords[1] & NVME_QUEUE_INTERRUPTS && vector >= nvme->nr_vectors)
		return invalid(NVME_VECTOR_INVALID);
	pthread_mutex_lock(&nvme->lock);
	if (!nvme_is_mine(run) || NVME_CC_IOCQES(nvme->cc) != NVME_CQE_LOG2) {
		status = invalid(NVME_INVALID_FIELD);
	} else if (nvme->cqs[id].exists) {
		status = invalid(NVME_QID_INVALID);
	} else {
		nvme->cqs[id] = (struct nvme_cq){
			.exists = true,
			.interrupts = dwords[1] & NVME_QUEUE_INTERRUPTS,
			.base = run->command.prp1,
			.size = size,
			.phase = true,
			.vector = vector,
		};
	}
	pthread_mutex_unlock(&nvme->lock);
	return status;
}

static uint16_t create_sq(struct nvme_run *run)
{
	const uint32_t *dwords = run->command.dwords;
	unsigned id = dwords[0] & 0xffff, cq = dwords[1] >> 16;
	uint32_t size = (dwords[0] >> 16) + 1;
	uint16_t status = check_queue(run, id, size);
	struct nvme *nvme = run->nvme;
	struct nvme_sq *sq;

	if (status != NVME_SUCCESS)
		return status;
	if (!cq || cq >= NVME_NR_QUEUES)
		return invalid(NVME_QID_INVALID);
	sq = &nvme->sqs[id];
	pthread_mutex_lock(&nvme->lock);
	if (!nvme_is_mine(run) || NVME_CC_IOSQES(nvme->cc) != NVME_SQE_LOG2) {
		status = invalid(NVME_INVALID_FIELD);
	} else if (sq->exists) {
		status = invalid(NVME_QID_INVALID);
	} else if (!nvme->cqs[cq].exists) {
		status = invalid(NVME_CQ_INVALID);
	} else {
		sq->exists = true;
		sq->base = run->command.prp1;
		sq->size = size;
		sq->head = 0;
		sq->tail = 0;
		sq->cq = cq;
		nvme->cqs[cq].nr_sqs++;
	}
	pthread_mutex_unlock(&nvme->lock);
	return status;
}

static uint16_t delete_sq(struct nvme_run *run)
{
	unsigned id = run->command.dwords[0] & 0xffff;
	struct nvme *nvme = run->nvme;
	bool ok;

	if (!id || id >= NVME_NR_QUEUES)
		return invalid(NVME_QID_INVALID);
	pthread_mutex_lock(&nvme->lock);
	ok = nvme_is_mine(run) && nvme->sqs[id].exists;
	pthread_mutex_unlock(&nvme->lock);
	if (!ok)
		return invalid(NVME_QID_INVALID);
	nvme_revoke(&nvme->sqs[id], true);
	return NVME_SUCCESS;
}

static uint16_t delete_cq(struct nvme_run *run)
{
	unsigned id = run->command.dwords[0] & 0xffff;
	struct nvme *nvme = run->nvme;
	uint16_t status = NVME_SUCCESS;

	if (!id || id >= NVME_NR_QUEUES)
		return invalid(NVME_QID_INVALID);
	pthread_mutex_lock(&nvme->lock);
	if (!nvme_is_mine(run) || !nvme->cqs[id].exists)
		status = invalid(NVME_QID_INVALID);
	else if (nvme->cqs[id].nr_sqs)
		status = invalid(NVME_QUEUE_DELETION);
	else
		nvme->cqs[id].exists = false;
	pthread_mutex_unlock(&nvme->lock);
	return status;
}

/* --- features --- */

static bool has_feature(uint32_t id)
{
	return id >= NVME_FEATURE_ARBITRATION && id <= NVME_FEATURE_ASYNC_EVENTS &&
	       id != 0x03; /* LBA range type */
}

static uint16_t features(struct nvme_run *run, bool set)
{
	const uint32_t *dwords = run->command.dwords;
	uint32_t id = dwords[0] & 0xff;
	struct nvme *nvme = run->nvme;

	if (!has_feature(id))
		return invalid(NVME_INVALID_FIELD);
	/* Nothing is saved, and Identify says that only the current value can be had. */
	if (set && dwords[0] >> 31)
		return invalid(NVME_NOT_SAVEABLE);
	if (!set && dwords[0] & 0x700)
		return invalid(NVME_INVALID_FIELD);
	pthread_mutex_lock(&nvme->lock);
	if (id == NVME_FEATURE_NR_QUEUES)
		/* Whatever is asked for: 0's based, completion and submission queues. */
		nvme->features[id] = (NVME_IO_QUEUES - 1) << 16 | (NVME_IO_QUEUES - 1);
	else if (set)
		nvme->features[id] = dwords[1];
	run->result = nvme->features[id];
	pthread_mutex_unlock(&nvme->lock);
	return NVME_SUCCESS;
}

/* --- logs and events --- */

static uint16_t get_log_page(struct nvme_run *run)
{
	const uint32_t *dwords = run->command.dwords;
	uint64_t size = (((uint64_t)(dwords[1] & 0xffff) << 16 | dwords[0] >> 16) + 1) * 4;
	uint8_t *page = run->bounce;

	if (dwords[2] || dwords[3] || size > NVME_PAGE)
		return invalid(NVME_INVALID_FIELD);
	memset(page, 0, NVME_PAGE);
	switch (dwords[0] & 0xff) {
	case NVME_LOG_ERROR: /* no entry: nothing is recorded beyond the event */
		break;
	case NVME_LOG_HEALTH:
		regs_put(page, HEALTH_TEMPERATURE, ROOM_TEMPERATURE, 2);
		page[HEALTH_SPARE] = 100;
		page[HEALTH_SPARE_THRESHOLD] = 10;
		break;
	case NVME_LOG_FIRMWARE:
		page[0] = 1; /* slot 1 is active */
		memcpy(page + 8, "1       ", 8);
		break;
	default:
		return invalid(NVME_LOG_PAGE_INVALID);
	}
	if (!(dwords[0] & LOG_RETAIN) && (dwords[0] & 0xff) == NVME_LOG_ERROR) {
		pthread_mutex_lock(&run->nvme->lock);
		run->nvme->event_masked = false;
		pthread_mutex_unlock(&run->nvme->lock);
	}
	return nvme_transfer(run, page, size, true);
}

static uint16_t async_event(struct nvme_run *run)
{
	struct nvme *nvme = run->nvme;
	uint16_t status = NVME_LATER;

	pthread_mutex_lock(&nvme->lock);
	if (nvme->nr_events == NVME_MAX_EVENTS)
		status = invalid(NVME_AER_LIMIT);
	else if (nvme_is_mine(run))
		nvme->event_cids[nvme->nr_events++] = run->command.cid;
	pthread_mutex_unlock(&nvme->lock);
	return status;
}

uint16_t nvme_admin(struct nvme_run *run)
{
	switch (run->command.opcode) {
	case NVME_ADMIN_DELETE_SQ:
		return delete_sq(run);
	case NVME_ADMIN_CREATE_SQ:
		return create_sq(run);
	case NVME_ADMIN_GET_LOG_PAGE:
		return get_log_page(run);
	case NVME_ADMIN_DELETE_CQ:
		return delete_cq(run);
	case NVME_ADMIN_CREATE_CQ:
		return create_cq(run);
	case NVME_ADMIN_IDENTIFY:
		return nvme_identify(run);
	case NVME_ADMIN_ABORT:
		/* A command is done, or will be in no time: bit 0, "not aborted". */
		run->result = 1;
		return NVME_SUCCESS;
	case NVME_ADMIN_SET_FEATURES:
		return features(run, true);
	case NVME_ADMIN_GET_FEATURES:
		return features(run, false);
	case NVME_ADMIN_ASYNC_EVENT:
		return async_event(run);
	default:
		return invalid(NVME_INVALID_OPCODE);
	}
}
