// SPDX-License-Identifier: GPL-2.0-or-later
#include "dma.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include "abortable_copy.h"
#include "ctx.h"
#include "dma_tlb.h"
#include "log.h"
#include "memory.h"
#include "vfio_user.h"

#define CLIENT_TIMEOUT_MS 2000
#define CACHE_LINE 64
#define PREFETCH_LINES 8
/*
 * What the client is asked for at once. Never more than a page, so that an IOMMU
 * of its own refuses all of it or nothing, and the count of bytes moved stays exact.
 */
#define CLIENT_PAGE 4096

static size_t min(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* A slice on its way. */
struct slice {
	struct dma_transfer *transfer;
	uint64_t iova;
	uint8_t *buf;
	size_t len;
	size_t moved;
	bool is_write;
	_Atomic uint64_t *done;
	struct dma_tlb *tlb; /* while dma_lock is held; may be NULL */
	uint64_t revocations; /* before the piece in hand was translated */
	/* The piece that only the client can reach; len 0 if there is none. */
	uint64_t client_addr;
	size_t client_len;
};

static enum dma_engine_status may_continue(const struct dma_transfer *transfer)
{
	if (atomic_load(transfer->generation) != transfer->expected)
		return DMA_STATUS_ABORTED;
	return vfu_bus_master(transfer->endpoint->vfu) ? DMA_STATUS_OK : DMA_STATUS_NO_BUS_MASTER;
}

static enum dma_engine_status refuse(struct slice *slice, enum dma_engine_fault reason)
{
	slice->transfer->fault = (struct dma_fault){
		.reason = reason,
		.is_write = slice->is_write,
		.addr = slice->iova + slice->moved,
	};
	return DMA_STATUS_FAULT;
}

static void advance(struct slice *slice, size_t len)
{
	slice->moved += len;
	if (slice->done)
		atomic_fetch_add(slice->done, len);
}

/* What the bus makes of a write into the MSI window: an interrupt if it is one of ours. */
static void deliver_msi(const struct endpoint *endpoint, uint64_t addr, const void *buf)
{
	struct viommu_ctx *ctx = endpoint->ctx;
	uint32_t data;
	int vector;
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_MSI_WRITE,
		.endpoint = endpoint->id,
		.domain = UINT32_MAX,
		.start = addr,
		.end = addr + 3,
		.source = endpoint->source,
	};

	memcpy(&data, buf, sizeof(data));
	data = le32toh(data);
	record.target = data;
	log_append(ctx->log, &record);
	vector = vfu_msi_vector(endpoint->vfu, addr, data);
	if (vector >= 0)
		ctx_irq_raise(ctx, endpoint->vfu, endpoint->id, vector);
}

/* As much as can be copied before the translation to host is revoked. */
static void copy(struct slice *slice, uint8_t *host, size_t len)
{
	const struct endpoint *endpoint = slice->transfer->endpoint;
	uint8_t *buf = slice->buf + slice->moved;
	uint8_t *to = slice->is_write ? host : buf, *from = slice->is_write ? buf : host;

	if (endpoint->ctx->can_abort_copies)
		len -= abortable_copy(to, from, len, &endpoint->requester->revocations,
				      slice->revocations);
	else
		memcpy(to, from, len);
	advance(slice, len);
}

/* The next contiguous piece, by way of the tables; dma_lock is held. */
static enum dma_engine_status move_translated(struct slice *slice)
{
	const struct endpoint *endpoint = slice->transfer->endpoint;
	uint64_t iova = slice->iova + slice->moved;
	size_t left = slice->len - slice->moved;
	struct dma_target target;
	uint8_t *host;
	size_t run;

	pthread_rwlock_rdlock(&endpoint->ctx->map_lock);
	target = dma_translate(endpoint, iova, left, slice->is_write);
	pthread_rwlock_unlock(&endpoint->ctx->map_lock);
	run = target.len;
	if (target.fault != DMA_FAULT_NONE)
		return refuse(slice, target.fault);
	if (target.is_msi) {
		deliver_msi(endpoint, target.addr, slice->buf + slice->moved);
		advance(slice, MSI_WRITE_SIZE);
		return DMA_STATUS_OK;
	}
	host = memory_lookup(vfu_memory(endpoint->vfu), target.addr, &run,
			     slice->is_write ? MEMORY_WRITE : MEMORY_READ);
	if (!host) {
		size_t page = CLIENT_PAGE - target.addr % CLIENT_PAGE;

		slice->client_addr = target.addr;
		slice->client_len = min(min(target.len, left), page);
		return DMA_STATUS_OK;
	}
	/* A rule may have come since this slice asked for rules. */
	if (slice->tlb && !target.is_injected)
		dma_tlb_add(slice->tlb, iova, slice->is_write, host, run);
	copy(slice, host, min(run, left));
	return DMA_STATUS_OK;
}

/* Has the next piece on its way while this one is copied. */
static void prefetch(struct slice *slice, size_t run)
{
	size_t len = 1;
	uint8_t *host =
		dma_tlb_find(slice->tlb, slice->iova + slice->moved + run, slice->is_write, &len);

	for (unsigned i = 0; host && i < PREFETCH_LINES; i++)
		__builtin_prefetch(host + i * CACHE_LINE);
}

/* The next contiguous piece; dma_lock is held. */
static enum dma_engine_status move_piece(struct slice *slice)
{
	const struct endpoint *endpoint = slice->transfer->endpoint;
	size_t run = slice->len - slice->moved;
	uint8_t *host = NULL;

	slice->revocations = atomic_load(&endpoint->requester->revocations);
	if (slice->tlb) {
		dma_tlb_check(slice->tlb, slice->revocations,
			      memory_generation(vfu_memory(endpoint->vfu)));
		host = dma_tlb_find(slice->tlb, slice->iova + slice->moved, slice->is_write, &run);
	}
	if (!host)
		return move_translated(slice);
	if (slice->moved + run < slice->len)
		prefetch(slice, run);
	copy(slice, host, run);
	return DMA_STATUS_OK;
}

/* What can be moved without the client; dma_lock is held. */
static enum dma_engine_status move_pieces(struct slice *slice)
{
	struct endpoint *endpoint = slice->transfer->endpoint;
	enum dma_engine_status status = may_continue(slice->transfer);

	if (status != DMA_STATUS_OK)
		return status;
	/* What a rule decides is decided anew for each access. */
	if (!inject_wants_access(&endpoint->ctx->inject))
		slice->tlb = dma_tlb_get(endpoint->tlbs);
	/* Before the revocations are looked at: who changes them looks here next. */
	atomic_fetch_add(&endpoint->requester->nr_slices, 1);
	while (status == DMA_STATUS_OK && slice->moved < slice->len && !slice->client_len)
		status = move_piece(slice);
	atomic_fetch_sub(&endpoint->requester->nr_slices, 1);
	dma_tlb_put(slice->tlb);
	slice->tlb = NULL;
	return status;
}

/*
 * What a refusal by the client means. If we translated, there is just nothing
 * there. If the client did, EPERM and EACCES are its word for a missing
 * permission; ENODEV, EFAULT and EINVAL for a missing mapping; the rest (too
 * late, gone) says nothing of the address.
 */
static enum dma_engine_fault client_fault(const struct endpoint *endpoint, int r)
{
	if (endpoint->iommu)
		return DMA_FAULT_BUS;
	switch (-r) {
	case EPERM:
	case EACCES:
		return DMA_FAULT_PERMISSION;
	case ENODEV:
	case EFAULT:
	case EINVAL:
		return DMA_FAULT_MAPPING;
	default:
		return DMA_FAULT_BUS;
	}
}

/*
 * The piece that move_piece() left to the client, without dma_lock: the reactor
 * must be free to receive the answer. The device's own buffer is only touched
 * under the lock, since a reset may be clearing it.
 */
static enum dma_engine_status move_by_client(struct slice *slice)
{
	struct viommu_ctx *ctx = slice->transfer->endpoint->ctx;
	uint8_t page[CLIENT_PAGE], *buf = slice->buf + slice->moved;
	enum dma_engine_status status;
	int r;

	if (slice->is_write) {
		pthread_rwlock_rdlock(&ctx->dma_lock);
		memcpy(page, buf, slice->client_len);
		pthread_rwlock_unlock(&ctx->dma_lock);
	}
	r = vfu_dma_access(slice->transfer->endpoint->vfu, slice->client_addr, page,
			   slice->client_len, slice->is_write, CLIENT_TIMEOUT_MS);
	pthread_rwlock_rdlock(&ctx->dma_lock);
	status = may_continue(slice->transfer);
	if (status == DMA_STATUS_OK && r < 0) {
		status = refuse(slice, client_fault(slice->transfer->endpoint, r));
	} else if (status == DMA_STATUS_OK) {
		if (!slice->is_write)
			memcpy(buf, page, slice->client_len);
		advance(slice, slice->client_len);
	}
	pthread_rwlock_unlock(&ctx->dma_lock);
	slice->client_len = 0;
	return status;
}

enum dma_engine_status dma_slice(struct dma_transfer *transfer, uint64_t iova, void *buf,
				 size_t len, bool is_write, _Atomic uint64_t *done,
				 size_t *ret_moved)
{
	struct viommu_ctx *ctx = transfer->endpoint->ctx;
	struct slice slice = {
		.transfer = transfer,
		.iova = iova,
		.buf = buf,
		.len = len,
		.is_write = is_write,
		.done = done,
	};
	enum dma_engine_status status = DMA_STATUS_OK;

	while (status == DMA_STATUS_OK && slice.moved < len) {
		pthread_rwlock_rdlock(&ctx->dma_lock);
		status = move_pieces(&slice);
		pthread_rwlock_unlock(&ctx->dma_lock);
		if (slice.client_len)
			status = move_by_client(&slice);
	}
	log_count(ctx->log, is_write ? VIOMMU_COUNT_DMA_WRITE_BYTES : VIOMMU_COUNT_DMA_READ_BYTES,
		  slice.moved);
	*ret_moved += slice.moved;
	return status;
}

bool dma_revoke(struct endpoint *endpoint)
{
	atomic_fetch_add(&endpoint->revocations, 1);
	/* A slice that begins after this finds the new number. */
	return atomic_load(&endpoint->nr_slices);
}

void dma_finish_revoke(struct viommu_ctx *ctx, bool in_use)
{
	if (!in_use)
		return;
	if (ctx->can_abort_copies) {
		abortable_copy_abort_all();
	} else {
		pthread_rwlock_wrlock(&ctx->dma_lock);
		pthread_rwlock_unlock(&ctx->dma_lock);
	}
}

void dma_log(struct endpoint *endpoint, struct viommu_log_record record, uint64_t start_ns)
{
	struct log *log = endpoint->ctx->log;
	uint64_t now = log_now_ns(), duration = now - start_ns;

	record.time_ns = now;
	record.kind = VIOMMU_LOG_DMA;
	record.endpoint = endpoint->id;
	record.domain = UINT32_MAX;
	record.duration_ns = duration < UINT32_MAX ? duration : UINT32_MAX;
	record.source = endpoint->source;
	log_append(log, &record);
	log_count(log, VIOMMU_COUNT_DMA_TRANSACTIONS, 1);
	atomic_fetch_add(&endpoint->transactions, 1);
	if (record.status != DMA_STATUS_OK)
		log_count(log, VIOMMU_COUNT_DMA_ERRORS, 1);
}
