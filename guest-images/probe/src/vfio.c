// SPDX-License-Identifier: GPL-2.0-or-later
/* vfio.c - open, close and ask about a device. */
#include "vfio.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

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
	*vfio = (struct vfio){ .container = -1, .group = -1, .device = -1 };
	irq_init(vfio);
}

void vfio_close(struct vfio *vfio)
{
	if (!vfio->backend)
		return;
	irq_deinit(vfio);
	vfio_regions_deinit(vfio);
	vfio->backend->close(vfio);
	vfio_init(vfio);
}

int vfio_require(const struct vfio *vfio, struct reply *reply)
{
	if (vfio->backend)
		return 0;
	return reply_fail(reply, "vfio", ENODEV, "no device is open");
}

static const struct vfio_backend *find_backend(const char *mode)
{
	const struct vfio_backend *backend = vfio_type1_backends;

	while (backend->name && strcmp(backend->name, mode))
		backend++;
	return backend->name ? backend : NULL;
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

/* Without an open device a new container is asked: it answers for all drivers. */
static int run_extension(struct probe *probe, const struct args *args, struct reply *reply)
{
	int container = probe->vfio.container, value, error = 0;
	uint64_t id;

	if (parse_extension(arg_text(args, "id"), &id))
		return reply_fail(reply, "parse", EINVAL, "unknown extension '%.80s'",
				  arg_text(args, "id"));
	if (container < 0) {
		container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
		if (container < 0)
			return reply_fail(reply, "open:/dev/vfio/vfio", errno, NULL);
	}
	value = ioctl(container, VFIO_CHECK_EXTENSION, (unsigned long)id);
	if (value < 0)
		error = reply_fail(reply, "VFIO_CHECK_EXTENSION", errno, NULL);
	else
		json_number(&reply->fields, "value", (uint64_t)value);
	if (container != probe->vfio.container)
		close(container);
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
