/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mutant.h - deliberate defects.
 *
 * A test suite that never sees a wrong device proves nothing. Each mutant is
 * one wrong decision, taken at exactly one place of the core; a suite that
 * passes with a mutant on does not look at what the mutant breaks.
 */
#ifndef MUTANT_H
#define MUTANT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum mutant {
	MUTANT_IGNORE_UNMAP,
	MUTANT_IGNORE_PERMISSIONS,
	MUTANT_TRANSLATE_OFF_BY_PAGE,
	MUTANT_LOSE_FAULT_EVENT,
	MUTANT_DROP_INTERRUPT,
	MUTANT_ACCEPT_MAP_IGNORE,
	MUTANT_IGNORE_DETACH,
	MUTANT_SHORT_USED_LEN,
	MUTANT_NR,
};

struct mutants {
	_Atomic uint32_t mask;
};

static inline bool mutant_on(const struct mutants *mutants, enum mutant mutant)
{
	return atomic_load_explicit(&mutants->mask, memory_order_relaxed) & (1u << mutant);
}

/* -ENOENT if there is no such mutant. */
int mutant_set(struct mutants *mutants, const char *name, bool on);

#endif /* MUTANT_H */
