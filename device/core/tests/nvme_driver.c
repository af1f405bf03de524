// SPDX-License-Identifier: GPL-2.0-or-later
#include "nvme_driver.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

#define CC (NVME_CC_ENABLE | NVME_SQE_LOG2 << 16 | NVME_CQE_LOG2 << 20)

static void create_image(struct nvme_test *test)
{
	uint32_t *words = malloc(NVME_IMAGE_SIZE);

	REQUIRE(words);
	for (uint32_t i = 0; i < NVME_IMAGE_SIZE / 4; i++)
		words[i] = i * 2654435761u;
	strcpy(test->image, "/tmp/viommu-nvme.XXXXXX");
	test->image_fd = mkstemp(test->image);
	REQUIRE(test->image_fd >= 0);
	REQUIRE(write(test->image_fd, words, NVME_IMAGE_SIZE) == (ssize_t)NVME_IMAGE_SIZE);
	free(words);
}

void nvme_test_start(struct nvme_test *test, bool read_only)
{
	struct viommu_endpoint_config config = {
		.model = VIOMMU_MODEL_NVME,
		.image = test->image,
		.read_only = read_only,
	};

	memset(test, 0, sizeof(*test));
	create_image(test);
	rig_start_model(&test->rig, &config);
	REQUIRE(rig_attach(&test->rig, NVME_DOMAIN, RIG_ID1, 0) == VIRTIO_IOMMU_S_OK);
	REQUIRE(rig_map(&test->rig, NVME_DOMAIN, NVME_IOVA, NVME_UNMAPPED - 1, RIG_RAM + RIG_DATA,
			3) == VIRTIO_IOMMU_S_OK);
	for (unsigned i = 0; i < NVME_TEST_VECTORS; i++)
		test->eventfds[i] = make_eventfd();
	REQUIRE(!client_set_irqs(test->rig.endpoints[RIG_EP1], 0x24, 2, 0, NVME_TEST_VECTORS,
				 test->eventfds, NVME_TEST_VECTORS));
	for (unsigned i = 0; i < 3; i++) {
		test->queues[i].sq = i * 0x4000;
		test->queues[i].cq = i * 0x4000 + 0x2000;
	}
}

void nvme_test_stop(struct nvme_test *test)
{
	for (unsigned i = 0; i < NVME_TEST_VECTORS; i++)
		close(test->eventfds[i]);
	rig_stop(&test->rig);
	close(test->image_fd);
	unlink(test->image);
}

uint8_t *nvme_ram(struct nvme_test *test, uint64_t offset)
{
	return test->rig.ram + RIG_DATA + offset;
}

uint32_t nvme_reg(struct nvme_test *test, unsigned offset)
{
	return rig_ep_read(&test->rig, RIG_EP1, offset, 4);
}

void nvme_set_reg(struct nvme_test *test, unsigned offset, uint32_t value)
{
	rig_ep_write(&test->rig, RIG_EP1, offset, value, 4);
}

void nvme_wait_csts(struct nvme_test *test, uint32_t mask, uint32_t value)
{
	for (unsigned i = 0; (nvme_reg(test, NVME_CSTS) & mask) != value; i++) {
		REQUIRE(i < 100000);
		usleep(100);
	}
}

static void reset_queue(struct nvme_test *test, unsigned id)
{
	struct nvme_test_queue *queue = &test->queues[id];

	queue->tail = 0;
	queue->head = 0;
	queue->phase = true;
	memset(nvme_ram(test, queue->sq), 0, 0x4000);
}

void nvme_enable(struct nvme_test *test)
{
	reset_queue(test, 0);
	nvme_set_reg(test, NVME_AQA, (NVME_TEST_ENTRIES - 1) << 16 | (NVME_TEST_ENTRIES - 1));
	rig_ep_write(&test->rig, RIG_EP1, NVME_ASQ, NVME_IOVA + test->queues[0].sq, 8);
	rig_ep_write(&test->rig, RIG_EP1, NVME_ACQ, NVME_IOVA + test->queues[0].cq, 8);
	nvme_set_reg(test, NVME_CC, CC);
	REQUIRE(nvme_reg(test, NVME_CSTS) == NVME_CSTS_READY);
}

void nvme_create_queues(struct nvme_test *test, unsigned id)
{
	struct nvme_sqe sqe = nvme_sqe(NVME_ADMIN_CREATE_CQ, 0, NVME_IOVA + test->queues[id].cq, 0);

	reset_queue(test, id);
	sqe.dwords[10] = (NVME_TEST_ENTRIES - 1) << 16 | id;
	sqe.dwords[11] = id << 16 | NVME_QUEUE_INTERRUPTS | NVME_QUEUE_CONTIGUOUS;
	REQUIRE(nvme_call(test, 0, sqe) == NVME_SUCCESS);
	sqe = nvme_sqe(NVME_ADMIN_CREATE_SQ, 0, NVME_IOVA + test->queues[id].sq, 0);
	sqe.dwords[10] = (NVME_TEST_ENTRIES - 1) << 16 | id;
	sqe.dwords[11] = id << 16 | NVME_QUEUE_CONTIGUOUS;
	REQUIRE(nvme_call(test, 0, sqe) == NVME_SUCCESS);
}

struct nvme_sqe nvme_sqe(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint64_t prp2)
{
	return (struct nvme_sqe){ {
		[0] = opcode,
		[1] = nsid,
		[6] = prp1,
		[7] = prp1 >> 32,
		[8] = prp2,
		[9] = prp2 >> 32,
	} };
}

struct nvme_sqe nvme_rw(uint8_t opcode, uint64_t lba, uint32_t nr, uint64_t prp1, uint64_t prp2)
{
	struct nvme_sqe sqe = nvme_sqe(opcode, 1, prp1, prp2);

	sqe.dwords[10] = lba;
	sqe.dwords[11] = lba >> 32;
	sqe.dwords[12] = nr - 1;
	return sqe;
}

uint16_t nvme_push(struct nvme_test *test, unsigned id, const struct nvme_sqe *sqe)
{
	struct nvme_test_queue *queue = &test->queues[id];
	struct nvme_sqe numbered = *sqe;
	uint16_t cid = test->next_cid++;

	numbered.dwords[0] |= (uint32_t)cid << 16;
	memcpy(nvme_ram(test, queue->sq + queue->tail * NVME_SQE_SIZE), &numbered,
	       sizeof(numbered));
	queue->tail = (queue->tail + 1) % NVME_TEST_ENTRIES;
	return cid;
}

void nvme_ring(struct nvme_test *test, unsigned id)
{
	nvme_set_reg(test, NVME_DOORBELLS + 8 * id, test->queues[id].tail);
}

bool nvme_pop(struct nvme_test *test, unsigned id, uint16_t *cid, uint16_t *status)
{
	struct nvme_test_queue *queue = &test->queues[id];
	const uint8_t *raw = nvme_ram(test, queue->cq + queue->head * NVME_CQE_SIZE);
	uint32_t last = __atomic_load_n((const uint32_t *)(raw + 12), __ATOMIC_ACQUIRE);
	uint16_t sq;

	if ((last >> 16 & 1) != queue->phase)
		return false;
	*cid = last;
	*status = last >> 17;
	memcpy(&test->result, raw, sizeof(test->result));
	memcpy(&sq, raw + 10, sizeof(sq));
	CHECK_EQ(sq, id);
	queue->head = (queue->head + 1) % NVME_TEST_ENTRIES;
	queue->phase ^= !queue->head;
	nvme_set_reg(test, NVME_DOORBELLS + 8 * id + 4, queue->head);
	return true;
}

void nvme_wait(struct nvme_test *test, unsigned id, uint16_t *cid, uint16_t *status)
{
	for (unsigned i = 0; !nvme_pop(test, id, cid, status); i++) {
		REQUIRE(i < 100000);
		usleep(100);
	}
}

uint16_t nvme_call(struct nvme_test *test, unsigned id, struct nvme_sqe sqe)
{
	uint16_t pushed = nvme_push(test, id, &sqe), cid, status;

	nvme_ring(test, id);
	nvme_wait(test, id, &cid, &status);
	CHECK_EQ(cid, pushed);
	return status;
}
