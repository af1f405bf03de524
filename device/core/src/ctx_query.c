// SPDX-License-Identifier: GPL-2.0-or-later
/* What the control plane asks about: any thread, while DMA goes on. */
#include "ctx.h"

#include <string.h>

#include "endpoint_model.h"
#include "iommu.h"
#include "vfio_user.h"

/*
 * Up to so many are seen as they are at one moment. With more, map_lock is let go in
 * between: a guest that spins in an UNMAP does not wait for ten thousand domains.
 */
#define DOMAINS_AT_ONCE 256

static void fill_endpoint(const struct endpoint *endpoint, struct viommu_endpoint_info *info)
{
	pthread_rwlock_rdlock(&endpoint->ctx->map_lock);
	*info = (struct viommu_endpoint_info){
		.id = endpoint->id,
		.model = endpoint->kind,
		.iommu = endpoint->iommu ? endpoint->iommu->source : VIOMMU_NO_IOMMU,
		.attached = endpoint->domain,
		.domain = endpoint->domain ? endpoint->domain->id : 0,
		.connected = vfu_connected(endpoint->vfu),
		.bus_master = vfu_bus_master(endpoint->vfu),
		.in_flight = atomic_load(&endpoint->in_flight),
		.transactions = atomic_load(&endpoint->transactions),
		.faults = atomic_load(&endpoint->faults),
	};
	pthread_rwlock_unlock(&endpoint->ctx->map_lock);
	memcpy(info->name, endpoint->name, sizeof(info->name));
}

size_t viommu_ctx_query_endpoints(viommu_ctx_t *ctx, struct viommu_endpoint_info *buf, size_t max)
{
	size_t nr = 0;

	pthread_mutex_lock(&ctx->lock);
	for (uint32_t i = 0; i < ctx->nr_functions; i++) {
		if (!ctx->functions[i].endpoint)
			continue;
		if (nr < max)
			fill_endpoint(ctx->functions[i].endpoint, &buf[nr]);
		nr++;
	}
	pthread_mutex_unlock(&ctx->lock);
	return nr;
}

static void fill_domain(const struct iommu *iommu, const struct domain *domain,
			struct viommu_domain_info *info)
{
	*info = (struct viommu_domain_info){
		.iommu = iommu->source,
		.id = domain->id,
		.bypass = domain->bypass,
		.nr_endpoints = domain->nr_endpoints,
		.nr_mappings = atomic_load(&domain->mappings.nr_mappings),
		.mapped_bytes = mapping_bytes(&domain->mappings),
	};
}

static size_t query_iommu(const struct iommu *iommu, struct viommu_domain_info *buf, size_t max,
			  size_t nr)
{
	size_t locked_at = nr;

	pthread_rwlock_rdlock(&iommu->ctx->map_lock);
	for (size_t i = 0; i < DOMAIN_BUCKETS; i++) {
		for (const struct domain *domain = iommu->domains.buckets[i]; domain;
		     domain = domain->next, nr++) {
			if (nr < max)
				fill_domain(iommu, domain, &buf[nr]);
		}
		/* A domain stays in its bucket: none is missed for it, or told of twice. */
		if (nr - locked_at >= DOMAINS_AT_ONCE) {
			pthread_rwlock_unlock(&iommu->ctx->map_lock);
			pthread_rwlock_rdlock(&iommu->ctx->map_lock);
			locked_at = nr;
		}
	}
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	return nr;
}

size_t viommu_ctx_query_domains(viommu_ctx_t *ctx, struct viommu_domain_info *buf, size_t max)
{
	size_t nr = 0;

	pthread_mutex_lock(&ctx->lock);
	for (uint32_t i = 0; i < ctx->nr_functions; i++) {
		if (ctx->functions[i].iommu)
			nr = query_iommu(ctx->functions[i].iommu, buf, max, nr);
	}
	pthread_mutex_unlock(&ctx->lock);
	return nr;
}
