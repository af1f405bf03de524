// SPDX-License-Identifier: GPL-2.0-or-later
#include "reply.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "clock.h"

int reply_fail(struct reply *reply, const char *op, int error, const char *format, ...)
{
	va_list args;

	assert(error > 0);
	reply->error = error;
	snprintf(reply->op, sizeof(reply->op), "%s", op);
	if (!format) {
		snprintf(reply->text, sizeof(reply->text), "%s", strerror(error));
		return -error;
	}
	va_start(args, format);
	vsnprintf(reply->text, sizeof(reply->text), format, args);
	va_end(args);
	return -error;
}

int reply_send(struct reply *reply, const char *command)
{
	const char *name = strerrorname_np(reply->error);
	struct json line = { 0 };
	size_t written;

	json_begin(&line, NULL, '{');
	json_bool(&line, "ok", !reply->error);
	json_text(&line, "command", command);
	json_number(&line, "ns", clock_ns());
	if (reply->error) {
		json_text(&line, "op", reply->op);
		json_number(&line, "errno", (uint64_t)reply->error);
		json_text(&line, "error", name ? name : "unknown");
		json_text(&line, "text", reply->text);
	}
	if (reply->fields.size) {
		json_raw(&line, ",", 1);
		json_raw(&line, reply->fields.data, reply->fields.size);
	}
	json_raw(&line, "}\n", 2);
	written = fwrite(line.data, 1, line.size, stdout);
	if (written != line.size || fflush(stdout)) {
		json_deinit(&line);
		return -EIO;
	}
	json_deinit(&line);
	return 0;
}

void reply_deinit(struct reply *reply)
{
	json_deinit(&reply->fields);
}
