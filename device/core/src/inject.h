/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * inject.h - deliberate defects, by rule.
 *
 * A test suite that never sees a wrong device proves nothing. A rule says what
 * goes wrong, with which requests or accesses, and how often; each action is one
 * wrong decision, taken at exactly one place of the core. A mutant is a rule
 * with a name (mutant.c).
 *
 * Any thread. Without rules of an action, asking for it costs one load.
 */
#ifndef INJECT_H
#define INJECT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "viommu.h"

#define INJECT_MAX_RULES 64

struct inject_entry {
	uint32_t id; /* 0: free */
	const char *mutant; /* NULL, or the name it was added by */
	struct viommu_inject_rule rule;
	uint64_t nr_matches;
	uint64_t nr_hits;
};

struct inject {
	_Atomic uint32_t actions; /* those that have a rule, 1 << action */
	pthread_mutex_t lock;     /* of the rest; innermost */
	uint32_t last_id;
	struct inject_entry entries[INJECT_MAX_RULES];
};

/* What is about to happen. Negative: has none. */
struct inject_target {
	uint32_t request; /* enum viommu_log_kind of a request, 0 for anything else */
	int64_t endpoint;
	int64_t domain;
	/*
	 * Whether that endpoint is meant by a request that names only a domain; NULL: never.
	 * Called with the lock held.
	 */
	bool (*concerns)(const void *opaque, uint32_t domain, uint32_t endpoint);
	const void *opaque;
};

struct inject_hit {
	uint32_t id; /* of the rule */
	uint32_t parameter;
};

void inject_init(struct inject *inject);
void inject_deinit(struct inject *inject);

/* -EINVAL for a rule that cannot mean anything, -ENOSPC for too many. */
int inject_add(struct inject *inject, const struct viommu_inject_rule *rule, const char *mutant,
	       uint32_t *ret);
int inject_remove(struct inject *inject, uint32_t id); /* -ENOENT */
bool inject_has(struct inject *inject, uint32_t id);
/* The rule that a mutant added, 0 if it is off. */
uint32_t inject_find_mutant(struct inject *inject, const char *mutant);
size_t inject_list(struct inject *inject, struct viommu_inject_info *buf, size_t max);

bool inject_match(struct inject *inject, enum viommu_inject_action action,
		  const struct inject_target *target, struct inject_hit *ret);

/* Actions taken with an endpoint's accesses. */
#define INJECT_ACCESS_ACTIONS                                                       \
	(1u << VIOMMU_INJECT_IGNORE_PERMISSIONS | 1u << VIOMMU_INJECT_OFF_BY_PAGE | \
	 1u << VIOMMU_INJECT_LEAK_DOMAIN)

/* There is a rule for accesses, which may fit or not. */
static inline bool inject_wants_access(struct inject *inject)
{
	return atomic_load_explicit(&inject->actions, memory_order_relaxed) & INJECT_ACCESS_ACTIONS;
}

/* There is a rule for it, which may fit or not. */
static inline bool inject_wants(struct inject *inject, enum viommu_inject_action action)
{
	return atomic_load_explicit(&inject->actions, memory_order_relaxed) & 1u << action;
}

/*
 * True if the action is to be taken now; that counts. The first rule that fits
 * decides. ret may be NULL.
 */
static inline bool inject_hit(struct inject *inject, enum viommu_inject_action action,
			      const struct inject_target *target, struct inject_hit *ret)
{
	return inject_wants(inject, action) && inject_match(inject, action, target, ret);
}

/* Switches a mutant: its rule is added or removed. -ENOENT if there is no such mutant. */
int mutant_set(struct inject *inject, const char *name, bool on);

#endif /* INJECT_H */
