/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * endpoint_model.h - how an endpoint plugs in.
 *
 * A model is a table: what it looks like to PCI, and what it does. All that it
 * has around it is shared: vfio-user, configuration space and interrupts
 * (vfio_user.h), translation and DMA (dma.h), and threads that may wait (pool.h).
 *
 * pci.ops run on the reactor. reset() and bus_master(false) must quiesce: when
 * they return, no slice of what was submitted before is in flight or will be.
 * The way to that is a generation, changed under dma_lock as the writer.
 */
#ifndef ENDPOINT_MODEL_H
#define ENDPOINT_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "dma.h"
#include "vfio_user.h"
#include "viommu.h"

struct endpoint_model {
	size_t size; /* of the model's own structure, which begins with a struct endpoint */
	unsigned default_vectors, max_vectors;
	/* All but what differs between endpoints of one model; ops get the endpoint as opaque. */
	struct vfu_config pci;
	/*
	 * The structure is zero but for the endpoint, whose vfu comes later. 0 or
	 * -errno; deinit() follows in either case, with workers and reactor stopped.
	 */
	int (*init)(struct endpoint *endpoint, const struct viommu_endpoint_config *config,
		    unsigned nr_vectors);
	void (*deinit)(struct endpoint *endpoint);
};

/* iommu may be NULL. The endpoint joins the IOMMU as the last thing that can fail. */
int endpoint_create(struct viommu_ctx *ctx, struct iommu *iommu, uint32_t source,
		    const struct viommu_endpoint_config *config, struct endpoint **ret);
/* Workers and reactor stopped. Accepts NULL. */
void endpoint_destroy(struct endpoint *endpoint);

#endif /* ENDPOINT_MODEL_H */
