// SPDX-License-Identifier: GPL-2.0-or-later
#include "endpoint_model.h"

#include <errno.h>
#include <stdlib.h>

#include "ctx.h"
#include "engine.h"
#include "ioat.h"
#include "iommu.h"
#include "nvme.h"

static const struct endpoint_model *const models[VIOMMU_NR_MODELS] = {
	[VIOMMU_MODEL_DMA_ENGINE] = &engine_model,
	[VIOMMU_MODEL_IOAT] = &ioat_model,
	[VIOMMU_MODEL_NVME] = &nvme_model,
};

static bool ignores_reset(void *opaque)
{
	const struct endpoint *endpoint = opaque;
	const struct inject_target target = { .endpoint = endpoint->id, .domain = -1 };

	return inject_hit(&endpoint->ctx->inject, VIOMMU_INJECT_IGNORE_RESET, &target, NULL);
}

static int create_vfu(struct endpoint *endpoint, const struct viommu_endpoint_config *config,
		      unsigned nr_vectors)
{
	struct vfu_config vfu_config = models[endpoint->kind]->pci;

	vfu_config.socket_path = config->socket_path;
	vfu_config.name = endpoint->name;
	vfu_config.source = endpoint->source;
	vfu_config.endpoint = endpoint->id;
	vfu_config.nr_vectors = nr_vectors;
	/* As many as MSI-X has, rounded down to a power of two; or none. */
	if (!nr_vectors)
		vfu_config.nr_msi = 0;
	else if (vfu_config.nr_msi)
		vfu_config.nr_msi = 1u << (31 - __builtin_clz(nr_vectors));
	vfu_config.ops.ignores_reset = ignores_reset;
	vfu_config.opaque = endpoint;
	vfu_config.reactor = endpoint->ctx->reactor;
	vfu_config.log = endpoint->ctx->log;
	vfu_config.dma_lock = &endpoint->ctx->dma_lock;
	return vfu_create(&vfu_config, &endpoint->vfu);
}

int endpoint_create(struct viommu_ctx *ctx, struct iommu *iommu, uint32_t source,
		    const struct viommu_endpoint_config *config, struct endpoint **ret)
{
	const struct endpoint_model *model;
	struct endpoint *endpoint;
	unsigned nr_vectors;
	int r;

	if (config->model >= VIOMMU_NR_MODELS)
		return -EINVAL;
	model = models[config->model];
	if (config->nr_vectors > model->max_vectors ||
	    (config->image && config->model != VIOMMU_MODEL_NVME))
		return -EINVAL;
	nr_vectors = config->no_msix ? 0 : config->nr_vectors ?: model->default_vectors;
	endpoint = calloc(1, model->size);
	if (!endpoint)
		return -ENOMEM;
	r = endpoint_init(endpoint, ctx, iommu, source, config);
	if (r < 0) {
		free(endpoint);
		return r;
	}
	r = model->init(endpoint, config, nr_vectors);
	if (r == 0)
		r = create_vfu(endpoint, config, nr_vectors);
	if (r == 0 && iommu)
		r = iommu_add_endpoint(iommu, endpoint);
	if (r < 0) {
		endpoint_destroy(endpoint);
		return r;
	}
	*ret = endpoint;
	return 0;
}

void endpoint_destroy(struct endpoint *endpoint)
{
	if (!endpoint)
		return;
	vfu_destroy(endpoint->vfu);
	models[endpoint->kind]->deinit(endpoint);
	endpoint_deinit(endpoint);
	free(endpoint);
}
