// SPDX-License-Identifier: GPL-2.0-or-later
#include "request.h"

#include <endian.h>
#include <errno.h>
#include <signal.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "ctx.h"
#include "dma.h"
#include "iommu.h"
#include "log.h"
#include "request_detail.h"
#include "virtqueue.h"

#define MAX_READABLE 72 /* PROBE is the longest request */
#define TAIL_SIZE sizeof(struct virtio_iommu_req_tail)
/* Buffers this much longer than needed are zeroed up to the tail; longer ones are malformed. */
#define MAX_EXCESS 65536
#define NR_TYPES (VIRTIO_IOMMU_T_PROBE + 1)
#define MAX_BATCHES 16 /* on the reactor at a time */

_Static_assert(offsetof(struct virtio_iommu_req_probe, properties) == MAX_READABLE,
	       "nothing readable may be longer");
_Static_assert(offsetof(struct virtio_iommu_req_attach, domain) ==
		       offsetof(struct virtio_iommu_req_map, domain),
	       "identify() reads the one for the other");

/* A request, copied once from guest memory and taken apart. */
struct request {
	uint64_t taken_ns;
	uint64_t writable; /* bytes, tail included */
	uint64_t used; /* length it went back with; UINT64_MAX: it did not */
	bool outside; /* its buffers are not in memory, or their descriptors broken */
	struct viommu_log_record record;
	struct inject_target target;
	/* Last: PROBE ends with an array of no size. */
	union {
		struct virtio_iommu_req_head head;
		struct virtio_iommu_req_attach attach;
		struct virtio_iommu_req_detach detach;
		struct virtio_iommu_req_map map;
		struct virtio_iommu_req_unmap unmap;
		struct virtio_iommu_req_probe probe;
		uint8_t bytes[MAX_READABLE];
	};
};

static bool type_known(const struct iommu *iommu, uint8_t type)
{
	switch (type) {
	case VIRTIO_IOMMU_T_ATTACH:
	case VIRTIO_IOMMU_T_DETACH:
		return true;
	case VIRTIO_IOMMU_T_MAP:
	case VIRTIO_IOMMU_T_UNMAP:
		return iommu->features >> VIRTIO_IOMMU_F_MAP_UNMAP & 1;
	case VIRTIO_IOMMU_T_PROBE:
		return iommu->features >> VIRTIO_IOMMU_F_PROBE & 1;
	default:
		return false;
	}
}

/* The bytes that the driver must have made readable, for a known type. */
static size_t readable_size(uint8_t type)
{
	static const uint8_t sizes[NR_TYPES] = {
		[VIRTIO_IOMMU_T_ATTACH] = offsetof(struct virtio_iommu_req_attach, tail),
		[VIRTIO_IOMMU_T_DETACH] = offsetof(struct virtio_iommu_req_detach, tail),
		[VIRTIO_IOMMU_T_MAP] = offsetof(struct virtio_iommu_req_map, tail),
		[VIRTIO_IOMMU_T_UNMAP] = offsetof(struct virtio_iommu_req_unmap, tail),
		[VIRTIO_IOMMU_T_PROBE] = offsetof(struct virtio_iommu_req_probe, properties),
	};

	return sizes[type];
}

static bool all_zero(const uint8_t *bytes, size_t len)
{
	while (len)
		if (bytes[--len])
			return false;
	return true;
}

static int handle_attach(struct iommu *iommu, struct request *request)
{
	const struct virtio_iommu_req_attach *attach = &request->attach;
	const struct viommu_log_record *record = &request->record;
	struct endpoint *endpoint;
	uint32_t known = 0;

	if (virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_BYPASS_CONFIG))
		known = VIRTIO_IOMMU_ATTACH_F_BYPASS;
	if (record->flags & ~known || !all_zero(attach->reserved, sizeof(attach->reserved)))
		return -EINVAL;
	if (virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_DOMAIN_RANGE) &&
	    (record->domain < iommu->domain_start || record->domain > iommu->domain_end))
		return -ERANGE;
	endpoint = iommu_find_endpoint(iommu, record->endpoint);
	if (!endpoint)
		return -ENOENT;
	return domain_attach(iommu, endpoint, record->domain,
			     record->flags & VIRTIO_IOMMU_ATTACH_F_BYPASS);
}

static int handle_detach(struct iommu *iommu, struct request *request)
{
	const struct viommu_log_record *record = &request->record;
	struct endpoint *endpoint;

	endpoint = iommu_find_endpoint(iommu, record->endpoint);
	return endpoint ? domain_detach(iommu, endpoint, record->domain) : -ENOENT;
}

static int handle_map(struct iommu *iommu, struct request *request)
{
	const struct viommu_log_record *record = &request->record;
	uint32_t known = VIRTIO_IOMMU_MAP_F_READ | VIRTIO_IOMMU_MAP_F_WRITE;
	struct domain_map map = {
		.domain = record->domain,
		.flags = record->flags,
		.start = record->start,
		.end = record->end,
		.phys = record->target,
	};

	if (virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_MMIO))
		known |= VIRTIO_IOMMU_MAP_F_MMIO;
	if (map.flags & ~known)
		return -EINVAL;
	return domain_map(iommu, &map);
}

static int handle_unmap(struct iommu *iommu, struct request *request)
{
	const struct virtio_iommu_req_unmap *unmap = &request->unmap;
	const struct viommu_log_record *record = &request->record;

	/* The specification leaves the choice: refused, and nothing is unmapped. */
	if (!all_zero(unmap->reserved, sizeof(unmap->reserved)))
		return -EINVAL;
	return domain_unmap(iommu, record->domain, record->start, record->end);
}

static int write_zeroes(const struct virtqueue *vq, const struct virtqueue_chain *chain,
			uint64_t offset, uint64_t end)
{
	static const uint8_t zeroes[256];
	int r = 0;

	for (; r == 0 && offset < end; offset += sizeof(zeroes)) {
		uint64_t left = end - offset;

		r = virtqueue_write(vq, chain, offset, zeroes,
				    left < sizeof(zeroes) ? left : sizeof(zeroes));
	}
	return r;
}

static int write_properties(const struct virtqueue *vq, const struct virtqueue_chain *chain,
			    const struct endpoint *endpoint)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < endpoint->nr_resv; i++) {
		const struct viommu_resv_mem *resv = &endpoint->resv[i];
		struct virtio_iommu_probe_resv_mem property = {
			.head.type = htole16(VIRTIO_IOMMU_PROBE_T_RESV_MEM),
			.head.length = htole16(sizeof(property) - sizeof(property.head)),
			.subtype = resv->subtype == VIOMMU_RESV_MSI ?
					   VIRTIO_IOMMU_RESV_MEM_T_MSI :
					   VIRTIO_IOMMU_RESV_MEM_T_RESERVED,
			.start = htole64(resv->start),
			.end = htole64(resv->end),
		};

		r = virtqueue_write(vq, chain, i * sizeof(property), &property, sizeof(property));
	}
	return r;
}

static int handle_probe(struct iommu *iommu, struct request *request,
			const struct virtqueue_chain *chain)
{
	const struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_REQUEST];
	struct endpoint *endpoint;

	/* "SHOULD NOT write any property, and SHOULD set the request status to INVAL" */
	if (request->writable - TAIL_SIZE < iommu->probe_size)
		return -EINVAL;
	if (write_zeroes(vq, chain, 0, request->writable - TAIL_SIZE) < 0)
		return -EIO;
	endpoint = iommu_find_endpoint(iommu, request->record.endpoint);
	if (!endpoint)
		return -ENOENT;
	if (inject_hit(&iommu->ctx->inject, VIOMMU_INJECT_IGNORE, &request->target, NULL))
		return 0;
	return write_properties(vq, chain, endpoint);
}

static int execute(struct iommu *iommu, struct request *request,
		   const struct virtqueue_chain *chain)
{
	const struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_REQUEST];

	/* The used length covers everything up to the tail, so that much is written. */
	if (request->head.type != VIRTIO_IOMMU_T_PROBE &&
	    write_zeroes(vq, chain, 0, request->writable - TAIL_SIZE) < 0)
		return -EIO;
	switch (request->head.type) {
	case VIRTIO_IOMMU_T_ATTACH:
		return handle_attach(iommu, request);
	case VIRTIO_IOMMU_T_DETACH:
		return handle_detach(iommu, request);
	case VIRTIO_IOMMU_T_MAP:
		return handle_map(iommu, request);
	case VIRTIO_IOMMU_T_UNMAP:
		return handle_unmap(iommu, request);
	default:
		return handle_probe(iommu, request, chain);
	}
}

/* The one place where an errno becomes a status that the guest sees. */
static uint8_t request_status(int r)
{
	switch (-r) {
	case 0:
		return VIRTIO_IOMMU_S_OK;
	case EINVAL:
		return VIRTIO_IOMMU_S_INVAL;
	case ERANGE:
		return VIRTIO_IOMMU_S_RANGE;
	case ENOENT:
		return VIRTIO_IOMMU_S_NOENT;
	case ENOMEM:
		return VIRTIO_IOMMU_S_NOMEM;
	case EOPNOTSUPP:
		return VIRTIO_IOMMU_S_UNSUPP;
	default:
		return VIRTIO_IOMMU_S_DEVERR;
	}
}

/* What the request asks for, for the log; also if it is not executed. */
static void describe(struct request *request)
{
	struct viommu_log_record *record = &request->record;

	switch (request->head.type) {
	case VIRTIO_IOMMU_T_ATTACH:
		record->flags = le32toh(request->attach.flags);
		break;
	case VIRTIO_IOMMU_T_MAP:
		record->flags = le32toh(request->map.flags);
		record->start = le64toh(request->map.virt_start);
		record->end = le64toh(request->map.virt_end);
		record->target = le64toh(request->map.phys_start);
		break;
	case VIRTIO_IOMMU_T_UNMAP:
		record->start = le64toh(request->unmap.virt_start);
		record->end = le64toh(request->unmap.virt_end);
		break;
	case VIRTIO_IOMMU_T_PROBE:
		record->end = request->writable;
		break;
	}
}

/* Whom the request is about: for the log, and for the rules of fault injection. */
static void identify(const struct iommu *iommu, struct request *request)
{
	struct viommu_log_record *record = &request->record;

	request->target = (struct inject_target){
		.request = request->head.type,
		.endpoint = -1,
		.domain = -1,
		.concerns = domain_concerns,
		.opaque = iommu,
	};
	switch (request->head.type) {
	case VIRTIO_IOMMU_T_ATTACH:
	case VIRTIO_IOMMU_T_DETACH: /* the same layout, as far as this goes */
		record->endpoint = le32toh(request->attach.endpoint);
		request->target.endpoint = record->endpoint;
		/* fall through */
	case VIRTIO_IOMMU_T_MAP:
	case VIRTIO_IOMMU_T_UNMAP: /* all four begin with the domain */
		record->domain = le32toh(request->map.domain);
		request->target.domain = record->domain;
		break;
	default:
		record->endpoint = le32toh(request->probe.endpoint);
		request->target.endpoint = record->endpoint;
	}
}

/*
 * Copies and checks a request. False if it cannot be answered at all: it goes
 * back with used length 0 and nothing written.
 */
static bool parse(struct iommu *iommu, struct request *request, const struct virtqueue_chain *chain)
{
	const struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_REQUEST];
	size_t len = chain->readable < MAX_READABLE ? chain->readable : MAX_READABLE;
	struct viommu_log_record *record = &request->record;

	record->kind = VIOMMU_LOG_MALFORMED_REQUEST;
	record->start = chain->readable;
	record->end = chain->writable;
	request->writable = chain->writable;
	request->outside = chain->malformed || virtqueue_read(vq, chain, request->bytes, len) < 0;
	if (request->outside || len < sizeof(request->head))
		return false;
	if (!type_known(iommu, request->head.type)) {
		record->kind = VIOMMU_LOG_UNKNOWN_REQUEST;
		record->flags = request->head.type;
		return false;
	}
	if (len < readable_size(request->head.type) || chain->writable < TAIL_SIZE ||
	    chain->writable - TAIL_SIZE > (uint64_t)iommu->probe_size + MAX_EXCESS)
		return false;
	request->outside = virtqueue_check_writable(vq, chain, 0, chain->writable) < 0;
	if (request->outside)
		return false;
	record->kind = request->head.type;
	record->start = 0;
	record->end = 0;
	identify(iommu, request);
	describe(request);
	return true;
}

/* Executes a well-formed request and writes its status; returns the used length. */
static uint32_t answer(struct iommu *iommu, struct request *request,
		       const struct virtqueue_chain *chain)
{
	const struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_REQUEST];
	struct inject *inject = &iommu->ctx->inject;
	struct virtio_iommu_req_tail tail = { 0 };
	struct inject_hit hit;

	if (inject_hit(inject, VIOMMU_INJECT_STATUS, &request->target, &hit))
		tail.status = hit.parameter;
	else
		tail.status = request_status(execute(iommu, request, chain));
	request->record.status = tail.status;
	/* Cannot fail: parse() looked, and nobody but this thread changes the memory map. */
	if (virtqueue_write(vq, chain, request->writable - TAIL_SIZE, &tail, TAIL_SIZE) < 0)
		return 0;
	return request->writable -
	       inject_hit(inject, VIOMMU_INJECT_SHORT_USED_LEN, &request->target, NULL);
}

static void account(struct iommu *iommu, struct request *request,
		    const struct virtqueue_chain *chain)
{
	static const enum viommu_counter counters[] = {
		[VIOMMU_LOG_ATTACH] = VIOMMU_COUNT_ATTACH,
		[VIOMMU_LOG_DETACH] = VIOMMU_COUNT_DETACH,
		[VIOMMU_LOG_MAP] = VIOMMU_COUNT_MAP,
		[VIOMMU_LOG_UNMAP] = VIOMMU_COUNT_UNMAP,
		[VIOMMU_LOG_PROBE] = VIOMMU_COUNT_PROBE,
		[VIOMMU_LOG_UNKNOWN_REQUEST] = VIOMMU_COUNT_UNKNOWN,
		[VIOMMU_LOG_MALFORMED_REQUEST] = VIOMMU_COUNT_MALFORMED,
	};
	struct viommu_log_record *record = &request->record;
	const struct request_detail detail = {
		.bytes = request->bytes,
		.readable = chain->readable,
		.writable = request->writable,
		.used = request->used,
	};
	struct log *log = iommu->ctx->log;
	uint64_t duration;

	record->time_ns = log_now_ns();
	duration = record->time_ns - request->taken_ns;
	record->duration_ns = duration < UINT32_MAX ? duration : UINT32_MAX;
	if (!request->outside)
		request_detail_log(log, record, &detail);
	log_append(log, record);
	log_count(log, counters[record->kind], 1);
	log_count_max(log, VIOMMU_COUNT_REQUEST_MAX_NS, duration);
	if (record->status != VIRTIO_IOMMU_S_OK)
		log_count(log, VIOMMU_COUNT_REQUEST_ERRORS, 1);
}

/* Answers a request, unless it is lost on purpose. Negative if the queue is broken. */
static int complete(struct iommu *iommu, struct virtqueue *vq, struct request *request,
		    const struct virtqueue_chain *chain)
{
	struct inject *inject = &iommu->ctx->inject;
	int r;

	if (inject_hit(inject, VIOMMU_INJECT_DIE, &request->target, NULL))
		/* What no handler of ours can soften. */
		raise(SIGKILL);
	if (inject_hit(inject, VIOMMU_INJECT_DROP, &request->target, NULL))
		return 0;
	request->used = answer(iommu, request, chain);
	r = virtqueue_push(vq, chain->head, request->used);
	if (r == 0 && inject_hit(inject, VIOMMU_INJECT_ANSWER_TWICE, &request->target, NULL))
		r = virtqueue_push(vq, chain->head, request->used);
	return r;
}

/*
 * A request is taken when the one before it was answered: one look at the clock
 * for each. 1 if the request, and so the queue, is held back; negative
 * if the queue is broken.
 */
static int handle_one(struct iommu *iommu, struct virtqueue *vq, uint64_t *now_ns, unsigned *kind)
{
	struct virtqueue_chain chain;
	struct request request = {
		.taken_ns = *now_ns,
		.used = UINT64_MAX,
		.record = {
			.endpoint = UINT32_MAX,
			.domain = UINT32_MAX,
			.source = iommu->source,
		},
	};
	int r;

	r = virtqueue_pop(vq, &chain);
	if (r < 0)
		return r;
	if (!parse(iommu, &request, &chain)) {
		request.used = 0;
		r = virtqueue_push(vq, chain.head, 0);
	} else if (hold_begin(&iommu->hold, &request.target)) {
		virtqueue_unpop(vq);
		return 1;
	} else {
		r = complete(iommu, vq, &request, &chain);
	}
	/* Before the publish: who sees the answer finds the record in the log. */
	account(iommu, &request, &chain);
	*now_ns = request.record.time_ns;
	*kind = request.record.kind;
	return r;
}

/* What is available now, with one publish. As handle_one(); kind: of the last one's record. */
static int run_batch(struct iommu *iommu, struct virtqueue *vq, unsigned *kind)
{
	int nr = virtqueue_poll(vq), r = nr < 0 ? nr : 0;
	uint64_t now_ns = log_now_ns();

	for (; nr > 0 && r == 0; nr--)
		r = handle_one(iommu, vq, &now_ns, kind);
	virtio_pci_flush(&iommu->vdev, IOMMU_QUEUE_REQUEST);
	return r;
}

void request_queue_run(struct iommu *iommu)
{
	struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_REQUEST];
	unsigned kind = 0;
	int nr = 1, r = 0;

	if (hold_active(&iommu->hold))
		return;
	for (unsigned i = 0; i < MAX_BATCHES && r == 0 && nr > 0; i++) {
		r = run_batch(iommu, vq, &kind);
		if (r == 0)
			nr = ring_poll_wait(&iommu->poll, vq, kind) ? 1 : virtqueue_arm(vq);
	}
	if (r < 0 || nr < 0)
		virtio_pci_needs_reset(&iommu->vdev);
	else if (r == 0 && nr > 0)
		/* A guest that never pauses: others have their turn, then we go on. */
		hold_resume(&iommu->hold);
}
