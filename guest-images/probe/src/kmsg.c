// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * kmsg.c - the kernel's log, every record once.
 *
 * The open file keeps the position. Stamps are the kernel's local clock in
 * microseconds, which is not CLOCK_MONOTONIC: 0.1 s apart was seen under TCG. The
 * text keeps the kernel's \xNN escapes.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "probe.h"

#define RECORD_SIZE 8192 /* the kernel's own bound: a smaller read fails */
#define REPLY_MAX (256 << 10)

static int open_kmsg(struct probe *probe, struct reply *reply)
{
	if (probe->kmsg >= 0)
		return 0;
	probe->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (probe->kmsg < 0)
		return reply_fail(reply, "open:/dev/kmsg", errno, NULL);
	return 0;
}

/* Parse one decimal field of "priority,sequence,microseconds,flags;". */
static const char *parse_field(const char *text, uint64_t *ret)
{
	*ret = 0;
	while (*text >= '0' && *text <= '9')
		*ret = *ret * 10 + (uint64_t)(*text++ - '0');
	return *text == ',' ? text + 1 : text;
}

static void report_record(struct json *fields, const char *record)
{
	uint64_t priority, sequence, microseconds;
	const char *text = strchr(record, ';');
	const char *head = parse_field(record, &priority);

	head = parse_field(head, &sequence);
	parse_field(head, &microseconds);
	text = text ? text + 1 : record;
	json_begin(fields, NULL, '{');
	json_number(fields, "ns", microseconds * NS_PER_US);
	json_number(fields, "level", priority & 7);
	/* Lines after the first are the record's dictionary. */
	json_bytes(fields, "text", text, strcspn(text, "\n"));
	json_end(fields, '}');
}

static int read_records(struct probe *probe, struct reply *reply, uint64_t *ret_lost)
{
	char record[RECORD_SIZE + 1];

	while (reply->fields.size < REPLY_MAX) {
		ssize_t size = read(probe->kmsg, record, RECORD_SIZE);

		if (size < 0 && errno == EPIPE) {
			/* Records were overwritten before we came; the next read goes on. */
			++*ret_lost;
			continue;
		}
		if (size < 0)
			return errno == EAGAIN ? 0 : -errno;
		if (!size)
			return 0;
		record[size] = '\0';
		report_record(&reply->fields, record);
	}
	return 0;
}

/* Go where the caller wants to read on, and wait there for a record if asked to. */
static int seek_and_wait(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t timeout = arg_number(args, "timeout_ms", 0);

	if (timeout > TIMEOUT_MS_MAX)
		return reply_fail(reply, "parse", EINVAL, "timeout_ms is too long");
	if (arg_number(args, "rewind", 0) && lseek(probe->kmsg, 0, SEEK_SET) < 0)
		return reply_fail(reply, "lseek", errno, NULL);
	if (arg_number(args, "clear", 0) && lseek(probe->kmsg, 0, SEEK_END) < 0)
		return reply_fail(reply, "lseek", errno, NULL);
	if (timeout && clock_poll(probe->kmsg, timeout * NS_PER_MS) < 0)
		return reply_fail(reply, "ppoll", errno, NULL);
	return 0;
}

static int run_dmesg(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t gaps = 0;
	int error = open_kmsg(probe, reply);

	if (!error)
		error = seek_and_wait(probe, args, reply);
	if (error)
		return error;
	json_begin(&reply->fields, "lines", '[');
	error = read_records(probe, reply, &gaps);
	json_end(&reply->fields, ']');
	json_number(&reply->fields, "gaps", gaps);
	json_bool(&reply->fields, "more", reply->fields.size >= REPLY_MAX);
	if (error)
		return reply_fail(reply, "read", -error, NULL);
	return 0;
}

static const struct key dmesg_keys[] = {
	{ "clear", KEY_CHOICE, MAY, choices_bool },
	{ "rewind", KEY_CHOICE, MAY, choices_bool },
	{ "timeout_ms", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

const struct command kmsg_commands[] = {
	{ "dmesg", dmesg_keys, run_dmesg },
	{ 0 },
};
