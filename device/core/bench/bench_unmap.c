// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * How long an UNMAP takes, from the ring to the ring, with 1 GiB of DMA in
 * flight: its guest spins with interrupts off for that long.
 */
#include <stdio.h>

#include <linux/virtio_iommu.h>

#include "bench.h"
#include "harness.h"
#include "rig.h"

#define NR_SLOTS 64u
#define LENGTH (16ull << 20) /* of each: 1 GiB in all */
#define WINDOW 0x100000000ull /* the DMA's addresses */
#define PAGE 0x1000ull
#define OTHER 0x10000ull /* what is mapped and unmapped meanwhile */
#define MAX_SAMPLES 100000u

static struct rig rig;
static uint32_t samples[MAX_SAMPLES];

static void start_all(void)
{
	for (unsigned slot = 0; slot < NR_SLOTS; slot++) {
		const struct rig_dma dma = {
			.command = DMA_OP_COPY,
			.iova = WINDOW,
			.operand = WINDOW + LENGTH,
			.length = LENGTH,
		};

		rig_dma_start(&rig, RIG_EP0, slot, &dma);
	}
}

/* Maps and unmaps until the DMA has ended. */
static void disturb(void)
{
	while (rig_ep_read(&rig, RIG_EP0, DMA_ENGINE_IN_FLIGHT, 4)) {
		REQUIRE(rig_map_page(&rig, 1, OTHER, 0) == VIRTIO_IOMMU_S_OK);
		REQUIRE(rig_unmap(&rig, 1, OTHER, OTHER + PAGE - 1) == VIRTIO_IOMMU_S_OK);
	}
}

static unsigned collect(void)
{
	struct viommu_log_record record;
	uint64_t seq = 0, dropped;
	unsigned nr = 0;

	while (nr < MAX_SAMPLES && viommu_ctx_log_read(rig.ctx, &seq, &record, 1, &dropped)) {
		if (record.kind == VIOMMU_LOG_UNMAP)
			samples[nr++] = record.duration_ns;
	}
	return nr;
}

int main(void)
{
	uint64_t start, ns;
	unsigned nr, median;

	rig_start_ready(&rig, NULL);
	REQUIRE(rig_attach(&rig, 1, RIG_ID0, 0) == VIRTIO_IOMMU_S_OK);
	REQUIRE(rig_map(&rig, 1, WINDOW, WINDOW + 2 * LENGTH - 1, RIG_RAM, 3) == VIRTIO_IOMMU_S_OK);
	start = bench_now_ns();
	start_all();
	disturb();
	ns = bench_now_ns() - start;
	nr = collect();
	REQUIRE(nr > 0);
	median = bench_median(samples, nr);
	printf("{\"bench\": \"unmap-during-dma\", \"in_flight_bytes\": %llu, \"seconds\": %.3f, "
	       "\"unmaps\": %u, \"p50_ns\": %u, \"p99_ns\": %u, \"max_ns\": %u}\n",
	       NR_SLOTS * LENGTH, (double)ns / 1e9, nr, median, samples[nr * 99ull / 100],
	       samples[nr - 1]);
	rig_stop(&rig);
	return 0;
}
