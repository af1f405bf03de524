// SPDX-License-Identifier: GPL-2.0-or-later
/* Mutants: rules of fault injection that have a name. */
#include <errno.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "inject.h"
#include "viommu.h"

#define RULE(action_name, ...) \
	{ .action = VIOMMU_INJECT_##action_name, .endpoint = -1, .domain = -1, __VA_ARGS__ }
#define ON(request_name) .request = VIOMMU_LOG_##request_name
/* A guest gets through its boot, and has done something, before these strike. */
#define LATE .after = 16

static const struct viommu_mutant_info mutant_table[] = {
	{
		"ignore-unmap",
		"DMA to an address still succeeds after the guest has unmapped it",
		false,
		RULE(IGNORE, ON(UNMAP)),
	},
	{
		"ignore-permissions",
		"a device write through a read-only mapping changes memory",
		false,
		RULE(IGNORE_PERMISSIONS),
	},
	{
		"translate-off-by-page",
		"DMA moves the bytes of the page after the mapped one",
		false,
		RULE(OFF_BY_PAGE),
	},
	{
		"lose-fault-event",
		"a refused access puts no record on the event queue",
		false,
		RULE(LOSE_FAULT),
	},
	{
		"drop-interrupt",
		"a transaction ends, and the interrupt asked for never comes",
		true,
		RULE(DROP_INTERRUPT),
	},
	{
		"lose-rare-interrupt",
		"of many thousand interrupts one never comes",
		true,
		RULE(DROP_INTERRUPT, .after = 10000, .count = 1),
	},
	{
		"ignore-reset",
		"a reset of an endpoint is acknowledged, and its registers are as before",
		true,
		RULE(IGNORE_RESET),
	},
	{
		"accept-map-ignore",
		"MAP answers OK, and DMA to the mapped address is refused",
		false,
		RULE(IGNORE, ON(MAP)),
	},
	{
		"ignore-detach",
		"DETACH answers OK, and the endpoint still reaches the domain's mappings",
		false,
		RULE(IGNORE, ON(DETACH)),
	},
	{
		"ignore-attach",
		"ATTACH answers OK, and the endpoint stays where it was",
		false,
		RULE(IGNORE, ON(ATTACH)),
	},
	{
		"empty-probe",
		"PROBE answers OK without the endpoint's reserved regions",
		false,
		RULE(IGNORE, ON(PROBE)),
	},
	{
		"short-used-len",
		"the used length of a request is one byte short of what was written",
		false,
		RULE(SHORT_USED_LEN),
	},
	{
		"answer-twice",
		"one request comes back twice on the used ring",
		false,
		RULE(ANSWER_TWICE, ON(UNMAP)),
	},
	{
		"fail-map",
		"MAP answers DEVERR to a request with nothing wrong in it",
		false,
		RULE(STATUS, ON(MAP), .parameter = VIRTIO_IOMMU_S_DEVERR, LATE),
	},
	{
		"fail-rare-map",
		"of many thousand MAP requests one is answered NOMEM",
		false,
		RULE(STATUS, ON(MAP), .parameter = VIRTIO_IOMMU_S_NOMEM, .after = 50000,
		     .count = 1),
	},
	{
		"slow-unmap",
		"an UNMAP takes 50 ms, for which its guest spins",
		false,
		RULE(DELAY, ON(UNMAP), .parameter = 50000),
	},
	{
		"drop-request",
		"a MAP never comes back on the used ring, though later requests do",
		false,
		RULE(DROP, ON(MAP), .count = 1, LATE),
	},
	{
		"leak-between-domains",
		"an endpoint reaches a mapping of a domain that it is not attached to",
		false,
		RULE(LEAK_DOMAIN),
	},
	{
		"stall-queue",
		"no request is answered any more, while the device's registers still work",
		false,
		/* Of every kind: a guest with many endpoints needs more of them to boot. */
		RULE(STALL, .after = 256),
	},
	{
		"die",
		"the device process is gone in the middle of a request",
		false,
		RULE(DIE, LATE),
	},
	{ .name = NULL },
};

const struct viommu_mutant_info *viommu_mutants(void)
{
	return mutant_table;
}

int mutant_set(struct inject *inject, const char *name, bool on)
{
	const struct viommu_mutant_info *mutant = mutant_table;
	uint32_t id;

	while (mutant->name && strcmp(mutant->name, name))
		mutant++;
	if (!mutant->name)
		return -ENOENT;
	id = inject_find_mutant(inject, mutant->name);
	if (on)
		return id ? 0 : inject_add(inject, &mutant->rule, mutant->name, &id);
	if (id)
		inject_remove(inject, id);
	return 0;
}
