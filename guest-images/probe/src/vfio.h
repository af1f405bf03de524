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

struct vfio_backend {
	const char *name;
	__u32 iommu; /* VFIO_TYPE1_IOMMU and the like */
	/*
	 * Open all of vfio->bdf, with the mappings of @share unless it is NULL: an open
	 * device of the same backend. On failure the caller closes whatever is open.
	 */
	int (*open)(struct vfio *vfio, const struct vfio *share, struct reply *reply);
	/* As the ioctls: 0 or -errno. @size of unmap returns what was unmapped. */
	int (*map)(struct vfio *vfio, const struct vfio_iommu_type1_dma_map *map);
	int (*unmap)(struct vfio *vfio, __u32 flags, uint64_t iova, uint64_t *size);
	void (*close)(struct vfio *vfio);
};

struct vfio {
	const struct vfio_backend *backend; /* NULL: nothing is open */
	char bdf[VFIO_BDF_SIZE];
	int container;
	int group;
	int device;
	struct vfio_device_info info;
	struct vfio_region_info regions[VFIO_PCI_NUM_REGIONS]; /* size 0: there is none */
	volatile uint8_t *registers; /* BAR 0 mapped, or NULL */
	struct irq_index irqs[IRQ_NR];
};

extern const struct vfio_backend vfio_type1_backends[]; /* ends with a NULL name */

void vfio_init(struct vfio *vfio);

/* Close what is open; what a failed open left counts too. */
void vfio_close(struct vfio *vfio);

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
