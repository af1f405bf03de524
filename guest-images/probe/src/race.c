// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * race.c - take memory away from an endpoint that is writing to it.
 *
 * In C, because the interesting moment is short: right after the call that takes the
 * memory away has returned, it is overwritten with a guard, and whatever the endpoint
 * still writes shows.
 */
#include <errno.h>
#include <string.h>

#include "clock.h"
#include "pattern.h"
#include "probe.h"

#define ROUNDS_MAX 100000u
#define WAIT_NS (30 * NS_PER_SEC)
/* What the endpoint writes: no byte of it may be the guard. */
#define PATTERN 0x5a5a5a5a5a5a5a5aull

/* The order of choices_how[]. */
enum how { HOW_UNMAP, HOW_DETACH, HOW_CLOSE };

static const char *const choices_how[] = { "unmap", "detach", "close", NULL };

struct race {
	enum how how;
	struct buffer *buffer;
	uint64_t iova;
	uint32_t nr_slots;
	uint64_t nr_rounds;
	uint64_t delay_ns; /* of the last round; the first has none */
	uint8_t guard;
};

struct race_result {
	uint64_t nr_rounds;
	uint64_t nr_ok; /* transactions that had ended before */
	uint64_t nr_cut; /* that were refused something on their way */
	uint64_t nr_other;
	uint64_t longest_ns; /* of the call that takes the memory away */
	bool dirty;
	uint64_t first_dirty;
};

static int map_all(struct vfio *vfio, const struct race *race, struct reply *reply)
{
	struct vfio_mapping mapping = {
		.ioas = vfio->ioas,
		.read = true,
		.write = true,
		.iova = race->iova,
		.size = race->buffer->capacity,
		.vaddr = (uintptr_t)race->buffer->data,
	};
	int error = vfio->backend->map(vfio, &mapping);

	return error ? reply_fail(reply, vfio->backend->map_step, -error, NULL) : 0;
}

static int unmap_all(struct vfio *vfio, const struct race *race, struct reply *reply)
{
	uint64_t size = race->buffer->capacity;
	int error = vfio->backend->unmap(vfio, vfio->ioas, race->iova, &size);

	if (error)
		return reply_fail(reply, vfio->backend->unmap_step, -error, NULL);
	if (size != race->buffer->capacity)
		return reply_fail(reply, vfio->backend->unmap_step, ERANGE,
				  "%llu bytes unmapped instead of %llu", (unsigned long long)size,
				  (unsigned long long)race->buffer->capacity);
	return 0;
}

static int take_away(struct vfio *vfio, const struct race *race, struct reply *reply)
{
	switch (race->how) {
	case HOW_UNMAP:
		return unmap_all(vfio, race, reply);
	case HOW_DETACH:
		return vfio->backend->detach(vfio, reply);
	case HOW_CLOSE:
		break;
	}
	vfio_close(vfio);
	return 0;
}

/* Undo take_away(), for the next round; or with the last one for whoever comes next. */
static int restore(struct vfio *vfio, const struct race *race, bool last, struct reply *reply)
{
	if (race->how == HOW_UNMAP)
		return last ? 0 : map_all(vfio, race, reply);
	if (race->how == HOW_CLOSE)
		return 0;
	if (vfio->backend->attach(vfio, reply))
		return -reply->error;
	return last ? unmap_all(vfio, race, reply) : 0;
}

static int submit_all(struct probe *probe, const struct race *race, struct reply *reply)
{
	struct engine_transaction transaction = {
		.opcode = DMA_OP_FILL,
		.iova = race->iova,
		.operand = PATTERN,
		.length = race->buffer->capacity,
	};
	int error = 0;

	for (; transaction.slot < race->nr_slots && !error; transaction.slot++)
		error = engine_submit(&probe->engine, &probe->vfio, &transaction, reply);
	return error;
}

/* Wait until every transaction has ended, and count how. */
static int tally(struct probe *probe, const struct race *race, struct race_result *result,
		 struct reply *reply)
{
	uint64_t deadline = clock_ns() + WAIT_NS;

	for (uint32_t slot = 0; slot < race->nr_slots; slot++) {
		struct engine_result ended;
		const char *op;
		int error = engine_wait(&probe->engine, &probe->vfio, slot, deadline, &ended, &op);

		if (error)
			return reply_fail(reply, op, -error, NULL);
		if (ended.status == DMA_STATUS_OK)
			result->nr_ok++;
		else if (ended.status == DMA_STATUS_FAULT &&
			 ended.fault_addr - race->iova < race->buffer->capacity)
			result->nr_cut++;
		else
			result->nr_other++;
	}
	return 0;
}

static void look(const struct race *race, struct race_result *result)
{
	const struct buffer *buffer = race->buffer;
	size_t first = pattern_find_other(buffer->data, buffer->distinct, race->guard);

	if (result->dirty || first == buffer->distinct)
		return;
	result->dirty = true;
	result->first_dirty = first;
}

static int run_round(struct probe *probe, const struct race *race, struct race_result *result,
		     struct reply *reply)
{
	uint64_t steps = race->nr_rounds > 1 ? race->nr_rounds - 1 : 1;
	uint64_t delay = race->delay_ns * result->nr_rounds / steps;
	uint64_t start, took;
	int error = submit_all(probe, race, reply);

	if (error)
		return error;
	for (start = clock_ns(); clock_ns() - start < delay;)
		continue;
	start = clock_ns();
	error = take_away(&probe->vfio, race, reply);
	if (error)
		return error;
	took = clock_ns() - start;
	memset(race->buffer->data, race->guard, race->buffer->distinct);
	if (took > result->longest_ns)
		result->longest_ns = took;
	result->nr_rounds++;
	/* Closed, it tells nothing more: the caller looks at the buffer later again. */
	error = race->how == HOW_CLOSE ? 0 : tally(probe, race, result, reply);
	look(race, result);
	return error;
}

static void report(const struct race_result *result, struct json *fields)
{
	json_number(fields, "rounds", result->nr_rounds);
	json_number(fields, "nr_ok", result->nr_ok);
	json_number(fields, "nr_cut", result->nr_cut);
	json_number(fields, "nr_other", result->nr_other);
	json_number(fields, "longest_ns", result->longest_ns);
	if (result->dirty)
		json_number(fields, "first_dirty", result->first_dirty);
	else
		json_null(fields, "first_dirty");
}

static int parse_race(struct probe *probe, const struct args *args, struct race *ret,
		      struct reply *reply)
{
	uint64_t slots = arg_number(args, "slots", 16), guard = arg_number(args, "guard", 0xa5);
	struct race race = {
		.how = (enum how)arg_number(args, "how", HOW_UNMAP),
		.iova = arg_number(args, "iova", 0),
		.nr_rounds = arg_number(args, "rounds", 1),
		.delay_ns = arg_number(args, "delay_us", 0) * NS_PER_US,
		.guard = (uint8_t)guard,
	};
	struct range all;
	int error = engine_require(&probe->engine, &probe->vfio, reply);

	if (!error)
		error = buffer_range(probe->buffers, arg_text(args, "name"), 0, SIZE_MAX, &all,
				     reply);
	if (error)
		return error;
	if (!slots || slots > probe->engine.nr_slots || !race.nr_rounds ||
	    race.nr_rounds > ROUNDS_MAX || race.delay_ns > NS_PER_SEC || guard > 0xff ||
	    guard == (PATTERN & 0xff))
		return reply_fail(reply, "parse", EINVAL, "a number is out of range");
	if (race.how == HOW_DETACH && !probe->vfio.backend->detach)
		return reply_fail(reply, "parse", EINVAL, "mode %s cannot detach",
				  probe->vfio.backend->name);
	if (race.how == HOW_CLOSE && race.nr_rounds != 1)
		return reply_fail(reply, "parse", EINVAL, "a device is closed once");
	race.nr_slots = (uint32_t)slots;
	race.buffer = all.buffer;
	*ret = race;
	return 0;
}

/* Stops at the first byte that came too late: there is nothing more to learn. */
static int run_race(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct race_result result = { 0 };
	struct race race;
	int error = parse_race(probe, args, &race, reply);

	if (!error)
		error = map_all(&probe->vfio, &race, reply);
	while (!error && result.nr_rounds < race.nr_rounds && !result.dirty) {
		error = run_round(probe, &race, &result, reply);
		if (!error)
			error = restore(&probe->vfio, &race,
					result.dirty || result.nr_rounds == race.nr_rounds, reply);
	}
	report(&result, &reply->fields);
	return error;
}

static const struct key race_keys[] = {
	{ "name", KEY_TEXT, NEED, NULL },        { "iova", KEY_NUMBER, NEED, NULL },
	{ "how", KEY_CHOICE, MAY, choices_how }, { "slots", KEY_NUMBER, MAY, NULL },
	{ "rounds", KEY_NUMBER, MAY, NULL },     { "delay_us", KEY_NUMBER, MAY, NULL },
	{ "guard", KEY_NUMBER, MAY, NULL },      { 0 },
};

const struct command race_commands[] = {
	{ "race", race_keys, run_race },
	{ 0 },
};
