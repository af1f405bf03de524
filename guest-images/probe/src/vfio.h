/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio.h - one device opened through VFIO.
 *
 * How memory gets mapped is a backend's business: a row in a table, chosen by the
 * name of the mode.
 */
#ifndef PROBE_VFIO_H
#define PROBE_VFIO_H

#include <linux/vfio.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "irq.h"
#include "reply.h"

#define VFIO_BDF_SIZE 16

struct vfio;

/* As IOMMU_IOAS_MAP and VFIO_IOMMU_MAP_DMA have it, in the words of neither. */
struct vfio_mapping {
	uint32_t ioas; /* only where the backend has IOASes */
	bool read; /* the device may read */
	bool write;
	uint64_t iova;
	uint64_t size;
	uint64_t vaddr;
};

struct vfio_backend {
	const char *name;
	/* What maps and unmaps, as a reply names the step. */
	const char *map_step;
	const char *unmap_step;
	/*
	 * Open all of vfio->bdf, with the mappings of @share unless it is NULL: an open
	 * device of the same backend. On failure the caller closes whatever is open.
	 */
	int (*open)(struct vfio *vfio, const struct vfio *share, struct reply *reply);
	/* 0 or -errno. @size of unmap returns what was unmapped. */
	int (*map)(struct vfio *vfio, const struct vfio_mapping *mapping);
	int (*unmap)(struct vfio *vfio, uint32_t ioas, uint64_t iova, uint64_t *size);
	int (*unmap_all)(struct vfio *vfio, uint32_t ioas, uint64_t *size);
	/*
	 * Leave the mode's own page table, and return to it; NULL where VFIO does that at
	 * open and close only. 0, or what reply_fail() returned.
	 */
	int (*detach)(struct vfio *vfio, struct reply *reply);
	int (*attach)(struct vfio *vfio, struct reply *reply);
	/* Type1: what is asked for with VFIO_SET_IOMMU, and of which file. */
	uint32_t iommu;
	const char *container;
	/* iommufd: the device is attached to a page table of its own, not by its IOAS. */
	bool hwpt;
};

struct vfio {
	const struct vfio_backend *backend; /* NULL: nothing is open */
	char bdf[VFIO_BDF_SIZE];
	/* -1 what the mode does without. */
	int container;
	int iommufd;
	int group;
	int device;
	/* Objects of the iommufd; 0: there is none. */
	uint32_t devid;
	uint32_t ioas;
	uint32_t hwpt;
	struct vfio_device_info info;
	struct vfio_region_info regions[VFIO_PCI_NUM_REGIONS]; /* size 0: there is none */
	volatile uint8_t *registers; /* BAR 0 mapped, or NULL */
	struct irq_index irqs[IRQ_NR];
};

/* Each ends with a NULL name. */
extern const struct vfio_backend type1_backends[];
extern const struct vfio_backend iommufd_backends[];

void vfio_init(struct vfio *vfio);

/* Close what is open; what a failed open left counts too. */
void vfio_close(struct vfio *vfio);

/* Steps that backends share; their failures are in the reply. */
int vfio_open_file(const char *path, int *ret, struct reply *reply);
/* A second descriptor of what @fd is; @step names it in the reply. */
int vfio_share_file(int fd, const char *step, int *ret, struct reply *reply);
/*
 * Open the group of vfio->bdf and put it into the container or iommufd @fd. A group
 * opens once: one that @share, unless NULL, has open is there already.
 */
int vfio_open_group(struct vfio *vfio, int fd, const struct vfio *share, struct reply *reply);
/* Open the device of the group; over an iommufd that binds and attaches it. */
int vfio_open_group_device(struct vfio *vfio, struct reply *reply);
/* Ask the open device what it has, and report it. */
int vfio_get_device_info(struct vfio *vfio, struct reply *reply);

/* Fail with ENODEV unless a device is open. */
int vfio_require(const struct vfio *vfio, struct reply *reply);

/* Read the regions' geometry and map BAR 0 where it may be mapped. */
void vfio_regions_init(struct vfio *vfio);
void vfio_regions_deinit(struct vfio *vfio);

/*
 * Read or write 1, 2, 4 or 8 bytes of a region: through the mapping if it is the
 * mapped BAR 0, by pread(2) or pwrite(2) otherwise. Return 0 or -errno.
 */
int vfio_access(struct vfio *vfio, uint32_t index, uint64_t offset, unsigned int size, bool write,
		uint64_t *value);

#endif /* PROBE_VFIO_H */
