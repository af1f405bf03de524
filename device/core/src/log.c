// SPDX-License-Identifier: GPL-2.0-or-later
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOG_DEFAULT_CAPACITY 65536u
#define LOG_MAX_CAPACITY (UINT64_C(1) << 28)
/* In a slot's seq: its writer is not done. A reader sees a number that is not the expected one. */
#define LOG_BUSY (UINT64_C(1) << 63)
#define RECORD_WORDS (sizeof(struct viommu_log_record) / sizeof(uint64_t))
#define TIME_WORD (offsetof(struct viommu_log_record, time_ns) / sizeof(uint64_t))

_Static_assert(sizeof(struct viommu_log_record) == 64, "a record is one cache line");
_Static_assert(sizeof(struct viommu_log_header) <= VIOMMU_LOG_DATA_OFFSET, "one page");
_Static_assert(offsetof(struct viommu_log_record, seq) == 0, "seq is word 0");
_Static_assert(offsetof(struct viommu_log_record, time_ns) % sizeof(uint64_t) == 0, "a word");
_Static_assert(sizeof(((struct viommu_log_header *)0)->counters) ==
		       VIOMMU_NR_COUNTERS * sizeof(uint64_t),
	       "one word per counter");

struct log {
	struct viommu_log_header *header;
	/* Slots are accessed as words, all atomically: readers race with writers by design. */
	uint64_t (*slots)[RECORD_WORDS];
	size_t map_size;
	uint64_t event_mask;
	int event_fd;
};

uint64_t log_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/*
 * The file comes into being empty, so that nobody sees records of an earlier
 * run behind a new header.
 */
static int open_file(const char *path, size_t size, int *ret)
{
	struct stat st;
	/* O_NONBLOCK: a FIFO must be refused below, not waited for. */
	int err = 0,
	    fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0600);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		err = -errno;
	else if (!S_ISREG(st.st_mode))
		err = -EINVAL;
	else if (fchmod(fd, 0600) < 0 || ftruncate(fd, (off_t)size) < 0)
		err = -errno;
	else
		/* A disk that fills up later must not end the process by SIGBUS. */
		err = -posix_fallocate(fd, 0, (off_t)size);
	if (err) {
		close(fd);
		return err;
	}
	*ret = fd;
	return 0;
}

static int map_log(struct log *log, const char *path)
{
	int flags = MAP_SHARED, fd = -1, err;
	void *map;

	if (path) {
		err = open_file(path, log->map_size, &fd);
		if (err)
			return err;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	map = mmap(NULL, log->map_size, PROT_READ | PROT_WRITE, flags, fd, 0);
	err = map == MAP_FAILED ? -errno : 0;
	if (fd >= 0)
		close(fd);
	if (err)
		return err;
	log->header = map;
	log->slots = (void *)((char *)map + VIOMMU_LOG_DATA_OFFSET);
	return 0;
}

static void init_header(struct viommu_log_header *header, uint64_t capacity)
{
	uint64_t magic;

	header->record_size = sizeof(struct viommu_log_record);
	header->nr_counters = VIOMMU_NR_COUNTERS;
	header->capacity = capacity;
	header->start_ns = log_now_ns();
	header->heartbeat_ns = header->start_ns;
	memcpy(&magic, "VIOTLOG1", sizeof(magic));
	/* Last: another process that sees the magic sees a valid header. */
	__atomic_store_n((uint64_t *)(void *)header->magic, magic, __ATOMIC_RELEASE);
}

int log_create(const char *path, uint64_t capacity, struct log **ret)
{
	struct log *log;
	int err;

	if (!capacity)
		capacity = LOG_DEFAULT_CAPACITY;
	if (capacity > LOG_MAX_CAPACITY || capacity & (capacity - 1))
		return -EINVAL;
	log = calloc(1, sizeof(*log));
	if (!log)
		return -ENOMEM;
	log->map_size = VIOMMU_LOG_DATA_OFFSET + capacity * sizeof(struct viommu_log_record);
	log->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	err = log->event_fd < 0 ? -errno : map_log(log, path);
	if (err) {
		log_destroy(log);
		return err;
	}
	init_header(log->header, capacity);
	*ret = log;
	return 0;
}

void log_destroy(struct log *log)
{
	if (!log)
		return;
	if (log->header)
		munmap(log->header, log->map_size);
	if (log->event_fd >= 0)
		close(log->event_fd);
	free(log);
}

/*
 * Takes the slot for record seq. False: a later record has been there already,
 * so that this one counts as overwritten.
 *
 * Only a writer that slept while the others went once around the whole ring
 * can still be inside the slot; without the wait two records would mix.
 */
static bool claim_slot(uint64_t *slot_seq, uint64_t seq)
{
	uint64_t old = __atomic_load_n(slot_seq, __ATOMIC_RELAXED);

	for (;;) {
		if ((old & ~LOG_BUSY) > seq)
			return false;
		if (old & LOG_BUSY) {
			sched_yield();
			old = __atomic_load_n(slot_seq, __ATOMIC_RELAXED);
		} else if (__atomic_compare_exchange_n(slot_seq, &old, seq | LOG_BUSY, false,
						       __ATOMIC_ACQUIRE, __ATOMIC_RELAXED)) {
			return true;
		}
	}
}

static void notify(struct log *log, unsigned int kind)
{
	uint64_t one = 1;

	if (kind >= 64 || !(__atomic_load_n(&log->event_mask, __ATOMIC_RELAXED) >> kind & 1))
		return;
	/* Fails only when the counter is full, and then the reader will wake anyway. */
	if (write(log->event_fd, &one, sizeof(one)) < 0)
		return;
}

void log_append(struct log *log, const struct viommu_log_record *record)
{
	uint64_t words[RECORD_WORDS], seq, *slot;

	memcpy(words, record, sizeof(words));
	if (!record->time_ns)
		words[TIME_WORD] = log_now_ns();
	seq = __atomic_add_fetch(&log->header->head, 1, __ATOMIC_ACQ_REL);
	slot = log->slots[(seq - 1) & (log->header->capacity - 1)];
	if (claim_slot(slot, seq)) {
		/* Release, each: no word may be seen before the busy mark. */
		for (size_t i = 1; i < RECORD_WORDS; i++)
			__atomic_store_n(&slot[i], words[i], __ATOMIC_RELEASE);
		__atomic_store_n(slot, seq, __ATOMIC_RELEASE);
	}
	notify(log, record->kind);
}

void log_count(struct log *log, enum viommu_counter counter, uint64_t n)
{
	__atomic_fetch_add(&log->header->counters[counter], n, __ATOMIC_RELAXED);
}

void log_count_max(struct log *log, enum viommu_counter counter, uint64_t value)
{
	uint64_t *max = &log->header->counters[counter];
	uint64_t old = __atomic_load_n(max, __ATOMIC_RELAXED);

	while (old < value && !__atomic_compare_exchange_n(max, &old, value, true, __ATOMIC_RELAXED,
							   __ATOMIC_RELAXED))
		;
}

void log_heartbeat(struct log *log)
{
	__atomic_store_n(&log->header->heartbeat_ns, log_now_ns(), __ATOMIC_RELAXED);
}

const struct viommu_log_header *log_header(const struct log *log)
{
	return log->header;
}

/* 1: copied; 0: not written yet; -1: overwritten by a later record. */
static int read_slot(const uint64_t *slot, uint64_t seq, struct viommu_log_record *ret)
{
	uint64_t words[RECORD_WORDS], before = __atomic_load_n(slot, __ATOMIC_ACQUIRE), after;

	if (before != seq)
		return (before & ~LOG_BUSY) > seq ? -1 : 0;
	words[0] = before;
	/* Acquire, each: seq must be read again after the words. */
	for (size_t i = 1; i < RECORD_WORDS; i++)
		words[i] = __atomic_load_n(&slot[i], __ATOMIC_ACQUIRE);
	after = __atomic_load_n(slot, __ATOMIC_RELAXED);
	if (after != seq)
		return -1;
	memcpy(ret, words, sizeof(*ret));
	return 1;
}

size_t log_read(struct log *log, uint64_t *seq, struct viommu_log_record *buf, size_t max,
		uint64_t *dropped)
{
	uint64_t capacity = log->header->capacity, last = *seq, lost = 0;
	size_t nr = 0;

	while (nr < max) {
		uint64_t head = __atomic_load_n(&log->header->head, __ATOMIC_ACQUIRE);
		int result;

		if (last >= head)
			break;
		if (head - last > capacity) {
			lost += head - capacity - last;
			last = head - capacity;
		}
		result = read_slot(log->slots[last & (capacity - 1)], last + 1, &buf[nr]);
		if (!result)
			break;
		last++;
		if (result > 0)
			nr++;
		else
			lost++;
	}
	*seq = last;
	*dropped = lost;
	return nr;
}

int log_event_fd(const struct log *log)
{
	return log->event_fd;
}

void log_set_event_mask(struct log *log, uint64_t mask)
{
	__atomic_store_n(&log->event_mask, mask, __ATOMIC_RELAXED);
}
