/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * image.h - a recorded ring as a file: requests back to back.
 *
 * Little-endian throughout:
 *
 *   struct image_head
 *   struct image_endpoint, nr_endpoints times
 *   struct image_region, nr_regions times: those of the first endpoint, then of the next
 *   struct image_entry and what its length says, up to the end of the file
 *
 * The first entry is a beginning. `viotest bench core --trace` makes it of a trace.
 */
#ifndef IMAGE_H
#define IMAGE_H

#include <stddef.h>
#include <stdint.h>

#define IMAGE_MAGIC "viotring"

struct image_head {
	char magic[8];
	/* struct viommu_iommu_config, 0 in it for its defaults. */
	uint64_t features, page_size_mask;
	uint64_t input_start, input_end, domain_start, domain_end;
	uint64_t probe_size, bypass, max_mappings, max_domains;
	uint32_t nr_endpoints, nr_regions;
};

struct image_endpoint {
	uint32_t id, nr_regions;
};

struct image_region {
	uint64_t subtype; /* enum viommu_resv_subtype */
	uint64_t start, end;
};

#define IMAGE_BEGIN UINT32_MAX
#define IMAGE_NO_STATUS 0xffu

struct image_entry {
	/* Bytes of the request, or IMAGE_BEGIN: the device is reset, and features are accepted. */
	uint32_t readable;
	uint32_t writable; /* IMAGE_BEGIN: features, low half */
	uint32_t status; /* that was answered, IMAGE_NO_STATUS for none; IMAGE_BEGIN: high half */
	uint32_t length; /* bytes that follow, padded to 8 with zeroes; the other readable are 0 */
};

_Static_assert(sizeof(struct image_head) == 96 && sizeof(struct image_entry) == 16,
	       "as written by orchestrator/viotest/bench/image.py");

struct image {
	uint8_t *bytes;
	size_t size;
	const struct image_head *head;
	const struct image_endpoint *endpoints;
	const struct image_region *regions;
	size_t first; /* offset of the first entry */
};

/* Ends the program if it is none, or broken anywhere: image_next() need not look. */
void image_open(struct image *image, const char *path);
void image_close(struct image *image);
/* The entry at *offset, which moves on; NULL at the end. What follows it: entry + 1. */
const struct image_entry *image_next(const struct image *image, size_t *offset);

#endif /* IMAGE_H */
