/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fuzz.h - what the fuzz targets share.
 *
 * A target is LLVMFuzzerTestOneInput(), for libFuzzer or for standalone.c, and
 * fuzz_seed(), which says what its inputs look like: the corpus is generated.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv); /* before anything else: seeds.c */

/* Writes seed n to buf and returns its size; 0: there is no such seed. */
#define FUZZ_MAX_SEED 4096
size_t fuzz_seed(unsigned n, uint8_t *buf);

/* What is left of an input. */
struct fuzz_input {
	const uint8_t *data;
	size_t size;
};

/* The next len bytes; what is missing is zero. */
static inline void fuzz_take(struct fuzz_input *input, void *buf, size_t len)
{
	size_t nr = len < input->size ? len : input->size;

	memset(buf, 0, len);
	if (nr)
		memcpy(buf, input->data, nr);
	input->data += nr;
	input->size -= nr;
}

static inline uint8_t fuzz_byte(struct fuzz_input *input)
{
	uint8_t byte;

	fuzz_take(input, &byte, sizeof(byte));
	return byte;
}

/* Not assert(): it must stay whatever is defined. */
#define FUZZ_CHECK(cond)         \
	do {                     \
		if (!(cond))     \
			abort(); \
	} while (0)

#endif /* FUZZ_H */
