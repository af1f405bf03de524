// SPDX-License-Identifier: GPL-2.0-or-later
/* The virtio device: configuration space, features, resets. Requests: request.c. */
#include "iommu.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_ids.h>
#include <linux/virtio_iommu.h>

#include "ctx.h"
#include "dma.h"
#include "log.h"
#include "request.h"

#define CLASS_IOMMU 0x080600
#define FEATURE(name) (1ull << VIRTIO_IOMMU_F_##name)
#define DEFAULT_FEATURES                                                                      \
	(FEATURE(INPUT_RANGE) | FEATURE(DOMAIN_RANGE) | FEATURE(MAP_UNMAP) | FEATURE(PROBE) | \
	 FEATURE(MMIO) | FEATURE(BYPASS_CONFIG))
#define DEFAULT_PAGE_SIZE_MASK (~0xfffull)
#define DEFAULT_PROBE_SIZE 512
#define MAX_PROBE_SIZE 65536
#define DEFAULT_MAX_MAPPINGS (1ull << 20)
#define DEFAULT_MAX_DOMAINS 65536

_Static_assert(sizeof(struct virtio_iommu_config) == 40, "the layout of the specification");

/*
 * Bypass holds with BYPASS_CONFIG offered and the field set, accepted or not:
 * firmware relies on it. The old BYPASS holds only once accepted.
 */
static void set_bypass(struct iommu *iommu, bool bypass)
{
	bool identity = virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_BYPASS), in_use = false;

	if (iommu->features & FEATURE(BYPASS_CONFIG))
		identity |= bypass;
	pthread_rwlock_wrlock(&iommu->ctx->map_lock);
	iommu->bypass = bypass;
	if (iommu->identity != identity) {
		iommu->identity = identity;
		for (struct endpoint *ep = iommu->endpoints; ep; ep = ep->next)
			in_use |= dma_revoke(ep);
	}
	pthread_rwlock_unlock(&iommu->ctx->map_lock);
	dma_finish_revoke(iommu->ctx, in_use);
}

static void config_read(void *opaque, size_t offset, void *buf, size_t len)
{
	const struct iommu *iommu = opaque;
	struct virtio_iommu_config config = {
		.page_size_mask = htole64(iommu->page_size_mask),
		.input_range = { htole64(iommu->input_start), htole64(iommu->input_end) },
		.domain_range = { htole32(iommu->domain_start), htole32(iommu->domain_end) },
		.probe_size = htole32(iommu->probe_size),
		.bypass = iommu->bypass,
	};

	memcpy(buf, (const uint8_t *)&config + offset, len);
}

static void log_config_write(struct iommu *iommu, size_t offset, const void *buf, size_t len)
{
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_CONFIG_WRITE,
		.endpoint = UINT32_MAX,
		.domain = UINT32_MAX,
		.start = offset,
		.end = offset + len - 1,
		.source = iommu->source,
	};
	uint64_t value = 0;

	memcpy(&value, buf, len < sizeof(value) ? len : sizeof(value));
	record.target = le64toh(value);
	log_append(iommu->ctx->log, &record);
}

/* Only bypass is writable, as the byte it is, and only ever reads 0 or 1. */
static void config_write(void *opaque, size_t offset, const void *buf, size_t len)
{
	struct iommu *iommu = opaque;
	uint8_t value;

	log_config_write(iommu, offset, buf, len);
	if (offset != offsetof(struct virtio_iommu_config, bypass) || len != sizeof(value) ||
	    !virtio_pci_has(&iommu->vdev, VIRTIO_IOMMU_F_BYPASS_CONFIG))
		return;
	memcpy(&value, buf, sizeof(value));
	if (value <= 1)
		set_bypass(iommu, value);
}

static void negotiated(void *opaque)
{
	struct iommu *iommu = opaque;

	set_bypass(iommu, iommu->bypass);
}

static void notify(void *opaque, unsigned queue)
{
	/* New event buffers are looked at when there is something to put in them. */
	if (queue == IOMMU_QUEUE_REQUEST)
		request_queue_run(opaque);
}

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	struct iommu *iommu = opaque;
	bool bypass = iommu->bypass;

	hold_clear(&iommu->hold);
	fault_queue_clear(&iommu->faults);
	domain_detach_all(iommu);
	if (kind == VIOMMU_RESET_DEVICE || kind == VIOMMU_RESET_LOST)
		bypass = iommu->initial_bypass;
	if (bypass != iommu->bypass)
		virtio_pci_config_changed(&iommu->vdev);
	/* Also for the old BYPASS, which is no longer negotiated. */
	set_bypass(iommu, bypass);
}

static int set_config(struct iommu *iommu, const struct viommu_iommu_config *config)
{
	uint64_t both = FEATURE(BYPASS) | FEATURE(BYPASS_CONFIG);

	iommu->features = config->features ?: DEFAULT_FEATURES;
	iommu->page_size_mask = config->page_size_mask ?: DEFAULT_PAGE_SIZE_MASK;
	iommu->input_start = config->input_start;
	iommu->input_end = config->input_end ?: UINT64_MAX;
	iommu->domain_start = config->domain_start;
	iommu->domain_end = config->domain_end ?: UINT32_MAX;
	iommu->probe_size = config->probe_size ?: DEFAULT_PROBE_SIZE;
	iommu->max_mappings = config->max_mappings ?: DEFAULT_MAX_MAPPINGS;
	iommu->max_domains = config->max_domains ?: DEFAULT_MAX_DOMAINS;
	iommu->initial_bypass = config->bypass;
	if (iommu->features & ~(DEFAULT_FEATURES | FEATURE(BYPASS)) ||
	    (iommu->features & both) == both)
		return -EINVAL;
	if (config->bypass > 1 || iommu->input_start > iommu->input_end ||
	    iommu->domain_start > iommu->domain_end || iommu->probe_size > MAX_PROBE_SIZE)
		return -EINVAL;
	return 0;
}

static int init(struct iommu *iommu, const struct viommu_iommu_config *config)
{
	const struct virtio_pci_config vdev_config = {
		.socket_path = config->socket_path,
		.name = "virtio-iommu",
		.source = iommu->source,
		.device_type = VIRTIO_ID_IOMMU,
		.class_code = CLASS_IOMMU,
		.features = iommu->features,
		.config_size = sizeof(struct virtio_iommu_config),
		.ops = {
			.config_read = config_read,
			.config_write = config_write,
			.negotiated = negotiated,
			.notify = notify,
			.reset = reset,
		},
		.opaque = iommu,
	};
	int r;

	r = fault_queue_init(&iommu->faults, iommu);
	if (r < 0)
		return r;
	r = hold_init(&iommu->hold, iommu);
	if (r < 0)
		goto err_faults;
	r = virtio_pci_init(&iommu->vdev, iommu->ctx, &vdev_config);
	if (r < 0)
		goto err_hold;
	set_bypass(iommu, iommu->initial_bypass);
	ring_poll_init(&iommu->poll, iommu->ctx->pool, iommu->ctx->poll_us, iommu->ctx->nr_cpus);
	return 0;

err_hold:
	hold_deinit(&iommu->hold);
err_faults:
	fault_queue_deinit(&iommu->faults);
	return r;
}

int iommu_create(struct viommu_ctx *ctx, uint32_t source, const struct viommu_iommu_config *config,
		 struct iommu **ret)
{
	struct iommu *iommu = calloc(1, sizeof(*iommu));
	int r;

	if (!iommu)
		return -ENOMEM;
	iommu->ctx = ctx;
	iommu->source = source;
	r = set_config(iommu, config);
	if (r == 0)
		r = init(iommu, config);
	if (r < 0) {
		free(iommu);
		return r;
	}
	*ret = iommu;
	return 0;
}

static void free_ids(struct iommu *iommu)
{
	struct endpoint *endpoint;

	while ((endpoint = iommu->ids)) {
		iommu->ids = endpoint->next_id;
		endpoint_deinit(endpoint);
		free(endpoint);
	}
}

void iommu_destroy(struct iommu *iommu)
{
	if (!iommu)
		return;
	virtio_pci_deinit(&iommu->vdev);
	domain_detach_all(iommu);
	free_ids(iommu);
	hold_deinit(&iommu->hold);
	fault_queue_deinit(&iommu->faults);
	free(iommu);
}

static struct endpoint **bucket_of(const struct iommu *iommu, uint32_t id)
{
	/* Ids are PCI requester ids: dense, or with the functions of a device left out. */
	return (struct endpoint **)&iommu->endpoints_by_id[id * 2654435769u >> 22];
}

_Static_assert(IOMMU_ENDPOINT_BUCKETS == 1u << (32 - 22), "the hash gives ten bits");

int iommu_add_endpoint(struct iommu *iommu, struct endpoint *endpoint)
{
	if (iommu_find_endpoint(iommu, endpoint->id))
		return -EEXIST;
	if (endpoint->nr_resv > iommu->probe_size / sizeof(struct virtio_iommu_probe_resv_mem))
		return -EMSGSIZE;
	endpoint->next = iommu->endpoints;
	iommu->endpoints = endpoint;
	endpoint->next_in_bucket = *bucket_of(iommu, endpoint->id);
	*bucket_of(iommu, endpoint->id) = endpoint;
	return 0;
}

int iommu_add_id(struct iommu *iommu, const struct viommu_endpoint_config *config)
{
	struct endpoint *endpoint = calloc(1, sizeof(*endpoint));
	int r;

	if (!endpoint)
		return -ENOMEM;
	r = endpoint_init(endpoint, iommu->ctx, iommu, iommu->source, config);
	if (r == 0)
		r = iommu_add_endpoint(iommu, endpoint);
	if (r < 0) {
		endpoint_deinit(endpoint);
		free(endpoint);
		return r;
	}
	endpoint->next_id = iommu->ids;
	iommu->ids = endpoint;
	return 0;
}

void iommu_resume(struct iommu *iommu)
{
	hold_resume(&iommu->hold);
}

struct endpoint *iommu_find_endpoint(const struct iommu *iommu, uint32_t id)
{
	struct endpoint *endpoint = *bucket_of(iommu, id);

	while (endpoint && endpoint->id != id)
		endpoint = endpoint->next_in_bucket;
	return endpoint;
}
