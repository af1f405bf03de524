/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shorthand.h - short names for what most tests of a whole context speak of.
 *
 * The names of statuses are those of the specification, without their prefix.
 */
#ifndef SHORTHAND_H
#define SHORTHAND_H

#include <linux/virtio_iommu.h>

#include "client.h"
#include "harness.h"
#include "rig.h"

#define OK VIRTIO_IOMMU_S_OK
#define UNSUPP VIRTIO_IOMMU_S_UNSUPP
#define DEVERR VIRTIO_IOMMU_S_DEVERR
#define INVAL VIRTIO_IOMMU_S_INVAL
#define RANGE VIRTIO_IOMMU_S_RANGE
#define NOENT VIRTIO_IOMMU_S_NOENT
#define NOMEM VIRTIO_IOMMU_S_NOMEM
#define BYPASS VIRTIO_IOMMU_ATTACH_F_BYPASS

#define PAGE 0x1000ull
#define MIB 0x100000ull
#define RAM_DATA (RIG_RAM + RIG_DATA) /* guest address */
#define PATTERN 0x8877665544332211ull /* each byte is another */

/* RIG_ID0 in domain 1, with one page mapped at PAGE. */
static inline void start_attached(struct rig *rig)
{
	rig_start_ready(rig, NULL);
	CHECK_EQ(rig_attach(rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_map_page(rig, 1, PAGE, 0), OK);
}

static inline uint8_t *ram_data(const struct rig *rig, uint64_t offset)
{
	return rig->ram + RIG_DATA + offset;
}

static inline void write_local(const struct rig *rig, unsigned ep, uint64_t offset, const void *buf,
			       uint32_t len)
{
	REQUIRE(client_region_write(rig->endpoints[ep], DMA_ENGINE_BAR_LOCAL, offset, buf, len) >=
		0);
}

static inline void read_local(const struct rig *rig, unsigned ep, uint64_t offset, void *buf,
			      uint32_t len)
{
	REQUIRE(client_region_read(rig->endpoints[ep], DMA_ENGINE_BAR_LOCAL, offset, buf, len) >=
		0);
}

/* How the transaction of slot 0 ended. */
static inline void check_fault(struct rig *rig, unsigned ep, uint32_t info, uint64_t addr,
			       uint64_t done)
{
	CHECK_EQ(rig_slot(rig, ep, 0, DMA_SLOT_FAULT_INFO, 4), info);
	CHECK_EQ(rig_slot(rig, ep, 0, DMA_SLOT_FAULT_ADDR, 8), addr);
	CHECK_EQ(rig_slot(rig, ep, 0, DMA_SLOT_DONE, 8), done);
}

#endif /* SHORTHAND_H */
