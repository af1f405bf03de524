// SPDX-License-Identifier: GPL-2.0-or-later
/* sysfs.c - commands on files and folders. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "file.h"
#include "probe.h"

#define READ_DEFAULT 65536
#define READ_MAX (1 << 20)

static int run_read(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t max = arg_number(args, "max", READ_DEFAULT);
	const char *op;
	char *data;
	long size;

	(void)probe;
	if (!max || max > READ_MAX)
		return reply_fail(reply, "parse", EINVAL, "max is not in 1..%d", READ_MAX);
	/* One byte more tells a file that ends there from one that goes on. */
	data = malloc(max + 1);
	if (!data)
		return reply_fail(reply, "malloc", ENOMEM, NULL);
	size = file_read(arg_text(args, "path"), data, max + 1, &op);
	if (size < 0) {
		free(data);
		return reply_fail(reply, op, (int)-size, NULL);
	}
	json_bool(&reply->fields, "truncated", (uint64_t)size > max);
	json_bytes(&reply->fields, "text", data, (uint64_t)size > max ? max : (size_t)size);
	free(data);
	return 0;
}

/* A little-endian number out of a binary file, such as a configuration space. */
static int run_read_at(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t size = arg_number(args, "size", 0), value = 0;
	ssize_t done;
	int fd;

	(void)probe;
	if (size != 1 && size != 2 && size != 4 && size != 8)
		return reply_fail(reply, "parse", EINVAL, "size is not 1, 2, 4 or 8");
	fd = open(arg_text(args, "path"), O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return reply_fail(reply, "open", errno, NULL);
	done = pread(fd, &value, size, (off_t)arg_number(args, "offset", 0));
	if (done < 0)
		reply_fail(reply, "read", errno, NULL);
	else if ((uint64_t)done != size)
		reply_fail(reply, "read", ENODATA, "it ends before that");
	else
		json_number(&reply->fields, "value", value);
	close(fd);
	return -reply->error;
}

static int run_write(struct probe *probe, const struct args *args, struct reply *reply)
{
	const struct value *data = arg_value(args, "data");
	const char *op;
	int error;

	(void)probe;
	error = file_write(arg_text(args, "path"), 0, data->text, data->size, &op);
	if (error)
		return reply_fail(reply, op, -error, NULL);
	json_number(&reply->fields, "written", data->size);
	return 0;
}

static int run_list(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct dirent **entries;
	int count;

	(void)probe;
	count = scandir(arg_text(args, "path"), &entries, NULL, alphasort);
	if (count < 0)
		return reply_fail(reply, "scandir", errno, NULL);
	json_begin(&reply->fields, "names", '[');
	for (int i = 0; i < count; i++) {
		const char *name = entries[i]->d_name;

		if (strcmp(name, ".") && strcmp(name, ".."))
			json_text(&reply->fields, NULL, name);
		free(entries[i]);
	}
	json_end(&reply->fields, ']');
	free(entries);
	return 0;
}

static int run_readlink(struct probe *probe, const struct args *args, struct reply *reply)
{
	char target[PATH_MAX];
	ssize_t length = readlink(arg_text(args, "path"), target, sizeof(target));

	(void)probe;
	if (length < 0)
		return reply_fail(reply, "readlink", errno, NULL);
	json_bytes(&reply->fields, "target", target, (size_t)length);
	return 0;
}

static const struct key path_keys[] = { { "path", KEY_TEXT, NEED, NULL }, { 0 } };

static const struct key read_keys[] = {
	{ "path", KEY_TEXT, NEED, NULL },
	{ "max", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

static const struct key read_at_keys[] = {
	{ "path", KEY_TEXT, NEED, NULL },
	{ "offset", KEY_NUMBER, NEED, NULL },
	{ "size", KEY_NUMBER, NEED, NULL },
	{ 0 },
};

static const struct key write_keys[] = {
	{ "path", KEY_TEXT, NEED, NULL },
	{ "data", KEY_BYTES, NEED, NULL },
	{ 0 },
};

const struct command sysfs_commands[] = {
	{ "read", read_keys, run_read },         { "read-at", read_at_keys, run_read_at },
	{ "write", write_keys, run_write },      { "list", path_keys, run_list },
	{ "readlink", path_keys, run_readlink }, { 0 },
};
