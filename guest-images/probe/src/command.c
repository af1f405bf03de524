// SPDX-License-Identifier: GPL-2.0-or-later
#include "command.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BLANKS " \t\r"

const char *const choices_bool[] = { "0", "1", NULL };
const struct key keys_none[] = { { 0 } };

static int find_key(const struct key *keys, const char *name)
{
	for (int i = 0; keys[i].name; i++)
		if (!strcmp(keys[i].name, name))
			return i;
	return -1;
}

const struct value *arg_value(const struct args *args, const char *name)
{
	int index = find_key(args->keys, name);

	if (index < 0) {
		fprintf(stderr, "vfio-probe: bug: key '%s' is not declared\n", name);
		abort();
	}
	return &args->values[index];
}

bool arg_has(const struct args *args, const char *name)
{
	return arg_value(args, name)->present;
}

uint64_t arg_number(const struct args *args, const char *name, uint64_t otherwise)
{
	const struct value *value = arg_value(args, name);

	return value->present ? value->number : otherwise;
}

const char *arg_text(const struct args *args, const char *name)
{
	return arg_value(args, name)->text;
}

int parse_number(const char *text, uint64_t *ret)
{
	int base = text[0] == '0' && (text[1] == 'x' || text[1] == 'X') ? 16 : 10;
	const char *digits = base == 16 ? text + 2 : text;
	unsigned long long number;
	char *end;

	/* strtoull() itself takes signs, blanks and a second prefix. */
	if (!isxdigit((unsigned char)digits[0]) || digits[1] == 'x' || digits[1] == 'X')
		return -EINVAL;
	errno = 0;
	number = strtoull(digits, &end, base);
	if (errno)
		return -errno;
	if (*end || end == digits)
		return -EINVAL;
	*ret = number;
	return 0;
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

/* Percent-decode @text in place; the result is terminated. */
static int decode(char *text, size_t *ret_size)
{
	char *out = text;

	for (const char *in = text; *in; in++) {
		int high, low;

		if (*in != '%') {
			*out++ = *in;
			continue;
		}
		high = hex_digit(in[1]);
		low = high < 0 ? -1 : hex_digit(in[2]);
		if (low < 0)
			return -EINVAL;
		*out++ = (char)(high << 4 | low);
		in += 2;
	}
	*out = '\0';
	*ret_size = (size_t)(out - text);
	return 0;
}

static int parse_choice(const struct key *key, const char *text, uint64_t *ret)
{
	for (uint64_t i = 0; key->choices[i]; i++) {
		if (!strcmp(key->choices[i], text)) {
			*ret = i;
			return 0;
		}
	}
	return -EINVAL;
}

static int parse_value(const struct key *key, char *text, struct value *ret)
{
	struct value value = { .present = true, .text = text };
	int error = decode(text, &value.size);

	if (error)
		return error;
	if (key->type != KEY_BYTES && strlen(text) != value.size)
		return -EINVAL;
	if (key->type == KEY_NUMBER)
		error = parse_number(text, &value.number);
	else if (key->type == KEY_CHOICE)
		error = parse_choice(key, text, &value.number);
	if (error)
		return error;
	*ret = value;
	return 0;
}

static int parse_arg(char *word, struct args *args, struct reply *reply)
{
	char *equals = strchr(word, '=');
	int index, error;

	if (!equals)
		return reply_fail(reply, "parse", EINVAL, "'%.80s' is not key=value", word);
	*equals = '\0';
	index = find_key(args->keys, word);
	if (index < 0)
		return reply_fail(reply, "parse", EINVAL, "unknown key '%.80s'", word);
	if (args->values[index].present)
		return reply_fail(reply, "parse", EINVAL, "key '%s' is given twice", word);
	error = parse_value(&args->keys[index], equals + 1, &args->values[index]);
	if (error)
		return reply_fail(reply, "parse", -error, "bad value of key '%s': '%.80s'", word,
				  equals + 1);
	return 0;
}

char *parse_command(char **line)
{
	char *name = *line + strspn(*line, BLANKS);

	*line = name + strcspn(name, BLANKS);
	if (**line)
		*(*line)++ = '\0';
	return name;
}

int parse_args(char *line, const struct key *keys, struct args *ret, struct reply *reply)
{
	char *state = NULL;
	int error;

	*ret = (struct args){ .keys = keys };
	for (char *word = strtok_r(line, BLANKS, &state); word;
	     word = strtok_r(NULL, BLANKS, &state)) {
		error = parse_arg(word, ret, reply);
		if (error)
			return error;
	}
	for (int i = 0; keys[i].name; i++)
		if (keys[i].required && !ret->values[i].present)
			return reply_fail(reply, "parse", EINVAL, "key '%s' is missing",
					  keys[i].name);
	return 0;
}
