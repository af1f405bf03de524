/* SPDX-License-Identifier: GPL-2.0-or-later */
/* pci.h - a PCI function in sysfs. */
#ifndef PROBE_PCI_H
#define PROBE_PCI_H

#include <stdbool.h>
#include <stddef.h>

#define PCI_PATH_SIZE 160
#define PCI_NAME_SIZE 64

/* Is @bdf of the form 0000:00:04.0? Only such a name is made part of a path. */
bool pci_bdf_valid(const char *bdf);

/* Path of an attribute of a function. */
void pci_path(char *ret, const char *bdf, const char *attribute);

/* Driver, or IOMMU group number, of a function; -ENOENT if it has none. */
int pci_driver(const char *bdf, char ret[PCI_NAME_SIZE]);
int pci_iommu_group(const char *bdf, unsigned int *ret);

/* Device file of a function in VFIO's hands, below /dev; -ENOENT if there is none. */
int pci_vfio_device(const char *bdf, char ret[PCI_NAME_SIZE]);

#endif /* PROBE_PCI_H */
