// SPDX-License-Identifier: GPL-2.0-or-later
/* Copies that end when they are told to, whatever has become of the thread that makes them. */
#include "abortable_copy.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "harness.h"

#define SIZE (64u << 20) /* takes milliseconds */
#define NR_ROUNDS 20
#define MAX_MISSES 1000 /* this thread lost the processor, and the copy had its time to end */

static uint8_t *from, *to;
static _Atomic uint64_t word;
static atomic_bool is_stopped, may_go_on;

/* False: this build or this host cannot, and the core does without. */
static bool setup(void)
{
	if (!abortable_copy_init()) {
		printf("# no restartable sequences here\n");
		return false;
	}
	from = malloc(SIZE);
	to = malloc(SIZE);
	REQUIRE(from && to);
	memset(from, 1, SIZE);
	memset(to, 0, SIZE);
	atomic_store(&word, 0);
	return true;
}

static void teardown(void)
{
	free(from);
	free(to);
}

TEST(copies_all_or_nothing_when_undisturbed)
{
	static const size_t sizes[] = { 1, 7, 64, 1000, 1024, 4096, 65536 };

	if (!setup())
		return;
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		size_t size = sizes[i], left = size;

		for (size_t j = 0; j < size; j++)
			from[j] = j * 31;
		memset(to, 0, size + 32);
		CHECK_EQ(abortable_copy(to + 5, from, size, &word, 1), size);
		CHECK_EQ(to[5], 0);
		/* A thread may lose the processor at any time. */
		while (left)
			left = abortable_copy(to + 5 + (size - left), from + (size - left), left,
					      &word, 0);
		CHECK(!memcmp(to + 5, from, size));
		CHECK(!to[4] && !to[5 + size]);
	}
	teardown();
}

/* The n-th of our processors, so that two threads run at once if they can at all. */
static void run_on(unsigned n)
{
	cpu_set_t all, one;
	int cpu = 0;

	CPU_ZERO(&one);
	REQUIRE(!sched_getaffinity(0, sizeof(all), &all));
	if (n >= (unsigned)CPU_COUNT(&all))
		return;
	for (n++; n; cpu++)
		n -= CPU_ISSET(cpu, &all);
	CPU_SET(cpu - 1, &one);
	REQUIRE(!pthread_setaffinity_np(pthread_self(), sizeof(one), &one));
}

/* Copies until it may not any more; returns how many bytes are left. */
static void *copy_all(void *opaque)
{
	size_t left = SIZE;

	(void)opaque;
	run_on(1);
	while (left && !atomic_load(&word))
		left = abortable_copy(to + (SIZE - left), from + (SIZE - left), left, &word, 0);
	return (void *)left;
}

static void wait_for_first_bytes(void)
{
	while (!__atomic_load_n(&to[4096], __ATOMIC_RELAXED))
		;
}

/* By halves: a look at every byte would give a copy that goes on the time to end. */
static size_t nr_copied(void)
{
	size_t copied = 0, untouched = SIZE;

	while (copied < untouched) {
		size_t middle = (copied + untouched) / 2;

		if (__atomic_load_n(&to[middle], __ATOMIC_RELAXED))
			copied = middle + 1;
		else
			untouched = middle;
	}
	return copied;
}

/* What is not left was copied; of what is left next to nothing was touched. */
static void check_end(size_t left)
{
	CHECK(left < SIZE);
	for (size_t i = 0; i < SIZE - left; i += 61)
		REQUIRE(to[i] == 1 || to[i] == 2);
	for (size_t i = SIZE - left + ABORTABLE_COPY_UNCOUNTED; i < SIZE; i++)
		REQUIRE(to[i] == 0 || to[i] == 2);
}

static void start_copy(pthread_t *ret)
{
	memset(to, 0, SIZE);
	atomic_store(&word, 0);
	REQUIRE(!pthread_create(ret, NULL, copy_all, NULL));
}

/* How many bytes were left when a copy was aborted; 0: too late, it was complete. */
static size_t abort_a_copy(void)
{
	pthread_t thread;
	void *left;
	size_t nr;

	start_copy(&thread);
	run_on(0);
	wait_for_first_bytes();
	atomic_store(&word, 1);
	abortable_copy_abort_all();
	nr = nr_copied();
	memset(to + nr, 2, SIZE - nr);
	pthread_join(thread, &left);
	CHECK(nr >= SIZE - (size_t)left && nr <= SIZE - (size_t)left + ABORTABLE_COPY_UNCOUNTED);
	check_end((size_t)left);
	return (size_t)left;
}

TEST(nothing_is_copied_once_aborted)
{
	unsigned nr_rounds = 0, nr_misses = 0;
	cpu_set_t all;

	if (!setup())
		return;
	REQUIRE(!sched_getaffinity(0, sizeof(all), &all));
	while (nr_rounds < NR_ROUNDS && nr_misses < MAX_MISSES) {
		if (abort_a_copy())
			nr_rounds++;
		else
			nr_misses++;
		REQUIRE(!pthread_setaffinity_np(pthread_self(), sizeof(all), &all));
	}
	CHECK_EQ(nr_rounds, NR_ROUNDS);
	teardown();
}

static void stop_here(int signal)
{
	(void)signal;
	atomic_store(&is_stopped, true);
	while (!atomic_load(&may_go_on))
		usleep(100);
}

/* As abort_a_copy(), of one whose thread is kept from going on. */
static size_t abort_a_stopped_copy(void)
{
	pthread_t thread;
	void *left;

	atomic_store(&is_stopped, false);
	atomic_store(&may_go_on, false);
	start_copy(&thread);
	wait_for_first_bytes();
	REQUIRE(!pthread_kill(thread, SIGUSR1));
	while (!atomic_load(&is_stopped))
		;
	atomic_store(&word, 1);
	abortable_copy_abort_all();
	memset(to, 2, SIZE);
	atomic_store(&may_go_on, true);
	pthread_join(thread, &left);
	check_end((size_t)left);
	for (size_t i = 0; i < SIZE; i++)
		REQUIRE(to[i] == 2);
	return (size_t)left;
}

/* As if it had lost the processor for ever: the abort does not wait for it. */
TEST(a_copier_that_does_not_run_is_not_waited_for)
{
	const struct sigaction action = { .sa_handler = stop_here };
	unsigned nr_misses = 0;

	if (!setup())
		return;
	REQUIRE(!sigaction(SIGUSR1, &action, NULL));
	while (!abort_a_stopped_copy() && nr_misses < MAX_MISSES)
		nr_misses++;
	CHECK(nr_misses < MAX_MISSES);
	teardown();
}
