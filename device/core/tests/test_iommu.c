// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The virtio-iommu beyond its requests: features and configuration (F, C),
 * probing (P, R), bypass and resets (O4, O6, O7), faults (E).
 */
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define FEATURE(name) (1ull << VIRTIO_IOMMU_F_##name)
#define CONFIG 0x2000
#define BYPASS_FIELD (CONFIG + 36)
#define IDENTITY (RIG_RAM + RIG_DATA) /* an address that means the same everywhere */
#define EVENT_BUFFERS (RIG_RAM + 0x40000)
#define PROBE_SIZE 512

static struct rig rig;

TEST(F_features)
{
	uint64_t features;

	rig_start(&rig, NULL);
	features = rig_offered(&rig);
	CHECK(features & FEATURE(MAP_UNMAP));
	CHECK(!(features & FEATURE(BYPASS)));
	CHECK_EQ(features & 0xff, 0x77);
	CHECK(features & 1ull << VIRTIO_F_VERSION_1);
	CHECK(features & 1ull << VIRTIO_RING_F_EVENT_IDX);
	CHECK(features & 1ull << VIRTIO_RING_F_INDIRECT_DESC);
	rig_stop(&rig);
}

TEST(C_configuration)
{
	const struct viommu_iommu_config config = {
		.page_size_mask = 0x201000,
		.input_start = 0x1000,
		.input_end = 0xffffffffff,
		.domain_start = 3,
		.domain_end = 77,
		.probe_size = 128,
		.bypass = 1,
	};

	rig_start(&rig, &config);
	CHECK_EQ(rig_read(&rig, CONFIG + 0, 8), 0x201000);
	CHECK_EQ(rig_read(&rig, CONFIG + 8, 4), 0x1000);
	CHECK_EQ(rig_read(&rig, CONFIG + 16, 8), 0xffffffffff);
	CHECK_EQ(rig_read(&rig, CONFIG + 24, 4), 3);
	CHECK_EQ(rig_read(&rig, CONFIG + 28, 4), 77);
	CHECK_EQ(rig_read(&rig, CONFIG + 32, 4), 128);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 4), 1);
	CHECK_EQ(rig_read(&rig, CONFIG + 40, 8), 0);
	CHECK_EQ(rig_read(&rig, CONFIG + 38, 4), 0);
	rig_stop(&rig);
}

TEST(C4_bypass_survives_a_device_reset_only)
{
	rig_start_ready(&rig, NULL);
	rig_write(&rig, BYPASS_FIELD, 1, 1);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 1), 1);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	/* A function level reset is one of the device, too. */
	client_config_write(rig.iommu, client_find_cap(rig.iommu, 0x10) + 8, 0x8000, 2);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 1), 1);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	REQUIRE(!client_reset(rig.iommu));
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 1), 0);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(C5_bypass_reads_zero_or_one)
{
	rig_start_ready(&rig, NULL);
	rig_write(&rig, BYPASS_FIELD, 2, 1);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 1), 0);
	rig_write(&rig, BYPASS_FIELD, 0xffffffff, 4);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 4), 0);
	rig_write(&rig, BYPASS_FIELD, 1, 1);
	rig_write(&rig, BYPASS_FIELD, 0xff, 1);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 4), 1);
	rig_write(&rig, CONFIG, 0, 8);
	CHECK(rig_read(&rig, CONFIG, 8) != 0);
	rig_write(&rig, BYPASS_FIELD, 0, 1);
	rig_init_driver(&rig, rig_offered(&rig) & ~FEATURE(BYPASS_CONFIG));
	rig_write(&rig, BYPASS_FIELD, 1, 1);
	CHECK_EQ(rig_read(&rig, BYPASS_FIELD, 1), 0);
	rig_stop(&rig);
}

TEST(O4_unattached_endpoint_reaches_nothing)
{
	rig_start(&rig, NULL);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP1, IDENTITY), DMA_FAULT_DOMAIN);
	/* Behind no IOMMU. */
	CHECK_EQ(rig_probe_read(&rig, RIG_EP_DIRECT, IDENTITY), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(O6_bypass_config_holds_unaccepted)
{
	rig_start(&rig, &(struct viommu_iommu_config){ .bypass = 1 });
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	rig_init_driver(&rig, rig_offered(&rig) & ~FEATURE(BYPASS_CONFIG));
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_MAPPING);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, IDENTITY), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(O6_bypass_domain)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, VIRTIO_IOMMU_ATTACH_F_BYPASS), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(O6_old_bypass_holds_once_negotiated)
{
	const struct viommu_iommu_config config = {
		.features = FEATURE(MAP_UNMAP) | FEATURE(BYPASS),
	};

	rig_start(&rig, &config);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_NONE);
	rig_init_driver(&rig, rig_offered(&rig) & ~FEATURE(BYPASS));
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(O7_every_reset_detaches_all)
{
	rig_start_ready(&rig, NULL);
	for (int i = 0; i < 3; i++) {
		CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
		CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
		/* Past the record of the driver's own reset. */
		rig_wait_log(&rig, VIOMMU_LOG_MAP);
		CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
		if (i == 0) {
			rig_write(&rig, VIRTIO_PCI_COMMON_STATUS, 0, 1);
			CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_VIRTIO);
		} else if (i == 1) {
			REQUIRE(!client_reset(rig.iommu));
			CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_DEVICE);
		} else {
			unsigned cap = client_find_cap(rig.iommu, 0x10);

			client_config_write(rig.iommu, cap + 8, 0x8000, 2);
			CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_FLR);
		}
		CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1), 0);
		CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_DOMAIN);
		client_config_write(rig.iommu, 4, 6, 2);
		rig_init_driver(&rig, RIG_ALL_FEATURES);
		CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), NOENT);
		rig_wait_log(&rig, VIOMMU_LOG_MAP);
	}
	rig_stop(&rig);
}

struct probe_answer {
	uint8_t bytes[PROBE_SIZE + 4];
};

static uint32_t probe(uint32_t endpoint, struct probe_answer *answer, size_t len)
{
	struct virtio_iommu_req_probe request = {
		.head.type = VIRTIO_IOMMU_T_PROBE,
		.endpoint = endpoint,
	};

	memset(request.reserved, 0xff, sizeof(request.reserved)); /* P1: ignored */
	return rig_request(&rig, &request, sizeof(request), answer->bytes, len);
}

TEST(P_probe_properties)
{
	struct probe_answer answer;
	struct virtio_iommu_probe_resv_mem resv[2];

	rig_start_ready(&rig, NULL);
	CHECK_EQ(probe(RIG_ID0, &answer, sizeof(answer)), sizeof(answer));
	memcpy(resv, answer.bytes, sizeof(resv));
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(resv[i].head.type, VIRTIO_IOMMU_PROBE_T_RESV_MEM); /* P4 */
		CHECK_EQ(resv[i].head.length, 20); /* P5, and P6 by the offsets */
		CHECK(!resv[i].reserved[0] && !resv[i].reserved[1] && !resv[i].reserved[2]);
	}
	CHECK_EQ(resv[0].subtype, VIRTIO_IOMMU_RESV_MEM_T_RESERVED);
	CHECK(resv[0].start == RIG_RESERVED && resv[0].end == RIG_RESERVED_END);
	CHECK_EQ(resv[1].subtype, VIRTIO_IOMMU_RESV_MEM_T_MSI);
	CHECK(resv[1].start == RIG_MSI && resv[1].end == RIG_MSI_END);
	for (size_t i = sizeof(resv); i < sizeof(answer); i++) /* P8, and the tail: OK */
		CHECK_EQ(answer.bytes[i], 0);
	rig_stop(&rig);
}

TEST(P2_probe_unknown_endpoint)
{
	struct probe_answer answer;

	rig_start_ready(&rig, NULL);
	CHECK_EQ(probe(0x444, &answer, sizeof(answer)), sizeof(answer));
	for (size_t i = 0; i < sizeof(answer); i++)
		CHECK_EQ(answer.bytes[i], i == PROBE_SIZE ? NOENT : 0);
	rig_stop(&rig);
}

TEST(P3_probe_without_the_feature)
{
	struct probe_answer answer;

	rig_start_ready(&rig, &(struct viommu_iommu_config){ .features = FEATURE(MAP_UNMAP) });
	CHECK_EQ(probe(RIG_ID0, &answer, sizeof(answer)), 0);
	for (size_t i = 0; i < sizeof(answer); i++)
		CHECK_EQ(answer.bytes[i], 0xaa);
	rig_stop(&rig);
}

TEST(P7_probe_with_too_little_room)
{
	static const size_t sizes[] = { 4, 20, PROBE_SIZE + 3 };
	struct probe_answer answer;

	rig_start_ready(&rig, NULL);
	for (size_t s = 0; s < 3; s++) {
		CHECK_EQ(probe(RIG_ID0, &answer, sizes[s]), sizes[s]);
		for (size_t i = 0; i < sizes[s] - 4; i++)
			CHECK_EQ(answer.bytes[i], 0xaa);
		CHECK_EQ(answer.bytes[sizes[s] - 4], INVAL);
	}
	rig_stop(&rig);
}

/* Posts a buffer as Linux does: without a notification. */
static void post_event_buffer(unsigned i, uint32_t len)
{
	memset(rig.ram + (EVENT_BUFFERS - RIG_RAM) + i * 64, 0xaa, 64);
	rig_set_desc(&rig, 1, i,
		     (struct rig_desc){ EVENT_BUFFERS + i * 64, len, VRING_DESC_F_WRITE, 0 });
	rig_make_available(&rig, 1, i);
}

static struct virtio_iommu_fault take_event(void)
{
	struct virtio_iommu_fault fault;
	uint32_t head = 0, len = 0;

	while (!rig_take_used(&rig, 1, &head, &len))
		rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1); /* a round trip through the reactor */
	CHECK_EQ(len, sizeof(fault));
	memcpy(&fault, rig.ram + (EVENT_BUFFERS - RIG_RAM) + head * 64, sizeof(fault));
	/* E1, E2 */
	CHECK(!fault.reserved[0] && !fault.reserved[1] && !fault.reserved[2]);
	CHECK(!fault.reserved2[0] && !fault.reserved2[1] && !fault.reserved2[2] &&
	      !fault.reserved2[3]);
	return fault;
}

TEST(E7_fault_records)
{
	struct virtio_iommu_fault fault;

	rig_start_ready(&rig, NULL);
	for (unsigned i = 0; i < 8; i++)
		post_event_buffer(i, sizeof(fault));
	rig_probe_read(&rig, RIG_EP0, 0x1234);
	fault = take_event();
	CHECK_EQ(fault.reason, VIRTIO_IOMMU_FAULT_R_DOMAIN);
	CHECK_EQ(fault.flags, VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	CHECK(fault.endpoint == RIG_ID0 && fault.address == 0x1234);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	rig_probe_write(&rig, RIG_EP1, 0x5678);
	fault = take_event();
	CHECK_EQ(fault.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
	CHECK_EQ(fault.flags, VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	CHECK(fault.endpoint == RIG_ID1 && fault.address == 0x5678);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RIG_RESERVED), DMA_FAULT_RESERVED);
	fault = take_event();
	CHECK_EQ(fault.reason, VIRTIO_IOMMU_FAULT_R_UNKNOWN);
	CHECK_EQ(fault.flags, VIRTIO_IOMMU_FAULT_F_READ | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	/* A read in the MSI window; a mapping that does not allow it. */
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, RIG_MSI), DMA_FAULT_RESERVED);
	CHECK_EQ(take_event().reason, VIRTIO_IOMMU_FAULT_R_UNKNOWN);
	CHECK_EQ(rig_map(&rig, 1, PAGE, 2 * PAGE - 1, IDENTITY, VIRTIO_IOMMU_MAP_F_READ), OK);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP1, PAGE), DMA_FAULT_PERMISSION);
	fault = take_event();
	CHECK_EQ(fault.reason, VIRTIO_IOMMU_FAULT_R_MAPPING);
	CHECK_EQ(fault.flags, VIRTIO_IOMMU_FAULT_F_WRITE | VIRTIO_IOMMU_FAULT_F_ADDRESS);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULTS_REPORTED), 5);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULT_DOMAIN), 1);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULT_MAPPING), 2);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULT_UNKNOWN), 2);
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_FAULT).start, 0x1234);
	rig_stop(&rig);
}

TEST(E5_small_event_buffer_takes_no_part_of_a_record)
{
	uint32_t head = 0, len = 1;

	rig_start_ready(&rig, NULL);
	post_event_buffer(0, 16);
	rig_probe_read(&rig, RIG_EP0, 0);
	rig_wait_log(&rig, VIOMMU_LOG_FAULT_DROPPED);
	while (!rig_take_used(&rig, 1, &head, &len))
		rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1);
	CHECK_EQ(len, 0);
	CHECK_EQ(rig.ram[EVENT_BUFFERS - RIG_RAM], 0xaa);
	rig_stop(&rig);
}

TEST(E6_no_event_buffer)
{
	rig_start_ready(&rig, NULL);
	rig_probe_read(&rig, RIG_EP0, 0x42);
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_FAULT_DROPPED).start, 0x42);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULTS_DROPPED), 1);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1), 0xf);
	rig_stop(&rig);
}

TEST(event_interrupt)
{
	int fds[3] = { make_eventfd(), make_eventfd(), make_eventfd() };

	rig_start(&rig, NULL);
	rig_init_driver(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_RING_F_EVENT_IDX));
	REQUIRE(!client_set_irqs(rig.iommu, 0x24, 2, 0, 3, fds, 3));
	post_event_buffer(0, 24);
	rig_probe_read(&rig, RIG_EP0, 0);
	CHECK_EQ(eventfd_wait(fds[2]), 1);
	CHECK_EQ(eventfd_count(fds[0]) + eventfd_count(fds[1]), 0);
	/* The request queue's vector, unless the driver does not want it. */
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(eventfd_count(fds[1]), 1);
	*(uint16_t *)(rig.ram + rig.queues[0].avail) = VRING_AVAIL_F_NO_INTERRUPT;
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK_EQ(eventfd_count(fds[1]), 0);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	rig_stop(&rig);
}

TEST(R5_msi_window)
{
	struct viommu_log_record record;
	const uint64_t msi = RIG_MSI + 0x10;

	rig_start_ready(&rig, &(struct viommu_iommu_config){ .bypass = 1 });
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, msi, 0x11223344, 4), DMA_STATUS_OK);
	record = rig_wait_log(&rig, VIOMMU_LOG_MSI_WRITE);
	CHECK(record.start == msi && record.target == 0x11223344 && record.endpoint == RIG_ID0);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, msi), DMA_FAULT_RESERVED);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, msi), DMA_FAULT_RESERVED);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, msi, 0, 8), DMA_STATUS_FAULT);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, msi + 2, 0, 4), DMA_STATUS_FAULT);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, RIG_RESERVED_END), DMA_FAULT_RESERVED);
	rig_stop(&rig);
}

TEST(lost_client_is_a_system_reset)
{
	rig_start_ready(&rig, NULL);
	rig_write(&rig, BYPASS_FIELD, 1, 1);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	close(rig.iommu);
	rig_wait_log(&rig, VIOMMU_LOG_CLIENT_GONE);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, IDENTITY), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, IDENTITY), DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(two_iommus_know_nothing_of_each_other)
{
	static struct rig other;
	struct viommu_domain_info domains[4];

	rig_start_pair(&rig, &other);
	memset(rig.ram + RIG_DATA, 1, PAGE);
	memset(other.ram + RIG_DATA, 2, PAGE);
	/* The same domain, endpoint and address in both. */
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_attach(&other, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
	CHECK_EQ(rig_probe_read(&other, RIG_EP0, PAGE), DMA_FAULT_MAPPING);
	CHECK_EQ(rig_map_page(&other, 1, PAGE, 0), OK);
	CHECK_EQ(viommu_ctx_query_domains(rig.ctx, domains, 4), 2);
	CHECK(domains[0].iommu != domains[1].iommu);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, PAGE, 3, 8), DMA_STATUS_OK);
	CHECK_EQ(rig.ram[RIG_DATA], 3);
	CHECK_EQ(other.ram[RIG_DATA], 2);
	/* One is reset: the other keeps its mappings. */
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_probe_read(&other, RIG_EP0, PAGE), DMA_FAULT_NONE);
	rig_stop(&other);
	rig_stop(&rig);
}
