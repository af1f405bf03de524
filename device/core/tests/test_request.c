// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests, one test per row of the requirement list (O general operation,
 * A ATTACH, D DETACH). MAP and UNMAP are in test_request_map.c.
 */
#include <string.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define BUFFER (RIG_RAM + 0x20000)

static struct rig rig;

TEST(O2_unknown_type_is_returned_untouched)
{
	static const uint8_t types[] = { 0, 6, 0x77, 0xff };

	rig_start_ready(&rig, NULL);
	for (size_t i = 0; i < sizeof(types); i++) {
		uint8_t readable[72] = { types[i] }, writable[8];

		CHECK_EQ(rig_request(&rig, readable, sizeof(readable), writable, sizeof(writable)),
			 0);
		for (size_t k = 0; k < sizeof(writable); k++)
			CHECK_EQ(writable[k], 0xaa);
		CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_UNKNOWN_REQUEST).flags, types[i]);
	}
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_UNKNOWN), sizeof(types));
	rig_stop(&rig);
}

TEST(O3_head_reserved_is_ignored)
{
	struct virtio_iommu_req_attach attach = {
		.head = { VIRTIO_IOMMU_T_ATTACH, { 0xff, 0xff, 0xff } },
		.domain = 1,
		.endpoint = RIG_ID0,
	};

	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_call(&rig, &attach, offsetof(typeof(attach), tail)), OK);
	rig_stop(&rig);
}

TEST(O5_short_requests_are_returned_untouched)
{
	static const struct {
		uint8_t type;
		size_t size;
	} sizes[] = { { 1, 20 }, { 2, 20 }, { 3, 36 }, { 4, 28 }, { 5, 72 } };

	rig_start_ready(&rig, NULL);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		uint8_t readable[72] = { sizes[i].type }, writable[516];

		for (size_t len = 1; len < sizes[i].size; len++)
			CHECK_EQ(rig_request(&rig, readable, len, writable, sizeof(writable)), 0);
		for (size_t len = 0; len < 4; len++) {
			CHECK_EQ(rig_request(&rig, readable, sizes[i].size, writable, len), 0);
			for (size_t k = 0; k < len; k++)
				CHECK_EQ(writable[k], 0xaa);
		}
	}
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_MALFORMED_REQUEST).start, 1);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1), 0xf);
	rig_stop(&rig);
}

TEST(O1_longer_buffers_are_written_whole)
{
	struct virtio_iommu_req_detach detach = { .head.type = VIRTIO_IOMMU_T_DETACH };
	uint8_t writable[300];

	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_request(&rig, &detach, 20, writable, sizeof(writable)), sizeof(writable));
	for (size_t i = 0; i < sizeof(writable); i++)
		CHECK_EQ(writable[i], i == sizeof(writable) - 4 ? NOENT : 0);
	rig_stop(&rig);
}

/* A chain in the table at RAM offset table: pieces of 4, 4 and 12, then single bytes. */
static void split_request(const void *readable, uint64_t table)
{
	static const unsigned pieces[] = { 4, 4, 12, 1, 1, 1, 1 };
	struct vring_desc *descs = (struct vring_desc *)(rig.ram + table);
	uint64_t offset = 0;

	memcpy(rig.ram + (BUFFER - RIG_RAM), readable, 20);
	memset(rig.ram + (BUFFER - RIG_RAM) + 20, 0xaa, 4);
	for (unsigned i = 0; i < 7; i++) {
		descs[i] = (struct vring_desc){
			.addr = BUFFER + offset,
			.len = pieces[i],
			.flags = (i < 6 ? VRING_DESC_F_NEXT : 0) | (i < 3 ? 0 : VRING_DESC_F_WRITE),
			.next = i + 1,
		};
		offset += pieces[i];
	}
}

TEST(O8_framing_is_free)
{
	struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = 1,
		.endpoint = RIG_ID0,
	};
	uint32_t head = 0, len = 0;

	rig_start_ready(&rig, NULL);
	split_request(&attach, rig.queues[0].desc);
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len) && len == 4);
	CHECK_EQ(memcmp(rig.ram + (BUFFER - RIG_RAM) + 20, "\0\0\0", 4), 0);

	/* The same through an indirect table. */
	attach.endpoint = 0x444;
	split_request(&attach, 0x30000);
	rig_set_desc(&rig, 0, 5,
		     (struct rig_desc){
			     RIG_RAM + 0x30000,
			     7 * sizeof(struct vring_desc),
			     VRING_DESC_F_INDIRECT,
			     0,
		     });
	rig_make_available(&rig, 0, 5);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len) && len == 4 && head == 5);
	CHECK_EQ(rig.ram[(BUFFER - RIG_RAM) + 20], NOENT);
	rig_stop(&rig);
}

TEST(A1_attach_reserved_nonzero)
{
	struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = 1,
		.endpoint = RIG_ID0,
	};

	rig_start_ready(&rig, NULL);
	for (int i = 0; i < 4; i++) {
		memset(attach.reserved, 0, sizeof(attach.reserved));
		attach.reserved[i] = 1;
		CHECK_EQ(rig_call(&rig, &attach, offsetof(typeof(attach), tail)), INVAL);
	}
	CHECK_EQ(rig_unmap(&rig, 1, 0, PAGE), NOENT);
	rig_stop(&rig);
}

TEST(A2_attach_unknown_flags)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 2), INVAL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0x80000000), INVAL);
	CHECK_EQ(rig_unmap(&rig, 1, 0, PAGE), NOENT);
	/* Bypass is unknown without its feature. */
	rig_init_driver(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_IOMMU_F_BYPASS_CONFIG));
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, BYPASS), INVAL);
	rig_stop(&rig);
}

TEST(A3_attach_unknown_endpoint)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, 0x444, 0), NOENT);
	CHECK_EQ(rig_attach(&rig, 1, 0xffffffff, 0), NOENT);
	/* An endpoint of the context, but not of this IOMMU. */
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0 + RIG_EP_DIRECT, 0), NOENT);
	rig_stop(&rig);
}

TEST(A4_second_endpoint_sees_old_and_new_mappings)
{
	start_attached(&rig);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 2 * PAGE, 1), OK);
	for (unsigned ep = 0; ep < 2; ep++) {
		CHECK_EQ(rig_probe_read(&rig, ep, PAGE), DMA_FAULT_NONE);
		CHECK_EQ(rig_probe_read(&rig, ep, 2 * PAGE), DMA_FAULT_NONE);
	}
	rig_stop(&rig);
}

TEST(A5_bypass_flag_contradicts_domain)
{
	start_attached(&rig);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID1, BYPASS), OK);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, BYPASS), INVAL);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), INVAL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, BYPASS), INVAL);
	/* Both stay where they were. */
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, RIG_RAM + RIG_DATA), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(A6_attach_moves_an_endpoint)
{
	start_attached(&rig);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_MAPPING);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), NOENT);
	/* The same domain again changes nothing. */
	CHECK_EQ(rig_map_page(&rig, 2, PAGE, 0), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(A7_attach_endpoint_whose_reserved_regions_are_mapped)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, RIG_MSI, 0), OK);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), UNSUPP);
	CHECK_EQ(rig_unmap(&rig, 1, RIG_MSI, RIG_MSI + 0xfff), OK);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	rig_stop(&rig);
}

TEST(A_too_many_domains)
{
	rig_start_ready(&rig, &(struct viommu_iommu_config){ .max_domains = 1 });
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID1, 0), NOMEM);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID1), OK);
	/* The old domain makes room for the new one. */
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	rig_stop(&rig);
}

TEST(C6_domain_range)
{
	const struct viommu_iommu_config config = { .domain_start = 5, .domain_end = 100 };

	rig_start_ready(&rig, &config);
	CHECK_EQ(rig_attach(&rig, 4, RIG_ID0, 0), RANGE);
	CHECK_EQ(rig_attach(&rig, 101, RIG_ID0, 0), RANGE);
	CHECK_EQ(rig_attach(&rig, 5, RIG_ID0, 0), OK);
	CHECK_EQ(rig_attach(&rig, 100, RIG_ID0, 0), OK);
	rig_init_driver(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_IOMMU_F_DOMAIN_RANGE));
	CHECK_EQ(rig_attach(&rig, 0xffffffff, RIG_ID0, 0), OK);
	rig_stop(&rig);
}

TEST(D1_detach_reserved_is_ignored)
{
	struct virtio_iommu_req_detach detach = {
		.head.type = VIRTIO_IOMMU_T_DETACH,
		.domain = 1,
		.endpoint = RIG_ID0,
	};

	start_attached(&rig);
	memset(detach.reserved, 0xff, sizeof(detach.reserved));
	CHECK_EQ(rig_call(&rig, &detach, offsetof(typeof(detach), tail)), OK);
	rig_stop(&rig);
}

TEST(D2_D3_detach_what_is_not_attached)
{
	start_attached(&rig);
	CHECK_EQ(rig_detach(&rig, 1, 0x444), NOENT);
	CHECK_EQ(rig_detach(&rig, 2, RIG_ID0), INVAL);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID1), INVAL);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), INVAL);
	rig_stop(&rig);
}

TEST(D4_D5_detach_ends_access_and_the_domain)
{
	start_attached(&rig);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), NOENT);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_MAPPING);
	rig_stop(&rig);
}

TEST(requests_are_logged)
{
	struct viommu_log_record record;

	start_attached(&rig);
	record = rig_wait_log(&rig, VIOMMU_LOG_ATTACH);
	CHECK(record.endpoint == RIG_ID0 && record.domain == 1 && record.source == rig.iommu_index);
	record = rig_wait_log(&rig, VIOMMU_LOG_MAP);
	CHECK(record.start == PAGE && record.end == 2 * PAGE - 1 && record.flags == 3);
	CHECK(record.target == RIG_RAM + RIG_DATA && record.status == OK && record.duration_ns);
	CHECK_EQ(rig_unmap(&rig, 7, 0, 1), NOENT);
	record = rig_wait_log(&rig, VIOMMU_LOG_UNMAP);
	CHECK(record.status == NOENT && record.domain == 7);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_REQUEST_ERRORS), 1);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_MAP), 1);
	CHECK(rig_counter(&rig, VIOMMU_COUNT_REQUEST_MAX_NS) > 0);
	rig_stop(&rig);
}
