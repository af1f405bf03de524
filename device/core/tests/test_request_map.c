// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MAP and UNMAP, one test per row of the requirement list (M, U, and C7).
 */
#include <string.h>

#include <linux/virtio_iommu.h>

#include "harness.h"
#include "rig.h"
#include "shorthand.h"

static struct rig rig;

TEST(M1_map_alignment)
{
	start_attached(&rig);
	CHECK_EQ(rig_map(&rig, 1, 0x10800, 0x11fff, 0x40000000, 3), RANGE);
	CHECK_EQ(rig_map(&rig, 1, 0x10000, 0x117ff, 0x40000000, 3), RANGE);
	CHECK_EQ(rig_map(&rig, 1, 0x10000, 0x10fff, 0x40000800, 3), RANGE);
	CHECK_EQ(rig_map(&rig, 1, 0x10000, 0x10fff, 0x40000000, 3), OK);
	rig_stop(&rig);
}

TEST(M2_map_overlap)
{
	start_attached(&rig);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 8 * PAGE - 1, RIG_RAM, 3), OK);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 8 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 5 * PAGE, 6 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 3 * PAGE, 9 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 3 * PAGE, 5 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 7 * PAGE, 9 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 3 * PAGE, 4 * PAGE - 1, RIG_RAM, 3), OK);
	CHECK_EQ(rig_map(&rig, 1, 8 * PAGE, 9 * PAGE - 1, RIG_RAM, 3), OK);
	rig_stop(&rig);
}

TEST(M3_map_unknown_flags)
{
	start_attached(&rig);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 5 * PAGE - 1, RIG_RAM, 8), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 5 * PAGE - 1, RIG_RAM, 0x80000000), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 5 * PAGE - 1, RIG_RAM, 7), OK);
	rig_init_driver(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_IOMMU_F_MMIO));
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 5 * PAGE - 1, RIG_RAM, 4), INVAL);
	rig_stop(&rig);
}

TEST(M4_M5_map_in_no_domain_or_a_bypass_domain)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), NOENT);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, BYPASS), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), INVAL);
	rig_stop(&rig);
}

TEST(M6_permissions)
{
	start_attached(&rig);
	CHECK_EQ(rig_map(&rig, 1, 4 * PAGE, 5 * PAGE - 1, RIG_RAM + RIG_DATA, 1), OK);
	CHECK_EQ(rig_map(&rig, 1, 5 * PAGE, 6 * PAGE - 1, RIG_RAM + RIG_DATA, 2), OK);
	CHECK_EQ(rig_map(&rig, 1, 6 * PAGE, 7 * PAGE - 1, RIG_RAM + RIG_DATA, 0), OK);
	rig.ram[RIG_DATA] = 0x5a;
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 4 * PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, 4 * PAGE), DMA_FAULT_PERMISSION);
	CHECK_EQ(rig_probe_write(&rig, RIG_EP0, 6 * PAGE), DMA_FAULT_PERMISSION);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 6 * PAGE), DMA_FAULT_PERMISSION);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 5 * PAGE), DMA_FAULT_PERMISSION);
	CHECK_EQ(rig.ram[RIG_DATA], 0x5a);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, 5 * PAGE, 0, 1), DMA_STATUS_OK);
	CHECK_EQ(rig.ram[RIG_DATA], 0);
	rig_stop(&rig);
}

TEST(M7_map_ends)
{
	start_attached(&rig);
	CHECK_EQ(rig_map(&rig, 1, 5 * PAGE, 4 * PAGE - 1, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 5 * PAGE, 5 * PAGE, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map(&rig, 1, 0, UINT64_MAX, 0, 3), INVAL); /* overlaps */
	/* An endpoint without reserved regions may have it all. */
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map(&rig, 2, 0, UINT64_MAX, PAGE, 3), RANGE);
	CHECK_EQ(rig_map(&rig, 2, 0, UINT64_MAX, 0, 3), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, RIG_RAM + RIG_DATA), DMA_FAULT_NONE);
	CHECK_EQ(rig_unmap(&rig, 2, 0, UINT64_MAX), OK);
	CHECK_EQ(rig_map(&rig, 2, 0 - PAGE, UINT64_MAX, RIG_RAM, 3), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, UINT64_MAX), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(M8_map_reserved_region)
{
	start_attached(&rig);
	CHECK_EQ(rig_map_page(&rig, 1, RIG_MSI, 0), INVAL);
	CHECK_EQ(rig_map(&rig, 1, RIG_MSI - PAGE, RIG_MSI_END + PAGE, RIG_RAM, 3), INVAL);
	CHECK_EQ(rig_map_page(&rig, 1, RIG_RESERVED, 0), INVAL);
	CHECK_EQ(rig_map_page(&rig, 1, RIG_RESERVED - PAGE, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, RIG_RESERVED_END + 1, 0), OK);
	rig_stop(&rig);
}

TEST(C7_input_range)
{
	const struct viommu_iommu_config config = { .input_start = PAGE, .input_end = 0x3fffffff };

	rig_start_ready(&rig, &config);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 0, 0), RANGE);
	CHECK_EQ(rig_map_page(&rig, 1, 0x40000000, 0), RANGE);
	CHECK_EQ(rig_map(&rig, 1, PAGE, 0x40000fff, RIG_RAM, 3), RANGE);
	CHECK_EQ(rig_map_page(&rig, 1, 0x3ffff000, 0), OK);
	rig_init_driver(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_IOMMU_F_INPUT_RANGE));
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 0x40000000, 0), OK);
	rig_stop(&rig);
}

TEST(M_too_many_mappings)
{
	rig_start_ready(&rig, &(struct viommu_iommu_config){ .max_mappings = 2 });
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 2 * PAGE, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 3 * PAGE, 0), NOMEM);
	CHECK_EQ(rig_unmap(&rig, 1, PAGE, 2 * PAGE - 1), OK);
	CHECK_EQ(rig_map_page(&rig, 1, 3 * PAGE, 0), OK);
	rig_stop(&rig);
}

TEST(U1_unmap_reserved_is_refused_and_unmaps_nothing)
{
	struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = 1,
		.virt_start = PAGE,
		.virt_end = 2 * PAGE - 1,
		.reserved = { 0, 0, 1, 0 },
	};

	start_attached(&rig);
	CHECK_EQ(rig_call(&rig, &unmap, offsetof(typeof(unmap), tail)), INVAL);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
	rig_stop(&rig);
}

TEST(U2_U3_unmap_in_no_domain_or_a_bypass_domain)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_unmap(&rig, 1, 0, PAGE - 1), NOENT);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, BYPASS), OK);
	CHECK_EQ(rig_unmap(&rig, 1, 0, PAGE - 1), INVAL);
	rig_stop(&rig);
}

TEST(U4_unmap_in_part_removes_nothing)
{
	start_attached(&rig);
	CHECK_EQ(rig_map_page(&rig, 1, 2 * PAGE, 1), OK);
	CHECK_EQ(rig_map(&rig, 1, 3 * PAGE, 5 * PAGE - 1, RIG_RAM, 3), OK);
	CHECK_EQ(rig_unmap(&rig, 1, PAGE, 4 * PAGE - 1), RANGE);
	CHECK_EQ(rig_unmap(&rig, 1, 4 * PAGE, UINT64_MAX), RANGE);
	CHECK_EQ(rig_unmap(&rig, 1, 3 * PAGE + 1, 5 * PAGE - 2), RANGE);
	for (uint64_t iova = PAGE; iova < 5 * PAGE; iova += PAGE)
		CHECK_EQ(rig_probe_read(&rig, RIG_EP0, iova), DMA_FAULT_NONE);
	rig_stop(&rig);
}

/* Maps [start, end] in units of pages, as the examples of the specification do in bytes. */
static void map_units(uint64_t start, uint64_t end)
{
	CHECK_EQ(rig_map(&rig, 1, start * PAGE, (end + 1) * PAGE - 1, RIG_RAM, 3), OK);
}

static int unmap_units(uint64_t start, uint64_t end)
{
	return rig_unmap(&rig, 1, start * PAGE, (end + 1) * PAGE - 1);
}

static bool unit_mapped(uint64_t unit)
{
	return rig_probe_read(&rig, RIG_EP1, unit * PAGE) == DMA_FAULT_NONE;
}

TEST(U5_U6_the_examples_of_the_specification)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(unmap_units(0, 4), OK); /* (1) nothing there */
	map_units(0, 9);
	CHECK_EQ(unmap_units(0, 9), OK); /* (2) exactly */
	CHECK(!unit_mapped(0) && !unit_mapped(9));
	map_units(0, 4);
	map_units(5, 9);
	CHECK_EQ(unmap_units(0, 9), OK); /* (3) two that touch */
	CHECK(!unit_mapped(0) && !unit_mapped(9));
	map_units(0, 9);
	CHECK_EQ(unmap_units(0, 4), RANGE); /* (4) half of one */
	CHECK(unit_mapped(0) && unit_mapped(9));
	CHECK_EQ(unmap_units(0, 9), OK);
	map_units(0, 4);
	map_units(5, 9);
	CHECK_EQ(unmap_units(0, 4), OK); /* (5) one of two */
	CHECK(!unit_mapped(0) && unit_mapped(5));
	CHECK_EQ(unmap_units(0, 9), OK);
	map_units(0, 4);
	CHECK_EQ(unmap_units(0, 9), OK); /* (6) more than there is */
	CHECK(!unit_mapped(0));
	map_units(0, 4);
	map_units(10, 14);
	CHECK_EQ(unmap_units(0, 14), OK); /* (7) two with a gap */
	CHECK(!unit_mapped(0) && !unit_mapped(14));
	rig_stop(&rig);
}
