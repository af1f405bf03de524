/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_user.h - one PCI function served over one vfio-user socket.
 *
 * Knows messages, PCI configuration space and interrupts; knows nothing of
 * virtio or DMA engines. Listens for one client at a time; when it goes, drops
 * its maps and eventfds and listens again.
 */
#ifndef VFIO_USER_H
#define VFIO_USER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "viommu.h"

struct log;
struct memory;
struct reactor;
struct vfu;

#define VFU_NR_BARS 6
#define VFU_INTX (-1)

/* All called on the reactor thread. */
struct vfu_ops {
	/*
	 * A BAR access, count 1, 2, 4 or 8 (or up to 4096 for tools), little
	 * endian, already checked to lie inside the BAR. PBA reads never get here.
	 */
	void (*bar_read)(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count);
	void (*bar_write)(void *opaque, unsigned bar, uint64_t offset, const void *buf,
			  size_t count);
	/*
	 * DEVICE, FLR or LOST. Config space, interrupts and bus mastering are cleared
	 * before the call.
	 */
	void (*reset)(void *opaque, enum viommu_reset_kind kind);
	/* DEVICE or FLR is about to be left out, as a defect has it. May be NULL. */
	bool (*ignores_reset)(void *opaque);
	/* Bus mastering changed; vfu_bus_master() gives the new value already. */
	void (*bus_master)(void *opaque, bool on);
	/*
	 * An access to the device-specific part of a capability, e.g. virtio's
	 * PCI configuration access capability (VIRTIO_PCI_CAP_PCI_CFG). Called for
	 * capability bytes that vfu_pci_cap() was told are the device's own. May be NULL.
	 */
	void (*config_read)(void *opaque, unsigned offset, void *buf, size_t count);
	void (*config_write)(void *opaque, unsigned offset, const void *buf, size_t count);
};

struct vfu_bar {
	uint64_t size; /* 0: absent; otherwise a power of two, >= 4096 */
	bool is_64bit; /* takes the next index too */
	bool prefetchable;
};

struct vfu_config {
	const char *socket_path;
	const char *name;
	uint32_t source; /* for log records */
	uint32_t endpoint; /* endpoint id for log records; 0xffffffff if none */
	uint16_t vendor_id, device_id, subsystem_vendor_id, subsystem_id;
	uint32_t class_code; /* 24 bits */
	uint8_t revision;
	struct vfu_bar bars[VFU_NR_BARS];
	bool intx; /* interrupt pin A */
	unsigned nr_msi; /* MSI vectors, a power of two, 32 at most; 0: no capability */
	unsigned msix_bar, nr_vectors;
	uint32_t msix_table_offset, msix_pba_offset;
	struct vfu_ops ops;
	void *opaque;
	struct reactor *reactor;
	struct log *log;
	pthread_rwlock_t *dma_lock; /* see memory.h */
};

/* Lays out config space: PCI Express endpoint with FLR, MSI-X, power management. 4096 bytes. */
int vfu_create(const struct vfu_config *config, struct vfu **ret);
void vfu_destroy(struct vfu *vfu); /* reactor stopped */
/*
 * Adds a vendor specific (0x09) capability before vfu_listen(). body starts at
 * byte 2 of the capability (the length byte). live bytes from live_offset on
 * (counted from the capability's start) are routed to ops.config_read/write
 * with the config space offset. *ret: the capability's config space offset.
 */
int vfu_pci_cap(struct vfu *vfu, const void *body, size_t len, size_t live_offset, size_t live_len,
		unsigned *ret);
int vfu_listen(struct vfu *vfu); /* bind, listen, register with the reactor */

struct memory *vfu_memory(struct vfu *vfu);
bool vfu_connected(const struct vfu *vfu);  /* atomic, any thread */
bool vfu_bus_master(const struct vfu *vfu); /* atomic, any thread */

/*
 * Raises MSI-X vector, or the MSI that stands for it if the driver has enabled MSI, or
 * VFU_INTX (asserts; vfu_intx_deassert() ends it, until then
 * it is re-raised at every unmask). Any thread. Does nothing, and says -ENODEV,
 * without bus mastering (MSI-X) or a client; -ENOENT without an eventfd.
 */
int vfu_irq_raise(struct vfu *vfu, int vector);
void vfu_intx_deassert(struct vfu *vfu);
/* The MSI vector that a write of four bytes means; -ENOENT: none. Any thread. */
int vfu_msi_vector(struct vfu *vfu, uint64_t addr, uint32_t data);

/*
 * Asks the client to do the access (DMA_READ, DMA_WRITE): for addresses outside
 * the memory it gave us. count <= 65536. Blocks for the answer, timeout_ms at
 * most: DMA worker threads only, and never with dma_lock held.
 * -errno as the client answered; -ETIMEDOUT; -ENOTCONN.
 */
int vfu_dma_access(struct vfu *vfu, uint64_t addr, void *buf, size_t count, bool is_write,
		   unsigned timeout_ms);

#endif /* VFIO_USER_H */
