/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * command.h - commands, their keys, and one parsed command line.
 *
 *     command key=value key=value ...
 *
 * Numbers are decimal or 0x hexadecimal. Values may be percent-encoded. A line
 * that does not fit the command's keys is refused before anything is done.
 */
#ifndef PROBE_COMMAND_H
#define PROBE_COMMAND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "reply.h"

#define COMMAND_LINE_SIZE 65536
#define COMMAND_KEYS_MAX 12

struct probe;
struct args;

enum key_type {
	KEY_NUMBER,
	KEY_TEXT, /* no NUL byte */
	KEY_BYTES,
	KEY_CHOICE, /* the value is the index in choices */
};

struct key {
	const char *name; /* NULL ends a list of keys */
	enum key_type type;
	bool required;
	const char *const *choices;
};

#define NEED true
#define MAY false

struct command {
	const char *name; /* NULL ends a table */
	const struct key *keys;
	/* Return 0, or what reply_fail() returned. */
	int (*run)(struct probe *probe, const struct args *args, struct reply *reply);
};

struct value {
	bool present;
	uint64_t number;
	const char *text; /* terminated, also when it holds other NUL bytes */
	size_t size;
};

struct args {
	const struct key *keys;
	struct value values[COMMAND_KEYS_MAX];
};

extern const char *const choices_bool[];
extern const struct key keys_none[];

/* Return the value of a key, the default if it was not given. */
uint64_t arg_number(const struct args *args, const char *name, uint64_t otherwise);
/* Return NULL if the key was not given. */
const char *arg_text(const struct args *args, const char *name);
const struct value *arg_value(const struct args *args, const char *name);
bool arg_has(const struct args *args, const char *name);

/* Parse all of @text as a number. Return 0 or -errno. */
int parse_number(const char *text, uint64_t *ret);

/* Split off the command's name; @line then starts with its keys. */
char *parse_command(char **line);

/* Parse the keys in @line, in place. Return 0 or what reply_fail() returned. */
int parse_args(char *line, const struct key *keys, struct args *ret, struct reply *reply);

#endif /* PROBE_COMMAND_H */
