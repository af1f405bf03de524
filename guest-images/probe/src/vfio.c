// SPDX-License-Identifier: GPL-2.0-or-later
/* vfio.c - open, close and ask about a device. */
#include "vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "iommufd.h"
#include "pci.h"
#include "probe.h"

static const struct {
	const char *name;
	unsigned long value;
} extensions[] = {
	{ "VFIO_TYPE1_IOMMU", VFIO_TYPE1_IOMMU },
	{ "VFIO_TYPE1v2_IOMMU", VFIO_TYPE1v2_IOMMU },
	{ "VFIO_TYPE1_NESTING_IOMMU", VFIO_TYPE1_NESTING_IOMMU },
	{ "VFIO_NOIOMMU_IOMMU", VFIO_NOIOMMU_IOMMU },
	{ "VFIO_DMA_CC_IOMMU", VFIO_DMA_CC_IOMMU },
	{ "VFIO_UNMAP_ALL", VFIO_UNMAP_ALL },
};

void vfio_init(struct vfio *vfio)
{
	*vfio = (struct vfio){ .container = -1, .iommufd = -1, .group = -1, .device = -1 };
	irq_init(vfio);
}

static void close_file(int fd)
{
	if (fd >= 0)
		close(fd);
}

void vfio_close(struct vfio *vfio)
{
	if (!vfio->backend)
		return;
	irq_deinit(vfio);
	vfio_regions_deinit(vfio);
	/* The device first: a group cannot leave its container while it is in use. */
	close_file(vfio->device);
	close_file(vfio->group);
	close_file(vfio->container);
	close_file(vfio->iommufd);
	vfio_init(vfio);
}

int vfio_open_file(const char *path, int *ret, struct reply *reply)
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

int vfio_share_file(int fd, const char *step, int *ret, struct reply *reply)
{
	int shared = fcntl(fd, F_DUPFD_CLOEXEC, 0);

	if (shared < 0)
		return reply_fail(reply, step, errno, NULL);
	*ret = shared;
	return 0;
}

static int join_group(struct vfio *vfio, int fd, unsigned int number, struct reply *reply)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };

	if (ioctl(vfio->group, VFIO_GROUP_GET_STATUS, &status))
		return reply_fail(reply, "VFIO_GROUP_GET_STATUS", errno, NULL);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return reply_fail(reply, "VFIO_GROUP_GET_STATUS", EBUSY,
				  "group %u is not viable: flags %#x", number, status.flags);
	if (ioctl(vfio->group, VFIO_GROUP_SET_CONTAINER, &fd))
		return reply_fail(reply, "VFIO_GROUP_SET_CONTAINER", errno, NULL);
	return 0;
}

int vfio_open_group(struct vfio *vfio, int fd, const struct vfio *share, struct reply *reply)
{
	unsigned int number = 0, shared = 0;
	bool is_shared;
	char path[32];
	int error = pci_iommu_group(vfio->bdf, &number);

	if (error)
		return reply_fail(reply, "readlink:iommu_group", -error, NULL);
	is_shared = share && !pci_iommu_group(share->bdf, &shared) && shared == number;
	snprintf(path, sizeof(path), "/dev/vfio/%u", number);
	if (is_shared)
		error = vfio_share_file(share->group, "dup:group", &vfio->group, reply);
	else
		error = vfio_open_file(path, &vfio->group, reply);
	if (error)
		return error;
	json_number(&reply->fields, "group", number);
	json_text(&reply->fields, "node", path);
	return is_shared ? 0 : join_group(vfio, fd, number, reply);
}

int vfio_open_group_device(struct vfio *vfio, struct reply *reply)
{
	vfio->device = ioctl(vfio->group, VFIO_GROUP_GET_DEVICE_FD, vfio->bdf);
	if (vfio->device < 0)
		return reply_fail(reply, "VFIO_GROUP_GET_DEVICE_FD", errno, NULL);
	return vfio_get_device_info(vfio, reply);
}

int vfio_get_device_info(struct vfio *vfio, struct reply *reply)
{
	vfio->info = (struct vfio_device_info){ .argsz = sizeof(vfio->info) };
	if (ioctl(vfio->device, VFIO_DEVICE_GET_INFO, &vfio->info))
		return reply_fail(reply, "VFIO_DEVICE_GET_INFO", errno, NULL);
	json_number(&reply->fields, "flags", vfio->info.flags);
	json_number(&reply->fields, "num_regions", vfio->info.num_regions);
	json_number(&reply->fields, "num_irqs", vfio->info.num_irqs);
	return 0;
}

int vfio_require(const struct vfio *vfio, struct reply *reply)
{
	if (vfio->backend)
		return 0;
	return reply_fail(reply, "vfio", ENODEV, "no device is open");
}

static const struct vfio_backend *find_backend(const char *mode)
{
	static const struct vfio_backend *const tables[] = { type1_backends, iommufd_backends };

	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct vfio_backend *row = tables[i]; row->name; row++)
			if (!strcmp(row->name, mode))
				return row;
	return NULL;
}

static int run_open(struct probe *probe, const struct args *args, struct reply *reply)
{
	const struct vfio_backend *backend = find_backend(arg_text(args, "mode"));
	const char *bdf = arg_text(args, "bdf");
	const struct vfio *share = NULL;
	struct vfio *vfio = &probe->vfio;
	int error;

	if (!backend)
		return reply_fail(reply, "parse", EINVAL, "unknown mode '%.40s'",
				  arg_text(args, "mode"));
	if (!pci_bdf_valid(bdf))
		return reply_fail(reply, "parse", EINVAL, "bad bdf '%.40s'", bdf);
	if (vfio->backend)
		return reply_fail(reply, "vfio", EBUSY, "%s is open", vfio->bdf);
	if (arg_has(args, "share")) {
		share = devices_find(probe, arg_text(args, "share"));
		if (!share || share->backend != backend)
			return reply_fail(reply, "parse", EINVAL,
					  "no device '%.40s' is open in this mode",
					  arg_text(args, "share"));
	}
	vfio->backend = backend;
	strcpy(vfio->bdf, bdf);
	error = backend->open(vfio, share, reply);
	if (error) {
		vfio_close(vfio);
		return error;
	}
	vfio_regions_init(vfio);
	engine_forget(&probe->engine);
	return 0;
}

static int run_close(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = vfio_require(&probe->vfio, reply);

	(void)args;
	if (!error)
		vfio_close(&probe->vfio);
	return error;
}

static int parse_extension(const char *id, uint64_t *ret)
{
	for (size_t i = 0; i < sizeof(extensions) / sizeof(extensions[0]); i++) {
		if (!strcmp(extensions[i].name, id)) {
			*ret = extensions[i].value;
			return 0;
		}
	}
	return parse_number(id, ret);
}

/*
 * Without an open device a new container is asked: it answers for all drivers. An
 * iommufd answers too, for the IOAS that it was told is VFIO's.
 */
static int run_extension(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	int opened = -1, fd, value, error = 0;
	uint64_t id;

	if (parse_extension(arg_text(args, "id"), &id))
		return reply_fail(reply, "parse", EINVAL, "unknown extension '%.80s'",
				  arg_text(args, "id"));
	if (!vfio->backend)
		error = vfio_open_file("/dev/vfio/vfio", &opened, reply);
	else if (vfio->iommufd >= 0)
		error = iommufd_set_vfio_ioas(vfio, reply);
	if (error)
		return error;
	fd = opened >= 0 ? opened : vfio->container >= 0 ? vfio->container : vfio->iommufd;
	value = ioctl(fd, VFIO_CHECK_EXTENSION, (unsigned long)id);
	if (value < 0)
		error = reply_fail(reply, "VFIO_CHECK_EXTENSION", errno, NULL);
	else
		json_number(&reply->fields, "value", (uint64_t)value);
	close_file(opened);
	return error;
}

static int run_reset(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = vfio_require(&probe->vfio, reply);

	(void)args;
	if (error)
		return error;
	if (ioctl(probe->vfio.device, VFIO_DEVICE_RESET))
		return reply_fail(reply, "VFIO_DEVICE_RESET", errno, NULL);
	engine_forget(&probe->engine);
	return 0;
}

static const struct key open_keys[] = {
	{ "bdf", KEY_TEXT, NEED, NULL },
	{ "mode", KEY_TEXT, NEED, NULL },
	{ "share", KEY_TEXT, MAY, NULL },
	{ 0 },
};

static const struct key extension_keys[] = { { "id", KEY_TEXT, NEED, NULL }, { 0 } };

const struct command vfio_commands[] = {
	{ "open", open_keys, run_open },
	{ "close", keys_none, run_close },
	{ "extension", extension_keys, run_extension },
	{ "reset", keys_none, run_reset },
	{ 0 },
};
