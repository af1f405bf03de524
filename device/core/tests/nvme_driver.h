/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nvme_driver.h - the least that drives an NVMe controller: RIG_EP1 of a rig, behind the IOMMU. */
#ifndef NVME_DRIVER_H
#define NVME_DRIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "nvme_spec.h"
#include "rig.h"

#define NVME_DOMAIN 1
/* Guest memory that the endpoint reaches; around it, nothing. */
#define NVME_IOVA 0x4000000ull
#define NVME_MAPPED 0x1000000ull
#define NVME_UNMAPPED (NVME_IOVA + NVME_MAPPED)
/* Offsets in it: queues below, then lists, then data. */
#define NVME_LISTS 0x100000ull
#define NVME_DATA 0x400000ull
#define NVME_TEST_ENTRIES 8u
#define NVME_IMAGE_SIZE 0x800000ull
#define NVME_TEST_VECTORS 4

struct nvme_test_queue {
	uint64_t sq, cq; /* offsets */
	uint32_t tail, head;
	bool phase;
};

struct nvme_test {
	struct rig rig;
	char image[64];
	int image_fd;
	int eventfds[NVME_TEST_VECTORS];
	struct nvme_test_queue queues[3];
	uint16_t next_cid;
	uint32_t result; /* dword 0 of the last completion */
};

/* Dwords of a command. */
struct nvme_sqe {
	uint32_t dwords[16];
};

/* With an image of NVME_IMAGE_SIZE bytes, none of them like its neighbours. Not enabled. */
void nvme_test_start(struct nvme_test *test, bool read_only);
void nvme_test_stop(struct nvme_test *test);
uint8_t *nvme_ram(struct nvme_test *test, uint64_t offset);
uint32_t nvme_reg(struct nvme_test *test, unsigned offset);
void nvme_set_reg(struct nvme_test *test, unsigned offset, uint32_t value);
/* Admin queue set up; ends the program unless it gets ready. */
void nvme_enable(struct nvme_test *test);
void nvme_wait_csts(struct nvme_test *test, uint32_t mask, uint32_t value);
/* The pair of I/O queues with that id (1, 2), interrupting by that vector. */
void nvme_create_queues(struct nvme_test *test, unsigned id);

struct nvme_sqe nvme_sqe(uint8_t opcode, uint32_t nsid, uint64_t prp1, uint64_t prp2);
/* Reads or writes blocks. */
struct nvme_sqe nvme_rw(uint8_t opcode, uint64_t lba, uint32_t nr, uint64_t prp1, uint64_t prp2);
/* Puts it on the queue; the doorbell is another matter. Its identifier. */
uint16_t nvme_push(struct nvme_test *test, unsigned queue, const struct nvme_sqe *sqe);
void nvme_ring(struct nvme_test *test, unsigned queue);
/* Takes the next completion, if there is one; the status without the phase. */
bool nvme_pop(struct nvme_test *test, unsigned queue, uint16_t *cid, uint16_t *status);
void nvme_wait(struct nvme_test *test, unsigned queue, uint16_t *cid, uint16_t *status);
/* All of that for one command. */
uint16_t nvme_call(struct nvme_test *test, unsigned queue, struct nvme_sqe sqe);

#endif /* NVME_DRIVER_H */
