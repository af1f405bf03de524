// SPDX-License-Identifier: GPL-2.0-or-later
/* What an endpoint's address means: reserved regions, domains, bypass. */
#include "dma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "ctx.h"
#include "dma_tlb.h"
#include "domain.h"
#include "iommu.h"
#include "mapping.h"

#define OFF_BY_PAGE 4096

static int compare_resv(const void *a, const void *b)
{
	const struct viommu_resv_mem *left = a, *right = b;

	return (left->start > right->start) - (left->start < right->start);
}

static int check_resv(const struct viommu_resv_mem *resv, size_t nr_resv)
{
	unsigned nr_msi = 0;

	for (size_t i = 0; i < nr_resv; i++) {
		if (resv[i].start > resv[i].end || resv[i].subtype > VIOMMU_RESV_MSI)
			return -EINVAL;
		if (i && resv[i - 1].end >= resv[i].start)
			return -EINVAL;
		nr_msi += resv[i].subtype == VIOMMU_RESV_MSI;
	}
	return nr_msi <= 1 ? 0 : -EINVAL;
}

int endpoint_init(struct endpoint *endpoint, struct viommu_ctx *ctx, struct iommu *iommu,
		  uint32_t source, const struct viommu_endpoint_config *config)
{
	struct endpoint *requester = endpoint;
	struct viommu_resv_mem *resv = NULL;
	struct dma_tlb *tlbs;
	int r;

	if (!config->name || strlen(config->name) >= VIOMMU_NAME_MAX)
		return -EINVAL;
	if (config->requester) {
		requester = iommu ? iommu_find_endpoint(iommu, config->requester) : NULL;
		if (!requester)
			return -ENOENT;
	}
	if (config->nr_resv) {
		resv = calloc(config->nr_resv, sizeof(*resv));
		if (!resv)
			return -ENOMEM;
		memcpy(resv, config->resv, config->nr_resv * sizeof(*resv));
		qsort(resv, config->nr_resv, sizeof(*resv), compare_resv);
		r = check_resv(resv, config->nr_resv);
		if (r < 0) {
			free(resv);
			return r;
		}
	}
	tlbs = calloc(DMA_NR_TLBS, sizeof(*tlbs));
	if (!tlbs) {
		free(resv);
		return -ENOMEM;
	}
	*endpoint = (struct endpoint){
		.ctx = ctx,
		.iommu = iommu,
		.kind = config->model,
		.id = config->id,
		.requester = requester,
		.source = source,
		.resv = resv,
		.nr_resv = config->nr_resv,
		.tlbs = tlbs,
	};
	strcpy(endpoint->name, config->name);
	return 0;
}

void endpoint_deinit(struct endpoint *endpoint)
{
	free(endpoint->tlbs);
	free(endpoint->resv);
	endpoint->tlbs = NULL;
	endpoint->resv = NULL;
	endpoint->nr_resv = 0;
}

static size_t cut_len(size_t len, uint64_t start, uint64_t end)
{
	return end - start < len ? end - start + 1 : len;
}

/*
 * Reserved regions come first, whatever the endpoint is attached to: they stand
 * for what the bus does with an access before any translation.
 */
static bool translate_reserved(const struct endpoint *endpoint, struct dma_target *target,
			       size_t len, bool is_write)
{
	for (size_t i = 0; i < endpoint->nr_resv; i++) {
		const struct viommu_resv_mem *resv = &endpoint->resv[i];
		bool is_msi;

		if (target->addr > resv->end)
			continue;
		if (target->addr < resv->start) {
			target->len = cut_len(target->len, target->addr, resv->start - 1);
			return false;
		}
		target->len = cut_len(target->len, target->addr, resv->end);
		/* An MSI is one aligned write of four bytes, nothing else is. */
		is_msi = resv->subtype == VIOMMU_RESV_MSI && is_write &&
			 cut_len(len, target->addr, resv->end) == MSI_WRITE_SIZE &&
			 target->addr % MSI_WRITE_SIZE == 0;
		if (is_msi)
			target->is_msi = true;
		else
			target->fault = DMA_FAULT_RESERVED;
		return true;
	}
	return false;
}

static bool defect(const struct endpoint *endpoint, enum viommu_inject_action action,
		   struct dma_target *answer)
{
	bool is_hit;

	const struct inject_target target = {
		.endpoint = endpoint->id,
		.domain = endpoint->domain->id,
	};

	is_hit = inject_hit(&endpoint->ctx->inject, action, &target, NULL);
	answer->is_injected |= is_hit;
	return is_hit;
}

/* What no endpoint may ever see: a mapping of some other domain. */
static bool leaked_mapping(const struct endpoint *endpoint, struct dma_target *target,
			   struct mapping *ret)
{
	/* Before the search, which a fault must not pay for otherwise. */
	if (!inject_wants(&endpoint->ctx->inject, VIOMMU_INJECT_LEAK_DOMAIN))
		return false;
	for (const struct endpoint *ep = endpoint->iommu->endpoints; ep; ep = ep->next) {
		if (ep->domain && mapping_find(&ep->domain->mappings, target->addr, ret))
			return defect(endpoint, VIOMMU_INJECT_LEAK_DOMAIN, target);
	}
	return false;
}

static void translate_mapped(const struct endpoint *endpoint, struct dma_target *target,
			     bool is_write)
{
	struct mapping mapping;

	if (!mapping_find(&endpoint->domain->mappings, target->addr, &mapping) &&
	    !leaked_mapping(endpoint, target, &mapping)) {
		target->fault = DMA_FAULT_MAPPING;
		return;
	}
	/* Strict: a write-only mapping is not readable, though the specification would allow it. */
	if (!(mapping.flags & (is_write ? MAPPING_WRITE : MAPPING_READ)) &&
	    !defect(endpoint, VIOMMU_INJECT_IGNORE_PERMISSIONS, target)) {
		target->fault = DMA_FAULT_PERMISSION;
		return;
	}
	target->len = cut_len(target->len, target->addr, mapping.end);
	target->addr = mapping.phys + (target->addr - mapping.start);
	if (defect(endpoint, VIOMMU_INJECT_OFF_BY_PAGE, target))
		target->addr += OFF_BY_PAGE;
}

struct dma_target dma_translate(const struct endpoint *endpoint, uint64_t iova, size_t len,
				bool is_write)
{
	struct dma_target target = { .addr = iova, .len = cut_len(SIZE_MAX, iova, UINT64_MAX) };

	if (!endpoint->iommu || translate_reserved(endpoint, &target, len, is_write))
		return target;
	endpoint = endpoint->requester;
	if (!endpoint->domain) {
		if (!endpoint->iommu->identity)
			target.fault = DMA_FAULT_DOMAIN;
	} else if (!endpoint->domain->bypass) {
		translate_mapped(endpoint, &target, is_write);
	}
	return target;
}
