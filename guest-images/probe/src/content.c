// SPDX-License-Identifier: GPL-2.0-or-later
/* content.c - commands that write, read and judge the bytes of buffers. */
#include <errno.h>
#include <string.h>

#include "pattern.h"
#include "probe.h"

#define PEEK_MAX 4096

static int run_fill(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct range range;
	int error = buffer_range_args(probe->buffers, args, &range, reply);

	if (error)
		return error;
	pattern_fill(range.buffer->data + range.offset, range.size, arg_number(args, "seed", 0),
		     arg_number(args, "position", 0));
	return 0;
}

static int run_set(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t byte = arg_number(args, "byte", 0);
	struct range range;
	int error = buffer_range_args(probe->buffers, args, &range, reply);

	if (error)
		return error;
	if (byte > 0xff)
		return reply_fail(reply, "parse", EINVAL, "byte is above 0xff");
	memset(range.buffer->data + range.offset, (int)byte, range.size);
	return 0;
}

/* Report a comparison; @difference is @size when all bytes are equal. */
static void report_difference(struct reply *reply, size_t difference, size_t size)
{
	json_bool(&reply->fields, "equal", difference == size);
	json_number(&reply->fields, "size", size);
	if (difference < size)
		json_number(&reply->fields, "first_difference", difference);
	else
		json_null(&reply->fields, "first_difference");
}

static int run_compare(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t size = arg_number(args, "size", SIZE_MAX);
	size_t difference = 0;
	const uint8_t *bytes_a, *bytes_b;
	struct range a, b;
	int error;

	error = buffer_range(probe->buffers, arg_text(args, "a"), arg_number(args, "offset_a", 0),
			     size, &a, reply);
	if (!error)
		error = buffer_range(probe->buffers, arg_text(args, "b"),
				     arg_number(args, "offset_b", 0), size, &b, reply);
	if (error)
		return error;
	/* To compare only what both have would call a truncated buffer equal. */
	if (a.size != b.size)
		return reply_fail(reply, "buffer", EINVAL, "sizes differ: %zu, %zu; give a size",
				  a.size, b.size);
	bytes_a = a.buffer->data + a.offset;
	bytes_b = b.buffer->data + b.offset;
	while (difference < a.size && bytes_a[difference] == bytes_b[difference])
		difference++;
	report_difference(reply, difference, a.size);
	if (difference < a.size) {
		json_number(&reply->fields, "a_byte", bytes_a[difference]);
		json_number(&reply->fields, "b_byte", bytes_b[difference]);
	}
	return 0;
}

static int run_check(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t seed = arg_number(args, "seed", 0);
	uint64_t position = arg_number(args, "position", 0);
	uint64_t byte = arg_number(args, "byte", 0);
	bool by_seed = arg_has(args, "seed");
	const uint8_t *data;
	size_t difference;
	struct range range;
	int error = buffer_range_args(probe->buffers, args, &range, reply);

	if (error)
		return error;
	if (by_seed == arg_has(args, "byte") || byte > 0xff)
		return reply_fail(reply, "parse", EINVAL, "give a seed, or a byte up to 0xff");
	data = range.buffer->data + range.offset;
	difference = by_seed ? pattern_find_difference(data, range.size, seed, position) :
			       pattern_find_other(data, range.size, (uint8_t)byte);
	report_difference(reply, difference, range.size);
	if (difference < range.size) {
		json_number(&reply->fields, "expected_byte",
			    by_seed ? pattern_byte(seed, position + difference) : byte);
		json_number(&reply->fields, "actual_byte", data[difference]);
	}
	return 0;
}

static int run_crc(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct range range;
	int error = buffer_range_args(probe->buffers, args, &range, reply);

	if (error)
		return error;
	json_number(&reply->fields, "crc32",
		    crc32_of(range.buffer->data + range.offset, range.size));
	json_number(&reply->fields, "size", range.size);
	return 0;
}

static int run_peek(struct probe *probe, const struct args *args, struct reply *reply)
{
	static const char digits[] = "0123456789abcdef";
	char hex[2 * PEEK_MAX];
	struct range range;
	int error = buffer_range_args(probe->buffers, args, &range, reply);

	if (error)
		return error;
	if (range.size > PEEK_MAX)
		return reply_fail(reply, "parse", EINVAL, "size is above %d", PEEK_MAX);
	for (size_t i = 0; i < range.size; i++) {
		uint8_t byte = range.buffer->data[range.offset + i];

		hex[2 * i] = digits[byte >> 4];
		hex[2 * i + 1] = digits[byte & 15];
	}
	json_bytes(&reply->fields, "hex", hex, 2 * range.size);
	return 0;
}

/* Return 0 or -EINVAL; @size bytes are written only if all of @hex is valid. */
static int parse_hex(const char *hex, size_t size, uint8_t *ret)
{
	for (size_t i = 0; i < size; i++) {
		char pair[] = { '0', 'x', hex[2 * i], hex[2 * i + 1], '\0' };
		uint64_t byte;

		if (parse_number(pair, &byte))
			return -EINVAL;
		ret[i] = (uint8_t)byte;
	}
	return 0;
}

static int run_poke(struct probe *probe, const struct args *args, struct reply *reply)
{
	const struct value *hex = arg_value(args, "hex");
	uint8_t bytes[PEEK_MAX];
	struct range range;
	int error;

	if (hex->size % 2 || hex->size > 2 * PEEK_MAX || parse_hex(hex->text, hex->size / 2, bytes))
		return reply_fail(reply, "parse", EINVAL, "hex is not up to %d bytes", PEEK_MAX);
	error = buffer_range(probe->buffers, arg_text(args, "name"), arg_number(args, "offset", 0),
			     hex->size / 2, &range, reply);
	if (error)
		return error;
	memcpy(range.buffer->data + range.offset, bytes, range.size);
	return 0;
}

#define RANGE_KEYS                                                             \
	{ "name", KEY_TEXT, NEED, NULL }, { "offset", KEY_NUMBER, MAY, NULL }, \
	{                                                                      \
		"size", KEY_NUMBER, MAY, NULL                                  \
	}

static const struct key fill_keys[] = {
	RANGE_KEYS,
	{ "seed", KEY_NUMBER, NEED, NULL },
	{ "position", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

static const struct key set_keys[] = { RANGE_KEYS, { "byte", KEY_NUMBER, NEED, NULL }, { 0 } };

static const struct key check_keys[] = {
	RANGE_KEYS,
	{ "seed", KEY_NUMBER, MAY, NULL },
	{ "position", KEY_NUMBER, MAY, NULL },
	{ "byte", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

static const struct key compare_keys[] = {
	{ "a", KEY_TEXT, NEED, NULL },         { "b", KEY_TEXT, NEED, NULL },
	{ "offset_a", KEY_NUMBER, MAY, NULL }, { "offset_b", KEY_NUMBER, MAY, NULL },
	{ "size", KEY_NUMBER, MAY, NULL },     { 0 },
};

static const struct key range_keys[] = { RANGE_KEYS, { 0 } };

static const struct key poke_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },
	{ "offset", KEY_NUMBER, MAY, NULL },
	{ "hex", KEY_TEXT, NEED, NULL },
	{ 0 },
};

const struct command content_commands[] = {
	{ "fill", fill_keys, run_fill },          { "set", set_keys, run_set },
	{ "compare", compare_keys, run_compare }, { "check", check_keys, run_check },
	{ "crc", range_keys, run_crc },           { "peek", range_keys, run_peek },
	{ "poke", poke_keys, run_poke },          { 0 },
};
