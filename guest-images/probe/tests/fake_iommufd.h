/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fake_iommufd.h - IOASes, page tables and mappings, of one iommufd at most.
 *
 * A container is an IOAS too: the one without a number.
 */
#ifndef PROBE_FAKE_IOMMUFD_H
#define PROBE_FAKE_IOMMUFD_H

#include <stdbool.h>
#include <stdint.h>

#define FAKE_CONTAINER_IOAS 0u
#define FAKE_DEVID 1u
#define FAKE_LAST_IOVA 0x7fffffffffull

/* Is this the step that is to fail (FAKE_FAIL)? Then errno is set. */
bool fake_fails(const char *step);

/* Set errno and return -1. */
int fake_fail(int error);

/* As IOMMU_IOAS_MAP has it; @flags are those of VFIO_IOMMU_MAP_DMA. */
int fake_map(uint32_t ioas, uint64_t iova, uint64_t size, uint64_t vaddr, uint32_t flags);

/* Take away what begins in a range. Return the number of bytes. */
uint64_t fake_unmap(uint32_t ioas, uint64_t iova, uint64_t size);

/* Does the range cut a mapping? */
bool fake_is_part(uint32_t ioas, uint64_t iova, uint64_t size);

/* Forget every object and mapping: the file was closed. */
void fake_iommufd_close(void);

/* The IOAS that VFIO's own ioctls are about; @make one if there is none. */
uint32_t fake_vfio_ioas(bool make);

/* Attach the device to an IOAS or HWPT; *@pt becomes the HWPT. As the ioctl. */
int fake_attach(uint32_t *pt);

/* The ioctls of /dev/iommu that are not VFIO's. */
int fake_iommufd_ioctl(unsigned long request, void *data);

#endif /* PROBE_FAKE_IOMMUFD_H */
