// SPDX-License-Identifier: GPL-2.0-or-later
/* region.c - BARs and config space. */
#include <errno.h>
#include <linux/pci_regs.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dma_engine.h"
#include "mmio.h"
#include "probe.h"

static int get_region_info(struct vfio *vfio, uint32_t index, struct vfio_region_info *ret)
{
	struct vfio_region_info info = { .argsz = sizeof(info), .index = index };

	if (ioctl(vfio->device, VFIO_DEVICE_GET_REGION_INFO, &info))
		return -errno;
	*ret = info;
	return 0;
}

void vfio_regions_init(struct vfio *vfio)
{
	const struct vfio_region_info *bar = &vfio->regions[DMA_ENGINE_BAR_REGS];
	void *registers;

	for (uint32_t i = 0; i < VFIO_PCI_NUM_REGIONS && i < vfio->info.num_regions; i++)
		/* The VGA region of a function that is no VGA is an error: no region. */
		if (get_region_info(vfio, i, &vfio->regions[i]))
			vfio->regions[i].size = 0;
	if (!bar->size || !(bar->flags & VFIO_REGION_INFO_FLAG_MMAP))
		return;
	registers = mmap(NULL, bar->size, PROT_READ | PROT_WRITE, MAP_SHARED, vfio->device,
			 (off_t)bar->offset);
	/* Only a faster way: without it accesses go through the file. */
	if (registers != MAP_FAILED)
		vfio->registers = registers;
}

void vfio_regions_deinit(struct vfio *vfio)
{
	if (vfio->registers)
		munmap((void *)vfio->registers, vfio->regions[DMA_ENGINE_BAR_REGS].size);
	vfio->registers = NULL;
}

static int access_file(int fd, off_t position, unsigned int size, bool write, uint64_t *value)
{
	uint64_t data = write ? *value : 0;
	ssize_t count = write ? pwrite(fd, &data, size, position) :
				pread(fd, &data, size, position);

	if (count < 0)
		return -errno;
	if (count != (ssize_t)size)
		return -EIO;
	if (!write)
		*value = data;
	return 0;
}

int vfio_access(struct vfio *vfio, uint32_t index, uint64_t offset, unsigned int size, bool write,
		uint64_t *value)
{
	const struct vfio_region_info *region;

	if (index >= VFIO_PCI_NUM_REGIONS || (size != 1 && size != 2 && size != 4 && size != 8))
		return -EINVAL;
	region = &vfio->regions[index];
	if (offset > region->size || size > region->size - offset)
		return -ERANGE;
	if (index == DMA_ENGINE_BAR_REGS && vfio->registers && offset % size == 0)
		return mmio_access(vfio->registers + offset, size, write, value);
	return access_file(vfio->device, (off_t)(region->offset + offset), size, write, value);
}

static int run_region(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio_region_info info;
	uint64_t index = arg_number(args, "index", 0);
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	if (index > UINT32_MAX)
		return reply_fail(reply, "parse", EINVAL, "index is above 32 bits");
	error = get_region_info(&probe->vfio, (uint32_t)index, &info);
	if (error)
		return reply_fail(reply, "VFIO_DEVICE_GET_REGION_INFO", -error, NULL);
	json_number(&reply->fields, "size", info.size);
	json_number(&reply->fields, "flags", info.flags);
	json_number(&reply->fields, "offset", info.offset);
	return 0;
}

/* One access of @region; with @write the value comes from the key. */
static int access_region(struct probe *probe, const struct args *args, uint32_t region, bool write,
			 struct reply *reply)
{
	uint64_t size = arg_number(args, "size", 0);
	uint64_t value = write ? arg_number(args, "value", 0) : 0;
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return reply_fail(reply, "parse", EINVAL, "size is not 1, 2, 4 or 8");
	if (write && size < 8 && value >> size * 8)
		return reply_fail(reply, "parse", EINVAL, "value does not fit the size");
	error = vfio_access(&probe->vfio, region, arg_number(args, "offset", 0), (unsigned int)size,
			    write, &value);
	if (error)
		return reply_fail(reply, write ? "write" : "read", -error, NULL);
	if (!write)
		json_number(&reply->fields, "value", value);
	return 0;
}

static int access_config(struct probe *probe, const struct args *args, bool write,
			 struct reply *reply)
{
	if (arg_number(args, "size", 0) == 8)
		return reply_fail(reply, "parse", EINVAL, "size is not 1, 2 or 4");
	return access_region(probe, args, VFIO_PCI_CONFIG_REGION_INDEX, write, reply);
}

static int run_config_read(struct probe *probe, const struct args *args, struct reply *reply)
{
	return access_config(probe, args, false, reply);
}

static int run_config_write(struct probe *probe, const struct args *args, struct reply *reply)
{
	return access_config(probe, args, true, reply);
}

static int access_bar(struct probe *probe, const struct args *args, bool write, struct reply *reply)
{
	uint64_t bar = arg_number(args, "bar", 0);

	if (bar > VFIO_PCI_BAR5_REGION_INDEX)
		return reply_fail(reply, "parse", EINVAL, "bar is not 0..5");
	return access_region(probe, args, (uint32_t)bar, write, reply);
}

static int run_bar_read(struct probe *probe, const struct args *args, struct reply *reply)
{
	return access_bar(probe, args, false, reply);
}

static int run_bar_write(struct probe *probe, const struct args *args, struct reply *reply)
{
	return access_bar(probe, args, true, reply);
}

static int run_bus_master(struct probe *probe, const struct args *args, struct reply *reply)
{
	bool on = arg_number(args, "on", 0);
	uint64_t wanted, command = 0;
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	error = vfio_access(&probe->vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, false,
			    &command);
	if (error)
		return reply_fail(reply, "read", -error, NULL);
	wanted = on ? command | PCI_COMMAND_MASTER : command & ~(uint64_t)PCI_COMMAND_MASTER;
	error = vfio_access(&probe->vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, true,
			    &wanted);
	if (error)
		return reply_fail(reply, "write", -error, NULL);
	error = vfio_access(&probe->vfio, VFIO_PCI_CONFIG_REGION_INDEX, PCI_COMMAND, 2, false,
			    &command);
	if (error)
		return reply_fail(reply, "read", -error, NULL);
	json_number(&reply->fields, "command_register", command);
	if (((command & PCI_COMMAND_MASTER) != 0) != on)
		return reply_fail(reply, "verify", EIO, "the bit did not change");
	return 0;
}

#define ACCESS_KEYS                            \
	{ "offset", KEY_NUMBER, NEED, NULL },  \
	{                                      \
		"size", KEY_NUMBER, NEED, NULL \
	}
#define VALUE_KEY { "value", KEY_NUMBER, NEED, NULL }
#define BAR_KEY { "bar", KEY_NUMBER, NEED, NULL }

static const struct key region_keys[] = { { "index", KEY_NUMBER, NEED, NULL }, { 0 } };
static const struct key config_read_keys[] = { ACCESS_KEYS, { 0 } };
static const struct key config_write_keys[] = { ACCESS_KEYS, VALUE_KEY, { 0 } };
static const struct key bar_read_keys[] = { BAR_KEY, ACCESS_KEYS, { 0 } };
static const struct key bar_write_keys[] = { BAR_KEY, ACCESS_KEYS, VALUE_KEY, { 0 } };
static const struct key on_keys[] = { { "on", KEY_CHOICE, NEED, choices_bool }, { 0 } };

const struct command region_commands[] = {
	{ "region", region_keys, run_region },
	{ "config-read", config_read_keys, run_config_read },
	{ "config-write", config_write_keys, run_config_write },
	{ "bar-read", bar_read_keys, run_bar_read },
	{ "bar-write", bar_write_keys, run_bar_write },
	{ "bus-master", on_keys, run_bus_master },
	{ 0 },
};
