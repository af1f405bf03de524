/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iommu.h - one virtio-iommu function.
 *
 * Four ways to reset it, and what each does to `bypass`, which outlives a reset
 * of the device but not one of the system:
 *   driver writes status 0   detaches all endpoints, keeps bypass
 *   function level reset     the same, and the transport resets configuration space
 *   DEVICE_RESET             a system reset: also restores the initial bypass
 *   client gone              the same, since the next client is another system
 */
#ifndef IOMMU_H
#define IOMMU_H

#include <stdbool.h>
#include <stdint.h>

#include "domain.h"
#include "fault.h"
#include "hold.h"
#include "ring_poll.h"
#include "viommu.h"
#include "virtio_pci.h"

#define IOMMU_ENDPOINT_BUCKETS 1024

#define IOMMU_QUEUE_REQUEST 0
#define IOMMU_QUEUE_EVENT 1

struct endpoint;
struct viommu_ctx;

struct iommu {
	struct viommu_ctx *ctx;
	uint32_t source;
	struct virtio_pci vdev;
	/* From the configuration, defaults filled in. */
	uint64_t features;
	uint64_t page_size_mask;
	uint64_t input_start, input_end;
	uint32_t domain_start, domain_end;
	uint32_t probe_size;
	uint64_t max_mappings;
	uint32_t max_domains;
	bool initial_bypass;

	bool bypass; /* the configuration field */
	/* Whether an endpoint without a domain reaches memory: read under map_lock. */
	bool identity;
	struct endpoint *endpoints; /* complete before the reactor starts */
	struct endpoint *endpoints_by_id[IOMMU_ENDPOINT_BUCKETS];
	struct endpoint *ids; /* those that are ours to free; linked by next_id */
	struct domain_table domains;
	struct fault_queue faults;
	struct hold hold;
	struct ring_poll poll;
};

int iommu_create(struct viommu_ctx *ctx, uint32_t source, const struct viommu_iommu_config *config,
		 struct iommu **ret);
void iommu_destroy(struct iommu *iommu);

/* -EEXIST for an id that is taken, -EMSGSIZE if its reserved regions do not fit the probe size. */
int iommu_add_endpoint(struct iommu *iommu, struct endpoint *endpoint);
/* An endpoint without a function. The same, and what endpoint_init() says. */
int iommu_add_id(struct iommu *iommu, const struct viommu_endpoint_config *config);
/* Looks again at requests that were held back. Any thread. */
void iommu_resume(struct iommu *iommu);
struct endpoint *iommu_find_endpoint(const struct iommu *iommu, uint32_t id);

#endif /* IOMMU_H */
