// SPDX-License-Identifier: GPL-2.0-or-later
/* Register accesses in BAR 4, and the window onto them in configuration space. */
#include "virtio_pci.h"

#include <endian.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "ctx.h"
#include "log.h"
#include "vfio_user.h"

/* What VIRTIO_PCI_CAP_PCI_CFG has behind VIRTIO_PCI_CAP_BAR. */
#define WINDOW_OFFSET (VIRTIO_PCI_CAP_OFFSET - VIRTIO_PCI_CAP_BAR)
#define WINDOW_LENGTH (VIRTIO_PCI_CAP_LENGTH - VIRTIO_PCI_CAP_BAR)
#define WINDOW_DATA (sizeof(struct virtio_pci_cap) - VIRTIO_PCI_CAP_BAR)

static size_t min_size(size_t a, size_t b)
{
	return a < b ? a : b;
}

static uint64_t load_le(const void *buf, size_t count)
{
	uint64_t value = 0;

	memcpy(&value, buf, min_size(count, sizeof(value)));
	return le64toh(value);
}

static struct virtqueue *selected(struct virtio_pci *vdev)
{
	return vdev->queue_select < VIRTIO_PCI_NR_QUEUES ? &vdev->queues[vdev->queue_select] : NULL;
}

static uint32_t feature_word(uint64_t features, uint32_t select)
{
	return select < 2 ? features >> (32 * select) : 0;
}

/* The structure as a driver would see it now: any part of it may be read. */
static void fill_common(struct virtio_pci *vdev, struct virtio_pci_common_cfg *common)
{
	struct virtqueue *vq = selected(vdev);

	memset(common, 0, sizeof(*common));
	common->device_feature_select = htole32(vdev->device_feature_select);
	common->device_feature = htole32(feature_word(vdev->offered, vdev->device_feature_select));
	common->guest_feature_select = htole32(vdev->driver_feature_select);
	common->guest_feature =
		htole32(feature_word(vdev->driver_features, vdev->driver_feature_select));
	common->msix_config = htole16(vdev->config_vector);
	common->num_queues = htole16(VIRTIO_PCI_NR_QUEUES);
	common->device_status = vdev->status;
	common->config_generation = vdev->generation;
	common->queue_select = htole16(vdev->queue_select);
	common->queue_msix_vector = htole16(VIRTIO_MSI_NO_VECTOR);
	if (!vq)
		return;
	common->queue_size = htole16(vq->size);
	common->queue_msix_vector = htole16(vq->vector);
	common->queue_enable = htole16(vq->enabled);
	common->queue_notify_off = htole16(vdev->queue_select);
	common->queue_desc_lo = htole32(vq->desc);
	common->queue_desc_hi = htole32(vq->desc >> 32);
	common->queue_avail_lo = htole32(vq->driver);
	common->queue_avail_hi = htole32(vq->driver >> 32);
	common->queue_used_lo = htole32(vq->device);
	common->queue_used_hi = htole32(vq->device >> 32);
}

/* Copies the part of a structure that an access covers; the rest of the page reads as zero. */
static void read_part(void *buf, size_t count, uint64_t offset, const void *src, size_t size)
{
	memset(buf, 0, count);
	if (offset < size)
		memcpy(buf, (const uint8_t *)src + offset, min_size(count, size - offset));
}

/* Reading clears the register and ends the interrupt. */
static uint8_t read_isr(struct virtio_pci *vdev)
{
	uint8_t isr = vdev->isr;

	vdev->isr = 0;
	vfu_intx_deassert(vdev->vfu);
	return isr;
}

void virtio_pci_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count)
{
	struct virtio_pci *vdev = opaque;
	struct virtio_pci_common_cfg common;
	uint64_t inner = offset & 0xfff;
	uint8_t isr;

	memset(buf, 0, count);
	if (bar != VIRTIO_PCI_BAR)
		return;
	switch (offset & ~0xfffull) {
	case VIRTIO_PCI_COMMON:
		fill_common(vdev, &common);
		read_part(buf, count, inner, &common, sizeof(common));
		break;
	case VIRTIO_PCI_ISR_PAGE:
		if (inner == 0 && count) {
			isr = read_isr(vdev);
			memcpy(buf, &isr, sizeof(isr));
		}
		break;
	case VIRTIO_PCI_DEVICE:
		if (inner < vdev->config_size && count)
			vdev->ops.config_read(vdev->opaque, inner, buf,
					      min_size(count, vdev->config_size - inner));
		break;
	}
}

static uint16_t checked_vector(uint16_t vector)
{
	return vector < VIRTIO_PCI_NR_VECTORS ? vector : VIRTIO_MSI_NO_VECTOR;
}

static void write_driver_features(struct virtio_pci *vdev, uint32_t value)
{
	unsigned shift = 32 * vdev->driver_feature_select;

	if (vdev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (vdev->driver_feature_select >= 2) {
		vdev->driver_features_unknown |= value != 0;
		return;
	}
	vdev->driver_features &= ~(0xffffffffull << shift);
	vdev->driver_features |= (uint64_t)value << shift;
}

static void enable_queue(struct virtio_pci *vdev, struct virtqueue *vq, uint16_t value)
{
	/* Writing 0 is for queue_reset, which is not offered. */
	if (value == 1 && virtqueue_enable(vq) < 0)
		virtio_pci_needs_reset(vdev);
}

static void set_half(uint64_t *addr, unsigned offset, uint32_t value)
{
	unsigned shift = offset & 4 ? 32 : 0;

	*addr = (*addr & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

/* A field of a queue that is not enabled yet. */
static void write_queue(struct virtio_pci *vdev, struct virtqueue *vq, unsigned offset,
			size_t count, uint32_t value)
{
	switch (offset << 4 | count) {
	case VIRTIO_PCI_COMMON_Q_SIZE << 4 | 2:
		if (value && value <= VIRTQUEUE_MAX_SIZE && !(value & (value - 1)))
			vq->size = value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE << 4 | 2:
		enable_queue(vdev, vq, value);
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO << 4 | 4:
	case VIRTIO_PCI_COMMON_Q_DESCHI << 4 | 4:
		set_half(&vq->desc, offset - VIRTIO_PCI_COMMON_Q_DESCLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO << 4 | 4:
	case VIRTIO_PCI_COMMON_Q_AVAILHI << 4 | 4:
		set_half(&vq->driver, offset - VIRTIO_PCI_COMMON_Q_AVAILLO, value);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO << 4 | 4:
	case VIRTIO_PCI_COMMON_Q_USEDHI << 4 | 4:
		set_half(&vq->device, offset - VIRTIO_PCI_COMMON_Q_USEDLO, value);
		break;
	}
}

/* "the driver MUST access each field with the width of the field": other writes do nothing. */
static void write_common(struct virtio_pci *vdev, unsigned offset, size_t count, uint32_t value)
{
	struct virtqueue *vq = selected(vdev);

	switch (offset << 4 | count) {
	case VIRTIO_PCI_COMMON_DFSELECT << 4 | 4:
		vdev->device_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT << 4 | 4:
		vdev->driver_feature_select = value;
		break;
	case VIRTIO_PCI_COMMON_GF << 4 | 4:
		write_driver_features(vdev, value);
		break;
	case VIRTIO_PCI_COMMON_MSIX << 4 | 2:
		vdev->config_vector = checked_vector(value);
		break;
	case VIRTIO_PCI_COMMON_STATUS << 4 | 1:
		virtio_pci_set_status(vdev, value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT << 4 | 2:
		vdev->queue_select = value;
		break;
	case VIRTIO_PCI_COMMON_Q_MSIX << 4 | 2:
		if (vq)
			vq->vector = checked_vector(value);
		break;
	default:
		if (vq && !vq->enabled)
			write_queue(vdev, vq, offset, count, value);
	}
}

void virtio_pci_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf,
			  size_t count)
{
	struct virtio_pci *vdev = opaque;
	uint64_t inner = offset & 0xfff;

	if (bar != VIRTIO_PCI_BAR)
		return;
	switch (offset & ~0xfffull) {
	case VIRTIO_PCI_COMMON:
		if (count > sizeof(uint64_t))
			break;
		/* The 64-bit fields may be written at once: low half first. */
		if (count == sizeof(uint64_t)) {
			write_common(vdev, inner, 4, load_le(buf, 4));
			write_common(vdev, inner + 4, 4, load_le((const uint8_t *)buf + 4, 4));
		} else {
			write_common(vdev, inner, count, load_le(buf, count));
		}
		break;
	case VIRTIO_PCI_DEVICE:
		if (inner < vdev->config_size && count && count <= vdev->config_size - inner)
			vdev->ops.config_write(vdev->opaque, inner, buf, count);
		break;
	case VIRTIO_PCI_NOTIFY:
		/* Each queue has its own address, so the value written says nothing new. */
		if (inner % VIRTIO_PCI_NOTIFY_MULTIPLIER ||
		    inner / VIRTIO_PCI_NOTIFY_MULTIPLIER >= VIRTIO_PCI_NR_QUEUES)
			break;
		log_count(vdev->ctx->log, VIOMMU_COUNT_KICKS, 1);
		virtio_pci_notify(vdev, inner / VIRTIO_PCI_NOTIFY_MULTIPLIER);
		break;
	}
}

/* Where the window points, if the access it describes is one that the BAR takes. */
static bool window_target(const struct virtio_pci *vdev, uint64_t *offset, size_t *count)
{
	*offset = load_le(vdev->window + WINDOW_OFFSET, 4);
	*count = load_le(vdev->window + WINDOW_LENGTH, 4);
	return vdev->window[0] == VIRTIO_PCI_BAR && (*count == 1 || *count == 2 || *count == 4) &&
	       *offset % *count == 0 && *offset + *count <= VIRTIO_PCI_BAR_SIZE;
}

/* Cuts an access in configuration space to the window; false if nothing is left. */
static bool window_clip(const struct virtio_pci *vdev, unsigned offset, size_t count, size_t *ret)
{
	unsigned first = vdev->window_cap + VIRTIO_PCI_CAP_BAR;

	if (offset < first || offset - first >= sizeof(vdev->window))
		return false;
	*ret = offset - first;
	return count && count <= sizeof(vdev->window) - *ret;
}

void virtio_pci_window_read(void *opaque, unsigned offset, void *buf, size_t count)
{
	struct virtio_pci *vdev = opaque;
	uint64_t target;
	size_t inner, len;

	memset(buf, 0, count);
	if (!window_clip(vdev, offset, count, &inner))
		return;
	/*
	 * "Upon detecting driver read access to pci_cfg_data, the device MUST execute
	 * a read access": also if that has side effects.
	 */
	if (inner + count > WINDOW_DATA && window_target(vdev, &target, &len))
		virtio_pci_bar_read(vdev, VIRTIO_PCI_BAR, target, vdev->window + WINDOW_DATA, len);
	memcpy(buf, vdev->window + inner, count);
}

void virtio_pci_window_write(void *opaque, unsigned offset, const void *buf, size_t count)
{
	struct virtio_pci *vdev = opaque;
	uint64_t target;
	size_t inner, len;

	if (!window_clip(vdev, offset, count, &inner))
		return;
	memcpy(vdev->window + inner, buf, count);
	if (inner + count > WINDOW_DATA && window_target(vdev, &target, &len))
		virtio_pci_bar_write(vdev, VIRTIO_PCI_BAR, target, vdev->window + WINDOW_DATA, len);
}
