// SPDX-License-Identifier: GPL-2.0-or-later
#include "image.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "harness.h"

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the image is read as it lies there"
#endif

#define MAX_READABLE 4096u /* as docs/trace.md has it */
#define MAX_WRITABLE (1u << 18)

static void read_file(struct image *image, const char *path)
{
	FILE *file = fopen(path, "rb");
	struct stat st;

	REQUIRE(file && !fstat(fileno(file), &st) && S_ISREG(st.st_mode));
	image->size = st.st_size;
	image->bytes = malloc(image->size ?: 1);
	REQUIRE(image->bytes && fread(image->bytes, 1, image->size, file) == image->size);
	fclose(file);
}

/* The next nr items of so many bytes each. */
static const void *take(struct image *image, uint64_t nr, size_t size)
{
	const void *at = image->bytes + image->first;

	REQUIRE(nr <= (image->size - image->first) / size);
	image->first += nr * size;
	return at;
}

static void check_entries(const struct image *image)
{
	size_t offset = image->first;

	while (offset < image->size) {
		const struct image_entry *entry = (const void *)(image->bytes + offset);
		size_t left = image->size - offset;

		REQUIRE(left >= sizeof(*entry));
		REQUIRE(entry->readable == IMAGE_BEGIN || offset != image->first);
		REQUIRE(entry->readable == IMAGE_BEGIN ? !entry->length :
							 entry->length <= entry->readable &&
								 entry->readable <= MAX_READABLE &&
								 entry->writable <= MAX_WRITABLE);
		REQUIRE(left - sizeof(*entry) >= (entry->length + 7ull) / 8 * 8);
		REQUIRE(image_next(image, &offset));
	}
}

void image_open(struct image *image, const char *path)
{
	uint64_t nr = 0;

	*image = (struct image){ 0 };
	read_file(image, path);
	image->head = take(image, 1, sizeof(*image->head));
	REQUIRE(!memcmp(image->head->magic, IMAGE_MAGIC, sizeof(image->head->magic)));
	image->endpoints = take(image, image->head->nr_endpoints, sizeof(*image->endpoints));
	image->regions = take(image, image->head->nr_regions, sizeof(*image->regions));
	for (uint32_t i = 0; i < image->head->nr_endpoints; i++)
		nr += image->endpoints[i].nr_regions;
	REQUIRE(nr == image->head->nr_regions);
	check_entries(image);
}

void image_close(struct image *image)
{
	free(image->bytes);
}

const struct image_entry *image_next(const struct image *image, size_t *offset)
{
	const struct image_entry *entry = (const void *)(image->bytes + *offset);

	if (*offset == image->size)
		return NULL;
	*offset += sizeof(*entry) + (entry->length + 7) / 8 * 8;
	return entry;
}
