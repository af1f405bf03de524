// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kprobe.c - dynamic events: what the kernel itself asked and answered.
 *
 * Events live in the default group "kprobes", so that all of them can be switched
 * off and removed without a record of who made them.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include "file.h"
#include "probe.h"

#define TRACEFS "/sys/kernel/tracing"
#define EVENTS TRACEFS "/events/kprobes"
#define EVENT_NAME_SIZE 64
#define TRACE_MAX (1 << 20)

static int write_step(const char *path, int flags, const char *data, const char *step,
		      struct reply *reply)
{
	const char *op;
	int error = file_write(path, flags, data, strlen(data), &op);

	if (error)
		return reply_fail(reply, step, -error, "%s %s: %s", op, path, strerror(-error));
	return 0;
}

static int require_tracefs(struct reply *reply)
{
	if (!access(TRACEFS "/trace", F_OK))
		return 0;
	if (mount("tracefs", TRACEFS, "tracefs", 0, NULL))
		return reply_fail(reply, "mount:tracefs", errno, NULL);
	return 0;
}

/*
 * Stamp events with CLOCK_MONOTONIC, the axis of everything else. Setting the
 * clock empties the buffer, so it is set only once.
 */
static int set_trace_clock(struct reply *reply)
{
	char clocks[256];
	const char *op;
	long size = file_read(TRACEFS "/trace_clock", clocks, sizeof(clocks) - 1, &op);

	if (size < 0)
		return reply_fail(reply, "trace_clock", (int)-size, NULL);
	clocks[size] = '\0';
	if (strstr(clocks, "[mono]"))
		return 0;
	return write_step(TRACEFS "/trace_clock", 0, "mono", "trace_clock", reply);
}

/* Copy the event's name out of "p:name ..." or "r8:name ...". */
static int event_name(const char *spec, char ret[EVENT_NAME_SIZE])
{
	const char *colon = spec + 1 + (*spec ? strspn(spec + 1, "0123456789") : 0);
	size_t length = 0;

	if ((*spec != 'p' && *spec != 'r') || *colon != ':')
		return -EINVAL;
	while (isalnum((unsigned char)colon[1 + length]) || colon[1 + length] == '_')
		length++;
	if (!length || length >= EVENT_NAME_SIZE || colon[1 + length] != ' ')
		return -EINVAL;
	memcpy(ret, colon + 1, length);
	ret[length] = '\0';
	return 0;
}

static int run_kprobe_set(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *spec = arg_text(args, "spec");
	char name[EVENT_NAME_SIZE], path[sizeof(EVENTS) + EVENT_NAME_SIZE + 16];
	int error;

	(void)probe;
	if (event_name(spec, name) || strchr(spec, '\n'))
		return reply_fail(reply, "parse", EINVAL,
				  "spec is not 'p:NAME ...' or 'r:NAME ...'");
	error = require_tracefs(reply);
	if (error)
		return error;
	/* The kernel would add a second probe to an event of the same name. */
	snprintf(path, sizeof(path), EVENTS "/%s", name);
	if (!access(path, F_OK))
		return reply_fail(reply, "kprobe_events", EEXIST, "event '%s' exists", name);
	error = set_trace_clock(reply);
	if (!error)
		error = write_step(TRACEFS "/kprobe_events", O_APPEND, spec, "kprobe_events",
				   reply);
	if (error)
		return error;
	snprintf(path, sizeof(path), EVENTS "/%s/enable", name);
	error = write_step(path, 0, "1", "enable", reply);
	if (!error)
		json_text(&reply->fields, "event", name);
	return error;
}

static int run_kprobe_clear(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = require_tracefs(reply);
	const char *op;

	(void)probe;
	(void)args;
	if (error)
		return error;
	/* An enabled event cannot be removed. No folder: there is no event at all. */
	error = access(EVENTS, F_OK) ? 0 : write_step(EVENTS "/enable", 0, "0", "disable", reply);
	if (error)
		return error;
	error = file_write(TRACEFS "/kprobe_events", O_TRUNC, "", 0, &op);
	if (error)
		return reply_fail(reply, "kprobe_events", -error, NULL);
	return 0;
}

/* Add the lines of @data, comments left out. */
static void report_lines(struct reply *reply, const char *data, size_t size)
{
	json_begin(&reply->fields, "lines", '[');
	while (size) {
		const char *end = memchr(data, '\n', size);
		size_t length = end ? (size_t)(end - data) : size;

		if (length && *data != '#')
			json_bytes(&reply->fields, NULL, data, length);
		length += end ? 1 : 0;
		data += length;
		size -= length;
	}
	json_end(&reply->fields, ']');
}

static int run_trace_read(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *op;
	char *data;
	long size;
	int error = require_tracefs(reply);

	(void)probe;
	(void)args;
	if (error)
		return error;
	data = malloc(TRACE_MAX);
	if (!data)
		return reply_fail(reply, "malloc", ENOMEM, NULL);
	size = file_read(TRACEFS "/trace", data, TRACE_MAX, &op);
	if (size >= 0) {
		report_lines(reply, data, (size_t)size);
		json_bool(&reply->fields, "truncated", size == TRACE_MAX);
	} else {
		error = reply_fail(reply, op, (int)-size, NULL);
	}
	free(data);
	return error;
}

/* Opening the trace for writing with O_TRUNC empties it; nothing is written. */
static int run_trace_clear(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = require_tracefs(reply);
	const char *op;

	(void)probe;
	(void)args;
	if (error)
		return error;
	error = file_write(TRACEFS "/trace", O_TRUNC, "", 0, &op);
	if (error)
		return reply_fail(reply, op, -error, NULL);
	return 0;
}

static const struct key kprobe_set_keys[] = { { "spec", KEY_TEXT, NEED, NULL }, { 0 } };

const struct command kprobe_commands[] = {
	{ "kprobe-set", kprobe_set_keys, run_kprobe_set },
	{ "kprobe-clear", keys_none, run_kprobe_clear },
	{ "trace-read", keys_none, run_trace_read },
	{ "trace-clear", keys_none, run_trace_clear },
	{ 0 },
};
