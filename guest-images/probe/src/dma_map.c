// SPDX-License-Identifier: GPL-2.0-or-later
/* dma_map.c - map and unmap buffers for the device. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "probe.h"

#define BENCH_COUNT_MAX 1000000u
#define MANY_MAX 1000000u

static const char *const choices_flags[] = { "rw", "r", "w", NULL };

/* The IOAS in the key, or the mode's own; 0 where there are none. */
static int parse_ioas(const struct vfio *vfio, const struct args *args, uint32_t *ret,
		      struct reply *reply)
{
	uint64_t ioas = arg_number(args, "ioas", vfio->ioas);

	if (arg_has(args, "ioas") && !vfio->ioas)
		return reply_fail(reply, "parse", EINVAL, "mode %s has no IOAS",
				  vfio->backend->name);
	if (ioas > UINT32_MAX)
		return reply_fail(reply, "parse", EINVAL, "ioas is above 32 bits");
	*ret = (uint32_t)ioas;
	return 0;
}

static int run_map(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	const char *flags = choices_flags[arg_number(args, "flags", 0)];
	struct vfio_mapping mapping = {
		.read = strchr(flags, 'r') != NULL,
		.write = strchr(flags, 'w') != NULL,
		.iova = arg_number(args, "iova", 0),
	};
	struct range range;
	int error = vfio_require(vfio, reply);

	if (!error)
		error = parse_ioas(vfio, args, &mapping.ioas, reply);
	if (!error)
		error = buffer_range_args(probe->buffers, args, &range, reply);
	if (error)
		return error;
	/* VFIO maps whole pages; alignment that is asked for wrongly is its to refuse. */
	if (!arg_has(args, "size"))
		range.size = range.buffer->capacity - range.offset;
	mapping.vaddr = (uintptr_t)range.buffer->data + range.offset;
	mapping.size = range.size;
	error = vfio->backend->map(vfio, &mapping);
	if (error)
		return reply_fail(reply, vfio->backend->map_step, -error, NULL);
	json_number(&reply->fields, "iova", mapping.iova);
	json_number(&reply->fields, "size", mapping.size);
	return 0;
}

/*
 * The pages of a buffer again and again, each a mapping of its own, until the kernel
 * has enough of them: that is a result.
 */
static int run_map_many(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	struct vfio_mapping mapping = {
		.ioas = vfio->ioas,
		.read = true,
		.write = true,
		.iova = arg_number(args, "iova", 0),
		.size = (uint64_t)sysconf(_SC_PAGESIZE),
	};
	uint64_t count = arg_number(args, "count", 0), done = 0, start;
	struct range range;
	int error = vfio_require(vfio, reply);

	if (!error)
		error = buffer_range_args(probe->buffers, args, &range, reply);
	if (error)
		return error;
	if (!count || count > MANY_MAX || range.size < mapping.size)
		return reply_fail(reply, "parse", EINVAL, "count is not in 1..%u", MANY_MAX);
	start = clock_ns();
	for (; done < count; done++, mapping.iova += mapping.size) {
		uint64_t page = done % (range.size / mapping.size);

		mapping.vaddr = (uintptr_t)range.buffer->data + range.offset + page * mapping.size;
		error = vfio->backend->map(vfio, &mapping);
		if (error)
			break;
	}
	json_number(&reply->fields, "elapsed_ns", clock_ns() - start);
	json_number(&reply->fields, "mapped", done);
	json_text(&reply->fields, "refusal", error ? strerrorname_np(-error) : "");
	return 0;
}

static int report_unmap(const struct vfio *vfio, int error, uint64_t size, struct reply *reply)
{
	if (error)
		return reply_fail(reply, vfio->backend->unmap_step, -error, NULL);
	json_number(&reply->fields, "unmapped", size);
	return 0;
}

static int run_unmap(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	uint64_t size = arg_number(args, "size", 0);
	uint32_t ioas;
	int error = vfio_require(vfio, reply);

	if (!error)
		error = parse_ioas(vfio, args, &ioas, reply);
	if (error)
		return error;
	error = vfio->backend->unmap(vfio, ioas, arg_number(args, "iova", 0), &size);
	return report_unmap(vfio, error, size, reply);
}

static int run_unmap_all(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	uint64_t size = 0;
	uint32_t ioas;
	int error = vfio_require(vfio, reply);

	if (!error)
		error = parse_ioas(vfio, args, &ioas, reply);
	if (error)
		return error;
	error = vfio->backend->unmap_all(vfio, ioas, &size);
	return report_unmap(vfio, error, size, reply);
}

/* How long each of the calls took. */
struct timing {
	uint64_t *ns;
	uint64_t nr;
};

static int compare_ns(const void *a, const void *b)
{
	uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

	return (left > right) - (left < right);
}

/* The median says what a call takes, the mean what the guest's other work adds to it. */
static void timing_report(struct timing *timing, const char *key, struct json *fields)
{
	uint64_t sum = 0;

	qsort(timing->ns, timing->nr, sizeof(*timing->ns), compare_ns);
	for (uint64_t i = 0; i < timing->nr; i++)
		sum += timing->ns[i];
	json_begin(fields, key, '{');
	json_number(fields, "mean", sum / timing->nr);
	json_number(fields, "median", timing->ns[timing->nr / 2]);
	json_number(fields, "min", timing->ns[0]);
	json_number(fields, "max", timing->ns[timing->nr - 1]);
	json_end(fields, '}');
}

static int bench_loop(struct vfio *vfio, const struct vfio_mapping *map, uint64_t count,
		      struct timing *mapping, struct timing *unmapping, struct reply *reply)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t size = map->size, start = clock_ns(), middle;
		int error = vfio->backend->map(vfio, map);

		if (error)
			return reply_fail(reply, vfio->backend->map_step, -error, NULL);
		middle = clock_ns();
		error = vfio->backend->unmap(vfio, map->ioas, map->iova, &size);
		if (error)
			return reply_fail(reply, vfio->backend->unmap_step, -error, NULL);
		unmapping->ns[unmapping->nr++] = clock_ns() - middle;
		mapping->ns[mapping->nr++] = middle - start;
	}
	return 0;
}

static int time_maps(struct vfio *vfio, struct vfio_mapping *map, uint64_t count,
		     struct timing *mapping, struct timing *unmapping, struct reply *reply)
{
	void *memory = mmap(NULL, map->size, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	int error;

	if (memory == MAP_FAILED)
		return reply_fail(reply, "mmap", errno, NULL);
	map->vaddr = (uintptr_t)memory;
	error = bench_loop(vfio, map, count, mapping, unmapping, reply);
	munmap(memory, map->size);
	return error;
}

static int run_bench_map(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct timing mapping = { 0 }, unmapping = { 0 };
	uint64_t count = arg_number(args, "count", 0);
	struct vfio_mapping map = {
		.ioas = probe->vfio.ioas,
		.read = true,
		.write = true,
		.iova = arg_number(args, "iova", 0),
		.size = arg_number(args, "size", 0),
	};
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	if (!count || count > BENCH_COUNT_MAX)
		return reply_fail(reply, "parse", EINVAL, "count is not in 1..%u", BENCH_COUNT_MAX);
	mapping.ns = malloc(2 * count * sizeof(*mapping.ns));
	if (!mapping.ns)
		return reply_fail(reply, "malloc", ENOMEM, NULL);
	unmapping.ns = mapping.ns + count;
	/* Touched now: the first write to a page must not be part of a measurement. */
	memset(mapping.ns, 0, 2 * count * sizeof(*mapping.ns));
	error = time_maps(&probe->vfio, &map, count, &mapping, &unmapping, reply);
	if (!error) {
		json_number(&reply->fields, "count", count);
		timing_report(&mapping, "map_ns", &reply->fields);
		timing_report(&unmapping, "unmap_ns", &reply->fields);
	}
	free(mapping.ns);
	return error;
}

#define IOAS_KEY { "ioas", KEY_NUMBER, MAY, NULL }

static const struct key map_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "offset", KEY_NUMBER, MAY, NULL },
	{ "size", KEY_NUMBER, MAY, NULL },
	{ "flags", KEY_CHOICE, MAY, choices_flags },
	IOAS_KEY,
	{ 0 },
};

static const struct key many_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },    { "iova", KEY_NUMBER, NEED, NULL },
	{ "count", KEY_NUMBER, NEED, NULL }, { "offset", KEY_NUMBER, MAY, NULL },
	{ "size", KEY_NUMBER, MAY, NULL },   { 0 },
};

static const struct key unmap_keys[] = {
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "size", KEY_NUMBER, NEED, NULL },
	IOAS_KEY,
	{ 0 },
};

static const struct key unmap_all_keys[] = { IOAS_KEY, { 0 } };

static const struct key bench_keys[] = {
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "size", KEY_NUMBER, NEED, NULL },
	{ "count", KEY_NUMBER, NEED, NULL },
	{ 0 },
};

const struct command dma_map_commands[] = {
	{ "map", map_keys, run_map },
	{ "map-many", many_keys, run_map_many },
	{ "unmap", unmap_keys, run_unmap },
	{ "unmap-all", unmap_all_keys, run_unmap_all },
	{ "bench-map", bench_keys, run_bench_map },
	{ 0 },
};
