// SPDX-License-Identifier: GPL-2.0-or-later
#include "mutant.h"

#include <errno.h>
#include <string.h>

#include "viommu.h"

static const struct viommu_mutant_info mutant_table[MUTANT_NR + 1] = {
	[MUTANT_IGNORE_UNMAP] = {
		"ignore-unmap",
		"DMA to an address still succeeds after the guest has unmapped it",
	},
	[MUTANT_IGNORE_PERMISSIONS] = {
		"ignore-permissions",
		"a device write through a read-only mapping changes memory",
	},
	[MUTANT_TRANSLATE_OFF_BY_PAGE] = {
		"translate-off-by-page",
		"DMA moves the bytes of the page after the mapped one",
	},
	[MUTANT_LOSE_FAULT_EVENT] = {
		"lose-fault-event",
		"a refused access puts no record on the event queue",
	},
	[MUTANT_DROP_INTERRUPT] = {
		"drop-interrupt",
		"a transaction ends, and the interrupt asked for never comes",
	},
	[MUTANT_ACCEPT_MAP_IGNORE] = {
		"accept-map-ignore",
		"MAP answers OK, and DMA to the mapped address is refused",
	},
	[MUTANT_IGNORE_DETACH] = {
		"ignore-detach",
		"DETACH answers OK, and the endpoint still reaches the domain's mappings",
	},
	[MUTANT_SHORT_USED_LEN] = {
		"short-used-len",
		"the used length of a request is one byte short of what was written",
	},
	[MUTANT_NR] = { NULL, NULL },
};

const struct viommu_mutant_info *viommu_mutants(void)
{
	return mutant_table;
}

int mutant_set(struct mutants *mutants, const char *name, bool on)
{
	for (unsigned i = 0; i < MUTANT_NR; i++) {
		if (strcmp(mutant_table[i].name, name))
			continue;
		if (on)
			atomic_fetch_or(&mutants->mask, 1u << i);
		else
			atomic_fetch_and(&mutants->mask, ~(1u << i));
		return 0;
	}
	return -ENOENT;
}
