// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * storm.c - many interrupts, one after the other and at once, none of them lost.
 *
 * The engine counts the transactions that have ended, and whoever waits for them
 * sleeps until an interrupt comes. An event may stand for several ends that came
 * before anyone looked; but an end without any event behind it is never learnt of,
 * and that is a lost interrupt.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>

#include "clock.h"
#include "probe.h"

#define COUNT_MAX 10000000u

/* The order of choices_irq[]. */
static const enum engine_irq irq_of_choice[] = { ENGINE_IRQ_MSIX, ENGINE_IRQ_INTX, ENGINE_IRQ_MSI };

struct storm {
	enum irq_kind kind;
	enum engine_irq irq;
	unsigned int nr_vectors;
	uint32_t nr_slots; /* transactions at once: the same number on each vector */
	uint64_t count;
	uint64_t iova;
	uint64_t timeout_ns;
};

struct storm_result {
	uint64_t completed;
	uint64_t nr_events;
	bool lost;
	unsigned int lost_vector;
	uint64_t nr_seen; /* of the last wave: how many transactions had ended */
};

static struct engine_transaction transaction_of(const struct storm *storm, uint32_t slot)
{
	return (struct engine_transaction){
		.slot = slot,
		.opcode = DMA_OP_FILL,
		.irq = storm->irq,
		.vector = slot % storm->nr_vectors,
		.iova = storm->iova,
		.length = 8,
	};
}

/* Sleep until any of the vectors has something. Return 0 or -errno. */
static int sleep_for_event(struct vfio *vfio, const struct storm *storm, uint64_t ns)
{
	struct timespec timeout = {
		.tv_sec = (time_t)(ns / NS_PER_SEC),
		.tv_nsec = (long)(ns % NS_PER_SEC),
	};
	struct pollfd items[IRQ_VECTORS_MAX];

	for (unsigned int i = 0; i < storm->nr_vectors; i++)
		items[i] = (struct pollfd){ .fd = vfio->irqs[storm->kind].vectors[i].fd,
					    .events = POLLIN };
	return ppoll(items, storm->nr_vectors, &timeout, NULL) < 0 ? -errno : 0;
}

/* Count what has come. Return the first vector without an event since @before. */
static int collect_all(struct vfio *vfio, const struct storm *storm, const uint64_t *before,
		       unsigned int *ret_silent)
{
	unsigned int silent = storm->nr_vectors;

	for (unsigned int i = storm->nr_vectors; i-- > 0;) {
		int error = engine_collect(vfio, storm->irq, i);

		if (error)
			return error;
		if (vfio->irqs[storm->kind].vectors[i].total == before[i])
			silent = i;
	}
	*ret_silent = silent;
	return 0;
}

/* Sleep, and look only when woken, until the wave is known to be over. */
static int wait_for_wave(struct vfio *vfio, const struct storm *storm, const uint64_t *before,
			 uint64_t first, struct storm_result *result)
{
	uint64_t deadline = clock_ns() + storm->timeout_ns, now, completed;
	unsigned int silent;
	int error;

	for (;;) {
		now = clock_ns();
		error = collect_all(vfio, storm, before, &silent);
		if (!error)
			error = engine_completed(vfio, &completed);
		if (error)
			return error;
		result->nr_seen = completed - first;
		if (silent == storm->nr_vectors && result->nr_seen >= storm->nr_slots)
			return 0;
		if (now >= deadline)
			break;
		error = sleep_for_event(vfio, storm, deadline - now);
		if (error && error != -EINTR)
			return error;
	}
	result->lost = true;
	result->lost_vector = silent == storm->nr_vectors ? 0 : silent;
	return 0;
}

static uint64_t count_events(const struct vfio *vfio, const struct storm *storm)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < storm->nr_vectors; i++)
		sum += vfio->irqs[storm->kind].vectors[i].total;
	return sum;
}

static int run_wave(struct vfio *vfio, const struct storm *storm, struct storm_result *result)
{
	uint64_t before[IRQ_VECTORS_MAX], first;
	int error = engine_completed(vfio, &first);

	for (unsigned int i = 0; i < storm->nr_vectors; i++)
		before[i] = vfio->irqs[storm->kind].vectors[i].total;
	for (uint32_t slot = 0; slot < storm->nr_slots && !error; slot++) {
		struct engine_transaction transaction = transaction_of(storm, slot);

		error = engine_start(vfio, &transaction);
	}
	if (!error)
		error = wait_for_wave(vfio, storm, before, first, result);
	if (!error)
		result->completed += result->nr_seen;
	return error;
}

/* Fill in the slots, of which only the command is written again; and look once. */
static int prepare(struct vfio *vfio, const struct storm *storm)
{
	int error = 0;

	for (uint32_t slot = 0; slot < storm->nr_slots && !error; slot++) {
		struct engine_transaction transaction = transaction_of(storm, slot);

		error = engine_load(vfio, &transaction);
	}
	for (unsigned int i = 0; i < storm->nr_vectors && !error; i++)
		error = engine_collect(vfio, storm->irq, i);
	return error;
}

static int parse_storm(struct probe *probe, const struct args *args, struct storm *ret,
		       struct reply *reply)
{
	uint64_t at_once = arg_number(args, "burst", 1), nr_vectors;
	uint64_t timeout = arg_number(args, "timeout_ms", TIMEOUT_MS_DEFAULT);
	struct storm storm = {
		.kind = (enum irq_kind)arg_number(args, "index", IRQ_MSIX),
		.count = arg_number(args, "count", 0),
		.iova = arg_number(args, "iova", 0),
		.timeout_ns = timeout * NS_PER_MS,
	};
	int error = engine_require(&probe->engine, &probe->vfio, reply);

	if (error)
		return error;
	nr_vectors = arg_number(args, "vectors", probe->vfio.irqs[storm.kind].nr_vectors);
	if (!nr_vectors || nr_vectors > probe->vfio.irqs[storm.kind].nr_vectors)
		return reply_fail(reply, "irq", ENODEV, "%u vectors of %s are enabled",
				  probe->vfio.irqs[storm.kind].nr_vectors, choices_irq[storm.kind]);
	if (!at_once || at_once > probe->engine.nr_slots / nr_vectors || !storm.count ||
	    storm.count > COUNT_MAX || timeout > TIMEOUT_MS_MAX)
		return reply_fail(reply, "parse", EINVAL, "a number is out of range");
	storm.irq = irq_of_choice[storm.kind];
	storm.nr_vectors = (unsigned int)nr_vectors;
	storm.nr_slots = (uint32_t)(nr_vectors * at_once);
	*ret = storm;
	return 0;
}

static int run_storm(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct vfio *vfio = &probe->vfio;
	struct storm_result result = { 0 };
	uint64_t events = 0, start;
	struct storm storm;
	int error = parse_storm(probe, args, &storm, reply);

	if (error)
		return error;
	error = prepare(vfio, &storm);
	events = count_events(vfio, &storm);
	start = clock_ns();
	while (!error && !result.lost && result.completed < storm.count)
		error = run_wave(vfio, &storm, &result);
	json_number(&reply->fields, "completed", result.completed);
	json_number(&reply->fields, "events", count_events(vfio, &storm) - events);
	json_number(&reply->fields, "at_once", storm.nr_slots);
	json_number(&reply->fields, "elapsed_ns", clock_ns() - start);
	if (error)
		return reply_fail(reply, "storm", -error, NULL);
	if (result.lost)
		return reply_fail(reply, "storm", ETIMEDOUT,
				  "%llu of %u had ended, vector %u was silent",
				  (unsigned long long)result.nr_seen, storm.nr_slots,
				  result.lost_vector);
	return 0;
}

static const struct key storm_keys[] = {
	{ "iova", KEY_NUMBER, NEED, NULL },
	{ "count", KEY_NUMBER, NEED, NULL },
	{ "index", KEY_CHOICE, MAY, choices_irq },
	{ "vectors", KEY_NUMBER, MAY, NULL },
	{ "burst", KEY_NUMBER, MAY, NULL },
	{ "timeout_ms", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

const struct command storm_commands[] = {
	{ "irq-storm", storm_keys, run_storm },
	{ 0 },
};
