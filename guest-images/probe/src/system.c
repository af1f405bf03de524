// SPDX-License-Identifier: GPL-2.0-or-later
/* system.c - the guest itself. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "clock.h"
#include "file.h"
#include "probe.h"

static int run_hello(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct utsname name;

	(void)probe;
	(void)args;
	if (uname(&name))
		return reply_fail(reply, "uname", errno, NULL);
	json_number(&reply->fields, "version", PROBE_VERSION);
	json_text(&reply->fields, "release", name.release);
	json_text(&reply->fields, "machine", name.machine);
	json_number(&reply->fields, "page_size", (uint64_t)sysconf(_SC_PAGESIZE));
	json_number(&reply->fields, "monotonic_ns", clock_ns());
	return 0;
}

/*
 * The line that says "ready" carries the guest's clock: the host's clock when it
 * reads the line minus this one is the offset between the two time axes.
 */
static void format_beacon(struct json *line, const char *release)
{
	static const char head[] = "VIOTEST-BEACON {";

	json_raw(line, head, sizeof(head) - 1);
	json_number(line, "monotonic_ns", clock_ns());
	json_text(line, "release", release);
	json_raw(line, "}\n", 2);
}

static int run_beacon(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *dev = arg_text(args, "dev");
	struct json line = { 0 };
	struct utsname name;
	const char *op;
	int error = 0;

	(void)probe;
	if (uname(&name))
		return reply_fail(reply, "uname", errno, NULL);
	format_beacon(&line, name.release);
	if (dev) {
		error = file_write(dev, 0, line.data, line.size, &op);
		if (error)
			reply_fail(reply, op, -error, NULL);
	} else if (fwrite(line.data, 1, line.size, stdout) != line.size || fflush(stdout)) {
		error = reply_fail(reply, "write", EIO, NULL);
	}
	/* On stdout the beacon is the only line: it takes the place of the reply. */
	reply->quiet = !dev;
	json_deinit(&line);
	return error;
}

static int run_sync(struct probe *probe, const struct args *args, struct reply *reply)
{
	(void)probe;
	(void)args;
	(void)reply;
	sync();
	return 0;
}

/* The reply goes out first: nobody is left to send it afterwards. */
static int run_poweroff(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error;

	(void)probe;
	(void)args;
	if (geteuid())
		return reply_fail(reply, "reboot", EPERM, NULL);
	sync();
	error = reply_send(reply, "poweroff");
	if (error)
		fprintf(stderr, "vfio-probe: reply: %s\n", strerror(-error));
	reply->quiet = true;
	if (reboot(RB_POWER_OFF))
		return reply_fail(reply, "reboot", errno, NULL);
	return 0;
}

static const struct key beacon_keys[] = { { "dev", KEY_TEXT, MAY, NULL }, { 0 } };

const struct command system_commands[] = {
	{ "hello", keys_none, run_hello },
	{ "beacon", beacon_keys, run_beacon },
	{ "sync", keys_none, run_sync },
	{ "poweroff", keys_none, run_poweroff },
	{ 0 },
};
