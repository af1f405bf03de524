// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vfio-probe: does what a VFIO user does, one step at a time, and says what came
 * of each step. Commands come as lines on stdin, or as arguments, one line each.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "mmio.h"
#include "probe.h"

static const struct command *const tables[] = {
	system_commands,  sysfs_commands,   bind_commands,    kprobe_commands,
	kmsg_commands,    buffer_commands,  content_commands, vfio_commands,
	region_commands,  dma_map_commands, irq_commands,     engine_commands,
	iommufd_commands, device_commands,  race_commands,    storm_commands,
};

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
		for (const struct command *command = tables[i]; command->name; command++)
			if (!strcmp(command->name, name))
				return command;
	return NULL;
}

/* Run one line. Return 1 if the command failed, -errno if the reply got lost. */
static int run_line(struct probe *probe, char *line)
{
	struct reply reply = { 0 };
	const char *name = parse_command(&line);
	const struct command *command = find_command(name);
	struct args args;
	int error = 0;

	if (!command)
		reply_fail(&reply, "parse", EINVAL, "unknown command '%.80s'", name);
	else if (!parse_args(line, command->keys, &args, &reply))
		command->run(probe, &args, &reply);
	if (!reply.quiet || reply.error)
		error = reply_send(&reply, name);
	if (!error && reply.error)
		error = 1;
	reply_deinit(&reply);
	return error;
}

/* A line that cannot be a command still gets its one reply. */
static int refuse_line(int error, const char *text)
{
	struct reply reply = { 0 };
	int lost;

	reply_fail(&reply, "parse", error, "%s", text);
	lost = reply_send(&reply, "");
	reply_deinit(&reply);
	return lost ? lost : 1;
}

/*
 * Read one line without its end. Return its length, EOF, or -errno for a line
 * that was too long (it is skipped) or held a NUL byte.
 */
static int read_line(char *line, size_t size)
{
	size_t length = 0;
	int error = 0, c;

	while ((c = getchar()) != EOF && c != '\n') {
		if (length + 1 == size)
			error = -E2BIG;
		else if (!c)
			error = -EINVAL;
		else
			line[length++] = (char)c;
	}
	line[length] = '\0';
	if (c == EOF && !length && !error)
		return EOF;
	return error ? error : (int)length;
}

static int run_input(struct probe *probe)
{
	static char line[COMMAND_LINE_SIZE];
	int length, error;

	_Static_assert(EOF == -1 && E2BIG > 1 && EINVAL > 1, "EOF is no line error");
	while ((length = read_line(line, sizeof(line))) != EOF) {
		if (length == -E2BIG)
			error = refuse_line(E2BIG, "the line is too long");
		else if (length < 0)
			error = refuse_line(EINVAL, "the line holds a NUL byte");
		else
			error = run_line(probe, line);
		if (error < 0)
			return 2;
	}
	return ferror(stdin) ? 2 : 0;
}

/* Every argument is run, also after a failure: a reply for each is the promise. */
static int run_arguments(struct probe *probe, int argc, char **argv)
{
	int status = 0;

	for (int i = 1; i < argc; i++) {
		int error = run_line(probe, argv[i]);

		if (error < 0)
			return 2;
		status |= error;
	}
	return status;
}

int main(int argc, char **argv)
{
	struct probe probe = { .kmsg = -1 };
	int status;

	devices_init(&probe);
	mmio_init();
	status = argc > 1 ? run_arguments(&probe, argc, argv) : run_input(&probe);
	devices_close(&probe);
	buffer_free_all(&probe.buffers);
	return status;
}
