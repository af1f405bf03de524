/* SPDX-License-Identifier: GPL-2.0-or-later */
/* buffer.h - named, populated, anonymous memory to map for DMA. */
#ifndef PROBE_BUFFER_H
#define PROBE_BUFFER_H

#include <stddef.h>
#include <stdint.h>

#include "command.h"

#define BUFFER_NAME_SIZE 32

struct buffer {
	struct buffer *next;
	char name[BUFFER_NAME_SIZE];
	uint8_t *data;
	size_t size; /* as asked for */
	size_t distinct; /* bytes that are memory of their own; the rest repeats them */
	size_t capacity; /* whole pages; all of it may be used by giving a size */
};

struct range {
	struct buffer *buffer;
	size_t offset;
	size_t size;
};

/*
 * Look up a buffer and check that a range lies in it. @size SIZE_MAX: all from
 * @offset up to the buffer's size. Return 0 or what reply_fail() returned.
 */
int buffer_range(struct buffer *buffers, const char *name, uint64_t offset, uint64_t size,
		 struct range *ret, struct reply *reply);

/* The same from the keys name, offset and size. */
int buffer_range_args(struct buffer *buffers, const struct args *args, struct range *ret,
		      struct reply *reply);

void buffer_free_all(struct buffer **buffers);

#endif /* PROBE_BUFFER_H */
