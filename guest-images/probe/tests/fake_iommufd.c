// SPDX-License-Identifier: GPL-2.0-or-later
#include "fake_iommufd.h"

#include <errno.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <stdlib.h>
#include <string.h>

#include "fake_engine.h"

#define NR_OBJECTS 32

enum object_kind { OBJECT_NONE, OBJECT_DEVICE, OBJECT_IOAS, OBJECT_HWPT };

static struct object {
	enum object_kind kind;
	uint32_t ioas; /* of a HWPT */
} objects[NR_OBJECTS] = { [FAKE_DEVID] = { OBJECT_DEVICE, 0 } };

static uint32_t vfio_ioas;

int fake_fail(int error)
{
	errno = error;
	return -1;
}

static uint32_t new_object(enum object_kind kind, uint32_t ioas)
{
	for (uint32_t id = FAKE_DEVID + 1; id < NR_OBJECTS; id++) {
		if (objects[id].kind == OBJECT_NONE) {
			objects[id] = (struct object){ kind, ioas };
			return id;
		}
	}
	return 0;
}

static bool is_kind(uint32_t id, enum object_kind kind)
{
	return id < NR_OBJECTS && objects[id].kind == kind;
}

int fake_map(uint32_t ioas, uint64_t iova, uint64_t size, uint64_t vaddr, uint32_t flags)
{
	struct mapping *free_map = NULL;

	if (!size || (((size | iova | vaddr) & 4095) && !getenv("FAKE_LAX")))
		return fake_fail(EINVAL);
	if (iova + size - 1 > FAKE_LAST_IOVA)
		return fake_fail(EINVAL);
	for (int i = 0; i < NR_MAPS; i++) {
		if (!fake.maps[i].size)
			free_map = &fake.maps[i];
		else if (!getenv("FAKE_LAX") && fake.maps[i].ioas == ioas &&
			 iova < fake.maps[i].iova + fake.maps[i].size &&
			 fake.maps[i].iova < iova + size)
			return fake_fail(EEXIST);
	}
	if (!free_map)
		return fake_fail(ENOSPC);
	*free_map = (struct mapping){ iova, size, (uint8_t *)(uintptr_t)vaddr, flags, ioas };
	return 0;
}

bool fake_is_part(uint32_t ioas, uint64_t iova, uint64_t size)
{
	for (int i = 0; i < NR_MAPS; i++) {
		const struct mapping *map = &fake.maps[i];

		bool starts = map->iova >= iova && map->iova - iova < size;
		bool whole = starts && map->iova - iova + map->size <= size;

		if (!map->size || map->ioas != ioas || whole)
			continue;
		if (starts || (iova >= map->iova && iova - map->iova < map->size))
			return !getenv("FAKE_LAX");
	}
	return false;
}

uint64_t fake_unmap(uint32_t ioas, uint64_t iova, uint64_t size)
{
	uint64_t done = 0;

	for (int i = 0; i < NR_MAPS; i++) {
		if (fake.maps[i].ioas != ioas || fake.maps[i].iova - iova >= size)
			continue;
		done += fake.maps[i].size;
		if (!getenv("FAKE_LEAK"))
			fake.maps[i].size = 0;
	}
	return done;
}

void fake_iommufd_close(void)
{
	memset(fake.maps, 0, sizeof(fake.maps));
	memset(objects, 0, sizeof(objects));
	objects[FAKE_DEVID].kind = OBJECT_DEVICE;
	vfio_ioas = FAKE_CONTAINER_IOAS;
}

uint32_t fake_vfio_ioas(bool make)
{
	if (make && !vfio_ioas)
		vfio_ioas = new_object(OBJECT_IOAS, 0);
	return vfio_ioas;
}

int fake_attach(uint32_t *pt)
{
	if (is_kind(*pt, OBJECT_IOAS)) {
		fake.attached_ioas = *pt;
		*pt = new_object(OBJECT_HWPT, *pt);
	} else if (is_kind(*pt, OBJECT_HWPT)) {
		fake.attached_ioas = objects[*pt].ioas;
	} else {
		return fake_fail(ENOENT);
	}
	fake.attached = true;
	return 0;
}

static int ioas_map(const struct iommu_ioas_map *map)
{
	uint32_t flags = (map->flags & IOMMU_IOAS_MAP_READABLE ? VFIO_DMA_MAP_FLAG_READ : 0) |
			 (map->flags & IOMMU_IOAS_MAP_WRITEABLE ? VFIO_DMA_MAP_FLAG_WRITE : 0);

	if (!is_kind(map->ioas_id, OBJECT_IOAS))
		return fake_fail(ENOENT);
	if (!(map->flags & IOMMU_IOAS_MAP_FIXED_IOVA))
		return fake_fail(EOPNOTSUPP);
	return fake_map(map->ioas_id, map->iova, map->length, map->user_va, flags);
}

static int ioas_unmap(struct iommu_ioas_unmap *unmap)
{
	bool all = !unmap->iova && unmap->length == UINT64_MAX;
	uint64_t done;

	if (!is_kind(unmap->ioas_id, OBJECT_IOAS))
		return fake_fail(ENOENT);
	if (!all && fake_is_part(unmap->ioas_id, unmap->iova, unmap->length))
		return fake_fail(ENOENT);
	done = fake_unmap(unmap->ioas_id, unmap->iova, unmap->length);
	if (!done && !all)
		return fake_fail(ENOENT);
	unmap->length = done;
	return 0;
}

static int ioas_ranges(struct iommu_ioas_iova_ranges *query)
{
	static const struct iommu_iova_range ranges[] = {
		{ 0, 0xfedfffff },
		{ 0xfef00000, FAKE_LAST_IOVA },
	};
	uint32_t room = query->num_iovas;

	query->num_iovas = 2;
	query->out_iova_alignment = 0x1000;
	if (room < query->num_iovas)
		return fake_fail(EMSGSIZE);
	memcpy((void *)(uintptr_t)query->allowed_iovas, ranges, sizeof(ranges));
	return 0;
}

static int set_or_get_vfio_ioas(struct iommu_vfio_ioas *command)
{
	if (command->op == IOMMU_VFIO_IOAS_SET) {
		if (!is_kind(command->ioas_id, OBJECT_IOAS))
			return fake_fail(ENOENT);
		vfio_ioas = command->ioas_id;
		return 0;
	}
	if (!vfio_ioas)
		return fake_fail(ENODEV);
	command->ioas_id = vfio_ioas;
	return 0;
}

static int hwpt_alloc(struct iommu_hwpt_alloc *alloc)
{
	if (!is_kind(alloc->dev_id, OBJECT_DEVICE) || !is_kind(alloc->pt_id, OBJECT_IOAS))
		return fake_fail(ENOENT);
	/* As virtio-iommu, which has page tables of one kind only. */
	if (alloc->flags || alloc->data_type)
		return fake_fail(EOPNOTSUPP);
	alloc->out_hwpt_id = new_object(OBJECT_HWPT, alloc->pt_id);
	return 0;
}

static int destroy(const struct iommu_destroy *command)
{
	if (command->id >= NR_OBJECTS || objects[command->id].kind < OBJECT_IOAS)
		return fake_fail(ENOENT);
	if (fake.attached &&
	    (fake.attached_ioas == command->id || objects[command->id].ioas == fake.attached_ioas))
		return fake_fail(EBUSY);
	fake_unmap(command->id, 0, UINT64_MAX);
	objects[command->id].kind = OBJECT_NONE;
	return 0;
}

static int hw_info(struct iommu_hw_info *info)
{
	if (!is_kind(info->dev_id, OBJECT_DEVICE))
		return fake_fail(ENOENT);
	info->out_data_type = IOMMU_HW_INFO_TYPE_NONE;
	info->out_capabilities = 0;
	info->data_len = 0;
	return 0;
}

#define STEP(name, call) \
	case name:       \
		return fake_fails(#name) ? -1 : call

int fake_iommufd_ioctl(unsigned long request, void *data)
{
	struct iommu_ioas_alloc *alloc = data;

	switch (request) {
	case IOMMU_IOAS_ALLOC:
		if (fake_fails("IOMMU_IOAS_ALLOC"))
			return -1;
		alloc->out_ioas_id = new_object(OBJECT_IOAS, 0);
		return 0;
		STEP(IOMMU_IOAS_MAP, ioas_map(data));
		STEP(IOMMU_IOAS_UNMAP, ioas_unmap(data));
		STEP(IOMMU_IOAS_IOVA_RANGES, ioas_ranges(data));
		STEP(IOMMU_VFIO_IOAS, set_or_get_vfio_ioas(data));
		STEP(IOMMU_HWPT_ALLOC, hwpt_alloc(data));
		STEP(IOMMU_DESTROY, destroy(data));
		STEP(IOMMU_GET_HW_INFO, hw_info(data));
	}
	return fake_fail(ENOTTY);
}
