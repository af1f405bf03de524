// SPDX-License-Identifier: GPL-2.0-or-later
/* CRC-32 (IEEE 802.3, reflected), eight bytes at a time by eight tables. */
#include "engine.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define POLYNOMIAL 0xedb88320u

struct crc32_table {
	/* entries[k][b]: what byte b contributes with k more bytes behind it. */
	uint32_t entries[8][256];
};

int crc32_table_create(struct crc32_table **ret)
{
	struct crc32_table *table = malloc(sizeof(*table));

	if (!table)
		return -ENOMEM;
	for (uint32_t byte = 0; byte < 256; byte++) {
		uint32_t crc = byte;

		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? POLYNOMIAL : 0);
		table->entries[0][byte] = crc;
	}
	for (int k = 1; k < 8; k++) {
		for (uint32_t byte = 0; byte < 256; byte++) {
			uint32_t crc = table->entries[k - 1][byte];

			table->entries[k][byte] = crc >> 8 ^ table->entries[0][crc & 0xff];
		}
	}
	*ret = table;
	return 0;
}

void crc32_table_destroy(struct crc32_table *table)
{
	free(table);
}

uint32_t crc32_update(const struct crc32_table *table, uint32_t crc, const void *buf, size_t len)
{
	const uint32_t (*t)[256] = table->entries;
	const uint8_t *bytes = buf;

	crc = ~crc;
	for (; len >= 8; len -= 8, bytes += 8) {
		uint64_t word;

		memcpy(&word, bytes, sizeof(word));
		word = le64toh(word) ^ crc;
		crc = 0;
		for (int k = 0; k < 8; k++)
			crc ^= t[7 - k][word >> (8 * k) & 0xff];
	}
	for (; len; len--)
		crc = crc >> 8 ^ t[0][(crc ^ *bytes++) & 0xff];
	return ~crc;
}
