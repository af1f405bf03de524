/* SPDX-License-Identifier: GPL-2.0-or-later */
/* log.h - the request log: counters and a ring of records in a mapped file. */
#ifndef LOG_H
#define LOG_H

#include "viommu.h"

struct log;

/* path NULL: anonymous memory. capacity: records, a power of two, 0: default. */
int log_create(const char *path, uint64_t capacity, struct log **ret);
void log_destroy(struct log *log);

uint64_t log_now_ns(void); /* CLOCK_MONOTONIC */

/*
 * Appends a copy of *record; seq is filled in here, and time_ns if it is 0.
 * Lock-free, any thread. Writes the eventfd if the kind is in the event mask.
 */
void log_append(struct log *log, const struct viommu_log_record *record);
void log_count(struct log *log, enum viommu_counter counter, uint64_t n);
void log_count_max(struct log *log, enum viommu_counter counter, uint64_t value);
void log_heartbeat(struct log *log);

const struct viommu_log_header *log_header(const struct log *log);
size_t log_read(struct log *log, uint64_t *seq, struct viommu_log_record *buf, size_t max,
		uint64_t *dropped);
int log_event_fd(const struct log *log);
void log_set_event_mask(struct log *log, uint64_t mask);

#endif /* LOG_H */
