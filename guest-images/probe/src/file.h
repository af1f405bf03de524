/* SPDX-License-Identifier: GPL-2.0-or-later */
/* file.h - small files as the kernel's interfaces want them. */
#ifndef PROBE_FILE_H
#define PROBE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "reply.h"

/*
 * Read at most @size bytes. Return their number, or -errno; @ret_op then names the
 * call that failed.
 */
long file_read(const char *path, char *data, size_t size, const char **ret_op);

/*
 * Write all of @data by one write(2), as attributes of the kernel need. @flags are
 * added to O_WRONLY. Return 0, or -errno with @ret_op as above.
 */
int file_write(const char *path, int flags, const char *data, size_t size, const char **ret_op);

/* Return 0 and the last component of a symbolic link, or -errno. */
int file_link_name(const char *path, char *ret, size_t size);

#endif /* PROBE_FILE_H */
