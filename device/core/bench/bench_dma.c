// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * DMA through mappings of 4 KiB, 64 KiB and 2 MiB against plain memcpy of the
 * same bytes, in one process and by one thread, turn by turn.
 *
 * A transfer is 2 MiB from the guest's memory to the device's, and back.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/virtio_iommu.h>

#include "bench.h"
#include "ctx.h"
#include "dma.h"
#include "engine.h"
#include "harness.h"
#include "rig.h"

#define TRANSFER (2u << 20)
#define AREA (16u << 20) /* of guest memory, beyond what caches hold */
#define NR_TRANSFERS 512u
#define WINDOW 0x100000000ull

static struct rig rig;

/* Neighbours in IOVA are not neighbours in memory. */
static void map_area(uint64_t size)
{
	uint64_t nr = AREA / size;

	for (uint64_t i = 0; i < nr; i++) {
		uint64_t phys = RIG_RAM + RIG_DATA + (nr > 1 ? i * 5 % nr : 0) * size;

		/* RIG_DATA is 1 MiB from the start: good for 4 KiB granules. */
		REQUIRE(rig_map(&rig, 1, WINDOW + i * size, WINDOW + (i + 1) * size - 1, phys, 3) ==
			VIRTIO_IOMMU_S_OK);
	}
}

static uint64_t time_dma(struct engine *engine, uint8_t *local, uint64_t iova, bool is_write)
{
	struct dma_transfer transfer = {
		.endpoint = &engine->endpoint,
		.generation = &engine->slots[0].generation,
		.expected = atomic_load(&engine->slots[0].generation),
	};
	uint64_t start = bench_now_ns();
	size_t moved = 0;

	while (moved < TRANSFER)
		REQUIRE(dma_slice(&transfer, iova + moved, local + moved, DMA_SLICE, is_write, NULL,
				  &moved) == DMA_STATUS_OK);
	return bench_now_ns() - start;
}

static uint64_t time_memcpy(uint8_t *local, uint8_t *ram, bool is_write)
{
	uint64_t start = bench_now_ns();

	if (is_write)
		memcpy(ram, local, TRANSFER);
	else
		memcpy(local, ram, TRANSFER);
	/* The copy is wanted, though nobody looks at it. */
	__asm__ volatile("" ::: "memory");
	return bench_now_ns() - start;
}

static double gib_per_second(uint32_t *transfer_ns)
{
	return (double)TRANSFER / (1 << 30) * 1e9 / bench_median(transfer_ns, NR_TRANSFERS);
}

static void run(struct engine *engine, uint8_t *local, uint64_t mapping_size)
{
	static uint32_t dma_ns[NR_TRANSFERS], memcpy_ns[NR_TRANSFERS];
	double dma, plain;

	map_area(mapping_size);
	for (unsigned i = 0; i < NR_TRANSFERS; i++) {
		uint64_t offset = (uint64_t)i * TRANSFER % AREA;
		/* Not the same: the second would find in the caches what the first has brought. */
		uint64_t other = (offset + AREA / 2) % AREA;

		dma_ns[i] = time_dma(engine, local, WINDOW + offset, i & 1);
		memcpy_ns[i] = time_memcpy(local, rig.ram + RIG_DATA + other, i & 1);
	}
	dma = gib_per_second(dma_ns);
	plain = gib_per_second(memcpy_ns);
	printf("{\"bench\": \"dma\", \"mapping_bytes\": %llu, \"transfer_bytes\": %u, "
	       "\"gib_per_second\": %.2f, \"memcpy_gib_per_second\": %.2f, \"ratio\": %.2f}\n",
	       (unsigned long long)mapping_size, TRANSFER, dma, plain, dma / plain);
	REQUIRE(rig_unmap(&rig, 1, WINDOW, WINDOW + AREA - 1) == VIRTIO_IOMMU_S_OK);
}

int main(void)
{
	static const uint64_t sizes[] = { 4 << 10, 64 << 10, 2 << 20 };
	uint8_t *local = malloc(TRANSFER);

	rig_start_ready(&rig, NULL);
	REQUIRE(local && rig_attach(&rig, 1, RIG_ID1, 0) == VIRTIO_IOMMU_S_OK);
	memset(local, 1, TRANSFER);
	memset(rig.ram, 1, RIG_RAM_SIZE);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	REQUIRE(rig_attach(&rig, 1, RIG_ID1, 0) == VIRTIO_IOMMU_S_OK);
	for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		run((struct engine *)rig.ctx->functions[rig.endpoint_index[RIG_EP1]].endpoint,
		    local, sizes[i]);
	rig_stop(&rig);
	free(local);
	return 0;
}
