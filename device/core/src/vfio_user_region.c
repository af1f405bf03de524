// SPDX-License-Identifier: GPL-2.0-or-later
#include "vfio_user_private.h"

#include <errno.h>
#include <string.h>

#define PCI_STATUS_LOW_BYTE 6u
#define PCI_STATUS_INTX 0x08u
#define MSIX_ENTRY_SIZE 16u

static bool overlaps(uint64_t offset, uint32_t count, uint64_t start, uint64_t size)
{
	return offset < start + size && start < offset + count;
}

/* MSI-X structures are ours wherever they lie; the device never sees accesses to them. */
static bool is_msix_table(const struct vfu *vfu, const struct vfio_user_region_access *access)
{
	const struct vfu_config *config = &vfu->config;

	return config->nr_vectors && access->region == config->msix_bar &&
	       overlaps(access->offset, access->count, config->msix_table_offset,
			(uint64_t)config->nr_vectors * MSIX_ENTRY_SIZE);
}

static bool is_pba(const struct vfu *vfu, const struct vfio_user_region_access *access)
{
	const struct vfu_config *config = &vfu->config;

	return config->nr_vectors && access->region == config->msix_bar &&
	       overlaps(access->offset, access->count, config->msix_pba_offset, sizeof(uint64_t));
}

static void read_pba(struct vfu *vfu, const struct vfio_user_region_access *access, uint8_t *buf)
{
	uint64_t pba = vfu->config.msix_pba_offset;
	size_t before = access->offset < pba ? (size_t)(pba - access->offset) : 0;

	memset(buf, 0, access->count);
	irqs_read_pba(vfu->irqs, (size_t)(access->offset + before - pba), buf + before,
		      access->count - before);
}

static void read_config(struct vfu *vfu, const struct vfio_user_region_access *access, uint8_t *buf)
{
	const struct vfu_ops *ops = &vfu->config.ops;
	size_t offset = (size_t)access->offset, end = offset + access->count;

	memcpy(buf, &vfu->pci.data[offset], access->count);
	if (offset <= PCI_STATUS_LOW_BYTE && PCI_STATUS_LOW_BYTE < end &&
	    irqs_intx_asserted(vfu->irqs))
		buf[PCI_STATUS_LOW_BYTE - offset] |= PCI_STATUS_INTX;
	while (offset < end) {
		bool live;
		size_t run = pci_config_run(&vfu->pci, offset, end - offset, &live);

		if (live && ops->config_read)
			ops->config_read(vfu->config.opaque, (unsigned int)offset,
					 buf + (offset - access->offset), run);
		offset += run;
	}
}

/* What registers do beyond being stored. */
static void apply_config(struct vfu *vfu)
{
	uint16_t command = pci_config_command(&vfu->pci);

	irqs_enable_msix(vfu->irqs, pci_config_msix_enabled(&vfu->pci));
	irqs_configure_msi(vfu->irqs, pci_config_msi(&vfu->pci));
	irqs_disable_intx(vfu->irqs, command & PCI_COMMAND_INTX_DISABLE);
	vfu_set_bus_master(vfu, command & PCI_COMMAND_MASTER);
	if (vfu->pci.flr)
		vfu_reset(vfu, VIOMMU_RESET_FLR);
}

static void write_config(struct vfu *vfu, const struct vfio_user_region_access *access,
			 const uint8_t *buf)
{
	const struct vfu_ops *ops = &vfu->config.ops;
	size_t offset = (size_t)access->offset, end = offset + access->count;

	pci_config_write(&vfu->pci, offset, buf, access->count);
	while (offset < end) {
		bool live;
		size_t run = pci_config_run(&vfu->pci, offset, end - offset, &live);

		if (live && ops->config_write)
			ops->config_write(vfu->config.opaque, (unsigned int)offset,
					  buf + (offset - access->offset), run);
		offset += run;
	}
	apply_config(vfu);
}

static int check_access(const struct vfu *vfu, const struct vfio_user_region_access *access)
{
	uint64_t size;

	if (access->region < VFU_NR_BARS)
		size = vfu->config.bars[access->region].size;
	else if (access->region == VFU_REGION_CONFIG)
		size = PCI_CONFIG_SIZE;
	else
		return -EINVAL;
	if (!access->count || access->count > VFU_MAX_ACCESS || access->offset > size ||
	    access->count > size - access->offset)
		return -EINVAL;
	return 0;
}

int vfu_region_read(struct vfu *vfu, const struct vfio_user_region_access *access, uint8_t *buf)
{
	const struct vfu_ops *ops = &vfu->config.ops;
	int err = check_access(vfu, access);

	if (err)
		return err;
	if (access->region == VFU_REGION_CONFIG) {
		read_config(vfu, access, buf);
	} else if (is_pba(vfu, access)) {
		read_pba(vfu, access, buf);
	} else {
		/* What the device leaves alone reads as zero, not as the last reply. */
		memset(buf, 0, access->count);
		if (ops->bar_read && !is_msix_table(vfu, access))
			ops->bar_read(vfu->config.opaque, access->region, access->offset, buf,
				      access->count);
	}
	return 0;
}

int vfu_region_write(struct vfu *vfu, const struct vfio_user_region_access *access,
		     const uint8_t *buf)
{
	const struct vfu_ops *ops = &vfu->config.ops;
	int err = check_access(vfu, access);

	if (err)
		return err;
	if (access->region == VFU_REGION_CONFIG)
		write_config(vfu, access, buf);
	else if (ops->bar_write && !is_pba(vfu, access) && !is_msix_table(vfu, access))
		ops->bar_write(vfu->config.opaque, access->region, access->offset, buf,
			       access->count);
	return 0;
}
