// SPDX-License-Identifier: GPL-2.0-or-later
/* The NVMe controller's blocks: data, PRP lists, flushes, resets in the middle. */
#include <fcntl.h>
#include <stdlib.h>
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
static uint8_t image[NVME_IMAGE_SIZE];

static uint8_t *data(void)
{
	return nvme_ram(&test, NVME_DATA);
}

static void read_image(void)
{
	REQUIRE(pread(test.image_fd, image, sizeof(image), 0) == (ssize_t)sizeof(image));
}

static void start(bool read_only)
{
	nvme_test_start(&test, read_only);
	nvme_enable(&test);
	nvme_create_queues(&test, 1);
	read_image();
}

static uint16_t io(uint8_t opcode, uint64_t lba, uint32_t nr, uint64_t prp1, uint64_t prp2)
{
	return nvme_call(&test, 1, nvme_rw(opcode, lba, nr, prp1, prp2));
}

static void put_entry(uint64_t offset, uint64_t value)
{
	memcpy(nvme_ram(&test, offset), &value, sizeof(value));
}

TEST(blocks_by_one_and_two_pages)
{
	start(false);
	CHECK_EQ(io(NVME_IO_READ, 3, 1, data_iova + 0x204, 0), NVME_SUCCESS);
	CHECK(!memcmp(data() + 0x204, image + 3 * 512, 512));
	CHECK_EQ(eventfd_wait(test.eventfds[1]), 1);
	CHECK_EQ(data()[0x203], 0);
	CHECK_EQ(data()[0x404], 0);
	/* The second page is far away. */
	CHECK_EQ(io(NVME_IO_READ, 8, 8, data_iova + 0xe00, data_iova + 0x8000), NVME_SUCCESS);
	CHECK(!memcmp(data() + 0xe00, image + 8 * 512, 512));
	CHECK(!memcmp(data() + 0x8000, image + 9 * 512, 7 * 512));
	for (unsigned i = 0; i < 1024; i++)
		data()[i] = i * 3;
	CHECK_EQ(io(NVME_IO_WRITE, 100, 2, data_iova, 0), NVME_SUCCESS);
	memcpy(image + 51200, data(), 1024);
	CHECK_EQ(io(NVME_IO_FLUSH, 0, 1, 0, 0), NVME_SUCCESS);
	CHECK_EQ(io(NVME_IO_WRITE, NVME_IMAGE_SIZE / 512 - 1, 1, data_iova, 0), NVME_SUCCESS);
	memcpy(image + NVME_IMAGE_SIZE - 512, data(), 512);
	CHECK(image[51201] == 3 && image[51202] == 6);
	{
		static uint8_t expected[NVME_IMAGE_SIZE];

		memcpy(expected, image, sizeof(expected));
		read_image();
		CHECK(!memcmp(expected, image, sizeof(expected)));
	}
	nvme_test_stop(&test);
}

/* Lists of pages in reverse: the longest command, and a list that begins at its page's end. */
static void check_list(unsigned nr_pages, uint64_t prp1_offset, uint64_t list_offset)
{
	uint64_t list = NVME_LISTS + list_offset, len = nr_pages * NVME_PAGE - prp1_offset;
	uint64_t first = data_iova + (uint64_t)(nr_pages - 1) * NVME_PAGE;
	uint64_t next_list = NVME_LISTS + 2 * NVME_PAGE;
	static uint8_t copy[NVME_MAX_DATA + NVME_PAGE];

	for (unsigned i = 1; i < nr_pages; i++) {
		if (list % NVME_PAGE == NVME_PAGE - 8 && i + 1 < nr_pages) {
			put_entry(list, NVME_IOVA + next_list);
			list = next_list;
			next_list += 2 * NVME_PAGE;
		}
		put_entry(list, data_iova + (uint64_t)(nr_pages - 1 - i) * NVME_PAGE);
		list += 8;
	}
	CHECK_EQ(io(NVME_IO_READ, 16, len / 512, first + prp1_offset,
		    NVME_IOVA + NVME_LISTS + list_offset),
		 NVME_SUCCESS);
	for (unsigned i = 0; i < nr_pages; i++)
		memcpy(copy + i * NVME_PAGE, data() + (uint64_t)(nr_pages - 1 - i) * NVME_PAGE,
		       NVME_PAGE);
	CHECK(!memcmp(copy + prp1_offset, image + 16 * 512, len));
}

TEST(blocks_by_lists)
{
	start(false);
	check_list(3, 0, 0);
	check_list(3, 0, NVME_PAGE - 8);
	check_list(4, 0x200, NVME_PAGE - 16);
	check_list(512, 0, 0);
	check_list(512, 0x800, NVME_PAGE - 8);
	/* Exactly what fits: the last entry is no pointer. */
	check_list(512, 0, 8);
	nvme_test_stop(&test);
}

TEST(lists_of_a_hostile_driver)
{
	uint64_t list = NVME_IOVA + NVME_LISTS;

	start(false);
	CHECK_EQ(io(NVME_IO_READ, 0, 1, data_iova + 2, 0), DNR(NVME_PRP_OFFSET));
	CHECK_EQ(io(NVME_IO_READ, 0, 16, data_iova, data_iova + 4), DNR(NVME_PRP_OFFSET));
	CHECK_EQ(io(NVME_IO_READ, 0, 24, data_iova, list + 4), DNR(NVME_PRP_OFFSET));
	put_entry(NVME_LISTS, data_iova);
	put_entry(NVME_LISTS + 8, data_iova + 8);
	CHECK_EQ(io(NVME_IO_READ, 0, 24, data_iova, list), DNR(NVME_PRP_OFFSET));
	/* A list that leads to itself, and ends with the data. */
	for (unsigned i = 0; i < 512; i++)
		put_entry(NVME_LISTS + 8 * i, list);
	CHECK_EQ(io(NVME_IO_WRITE, 0, 4096, data_iova, list + 0xff8), NVME_SUCCESS);
	put_entry(NVME_LISTS + 0xff8, list + 16);
	CHECK_EQ(io(NVME_IO_WRITE, 0, 4096, data_iova, list + 0xff8), DNR(NVME_PRP_OFFSET));
	CHECK_EQ(io(NVME_IO_READ, 0, 4097, data_iova, list), DNR(NVME_INVALID_FIELD));
	CHECK_EQ(io(NVME_IO_READ, NVME_IMAGE_SIZE / 512, 1, data_iova, 0), DNR(NVME_LBA_RANGE));
	CHECK_EQ(io(NVME_IO_READ, NVME_IMAGE_SIZE / 512 - 1, 2, data_iova, 0), DNR(NVME_LBA_RANGE));
	CHECK_EQ(io(NVME_IO_READ, UINT64_MAX, 8, data_iova, 0), DNR(NVME_LBA_RANGE));
	CHECK_EQ(io(0x7f, 0, 1, data_iova, 0), DNR(NVME_INVALID_OPCODE));
	nvme_test_stop(&test);
}

TEST(fields_of_a_hostile_driver)
{
	struct nvme_sqe sqe = nvme_rw(NVME_IO_READ, 0, 1, data_iova, 0);

	start(false);
	sqe.dwords[1] = 2;
	CHECK_EQ(nvme_call(&test, 1, sqe), DNR(NVME_INVALID_NAMESPACE));
	sqe.dwords[1] = 1;
	/* A scatter gather list, a fused command. */
	sqe.dwords[0] |= 1 << 14;
	CHECK_EQ(nvme_call(&test, 1, sqe), DNR(NVME_INVALID_FIELD));
	sqe.dwords[0] = NVME_IO_READ | 1 << 8;
	CHECK_EQ(nvme_call(&test, 1, sqe), DNR(NVME_INVALID_FIELD));
	nvme_test_stop(&test);
}

static void check_fault(uint64_t addr, uint32_t write)
{
	struct viommu_log_record record = rig_wait_log(&test.rig, VIOMMU_LOG_FAULT);

	CHECK_EQ(record.start, addr);
	CHECK_EQ(record.endpoint, RIG_ID1);
	CHECK_EQ(record.flags & VIRTIO_IOMMU_FAULT_F_WRITE, write);
}

TEST(data_out_of_reach)
{
	start(false);
	CHECK_EQ(io(NVME_IO_READ, 0, 8, NVME_UNMAPPED, 0), NVME_DATA_TRANSFER);
	check_fault(NVME_UNMAPPED, VIRTIO_IOMMU_FAULT_F_WRITE);
	CHECK_EQ(io(NVME_IO_WRITE, 0, 16, data_iova, NVME_UNMAPPED), NVME_DATA_TRANSFER);
	check_fault(NVME_UNMAPPED, 0);
	CHECK_EQ(io(NVME_IO_READ, 0, 24, data_iova, NVME_UNMAPPED + 64), NVME_DATA_TRANSFER);
	check_fault(NVME_UNMAPPED + 64, 0);
	/* The queue goes on. */
	CHECK_EQ(io(NVME_IO_READ, 5, 1, data_iova, 0), NVME_SUCCESS);
	CHECK(!memcmp(data(), image + 5 * 512, 512));
	CHECK_EQ(rig_counter(&test.rig, VIOMMU_COUNT_DMA_ERRORS), 3);
	nvme_test_stop(&test);
}

TEST(zeroes_and_deallocation)
{
	struct nvme_sqe sqe = nvme_sqe(NVME_IO_DATASET, 1, data_iova, 0);
	uint8_t zeroes[8 * 512] = { 0 };
	const uint32_t range[] = { 0, 8, 32, 0, 0, 1, NVME_IMAGE_SIZE / 512, 0 };

	start(false);
	CHECK_EQ(io(NVME_IO_WRITE_ZEROES, 10, 3, 0, 0), NVME_SUCCESS);
	CHECK_EQ(io(NVME_IO_WRITE_ZEROES, NVME_IMAGE_SIZE / 512 - 1, 2, 0, 0), DNR(NVME_LBA_RANGE));
	memcpy(data(), range, sizeof(range));
	sqe.dwords[11] = NVME_DATASET_DEALLOCATE;
	CHECK_EQ(nvme_call(&test, 1, sqe), NVME_SUCCESS);
	/* A range that is wrong keeps the good one from having an effect. */
	((uint32_t *)data())[2] = 64;
	sqe.dwords[10] = 1;
	CHECK_EQ(nvme_call(&test, 1, sqe), DNR(NVME_LBA_RANGE));
	memset(image + 10 * 512, 0, 3 * 512);
	CHECK(memcmp(image + 64 * 512, zeroes, sizeof(zeroes)));
	CHECK_EQ(io(NVME_IO_READ, 9, 5, data_iova, 0), NVME_SUCCESS);
	CHECK(!memcmp(data(), image + 9 * 512, 5 * 512));
	CHECK_EQ(io(NVME_IO_READ, 32, 8, data_iova, 0), NVME_SUCCESS);
	CHECK(!memcmp(data(), zeroes, sizeof(zeroes)));
	CHECK_EQ(io(NVME_IO_READ, 64, 8, data_iova, 0), NVME_SUCCESS);
	CHECK(!memcmp(data(), image + 64 * 512, sizeof(zeroes)));
	nvme_test_stop(&test);
}

TEST(read_only_image_is_not_written)
{
	static uint8_t before[NVME_IMAGE_SIZE];

	start(true);
	memcpy(before, image, sizeof(before));
	CHECK_EQ(io(NVME_IO_WRITE, 0, 1, data_iova, 0), DNR(NVME_WRITE_PROTECTED));
	CHECK_EQ(io(NVME_IO_WRITE_ZEROES, 0, 1, 0, 0), DNR(NVME_WRITE_PROTECTED));
	CHECK_EQ(io(NVME_IO_FLUSH, 0, 1, 0, 0), NVME_SUCCESS);
	CHECK_EQ(io(NVME_IO_READ, 0, 1, data_iova, 0), NVME_SUCCESS);
	read_image();
	CHECK(!memcmp(before, image, sizeof(before)));
	nvme_test_stop(&test);
}

TEST(image_that_shrinks_is_a_bad_medium)
{
	start(false);
	REQUIRE(!ftruncate(test.image_fd, 4096));
	CHECK_EQ(io(NVME_IO_READ, 7, 1, data_iova, 0), NVME_SUCCESS);
	CHECK_EQ(io(NVME_IO_READ, 7, 2, data_iova, 0), NVME_READ_ERROR);
	CHECK_EQ(io(NVME_IO_READ, 7, 1, data_iova, 0), NVME_SUCCESS);
	nvme_test_stop(&test);
}

/* More commands than completions that anybody takes: none is lost, none comes too early. */
TEST(full_completion_queue_stops_the_submission_queue)
{
	struct nvme_sqe sqe = nvme_rw(NVME_IO_READ, 1, 1, data_iova, 0);
	uint16_t first, cid, status;

	start(false);
	first = test.next_cid;
	for (unsigned i = 0; i < 7; i++)
		nvme_push(&test, 1, &sqe);
	nvme_ring(&test, 1);
	/* Entry 7 is the last that may be used while the head is 0. */
	for (unsigned i = 0; nvme_ram(&test, test.queues[1].cq)[6 * 16 + 14] == 0; i++) {
		REQUIRE(i < 100000);
		usleep(100);
	}
	for (unsigned i = 0; i < 5; i++)
		nvme_push(&test, 1, &sqe);
	nvme_ring(&test, 1);
	usleep(20000);
	CHECK_EQ(nvme_ram(&test, test.queues[1].cq)[7 * 16 + 14], 0);
	for (unsigned i = 0; i < 12; i++) {
		nvme_wait(&test, 1, &cid, &status);
		CHECK_EQ(cid, first + i);
		CHECK_EQ(status, NVME_SUCCESS);
	}
	CHECK(!nvme_pop(&test, 1, &cid, &status));
	nvme_test_stop(&test);
}

TEST(two_queues_at_once)
{
	uint16_t cid, status;
	struct nvme_sqe sqe;

	start(false);
	nvme_create_queues(&test, 2);
	for (unsigned round = 0; round < 200; round++) {
		for (unsigned q = 1; q <= 2; q++) {
			sqe = nvme_rw(NVME_IO_READ, 8 * (2 * round + q), 8,
				      data_iova + q * NVME_PAGE, 0);
			nvme_push(&test, q, &sqe);
			nvme_ring(&test, q);
		}
		for (unsigned q = 1; q <= 2; q++) {
			nvme_wait(&test, q, &cid, &status);
			CHECK_EQ(status, NVME_SUCCESS);
			CHECK(!memcmp(data() + q * NVME_PAGE, image + NVME_PAGE * (2 * round + q),
				      NVME_PAGE));
		}
	}
	CHECK(eventfd_count(test.eventfds[2]) > 0);
	nvme_test_stop(&test);
}

/* Reads of 2 MiB are cut off: once the answer is there, no byte moves any more. */
static void check_cut_off(void (*cut)(void))
{
	static uint8_t mark[NVME_MAX_DATA];
	struct nvme_sqe sqe =
		nvme_rw(NVME_IO_READ, 0, NVME_MAX_DATA / 512, data_iova, NVME_IOVA + NVME_LISTS);

	memset(mark, 0xee, sizeof(mark));
	start(false);
	for (unsigned i = 1; i < 512; i++)
		put_entry(NVME_LISTS + 8 * (i - 1), data_iova + i * NVME_PAGE);
	for (unsigned round = 0; round < 20; round++) {
		for (unsigned i = 0; i < 7; i++)
			nvme_push(&test, 1, &sqe);
		nvme_ring(&test, 1);
		usleep(round * 100);
		cut();
		memcpy(data(), mark, sizeof(mark));
		memset(nvme_ram(&test, test.queues[1].cq), 0xee, 128);
		usleep(1000);
		CHECK(!memcmp(data(), mark, sizeof(mark)));
		CHECK(!memcmp(nvme_ram(&test, test.queues[1].cq), mark, 128));
		client_config_write(test.rig.endpoints[RIG_EP1], 4, 6, 2);
		nvme_set_reg(&test, NVME_CC, 0);
		nvme_wait_csts(&test, ~0u, 0);
		nvme_enable(&test);
		nvme_create_queues(&test, 1);
	}
	CHECK_EQ(io(NVME_IO_READ, 9, 1, data_iova, 0), NVME_SUCCESS);
	CHECK(!memcmp(data(), image + 9 * 512, 512));
	nvme_test_stop(&test);
}

static void cut_by_disable(void)
{
	nvme_set_reg(&test, NVME_CC, 0);
}

static void cut_by_device_reset(void)
{
	REQUIRE(!client_reset(test.rig.endpoints[RIG_EP1]));
}

static void cut_by_bus_master(void)
{
	client_config_write(test.rig.endpoints[RIG_EP1], 4, 2, 2);
}

static void cut_by_deletion(void)
{
	struct nvme_sqe sqe = nvme_sqe(NVME_ADMIN_DELETE_SQ, 0, 0, 0);

	sqe.dwords[10] = 1;
	CHECK_EQ(nvme_call(&test, 0, sqe), NVME_SUCCESS);
}

TEST(disable_cuts_off)
{
	check_cut_off(cut_by_disable);
}

TEST(device_reset_cuts_off)
{
	check_cut_off(cut_by_device_reset);
}

TEST(bus_master_off_cuts_off)
{
	check_cut_off(cut_by_bus_master);
}

TEST(deletion_of_a_queue_cuts_off)
{
	check_cut_off(cut_by_deletion);
}
