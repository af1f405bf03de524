/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pci_config.h - 4096 bytes of configuration space with write masks.
 *
 * QEMU emulates BARs, ROM and MSI-X itself and yet forwards every write, so
 * this is where read-only stays read-only. Reactor thread only.
 */
#ifndef PCI_CONFIG_H
#define PCI_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PCI_CONFIG_SIZE 4096u
/* Capabilities must lie below. */
#define PCI_CONFIG_LEGACY_SIZE 256u

#define PCI_COMMAND_MASTER 0x0004u
#define PCI_COMMAND_INTX_DISABLE 0x0400u

struct vfu_config;

struct pci_config {
	uint8_t data[PCI_CONFIG_SIZE];
	uint8_t initial[PCI_CONFIG_SIZE];
	uint8_t writable[PCI_CONFIG_SIZE];
	bool live[PCI_CONFIG_LEGACY_SIZE]; /* bytes the device answers for */
	unsigned int pm, express, msi, msix; /* where those capabilities are */
	unsigned int last_cap, free;       /* the end of the list, and what is behind it */
	bool flr; /* the last write asked for a function level reset */
};

void pci_config_init(struct pci_config *pci, const struct vfu_config *config);
/* See vfu_pci_cap(). */
int pci_config_add_vendor_cap(struct pci_config *pci, const void *body, size_t len,
			      size_t live_offset, size_t live_len, unsigned *ret);
/* Every register to its initial value. */
void pci_config_reset(struct pci_config *pci);
/* Stores what may be stored, live bytes excepted. The range must lie inside. */
void pci_config_write(struct pci_config *pci, size_t offset, const uint8_t *buf, size_t count);
/* How many bytes from offset on, count at most, are live or not live as the first one is. */
size_t pci_config_run(const struct pci_config *pci, size_t offset, size_t count, bool *live);

uint16_t pci_config_command(const struct pci_config *pci);
bool pci_config_msix_enabled(const struct pci_config *pci);

/* What the driver made of the MSI capability. */
struct msi_config {
	unsigned int nr_vectors; /* 0: not enabled */
	uint64_t address;
	uint16_t data; /* of vector 0; the others differ in the low bits */
};

struct msi_config pci_config_msi(const struct pci_config *pci);

#endif /* PCI_CONFIG_H */
