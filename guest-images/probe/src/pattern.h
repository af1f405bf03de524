/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pattern.h - deterministic bytes and the CRC the engine computes.
 *
 * The stream of a seed is the SplitMix64 sequence: the 8-byte little-endian words
 * w(0), w(1), ... where w(i) = mix(seed + (i + 1) * 0x9e3779b97f4a7c15) and
 *     mix(z): z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9
 *             z = (z ^ z >> 27) * 0x94d049bb133111eb
 *             z ^ z >> 31                                   all modulo 2^64.
 * Every word follows from its index, so a stream can be entered at any byte.
 */
#ifndef PROBE_PATTERN_H
#define PROBE_PATTERN_H

#include <stddef.h>
#include <stdint.h>

/* The byte of the stream of @seed at @position. */
uint8_t pattern_byte(uint64_t seed, uint64_t position);

/* Write @size bytes of the stream, beginning at @position. */
void pattern_fill(uint8_t *data, size_t size, uint64_t seed, uint64_t position);

/* Return the offset of the first byte that is not the stream's, @size if all are. */
size_t pattern_find_difference(const uint8_t *data, size_t size, uint64_t seed, uint64_t position);

/* Return the offset of the first byte that is not @byte, @size if all are. */
size_t pattern_find_other(const uint8_t *data, size_t size, uint8_t byte);

/* CRC-32 as zlib's (IEEE 802.3, reflected, initial and final inversion). */
uint32_t crc32_of(const uint8_t *data, size_t size);

#endif /* PROBE_PATTERN_H */
