// SPDX-License-Identifier: GPL-2.0-or-later
/* dma_map.c - map and unmap buffers for the device. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "clock.h"
#include "probe.h"

#define BENCH_COUNT_MAX 1000000u

static const char *const choices_flags[] = { "rw", "r", "w", NULL };
static const __u32 flags_of_choice[] = {
	VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE,
	VFIO_DMA_MAP_FLAG_READ,
	VFIO_DMA_MAP_FLAG_WRITE,
};

static int run_map(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof(map) };
	struct range range;
	int error = vfio_require(vfio, reply);

	if (!error)
		error = buffer_range_args(probe->buffers, args, &range, reply);
	if (error)
		return error;
	/* VFIO maps whole pages; alignment that is asked for wrongly is its to refuse. */
	if (!arg_has(args, "size"))
		range.size = range.buffer->capacity - range.offset;
	map.flags = flags_of_choice[arg_number(args, "flags", 0)];
	map.vaddr = (uintptr_t)range.buffer->data + range.offset;
	map.iova = arg_number(args, "iova", 0);
	map.size = range.size;
	error = vfio->backend->map(vfio, &map);
	if (error)
		return reply_fail(reply, "VFIO_IOMMU_MAP_DMA", -error, NULL);
	json_number(&reply->fields, "iova", map.iova);
	json_number(&reply->fields, "size", map.size);
	return 0;
}

static int unmap(struct probe *probe, __u32 flags, uint64_t iova, uint64_t size,
		 struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	int error = vfio_require(vfio, reply);

	if (error)
		return error;
	error = vfio->backend->unmap(vfio, flags, iova, &size);
	if (error)
		return reply_fail(reply, "VFIO_IOMMU_UNMAP_DMA", -error, NULL);
	json_number(&reply->fields, "unmapped", size);
	return 0;
}

static int run_unmap(struct probe *probe, const struct args *args, struct reply *reply)
{
	return unmap(probe, 0, arg_number(args, "iova", 0), arg_number(args, "size", 0), reply);
}

static int run_unmap_all(struct probe *probe, const struct args *args, struct reply *reply)
{
	(void)args;
	return unmap(probe, VFIO_DMA_UNMAP_FLAG_ALL, 0, 0, reply);
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

static int bench_loop(struct vfio *vfio, const struct vfio_iommu_type1_dma_map *map, uint64_t count,
		      struct timing *mapping, struct timing *unmapping, struct reply *reply)
{
	for (uint64_t i = 0; i < count; i++) {
		uint64_t size = map->size, start = clock_ns(), middle;
		int error = vfio->backend->map(vfio, map);

		if (error)
			return reply_fail(reply, "VFIO_IOMMU_MAP_DMA", -error, NULL);
		middle = clock_ns();
		error = vfio->backend->unmap(vfio, 0, map->iova, &size);
		if (error)
			return reply_fail(reply, "VFIO_IOMMU_UNMAP_DMA", -error, NULL);
		unmapping->ns[unmapping->nr++] = clock_ns() - middle;
		mapping->ns[mapping->nr++] = middle - start;
	}
	return 0;
}

static int time_maps(struct vfio *vfio, struct vfio_iommu_type1_dma_map *map, uint64_t count,
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
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags_of_choice[0],
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

static const struct key map_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "offset", KEY_NUMBER, MAY, NULL },
	{ "size", KEY_NUMBER, MAY, NULL },
	{ "flags", KEY_CHOICE, MAY, choices_flags },
	{ 0 },
};

static const struct key unmap_keys[] = {
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "size", KEY_NUMBER, NEED, NULL },
	{ 0 },
};

static const struct key bench_keys[] = {
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "size", KEY_NUMBER, NEED, NULL },
	{ "count", KEY_NUMBER, NEED, NULL },
	{ 0 },
};

const struct command dma_map_commands[] = {
	{ "map", map_keys, run_map },
	{ "unmap", unmap_keys, run_unmap },
	{ "unmap-all", keys_none, run_unmap_all },
	{ "bench-map", bench_keys, run_bench_map },
	{ 0 },
};
