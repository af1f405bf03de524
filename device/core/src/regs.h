/* SPDX-License-Identifier: GPL-2.0-or-later */
/* regs.h - register files that take accesses of any width: images to read, fields to write. */
#ifndef REGS_H
#define REGS_H

#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A register that can be written; one of 64 bits is two of them. */
struct regs_field {
	uint8_t offset, size;
};

/* Whether an access covers the whole register, and what it writes there. */
static inline bool regs_covered(const struct regs_field *field, uint64_t offset, const void *buf,
				size_t count, uint32_t *ret)
{
	uint32_t value = 0;

	if (offset > field->offset || offset + count < (uint64_t)field->offset + field->size)
		return false;
	memcpy(&value, (const uint8_t *)buf + (field->offset - offset), field->size);
	*ret = le32toh(value);
	return true;
}

/* Into an image, little endian. */
static inline void regs_put(uint8_t *image, size_t offset, uint64_t value, size_t size)
{
	value = htole64(value);
	memcpy(image + offset, &value, size);
}

static inline uint64_t regs_get(const uint8_t *image, size_t offset, size_t size)
{
	uint64_t value = 0;

	memcpy(&value, image + offset, size);
	return le64toh(value);
}

/* Half of a 64-bit register, which one is told by the offset. */
static inline void regs_set_half(uint64_t *field, uint64_t offset, uint32_t value)
{
	unsigned shift = offset & 4 ? 32 : 0;

	*field = (*field & ~(0xffffffffull << shift)) | (uint64_t)value << shift;
}

#endif /* REGS_H */
