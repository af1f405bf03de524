// SPDX-License-Identifier: GPL-2.0-or-later
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

long file_read(const char *path, char *data, size_t size, const char **ret_op)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	long error = 0;

	if (fd < 0) {
		*ret_op = "open";
		return -errno;
	}
	while (done < size) {
		ssize_t count = read(fd, data + done, size - done);

		if (count < 0) {
			*ret_op = "read";
			error = -errno;
		}
		if (count <= 0)
			break;
		done += (size_t)count;
	}
	close(fd);
	return error ? error : (long)done;
}

int file_write(const char *path, int flags, const char *data, size_t size, const char **ret_op)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOCTTY | flags);
	ssize_t count;
	int error = 0;

	if (fd < 0) {
		*ret_op = "open";
		return -errno;
	}
	count = write(fd, data, size);
	if (count < 0)
		error = -errno;
	else if ((size_t)count != size)
		error = -EIO;
	if (close(fd) && !error)
		error = -errno;
	if (error)
		*ret_op = "write";
	return error;
}

int file_link_name(const char *path, char *ret, size_t size)
{
	char target[PATH_MAX];
	ssize_t length = readlink(path, target, sizeof(target) - 1);
	const char *name;

	if (length < 0)
		return -errno;
	target[length] = '\0';
	name = strrchr(target, '/');
	name = name ? name + 1 : target;
	if (strlen(name) >= size)
		return -ENAMETOOLONG;
	strcpy(ret, name);
	return 0;
}
