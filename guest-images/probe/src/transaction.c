// SPDX-License-Identifier: GPL-2.0-or-later
/* transaction.c - commands that run the dma engine, one slot or many. */
#include <errno.h>
#include <stdio.h>

#include "clock.h"
#include "probe.h"

static const char *const choices_op[] = { "read", "write", "copy", "fill", "checksum", NULL };
static const uint32_t opcode_of_choice[] = {
	DMA_OP_READ, DMA_OP_WRITE, DMA_OP_COPY, DMA_OP_FILL, DMA_OP_CHECKSUM,
};

/* The order of enum engine_irq. */
static const char *const choices_engine_irq[] = { "none", "msix", "intx", "msi", NULL };

static const char *const status_names[] = {
	"idle", "busy", "ok", "fault", "invalid", "no-bus-master", "aborted",
};

static const char *const fault_names[] = {
	"none", "domain", "mapping", "permission", "reserved", "bus",
};

static void report_name(struct json *fields, const char *key, const char *const *names,
			size_t nr_names, uint32_t value)
{
	char number[24];

	snprintf(number, sizeof(number), "unknown-%u", value);
	json_text(fields, key, value < nr_names ? names[value] : number);
}

#define REPORT_NAME(fields, key, names, value) \
	report_name(fields, key, names, sizeof(names) / sizeof((names)[0]), value)

static void report_result(struct json *fields, const struct engine_result *result)
{
	REPORT_NAME(fields, "status", status_names, result->status);
	json_number(fields, "done", result->done);
	json_number(fields, "result", result->result);
	json_number(fields, "fault_addr", result->fault_addr);
	REPORT_NAME(fields, "fault_reason", fault_names, result->fault_info & 0xff);
	json_bool(fields, "fault_write", (result->fault_info & 0x100) != 0);
}

static int run_engine_info(struct probe *probe, const struct args *args, struct reply *reply)
{
	int error = engine_require(&probe->engine, &probe->vfio, reply);

	(void)args;
	if (error)
		return error;
	json_number(&reply->fields, "magic", DMA_ENGINE_MAGIC_VALUE);
	json_number(&reply->fields, "version", probe->engine.version);
	json_number(&reply->fields, "nr_slots", probe->engine.nr_slots);
	json_number(&reply->fields, "nr_vectors", probe->engine.nr_vectors);
	return 0;
}

/* Check numbers that become narrower, and turn the timeout into a deadline. */
static int parse_deadline(const struct args *args, uint64_t *ret, struct reply *reply)
{
	uint64_t timeout = arg_number(args, "timeout_ms", TIMEOUT_MS_DEFAULT);

	if (timeout > TIMEOUT_MS_MAX)
		return reply_fail(reply, "parse", EINVAL, "timeout_ms is above %llu",
				  TIMEOUT_MS_MAX);
	*ret = clock_ns() + timeout * NS_PER_MS;
	return 0;
}

static int parse_slot(struct probe *probe, const struct args *args, const char *key, uint32_t *ret,
		      struct reply *reply)
{
	uint64_t slot = arg_number(args, key, 0);
	int error = engine_require(&probe->engine, &probe->vfio, reply);

	if (error)
		return error;
	if (slot >= probe->engine.nr_slots)
		return reply_fail(reply, "parse", EINVAL, "%s is not below %u", key,
				  probe->engine.nr_slots);
	*ret = (uint32_t)slot;
	return 0;
}

static int parse_transaction(struct probe *probe, const struct args *args, const char *slot_key,
			     struct engine_transaction *ret, struct reply *reply)
{
	uint64_t vector = arg_number(args, "vector", 0);
	struct engine_transaction transaction = {
		.opcode = opcode_of_choice[arg_number(args, "op", 0)],
		.irq = (enum engine_irq)arg_number(args, "irq", ENGINE_IRQ_NONE),
		.vector = (unsigned int)vector,
		.iova = arg_number(args, "iova", 0),
		.operand = arg_number(args, "operand", 0),
		.length = arg_number(args, "length", 0),
	};
	int error = parse_slot(probe, args, slot_key, &transaction.slot, reply);

	if (error)
		return error;
	if (vector > 0xffff)
		return reply_fail(reply, "parse", EINVAL, "vector is above 0xffff");
	*ret = transaction;
	return 0;
}

static int run_submit(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct engine_transaction transaction;
	int error = parse_transaction(probe, args, "slot", &transaction, reply);

	return error ? error : engine_submit(&probe->engine, &probe->vfio, &transaction, reply);
}

static int wait_and_report(struct probe *probe, uint32_t slot, uint64_t deadline,
			   struct reply *reply)
{
	struct engine_result result;
	const char *op;
	int error = engine_wait(&probe->engine, &probe->vfio, slot, deadline, &result, &op);

	if (!error || error == -ETIMEDOUT)
		report_result(&reply->fields, &result);
	return error ? reply_fail(reply, op, -error, NULL) : 0;
}

static int run_wait(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t deadline;
	uint32_t slot;
	int error = parse_slot(probe, args, "slot", &slot, reply);

	if (!error)
		error = parse_deadline(args, &deadline, reply);
	return error ? error : wait_and_report(probe, slot, deadline, reply);
}

static int run_status(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct engine_result result;
	uint32_t slot;
	int error = parse_slot(probe, args, "slot", &slot, reply);

	if (error)
		return error;
	error = engine_read_result(&probe->vfio, slot, &result);
	if (error)
		return reply_fail(reply, "read", -error, NULL);
	report_result(&reply->fields, &result);
	return 0;
}

static int run_dma(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct engine_transaction transaction;
	uint64_t deadline, start;
	int error = parse_transaction(probe, args, "slot", &transaction, reply);

	if (!error)
		error = parse_deadline(args, &deadline, reply);
	if (error)
		return error;
	start = clock_ns();
	error = engine_submit(&probe->engine, &probe->vfio, &transaction, reply);
	if (!error)
		error = wait_and_report(probe, transaction.slot, deadline, reply);
	json_number(&reply->fields, "elapsed_ns", clock_ns() - start);
	return error;
}

/*
 * Wait for @count slots from @first on and report those that did not end well. A
 * failed slot is a result, not a failure of the command.
 */
static uint64_t report_failures(struct probe *probe, uint32_t first, uint32_t count,
				uint64_t deadline, struct json *fields)
{
	uint64_t nr_ok = 0;

	json_begin(fields, "failures", '[');
	for (uint32_t slot = first; slot < first + count; slot++) {
		struct engine_result result;
		const char *op = NULL;
		int error = engine_wait(&probe->engine, &probe->vfio, slot, deadline, &result, &op);

		if (!error && result.status == DMA_STATUS_OK) {
			nr_ok++;
			continue;
		}
		json_begin(fields, NULL, '{');
		json_number(fields, "slot", slot);
		if (error) {
			json_text(fields, "op", op);
			json_number(fields, "errno", (uint64_t)-error);
		}
		if (!error || error == -ETIMEDOUT)
			report_result(fields, &result);
		json_end(fields, '}');
	}
	json_end(fields, ']');
	return nr_ok;
}

static int parse_count(struct probe *probe, const struct args *args, uint32_t first, uint32_t *ret,
		       struct reply *reply)
{
	uint64_t count = arg_number(args, "count", 0);
	uint32_t room = probe->engine.nr_slots - first;

	if (!count || count > room)
		return reply_fail(reply, "parse", EINVAL, "count is not in 1..%u", room);
	*ret = (uint32_t)count;
	return 0;
}

static int run_dma_many(struct probe *probe, const struct args *args, struct reply *reply)
{
	struct engine_transaction transaction;
	uint64_t deadline, start, nr_ok;
	uint64_t stride = arg_number(args, "stride", arg_number(args, "length", 0));
	uint64_t operand_stride = arg_number(args, "operand_stride", stride);
	uint32_t first, count = 0;
	int error = parse_transaction(probe, args, "first_slot", &transaction, reply);

	if (!error)
		error = parse_count(probe, args, transaction.slot, &count, reply);
	if (!error)
		error = parse_deadline(args, &deadline, reply);
	if (error)
		return error;
	/* The operand of the others is no address: it is the same for every slot. */
	if (transaction.opcode >= DMA_OP_FILL && !arg_has(args, "operand_stride"))
		operand_stride = 0;
	first = transaction.slot;
	start = clock_ns();
	for (uint32_t i = 0; i < count; i++) {
		error = engine_submit(&probe->engine, &probe->vfio, &transaction, reply);
		if (error)
			return error;
		transaction.slot++;
		transaction.iova += stride;
		transaction.operand += operand_stride;
	}
	nr_ok = report_failures(probe, first, count, deadline, &reply->fields);
	json_number(&reply->fields, "count", count);
	json_number(&reply->fields, "nr_ok", nr_ok);
	json_number(&reply->fields, "elapsed_ns", clock_ns() - start);
	return 0;
}

#define TRANSACTION_KEYS                                                                    \
	{ "op", KEY_CHOICE, NEED, choices_op }, { "iova", KEY_NUMBER, NEED, NULL },         \
		{ "length", KEY_NUMBER, NEED, NULL }, { "operand", KEY_NUMBER, MAY, NULL }, \
		{ "irq", KEY_CHOICE, MAY, choices_engine_irq },                             \
	{                                                                                   \
		"vector", KEY_NUMBER, MAY, NULL                                             \
	}
#define TIMEOUT_KEY { "timeout_ms", KEY_NUMBER, MAY, NULL }

static const struct key submit_keys[] = {
	TRANSACTION_KEYS,
	{ "slot", KEY_NUMBER, NEED, NULL },
	{ 0 },
};

static const struct key dma_keys[] = {
	TRANSACTION_KEYS,
	{ "slot", KEY_NUMBER, MAY, NULL },
	TIMEOUT_KEY,
	{ 0 },
};

static const struct key dma_many_keys[] = {
	TRANSACTION_KEYS,
	{ "count", KEY_NUMBER, NEED, NULL },
	{ "first_slot", KEY_NUMBER, MAY, NULL },
	{ "stride", KEY_NUMBER, MAY, NULL },
	{ "operand_stride", KEY_NUMBER, MAY, NULL },
	TIMEOUT_KEY,
	{ 0 },
};

static const struct key slot_keys[] = { { "slot", KEY_NUMBER, NEED, NULL }, { 0 } };

static const struct key wait_keys[] = {
	{ "slot", KEY_NUMBER, NEED, NULL },
	TIMEOUT_KEY,
	{ 0 },
};

const struct command engine_commands[] = {
	{ "engine-info", keys_none, run_engine_info },
	{ "submit", submit_keys, run_submit },
	{ "wait", wait_keys, run_wait },
	{ "status", slot_keys, run_status },
	{ "dma", dma_keys, run_dma },
	{ "dma-many", dma_many_keys, run_dma_many },
	{ 0 },
};
