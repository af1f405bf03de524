/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * json.h - append-only JSON text.
 *
 * Values are appended in order. The key is NULL inside an array. Running out of
 * memory ends the process: half a reply would be worse than none.
 */
#ifndef PROBE_JSON_H
#define PROBE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
	char *data; /* not terminated */
	size_t size;
	size_t capacity;
};

void json_deinit(struct json *json);

void json_raw(struct json *json, const char *data, size_t size);

void json_number(struct json *json, const char *key, uint64_t value);
void json_bool(struct json *json, const char *key, bool value);
void json_null(struct json *json, const char *key);
void json_text(struct json *json, const char *key, const char *text);
/* Bytes that are no valid UTF-8 become \u00XX, one for each byte. */
void json_bytes(struct json *json, const char *key, const char *data, size_t size);

void json_begin(struct json *json, const char *key, char bracket);
void json_end(struct json *json, char bracket);

#endif /* PROBE_JSON_H */
