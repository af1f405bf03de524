// SPDX-License-Identifier: GPL-2.0-or-later
#include "pci_config.h"

#include <errno.h>
#include <string.h>

#include "vfio_user.h"

/* Registers of the type 0 header. */
enum {
	PCI_VENDOR_ID = 0x00,
	PCI_DEVICE_ID = 0x02,
	PCI_COMMAND = 0x04,
	PCI_STATUS = 0x06,
	PCI_REVISION = 0x08,
	PCI_CLASS = 0x09,
	PCI_CACHE_LINE_SIZE = 0x0c,
	PCI_BAR0 = 0x10,
	PCI_SUBSYSTEM_VENDOR_ID = 0x2c,
	PCI_SUBSYSTEM_ID = 0x2e,
	PCI_CAPABILITY_LIST = 0x34,
	PCI_INTERRUPT_LINE = 0x3c,
	PCI_INTERRUPT_PIN = 0x3d,
	PCI_FIRST_CAP = 0x40,
};

#define PCI_STATUS_CAP_LIST 0x10u
#define PCI_BAR_64BIT 0x4u
#define PCI_BAR_PREFETCHABLE 0x8u

/* I/O, memory, bus master, SERR#, interrupt disable. */
#define COMMAND_WRITABLE 0x0507u

#define CAP_PM 0x01u
#define CAP_MSI 0x05u
#define CAP_VENDOR 0x09u
#define CAP_EXPRESS 0x10u
#define CAP_MSIX 0x11u

enum { PM_SIZE = 8, PM_CAPS = 2, PM_CONTROL = 4 };
#define PM_VERSION_3 0x0003u
#define PM_STATE 0x0003u
#define PM_STATE_D3HOT 0x0003u
#define PM_NO_SOFT_RESET 0x0008u

enum { MSI_SIZE = 14, MSI_CONTROL = 2, MSI_ADDRESS = 4, MSI_ADDRESS_HIGH = 8, MSI_DATA = 12 };
#define MSI_ENABLE 0x0001u
#define MSI_CAPABLE_SHIFT 1 /* log2 of what the device can have */
#define MSI_VECTORS_SHIFT 4 /* log2 of what the driver chose */
#define MSI_VECTORS 0x7u
#define MSI_64BIT 0x0080u

enum {
	EXPRESS_SIZE = 0x3c,
	EXPRESS_FLAGS = 0x02,
	EXPRESS_DEVCAP = 0x04,
	EXPRESS_DEVCTL = 0x08,
	EXPRESS_LNKCAP = 0x0c,
	EXPRESS_LNKSTA = 0x12,
	EXPRESS_LNKCAP2 = 0x2c,
	EXPRESS_LNKCTL2 = 0x30,
};
#define EXPRESS_VERSION_2_ENDPOINT 0x0002u
#define DEVCAP_ROLE_BASED_ERRORS 0x00008000u
#define DEVCAP_FLR 0x10000000u
/* Error reporting, relaxed ordering, payload size, no snoop, read request size. */
#define DEVCTL_WRITABLE 0x78ffu
/* Relaxed ordering and no snoop allowed, 512 byte read requests: the reset values of PCIe. */
#define DEVCTL_INITIAL 0x2810u
#define DEVCTL_FLR_HIGH_BYTE 0x80u
/* 2.5 GT/s, one lane. */
#define LINK_SPEED_1 0x1u
#define LINK_WIDTH_1 0x10u
#define LNKCAP_ASPM_OPTIONALITY 0x00400000u
#define LNKCAP2_SPEED_1 0x2u

enum { MSIX_SIZE = 12, MSIX_CONTROL = 2, MSIX_TABLE = 4, MSIX_PBA = 8 };
#define MSIX_ENABLE_HIGH_BYTE 0x80u
#define MSIX_ENABLE_AND_MASK 0xc000u

static void put16(uint8_t *space, size_t offset, uint16_t value)
{
	space[offset] = (uint8_t)value;
	space[offset + 1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *space, size_t offset, uint32_t value)
{
	put16(space, offset, (uint16_t)value);
	put16(space, offset + 2, (uint16_t)(value >> 16));
}

/* The caller has checked that size bytes are free. */
static unsigned int add_cap(struct pci_config *pci, uint8_t id, size_t size)
{
	unsigned int offset = pci->free;

	pci->initial[offset] = id;
	if (pci->last_cap)
		pci->initial[pci->last_cap + 1] = (uint8_t)offset;
	else
		pci->initial[PCI_CAPABILITY_LIST] = (uint8_t)offset;
	pci->last_cap = offset;
	pci->free = (unsigned int)(offset + size + 3) & ~3u;
	return offset;
}

static void init_header(struct pci_config *pci, const struct vfu_config *config)
{
	uint8_t *space = pci->initial;

	put16(space, PCI_VENDOR_ID, config->vendor_id);
	put16(space, PCI_DEVICE_ID, config->device_id);
	put16(space, PCI_STATUS, PCI_STATUS_CAP_LIST);
	/* The class takes three bytes; put32() also covers the cache line size, which is zero. */
	put32(space, PCI_CLASS, config->class_code & 0xffffff);
	space[PCI_REVISION] = config->revision;
	put16(space, PCI_SUBSYSTEM_VENDOR_ID, config->subsystem_vendor_id);
	put16(space, PCI_SUBSYSTEM_ID, config->subsystem_id);
	space[PCI_INTERRUPT_PIN] = config->intx;
	/* QEMU reads a BAR's type from here, and the address never comes here. */
	for (size_t i = 0; i < VFU_NR_BARS; i++)
		if (config->bars[i].size)
			space[PCI_BAR0 + 4 * i] =
				(config->bars[i].is_64bit ? PCI_BAR_64BIT : 0) |
				(config->bars[i].prefetchable ? PCI_BAR_PREFETCHABLE : 0);

	put16(pci->writable, PCI_COMMAND, COMMAND_WRITABLE);
	pci->writable[PCI_CACHE_LINE_SIZE] = 0xff;
	pci->writable[PCI_INTERRUPT_LINE] = 0xff;
}

static void init_pm(struct pci_config *pci)
{
	pci->pm = add_cap(pci, CAP_PM, PM_SIZE);
	put16(pci->initial, pci->pm + PM_CAPS, PM_VERSION_3);
	/* Coming back from D3hot keeps all state: nothing here has to follow the power state. */
	put16(pci->initial, pci->pm + PM_CONTROL, PM_NO_SOFT_RESET);
	put16(pci->writable, pci->pm + PM_CONTROL, PM_STATE);
}

static void init_express(struct pci_config *pci)
{
	uint8_t *space = pci->initial;
	unsigned int cap = add_cap(pci, CAP_EXPRESS, EXPRESS_SIZE);

	pci->express = cap;
	put16(space, cap + EXPRESS_FLAGS, EXPRESS_VERSION_2_ENDPOINT);
	put32(space, cap + EXPRESS_DEVCAP, DEVCAP_ROLE_BASED_ERRORS | DEVCAP_FLR);
	put16(space, cap + EXPRESS_DEVCTL, DEVCTL_INITIAL);
	put32(space, cap + EXPRESS_LNKCAP, LINK_SPEED_1 | LINK_WIDTH_1 | LNKCAP_ASPM_OPTIONALITY);
	put16(space, cap + EXPRESS_LNKSTA, LINK_SPEED_1 | LINK_WIDTH_1);
	put32(space, cap + EXPRESS_LNKCAP2, LNKCAP2_SPEED_1);
	put16(space, cap + EXPRESS_LNKCTL2, LINK_SPEED_1);
	put16(pci->writable, cap + EXPRESS_DEVCTL, DEVCTL_WRITABLE);
}

/* 64-bit addresses; no mask bits: QEMU would emulate those in any case. */
static void init_msi(struct pci_config *pci, const struct vfu_config *config)
{
	unsigned int cap = add_cap(pci, CAP_MSI, MSI_SIZE), log2 = __builtin_ctz(config->nr_msi);

	pci->msi = cap;
	put16(pci->initial, cap + MSI_CONTROL, (uint16_t)(MSI_64BIT | log2 << MSI_CAPABLE_SHIFT));
	put16(pci->writable, cap + MSI_CONTROL, MSI_ENABLE | MSI_VECTORS << MSI_VECTORS_SHIFT);
	put32(pci->writable, cap + MSI_ADDRESS, 0xfffffffc);
	put32(pci->writable, cap + MSI_ADDRESS_HIGH, 0xffffffff);
	put16(pci->writable, cap + MSI_DATA, 0xffff);
}

static void init_msix(struct pci_config *pci, const struct vfu_config *config)
{
	unsigned int cap = add_cap(pci, CAP_MSIX, MSIX_SIZE);

	pci->msix = cap;
	put16(pci->initial, cap + MSIX_CONTROL, (uint16_t)(config->nr_vectors - 1));
	put32(pci->initial, cap + MSIX_TABLE, config->msix_table_offset | config->msix_bar);
	put32(pci->initial, cap + MSIX_PBA, config->msix_pba_offset | config->msix_bar);
	put16(pci->writable, cap + MSIX_CONTROL, MSIX_ENABLE_AND_MASK);
}

void pci_config_init(struct pci_config *pci, const struct vfu_config *config)
{
	memset(pci, 0, sizeof(*pci));
	pci->free = PCI_FIRST_CAP;
	init_header(pci, config);
	init_pm(pci);
	init_express(pci);
	if (config->nr_msi)
		init_msi(pci, config);
	if (config->nr_vectors)
		init_msix(pci, config);
	pci_config_reset(pci);
}

int pci_config_add_vendor_cap(struct pci_config *pci, const void *body, size_t len,
			      size_t live_offset, size_t live_len, unsigned *ret)
{
	size_t size = len + 2; /* behind the id and the pointer */
	unsigned int cap;

	if (!len || size > PCI_CONFIG_LEGACY_SIZE - pci->free)
		return -ENOSPC;
	if (live_len && (live_offset < 2 || live_offset > size || live_len > size - live_offset))
		return -EINVAL;
	cap = add_cap(pci, CAP_VENDOR, size);
	memcpy(&pci->initial[cap + 2], body, len);
	memset(&pci->live[cap + live_offset], true, live_len);
	pci_config_reset(pci);
	*ret = cap;
	return 0;
}

void pci_config_reset(struct pci_config *pci)
{
	memcpy(pci->data, pci->initial, sizeof(pci->data));
	pci->flr = false;
}

void pci_config_write(struct pci_config *pci, size_t offset, const uint8_t *buf, size_t count)
{
	size_t flr_byte = pci->express + EXPRESS_DEVCTL + 1;
	size_t power_byte = pci->pm + PM_CONTROL;
	uint8_t power = pci->data[power_byte];

	for (size_t i = 0; i < count; i++) {
		uint8_t mask = pci->writable[offset + i];

		pci->data[offset + i] =
			(uint8_t)((pci->data[offset + i] & ~mask) | (buf[i] & mask));
	}
	/* D1 and D2 are not supported; the PM specification has such writes discarded. */
	if ((pci->data[power_byte] & PM_STATE) != PM_STATE_D3HOT &&
	    pci->data[power_byte] & PM_STATE)
		pci->data[power_byte] = power;
	pci->flr = flr_byte >= offset && flr_byte - offset < count &&
		   buf[flr_byte - offset] & DEVCTL_FLR_HIGH_BYTE;
}

size_t pci_config_run(const struct pci_config *pci, size_t offset, size_t count, bool *live)
{
	size_t len = 1;

	*live = offset < PCI_CONFIG_LEGACY_SIZE && pci->live[offset];
	while (len < count &&
	       (offset + len < PCI_CONFIG_LEGACY_SIZE && pci->live[offset + len]) == *live)
		len++;
	return len;
}

uint16_t pci_config_command(const struct pci_config *pci)
{
	return (uint16_t)(pci->data[PCI_COMMAND] | pci->data[PCI_COMMAND + 1] << 8);
}

bool pci_config_msix_enabled(const struct pci_config *pci)
{
	return pci->msix && pci->data[pci->msix + MSIX_CONTROL + 1] & MSIX_ENABLE_HIGH_BYTE;
}

static uint32_t get(const struct pci_config *pci, size_t offset, unsigned int nr_bytes)
{
	uint32_t value = 0;

	while (nr_bytes--)
		value = value << 8 | pci->data[offset + nr_bytes];
	return value;
}

struct msi_config pci_config_msi(const struct pci_config *pci)
{
	struct msi_config msi = { 0 };
	uint32_t control, log2, capable;

	if (!pci->msi)
		return msi;
	control = get(pci, pci->msi + MSI_CONTROL, 2);
	log2 = control >> MSI_VECTORS_SHIFT & MSI_VECTORS;
	capable = control >> MSI_CAPABLE_SHIFT & MSI_VECTORS;
	msi.address = get(pci, pci->msi + MSI_ADDRESS, 4) |
		      (uint64_t)get(pci, pci->msi + MSI_ADDRESS_HIGH, 4) << 32;
	msi.data = (uint16_t)get(pci, pci->msi + MSI_DATA, 2);
	/* More than the device can have is as much as it can. */
	if (control & MSI_ENABLE)
		msi.nr_vectors = 1u << (log2 < capable ? log2 : capable);
	return msi;
}
