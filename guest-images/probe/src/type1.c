// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * type1.c - container, group and device by the type1 interface.
 *
 * Each call is its own step, named in the reply: which one refuses is what tells
 * the causes apart (EPERM at VFIO_SET_IOMMU: MSI not isolated, and so on).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "pci.h"
#include "vfio.h"

#define IOMMU_INFO_MAX 65536u
#define IOVA_RANGES_MAX 1024u

static int open_step(const char *path, int *ret, struct reply *reply)
{
	char step[64];
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0) {
		snprintf(step, sizeof(step), "open:%s", path);
		return reply_fail(reply, step, errno, NULL);
	}
	*ret = fd;
	return 0;
}

static int share_step(int fd, const char *step, int *ret, struct reply *reply)
{
	int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (shared < 0)
		return reply_fail(reply, step, errno, NULL);
	*ret = shared;
	return 0;
}

static int open_container(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int answer, error;

	if (share)
		return share_step(share->container, "dup:container", &vfio->container, reply);
	error = open_step("/dev/vfio/vfio", &vfio->container, reply);
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

static int open_group(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	unsigned int number = 0, shared;
	char path[32];
	int error = pci_iommu_group(vfio->bdf, &number);

	if (error)
		return reply_fail(reply, "readlink:iommu_group", -error, NULL);
	json_number(&reply->fields, "group", number);
	/* A group opens once. It has a container then, and that has its IOMMU. */
	if (share && !pci_iommu_group(share->bdf, &shared) && shared == number)
		return share_step(share->group, "dup:group", &vfio->group, reply);
	snprintf(path, sizeof(path), "/dev/vfio/%u", number);
	error = open_step(path, &vfio->group, reply);
	if (error)
		return error;
	if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status))
		return reply_fail(reply, "VFIO_GROUP_GET_STATUS", errno, NULL);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return reply_fail(reply, "VFIO_GROUP_GET_STATUS", EBUSY,
				  "group %u is not viable: flags %#x", number, status.flags);
	if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &vfio->container))
		return reply_fail(reply, "VFIO_GROUP_SET_CONTAINER", errno, NULL);
	return 0;
}

static int open_device(struct vfio *vfio, struct reply *reply)
{
	vfio->info = (struct vfio_device_info){ .argsz = sizeof(vfio->info) };
	vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, vfio->bdf);
	if (vfio->device < 0)
		return reply_fail(reply, "VFIO_GROUP_GET_DEVICE_FD", errno, NULL);
	if (ioctl(vfio->device, VFIO_DEVICE_GET_INFO, &vfio->info))
		return reply_fail(reply, "VFIO_DEVICE_GET_INFO", errno, NULL);
	json_number(&reply->fields, "flags", vfio->info.flags);
	json_number(&reply->fields, "num_regions", vfio->info.num_regions);
	json_number(&reply->fields, "num_irqs", vfio->info.num_irqs);
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
		error = open_group(vfio, share, reply);
	if (error)
		return error;
	if (!share && ioctl(vfio->container, VFIO_SET_IOMMU, (unsigned long)vfio->backend->iommu))
		return reply_fail(reply, "VFIO_SET_IOMMU", errno, NULL);
	error = open_device(vfio, reply);
	return error ? error : get_iommu_info(vfio, reply);
}

static int type1_map(struct vfio *vfio, const struct vfio_iommu_type1_dma_map *map)
{
	return ioctl(vfio->container, VFIO_IOMMU_MAP_DMA, map) ? -errno : 0;
}

static int type1_unmap(struct vfio *vfio, __u32 flags, uint64_t iova, uint64_t *size)
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

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The device first: a group cannot leave its container while it is in use. */
static void type1_close(struct vfio *vfio)
{
	close_fd(&vfio->device);
	close_fd(&vfio->group);
	close_fd(&vfio->container);
}

const struct vfio_backend vfio_type1_backends[] = {
	{ "type1", VFIO_TYPE1_IOMMU, type1_open, type1_map, type1_unmap, type1_close },
	{ "type1v2", VFIO_TYPE1v2_IOMMU, type1_open, type1_map, type1_unmap, type1_close },
	{ 0 },
};
