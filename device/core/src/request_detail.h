/* SPDX-License-Identifier: GPL-2.0-or-later */
/* request_detail.h - what the record of an unusual request does not tell of it. */
#ifndef REQUEST_DETAIL_H
#define REQUEST_DETAIL_H

#include <stdint.h>

struct log;
struct viommu_log_record;

#define REQUEST_DETAIL_MAX_BYTES 72

struct request_detail {
	const uint8_t *bytes; /* the readable ones, as many as were looked at */
	uint64_t readable;
	uint64_t writable;
	uint64_t used; /* UINT64_MAX: not returned */
};

/*
 * Appends the records that go before the request's own, so that the two give back
 * every byte the device saw. None for what a driver that keeps to the specification
 * sends: its record says all.
 */
void request_detail_log(struct log *log, const struct viommu_log_record *record,
			const struct request_detail *detail);

#endif /* REQUEST_DETAIL_H */
