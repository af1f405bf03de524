// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * fake_vfio.c - a VFIO that can be driven without a guest.
 *
 * Linked with --wrap, it answers the calls vfio-probe makes on /dev/vfio and
 * /dev/iommu, and moves /sys into the folder FAKE_SYSFS. FAKE_FAIL="STEP=ERRNO" makes
 * one step fail. Mappings are fake_iommufd.c's, the device is fake_engine.c.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_engine.h"
#include "fake_iommufd.h"

#define NR_FDS 256
#define REGION_SHIFT 40

/* UNBOUND: a device file that is not bound to an iommufd yet. */
enum kind { NONE, CONTAINER, IOMMUFD, GROUP, UNBOUND, DEVICE, BIND, UNBIND };

static enum kind kinds[NR_FDS];
static char driver_of_fd[NR_FDS][64];

int __real_open(const char *path, int flags, ...);
int __real_close(int fd);
ssize_t __real_write(int fd, const void *data, size_t size);
int __real_ioctl(int fd, unsigned long request, ...);
ssize_t __real_pread(int fd, void *data, size_t size, off_t offset);
ssize_t __real_pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t __real_readlink(const char *path, char *target, size_t size);
DIR *__real_opendir(const char *path);
int __wrap_open(const char *path, int flags, ...);
int __wrap_close(int fd);
ssize_t __wrap_write(int fd, const void *data, size_t size);
int __wrap_ioctl(int fd, unsigned long request, ...);
ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset);
ssize_t __wrap_readlink(const char *path, char *target, size_t size);
DIR *__wrap_opendir(const char *path);

bool fake_fails(const char *step)
{
	const char *wanted = getenv("FAKE_FAIL");
	size_t length = strlen(step);

	if (!wanted || strncmp(wanted, step, length) || wanted[length] != '=')
		return false;
	errno = atoi(wanted + length + 1);
	return true;
}

static enum kind kind_of(int fd)
{
	return fd >= 0 && fd < NR_FDS ? kinds[fd] : NONE;
}

static int new_fd(enum kind kind)
{
	int fd = memfd_create("fake", MFD_CLOEXEC);

	if (fd >= 0 && fd < NR_FDS)
		kinds[fd] = kind;
	return fd;
}

static const char *redirect(const char *path, char buffer[512])
{
	const char *root = getenv("FAKE_SYSFS");

	/* Neither may touch this host. */
	if (root && !strncmp(path, "/proc/sys/", 10)) {
		snprintf(buffer, 512, "%s%s", root, path);
		return buffer;
	}
	if (!root || strncmp(path, "/sys/", 5))
		return path;
	snprintf(buffer, 512, "%s%s", root, path + 4);
	return buffer;
}

/* Remember what a write to this descriptor will mean. */
static void note_driver_file(int fd, const char *path)
{
	static const char folder[] = "/sys/bus/pci/drivers/";
	size_t length = strlen(path);

	if (fd < 0 || fd >= NR_FDS)
		return;
	if (length > 7 && !strcmp(path + length - 7, "/unbind")) {
		kinds[fd] = UNBIND;
	} else if (length > 5 && !strcmp(path + length - 5, "/bind")) {
		kinds[fd] = BIND;
		snprintf(driver_of_fd[fd], sizeof(driver_of_fd[fd]), "%.*s",
			 (int)(length - 5 - strlen(folder)), path + strlen(folder));
	}
}

int __wrap_open(const char *path, int flags, ...)
{
	char buffer[512], step[64];
	int fd;

	snprintf(step, sizeof(step), "open:%s", path);
	if (fake_fails(step))
		return -1;
	if (!strcmp(path, "/dev/vfio/vfio"))
		return new_fd(CONTAINER);
	if (!strcmp(path, "/dev/iommu"))
		return new_fd(IOMMUFD);
	if (!strncmp(path, "/dev/vfio/devices/", 18))
		return new_fd(UNBOUND);
	if (!strncmp(path, "/dev/vfio/", 10))
		return new_fd(GROUP);
	fd = __real_open(redirect(path, buffer), flags, 0600);
	note_driver_file(fd, path);
	return fd;
}

int __wrap_close(int fd)
{
	if (kind_of(fd) == CONTAINER || kind_of(fd) == IOMMUFD)
		fake_iommufd_close();
	if (kind_of(fd) == DEVICE)
		fake.attached = false;
	if (fd >= 0 && fd < NR_FDS)
		kinds[fd] = NONE;
	return __real_close(fd);
}

ssize_t __wrap_readlink(const char *path, char *target, size_t size)
{
	char buffer[512];

	return __real_readlink(redirect(path, buffer), target, size);
}

DIR *__wrap_opendir(const char *path)
{
	char buffer[512];

	return __real_opendir(redirect(path, buffer));
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
	char path[512], link[512], target[128];
	enum kind kind = kind_of(fd);

	if (kind != BIND && kind != UNBIND)
		return __real_write(fd, data, size);
	if (fake_fails(kind == BIND ? "bind" : "unbind"))
		return -1;
	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%.*s/driver", (int)size,
		 (const char *)data);
	snprintf(target, sizeof(target), "../../drivers/%s", driver_of_fd[fd]);
	if (kind == UNBIND ? unlink(redirect(path, link)) : symlink(target, redirect(path, link)))
		return -1;
	return (ssize_t)size;
}

static uint8_t *region_memory(off_t offset, size_t size)
{
	uint64_t index = (uint64_t)offset >> REGION_SHIFT;
	uint64_t at = (uint64_t)offset & ((1ull << REGION_SHIFT) - 1);
	uint8_t *memory = index == 0 ? fake.registers : index == 2 ? fake.local : fake.config;
	uint64_t end = index == 0                            ? sizeof(fake.registers) :
		       index == 2                            ? sizeof(fake.local) :
		       index == VFIO_PCI_CONFIG_REGION_INDEX ? sizeof(fake.config) :
							       0;

	return at + size <= end ? memory + at : NULL;
}

ssize_t __wrap_pread(int fd, void *data, size_t size, off_t offset)
{
	uint8_t *memory;

	if (kind_of(fd) != DEVICE)
		return __real_pread(fd, data, size, offset);
	memory = region_memory(offset, size);
	if (!memory) {
		errno = EINVAL;
		return -1;
	}
	fake_run_late(offset);
	memcpy(data, memory, size);
	return (ssize_t)size;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset)
{
	uint64_t value = 0, slot = (uint64_t)offset & ~(DMA_ENGINE_SLOT_SIZE - 1ull);
	uint8_t *memory;

	if (kind_of(fd) != DEVICE)
		return __real_pwrite(fd, data, size, offset);
	memory = region_memory(offset, size);
	if (!memory) {
		errno = EINVAL;
		return -1;
	}
	memcpy(&value, data, size);
	if (offset == DMA_ENGINE_INTX_STATUS)
		fake_set_reg(DMA_ENGINE_INTX_STATUS, 0, 4);
	else if (offset == DMA_ENGINE_IRQ_TRIGGER)
		fake_raise(value == DMA_ENGINE_TRIGGER_INTX ? 2 : 1,
			   value == DMA_ENGINE_TRIGGER_INTX ? 0 : (unsigned int)value);
	else
		memcpy(memory, data, size);
	if (offset >= DMA_ENGINE_SLOTS && offset < DMA_ENGINE_REGS_SIZE &&
	    offset % DMA_ENGINE_SLOT_SIZE == DMA_SLOT_COMMAND)
		fake_start_slot(slot, (uint32_t)value);
	return (ssize_t)size;
}

static int map_dma(const struct vfio_iommu_type1_dma_map *map)
{
	if (fake_fails("VFIO_IOMMU_MAP_DMA"))
		return -1;
	return fake_map(fake_vfio_ioas(false), map->iova, map->size, map->vaddr, map->flags);
}

/* Of type1: it cuts no mapping in two. */
static bool second_version;

static int unmap_dma(struct vfio_iommu_type1_dma_unmap *unmap)
{
	bool all = unmap->flags & VFIO_DMA_UNMAP_FLAG_ALL;

	if (all && (unmap->iova || unmap->size))
		return fake_fail(EINVAL);
	if (!all && second_version && fake_is_part(fake_vfio_ioas(false), unmap->iova, unmap->size))
		return fake_fail(fake_vfio_ioas(false) ? ENOENT : EINVAL);
	unmap->size =
		fake_unmap(fake_vfio_ioas(false), unmap->iova, all ? UINT64_MAX : unmap->size);
	return 0;
}

static int iommu_info(struct vfio_iommu_type1_info *info)
{
	struct {
		struct vfio_iommu_type1_info_cap_iova_range cap;
		struct vfio_iova_range ranges[2];
	} caps = {
		.cap.header.id = VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
		.cap.nr_iovas = 2,
		.ranges = { { 0, 0xfedfffff }, { 0xfef00000, FAKE_LAST_IOVA } },
	};
	size_t room = info->argsz;

	if (fake_fails("VFIO_IOMMU_GET_INFO"))
		return -1;
	info->flags = VFIO_IOMMU_INFO_PGSIZES | VFIO_IOMMU_INFO_CAPS;
	info->iova_pgsizes = 0x1000;
	info->argsz = sizeof(*info) + sizeof(caps);
	info->cap_offset = 0;
	if (room < info->argsz)
		return 0;
	info->cap_offset = sizeof(*info);
	memcpy(info + 1, &caps, sizeof(caps));
	return 0;
}

static int container_ioctl(unsigned long request, void *data)
{
	unsigned long number = (uintptr_t)data;

	switch (request) {
	case VFIO_GET_API_VERSION:
		return fake_fails("VFIO_GET_API_VERSION") ? -1 : VFIO_API_VERSION;
	case VFIO_CHECK_EXTENSION:
		return number == VFIO_TYPE1_IOMMU || number == VFIO_TYPE1v2_IOMMU;
	case VFIO_SET_IOMMU:
		second_version = number == VFIO_TYPE1v2_IOMMU;
		return fake_fails("VFIO_SET_IOMMU") ? -1 : 0;
	case VFIO_IOMMU_GET_INFO:
		return iommu_info(data);
	case VFIO_IOMMU_MAP_DMA:
		return map_dma(data);
	case VFIO_IOMMU_UNMAP_DMA:
		return unmap_dma(data);
	}
	return fake_fail(ENOTTY);
}

static int group_ioctl(unsigned long request, void *data)
{
	struct vfio_group_status *status = data;

	switch (request) {
	case VFIO_GROUP_GET_STATUS:
		status->flags = getenv("FAKE_NOT_VIABLE") ? 0 : VFIO_GROUP_FLAGS_VIABLE;
		return 0;
	case VFIO_GROUP_SET_CONTAINER:
		if (fake_fails("VFIO_GROUP_SET_CONTAINER"))
			return -1;
		fake_vfio_ioas(kind_of(*(int *)data) == IOMMUFD);
		return 0;
	case VFIO_GROUP_GET_DEVICE_FD:
		if (fake_fails("VFIO_GROUP_GET_DEVICE_FD"))
			return -1;
		fake_reset();
		fake.attached = true;
		fake.attached_ioas = fake_vfio_ioas(false);
		return new_fd(DEVICE);
	}
	return fake_fail(ENOTTY);
}

static int region_info(struct vfio_region_info *info)
{
	static const uint64_t sizes[VFIO_PCI_NUM_REGIONS] = {
		[0] = sizeof(fake.registers),
		[2] = sizeof(fake.local),
		[4] = DMA_ENGINE_MSIX_SIZE,
		[VFIO_PCI_CONFIG_REGION_INDEX] = sizeof(fake.config),
	};

	if (info->index >= VFIO_PCI_VGA_REGION_INDEX)
		return fake_fail(EINVAL);
	info->size = sizes[info->index];
	info->offset = (uint64_t)info->index << REGION_SHIFT;
	info->flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	return 0;
}

static int set_irqs(const struct vfio_irq_set *set)
{
	bool intx = set->index == VFIO_PCI_INTX_IRQ_INDEX;

	if (fake_fails("VFIO_DEVICE_SET_IRQS"))
		return -1;
	if (set->start + set->count > (intx ? 1 : NR_VECTORS))
		return fake_fail(EINVAL);
	/* As x86 without interrupt remapping: so many can be had. */
	if (set->index == VFIO_PCI_MSI_IRQ_INDEX && set->count > 1)
		return 1;
	if (set->flags & VFIO_IRQ_SET_ACTION_TRIGGER && !set->count)
		memset(fake.eventfds[intx], 0, sizeof(fake.eventfds[intx]));
	if (set->flags & VFIO_IRQ_SET_DATA_EVENTFD)
		memcpy(fake.eventfds[intx] + set->start, set->data, set->count * sizeof(int));
	if (set->flags & (VFIO_IRQ_SET_ACTION_MASK | VFIO_IRQ_SET_ACTION_UNMASK) && !intx)
		return fake_fail(EINVAL);
	if (set->flags & VFIO_IRQ_SET_ACTION_MASK)
		fake.intx_masked = true;
	if (set->flags & VFIO_IRQ_SET_ACTION_UNMASK) {
		fake.intx_masked = false;
		/* The line is a level: what is still asserted fires again. */
		if (fake_reg(DMA_ENGINE_INTX_STATUS, 4))
			fake_raise(2, 0);
	}
	return 0;
}

static int bind_iommufd(int fd, struct vfio_device_bind_iommufd *bind)
{
	if (fake_fails("VFIO_DEVICE_BIND_IOMMUFD"))
		return -1;
	if (kind_of(bind->iommufd) != IOMMUFD)
		return fake_fail(EBADFD);
	bind->out_devid = FAKE_DEVID;
	kinds[fd] = DEVICE;
	fake_reset();
	return 0;
}

static int device_ioctl(unsigned long request, void *data)
{
	struct vfio_device_attach_iommufd_pt *attach = data;
	struct vfio_device_info *info = data;

	switch (request) {
	case VFIO_DEVICE_GET_INFO:
		info->flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
		info->num_regions = VFIO_PCI_NUM_REGIONS;
		info->num_irqs = VFIO_PCI_NUM_IRQS;
		return 0;
	case VFIO_DEVICE_GET_REGION_INFO:
		return region_info(data);
	case VFIO_DEVICE_SET_IRQS:
		return set_irqs(data);
	case VFIO_DEVICE_RESET:
		fake_reset();
		return 0;
	case VFIO_DEVICE_ATTACH_IOMMUFD_PT:
		if (fake_fails("VFIO_DEVICE_ATTACH_IOMMUFD_PT"))
			return -1;
		return fake_attach(&attach->pt_id);
	case VFIO_DEVICE_DETACH_IOMMUFD_PT:
		if (fake_fails("VFIO_DEVICE_DETACH_IOMMUFD_PT"))
			return -1;
		fake.attached = false;
		return 0;
	}
	return fake_fail(ENOTTY);
}

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *data;

	va_start(args, request);
	data = va_arg(args, void *);
	va_end(args);
	switch (kind_of(fd)) {
	case CONTAINER:
		return container_ioctl(request, data);
	case IOMMUFD:
		/* It answers to VFIO's numbers, which end below its own, as a container. */
		return request >= VFIO_GET_API_VERSION && request <= VFIO_IOMMU_UNMAP_DMA ?
			       container_ioctl(request, data) :
			       fake_iommufd_ioctl(request, data);
	case UNBOUND:
		return request == VFIO_DEVICE_BIND_IOMMUFD ? bind_iommufd(fd, data) :
							     fake_fail(EINVAL);
	case GROUP:
		return group_ioctl(request, data);
	case DEVICE:
		return device_ioctl(request, data);
	default:
		return __real_ioctl(fd, request, data);
	}
}
