/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * viommu.h - the public interface of the device core.
 *
 * One context serves, over vfio-user, any number of virtio-iommu functions and
 * of endpoints whose DMA those functions translate.
 *
 * Threads: a context owns one reactor thread (sockets, rings, requests) and a
 * few DMA workers. Every function below may be called from any thread, except
 * that viommu_ctx_add_*() end with viommu_ctx_start(), and that
 * viommu_ctx_destroy() must be the last call.
 *
 * Results: 0 or -errno; out-parameters are last, named ret, and untouched on
 * failure. Strings passed in are copied; strings handed out are static.
 *
 * The text between the cdef markers is also what cffi parses: plain enums,
 * structs and prototypes only.
 */
#ifndef VIOMMU_H
#define VIOMMU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* cdef-begin */
typedef struct viommu_ctx viommu_ctx_t;

/* What a record of the request log speaks of. */
enum viommu_log_kind {
	VIOMMU_LOG_NONE = 0,
	/* 1..5 are the request types of virtio 1.2, section 5.13.6. PROBE: end: writable bytes. */
	VIOMMU_LOG_ATTACH = 1,
	VIOMMU_LOG_DETACH = 2,
	VIOMMU_LOG_MAP = 3,
	VIOMMU_LOG_UNMAP = 4,
	VIOMMU_LOG_PROBE = 5,
	VIOMMU_LOG_UNKNOWN_REQUEST = 6,   /* flags: the type byte */
	VIOMMU_LOG_MALFORMED_REQUEST = 7, /* start: readable bytes, end: writable bytes */
	VIOMMU_LOG_FAULT = 8,             /* status: reason, flags: access, start: address */
	VIOMMU_LOG_FAULT_DROPPED = 9,     /* as FAULT; the event queue had no buffer */
	/* status: engine status, flags: opcode, and 1 << 8 and 9 for no-snoop reads, writes */
	VIOMMU_LOG_DMA = 10, /* start: IOVA, end: inclusive */
	VIOMMU_LOG_IRQ = 11, /* start: vector */
	VIOMMU_LOG_MSI_WRITE = 12, /* start: address inside the MSI window, target: data */
	VIOMMU_LOG_BUS_MASTER = 13, /* flags: 1 on, 0 off */
	VIOMMU_LOG_RESET = 14, /* flags: enum viommu_reset_kind */
	VIOMMU_LOG_CLIENT_ATTACHED = 15,
	VIOMMU_LOG_CLIENT_GONE = 16, /* status: errno that ended the connection, 0 for EOF */
	VIOMMU_LOG_DMA_MAP = 17, /* vfio-user: start, end inclusive, flags: 1 read 2 write 4 fd */
	VIOMMU_LOG_DMA_UNMAP = 18,
	/* virtio device status written; status: value, start: the driver's features, end: offered */
	VIOMMU_LOG_DEVICE_STATUS = 19,
	VIOMMU_LOG_CONFIG_WRITE =
		20, /* virtio configuration: start, end inclusive, target: value */
	/*
	 * Before the record of a request that is not as the specification has it: what
	 * that one does not tell. status 0: start: readable bytes, end: writable bytes,
	 * target: used length, or all ones if it was not returned; status 1, 2, 3: the
	 * readable bytes, 24 each in start, end and target as they lay in memory.
	 * Without it a MALFORMED_REQUEST had buffers outside of memory.
	 */
	VIOMMU_LOG_REQUEST_DETAIL = 21,
	VIOMMU_LOG_NR_KINDS = 22,
};

enum viommu_reset_kind {
	VIOMMU_RESET_DEVICE = 1, /* vfio-user DEVICE_RESET: a system reset */
	VIOMMU_RESET_FLR = 2, /* PCIe function level reset */
	VIOMMU_RESET_VIRTIO = 3, /* driver wrote 0 to device_status */
	VIOMMU_RESET_LOST = 4, /* the client is gone */
	VIOMMU_RESET_ENGINE = 5, /* the dma engine's own reset register */
};

/* Counters of a context, in the log's header; never reset, never wrapping. */
enum viommu_counter {
	VIOMMU_COUNT_ATTACH = 0,
	VIOMMU_COUNT_DETACH = 1,
	VIOMMU_COUNT_MAP = 2,
	VIOMMU_COUNT_UNMAP = 3,
	VIOMMU_COUNT_PROBE = 4,
	VIOMMU_COUNT_UNKNOWN = 5,
	VIOMMU_COUNT_MALFORMED = 6,
	VIOMMU_COUNT_REQUEST_ERRORS = 7, /* requests answered with a status other than OK */
	VIOMMU_COUNT_REQUEST_MAX_NS = 8, /* longest request, taken off the ring to used */
	VIOMMU_COUNT_KICKS = 9,
	VIOMMU_COUNT_DMA_TRANSACTIONS = 10,
	VIOMMU_COUNT_DMA_READ_BYTES = 11, /* guest memory to device */
	VIOMMU_COUNT_DMA_WRITE_BYTES = 12, /* device to guest memory */
	VIOMMU_COUNT_DMA_ERRORS = 13, /* transactions that ended other than OK */
	VIOMMU_COUNT_FAULT_UNKNOWN = 14,
	VIOMMU_COUNT_FAULT_DOMAIN = 15,
	VIOMMU_COUNT_FAULT_MAPPING = 16,
	VIOMMU_COUNT_FAULTS_REPORTED = 17, /* records put on the event queue */
	VIOMMU_COUNT_FAULTS_DROPPED = 18,
	VIOMMU_COUNT_IRQS = 19,
	VIOMMU_COUNT_MESSAGES = 20, /* vfio-user messages received */
	VIOMMU_COUNT_RESETS = 21,
	VIOMMU_NR_COUNTERS = 22,
};

/*
 * One record of the request log, 64 bytes. A writer claims a sequence number,
 * fills the record and stores seq last (release); a reader takes a record for
 * good only if seq is the expected one before and after copying it.
 * Record n (counting from 1) lies in slot (n - 1) % capacity.
 */
struct viommu_log_record {
	uint64_t seq;
	uint64_t time_ns; /* CLOCK_MONOTONIC when the event was complete */
	uint16_t kind; /* enum viommu_log_kind */
	uint16_t status;
	uint32_t endpoint; /* endpoint id; 0xffffffff if none */
	uint32_t domain;
	uint32_t flags;
	uint64_t start;
	uint64_t end; /* inclusive */
	uint64_t target; /* MAP: phys_start; DMA COPY: destination IOVA */
	uint32_t duration_ns; /* requests and DMA: from taken to answered; saturates */
	uint32_t source; /* index of the function in the order of viommu_ctx_add_*() */
};

/* First page of the log file; records follow at byte VIOMMU_LOG_DATA_OFFSET. */
struct viommu_log_header {
	char magic[8]; /* "VIOTLOG1" */
	uint32_t record_size;
	uint32_t nr_counters;
	uint64_t capacity; /* records; a power of two */
	uint64_t head; /* records ever claimed */
	uint64_t start_ns; /* CLOCK_MONOTONIC of viommu_ctx_create() */
	uint64_t heartbeat_ns; /* CLOCK_MONOTONIC, renewed by the reactor at least every 100 ms */
	uint64_t counters[22];
};

enum viommu_limits {
	VIOMMU_LOG_DATA_OFFSET = 4096,
	VIOMMU_NO_IOMMU = 0xffff,
	VIOMMU_NAME_MAX = 32,
};

struct viommu_config {
	const char *log_path; /* created, or truncated; NULL: anonymous memory */
	uint64_t log_capacity; /* records, a power of two; 0: 65536 */
	uint32_t nr_workers; /* DMA worker threads; 0: 2 */
	uint32_t poll_us; /* look at request rings for so long before sleeping, 100 at most; 0: not */
	uint32_t nr_cpus; /* processors that guests leave us: without one to spare, nothing polls */
};

/* One virtio-iommu function. Zero in a field with a default means the default. */
struct viommu_iommu_config {
	const char *socket_path;
	uint64_t features; /* device-specific feature bits offered; 0: 0x77 (all but the old BYPASS) */
	uint64_t page_size_mask; /* 0: every size from 4 KiB up */
	uint64_t input_start;
	uint64_t input_end; /* inclusive; 0: 2^64 - 1 */
	uint32_t domain_start;
	uint32_t domain_end; /* inclusive; 0: 2^32 - 1 */
	uint32_t probe_size; /* 0: 512 */
	uint8_t bypass; /* initial value: 0 or 1 */
	uint64_t max_mappings; /* per domain; 0: 1 Mi; past it MAP answers NOMEM */
	uint32_t max_domains; /* 0: 65536; past it ATTACH answers NOMEM */
};

enum viommu_resv_subtype { VIOMMU_RESV_RESERVED = 0, VIOMMU_RESV_MSI = 1 };

struct viommu_resv_mem {
	uint32_t subtype; /* enum viommu_resv_subtype */
	uint64_t start;
	uint64_t end; /* inclusive */
};

/* What an endpoint is to its guest. */
enum viommu_model {
	VIOMMU_MODEL_DMA_ENGINE = 0, /* 1234:7e57, registers in dma_engine.h */
	VIOMMU_MODEL_IOAT = 1, /* 8086:2021, registers in ioat_regs.h */
	VIOMMU_MODEL_NVME = 2, /* 1234:7e4d, backed by a file */
	VIOMMU_NR_MODELS = 3,
};

/* One endpoint. */
struct viommu_endpoint_config {
	const char *socket_path;
	const char *name; /* for logs and queries; shorter than VIOMMU_NAME_MAX */
	uint32_t iommu; /* index returned by viommu_ctx_add_iommu(), or VIOMMU_NO_IOMMU:
			       * addresses are then the client's own (QEMU translates or nothing does) */
	uint32_t id; /* endpoint id of the VIOT or iommu-map */
	/*
	 * What a bridge puts in the place of the id in front of DMA: another endpoint
	 * of the same IOMMU, added before, whose domain then decides. 0: nothing.
	 */
	uint32_t requester;
	const struct viommu_resv_mem *resv;
	size_t nr_resv;
	uint32_t nr_vectors; /* MSI-X vectors, up to 32 (ioat: 4, one for each channel); 0: 4 */
	bool no_msix; /* INTx only: QEMU 11.1 aborts when it unplugs a function with MSI-X */
	uint32_t model; /* enum viommu_model */
	const char *image; /* nvme: a regular file of whole 512 byte blocks; NULL otherwise */
	bool read_only; /* nvme */
};

struct viommu_endpoint_info {
	char name[32];
	uint32_t id;
	uint32_t model; /* enum viommu_model */
	uint32_t iommu; /* VIOMMU_NO_IOMMU if none of ours */
	uint32_t domain;
	bool attached; /* to a domain of our virtio-iommu */
	bool connected; /* a vfio-user client is there */
	bool bus_master;
	uint32_t in_flight; /* transactions */
	uint64_t transactions;
	uint64_t faults;
};

struct viommu_domain_info {
	uint32_t iommu;
	uint32_t id;
	bool bypass;
	uint32_t nr_endpoints;
	uint64_t nr_mappings;
	uint64_t mapped_bytes;
};

/* What goes wrong, by a rule. */
enum viommu_inject_action {
	/* With a request that is well-formed: */
	VIOMMU_INJECT_STATUS = 0, /* answered with status `parameter`, not executed */
	VIOMMU_INJECT_DELAY = 1, /* taken `parameter` microseconds late, and all behind it */
	VIOMMU_INJECT_DROP = 2, /* neither executed nor answered */
	VIOMMU_INJECT_ANSWER_TWICE = 3,
	VIOMMU_INJECT_SHORT_USED_LEN = 4, /* by one byte */
	VIOMMU_INJECT_IGNORE = 5, /* checked and answered OK, without effect */
	VIOMMU_INJECT_STALL = 6, /* not taken, nor any behind it, while the rule stands */
	VIOMMU_INJECT_DIE = 7, /* the process kills itself */
	/* With an endpoint's access to a domain: */
	VIOMMU_INJECT_IGNORE_PERMISSIONS = 8,
	VIOMMU_INJECT_OFF_BY_PAGE = 9, /* translated to the page behind the right one */
	VIOMMU_INJECT_LEAK_DOMAIN = 10, /* what its domain lacks is found in another one */
	/* With what the device tells by itself: */
	VIOMMU_INJECT_LOSE_FAULT = 11,
	VIOMMU_INJECT_DROP_INTERRUPT = 12,
	/* With an endpoint's reset by its client or by FLR: */
	VIOMMU_INJECT_IGNORE_RESET = 13, /* it goes on as it was, and logs nothing */
	VIOMMU_INJECT_NR_ACTIONS = 14,
};

struct viommu_inject_rule {
	uint32_t action; /* enum viommu_inject_action */
	uint32_t request; /* VIOMMU_LOG_ATTACH .. _PROBE; 0: any */
	/*
	 * Ids, or -1 for any. A MAP or UNMAP is of every endpoint attached to its
	 * domain; the virtio-iommu's own interrupts are of no endpoint, and no
	 * interrupt is of a domain.
	 */
	int64_t endpoint;
	int64_t domain;
	uint64_t after; /* so many matches pass first */
	uint64_t count; /* then so many are hit; 0: all */
	uint32_t parameter; /* 0 for an action that has none */
};

struct viommu_inject_info {
	uint32_t id;
	const char *mutant; /* NULL if it was not added by a mutant's name */
	struct viommu_inject_rule rule;
	uint64_t nr_matches;
	uint64_t nr_hits;
};

/* A rule with a name: a defect that a good test suite must notice. */
struct viommu_mutant_info {
	const char *name;
	const char *notice; /* what a good suite must notice, one line */
	bool is_of_endpoints; /* else nothing changes where no virtio-iommu is ours */
	struct viommu_inject_rule rule;
};

int viommu_ctx_create(const struct viommu_config *config, viommu_ctx_t **ret);
int viommu_ctx_add_iommu(viommu_ctx_t *ctx, const struct viommu_iommu_config *config,
			 uint32_t *ret);
int viommu_ctx_add_endpoint(viommu_ctx_t *ctx, const struct viommu_endpoint_config *config,
			    uint32_t *ret);
/*
 * An endpoint that is no function of ours: a bridge, or the id under which it
 * passes DMA on. It is probed and attached like any other. Of the configuration
 * name, iommu, id and resv count; -EINVAL if there is no IOMMU.
 */
int viommu_ctx_add_id(viommu_ctx_t *ctx, const struct viommu_endpoint_config *config);
/* Binds and listens on every socket, then starts the threads. */
int viommu_ctx_start(viommu_ctx_t *ctx);
/* Stops the threads, closes and unlinks the sockets, frees all. Accepts NULL. */
void viommu_ctx_destroy(viommu_ctx_t *ctx);

/* The mapped log (header first); valid until viommu_ctx_destroy(). */
const struct viommu_log_header *viommu_ctx_log(viommu_ctx_t *ctx);
/*
 * Copies at most max records that come after sequence number *seq, oldest
 * first, advances *seq past the last one copied or lost, and sets *dropped to
 * how many were overwritten before they could be read. Returns the number copied.
 */
size_t viommu_ctx_log_read(viommu_ctx_t *ctx, uint64_t *seq, struct viommu_log_record *buf,
			   size_t max, uint64_t *dropped);
/* An eventfd, owned by the context, written when a record of one of the kinds in mask (1 << kind) is appended. */
int viommu_ctx_event_fd(viommu_ctx_t *ctx);
void viommu_ctx_set_event_mask(viommu_ctx_t *ctx, uint64_t mask);

/* Fill at most max entries; return how many there are in all. */
size_t viommu_ctx_query_endpoints(viommu_ctx_t *ctx, struct viommu_endpoint_info *buf, size_t max);
size_t viommu_ctx_query_domains(viommu_ctx_t *ctx, struct viommu_domain_info *buf, size_t max);

/*
 * Adds a rule; *ret is its id. Of several that fit, the oldest decides. -EINVAL for
 * a rule that cannot mean anything, -ENOSPC for more than 64.
 */
int viommu_ctx_inject_add(viommu_ctx_t *ctx, const struct viommu_inject_rule *rule, uint32_t *ret);
/* What it held back goes on. -ENOENT if there is no such rule. */
int viommu_ctx_inject_remove(viommu_ctx_t *ctx, uint32_t id);
/* Fills at most max entries; returns how many there are in all. */
size_t viommu_ctx_inject_list(viommu_ctx_t *ctx, struct viommu_inject_info *buf, size_t max);

/* The list of mutants, ended by a NULL name. */
const struct viommu_mutant_info *viommu_mutants(void);
/* Adds or removes the mutant's rule. -ENOENT if there is no such mutant. */
int viommu_ctx_set_mutant(viommu_ctx_t *ctx, const char *name, bool on);

/* Ends this process when the process parent_pid, its parent, dies; -ESRCH if that has happened already. */
int viommu_exit_with_parent(int parent_pid);
/* cdef-end */

#endif /* VIOMMU_H */
