// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A ring that a guest sent, replayed in full batches: requests per second of each
 * type. Every answer must be the recorded one, or the program ends.
 *
 * What a type takes is what the device's log says of its requests, from the answer
 * before it to its own; "all" is taken by our clock around the batches, with what a
 * batch costs as such. The figures are those of the median pass through the file.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "bench.h"
#include "client.h"
#include "ctx.h"
#include "fixture.h"
#include "harness.h"
#include "image.h"
#include "ring.h"

#define MAX_REGIONS 256u
#define MIN_PASSES 5u
#define MAX_PASSES 1000u
#define ENOUGH_NS 500000000ull
#define ALIGNMENT 64u
#define NR_TYPES (VIOMMU_LOG_PROBE + 1)

/* Of one pass. [0]: of all requests, by our own clock. */
struct tally {
	uint64_t nr[NR_TYPES];
	uint64_t ns[NR_TYPES];
};

/* What is on the ring, and the bytes in which the answers will be. */
struct batch {
	unsigned nr;
	uint32_t end; /* of the buffers, offset in RAM */
	const struct image_entry *entries[RING_REQUESTS];
	uint8_t *status[RING_REQUESTS];
};

static struct ring ring;
static uint64_t log_seq;
static uint32_t ps_per_request[NR_TYPES][MAX_PASSES];

static void add_endpoints(const struct image *image)
{
	const struct image_region *region = image->regions;

	for (uint32_t i = 0; i < image->head->nr_endpoints; i++) {
		struct viommu_resv_mem resv[MAX_REGIONS];
		const struct viommu_endpoint_config config = {
			.name = "recorded",
			.iommu = ring.rig.iommu_index,
			.id = image->endpoints[i].id,
			.resv = resv,
			.nr_resv = image->endpoints[i].nr_regions,
		};

		REQUIRE(config.nr_resv <= MAX_REGIONS);
		for (size_t n = 0; n < config.nr_resv; n++, region++)
			resv[n] = (struct viommu_resv_mem){ region->subtype, region->start,
							    region->end };
		REQUIRE(!viommu_ctx_add_id(ring.rig.ctx, &config));
	}
}

/* As the recorded device was, and nothing else: no function has one of its ids by chance. */
static void start(const struct image *image)
{
	static const struct viommu_config config = { .log_capacity = 1 << 12 };
	const struct image_head *head = image->head;
	struct rig *rig = &ring.rig;
	char path[sizeof(rig->dir) + 8];
	const struct viommu_iommu_config iommu = {
		.socket_path = path,
		.features = head->features,
		.page_size_mask = head->page_size_mask,
		.input_start = head->input_start,
		.input_end = head->input_end,
		.domain_start = head->domain_start,
		.domain_end = head->domain_end,
		.probe_size = head->probe_size,
		.bypass = head->bypass,
		.max_mappings = head->max_mappings,
		.max_domains = head->max_domains,
	};

	strcpy(rig->dir, "/tmp/viommu-replay.XXXXXX");
	REQUIRE(mkdtemp(rig->dir));
	snprintf(path, sizeof(path), "%s/iommu", rig->dir);
	REQUIRE(!viommu_ctx_create(&config, &rig->ctx));
	REQUIRE(!viommu_ctx_add_iommu(rig->ctx, &iommu, &rig->iommu_index));
	add_endpoints(image);
	REQUIRE(!viommu_ctx_start(rig->ctx));
	rig->memfd = make_memfd(RIG_RAM_SIZE, true);
	rig->ram = mmap(NULL, RIG_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
	REQUIRE(rig->ram != MAP_FAILED);
	rig->iommu = client_connect(path);
	REQUIRE(client_version(rig->iommu) >= 0);
	REQUIRE(!client_dma_map(rig->iommu, RIG_RAM, RIG_RAM_SIZE, 3, rig->memfd, 0));
	client_config_write(rig->iommu, 4, 0x0006, 2); /* memory, bus mastering */
	ring_take_over(&ring);
}

static void stop(void)
{
	close(ring.rig.iommu);
	viommu_ctx_destroy(ring.rig.ctx);
	munmap(ring.rig.ram, RIG_RAM_SIZE);
	close(ring.rig.memfd);
	REQUIRE(!rmdir(ring.rig.dir));
}

static bool has_room(const struct batch *batch, const struct image_entry *entry)
{
	return batch->nr < RING_REQUESTS &&
	       batch->end + entry->readable + entry->writable + 2 * ALIGNMENT <= RIG_DATA;
}

static void add(struct batch *batch, const struct image_entry *entry)
{
	uint8_t *ram = ring.rig.ram;
	struct ring_chain chain = {
		.readable_at = batch->end,
		.readable = entry->readable,
		.writable = entry->writable,
	};

	chain.writable_at =
		(chain.readable_at + chain.readable + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	batch->end = (chain.writable_at + chain.writable + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
	memcpy(ram + chain.readable_at, entry + 1, entry->length);
	memset(ram + chain.readable_at + entry->length, 0, entry->readable - entry->length);
	batch->entries[batch->nr] = entry;
	batch->status[batch->nr] = NULL;
	if (entry->writable >= sizeof(struct virtio_iommu_req_tail)) {
		batch->status[batch->nr] = ram + chain.writable_at + entry->writable -
					   sizeof(struct virtio_iommu_req_tail);
		*batch->status[batch->nr] = IMAGE_NO_STATUS;
	}
	ring_set_chain(&ring, batch->nr++, &chain);
}

/* nr_before: requests of this pass before the batch. */
static void check_answers(const struct batch *batch, uint64_t nr_before)
{
	for (unsigned n = 0; n < batch->nr; n++) {
		unsigned status = batch->status[n] ? *batch->status[n] : IMAGE_NO_STATUS;

		if (status == batch->entries[n]->status)
			continue;
		fprintf(stderr, "request %llu: recorded status %u, now %u (255: none)\n",
			(unsigned long long)nr_before + n + 1, batch->entries[n]->status, status);
		stop();
		exit(1);
	}
}

static void read_log(struct tally *tally)
{
	struct viommu_log_record record;
	uint64_t dropped;

	while (viommu_ctx_log_read(ring.rig.ctx, &log_seq, &record, 1, &dropped)) {
		REQUIRE(!dropped);
		if (record.kind > 0 && record.kind < NR_TYPES) {
			tally->nr[record.kind]++;
			tally->ns[record.kind] += record.duration_ns;
		}
	}
}

static void run(struct batch *batch, struct tally *tally)
{
	if (batch->nr) {
		tally->ns[0] += ring_submit(&ring, batch->nr);
		check_answers(batch, tally->nr[0]);
		tally->nr[0] += batch->nr;
		read_log(tally);
	}
	batch->nr = 0;
	batch->end = RING_BUFFERS;
}

static void run_pass(const struct image *image, struct tally *tally)
{
	struct batch batch = { .end = RING_BUFFERS };
	const struct image_entry *entry;
	size_t offset = image->first;

	*tally = (struct tally){ 0 };
	while ((entry = image_next(image, &offset))) {
		if (entry->readable == IMAGE_BEGIN) {
			run(&batch, tally);
			ring_init_driver(&ring, entry->writable | (uint64_t)entry->status << 32);
			continue;
		}
		if (!has_room(&batch, entry))
			run(&batch, tally);
		add(&batch, entry);
	}
	run(&batch, tally);
}

static void report(unsigned type, uint64_t nr, unsigned nr_passes)
{
	static const char *const names[NR_TYPES] = { "all", "attach", "detach",
						     "map", "unmap",  "probe" };
	double ns = bench_median(ps_per_request[type], nr_passes) / 1e3;

	printf("{\"bench\": \"replay\", \"request\": \"%s\", \"count\": %llu, "
	       "\"ns_per_request\": %.1f, \"requests_per_second\": %.0f}\n",
	       names[type], (unsigned long long)nr, ns, 1e9 / ns);
}

int main(int argc, char **argv)
{
	struct image image;
	struct tally tally;
	uint64_t ns = 0;
	unsigned nr = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: %s IMAGE\n", argv[0]);
		return 2;
	}
	image_open(&image, argv[1]);
	start(&image);
	for (; nr < MAX_PASSES && (nr < MIN_PASSES || ns < ENOUGH_NS); nr++) {
		run_pass(&image, &tally);
		REQUIRE(tally.nr[0]);
		ns += tally.ns[0];
		for (unsigned type = 0; type < NR_TYPES; type++)
			if (tally.nr[type])
				ps_per_request[type][nr] =
					(tally.ns[type] * 1000 + 999) / tally.nr[type];
	}
	for (unsigned type = 0; type < NR_TYPES; type++)
		if (tally.nr[type])
			report(type, tally.nr[type], nr);
	stop();
	image_close(&image);
	return 0;
}
