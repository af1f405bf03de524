// SPDX-License-Identifier: GPL-2.0-or-later
#include "buffer.h"

#include <errno.h>
#include <linux/memfd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "probe.h"

#define BUFFER_ALIGN_MAX (1ull << 30)
#define HUGE_PAGE_SIZE (2ull << 20)

static struct buffer *find_buffer(struct buffer *buffers, const char *name)
{
	while (buffers && strcmp(buffers->name, name))
		buffers = buffers->next;
	return buffers;
}

int buffer_range(struct buffer *buffers, const char *name, uint64_t offset, uint64_t size,
		 struct range *ret, struct reply *reply)
{
	struct buffer *buffer = find_buffer(buffers, name);

	if (!buffer)
		return reply_fail(reply, "buffer", ENOENT, "no buffer '%.40s'", name);
	if (size == SIZE_MAX) {
		if (offset > buffer->size)
			return reply_fail(reply, "buffer", ERANGE, "offset is beyond '%s'",
					  buffer->name);
		size = buffer->size - offset;
	}
	if (offset > buffer->capacity || size > buffer->capacity - offset)
		return reply_fail(reply, "buffer", ERANGE, "range is beyond '%s' (%zu bytes)",
				  buffer->name, buffer->capacity);
	*ret = (struct range){ .buffer = buffer, .offset = offset, .size = size };
	return 0;
}

int buffer_range_args(struct buffer *buffers, const struct args *args, struct range *ret,
		      struct reply *reply)
{
	return buffer_range(buffers, arg_text(args, "name"), arg_number(args, "offset", 0),
			    arg_number(args, "size", SIZE_MAX), ret, reply);
}

/* Map @capacity bytes at a multiple of @align; what the alignment wastes is unmapped. */
static uint8_t *map_aligned(size_t capacity, size_t align, bool huge)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | (huge ? MAP_HUGETLB : 0);
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	/* Huge pages are aligned by the kernel; their mapping cannot be trimmed. */
	size_t slack = !huge && align > page ? align - page : 0;
	uint8_t *start, *data;

	start = mmap(NULL, capacity + slack, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (start == MAP_FAILED)
		return NULL;
	data = start + (-(uintptr_t)start & (align - 1));
	if (data + capacity > start + capacity + slack) {
		munmap(start, capacity + slack);
		errno = EINVAL;
		return NULL;
	}
	if (data > start)
		munmap(start, (size_t)(data - start));
	if (data < start + slack)
		munmap(data + capacity, (size_t)(start + slack - data));
	return data;
}

/* Map @fd again and again over the @capacity bytes at @start. Return 0 or -errno. */
static int repeat(uint8_t *start, size_t capacity, int fd, size_t alias)
{
	for (size_t offset = 0; offset < capacity; offset += alias)
		if (mmap(start + offset, alias, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd,
			 0) == MAP_FAILED)
			return -errno;
	return 0;
}

/* The same @alias bytes until @capacity is full: more than there is memory. */
static uint8_t *map_alias(size_t capacity, size_t alias, bool huge)
{
	size_t slack = huge ? HUGE_PAGE_SIZE : 0;
	int fd = memfd_create("alias", MFD_CLOEXEC | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0));
	uint8_t *start = MAP_FAILED, *data = NULL;
	int error = 0;

	if (fd < 0 || ftruncate(fd, (off_t)alias))
		error = -errno;
	/* Nothing but the addresses; what the alignment wastes stays without access. */
	if (!error)
		start = mmap(NULL, capacity + slack, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (!error && start == MAP_FAILED)
		error = -errno;
	if (!error) {
		data = slack ? start + (-(uintptr_t)start & (slack - 1)) : start;
		error = repeat(data, capacity, fd, alias);
	}
	if (error && start != MAP_FAILED)
		munmap(start, capacity + slack);
	if (fd >= 0)
		close(fd);
	errno = -error;
	return error ? NULL : data;
}

/*
 * Bring in every page now, so that no page fault falls into a measurement. Asking
 * for more than is free would not fail: the OOM killer would end us.
 */
static int populate(uint8_t *data, size_t capacity, bool huge)
{
	struct sysinfo info;
	size_t page = (size_t)sysconf(_SC_PAGESIZE);

	if (!huge && !sysinfo(&info) && capacity / info.mem_unit > info.freeram)
		return -ENOMEM;
	for (size_t offset = 0; offset < capacity; offset += page)
		((volatile uint8_t *)data)[offset] = 0;
	return 0;
}

static int check_new_buffer(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *name = arg_text(args, "name");
	uint64_t size = arg_number(args, "size", 0);
	uint64_t align = arg_number(args, "align", 1);
	uint64_t alias = arg_number(args, "alias", size);
	uint64_t page = arg_number(args, "huge", 0) ? HUGE_PAGE_SIZE :
						      (uint64_t)sysconf(_SC_PAGESIZE);

	if (!*name || strlen(name) >= BUFFER_NAME_SIZE)
		return reply_fail(reply, "parse", EINVAL, "bad buffer name '%.40s'", name);
	if (find_buffer(probe->buffers, name))
		return reply_fail(reply, "buffer", EEXIST, "buffer '%s' exists", name);
	if (!size || size > 1ull << 40)
		return reply_fail(reply, "parse", EINVAL, "bad size");
	if (!align || (align & (align - 1)) || align > BUFFER_ALIGN_MAX)
		return reply_fail(reply, "parse", EINVAL, "align is no power of two up to 1 GiB");
	if (arg_has(args, "alias") && (!alias || alias % page || size % alias))
		return reply_fail(reply, "parse", EINVAL, "size is no multiple of alias");
	return 0;
}

/* Memory of the kind in the keys, every page of it there. */
static int get_memory(const struct args *args, size_t capacity, uint8_t **ret, struct reply *reply)
{
	bool huge = arg_number(args, "huge", 0);
	uint8_t *data;
	int error;

	if (arg_has(args, "alias"))
		data = map_alias(capacity, arg_number(args, "alias", 0), huge);
	else
		data = map_aligned(capacity, arg_number(args, "align", 1), huge);
	if (!data)
		return reply_fail(reply, "mmap", errno, NULL);
	error = populate(data, arg_number(args, "alias", capacity), huge);
	if (error) {
		munmap(data, capacity);
		return reply_fail(reply, "populate", -error, "less memory than that is free");
	}
	*ret = data;
	return 0;
}

static int run_buf(struct probe *probe, const struct args *args, struct reply *reply)
{
	bool huge = arg_number(args, "huge", 0);
	uint64_t page = huge ? HUGE_PAGE_SIZE : (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t size = arg_number(args, "size", 0);
	size_t capacity = (size + page - 1) & ~(page - 1);
	struct buffer *buffer;
	int error = check_new_buffer(probe, args, reply);

	if (error)
		return error;
	buffer = calloc(1, sizeof(*buffer));
	if (!buffer)
		return reply_fail(reply, "buffer", ENOMEM, NULL);
	error = get_memory(args, capacity, &buffer->data, reply);
	if (error) {
		free(buffer);
		return error;
	}
	strcpy(buffer->name, arg_text(args, "name"));
	buffer->size = size;
	buffer->distinct = arg_number(args, "alias", size);
	buffer->capacity = capacity;
	buffer->next = probe->buffers;
	probe->buffers = buffer;
	json_number(&reply->fields, "address", (uintptr_t)buffer->data);
	json_number(&reply->fields, "size", buffer->size);
	json_number(&reply->fields, "capacity", buffer->capacity);
	return 0;
}

static void free_first(struct buffer **link)
{
	struct buffer *buffer = *link;

	*link = buffer->next;
	munmap(buffer->data, buffer->capacity);
	free(buffer);
}

void buffer_free_all(struct buffer **buffers)
{
	while (*buffers)
		free_first(buffers);
}

/* Pages that are mapped for DMA stay pinned until they are unmapped there too. */
static int run_buf_free(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct buffer **link = &probe->buffers;

	while (*link && strcmp((*link)->name, arg_text(args, "name")))
		link = &(*link)->next;
	if (!*link)
		return reply_fail(reply, "buffer", ENOENT, "no buffer '%.40s'",
				  arg_text(args, "name"));
	free_first(link);
	return 0;
}

static const struct key buf_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },   { "size", KEY_NUMBER, NEED, NULL },
	{ "align", KEY_NUMBER, MAY, NULL }, { "huge", KEY_CHOICE, MAY, choices_bool },
	{ "alias", KEY_NUMBER, MAY, NULL }, { 0 },
};

static const struct key name_keys[] = { { "name", KEY_TEXT, NEED, NULL }, { 0 } };

const struct command buffer_commands[] = {
	{ "buf", buf_keys, run_buf },
	{ "buf-free", name_keys, run_buf_free },
	{ 0 },
};
