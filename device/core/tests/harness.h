/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * harness.h - the smallest test harness that reports TAP.
 *
 * TEST(name) { ... } defines and registers a test; harness_main() runs
 * them in the order of the file, or only those whose name contains an
 * argument. CHECK*() note a failure and go on, and may be used from any thread;
 * they are expressions, true if the check held. REQUIRE() is for the
 * arrangement: without it the rest means nothing, so it ends the program.
 */
#ifndef HARNESS_H
#define HARNESS_H

#include <stdbool.h>
#include <stdint.h>

struct test {
	const char *name;
	void (*run)(void);
	struct test *next;
};

int harness_main(int argc, char **argv);
void harness_register(struct test *test);
bool harness_check(bool ok, const char *file, int line, const char *text);
bool harness_check_eq(intmax_t a, intmax_t b, const char *file, int line, const char *text);
void harness_require(bool ok, const char *file, int line, const char *text);

#define TEST(test_name)                                                     \
	static void test_##test_name(void);                                 \
	__attribute__((constructor)) static void register_##test_name(void) \
	{                                                                   \
		static struct test test = {                                 \
			.name = #test_name,                                 \
			.run = test_##test_name,                            \
		};                                                          \
		harness_register(&test);                                    \
	}                                                                   \
	static void test_##test_name(void)

#define CHECK(cond) harness_check((cond), __FILE__, __LINE__, #cond)
/* Integers only; both sides are shown when they differ. */
#define CHECK_EQ(a, b) \
	harness_check_eq((intmax_t)(a), (intmax_t)(b), __FILE__, __LINE__, #a " == " #b)
#define REQUIRE(cond) harness_require((cond), __FILE__, __LINE__, #cond)

#endif /* HARNESS_H */
