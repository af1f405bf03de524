/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * iommufd.h - IOASes and page tables (HWPTs) of the open device's iommufd.
 *
 * Each call is one ioctl. It returns 0 or what reply_fail() returned; the step is
 * the ioctl's name.
 */
#ifndef PROBE_IOMMUFD_H
#define PROBE_IOMMUFD_H

#include <stdint.h>

#include "reply.h"
#include "vfio.h"

int iommufd_ioas_alloc(struct vfio *vfio, uint32_t *ret, struct reply *reply);

/* A paging HWPT with the mappings of @ioas, for the open device. */
int iommufd_hwpt_alloc(struct vfio *vfio, uint32_t ioas, uint32_t flags, uint32_t *ret,
		       struct reply *reply);

/* Attach the device to an IOAS or a HWPT. @ret_hwpt is the HWPT that it uses then. */
int iommufd_attach(struct vfio *vfio, uint32_t pt, uint32_t *ret_hwpt, struct reply *reply);

/* Make the mode's IOAS the one that VFIO's own ioctls on the iommufd are about. */
int iommufd_set_vfio_ioas(struct vfio *vfio, struct reply *reply);

#endif /* PROBE_IOMMUFD_H */
