// SPDX-License-Identifier: GPL-2.0-or-later
#include "inject.h"

#include <errno.h>
#include <string.h>

/* Actions on requests; the others are taken where there is none. */
#define REQUEST_ACTIONS                                                                      \
	(1u << VIOMMU_INJECT_STATUS | 1u << VIOMMU_INJECT_DELAY | 1u << VIOMMU_INJECT_DROP | \
	 1u << VIOMMU_INJECT_ANSWER_TWICE | 1u << VIOMMU_INJECT_SHORT_USED_LEN |             \
	 1u << VIOMMU_INJECT_IGNORE | 1u << VIOMMU_INJECT_STALL | 1u << VIOMMU_INJECT_DIE)

_Static_assert(VIOMMU_INJECT_NR_ACTIONS <= 32, "one bit for each");

void inject_init(struct inject *inject)
{
	memset(inject, 0, sizeof(*inject));
	pthread_mutex_init(&inject->lock, NULL);
}

void inject_deinit(struct inject *inject)
{
	pthread_mutex_destroy(&inject->lock);
}

static int check_rule(const struct viommu_inject_rule *rule)
{
	if (rule->action >= VIOMMU_INJECT_NR_ACTIONS || rule->request > VIOMMU_LOG_PROBE)
		return -EINVAL;
	if (rule->request && !(REQUEST_ACTIONS >> rule->action & 1))
		return -EINVAL;
	if (rule->endpoint > UINT32_MAX || rule->domain > UINT32_MAX)
		return -EINVAL;
	/* A status is one byte on the ring; a delay of nothing is no delay. */
	if (rule->action == VIOMMU_INJECT_STATUS)
		return rule->parameter <= UINT8_MAX ? 0 : -EINVAL;
	return (rule->action == VIOMMU_INJECT_DELAY) == (rule->parameter != 0) ? 0 : -EINVAL;
}

/* The lock is held. */
static void update_actions(struct inject *inject)
{
	uint32_t actions = 0;

	for (unsigned i = 0; i < INJECT_MAX_RULES; i++) {
		if (inject->entries[i].id)
			actions |= 1u << inject->entries[i].rule.action;
	}
	atomic_store(&inject->actions, actions);
}

/* The lock is held. 0 finds a free entry; NULL if there is none. */
static struct inject_entry *find_entry(struct inject *inject, uint32_t id)
{
	for (unsigned i = 0; i < INJECT_MAX_RULES; i++) {
		if (inject->entries[i].id == id)
			return &inject->entries[i];
	}
	return NULL;
}

int inject_add(struct inject *inject, const struct viommu_inject_rule *rule, const char *mutant,
	       uint32_t *ret)
{
	struct inject_entry *entry;
	int r = check_rule(rule);

	if (r < 0)
		return r;
	pthread_mutex_lock(&inject->lock);
	entry = find_entry(inject, 0);
	if (entry) {
		/* An id is not used again: what a client removes is what it added. */
		*entry = (struct inject_entry){
			.id = ++inject->last_id,
			.mutant = mutant,
			.rule = *rule,
		};
		*ret = entry->id;
		update_actions(inject);
	}
	pthread_mutex_unlock(&inject->lock);
	return entry ? 0 : -ENOSPC;
}

int inject_remove(struct inject *inject, uint32_t id)
{
	struct inject_entry *entry;

	pthread_mutex_lock(&inject->lock);
	entry = id ? find_entry(inject, id) : NULL;
	if (entry) {
		entry->id = 0;
		update_actions(inject);
	}
	pthread_mutex_unlock(&inject->lock);
	return entry ? 0 : -ENOENT;
}

bool inject_has(struct inject *inject, uint32_t id)
{
	bool found;

	pthread_mutex_lock(&inject->lock);
	found = id && find_entry(inject, id);
	pthread_mutex_unlock(&inject->lock);
	return found;
}

uint32_t inject_find_mutant(struct inject *inject, const char *mutant)
{
	uint32_t id = 0;

	pthread_mutex_lock(&inject->lock);
	for (unsigned i = 0; i < INJECT_MAX_RULES; i++) {
		const struct inject_entry *entry = &inject->entries[i];

		if (entry->id && entry->mutant && !strcmp(entry->mutant, mutant))
			id = entry->id;
	}
	pthread_mutex_unlock(&inject->lock);
	return id;
}

size_t inject_list(struct inject *inject, struct viommu_inject_info *buf, size_t max)
{
	size_t nr = 0;

	pthread_mutex_lock(&inject->lock);
	for (unsigned i = 0; i < INJECT_MAX_RULES; i++) {
		const struct inject_entry *entry = &inject->entries[i];

		if (!entry->id)
			continue;
		if (nr < max)
			buf[nr] = (struct viommu_inject_info){
				.id = entry->id,
				.mutant = entry->mutant,
				.rule = entry->rule,
				.nr_matches = entry->nr_matches,
				.nr_hits = entry->nr_hits,
			};
		nr++;
	}
	pthread_mutex_unlock(&inject->lock);
	return nr;
}

static bool concerns_endpoint(const struct inject_target *target, int64_t endpoint)
{
	if (endpoint < 0 || target->endpoint == endpoint)
		return true;
	return target->endpoint < 0 && target->domain >= 0 && target->concerns &&
	       target->concerns(target->opaque, target->domain, endpoint);
}

static bool fits(const struct viommu_inject_rule *rule, enum viommu_inject_action action,
		 const struct inject_target *target)
{
	return rule->action == action && (!rule->request || rule->request == target->request) &&
	       (rule->domain < 0 || rule->domain == target->domain) &&
	       concerns_endpoint(target, rule->endpoint);
}

bool inject_match(struct inject *inject, enum viommu_inject_action action,
		  const struct inject_target *target, struct inject_hit *ret)
{
	bool found = false;

	pthread_mutex_lock(&inject->lock);
	for (unsigned i = 0; i < INJECT_MAX_RULES && !found; i++) {
		struct inject_entry *entry = &inject->entries[i];

		if (!entry->id || !fits(&entry->rule, action, target))
			continue;
		if (entry->nr_matches++ < entry->rule.after ||
		    (entry->rule.count && entry->nr_hits >= entry->rule.count))
			continue;
		entry->nr_hits++;
		found = true;
		if (ret)
			*ret = (struct inject_hit){ entry->id, entry->rule.parameter };
	}
	pthread_mutex_unlock(&inject->lock);
	return found;
}
