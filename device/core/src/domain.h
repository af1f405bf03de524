/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * domain.h - the domains of one virtio-iommu.
 *
 * A domain lives as long as an endpoint is attached to it, so there are never
 * more domains than endpoints.
 *
 * Reactor thread only; what DMA depends on is written under map_lock.
 * Results are -errno, turned into a request's status in one place (request.c).
 */
#ifndef DOMAIN_H
#define DOMAIN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mapping.h"

#define DOMAIN_BUCKETS 1024

struct endpoint;
struct iommu;

struct domain {
	uint32_t id;
	bool bypass;
	uint32_t nr_endpoints;
	struct endpoint *endpoints;
	struct mapping_tree mappings;
	struct domain *next; /* in the bucket */
};

struct domain_table {
	uint32_t nr_domains;
	struct domain *buckets[DOMAIN_BUCKETS];
};

struct domain *domain_find(const struct domain_table *table, uint32_t id);

/*
 * -EINVAL bypass contradicts the domain, -EOPNOTSUPP a mapping of the domain lies
 * in a reserved region of the endpoint, -ENOMEM too many domains. The endpoint
 * stays where it was on failure, and leaves its old domain on success.
 */
int domain_attach(struct iommu *iommu, struct endpoint *endpoint, uint32_t id, bool bypass);
/* -EINVAL if the endpoint is not in that domain. */
int domain_detach(struct iommu *iommu, struct endpoint *endpoint, uint32_t id);
void domain_detach_all(struct iommu *iommu);

/* Whether an endpoint, by its id, is in a domain: for struct inject_target. */
bool domain_concerns(const void *opaque, uint32_t id, uint32_t endpoint_id);

struct domain_map {
	uint32_t domain;
	uint32_t flags;
	uint64_t start;
	uint64_t end; /* inclusive */
	uint64_t phys;
};

/* -ENOENT, -EINVAL, -ERANGE, -ENOMEM as the specification names them. */
int domain_map(struct iommu *iommu, const struct domain_map *map);
int domain_unmap(struct iommu *iommu, uint32_t id, uint64_t start, uint64_t end);

#endif /* DOMAIN_H */
