// SPDX-License-Identifier: GPL-2.0-or-later
/* The log gives back every byte of a request that the device saw. */
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>

#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define PART 24
#define BUFFER 0x20000ull
#define MAX_RECORDS 256
#define DEVICE_CONFIG 0x2000ull /* in BAR 4 */

static struct rig rig;
static struct viommu_log_record records[MAX_RECORDS];
static uint64_t log_seq;

/* What was logged since the last call. */
static size_t take_records(void)
{
	uint64_t dropped;
	size_t nr = viommu_ctx_log_read(rig.ctx, &log_seq, records, MAX_RECORDS, &dropped);

	REQUIRE(nr < MAX_RECORDS && !dropped);
	return nr;
}

static void start(void)
{
	rig_start_ready(&rig, NULL);
	log_seq = 0;
	take_records();
}

/* The one record of a kind among nr. */
static const struct viommu_log_record *only(size_t nr, enum viommu_log_kind kind)
{
	const struct viommu_log_record *found = NULL;

	for (size_t i = 0; i < nr; i++) {
		if (records[i].kind != kind)
			continue;
		REQUIRE(!found);
		found = &records[i];
	}
	REQUIRE(found);
	return found;
}

static unsigned count_details(size_t nr)
{
	unsigned found = 0;

	for (size_t i = 0; i < nr; i++)
		found += records[i].kind == VIOMMU_LOG_REQUEST_DETAIL;
	return found;
}

/* The details must be there, in order, right before the record of the request. */
static void check_detail(enum viommu_log_kind kind, const void *readable, uint64_t len,
			 uint64_t writable, uint64_t used)
{
	size_t nr = take_records(), known = len < 72 ? len : 72;
	size_t nr_parts = (known + PART - 1) / PART, at = 0;
	uint8_t bytes[3 * PART] = { 0 }, wanted[3 * PART] = { 0 };

	CHECK_EQ(count_details(nr), 1 + nr_parts);
	while (at < nr && records[at].kind != VIOMMU_LOG_REQUEST_DETAIL)
		at++;
	REQUIRE(at + 1 + nr_parts < nr);
	CHECK_EQ(records[at].start, len);
	CHECK_EQ(records[at].end, writable);
	CHECK_EQ(records[at].target, used);
	for (size_t i = 0; i <= nr_parts; i++) {
		CHECK_EQ(records[at + i].kind, VIOMMU_LOG_REQUEST_DETAIL);
		CHECK_EQ(records[at + i].status, i);
		if (i)
			memcpy(bytes + (i - 1) * PART, &records[at + i].start, PART);
	}
	memcpy(wanted, readable, known);
	CHECK(!memcmp(bytes, wanted, sizeof(bytes)));
	CHECK_EQ(records[at + 1 + nr_parts].kind, kind);
}

TEST(detail_is_not_kept_of_plain_requests)
{
	struct virtio_iommu_req_probe probe = {
		.head.type = VIRTIO_IOMMU_T_PROBE,
		.endpoint = RIG_ID0,
	};
	uint8_t writable[600];

	start();
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
	CHECK_EQ(rig_unmap(&rig, 1, PAGE, 2 * PAGE - 1), OK);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK_EQ(rig_request(&rig, &probe, sizeof(probe), writable, 516), 516);
	CHECK_EQ(count_details(take_records()), 0);
	CHECK_EQ(rig_request(&rig, &probe, sizeof(probe), writable, 600), 600);
	CHECK_EQ(only(take_records(), VIOMMU_LOG_PROBE)->end, 600);
	rig_stop(&rig);
}

TEST(detail_has_reserved_bytes)
{
	static const struct {
		uint8_t type, size, first;
	} reserved[] = { { 1, 20, 16 }, { 2, 20, 12 }, { 4, 28, 24 }, { 5, 72, 8 } };

	start();
	for (size_t i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		uint8_t bytes[72] = { reserved[i].type }, tail[516];
		size_t writable = reserved[i].type == VIRTIO_IOMMU_T_PROBE ? 516 : 4;

		for (unsigned at = reserved[i].first; at < reserved[i].size; at++) {
			bytes[at] = 0x81;
			rig_request(&rig, bytes, reserved[i].size, tail, writable);
			check_detail(reserved[i].type, bytes, reserved[i].size, writable, writable);
			bytes[at] = 0;
		}
	}
	rig_stop(&rig);
}

TEST(detail_has_head_reserved_and_lengths)
{
	uint8_t bytes[100] = { VIRTIO_IOMMU_T_MAP }, writable[16];

	start();
	for (int i = 1; i < 4; i++) {
		bytes[i] = i;
		CHECK_EQ(rig_request(&rig, bytes, 36, writable, 4), 4);
		check_detail(VIOMMU_LOG_MAP, bytes, 36, 4, 4);
		bytes[i] = 0;
	}
	CHECK_EQ(rig_request(&rig, bytes, 100, writable, 4), 4);
	check_detail(VIOMMU_LOG_MAP, bytes, 100, 4, 4);
	CHECK_EQ(rig_request(&rig, bytes, 36, writable, 16), 16);
	check_detail(VIOMMU_LOG_MAP, bytes, 36, 16, 16);
	rig_stop(&rig);
}

TEST(detail_has_what_cannot_be_answered)
{
	uint8_t bytes[72] = { VIRTIO_IOMMU_T_ATTACH, 1, 2, 3, 4, 5 }, writable[8];

	start();
	CHECK_EQ(rig_request(&rig, bytes, 19, writable, 4), 0);
	check_detail(VIOMMU_LOG_MALFORMED_REQUEST, bytes, 19, 4, 0);
	CHECK_EQ(rig_request(&rig, bytes, 3, writable, 4), 0);
	check_detail(VIOMMU_LOG_MALFORMED_REQUEST, bytes, 3, 4, 0);
	CHECK_EQ(rig_request(&rig, bytes, 20, writable, 3), 0);
	check_detail(VIOMMU_LOG_MALFORMED_REQUEST, bytes, 20, 3, 0);
	bytes[0] = 0x77;
	CHECK_EQ(rig_request(&rig, bytes, 48, writable, 8), 0);
	check_detail(VIOMMU_LOG_UNKNOWN_REQUEST, bytes, 48, 8, 0);
	rig_stop(&rig);
}

/* Such a request cannot be given to a device again. */
TEST(detail_is_not_kept_of_buffers_outside_memory)
{
	uint32_t head, len;

	start();
	memset(rig.ram + BUFFER, 0, 64);
	rig.ram[BUFFER] = VIRTIO_IOMMU_T_DETACH;
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ RIG_RAM + BUFFER, 20, 1, 1 });
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ RIG_RAM + RIG_RAM_SIZE, 4, 2, 0 });
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len) && len == 0);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ RIG_RAM + RIG_RAM_SIZE, 20, 1, 1 });
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len) && len == 0);
	CHECK_EQ(count_details(take_records()), 0);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_MALFORMED), 2);
	rig_stop(&rig);
}

static void inject(enum viommu_inject_action action, uint32_t parameter)
{
	struct viommu_inject_rule rule = {
		.action = action,
		.endpoint = -1,
		.domain = -1,
		.count = 1,
		.parameter = parameter,
	};
	uint32_t id;

	REQUIRE(!viommu_ctx_inject_add(rig.ctx, &rule, &id));
}

TEST(detail_has_a_used_length_that_is_wrong)
{
	uint8_t bytes[20] = { VIRTIO_IOMMU_T_DETACH }, writable[4];

	start();
	inject(VIOMMU_INJECT_SHORT_USED_LEN, 0);
	CHECK_EQ(rig_request(&rig, bytes, 20, writable, 4), 3);
	check_detail(VIOMMU_LOG_DETACH, bytes, 20, 4, 3);
	rig_stop(&rig);
}

TEST(detail_tells_of_a_request_that_was_dropped)
{
	uint8_t bytes[20] = { VIRTIO_IOMMU_T_DETACH };
	uint32_t head, len;

	start();
	inject(VIOMMU_INJECT_DROP, 0);
	memcpy(rig.ram + BUFFER, bytes, sizeof(bytes));
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ RIG_RAM + BUFFER, 20, 1, 1 });
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ RIG_RAM + BUFFER + 32, 4, 2, 0 });
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	CHECK(!rig_take_used(&rig, 0, &head, &len));
	check_detail(VIOMMU_LOG_DETACH, bytes, 20, 4, UINT64_MAX);
	rig_stop(&rig);
}

TEST(record_tells_what_was_asked_for_if_not_executed)
{
	const struct viommu_log_record *record;
	size_t nr;

	start();
	inject(VIOMMU_INJECT_STATUS, VIRTIO_IOMMU_S_IOERR);
	CHECK_EQ(rig_map(&rig, 7, PAGE, 2 * PAGE - 1, 5 * PAGE, 3), VIRTIO_IOMMU_S_IOERR);
	inject(VIOMMU_INJECT_STATUS, VIRTIO_IOMMU_S_IOERR);
	CHECK_EQ(rig_unmap(&rig, 7, PAGE, 2 * PAGE - 1), VIRTIO_IOMMU_S_IOERR);
	inject(VIOMMU_INJECT_STATUS, VIRTIO_IOMMU_S_IOERR);
	CHECK_EQ(rig_attach(&rig, 7, RIG_ID0, 1), VIRTIO_IOMMU_S_IOERR);
	nr = take_records();
	record = only(nr, VIOMMU_LOG_MAP);
	CHECK_EQ(record->start, PAGE);
	CHECK_EQ(record->end, 2 * PAGE - 1);
	CHECK_EQ(record->target, 5 * PAGE);
	CHECK_EQ(record->flags, 3);
	record = only(nr, VIOMMU_LOG_UNMAP);
	CHECK_EQ(record->start, PAGE);
	CHECK_EQ(record->end, 2 * PAGE - 1);
	CHECK_EQ(only(nr, VIOMMU_LOG_ATTACH)->flags, 1);
	rig_stop(&rig);
}

TEST(record_tells_of_configuration_and_features)
{
	const uint64_t bypass = DEVICE_CONFIG + offsetof(struct virtio_iommu_config, bypass);
	const struct viommu_log_record *record;
	size_t nr;

	start();
	rig_write(&rig, bypass, 1, 1);
	record = only(take_records(), VIOMMU_LOG_CONFIG_WRITE);
	CHECK_EQ(record->start, offsetof(struct virtio_iommu_config, bypass));
	CHECK_EQ(record->end, record->start);
	CHECK_EQ(record->target, 1);
	rig_write(&rig, DEVICE_CONFIG + 24, 0x12345678, 4);
	record = only(take_records(), VIOMMU_LOG_CONFIG_WRITE);
	CHECK_EQ(record->end, 27);
	CHECK_EQ(record->target, 0x12345678);

	CHECK(rig_negotiate(&rig, 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_IOMMU_F_PROBE));
	nr = take_records();
	for (size_t i = 0; i < nr; i++)
		if (records[i].kind == VIOMMU_LOG_DEVICE_STATUS &&
		    records[i].status & VIRTIO_CONFIG_S_FEATURES_OK) {
			CHECK_EQ(records[i].start,
				 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_IOMMU_F_PROBE);
			CHECK_EQ(records[i].end, rig_offered(&rig));
			rig_stop(&rig);
			return;
		}
	CHECK(!"no record of FEATURES_OK");
	rig_stop(&rig);
}
