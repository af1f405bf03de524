// SPDX-License-Identifier: GPL-2.0-or-later
#include "json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_deinit(struct json *json)
{
	free(json->data);
	*json = (struct json){ 0 };
}

void json_raw(struct json *json, const char *data, size_t size)
{
	if (json->capacity - json->size < size) {
		size_t capacity = (json->size + size) * 2 + 256;
		char *grown = realloc(json->data, capacity);

		if (!grown) {
			fputs("vfio-probe: out of memory\n", stderr);
			exit(2);
		}
		json->data = grown;
		json->capacity = capacity;
	}
	if (size)
		memcpy(json->data + json->size, data, size);
	json->size += size;
}

static void json_cstring(struct json *json, const char *text)
{
	json_raw(json, text, strlen(text));
}

/* Length of the valid UTF-8 sequence at @data, 0 if there is none. */
static size_t utf8_length(const unsigned char *data, size_t size)
{
	static const uint32_t smallest[] = { 0, 0, 0x80, 0x800, 0x10000 };
	size_t length = data[0] < 0x80 ? 1 :
			data[0] < 0xc0 ? 0 :
			data[0] < 0xe0 ? 2 :
			data[0] < 0xf0 ? 3 :
			data[0] < 0xf8 ? 4 :
					 0;
	uint32_t point;

	if (length < 2)
		return length;
	if (length > size)
		return 0;
	point = data[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((data[i] & 0xc0) != 0x80)
			return 0;
		point = point << 6 | (data[i] & 0x3f);
	}
	/* Overlong forms, surrogates and what is beyond Unicode are not UTF-8. */
	if (point < smallest[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000))
		return 0;
	return length;
}

static void json_quote(struct json *json, const char *data, size_t size)
{
	const unsigned char *bytes = (const unsigned char *)data;

	json_raw(json, "\"", 1);
	for (size_t i = 0; i < size;) {
		size_t length = utf8_length(bytes + i, size - i);
		char escape[8];

		if (bytes[i] == '"' || bytes[i] == '\\') {
			json_raw(json, "\\", 1);
			json_raw(json, data + i, 1);
		} else if (length && bytes[i] >= 0x20 && bytes[i] != 0x7f) {
			json_raw(json, data + i, length);
			i += length;
			continue;
		} else {
			snprintf(escape, sizeof(escape), "\\u%04x", bytes[i]);
			json_cstring(json, escape);
		}
		i++;
	}
	json_raw(json, "\"", 1);
}

/* The separator is decided by what came last, so no nesting state is needed. */
static void json_key(struct json *json, const char *key)
{
	char last = json->size ? json->data[json->size - 1] : '{';

	if (last != '{' && last != '[')
		json_raw(json, ",", 1);
	if (key) {
		json_quote(json, key, strlen(key));
		json_raw(json, ":", 1);
	}
}

void json_number(struct json *json, const char *key, uint64_t value)
{
	char digits[24];

	json_key(json, key);
	snprintf(digits, sizeof(digits), "%" PRIu64, value);
	json_cstring(json, digits);
}

void json_bool(struct json *json, const char *key, bool value)
{
	json_key(json, key);
	json_cstring(json, value ? "true" : "false");
}

void json_null(struct json *json, const char *key)
{
	json_key(json, key);
	json_cstring(json, "null");
}

void json_bytes(struct json *json, const char *key, const char *data, size_t size)
{
	json_key(json, key);
	json_quote(json, data, size);
}

void json_text(struct json *json, const char *key, const char *text)
{
	json_bytes(json, key, text, strlen(text));
}

void json_begin(struct json *json, const char *key, char bracket)
{
	json_key(json, key);
	json_raw(json, &bracket, 1);
}

void json_end(struct json *json, char bracket)
{
	json_raw(json, &bracket, 1);
}
