// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * iommufd.c - the device over an iommufd, by its group or by its own device file.
 *
 * As in type1.c each call is its own step. Binding a device is where iommufd asks
 * for cache coherency (EINVAL) and for isolated interrupts (EPERM).
 */
#include "iommufd.h"

#if __has_include(<linux/iommufd.h>)
#include <linux/iommufd.h>
#else
#error "linux/iommufd.h is missing: give UAPI_INCLUDE= the headers of Linux 6.12 or later"
#endif

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "pci.h"
#include "probe.h"

#define IOVA_RANGES_MAX 1024u

static int open_iommufd(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	if (share)
		return vfio_share_file(share->iommufd, "dup:iommufd", &vfio->iommufd, reply);
	return vfio_open_file("/dev/iommu", &vfio->iommufd, reply);
}

int iommufd_ioas_alloc(struct vfio *vfio, uint32_t *ret, struct reply *reply)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	if (ioctl(vfio->iommufd, IOMMU_IOAS_ALLOC, &alloc))
		return reply_fail(reply, "IOMMU_IOAS_ALLOC", errno, NULL);
	*ret = alloc.out_ioas_id;
	return 0;
}

int iommufd_hwpt_alloc(struct vfio *vfio, uint32_t ioas, uint32_t flags, uint32_t *ret,
		       struct reply *reply)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc),
		.flags = flags,
		.dev_id = vfio->devid,
		.pt_id = ioas,
		.data_type = IOMMU_HWPT_DATA_NONE,
	};

	if (ioctl(vfio->iommufd, IOMMU_HWPT_ALLOC, &alloc))
		return reply_fail(reply, "IOMMU_HWPT_ALLOC", errno, NULL);
	*ret = alloc.out_hwpt_id;
	return 0;
}

int iommufd_attach(struct vfio *vfio, uint32_t pt, uint32_t *ret_hwpt, struct reply *reply)
{
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach), .pt_id = pt };

	if (ioctl(vfio->device, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		return reply_fail(reply, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", errno, NULL);
	*ret_hwpt = attach.pt_id;
	return 0;
}

static int vfio_ioas(struct vfio *vfio, uint16_t op, uint32_t *ioas, struct reply *reply)
{
	struct iommu_vfio_ioas command = { .size = sizeof(command), .op = op, .ioas_id = *ioas };

	if (ioctl(vfio->iommufd, IOMMU_VFIO_IOAS, &command))
		return reply_fail(reply, "IOMMU_VFIO_IOAS", errno, NULL);
	*ioas = command.ioas_id;
	return 0;
}

int iommufd_set_vfio_ioas(struct vfio *vfio, struct reply *reply)
{
	uint32_t ioas = vfio->ioas;

	return vfio_ioas(vfio, IOMMU_VFIO_IOAS_SET, &ioas, reply);
}

static void report_ranges(const struct iommu_ioas_iova_ranges *query,
			  const struct iommu_iova_range *ranges, struct json *fields)
{
	json_number(fields, "iova_alignment", query->out_iova_alignment);
	json_begin(fields, "iova_ranges", '[');
	for (uint32_t i = 0; i < query->num_iovas; i++) {
		json_begin(fields, NULL, '{');
		json_number(fields, "start", ranges[i].start);
		json_number(fields, "end", ranges[i].last);
		json_end(fields, '}');
	}
	json_end(fields, ']');
}

/* They narrow with each device that is attached: ask after that. */
static int get_ranges(struct vfio *vfio, struct reply *reply)
{
	struct iommu_ioas_iova_ranges query = {
		.size = sizeof(query),
		.ioas_id = vfio->ioas,
		.num_iovas = IOVA_RANGES_MAX,
	};
	struct iommu_iova_range *ranges = calloc(IOVA_RANGES_MAX, sizeof(*ranges));
	int error = 0;

	if (!ranges)
		return reply_fail(reply, "malloc", ENOMEM, NULL);
	query.allowed_iovas = (uintptr_t)ranges;
	if (ioctl(vfio->iommufd, IOMMU_IOAS_IOVA_RANGES, &query))
		error = reply_fail(reply, "IOMMU_IOAS_IOVA_RANGES", errno, NULL);
	else
		report_ranges(&query, ranges, &reply->fields);
	free(ranges);
	return error;
}

/* The kernel makes VFIO's IOAS as the group joins, and attaches what it opens. */
static int group_open(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int error = open_iommufd(vfio, share, reply);

	if (!error)
		error = vfio_open_group(vfio, vfio->iommufd, share, reply);
	if (!error)
		error = vfio_open_group_device(vfio, reply);
	if (!error)
		error = vfio_ioas(vfio, IOMMU_VFIO_IOAS_GET, &vfio->ioas, reply);
	if (error)
		return error;
	json_number(&reply->fields, "ioas", vfio->ioas);
	return get_ranges(vfio, reply);
}

static int open_device_file(struct vfio *vfio, struct reply *reply)
{
	char name[PCI_NAME_SIZE], path[PCI_NAME_SIZE + 32];
	int error = pci_vfio_device(vfio->bdf, name);

	if (error)
		return reply_fail(reply, "readdir:vfio-dev", -error, NULL);
	snprintf(path, sizeof(path), "/dev/vfio/devices/%s", name);
	error = vfio_open_file(path, &vfio->device, reply);
	if (!error)
		json_text(&reply->fields, "node", path);
	return error;
}

static int bind_device(struct vfio *vfio, struct reply *reply)
{
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind),
		.iommufd = vfio->iommufd,
	};

	if (ioctl(vfio->device, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		return reply_fail(reply, "VFIO_DEVICE_BIND_IOMMUFD", errno, NULL);
	vfio->devid = bind.out_devid;
	json_number(&reply->fields, "devid", vfio->devid);
	return 0;
}

/* The mode's own page table, again after a detach. */
static int attach_own(struct vfio *vfio, struct reply *reply)
{
	uint32_t pt = vfio->backend->hwpt ? vfio->hwpt : vfio->ioas, used;
	int error = iommufd_attach(vfio, pt, &used, reply);

	if (error)
		return error;
	if (vfio->backend->hwpt && used != vfio->hwpt)
		return reply_fail(reply, "VFIO_DEVICE_ATTACH_IOMMUFD_PT", EPROTO,
				  "attached to HWPT %u instead of %u", used, vfio->hwpt);
	json_number(&reply->fields, "hwpt", used);
	return 0;
}

/* What memory is mapped into, and by which page table. */
static int get_address_space(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int error;

	if (share) {
		vfio->ioas = share->ioas;
		vfio->hwpt = share->hwpt;
		return 0;
	}
	error = iommufd_ioas_alloc(vfio, &vfio->ioas, reply);
	if (!error && vfio->backend->hwpt)
		error = iommufd_hwpt_alloc(vfio, vfio->ioas, 0, &vfio->hwpt, reply);
	return error;
}

static int cdev_open(struct vfio *vfio, const struct vfio *share, struct reply *reply)
{
	int error = open_device_file(vfio, reply);

	if (!error)
		error = open_iommufd(vfio, share, reply);
	if (!error)
		error = bind_device(vfio, reply);
	if (!error)
		error = get_address_space(vfio, share, reply);
	if (error)
		return error;
	json_number(&reply->fields, "ioas", vfio->ioas);
	if (!error)
		error = attach_own(vfio, reply);
	if (!error)
		error = vfio_get_device_info(vfio, reply);
	return error ? error : get_ranges(vfio, reply);
}

static int iommufd_map(struct vfio *vfio, const struct vfio_mapping *mapping)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | (mapping->read ? IOMMU_IOAS_MAP_READABLE : 0) |
			 (mapping->write ? IOMMU_IOAS_MAP_WRITEABLE : 0),
		.ioas_id = mapping->ioas,
		.user_va = mapping->vaddr,
		.length = mapping->size,
		.iova = mapping->iova,
	};

	return ioctl(vfio->iommufd, IOMMU_IOAS_MAP, &map) ? -errno : 0;
}

static int iommufd_unmap(struct vfio *vfio, uint32_t ioas, uint64_t iova, uint64_t *size)
{
	struct iommu_ioas_unmap unmap = {
		.size = sizeof(unmap),
		.ioas_id = ioas,
		.iova = iova,
		.length = *size,
	};

	if (ioctl(vfio->iommufd, IOMMU_IOAS_UNMAP, &unmap))
		return -errno;
	*size = unmap.length;
	return 0;
}

static int iommufd_unmap_all(struct vfio *vfio, uint32_t ioas, uint64_t *size)
{
	*size = UINT64_MAX;
	return iommufd_unmap(vfio, ioas, 0, size);
}

/* -- commands on what is open */

/* Fail unless the device was bound by its own file: only then has it an id. */
static int require_bound(const struct vfio *vfio, struct reply *reply)
{
	int error = vfio_require(vfio, reply);

	if (error || vfio->devid)
		return error;
	return reply_fail(reply, "vfio", EOPNOTSUPP, "mode %s binds no device file",
			  vfio->backend->name);
}

static int parse_id(const struct args *args, const char *key, uint32_t otherwise, uint32_t *ret,
		    struct reply *reply)
{
	uint64_t id = arg_number(args, key, otherwise);

	if (id > UINT32_MAX)
		return reply_fail(reply, "parse", EINVAL, "%s is above 32 bits", key);
	*ret = (uint32_t)id;
	return 0;
}

static int run_attach(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	uint32_t pt, used;
	int error = require_bound(vfio, reply);

	if (error)
		return error;
	if (!arg_has(args, "pt"))
		return attach_own(vfio, reply);
	error = parse_id(args, "pt", 0, &pt, reply);
	if (!error)
		error = iommufd_attach(vfio, pt, &used, reply);
	if (!error)
		json_number(&reply->fields, "hwpt", used);
	return error;
}

static int detach(struct vfio *vfio, struct reply *reply)
{
	struct vfio_device_detach_iommufd_pt detach = { .argsz = sizeof(detach) };

	if (ioctl(vfio->device, VFIO_DEVICE_DETACH_IOMMUFD_PT, &detach))
		return reply_fail(reply, "VFIO_DEVICE_DETACH_IOMMUFD_PT", errno, NULL);
	return 0;
}

static int run_detach(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = require_bound(&probe->vfio, reply);

	(void)args;
	return error ? error : detach(&probe->vfio, reply);
}

static int run_ioas_alloc(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint32_t ioas;
	int error = require_bound(&probe->vfio, reply);

	(void)args;
	if (!error)
		error = iommufd_ioas_alloc(&probe->vfio, &ioas, reply);
	if (!error)
		json_number(&reply->fields, "ioas", ioas);
	return error;
}

static int run_hwpt_alloc(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	uint32_t ioas, flags, hwpt;
	int error = require_bound(vfio, reply);

	if (!error)
		error = parse_id(args, "ioas", vfio->ioas, &ioas, reply);
	if (!error)
		error = parse_id(args, "flags", 0, &flags, reply);
	if (!error)
		error = iommufd_hwpt_alloc(vfio, ioas, flags, &hwpt, reply);
	if (!error)
		json_number(&reply->fields, "hwpt", hwpt);
	return error;
}

static int run_iommufd_destroy(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct iommu_destroy destroy = { .size = sizeof(destroy) };
	int error = require_bound(&probe->vfio, reply);

	if (!error)
		error = parse_id(args, "id", 0, &destroy.id, reply);
	if (error)
		return error;
	if (ioctl(probe->vfio.iommufd, IOMMU_DESTROY, &destroy))
		return reply_fail(reply, "IOMMU_DESTROY", errno, NULL);
	return 0;
}

static int run_hw_info(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct iommu_hw_info info = { .size = sizeof(info), .dev_id = probe->vfio.devid };
	int error = require_bound(&probe->vfio, reply);

	(void)args;
	if (error)
		return error;
	if (ioctl(probe->vfio.iommufd, IOMMU_GET_HW_INFO, &info))
		return reply_fail(reply, "IOMMU_GET_HW_INFO", errno, NULL);
	json_number(&reply->fields, "type", info.out_data_type);
	json_number(&reply->fields, "data_len", info.data_len);
	json_bool(&reply->fields, "dirty_tracking",
		  (info.out_capabilities & IOMMU_HW_CAP_DIRTY_TRACKING) != 0);
	return 0;
}

#define IOMMUFD_STEPS                                                                       \
	.map_step = "IOMMU_IOAS_MAP", .unmap_step = "IOMMU_IOAS_UNMAP", .map = iommufd_map, \
	.unmap = iommufd_unmap, .unmap_all = iommufd_unmap_all
#define CDEV_STEPS .open = cdev_open, .attach = attach_own, .detach = detach

const struct vfio_backend iommufd_backends[] = {
	{ "iommufd-group", IOMMUFD_STEPS, .open = group_open },
	{ "cdev-ioas", IOMMUFD_STEPS, CDEV_STEPS },
	{ "cdev-hwpt", IOMMUFD_STEPS, CDEV_STEPS, .hwpt = true },
	{ 0 },
};

static const struct key attach_keys[] = { { "pt", KEY_NUMBER, MAY, NULL }, { 0 } };
static const struct key destroy_keys[] = { { "id", KEY_NUMBER, NEED, NULL }, { 0 } };

static const struct key hwpt_keys[] = {
	{ "ioas", KEY_NUMBER, MAY, NULL },
	{ "flags", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

const struct command iommufd_commands[] = {
	{ "attach", attach_keys, run_attach },
	{ "detach", keys_none, run_detach },
	{ "ioas-alloc", keys_none, run_ioas_alloc },
	{ "hwpt-alloc", hwpt_keys, run_hwpt_alloc },
	{ "iommufd-destroy", destroy_keys, run_iommufd_destroy },
	{ "hw-info", keys_none, run_hw_info },
	{ 0 },
};
