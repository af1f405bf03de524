/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * reply.h - the one line that answers one command.
 *
 * A handler adds fields to @fields; a failure adds the step that failed and its
 * errno, and keeps the fields known so far.
 */
#ifndef PROBE_REPLY_H
#define PROBE_REPLY_H

#include "json.h"

struct reply {
	struct json fields;
	char op[64]; /* the step that failed */
	char text[256];
	int error; /* errno of the failure, 0: none */
	bool quiet; /* the command wrote its own line */
};

/* Record a failure; a NULL @format gives strerror(). Return -@error. */
__attribute__((format(printf, 4, 5))) int reply_fail(struct reply *reply, const char *op, int error,
						     const char *format, ...);

/* Write the reply as one line to stdout and flush it. Return 0 or -errno. */
int reply_send(struct reply *reply, const char *command);

void reply_deinit(struct reply *reply);

#endif /* PROBE_REPLY_H */
