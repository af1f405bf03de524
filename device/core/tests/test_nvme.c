// SPDX-License-Identifier: GPL-2.0-or-later
/* The NVMe controller: registers, resets, admin commands, hostile drivers. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "nvme.h"
#include "nvme_driver.h"

#define DNR(status) ((status) | NVME_DNR)

static struct nvme_test test;
static const uint64_t data_iova = NVME_IOVA + NVME_DATA;

static uint8_t *data(void)
{
	return nvme_ram(&test, NVME_DATA);
}

static void start(void)
{
	nvme_test_start(&test, false);
	nvme_enable(&test);
}

static uint16_t admin(uint8_t opcode, uint32_t nsid, uint32_t dword10, uint32_t dword11)
{
	struct nvme_sqe sqe = nvme_sqe(opcode, nsid, data_iova, 0);

	sqe.dwords[10] = dword10;
	sqe.dwords[11] = dword11;
	return nvme_call(&test, 0, sqe);
}

static uint16_t identify(uint32_t cns, uint32_t nsid)
{
	memset(data(), 0xee, 2 * NVME_PAGE);
	return admin(NVME_ADMIN_IDENTIFY, nsid, cns, 0);
}

TEST(registers_and_identity)
{
	nvme_test_start(&test, false);
	CHECK_EQ(client_config_read(test.rig.endpoints[RIG_EP1], 0, 4), 0x7e4d1234);
	CHECK_EQ(client_config_read(test.rig.endpoints[RIG_EP1], 8, 4) >> 8, 0x010802);
	/* 1024 entries, contiguous, 10 s; NVM commands, doorbells of 4 bytes, 4 KiB pages. */
	CHECK_EQ(nvme_reg(&test, NVME_CAP), 0x140103ff);
	CHECK_EQ(nvme_reg(&test, NVME_CAP + 4), 0x20);
	CHECK_EQ(nvme_reg(&test, NVME_VS), 0x10400);
	CHECK_EQ(nvme_reg(&test, NVME_CSTS), 0);
	CHECK_EQ(nvme_reg(&test, NVME_REGS_SIZE), 0);
	CHECK_EQ(nvme_reg(&test, NVME_DOORBELLS), 0);
	nvme_enable(&test);
	CHECK_EQ(identify(NVME_CNS_CONTROLLER, 0), NVME_SUCCESS);
	CHECK(!memcmp(data() + 24, "viotest NVMe ", 13));
	CHECK(!memcmp(data() + 4, "00000009     ", 13));
	CHECK_EQ(data()[77], 9);
	CHECK_EQ(data()[512], 0x66);
	CHECK_EQ(data()[513], 0x44);
	CHECK(!strncmp((char *)data() + 768, "nqn.2026-01.org.viotest:nvme:00000009:ep1", 256));
	CHECK_EQ(data()[NVME_PAGE], 0xee);
	CHECK_EQ(eventfd_count(test.eventfds[0]), 1);
	CHECK_EQ(identify(NVME_CNS_NAMESPACE, 1), NVME_SUCCESS);
	CHECK_EQ(*(uint64_t *)data(), NVME_IMAGE_SIZE / 512);
	CHECK_EQ(*(uint32_t *)(data() + 128), 9 << 16);
	CHECK_EQ(identify(NVME_CNS_NAMESPACES, 0), NVME_SUCCESS);
	CHECK_EQ(*(uint64_t *)data(), 1);
	CHECK_EQ(identify(NVME_CNS_NAMESPACES, 1), NVME_SUCCESS);
	CHECK_EQ(*(uint64_t *)data(), 0);
	CHECK_EQ(identify(NVME_CNS_DESCRIPTORS, 1), NVME_SUCCESS);
	CHECK_EQ(*(uint32_t *)data(), 0x1003);
	CHECK_EQ(data()[10] >> 4, 8);
	CHECK_EQ(data()[20], 0);
	CHECK_EQ(identify(NVME_CNS_NAMESPACE, 2), DNR(NVME_INVALID_NAMESPACE));
	CHECK_EQ(identify(NVME_CNS_NAMESPACE, NVME_ALL_NAMESPACES), DNR(NVME_INVALID_NAMESPACE));
	CHECK_EQ(identify(0x13, 1), DNR(NVME_INVALID_FIELD));
	CHECK_EQ(data()[0], 0xee);
	nvme_test_stop(&test);
}

TEST(features_logs_and_abort)
{
	start();
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_NR_QUEUES, 0x1f001f), NVME_SUCCESS);
	CHECK_EQ(test.result, (NVME_IO_QUEUES - 1) << 16 | (NVME_IO_QUEUES - 1));
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_WRITE_CACHE, 0), NVME_SUCCESS);
	CHECK_EQ(test.result, 1);
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, NVME_FEATURE_WRITE_CACHE, 0), NVME_SUCCESS);
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, NVME_FEATURE_WRITE_CACHE, 0), NVME_SUCCESS);
	CHECK_EQ(test.result, 0);
	CHECK_EQ(admin(NVME_ADMIN_SET_FEATURES, 0, 1u << 31 | NVME_FEATURE_WRITE_CACHE, 0),
		 DNR(NVME_NOT_SAVEABLE));
	CHECK_EQ(admin(NVME_ADMIN_GET_FEATURES, 0, 0x80, 0), DNR(NVME_INVALID_FIELD));
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, NVME_LOG_HEALTH | 127 << 16, 0), NVME_SUCCESS);
	CHECK_EQ(data()[1] | data()[2] << 8, 300);
	CHECK_EQ(data()[3], 100);
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, NVME_LOG_HEALTH | 0xffffu << 16, 0xffff),
		 DNR(NVME_INVALID_FIELD));
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, 0x70 | 127 << 16, 0),
		 DNR(NVME_LOG_PAGE_INVALID));
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 0, 0), NVME_SUCCESS);
	CHECK_EQ(test.result, 1);
	CHECK_EQ(admin(0x7f, 0, 0, 0), DNR(NVME_INVALID_OPCODE));
	nvme_test_stop(&test);
}

static uint16_t create(uint8_t opcode, uint32_t id, uint32_t size, uint32_t dword11)
{
	return admin(opcode, 0, (size - 1) << 16 | id, dword11);
}

TEST(queues_that_cannot_be)
{
	const uint8_t cq = NVME_ADMIN_CREATE_CQ, sq = NVME_ADMIN_CREATE_SQ;
	struct nvme_sqe sqe;

	start();
	CHECK_EQ(create(cq, 0, 8, 1), DNR(NVME_QID_INVALID));
	CHECK_EQ(create(cq, NVME_NR_QUEUES, 8, 1), DNR(NVME_QID_INVALID));
	CHECK_EQ(create(cq, 1, 1, 1), DNR(NVME_QUEUE_SIZE));
	CHECK_EQ(create(cq, 1, 1025, 1), DNR(NVME_QUEUE_SIZE));
	CHECK_EQ(create(cq, 1, 8, 0), DNR(NVME_INVALID_FIELD));
	CHECK_EQ(create(cq, 1, 8, NVME_TEST_VECTORS << 16 | 3), DNR(NVME_VECTOR_INVALID));
	sqe = nvme_sqe(cq, 0, data_iova + 512, 0);
	sqe.dwords[10] = 7 << 16 | 1;
	sqe.dwords[11] = 1;
	CHECK_EQ(nvme_call(&test, 0, sqe), DNR(NVME_PRP_OFFSET));
	CHECK_EQ(create(sq, 1, 8, 1 << 16 | 1), DNR(NVME_CQ_INVALID));
	CHECK_EQ(create(sq, 1, 8, 0 << 16 | 1), DNR(NVME_QID_INVALID));
	nvme_create_queues(&test, 1);
	CHECK_EQ(create(cq, 1, 8, 1), DNR(NVME_QID_INVALID));
	CHECK_EQ(create(sq, 1, 8, 1 << 16 | 1), DNR(NVME_QID_INVALID));
	CHECK_EQ(admin(NVME_ADMIN_DELETE_CQ, 0, 1, 0), DNR(NVME_QUEUE_DELETION));
	CHECK_EQ(admin(NVME_ADMIN_DELETE_SQ, 0, 2, 0), DNR(NVME_QID_INVALID));
	CHECK_EQ(admin(NVME_ADMIN_DELETE_SQ, 0, 0, 0), DNR(NVME_QID_INVALID));
	CHECK_EQ(admin(NVME_ADMIN_DELETE_SQ, 0, 1, 0), NVME_SUCCESS);
	CHECK_EQ(admin(NVME_ADMIN_DELETE_CQ, 0, 1, 0), NVME_SUCCESS);
	nvme_create_queues(&test, 1);
	/* With other entry sizes than Identify says, there are no queues. */
	nvme_set_reg(&test, NVME_CC, 0);
	nvme_wait_csts(&test, NVME_CSTS_READY, 0);
	nvme_enable(&test);
	nvme_set_reg(&test, NVME_CC, NVME_CC_ENABLE);
	CHECK_EQ(create(cq, 1, 8, 1), DNR(NVME_INVALID_FIELD));
	nvme_test_stop(&test);
}

TEST(doorbells_that_mean_nothing_are_events)
{
	struct nvme_sqe sqe = nvme_sqe(NVME_ADMIN_ASYNC_EVENT, 0, 0, 0);
	uint16_t cid, status, waiting[4];

	start();
	for (unsigned i = 0; i < 4; i++)
		waiting[i] = nvme_push(&test, 0, &sqe);
	nvme_ring(&test, 0);
	CHECK_EQ(nvme_call(&test, 0, sqe), DNR(NVME_AER_LIMIT));
	nvme_set_reg(&test, NVME_DOORBELLS + 8 * 3, 1);
	nvme_wait(&test, 0, &cid, &status);
	CHECK_EQ(cid, waiting[3]);
	CHECK_EQ(status, NVME_SUCCESS);
	CHECK_EQ(test.result, 0x010000);
	/* The next one waits until the log page has been read. */
	nvme_set_reg(&test, NVME_DOORBELLS, NVME_TEST_ENTRIES);
	CHECK_EQ(admin(NVME_ADMIN_ABORT, 0, 0, 0), NVME_SUCCESS);
	CHECK(!nvme_pop(&test, 0, &cid, &status));
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, NVME_LOG_ERROR | 15 << 16, 0), NVME_SUCCESS);
	nvme_wait(&test, 0, &cid, &status);
	CHECK_EQ(cid, waiting[2]);
	CHECK_EQ(test.result, 0x010100);
	/* Far beyond all queues, and a head that overtakes its tail. */
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, NVME_LOG_ERROR | 15 << 16, 0), NVME_SUCCESS);
	nvme_set_reg(&test, NVME_DOORBELLS + 0xffc, 0);
	nvme_wait(&test, 0, &cid, &status);
	CHECK_EQ(test.result, 0x010000);
	CHECK_EQ(admin(NVME_ADMIN_GET_LOG_PAGE, 0, NVME_LOG_ERROR | 15 << 16, 0), NVME_SUCCESS);
	nvme_set_reg(&test, NVME_DOORBELLS + 4, (test.queues[0].head + 1) % NVME_TEST_ENTRIES);
	nvme_wait(&test, 0, &cid, &status);
	CHECK_EQ(test.result, 0x010100);
	nvme_test_stop(&test);
}

static void check_fatal(void)
{
	nvme_wait_csts(&test, NVME_CSTS_FATAL, NVME_CSTS_FATAL);
	nvme_set_reg(&test, NVME_CC, 0);
	nvme_wait_csts(&test, NVME_CSTS_FATAL | NVME_CSTS_READY, 0);
}

TEST(queues_out_of_reach_are_fatal)
{
	struct nvme_sqe sqe = nvme_sqe(NVME_ADMIN_ABORT, 0, 0, 0);
	struct viommu_log_record record;

	nvme_test_start(&test, false);
	rig_ep_write(&test.rig, RIG_EP1, NVME_ASQ, NVME_UNMAPPED, 8);
	rig_ep_write(&test.rig, RIG_EP1, NVME_ACQ, NVME_IOVA, 8);
	nvme_set_reg(&test, NVME_AQA, 0x70007);
	nvme_set_reg(&test, NVME_CC, NVME_CC_ENABLE);
	nvme_set_reg(&test, NVME_DOORBELLS, 1);
	check_fatal();
	record = rig_wait_log(&test.rig, VIOMMU_LOG_FAULT);
	CHECK_EQ(record.start, NVME_UNMAPPED);
	nvme_enable(&test);
	nvme_set_reg(&test, NVME_CC, 0);
	rig_ep_write(&test.rig, RIG_EP1, NVME_ACQ, NVME_UNMAPPED, 8);
	test.queues[0].tail = 0;
	nvme_push(&test, 0, &sqe);
	nvme_set_reg(&test, NVME_CC, NVME_CC_ENABLE);
	nvme_ring(&test, 0);
	check_fatal();
	record = rig_wait_log(&test.rig, VIOMMU_LOG_FAULT);
	CHECK_EQ(record.start, NVME_UNMAPPED);
	CHECK_EQ(record.flags & VIRTIO_IOMMU_FAULT_F_WRITE, VIRTIO_IOMMU_FAULT_F_WRITE);
	/* What cannot be enabled. */
	nvme_set_reg(&test, NVME_CC, NVME_CC_ENABLE | 1 << 7);
	check_fatal();
	nvme_set_reg(&test, NVME_AQA, 0);
	nvme_set_reg(&test, NVME_CC, NVME_CC_ENABLE);
	check_fatal();
	nvme_enable(&test);
	CHECK_EQ(identify(NVME_CNS_CONTROLLER, 0), NVME_SUCCESS);
	nvme_test_stop(&test);
}

TEST(shutdown_says_when_it_is_done)
{
	start();
	nvme_set_reg(&test, NVME_CC, 0x464001);
	nvme_wait_csts(&test, NVME_CSTS_SHUTDOWN_DONE | NVME_CSTS_SHUTDOWN_RUNS,
		       NVME_CSTS_SHUTDOWN_DONE);
	nvme_set_reg(&test, NVME_CC, 0);
	nvme_wait_csts(&test, ~0u, 0);
	nvme_test_stop(&test);
}

TEST(images_that_cannot_be)
{
	struct viommu_endpoint_config config = {
		.socket_path = "/tmp/viommu-nvme-unused.sock",
		.name = "ep0",
		.iommu = VIOMMU_NO_IOMMU,
		.model = VIOMMU_MODEL_NVME,
	};
	const struct viommu_config ctx_config = { .log_capacity = 64 };
	viommu_ctx_t *ctx;
	uint32_t index;

	nvme_test_start(&test, false);
	REQUIRE(!viommu_ctx_create(&ctx_config, &ctx));
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EINVAL);
	config.image = "/nonexistent/image";
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -ENOENT);
	config.image = "/dev/null";
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EINVAL);
	/* The other endpoint has it. */
	config.image = test.image;
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EWOULDBLOCK);
	nvme_test_stop(&test);
	config.image = test.image;
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -ENOENT);
	config.no_msix = true;
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EINVAL);
	config.model = VIOMMU_MODEL_IOAT;
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EINVAL);
	config.model = VIOMMU_NR_MODELS;
	CHECK_EQ(viommu_ctx_add_endpoint(ctx, &config, &index), -EINVAL);
	viommu_ctx_destroy(ctx);
}
