// SPDX-License-Identifier: GPL-2.0-or-later
#include "fault.h"

#include <endian.h>
#include <errno.h>

#include <linux/virtio_iommu.h>

#include "ctx.h"
#include "dma.h"
#include "iommu.h"
#include "log.h"
#include "reactor.h"

static void log_event(struct log *log, enum viommu_log_kind kind, const struct fault_event *event)
{
	struct viommu_log_record record = {
		.kind = kind,
		.status = event->reason,
		.endpoint = event->endpoint,
		.domain = event->domain,
		.flags = event->flags,
		.start = event->addr,
		.end = event->addr,
		.source = event->source,
	};

	log_append(log, &record);
}

static void drop(struct iommu *iommu, const struct fault_event *event)
{
	/* Counted first: whoever sees the record may look at the counter next. */
	log_count(iommu->ctx->log, VIOMMU_COUNT_FAULTS_DROPPED, 1);
	log_event(iommu->ctx->log, VIOMMU_LOG_FAULT_DROPPED, event);
}

/*
 * Puts one event into one buffer. A buffer that cannot take it is returned with
 * length 0: a record is never spread over two, and never shortened.
 */
static int put_event(struct iommu *iommu, struct virtqueue *vq, const struct fault_event *event)
{
	const struct virtio_iommu_fault fault = {
		.reason = event->reason,
		.flags = htole32(event->flags),
		.endpoint = htole32(event->endpoint),
		.address = htole64(event->addr),
	};
	struct virtqueue_chain chain;
	uint32_t len = 0;
	int r;

	r = virtqueue_pop(vq, &chain);
	if (r < 0)
		return r;
	if (virtqueue_check_writable(vq, &chain, 0, sizeof(fault)) == 0 &&
	    virtqueue_write(vq, &chain, 0, &fault, sizeof(fault)) == 0)
		len = sizeof(fault);
	if (len)
		log_count(iommu->ctx->log, VIOMMU_COUNT_FAULTS_REPORTED, 1);
	else
		drop(iommu, event);
	return virtqueue_push(vq, chain.head, len);
}

/*
 * Linux posts its event buffers without notifying, so the available index is
 * looked at here. A ring that is out of memory for a moment (QEMU remaps RAM
 * while firmware runs) costs the event, not the device.
 */
static void deliver(struct iommu *iommu, const struct fault_event *event)
{
	struct virtqueue *vq = &iommu->vdev.queues[IOMMU_QUEUE_EVENT];
	int nr = 0;

	if (virtio_pci_queue_ready(&iommu->vdev, IOMMU_QUEUE_EVENT))
		nr = virtqueue_poll(vq);
	if (nr <= 0)
		drop(iommu, event);
	else
		nr = put_event(iommu, vq, event);
	if (nr == -EINVAL)
		virtio_pci_needs_reset(&iommu->vdev);
}

static bool take(struct fault_queue *queue, struct fault_event *ret)
{
	bool found;

	pthread_mutex_lock(&queue->lock);
	found = queue->nr;
	if (found) {
		*ret = queue->events[queue->head];
		queue->head = (queue->head + 1) % FAULT_QUEUE_SIZE;
		queue->nr--;
	}
	pthread_mutex_unlock(&queue->lock);
	return found;
}

static bool put(struct fault_queue *queue, const struct fault_event *event)
{
	bool room;

	pthread_mutex_lock(&queue->lock);
	room = queue->nr < FAULT_QUEUE_SIZE;
	if (room)
		queue->events[(queue->head + queue->nr++) % FAULT_QUEUE_SIZE] = *event;
	pthread_mutex_unlock(&queue->lock);
	return room;
}

/* On the reactor: everything that waits, then one interrupt. */
static void deliver_all(void *opaque, uint32_t events)
{
	struct iommu *iommu = opaque;
	struct fault_event event;

	(void)events;
	/* Bounded: a guest that faults all the time must not starve its own requests. */
	for (unsigned i = 0; i < FAULT_QUEUE_SIZE && take(&iommu->faults, &event); i++)
		deliver(iommu, &event);
	if (virtio_pci_queue_ready(&iommu->vdev, IOMMU_QUEUE_EVENT))
		virtio_pci_flush(&iommu->vdev, IOMMU_QUEUE_EVENT);
}

int fault_queue_init(struct fault_queue *queue, struct iommu *iommu)
{
	int r;

	queue->iommu = iommu;
	queue->head = 0;
	queue->nr = 0;
	r = reactor_work_create(iommu->ctx->reactor, deliver_all, iommu, &queue->work);
	if (r < 0)
		return r;
	pthread_mutex_init(&queue->lock, NULL);
	return 0;
}

void fault_queue_deinit(struct fault_queue *queue)
{
	reactor_work_destroy(queue->work);
	pthread_mutex_destroy(&queue->lock);
}

void fault_queue_clear(struct fault_queue *queue)
{
	struct fault_event event;

	while (take(queue, &event))
		drop(queue->iommu, &event);
}

static uint8_t virtio_reason(enum dma_engine_fault reason)
{
	switch (reason) {
	case DMA_FAULT_DOMAIN:
		return VIRTIO_IOMMU_FAULT_R_DOMAIN;
	case DMA_FAULT_MAPPING:
	case DMA_FAULT_PERMISSION:
		return VIRTIO_IOMMU_FAULT_R_MAPPING;
	default:
		return VIRTIO_IOMMU_FAULT_R_UNKNOWN;
	}
}

static uint32_t domain_of(const struct endpoint *endpoint)
{
	uint32_t id;

	pthread_rwlock_rdlock(&endpoint->ctx->map_lock);
	id = endpoint->domain ? endpoint->domain->id : UINT32_MAX;
	pthread_rwlock_unlock(&endpoint->ctx->map_lock);
	return id;
}

static bool is_lost(struct viommu_ctx *ctx, const struct fault_event *event)
{
	const struct inject_target target = {
		.endpoint = event->endpoint,
		.domain = event->domain == UINT32_MAX ? -1 : (int64_t)event->domain,
	};

	return inject_hit(&ctx->inject, VIOMMU_INJECT_LOSE_FAULT, &target, NULL);
}

void fault_report(struct endpoint *endpoint, const struct dma_fault *fault)
{
	static const enum viommu_counter counters[] = {
		[VIRTIO_IOMMU_FAULT_R_UNKNOWN] = VIOMMU_COUNT_FAULT_UNKNOWN,
		[VIRTIO_IOMMU_FAULT_R_DOMAIN] = VIOMMU_COUNT_FAULT_DOMAIN,
		[VIRTIO_IOMMU_FAULT_R_MAPPING] = VIOMMU_COUNT_FAULT_MAPPING,
	};
	struct viommu_ctx *ctx = endpoint->ctx;
	struct iommu *iommu = endpoint->iommu;
	const struct fault_event event = {
		.reason = virtio_reason(fault->reason),
		.flags = VIRTIO_IOMMU_FAULT_F_ADDRESS |
			 (fault->is_write ? VIRTIO_IOMMU_FAULT_F_WRITE : VIRTIO_IOMMU_FAULT_F_READ),
		.endpoint = endpoint->requester->id,
		.domain = domain_of(endpoint->requester),
		.source = endpoint->source,
		.addr = fault->addr,
	};

	atomic_fetch_add(&endpoint->faults, 1);
	log_count(ctx->log, counters[event.reason], 1);
	log_event(ctx->log, VIOMMU_LOG_FAULT, &event);
	/* What the bus refuses after a good translation is no fault of the IOMMU's. */
	if (!iommu || fault->reason == DMA_FAULT_BUS || is_lost(ctx, &event))
		return;
	if (put(&iommu->faults, &event))
		reactor_work_post(iommu->faults.work);
	else
		drop(iommu, &event);
}
