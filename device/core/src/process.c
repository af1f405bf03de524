// SPDX-License-Identifier: GPL-2.0-or-later
/* process.c - what concerns this process rather than a context. */
#include "viommu.h"

#include <errno.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

int viommu_exit_with_parent(int parent_pid)
{
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	/*
	 * A parent that died before the call above sends nothing any more. Only
	 * the caller can know its pid: getppid() may name the reaper already.
	 */
	return getppid() == parent_pid ? 0 : -ESRCH;
}
