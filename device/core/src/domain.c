// SPDX-License-Identifier: GPL-2.0-or-later
#include "domain.h"

#include <errno.h>
#include <stdlib.h>

#include <linux/virtio_iommu.h>

#include "ctx.h"
#include "dma.h"
#include "iommu.h"

static struct domain **bucket_of(const struct domain_table *table, uint32_t id)
{
	/* Fibonacci hashing: drivers number their domains from anywhere, densely. */
	return (struct domain **)&table->buckets[id * 2654435769u >> 22];
}

_Static_assert(DOMAIN_BUCKETS == 1u << (32 - 22), "the hash gives ten bits");

struct domain *domain_find(const struct domain_table *table, uint32_t id)
{
	struct domain *domain = *bucket_of(table, id);

	while (domain && domain->id != id)
		domain = domain->next;
	return domain;
}

static struct domain *domain_create(uint32_t id, bool bypass)
{
	struct domain *domain = calloc(1, sizeof(*domain));

	if (!domain)
		return NULL;
	domain->id = id;
	domain->bypass = bypass;
	mapping_tree_init(&domain->mappings);
	return domain;
}

static void domain_destroy(struct domain *domain)
{
	if (!domain)
		return;
	mapping_tree_deinit(&domain->mappings);
	free(domain);
}

static void table_insert(struct domain_table *table, struct domain *domain)
{
	struct domain **bucket = bucket_of(table, domain->id);

	domain->next = *bucket;
	*bucket = domain;
	table->nr_domains++;
}

static void table_remove(struct domain_table *table, struct domain *domain)
{
	struct domain **link = bucket_of(table, domain->id);

	while (*link != domain)
		link = &(*link)->next;
	*link = domain->next;
	table->nr_domains--;
}

/*
 * Takes an endpoint out of its domain; map_lock is held. Returns the domain if
 * that was its last one: it is out of the table then, and to be destroyed once
 * the lock is released.
 */
static struct domain *unlink_endpoint(struct iommu *iommu, struct endpoint *endpoint)
{
	struct domain *domain = endpoint->domain;
	struct endpoint **link;

	if (!domain)
		return NULL;
	for (link = &domain->endpoints; *link != endpoint; link = &(*link)->next_in_domain)
		;
	*link = endpoint->next_in_domain;
	endpoint->next_in_domain = NULL;
	endpoint->domain = NULL;
	if (--domain->nr_endpoints)
		return NULL;
	table_remove(&iommu->domains, domain);
	return domain;
}

static bool resv_conflict(const struct domain *domain, const struct endpoint *endpoint)
{
	struct mapping mapping;

	for (size_t i = 0; i < endpoint->nr_resv; i++) {
		if (mapping_first(&domain->mappings, endpoint->resv[i].start, endpoint->resv[i].end,
				  &mapping))
			return true;
	}
	return false;
}

/* Whether a new domain fits, given that the endpoint's old one may go. */
static bool has_room(const struct iommu *iommu, const struct endpoint *endpoint)
{
	uint32_t nr_domains = iommu->domains.nr_domains;

	if (endpoint->domain && endpoint->domain->nr_endpoints == 1)
		nr_domains--;
	return nr_domains < iommu->max_domains;
}

bool domain_concerns(const void *opaque, uint32_t id, uint32_t endpoint_id)
{
	const struct iommu *iommu = opaque;
	const struct endpoint *endpoint = iommu_find_endpoint(iommu, endpoint_id);

	return endpoint && endpoint->domain && endpoint->domain->id == id;
}

/* A request that is right, and answered so: whether to leave it at that. */
static bool is_ignored(const struct iommu *iommu, uint32_t request, int64_t endpoint, uint32_t id)
{
	const struct inject_target target = {
		.request = request,
		.endpoint = endpoint,
		.domain = id,
		.concerns = domain_concerns,
		.opaque = iommu,
	};

	return inject_hit(&iommu->ctx->inject, VIOMMU_INJECT_IGNORE, &target, NULL);
}

int domain_attach(struct iommu *iommu, struct endpoint *endpoint, uint32_t id, bool bypass)
{
	struct domain *domain = domain_find(&iommu->domains, id), *old, *created = NULL;
	bool in_use;

	if (domain && domain->bypass != bypass)
		return -EINVAL;
	if (domain && domain == endpoint->domain)
		return 0;
	/* The policy for endpoints with different properties in one domain. */
	if (domain && resv_conflict(domain, endpoint))
		return -EOPNOTSUPP;
	if (!domain && !has_room(iommu, endpoint))
		return -ENOMEM;
	if (is_ignored(iommu, VIOMMU_LOG_ATTACH, endpoint->id, id))
		return 0;
	if (!domain) {
		created = domain_create(id, bypass);
		if (!created)
			return -ENOMEM;
		domain = created;
	}

	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	in_use = dma_revoke(endpoint);
	old = unlink_endpoint(iommu, endpoint);
	if (created)
		table_insert(&iommu->domains, created);
	endpoint->domain = domain;
	endpoint->next_in_domain = domain->endpoints;
	domain->endpoints = endpoint;
	domain->nr_endpoints++;
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	dma_finish_revoke(iommu->ctx, in_use);
	domain_destroy(old);
	return 0;
}

int domain_detach(struct iommu *iommu, struct endpoint *endpoint, uint32_t id)
{
	struct domain *old;
	bool in_use;

	if (!endpoint->domain || endpoint->domain->id != id)
		return -EINVAL;
	if (is_ignored(iommu, VIOMMU_LOG_DETACH, endpoint->id, id))
		return 0;
	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	in_use = dma_revoke(endpoint);
	old = unlink_endpoint(iommu, endpoint);
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	dma_finish_revoke(iommu->ctx, in_use);
	domain_destroy(old);
	return 0;
}

void domain_detach_all(struct iommu *iommu)
{
	struct domain *gone = NULL;
	bool in_use = false;

	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	for (struct endpoint *endpoint = iommu->endpoints; endpoint; endpoint = endpoint->next) {
		struct domain *domain;

		in_use |= dma_revoke(endpoint);
		domain = unlink_endpoint(iommu, endpoint);
		if (domain) {
			domain->next = gone;
			gone = domain;
		}
	}
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	dma_finish_revoke(iommu->ctx, in_use);
	while (gone) {
		struct domain *next = gone->next;

		domain_destroy(gone);
		gone = next;
	}
}

static int check_range(const struct iommu *iommu, const struct domain_map *map)
{
	uint64_t granule_mask = (iommu->page_size_mask & -iommu->page_size_mask) - 1;

	/* "virt_end MUST be strictly greater than virt_start" */
	if (map->end <= map->start)
		return -EINVAL;
	if ((map->start | map->phys | (map->end + 1)) & granule_mask)
		return -ERANGE;
	if (map->phys + (map->end - map->start) < map->phys)
		return -ERANGE;
	/* Without the feature the driver cannot know of a range, and the whole space maps. */
	if (virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_INPUT_RANGE) &&
	    (map->start < iommu->input_start || map->end > iommu->input_end))
		return -ERANGE;
	return 0;
}

static bool touches_reserved(const struct domain *domain, uint64_t start, uint64_t end)
{
	for (const struct endpoint *ep = domain->endpoints; ep; ep = ep->next_in_domain) {
		for (size_t i = 0; i < ep->nr_resv; i++) {
			if (start <= ep->resv[i].end && end >= ep->resv[i].start)
				return true;
		}
	}
	return false;
}

int domain_map(struct iommu *iommu, const struct domain_map *map)
{
	struct domain *domain = domain_find(&iommu->domains, map->domain);
	struct mapping mapping;
	int r;

	if (!domain)
		return -ENOENT;
	if (domain->bypass)
		return -EINVAL;
	r = check_range(iommu, map);
	if (r < 0)
		return r;
	if (mapping_first(&domain->mappings, map->start, map->end, &mapping) ||
	    touches_reserved(domain, map->start, map->end))
		return -EINVAL;
	if (atomic_load(&domain->mappings.nr_mappings) >= iommu->max_mappings)
		return -ENOMEM;
	if (is_ignored(iommu, VIOMMU_LOG_MAP, -1, map->domain))
		return 0;
	r = mapping_prepare(&domain->mappings);
	if (r < 0)
		return r;
	mapping = (struct mapping){
		.start = map->start,
		.end = map->end,
		.phys = map->phys,
		.flags = map->flags,
	};

	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	mapping_insert(&domain->mappings, &mapping);
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	return 0;
}

/* Whether a range covers a mapping in part; only those at its edges can be. */
static bool cuts_mapping(const struct domain *domain, uint64_t start, uint64_t end)
{
	struct mapping mapping;

	if (mapping_find(&domain->mappings, start, &mapping)) {
		if (mapping.start < start || mapping.end > end)
			return true;
		/* Most often the range is that of one mapping. */
		if (mapping.end == end)
			return false;
	}
	return mapping_find(&domain->mappings, end, &mapping) && mapping.end > end;
}

int domain_unmap(struct iommu *iommu, uint32_t id, uint64_t start, uint64_t end)
{
	struct domain *domain = domain_find(&iommu->domains, id);
	bool cut, in_use = false;

	if (!domain)
		return -ENOENT;
	if (domain->bypass || end < start)
		return -EINVAL;
	/* Then nothing goes. */
	if (cuts_mapping(domain, start, end))
		return -ERANGE;
	if (is_ignored(iommu, VIOMMU_LOG_UNMAP, -1, id))
		return 0;

	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	cut = mapping_cut(&domain->mappings, start, end);
	for (struct endpoint *ep = cut ? domain->endpoints : NULL; ep; ep = ep->next_in_domain)
		in_use |= dma_revoke(ep);
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	dma_finish_revoke(iommu->ctx, in_use);
	mapping_reclaim(&domain->mappings);
	return 0;
}
