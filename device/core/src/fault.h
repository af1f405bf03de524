/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fault.h - from a refused access to the log and the event queue.
 *
 * Workers report; the reactor puts the records on the ring. What waits in
 * between is bounded, and what finds no room or no buffer is dropped and counted,
 * as the specification allows.
 */
#ifndef FAULT_H
#define FAULT_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define FAULT_QUEUE_SIZE 256

struct dma_fault;
struct endpoint;
struct iommu;
struct reactor_work;

struct fault_event {
	uint8_t reason; /* VIRTIO_IOMMU_FAULT_R_* */
	uint32_t flags; /* VIRTIO_IOMMU_FAULT_F_* */
	uint32_t endpoint;
	uint32_t domain; /* for the log */
	uint32_t source; /* likewise */
	uint64_t addr;
};

struct fault_queue {
	struct iommu *iommu;
	struct reactor_work *work;
	pthread_mutex_t lock; /* of the rest */
	unsigned head;
	unsigned nr;
	struct fault_event events[FAULT_QUEUE_SIZE];
};

int fault_queue_init(struct fault_queue *queue, struct iommu *iommu);
void fault_queue_deinit(struct fault_queue *queue);
/* Forgets what has not been delivered: the driver it was meant for is gone. */
void fault_queue_clear(struct fault_queue *queue);

/* Logs, counts, and tells the driver. Any thread, without dma_lock and map_lock. */
void fault_report(struct endpoint *endpoint, const struct dma_fault *fault);

#endif /* FAULT_H */
