// SPDX-License-Identifier: GPL-2.0-or-later
#include "pci.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "command.h"
#include "file.h"

bool pci_bdf_valid(const char *bdf)
{
	static const char shape[] = "xxxx:xx:xx.7";

	if (strlen(bdf) != strlen(shape))
		return false;
	for (size_t i = 0; shape[i]; i++) {
		bool ok = shape[i] == 'x' ? isxdigit((unsigned char)bdf[i]) != 0 :
			  shape[i] == '7' ? bdf[i] >= '0' && bdf[i] <= '7' :
					    bdf[i] == shape[i];
		if (!ok)
			return false;
	}
	return true;
}

void pci_path(char *ret, const char *bdf, const char *attribute)
{
	snprintf(ret, PCI_PATH_SIZE, "/sys/bus/pci/devices/%s/%s", bdf, attribute);
}

int pci_driver(const char *bdf, char ret[PCI_NAME_SIZE])
{
	char path[PCI_PATH_SIZE];

	pci_path(path, bdf, "driver");
	return file_link_name(path, ret, PCI_NAME_SIZE);
}

int pci_iommu_group(const char *bdf, unsigned int *ret)
{
	char path[PCI_PATH_SIZE], name[PCI_NAME_SIZE];
	uint64_t group;
	int error;

	pci_path(path, bdf, "iommu_group");
	error = file_link_name(path, name, sizeof(name));
	if (error)
		return error;
	if (parse_number(name, &group) || group > INT32_MAX)
		return -EINVAL;
	*ret = (unsigned int)group;
	return 0;
}

int pci_vfio_device(const char *bdf, char ret[PCI_NAME_SIZE])
{
	const struct dirent *entry;
	char path[PCI_PATH_SIZE];
	int error = -ENOENT;
	DIR *folder;

	pci_path(path, bdf, "vfio-dev");
	folder = opendir(path);
	if (!folder)
		return -errno;
	while (error && (entry = readdir(folder))) {
		if (strncmp(entry->d_name, "vfio", 4) || strlen(entry->d_name) >= PCI_NAME_SIZE)
			continue;
		strcpy(ret, entry->d_name);
		error = 0;
	}
	closedir(folder);
	return error;
}
