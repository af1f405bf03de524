// SPDX-License-Identifier: GPL-2.0-or-later
/* system.c - the guest itself. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
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

static int open_input(const char *path, struct reply *reply)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? reply_fail(reply, "open", errno, "%.200s", path) : fd;
}

/* Loads the kernel that "kexec" starts, with the command line of the running one. */
static int run_kexec_load(struct probe *probe, const struct args *args, struct reply *reply)
{
	char cmdline[4096];
	const char *op;
	int kernel, initrd, error = 0;
	long size = file_read("/proc/cmdline", cmdline, sizeof(cmdline), &op);

	(void)probe;
	if (size <= 0 || size == sizeof(cmdline))
		return reply_fail(reply, "read", size < 0 ? (int)-size : E2BIG, "/proc/cmdline");
	/* The newline; the length that the kernel is told counts the NUL. */
	cmdline[size - 1] = '\0';
	kernel = open_input(arg_text(args, "kernel"), reply);
	if (kernel < 0)
		return kernel;
	initrd = open_input(arg_text(args, "initrd"), reply);
	if (initrd < 0)
		error = initrd;
	else if (syscall(SYS_kexec_file_load, kernel, initrd, (unsigned long)size, cmdline, 0UL))
		error = reply_fail(reply, "kexec_file_load", errno, NULL);
	if (initrd >= 0)
		close(initrd);
	close(kernel);
	return error;
}

/* Ends this kernel. The reply goes out first: nobody is left to send it afterwards. */
static int leave(const char *command, int how, struct reply *reply)
{
	int error;

	if (geteuid())
		return reply_fail(reply, "reboot", EPERM, NULL);
	sync();
	error = reply_send(reply, command);
	if (error)
		fprintf(stderr, "vfio-probe: reply: %s\n", strerror(-error));
	reply->quiet = true;
	if (reboot(how))
		return reply_fail(reply, "reboot", errno, NULL);
	return 0;
}

static int run_poweroff(struct probe *probe, const struct args *args, struct reply *reply)
{
	(void)probe;
	(void)args;
	return leave("poweroff", RB_POWER_OFF, reply);
}

static int run_kexec(struct probe *probe, const struct args *args, struct reply *reply)
{
	(void)probe;
	(void)args;
	return leave("kexec", RB_KEXEC, reply);
}

static const struct key kexec_keys[] = {
	{ "kernel", KEY_TEXT, NEED, NULL },
	{ "initrd", KEY_TEXT, NEED, NULL },
	{ 0 },
};

static const struct key beacon_keys[] = { { "dev", KEY_TEXT, MAY, NULL }, { 0 } };

const struct command system_commands[] = {
	{ "hello", keys_none, run_hello },
	{ "beacon", beacon_keys, run_beacon },
	{ "sync", keys_none, run_sync },
	{ "poweroff", keys_none, run_poweroff },
	{ "kexec-load", kexec_keys, run_kexec_load },
	{ "kexec", keys_none, run_kexec },
	{ 0 },
};
