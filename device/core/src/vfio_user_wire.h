/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_user_wire.h - vfio-user messages as they are on the socket.
 *
 * Host byte order. Names follow the vfio-user specification (QEMU's
 * docs/interop/vfio-user.rst) and linux/vfio.h.
 */
#ifndef VFIO_USER_WIRE_H
#define VFIO_USER_WIRE_H

#include <stdint.h>

enum vfio_user_command {
	VFIO_USER_VERSION = 1,
	VFIO_USER_DMA_MAP = 2,
	VFIO_USER_DMA_UNMAP = 3,
	VFIO_USER_DEVICE_GET_INFO = 4,
	VFIO_USER_DEVICE_GET_REGION_INFO = 5,
	VFIO_USER_DEVICE_GET_REGION_IO_FDS = 6,
	VFIO_USER_DEVICE_GET_IRQ_INFO = 7,
	VFIO_USER_DEVICE_SET_IRQS = 8,
	VFIO_USER_REGION_READ = 9,
	VFIO_USER_REGION_WRITE = 10,
	VFIO_USER_DMA_READ = 11,
	VFIO_USER_DMA_WRITE = 12,
	VFIO_USER_DEVICE_RESET = 13,
	VFIO_USER_REGION_WRITE_MULTI = 15,
	VFIO_USER_DEVICE_FEATURE = 16,
};

#define VFIO_USER_TYPE_MASK 0xfu
#define VFIO_USER_REQUEST 0x0u
#define VFIO_USER_REPLY 0x1u
#define VFIO_USER_NO_REPLY 0x10u
#define VFIO_USER_ERROR 0x20u

struct vfio_user_header {
	uint16_t id;
	uint16_t command;
	uint32_t size; /* of the whole message */
	uint32_t flags;
	uint32_t error; /* errno, with VFIO_USER_ERROR */
};

struct vfio_user_version {
	uint16_t major;
	uint16_t minor;
	/* then JSON, ended by NUL, or nothing */
};

#define VFIO_USER_DMA_MAP_READ 0x1u
#define VFIO_USER_DMA_MAP_WRITE 0x2u

struct vfio_user_dma_map {
	uint32_t argsz;
	uint32_t flags;
	uint64_t offset;
	uint64_t address;
	uint64_t size;
};

#define VFIO_USER_DMA_UNMAP_ALL 0x2u

struct vfio_user_dma_unmap {
	uint32_t argsz;
	uint32_t flags;
	uint64_t address;
	uint64_t size;
};

#define VFIO_DEVICE_FLAGS_RESET 0x1u
#define VFIO_DEVICE_FLAGS_PCI 0x2u

struct vfio_user_device_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t num_regions;
	uint32_t num_irqs;
};

#define VFIO_REGION_INFO_FLAG_READ 0x1u
#define VFIO_REGION_INFO_FLAG_WRITE 0x2u

struct vfio_user_region_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t cap_offset;
	uint64_t size;
	uint64_t offset;
};

#define VFIO_IRQ_INFO_EVENTFD 0x1u
#define VFIO_IRQ_INFO_MASKABLE 0x2u
#define VFIO_IRQ_INFO_AUTOMASKED 0x4u

struct vfio_user_irq_info {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t count;
};

struct vfio_user_irq_set {
	uint32_t argsz;
	uint32_t flags;
	uint32_t index;
	uint32_t start;
	uint32_t count;
	/* then count bytes with VFIO_IRQ_SET_DATA_BOOL */
};

struct vfio_user_region_access {
	uint64_t offset;
	uint32_t region;
	uint32_t count;
	/* then count bytes in a write, and in the reply to a read */
};

/* DMA_READ and DMA_WRITE. QEMU before 11 has a count of 32 bits here. */
struct vfio_user_dma_access {
	uint64_t address;
	uint64_t count;
	/* then count bytes as above */
};

_Static_assert(sizeof(struct vfio_user_header) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_map) == 32, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_unmap) == 24, "wire format");
_Static_assert(sizeof(struct vfio_user_region_info) == 32, "wire format");
_Static_assert(sizeof(struct vfio_user_irq_set) == 20, "wire format");
_Static_assert(sizeof(struct vfio_user_region_access) == 16, "wire format");
_Static_assert(sizeof(struct vfio_user_dma_access) == 16, "wire format");

/* What the VERSION reply promises. */
#define VFU_MAX_FDS 16u
#define VFU_MAX_XFER (1u << 20)
/* The longest message a client may send: a full transfer with its headers. */
#define VFU_MAX_MESSAGE (VFU_MAX_XFER + 32 + 16)

#define VFU_REGION_CONFIG 7u
#define VFU_NR_REGIONS 9u
#define VFU_NR_IRQS 5u

#endif /* VFIO_USER_WIRE_H */
