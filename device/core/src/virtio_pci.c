// SPDX-License-Identifier: GPL-2.0-or-later
/* The device's life: negotiation, reset, interrupts. Registers: virtio_pci_regs.c. */
#include "virtio_pci.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "ctx.h"
#include "log.h"
#include "vfio_user.h"

/* The body of a vendor capability starts at its length byte. */
#define CAP_BODY_SKIP VIRTIO_PCI_CAP_LEN
/* The bit beside VIRTIO_PCI_ISR_CONFIG, for which the UAPI has no name. */
#define ISR_QUEUE 0x1

static void reset_state(struct virtio_pci *vdev)
{
	vdev->driver_features = 0;
	vdev->driver_features_unknown = false;
	vdev->device_feature_select = 0;
	vdev->driver_feature_select = 0;
	vdev->queue_select = 0;
	vdev->config_vector = VIRTIO_MSI_NO_VECTOR;
	vdev->status = 0;
	vdev->isr = 0;
	for (unsigned i = 0; i < VIRTIO_PCI_NR_QUEUES; i++)
		virtqueue_reset(&vdev->queues[i]);
	vfu_intx_deassert(vdev->vfu);
}

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	struct virtio_pci *vdev = opaque;

	reset_state(vdev);
	memset(vdev->window, 0, sizeof(vdev->window));
	vdev->ops.reset(vdev->opaque, kind);
}

static void driver_reset(struct virtio_pci *vdev)
{
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_RESET,
		.endpoint = UINT32_MAX,
		.domain = UINT32_MAX,
		.flags = VIOMMU_RESET_VIRTIO,
		.source = vdev->source,
	};

	reset_state(vdev);
	vdev->ops.reset(vdev->opaque, VIOMMU_RESET_VIRTIO);
	log_append(vdev->ctx->log, &record);
	log_count(vdev->ctx->log, VIOMMU_COUNT_RESETS, 1);
}

/* The rings are in guest memory: what was notified without bus mastering is done once it is on. */
static void bus_master(void *opaque, bool on)
{
	struct virtio_pci *vdev = opaque;

	for (unsigned i = 0; on && i < VIRTIO_PCI_NR_QUEUES; i++)
		virtio_pci_notify(vdev, i);
}

static int add_cap(struct virtio_pci *vdev, uint8_t type, uint32_t offset, uint32_t length,
		   uint32_t extra, unsigned *ret)
{
	struct virtio_pci_notify_cap cap = {
		.cap.cap_len = sizeof(struct virtio_pci_cap),
		.cap.cfg_type = type,
		.cap.bar = VIRTIO_PCI_BAR,
		.cap.offset = htole32(offset),
		.cap.length = htole32(length),
		.notify_off_multiplier = htole32(extra),
	};
	bool is_window = type == VIRTIO_PCI_CAP_PCI_CFG;

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG || is_window)
		cap.cap.cap_len = sizeof(cap);
	if (is_window)
		cap.cap.bar = 0;
	return vfu_pci_cap(vdev->vfu, (uint8_t *)&cap + CAP_BODY_SKIP,
			   cap.cap.cap_len - CAP_BODY_SKIP, is_window ? VIRTIO_PCI_CAP_BAR : 0,
			   is_window ? sizeof(vdev->window) : 0, ret);
}

static int add_caps(struct virtio_pci *vdev)
{
	static const struct {
		uint8_t type;
		uint32_t offset, length, extra;
	} caps[] = {
		{ VIRTIO_PCI_CAP_COMMON_CFG, VIRTIO_PCI_COMMON, 0x1000, 0 },
		{ VIRTIO_PCI_CAP_ISR_CFG, VIRTIO_PCI_ISR_PAGE, 0x1000, 0 },
		{ VIRTIO_PCI_CAP_DEVICE_CFG, VIRTIO_PCI_DEVICE, 0x1000, 0 },
		{ VIRTIO_PCI_CAP_NOTIFY_CFG, VIRTIO_PCI_NOTIFY, 0x1000,
		  VIRTIO_PCI_NOTIFY_MULTIPLIER },
		/* Last: its address is kept. */
		{ VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0 },
	};

	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		int r = add_cap(vdev, caps[i].type, caps[i].offset, caps[i].length, caps[i].extra,
				&vdev->window_cap);

		if (r < 0)
			return r;
	}
	return 0;
}

int virtio_pci_init(struct virtio_pci *vdev, struct viommu_ctx *ctx,
		    const struct virtio_pci_config *config)
{
	const struct vfu_config vfu_config = {
		.socket_path = config->socket_path,
		.name = config->name,
		.source = config->source,
		.endpoint = UINT32_MAX,
		.vendor_id = 0x1af4,
		.device_id = 0x1040 + config->device_type,
		.subsystem_vendor_id = 0x1af4,
		.subsystem_id = 0x1100,
		.class_code = config->class_code,
		.revision = 1,
		.bars[VIRTIO_PCI_BAR_MSIX] = { .size = 0x1000 },
		.bars[VIRTIO_PCI_BAR] = {
			.size = VIRTIO_PCI_BAR_SIZE, .is_64bit = true, .prefetchable = true,
		},
		.intx = true,
		.msix_bar = VIRTIO_PCI_BAR_MSIX,
		.nr_vectors = VIRTIO_PCI_NR_VECTORS,
		.msix_table_offset = 0,
		.msix_pba_offset = 0x800,
		.ops = {
			.bar_read = virtio_pci_bar_read,
			.bar_write = virtio_pci_bar_write,
			.reset = reset,
			.bus_master = bus_master,
			.config_read = virtio_pci_window_read,
			.config_write = virtio_pci_window_write,
		},
		.opaque = vdev,
		.reactor = ctx->reactor,
		.log = ctx->log,
		.dma_lock = &ctx->dma_lock,
	};
	int r;

	*vdev = (struct virtio_pci){
		.ctx = ctx,
		.ops = config->ops,
		.opaque = config->opaque,
		.source = config->source,
		.config_size = config->config_size,
		.offered = config->features | 1ull << VIRTIO_F_VERSION_1 |
			   1ull << VIRTIO_RING_F_INDIRECT_DESC | 1ull << VIRTIO_RING_F_EVENT_IDX,
	};
	r = vfu_create(&vfu_config, &vdev->vfu);
	if (r < 0)
		return r;
	for (unsigned i = 0; i < VIRTIO_PCI_NR_QUEUES; i++)
		vdev->queues[i].memory = vfu_memory(vdev->vfu);
	r = add_caps(vdev);
	if (r < 0) {
		virtio_pci_deinit(vdev);
		return r;
	}
	reset_state(vdev);
	return 0;
}

void virtio_pci_deinit(struct virtio_pci *vdev)
{
	vfu_destroy(vdev->vfu);
	vdev->vfu = NULL;
}

bool virtio_pci_has(const struct virtio_pci *vdev, unsigned feature)
{
	return vdev->status & VIRTIO_CONFIG_S_FEATURES_OK && vdev->driver_features >> feature & 1;
}

bool virtio_pci_queue_ready(const struct virtio_pci *vdev, unsigned queue)
{
	const uint8_t wanted = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;
	const uint8_t broken = VIRTIO_CONFIG_S_NEEDS_RESET | VIRTIO_CONFIG_S_FAILED;

	return (vdev->status & (wanted | broken)) == wanted && vdev->queues[queue].enabled &&
	       vfu_bus_master(vdev->vfu);
}

/*
 * The transport is not told whether MSI-X is enabled. A driver that uses it sets
 * at least one vector (Linux: the configuration vector), and one that does not
 * sets none.
 */
static bool uses_msix(const struct virtio_pci *vdev)
{
	bool any = vdev->config_vector != VIRTIO_MSI_NO_VECTOR;

	for (unsigned i = 0; i < VIRTIO_PCI_NR_QUEUES; i++)
		any |= vdev->queues[i].vector != VIRTIO_MSI_NO_VECTOR;
	return any;
}

static void interrupt(struct virtio_pci *vdev, uint16_t vector, uint8_t isr)
{
	if (vector != VIRTIO_MSI_NO_VECTOR) {
		ctx_irq_raise(vdev->ctx, vdev->vfu, -1, vector);
	} else if (!uses_msix(vdev)) {
		vdev->isr |= isr;
		ctx_irq_raise(vdev->ctx, vdev->vfu, -1, VFU_INTX);
	}
}

void virtio_pci_flush(struct virtio_pci *vdev, unsigned queue)
{
	struct virtqueue *vq = &vdev->queues[queue];
	bool wanted;

	if (virtqueue_publish(vq, &wanted) < 0)
		virtio_pci_needs_reset(vdev);
	else if (wanted)
		interrupt(vdev, vq->vector, ISR_QUEUE);
}

void virtio_pci_config_changed(struct virtio_pci *vdev)
{
	vdev->generation++;
	if (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(vdev, vdev->config_vector, VIRTIO_PCI_ISR_CONFIG);
}

void virtio_pci_needs_reset(struct virtio_pci *vdev)
{
	if (vdev->status & VIRTIO_CONFIG_S_NEEDS_RESET)
		return;
	vdev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	/*
	 * "If DRIVER_OK is set, after it sets DEVICE_NEEDS_RESET, the device MUST send
	 * a device configuration change notification"
	 */
	if (vdev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt(vdev, vdev->config_vector, VIRTIO_PCI_ISR_CONFIG);
}

void virtio_pci_notify(struct virtio_pci *vdev, unsigned queue)
{
	if (virtio_pci_queue_ready(vdev, queue))
		vdev->ops.notify(vdev->opaque, queue);
}

static bool features_acceptable(const struct virtio_pci *vdev)
{
	return !(vdev->driver_features & ~vdev->offered) && !vdev->driver_features_unknown &&
	       vdev->driver_features >> VIRTIO_F_VERSION_1 & 1;
}

static void negotiated(struct virtio_pci *vdev)
{
	for (unsigned i = 0; i < VIRTIO_PCI_NR_QUEUES; i++)
		virtqueue_set_event_idx(&vdev->queues[i],
					virtio_pci_has(vdev, VIRTIO_RING_F_EVENT_IDX));
	vdev->ops.negotiated(vdev->opaque);
}

void virtio_pci_set_status(struct virtio_pci *vdev, uint8_t value)
{
	struct viommu_log_record record = {
		.kind = VIOMMU_LOG_DEVICE_STATUS,
		.status = value,
		.endpoint = UINT32_MAX,
		.domain = UINT32_MAX,
		.start = vdev->driver_features,
		.end = vdev->offered,
		.source = vdev->source,
	};
	uint8_t added = value & ~vdev->status & ~VIRTIO_CONFIG_S_NEEDS_RESET;

	log_append(vdev->ctx->log, &record);
	if (!value) {
		driver_reset(vdev);
		return;
	}
	if (added & VIRTIO_CONFIG_S_FEATURES_OK && !features_acceptable(vdev))
		added &= ~VIRTIO_CONFIG_S_FEATURES_OK;
	/* Bits are only added: "The driver MUST NOT clear a device status bit." */
	vdev->status |= added;
	if (added & VIRTIO_CONFIG_S_FEATURES_OK)
		negotiated(vdev);
	/* Buffers may have been made available before DRIVER_OK, and notified then. */
	for (unsigned i = 0; added & VIRTIO_CONFIG_S_DRIVER_OK && i < VIRTIO_PCI_NR_QUEUES; i++)
		virtio_pci_notify(vdev, i);
}
