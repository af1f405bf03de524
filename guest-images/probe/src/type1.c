// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * type1.c - container, group and device by the type1 interface, whoever serves it.
 *
 * Each call is its own step, named in the reply: which one refuses is what tells
 * the causes apart (EPERM at VFIO_SET_IOMMU: MSI not isolated, and so on).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "vfio.h"

#define IOMMU_INFO_MAX 65536u
#define IOVA_RANGES_MAX 1024u

static int open_container(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int answer, error;

	if (share)
		return vfio_share_file(share->container, "dup:container", &vfio->container, reply);
	error = vfio_open_file(vfio->backend->container, &vfio->container, reply);
	if (error)
		return error;
	answer = ioctl(vfio->container, VFIO_GET_API_VERSION);
	if (answer < 0)
		return reply_fail(reply, "VFIO_GET_API_VERSION", errno, NULL);
	if (answer != VFIO_API_VERSION)
		return reply_fail(reply, "VFIO_GET_API_VERSION", EPROTO, "version %d", answer);
	answer = ioctl(vfio->container, VFIO_CHECK_EXTENSION, (unsigned long)vfio->backend->iommu);
	if (answer < 0)
		return reply_fail(reply, "VFIO_CHECK_EXTENSION", errno, NULL);
	if (!answer)
		return reply_fail(reply, "VFIO_CHECK_EXTENSION", EOPNOTSUPP,
				  "IOMMU type %u is not supported", vfio->backend->iommu);
	return 0;
}

static void report_iova_ranges(const char *info, size_t size, size_t offset, struct json *fields)
{
	struct vfio_iommu_type1_info_cap_iova_range cap;
	struct vfio_iova_range range;

	if (offset > size || size - offset < sizeof(cap))
		return;
	memcpy(&cap, info + offset, sizeof(cap));
	offset += sizeof(cap);
	for (uint32_t i = 0; i < cap.nr_iovas && i < IOVA_RANGES_MAX; i++) {
		if (size - offset < sizeof(range))
			return;
		memcpy(&range, info + offset, sizeof(range));
		offset += sizeof(range);
		json_begin(fields, NULL, '{');
		json_number(fields, "start", range.start);
		json_number(fields, "end", range.end);
		json_end(fields, '}');
	}
}

/* Walk the capabilities, which are linked by offsets from the start of @info. */
static void report_iommu_caps(const char *info, size_t size, struct json *fields)
{
	struct vfio_iommu_type1_info head;
	struct vfio_info_cap_header cap;
	uint32_t offset, last = 0;

	memcpy(&head, info, sizeof(head));
	offset = head.flags & VFIO_IOMMU_INFO_CAPS ? head.cap_offset : 0;
	json_number(fields, "iova_pgsizes", head.iova_pgsizes);
	json_begin(fields, "iova_ranges", '[');
	/* Offsets only grow, so that a broken chain cannot be walked for ever. */
	while (offset > last && offset <= size - sizeof(cap)) {
		memcpy(&cap, info + offset, sizeof(cap));
		if (cap.id == VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE)
			report_iova_ranges(info, size, offset, fields);
		last = offset;
		offset = cap.next;
	}
	json_end(fields, ']');
}

static int get_iommu_info(struct vfio *vfio, struct reply *reply)
{
	struct vfio_iommu_type1_info head = { .argsz = sizeof(head) };
	struct vfio_iommu_type1_info *info;
	int error = 0;

	if (ioctl(vfio->container, VFIO_IOMMU_GET_INFO, &head))
		return reply_fail(reply, "VFIO_IOMMU_GET_INFO", errno, NULL);
	if (head.argsz > IOMMU_INFO_MAX)
		return reply_fail(reply, "VFIO_IOMMU_GET_INFO", EFBIG, NULL);
	/* The first answer says how much room the capabilities need. */
	if (head.argsz < sizeof(head))
		head.argsz = sizeof(head);
	info = calloc(1, head.argsz);
	if (!info)
		return reply_fail(reply, "malloc", ENOMEM, NULL);
	info->argsz = head.argsz;
	if (ioctl(vfio->container, VFIO_IOMMU_GET_INFO, info))
		error = reply_fail(reply, "VFIO_IOMMU_GET_INFO", errno, NULL);
	else
		report_iommu_caps((const char *)info, head.argsz, &reply->fields);
	free(info);
	return error;
}

static int type1_open(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int error = open_container(vfio, share, reply);

	if (!error)
		error = vfio_open_group(vfio, vfio->container, share, reply);
	if (error)
		return error;
	/* A shared container has its IOMMU. */
	if (!share && ioctl(vfio->container, VFIO_SET_IOMMU, (unsigned long)vfio->backend->iommu))
		return reply_fail(reply, "VFIO_SET_IOMMU", errno, NULL);
	error = vfio_open_group_device(vfio, reply);
	return error ? error : get_iommu_info(vfio, reply);
}

static int type1_map(struct vfio *vfio, const struct vfio_mapping *mapping)
{
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = (mapping->read ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (mapping->write ? VFIO_DMA_MAP_FLAG_WRITE : 0),
		.vaddr = mapping->vaddr,
		.iova = mapping->iova,
		.size = mapping->size,
	};

	return ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, &map) ? -errno : 0;
}

static int unmap(struct vfio *vfio, __u32 flags, uint64_t iova, uint64_t *size)
{
	struct vfio_iommu_type1_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.flags = flags,
		.iova = iova,
		.size = *size,
	};

	if (ioctl(vfio->container, VFIO_IOMMU_UNMAP_DMA, &unmap))
		return -errno;
	*size = unmap.size;
	return 0;
}

static int type1_unmap(struct vfio *vfio, uint32_t ioas, uint64_t iova, uint64_t *size)
{
	(void)ioas;
	return unmap(vfio, 0, iova, size);
}

static int type1_unmap_all(struct vfio *vfio, uint32_t ioas, uint64_t *size)
{
	(void)ioas;
	*size = 0;
	return unmap(vfio, VFIO_DMA_UNMAP_FLAG_ALL, 0, size);
}

#define TYPE1_STEPS                                                             \
	.map_step = "VFIO_IOMMU_MAP_DMA", .unmap_step = "VFIO_IOMMU_UNMAP_DMA", \
	.open = type1_open, .map = type1_map, .unmap = type1_unmap, .unmap_all = type1_unmap_all

const struct vfio_backend type1_backends[] = {
	{ "type1", TYPE1_STEPS, .iommu = VFIO_TYPE1_IOMMU, .container = "/dev/vfio/vfio" },
	{ "type1v2", TYPE1_STEPS, .iommu = VFIO_TYPE1v2_IOMMU, .container = "/dev/vfio/vfio" },
	/* An iommufd is a container too: it answers to the type1 ioctls. */
	{ "iommufd-compat", TYPE1_STEPS, .iommu = VFIO_TYPE1v2_IOMMU, .container = "/dev/iommu" },
	{ 0 },
};
