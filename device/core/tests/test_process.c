// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness.h"
#include "viommu.h"

TEST(exit_with_parent_refuses_another_parent)
{
	CHECK_EQ(viommu_exit_with_parent(getpid()), -ESRCH);
	CHECK(!prctl(PR_SET_PDEATHSIG, 0));
}

/* The middle process exits; its child holds the pipe open for as long as it lives. */
TEST(exit_with_parent_ends_the_child)
{
	struct pollfd pfd = { .events = POLLIN };
	int fds[2], status;
	pid_t middle;
	char byte;

	REQUIRE(!pipe(fds));
	middle = fork();
	REQUIRE(middle >= 0);
	if (!middle) {
		pid_t parent = getpid();

		if (!fork()) {
			char result = viommu_exit_with_parent(parent) ? 'n' : 'y';

			if (write(fds[1], &result, 1) == 1)
				pause();
			_exit(1);
		}
		if (read(fds[0], &byte, 1) != 1)
			byte = 'n';
		_exit(byte == 'y' ? 0 : 1);
	}
	close(fds[1]);
	CHECK_EQ(waitpid(middle, &status, 0), middle);
	CHECK(WIFEXITED(status) && !WEXITSTATUS(status));
	pfd.fd = fds[0];
	CHECK_EQ(poll(&pfd, 1, 10000), 1);
	CHECK_EQ(read(fds[0], &byte, 1), 0);
	close(fds[0]);
}
