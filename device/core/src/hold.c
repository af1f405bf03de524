// SPDX-License-Identifier: GPL-2.0-or-later
#include "hold.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "ctx.h"
#include "inject.h"
#include "iommu.h"
#include "reactor.h"

#define US_PER_S 1000000u

static void set_timer(struct hold *hold, uint32_t delay_us)
{
	const struct itimerspec when = {
		.it_value.tv_sec = delay_us / US_PER_S,
		.it_value.tv_nsec = delay_us % US_PER_S * 1000,
	};

	/* Cannot fail: the descriptor is ours, the time is in range. */
	(void)timerfd_settime(hold->timer_fd, 0, &when, NULL);
}

static void run_queue(struct hold *hold)
{
	virtio_pci_notify(&hold->iommu->vdev, IOMMU_QUEUE_REQUEST);
}

static void delay_over(void *opaque, uint32_t events)
{
	struct hold *hold = opaque;
	uint64_t count;

	(void)events;
	/* EAGAIN: the timer was stopped after it had fired. */
	if (read(hold->timer_fd, &count, sizeof(count)) < 0 || !hold->delayed)
		return;
	hold->delayed = false;
	hold->is_late = true;
	run_queue(hold);
}

static void resume(void *opaque, uint32_t events)
{
	(void)events;
	run_queue(opaque);
}

int hold_init(struct hold *hold, struct iommu *iommu)
{
	struct reactor *reactor = iommu->ctx->reactor;
	int r;

	*hold = (struct hold){ .iommu = iommu };
	hold->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (hold->timer_fd < 0)
		return -errno;
	r = reactor_work_create(reactor, resume, hold, &hold->resume);
	if (r == 0)
		r = reactor_add(reactor, hold->timer_fd, EPOLLIN, delay_over, hold);
	if (r < 0) {
		reactor_work_destroy(hold->resume);
		close(hold->timer_fd);
	}
	return r;
}

void hold_deinit(struct hold *hold)
{
	reactor_remove(hold->iommu->ctx->reactor, hold->timer_fd);
	close(hold->timer_fd);
	reactor_work_destroy(hold->resume);
}

void hold_clear(struct hold *hold)
{
	set_timer(hold, 0);
	hold->delayed = false;
	hold->is_late = false;
	hold->stalled_by = 0;
}

bool hold_active(struct hold *hold)
{
	if (hold->stalled_by && !inject_has(&hold->iommu->ctx->inject, hold->stalled_by))
		hold->stalled_by = 0;
	return hold->stalled_by || hold->delayed;
}

bool hold_begin(struct hold *hold, const struct inject_target *target)
{
	struct inject *inject = &hold->iommu->ctx->inject;
	struct inject_hit hit;

	if (hold->is_late) {
		hold->is_late = false;
		return false;
	}
	if (inject_hit(inject, VIOMMU_INJECT_STALL, target, &hit)) {
		hold->stalled_by = hit.id;
		return true;
	}
	if (inject_hit(inject, VIOMMU_INJECT_DELAY, target, &hit)) {
		hold->delayed = true;
		set_timer(hold, hit.parameter);
		return true;
	}
	return false;
}

void hold_resume(struct hold *hold)
{
	reactor_work_post(hold->resume);
}
