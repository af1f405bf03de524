// SPDX-License-Identifier: GPL-2.0-or-later
#include "pattern.h"

#include <string.h>

static uint64_t pattern_word(uint64_t seed, uint64_t index)
{
	uint64_t z = seed + (index + 1) * 0x9e3779b97f4a7c15ull;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ z >> 27) * 0x94d049bb133111ebull;
	return z ^ z >> 31;
}

uint8_t pattern_byte(uint64_t seed, uint64_t position)
{
	return (uint8_t)(pattern_word(seed, position / 8) >> position % 8 * 8);
}

/*
 * Cut [0, size) into pieces that each lie in one word of the stream. @word gets
 * that word shifted so that the piece is its first bytes.
 */
static size_t next_piece(size_t left, uint64_t seed, uint64_t position, uint64_t *word)
{
	size_t piece = 8 - position % 8;

	*word = pattern_word(seed, position / 8) >> position % 8 * 8;
	return piece < left ? piece : left;
}

void pattern_fill(uint8_t *data, size_t size, uint64_t seed, uint64_t position)
{
	for (size_t done = 0, piece; done < size; done += piece) {
		uint64_t word;

		piece = next_piece(size - done, seed, position + done, &word);
		memcpy(data + done, &word, piece);
	}
}

size_t pattern_find_difference(const uint8_t *data, size_t size, uint64_t seed, uint64_t position)
{
	for (size_t done = 0, piece; done < size; done += piece) {
		uint64_t word;

		piece = next_piece(size - done, seed, position + done, &word);
		if (!memcmp(data + done, &word, piece))
			continue;
		while (data[done] == (uint8_t)word) {
			word >>= 8;
			done++;
		}
		return done;
	}
	return size;
}

uint32_t crc32_of(const uint8_t *data, size_t size)
{
	uint32_t table[256], crc = ~0u;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0xedb88320u : 0);
	}
	for (size_t i = 0; i < size; i++)
		crc = crc >> 8 ^ table[(uint8_t)(crc ^ data[i])];
	return ~crc;
}

size_t pattern_find_other(const uint8_t *data, size_t size, uint8_t byte)
{
	size_t offset = 0;

	while (offset < size && data[offset] == byte)
		offset++;
	return offset;
}
