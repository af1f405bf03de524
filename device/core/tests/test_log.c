// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fixture.h"
#include "harness.h"
#include "log.h"

#define NR_WRITERS 4
#define PER_WRITER 20000

static struct log *make_log(uint64_t capacity)
{
	struct log *log;

	REQUIRE(!log_create(NULL, capacity, &log));
	return log;
}

static void append(struct log *log, uint64_t start)
{
	log_append(log, &(struct viommu_log_record){ .kind = VIOMMU_LOG_MAP, .start = start });
}

TEST(log_header_describes_the_log)
{
	struct log *log = make_log(0);
	const struct viommu_log_header *header = log_header(log);

	CHECK(!memcmp(header->magic, "VIOTLOG1", 8));
	CHECK_EQ(header->record_size, 64);
	CHECK_EQ(header->nr_counters, VIOMMU_NR_COUNTERS);
	CHECK_EQ(header->capacity, 65536);
	CHECK(header->start_ns && header->heartbeat_ns == header->start_ns);
	log_destroy(log);
}

TEST(log_capacity_must_be_a_power_of_two)
{
	struct log *log = NULL;

	CHECK_EQ(log_create(NULL, 3, &log), -EINVAL);
	CHECK_EQ(log_create(NULL, UINT64_C(1) << 40, &log), -EINVAL);
	CHECK(!log);
	log_destroy(NULL);
}

TEST(log_read_returns_records_in_order)
{
	struct log *log = make_log(8);
	struct viommu_log_record buf[8];
	uint64_t seq = 0, dropped = 99;

	append(log, 10);
	append(log, 11);
	CHECK_EQ(log_read(log, &seq, buf, 1, &dropped), 1);
	CHECK_EQ(buf[0].seq, 1);
	CHECK_EQ(buf[0].start, 10);
	CHECK(buf[0].time_ns);
	CHECK_EQ(log_read(log, &seq, buf, 8, &dropped), 1);
	CHECK_EQ(buf[0].start, 11);
	CHECK_EQ(seq, 2);
	CHECK_EQ(dropped, 0);
	CHECK_EQ(log_read(log, &seq, buf, 8, &dropped), 0);
	log_destroy(log);
}

TEST(log_read_counts_overwritten_records)
{
	struct log *log = make_log(4);
	struct viommu_log_record buf[8];
	uint64_t seq = 0, dropped = 0;

	for (uint64_t i = 1; i <= 10; i++)
		append(log, i);
	CHECK_EQ(log_read(log, &seq, buf, 8, &dropped), 4);
	CHECK_EQ(dropped, 6);
	CHECK_EQ(buf[0].start, 7);
	CHECK_EQ(buf[3].seq, 10);
	CHECK_EQ(seq, 10);
	/* A number from the future is no reason to read anything. */
	seq = 1000;
	CHECK_EQ(log_read(log, &seq, buf, 8, &dropped), 0);
	log_destroy(log);
}

TEST(log_event_fd_follows_the_mask)
{
	struct log *log = make_log(8);

	append(log, 1);
	CHECK_EQ(eventfd_count(log_event_fd(log)), 0);
	log_set_event_mask(log, UINT64_C(1) << VIOMMU_LOG_MAP);
	append(log, 2);
	log_append(log, &(struct viommu_log_record){ .kind = VIOMMU_LOG_UNMAP });
	log_append(log, &(struct viommu_log_record){ .kind = 0xffff });
	CHECK_EQ(eventfd_count(log_event_fd(log)), 1);
	log_destroy(log);
}

TEST(log_counters_add_and_keep_the_maximum)
{
	struct log *log = make_log(8);
	const uint64_t *counters = log_header(log)->counters;

	log_count(log, VIOMMU_COUNT_KICKS, 2);
	log_count(log, VIOMMU_COUNT_KICKS, 3);
	CHECK_EQ(counters[VIOMMU_COUNT_KICKS], 5);
	log_count_max(log, VIOMMU_COUNT_REQUEST_MAX_NS, 7);
	log_count_max(log, VIOMMU_COUNT_REQUEST_MAX_NS, 6);
	CHECK_EQ(counters[VIOMMU_COUNT_REQUEST_MAX_NS], 7);
	log_destroy(log);
}

TEST(log_file_is_private_reserved_and_emptied)
{
	char dir[] = "/tmp/viommu-test.XXXXXX", path[64], other[64];
	struct viommu_log_header header;
	struct log *log = NULL;
	struct stat st;
	FILE *file;

	REQUIRE(mkdtemp(dir));
	snprintf(path, sizeof(path), "%s/log", dir);
	snprintf(other, sizeof(other), "%s/link", dir);
	file = fopen(path, "w");
	REQUIRE(file && fputs("what a former run left", file) >= 0 && !fclose(file));
	REQUIRE(!chmod(path, 0644));

	REQUIRE(!log_create(path, 65536, &log));
	append(log, 42);
	log_destroy(log);

	CHECK(!stat(path, &st));
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK_EQ(st.st_size, VIOMMU_LOG_DATA_OFFSET + 65536 * 64);
	CHECK(st.st_blocks * 512 >= st.st_size);
	file = fopen(path, "r");
	REQUIRE(file && fread(&header, sizeof(header), 1, file) == 1 && !fclose(file));
	CHECK(!memcmp(header.magic, "VIOTLOG1", 8));
	CHECK_EQ(header.head, 1);

	REQUIRE(!symlink(path, other));
	CHECK_EQ(log_create(other, 8, &log), -ELOOP);
	REQUIRE(!unlink(other) && !mkfifo(other, 0600));
	CHECK_EQ(log_create(other, 8, &log), -EINVAL);
	CHECK_EQ(log_create("/proc/nonexistent/log", 8, &log), -ENOENT);
	CHECK(!unlink(other) && !unlink(path) && !rmdir(dir));
}

/* Each record says the same thing in every field, so that a mixed one shows. */
static void *write_records(void *opaque)
{
	struct log *log = opaque;

	for (uint64_t i = 1; i <= PER_WRITER; i++) {
		struct viommu_log_record record = {
			.kind = VIOMMU_LOG_DMA,
			.time_ns = i,
			.start = i,
			.end = i,
			.target = i,
			.duration_ns = (uint32_t)i,
			.source = (uint32_t)i,
		};

		log_append(log, &record);
		log_count(log, VIOMMU_COUNT_DMA_TRANSACTIONS, 1);
		log_count_max(log, VIOMMU_COUNT_REQUEST_MAX_NS, i);
	}
	return NULL;
}

/* A tiny ring: writers lap each other, and the reader, all the time. */
TEST(log_survives_writers_that_lap_each_other)
{
	struct log *log = make_log(4);
	pthread_t threads[NR_WRITERS];
	uint64_t seq = 0, total = 0;

	for (int i = 0; i < NR_WRITERS; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, write_records, log));
	while (seq < NR_WRITERS * PER_WRITER) {
		struct viommu_log_record buf[4];
		uint64_t before = seq, dropped;
		size_t nr = log_read(log, &seq, buf, 4, &dropped);

		CHECK_EQ(before + nr + dropped, seq);
		total += nr + dropped;
		for (size_t i = 0; i < nr; i++)
			if (!CHECK(buf[i].start == buf[i].end && buf[i].start == buf[i].target &&
				   buf[i].start == buf[i].time_ns &&
				   buf[i].start == buf[i].source && buf[i].seq > before))
				break;
	}
	for (int i = 0; i < NR_WRITERS; i++)
		pthread_join(threads[i], NULL);
	CHECK_EQ(total, NR_WRITERS * PER_WRITER);
	CHECK_EQ(log_header(log)->head, NR_WRITERS * PER_WRITER);
	CHECK_EQ(log_header(log)->counters[VIOMMU_COUNT_DMA_TRANSACTIONS], NR_WRITERS * PER_WRITER);
	CHECK_EQ(log_header(log)->counters[VIOMMU_COUNT_REQUEST_MAX_NS], PER_WRITER);
	log_destroy(log);
}
