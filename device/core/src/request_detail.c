// SPDX-License-Identifier: GPL-2.0-or-later
#include "request_detail.h"

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "log.h"

#define PART_SIZE sizeof(uint64_t[3]) /* start, end, target */

/* Where a request's own reserved bytes are, up to its end. */
static const struct layout {
	uint8_t reserved;
	uint8_t end;
} layouts[] = {
	[VIOMMU_LOG_ATTACH] = {
		offsetof(struct virtio_iommu_req_attach, reserved),
		offsetof(struct virtio_iommu_req_attach, tail),
	},
	[VIOMMU_LOG_DETACH] = {
		offsetof(struct virtio_iommu_req_detach, reserved),
		offsetof(struct virtio_iommu_req_detach, tail),
	},
	[VIOMMU_LOG_MAP] = {
		offsetof(struct virtio_iommu_req_map, tail),
		offsetof(struct virtio_iommu_req_map, tail),
	},
	[VIOMMU_LOG_UNMAP] = {
		offsetof(struct virtio_iommu_req_unmap, reserved),
		offsetof(struct virtio_iommu_req_unmap, tail),
	},
	[VIOMMU_LOG_PROBE] = {
		offsetof(struct virtio_iommu_req_probe, reserved),
		offsetof(struct virtio_iommu_req_probe, properties),
	},
};

_Static_assert(offsetof(struct virtio_iommu_req_probe, properties) == REQUEST_DETAIL_MAX_BYTES,
	       "no request is longer");

static bool is_plain(const struct viommu_log_record *record, const struct request_detail *detail)
{
	const struct virtio_iommu_req_head *head = (const void *)detail->bytes;
	const struct layout *layout;

	if (record->kind > VIOMMU_LOG_PROBE)
		return false;
	layout = &layouts[record->kind];
	if (detail->readable != layout->end || detail->used != detail->writable)
		return false;
	/* Of a PROBE the record has the length. */
	if (record->kind != VIOMMU_LOG_PROBE &&
	    detail->writable != sizeof(struct virtio_iommu_req_tail))
		return false;
	for (size_t i = 0; i < sizeof(head->reserved); i++)
		if (head->reserved[i])
			return false;
	for (size_t i = layout->reserved; i < layout->end; i++)
		if (detail->bytes[i])
			return false;
	return true;
}

static void append_parts(struct log *log, const struct viommu_log_record *record,
			 const struct request_detail *detail)
{
	struct viommu_log_record part = {
		.time_ns = record->time_ns,
		.kind = VIOMMU_LOG_REQUEST_DETAIL,
		.endpoint = UINT32_MAX,
		.domain = UINT32_MAX,
		.start = detail->readable,
		.end = detail->writable,
		.target = detail->used,
		.source = record->source,
	};
	uint8_t bytes[REQUEST_DETAIL_MAX_BYTES] = { 0 };
	size_t len = detail->readable < sizeof(bytes) ? detail->readable : sizeof(bytes);

	memcpy(bytes, detail->bytes, len);
	log_append(log, &part);
	for (size_t offset = 0; offset < len; offset += PART_SIZE) {
		part.status++;
		memcpy(&part.start, bytes + offset, sizeof(part.start));
		memcpy(&part.end, bytes + offset + 8, sizeof(part.end));
		memcpy(&part.target, bytes + offset + 16, sizeof(part.target));
		log_append(log, &part);
	}
}

void request_detail_log(struct log *log, const struct viommu_log_record *record,
			const struct request_detail *detail)
{
	if (!is_plain(record, detail))
		append_parts(log, record, detail);
}
