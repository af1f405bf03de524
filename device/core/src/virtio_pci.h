/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio_pci.h - the modern virtio transport over PCI.
 *
 * Knows registers, feature negotiation, queues and interrupts; knows nothing of
 * IOMMUs. Reactor thread only, unless said otherwise.
 */
#ifndef VIRTIO_PCI_H
#define VIRTIO_PCI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "viommu.h"
#include "virtqueue.h"

#define VIRTIO_PCI_NR_QUEUES 2
#define VIRTIO_PCI_NR_VECTORS 3 /* configuration, and one for each queue */

#define VIRTIO_PCI_BAR_MSIX 1
#define VIRTIO_PCI_BAR 4
#define VIRTIO_PCI_BAR_SIZE 0x4000
/* The structures inside BAR 4, one page each. */
#define VIRTIO_PCI_COMMON 0x0000
#define VIRTIO_PCI_ISR_PAGE 0x1000
#define VIRTIO_PCI_DEVICE 0x2000
#define VIRTIO_PCI_NOTIFY 0x3000
#define VIRTIO_PCI_NOTIFY_MULTIPLIER 4

struct vfu;
struct viommu_ctx;

struct virtio_ops {
	/* Fills len bytes from offset of the device configuration, len > 0, all inside. */
	void (*config_read)(void *opaque, size_t offset, void *buf, size_t len);
	void (*config_write)(void *opaque, size_t offset, const void *buf, size_t len);
	/* FEATURES_OK was accepted: virtio_pci_has() is final until the next reset. */
	void (*negotiated)(void *opaque);
	/* A driver that is ready says that a queue has something new. */
	void (*notify)(void *opaque, unsigned queue);
	/* After the transport's own state has been reset. */
	void (*reset)(void *opaque, enum viommu_reset_kind kind);
};

struct virtio_pci_config {
	const char *socket_path;
	const char *name;
	uint32_t source;
	uint16_t device_type; /* virtio device id; the PCI device id is this + 0x1040 */
	uint32_t class_code;
	uint64_t features; /* of the device; the transport adds its own */
	size_t config_size;
	struct virtio_ops ops;
	void *opaque;
};

struct virtio_pci {
	struct viommu_ctx *ctx;
	struct vfu *vfu;
	struct virtio_ops ops;
	void *opaque;
	uint32_t source;
	size_t config_size;
	uint64_t offered;
	uint64_t driver_features;
	bool driver_features_unknown; /* the driver asked for a bit beyond 63 */
	uint32_t device_feature_select;
	uint32_t driver_feature_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t status;
	uint8_t isr;
	uint8_t generation;
	struct virtqueue queues[VIRTIO_PCI_NR_QUEUES];
	unsigned window_cap; /* config space offset of VIRTIO_PCI_CAP_PCI_CFG */
	uint8_t window[16];  /* its bytes from VIRTIO_PCI_CAP_BAR on */
};

int virtio_pci_init(struct virtio_pci *vdev, struct viommu_ctx *ctx,
		    const struct virtio_pci_config *config);
void virtio_pci_deinit(struct virtio_pci *vdev);

/* The driver has accepted a feature bit. */
bool virtio_pci_has(const struct virtio_pci *vdev, unsigned feature);
/* The driver has said DRIVER_OK, nothing is broken, and the queue may be used. */
bool virtio_pci_queue_ready(const struct virtio_pci *vdev, unsigned queue);
/* Publishes what was pushed to a queue, with at most one interrupt. */
void virtio_pci_flush(struct virtio_pci *vdev, unsigned queue);
/* The driver broke its rings: nothing is done until it resets the device. */
void virtio_pci_needs_reset(struct virtio_pci *vdev);
/* Device configuration changed by itself. */
void virtio_pci_config_changed(struct virtio_pci *vdev);

/* Register accesses, virtio_pci_regs.c. */
void virtio_pci_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count);
void virtio_pci_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf,
			  size_t count);
void virtio_pci_window_read(void *opaque, unsigned offset, void *buf, size_t count);
void virtio_pci_window_write(void *opaque, unsigned offset, const void *buf, size_t count);
void virtio_pci_set_status(struct virtio_pci *vdev, uint8_t value);
void virtio_pci_notify(struct virtio_pci *vdev, unsigned queue);

#endif /* VIRTIO_PCI_H */
