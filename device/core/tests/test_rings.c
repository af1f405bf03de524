// SPDX-License-Identifier: GPL-2.0-or-later
/* Rings where no ring belongs, rings that go away, and rings that change while they are read. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define STATUS VIRTIO_PCI_COMMON_STATUS
#define NEXT VRING_DESC_F_NEXT
#define WRITE VRING_DESC_F_WRITE
#define INDIRECT VRING_DESC_F_INDIRECT
#define BUFFER 0x20000ull /* offset in RAM */
#define TAIL (BUFFER + 64)
#define TABLE 0x30000ull

/* The first 64 KiB of RAM, where the rings are, once more: read-only, writable, at the top. */
#define ALIAS_SIZE 0x10000ull
#define ROM 0x30000000ull
#define ALIAS 0x20000000ull
#define TOP (-ALIAS_SIZE)
#define MMIO 0x10000000ull
#define NOWHERE 0x123456789000ull

enum ring { DESC, AVAIL, USED, NR_RINGS };

static struct rig rig;

static void start(void)
{
	rig_start(&rig, NULL);
	REQUIRE(!client_dma_map(rig.iommu, MMIO, ALIAS_SIZE, 3, -1, 0));
	REQUIRE(!client_dma_map(rig.iommu, ROM, ALIAS_SIZE, 1, rig.memfd, 0));
	REQUIRE(!client_dma_map(rig.iommu, ALIAS, ALIAS_SIZE, 3, rig.memfd, 0));
	REQUIRE(!client_dma_map(rig.iommu, TOP, ALIAS_SIZE, 3, rig.memfd, 0));
}

/* A driver whose request queue has one of its rings at addr. */
static void start_driver(enum ring ring, uint64_t addr)
{
	static const unsigned registers[NR_RINGS] = {
		VIRTIO_PCI_COMMON_Q_DESCLO,
		VIRTIO_PCI_COMMON_Q_AVAILLO,
		VIRTIO_PCI_COMMON_Q_USEDLO,
	};

	REQUIRE(rig_negotiate(&rig, RIG_ALL_FEATURES));
	memset(rig.ram, 0, 0x4000);
	rig.queues[0] = (struct rig_queue){ .desc = 0, .avail = 0x1000, .used = 0x2000 };
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, RIG_QUEUE_SIZE, 2);
	for (unsigned i = 0; i < NR_RINGS; i++)
		rig_write(&rig, registers[i], i == ring ? addr : RIG_RAM + i * 0x1000, 8);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	rig_driver_ok(&rig);
}

/* Makes an ATTACH of RIG_ID0 available, in descriptors first and the next. */
static void post_attach(uint16_t first, uint32_t domain)
{
	const struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = domain,
		.endpoint = RIG_ID0,
	};
	const uint64_t at = BUFFER + first * 128;

	memcpy(rig.ram + at, &attach, 20);
	memset(rig.ram + at + 64, 0xaa, 4);
	rig_set_desc(&rig, 0, first, (struct rig_desc){ RIG_RAM + at, 20, NEXT, first + 1 });
	rig_set_desc(&rig, 0, first + 1, (struct rig_desc){ RIG_RAM + at + 64, 4, WRITE, 0 });
	rig_make_available(&rig, 0, first);
}

static bool needs_reset(void)
{
	return rig_read(&rig, STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET;
}

/* The length of the answer; -1 if there is none, and the driver is told so. */
static int try_ring(enum ring ring, uint64_t addr)
{
	uint32_t head, len;

	start_driver(ring, addr);
	post_attach(0, 1);
	rig_kick(&rig, 0);
	if (rig_take_used(&rig, 0, &head, &len)) {
		CHECK(!needs_reset());
		return (int)len;
	}
	CHECK(needs_reset());
	return -1;
}

/* The device is as good as new after a reset. */
static void finish(void)
{
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	rig_stop(&rig);
}

TEST(rings_in_read_only_memory)
{
	static const uint8_t untouched[0x1000];

	start();
	/* Those that only the driver writes may well be. */
	CHECK_EQ(try_ring(DESC, ROM), 4);
	CHECK_EQ(try_ring(AVAIL, ROM + 0x1000), 4);
	CHECK_EQ(try_ring(USED, ROM + 0x2000), -1);
	CHECK(!memcmp(rig.ram + 0x2000, untouched, sizeof(untouched)));
	finish();
}

TEST(rings_outside_memory)
{
	static const uint64_t places[] = {
		MMIO, NOWHERE, RIG_RAM - 16, RIG_RAM + RIG_RAM_SIZE, 0,
	};

	start();
	for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
		/* The table of a good ring is as good as a broken chain: it comes back. */
		CHECK_EQ(try_ring(DESC, places[i]), 0);
		CHECK_EQ(try_ring(AVAIL, places[i]), -1);
		CHECK_EQ(try_ring(USED, places[i]), -1);
	}
	/* The first bytes are in memory, and what comes behind the ring is not. */
	CHECK_EQ(try_ring(USED, RIG_RAM + RIG_RAM_SIZE - 16), -1);
	finish();
}

TEST(rings_around_the_end_of_the_address_space)
{
	start();
	/* Up to the last byte is fine, */
	CHECK_EQ(try_ring(DESC, -(uint64_t)RIG_QUEUE_SIZE * 16), 0);
	/* and beyond it nothing is, whatever would be at zero. */
	REQUIRE(!client_dma_map(rig.iommu, 0, ALIAS_SIZE, 3, rig.memfd, 0));
	for (uint64_t distance = 16; distance < RIG_QUEUE_SIZE * 16; distance += 112)
		CHECK_EQ(try_ring(DESC, -distance), -1);
	for (uint64_t distance = 4; distance < RIG_QUEUE_SIZE * 2; distance += 28)
		CHECK_EQ(try_ring(AVAIL, -distance), -1);
	for (uint64_t distance = 4; distance < RIG_QUEUE_SIZE * 8; distance += 84)
		CHECK_EQ(try_ring(USED, -distance), -1);
	finish();
}

/* Requests wait in the ring while the memory of one of its parts is taken away. */
static void lose_ring(enum ring ring)
{
	struct viommu_inject_rule stall = {
		.action = VIOMMU_INJECT_STALL,
		.endpoint = -1,
		.domain = -1,
	};
	uint32_t head, len, id = 0;
	uint8_t before[0x4000];

	start_driver(ring, ALIAS + ring * 0x1000);
	post_attach(0, 1);
	rig_kick(&rig, 0);
	CHECK(rig_take_used(&rig, 0, &head, &len) && len == 4);
	REQUIRE(!viommu_ctx_inject_add(rig.ctx, &stall, &id));
	for (unsigned i = 1; i < 4; i++)
		post_attach(2 * i, 1 + i);
	rig_kick(&rig, 0);
	CHECK(!rig_take_used(&rig, 0, &head, &len) && !needs_reset());
	REQUIRE(!client_dma_unmap(rig.iommu, ALIAS, ALIAS_SIZE));
	memcpy(before, rig.ram, sizeof(before));
	REQUIRE(!viommu_ctx_inject_remove(rig.ctx, id));
	/* The queue goes on by itself, soon; what it cannot do it says. */
	if (ring == DESC) {
		for (unsigned i = 1; i < 4; i++) {
			while (!rig_take_used(&rig, 0, &head, &len))
				rig_read(&rig, STATUS, 1);
			CHECK_EQ(head, 2 * i);
			CHECK_EQ(len, 0);
		}
		CHECK(!needs_reset());
	} else {
		while (!needs_reset())
			;
		CHECK(!memcmp(before, rig.ram, sizeof(before)));
	}
	REQUIRE(!client_dma_map(rig.iommu, ALIAS, ALIAS_SIZE, 3, rig.memfd, 0));
}

TEST(rings_that_go_away_while_requests_wait)
{
	start();
	lose_ring(DESC);
	lose_ring(AVAIL);
	lose_ring(USED);
	finish();
}

/* --- rings that change --- */

#define NR_ROUNDS 10000
#define MAX_ROUNDS 1000000 /* on a busy machine, the other thread does not run for long */
#define MAX_DOMAIN 99
#define BAD_DOMAIN 0x1000
#define UNKNOWN_TYPE 0x77

static atomic_bool stop_changing;

/* Each value is right alone, or wrong alone; nothing makes a device read it twice. */
static void *change_all_the_time(void *opaque)
{
	struct vring_desc *desc = (void *)rig.ram, *table = (void *)(rig.ram + TABLE);
	uint16_t *ring = (void *)(rig.ram + rig.queues[0].avail + 4);
	struct virtio_iommu_req_attach *attach = (void *)(rig.ram + BUFFER);

	(void)opaque;
#define SET(place, value) __atomic_store_n(&(place), (value), __ATOMIC_RELAXED)
	for (unsigned i = 0; !atomic_load(&stop_changing); i++) {
		SET(attach->head.type, i & 1 ? VIRTIO_IOMMU_T_ATTACH : UNKNOWN_TYPE);
		SET(attach->domain, i & 2 ? 1 : BAD_DOMAIN);
		SET(desc[0].len, i % 3 ? 20 : 0xffffffff);
		SET(desc[0].next, i % 5 ? 1 : 0xffff);
		SET(desc[1].addr, i % 7 ? RIG_RAM + TAIL : NOWHERE);
		SET(desc[1].len, i % 11 ? 4 : 70000);
		SET(desc[1].flags, i % 13 ? WRITE : WRITE | NEXT);
		SET(desc[2].addr, i % 3 ? RIG_RAM + TABLE : MMIO);
		SET(desc[2].len, i % 5 ? 32 : 32 * 256);
		SET(table[0].next, i & 1 ? 1 : 2);
		SET(table[1].addr, i & 2 ? RIG_RAM + TAIL : RIG_RAM + RIG_RAM_SIZE - 2);
		SET(ring[i % RIG_QUEUE_SIZE], i & 4 ? 0 : 2);
	}
#undef SET
	return NULL;
}

static struct viommu_log_record next_request(void)
{
	struct viommu_log_record record;
	uint64_t dropped;

	do {
		REQUIRE(viommu_ctx_log_read(rig.ctx, &rig.log_seq, &record, 1, &dropped) == 1);
		REQUIRE(!dropped);
	} while (record.kind != VIOMMU_LOG_ATTACH && record.kind != VIOMMU_LOG_UNKNOWN_REQUEST &&
		 record.kind != VIOMMU_LOG_MALFORMED_REQUEST);
	return record;
}

/* What was logged, what was answered and what was done are about one and the same request. */
static void check_request(uint32_t len)
{
	struct viommu_log_record record = next_request();
	struct viommu_domain_info domains[2];

	for (size_t i = viommu_ctx_query_domains(rig.ctx, domains, 2); i--;)
		REQUIRE(domains[i].id == 1);
	CHECK(len == 0 || len == 4 || len == 70000);
	if (record.kind != VIOMMU_LOG_ATTACH) {
		CHECK_EQ(len, 0);
		return;
	}
	CHECK(record.domain == 1 || record.domain == BAD_DOMAIN);
	if (record.status == OK)
		CHECK_EQ(record.domain, 1);
	else
		CHECK_EQ(record.status, RANGE);
}

static void start_changing(pthread_t *ret)
{
	const struct viommu_iommu_config config = { .domain_end = MAX_DOMAIN };

	rig_start_ready(&rig, &config);
	REQUIRE(!client_dma_map(rig.iommu, MMIO, ALIAS_SIZE, 3, -1, 0));
	*(struct virtio_iommu_req_attach *)(rig.ram + BUFFER) =
		(struct virtio_iommu_req_attach){ .endpoint = RIG_ID0 };
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ RIG_RAM + BUFFER, 20, NEXT, 1 });
	rig_set_desc(&rig, 0, 1, (struct rig_desc){ RIG_RAM + TAIL, 4, WRITE, 2 });
	rig_set_desc(&rig, 0, 2, (struct rig_desc){ RIG_RAM + TABLE, 32, INDIRECT, 0 });
	((struct vring_desc *)(rig.ram + TABLE))[0] =
		(struct vring_desc){ RIG_RAM + BUFFER, 20, NEXT, 1 };
	((struct vring_desc *)(rig.ram + TABLE))[1] =
		(struct vring_desc){ RIG_RAM + TAIL, 4, WRITE, 0 };
	atomic_store(&stop_changing, false);
	REQUIRE(!pthread_create(ret, NULL, change_all_the_time, NULL));
}

TEST(descriptors_that_change_while_they_are_read)
{
	uint16_t *avail_idx;
	unsigned nr_executed = 0, nr_refused = 0;
	uint32_t head, len;
	pthread_t thread;

	start_changing(&thread);
	avail_idx = (void *)(rig.ram + rig.queues[0].avail + 2);
	for (unsigned i = 1; i <= MAX_ROUNDS && (i <= NR_ROUNDS || !nr_executed || !nr_refused);
	     i++) {
		/* Nothing but the index: the entries are the other thread's. */
		__atomic_store_n(avail_idx, (uint16_t)i, __ATOMIC_RELEASE);
		rig_kick(&rig, 0);
		if (!CHECK(rig_take_used(&rig, 0, &head, &len)))
			break;
		CHECK(head == 0 || head == 2);
		nr_executed += len != 0;
		nr_refused += len == 0;
		check_request(len);
	}
	atomic_store(&stop_changing, true);
	pthread_join(thread, NULL);
	/* Or the race was none. */
	CHECK(nr_executed && nr_refused);
	CHECK(!needs_reset());
	finish();
}
