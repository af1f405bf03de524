/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hold.h - what keeps requests on the ring for a while: injected delays and stalls.
 *
 * A held request is not taken off the ring, so a reset of the device needs no
 * undoing, and the reactor is free for everything else meanwhile.
 *
 * Reactor thread only, unless said otherwise.
 */
#ifndef HOLD_H
#define HOLD_H

#include <stdbool.h>
#include <stdint.h>

struct inject_target;
struct iommu;
struct reactor_work;

struct hold {
	struct iommu *iommu;
	struct reactor_work *resume;
	int timer_fd;
	bool delayed;        /* the timer runs */
	bool is_late;        /* the request at the head has had its delay */
	uint32_t stalled_by; /* id of a rule, or 0 */
};

int hold_init(struct hold *hold, struct iommu *iommu);
void hold_deinit(struct hold *hold);
void hold_clear(struct hold *hold); /* the ring is another one now */

/* Whether the request queue must be left alone for now. */
bool hold_active(struct hold *hold);
/* Whether the request at the head, which is this, must stay there: hold_active() from now on. */
bool hold_begin(struct hold *hold, const struct inject_target *target);
/* Looks again whether anything is held. Any thread. */
void hold_resume(struct hold *hold);

#endif /* HOLD_H */
