// SPDX-License-Identifier: GPL-2.0-or-later
#include "harness.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A test that hangs must not hang the suite: SIGALRM ends the program. */
#define TEST_TIMEOUT 120u

static struct test *first_test;
static struct test **last_link = &first_test;
static atomic_uint nr_failures;

void harness_register(struct test *test)
{
	*last_link = test;
	last_link = &test->next;
}

bool harness_check(bool ok, const char *file, int line, const char *text)
{
	if (!ok) {
		printf("# %s:%d: failed: %s\n", file, line, text);
		atomic_fetch_add(&nr_failures, 1);
	}
	return ok;
}

bool harness_check_eq(intmax_t a, intmax_t b, const char *file, int line, const char *text)
{
	if (a != b) {
		printf("# %s:%d: failed: %s (%" PRIdMAX " (%#" PRIxMAX ") and %" PRIdMAX
		       " (%#" PRIxMAX "))\n",
		       file, line, text, a, (uintmax_t)a, b, (uintmax_t)b);
		atomic_fetch_add(&nr_failures, 1);
	}
	return a == b;
}

void harness_require(bool ok, const char *file, int line, const char *text)
{
	if (ok)
		return;
	printf("Bail out! %s:%d: %s (errno %d)\n", file, line, text, errno);
	fflush(stdout);
	_exit(1);
}

int harness_main(int argc, char **argv)
{
	const char *filter = argc > 1 ? argv[1] : "";
	unsigned int nr_failed = 0, nr_run = 0;

	/* The tail of the output counts most when a sanitizer aborts. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	for (struct test *test = first_test; test; test = test->next) {
		if (!strstr(test->name, filter))
			continue;
		atomic_store(&nr_failures, 0);
		alarm(TEST_TIMEOUT);
		test->run();
		alarm(0);
		nr_failed += atomic_load(&nr_failures) != 0;
		printf("%sok %u - %s\n", atomic_load(&nr_failures) ? "not " : "", ++nr_run,
		       test->name);
	}
	printf("1..%u\n", nr_run);
	return nr_failed || !nr_run ? EXIT_FAILURE : EXIT_SUCCESS;
}
