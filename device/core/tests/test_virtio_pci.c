// SPDX-License-Identifier: GPL-2.0-or-later
/* The transport: registers, negotiation, capabilities, broken rings. */
#include <string.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"

#define STATUS VIRTIO_PCI_COMMON_STATUS
#define ISR 0x1000

static struct rig rig;

static unsigned find_virtio_cap(uint8_t type)
{
	unsigned cap = client_config_read(rig.iommu, 0x34, 1);

	while (cap && (client_config_read(rig.iommu, cap, 1) != 9 ||
		       client_config_read(rig.iommu, cap + VIRTIO_PCI_CAP_CFG_TYPE, 1) != type))
		cap = client_config_read(rig.iommu, cap + 1, 1);
	return cap;
}

TEST(identity_and_capabilities)
{
	static const struct {
		uint8_t type;
		uint32_t offset;
	} caps[] = { { 1, 0 }, { 2, 0x3000 }, { 3, 0x1000 }, { 4, 0x2000 } };

	rig_start(&rig, NULL);
	CHECK_EQ(client_config_read(rig.iommu, 0, 4), 0x10571af4);
	CHECK_EQ(client_config_read(rig.iommu, 8, 4), 0x08060001);
	CHECK_EQ(client_config_read(rig.iommu, 0x2c, 4), 0x11001af4);
	for (size_t i = 0; i < sizeof(caps) / sizeof(caps[0]); i++) {
		unsigned cap = find_virtio_cap(caps[i].type);

		CHECK(cap);
		CHECK_EQ(client_config_read(rig.iommu, cap + VIRTIO_PCI_CAP_BAR, 1), 4);
		CHECK_EQ(client_config_read(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, 4),
			 caps[i].offset);
	}
	CHECK_EQ(client_config_read(rig.iommu, find_virtio_cap(2) + VIRTIO_PCI_NOTIFY_CAP_MULT, 4),
		 4);
	CHECK_EQ(client_config_read(rig.iommu, find_virtio_cap(5) + VIRTIO_PCI_CAP_LEN, 1), 20);
	rig_stop(&rig);
}

TEST(configuration_access_window)
{
	unsigned cap;

	rig_start(&rig, NULL);
	cap = find_virtio_cap(5);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_BAR, 4, 1);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_LENGTH, 1, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, STATUS, 4);
	client_config_write(rig.iommu, cap + 16, VIRTIO_CONFIG_S_ACKNOWLEDGE, 1);
	CHECK_EQ(rig_read(&rig, STATUS, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	CHECK_EQ(client_config_read(rig.iommu, cap + 16, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_LENGTH, 4, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, 0x2020, 4);
	CHECK_EQ(client_config_read(rig.iommu, cap + 16, 4), 512);
	/* Beyond the BAR, odd lengths, another BAR: nothing happens. */
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, 0x3ffe, 4);
	client_config_write(rig.iommu, cap + 16, 0, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, 0xfffffffc, 4);
	client_config_write(rig.iommu, cap + 16, 0, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_LENGTH, 3, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_OFFSET, STATUS, 4);
	client_config_write(rig.iommu, cap + 16, 0, 4);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_BAR, 0, 1);
	client_config_write(rig.iommu, cap + VIRTIO_PCI_CAP_LENGTH, 1, 4);
	client_config_write(rig.iommu, cap + 16, 0, 4);
	CHECK_EQ(rig_read(&rig, STATUS, 1), VIRTIO_CONFIG_S_ACKNOWLEDGE);
	rig_stop(&rig);
}

TEST(features_ok_needs_version_1_and_offered_bits)
{
	rig_start(&rig, NULL);
	CHECK(!rig_negotiate(&rig, rig_offered(&rig) & ~(1ull << VIRTIO_F_VERSION_1)));
	CHECK(!rig_negotiate(&rig, rig_offered(&rig) | 1ull << VIRTIO_F_RING_PACKED));
	CHECK(!rig_negotiate(&rig, rig_offered(&rig) | 1ull << 63));
	CHECK(rig_negotiate(&rig, RIG_ALL_FEATURES));
	/* Final from here on. */
	rig_write(&rig, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	rig_write(&rig, VIRTIO_PCI_COMMON_GF, 0, 4);
	CHECK(rig_read(&rig, VIRTIO_PCI_COMMON_GF, 4) != 0);
	/* Selectors beyond the bits there are. */
	rig_write(&rig, VIRTIO_PCI_COMMON_DFSELECT, 7, 4);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_DF, 4), 0);
	rig_stop(&rig);
}

TEST(queue_registers)
{
	rig_start(&rig, NULL);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_NUMQ, 2), 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 48, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 512, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 0, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 2), 256);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 32, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 3, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 2), 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, 0x12345000, 4);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_DESCHI, 0x9, 4);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0x912345000);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	/* An enabled queue does not change. */
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 0, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 16, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, 0, 8);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 2), 1);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 2), 32);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, 8), 0x912345000);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SELECT, 2, 2);
	CHECK_EQ(rig_read(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_SIZE, 16, 2);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	rig_write(&rig, 0x3008, 2, 2); /* no such queue */
	rig_stop(&rig);
}

TEST(intx_and_isr_without_msix)
{
	int fd = make_eventfd();

	rig_start_ready(&rig, NULL);
	/* As set up, a vector is in use, and there is no INTx. */
	REQUIRE(!client_set_irqs(rig.iommu, 0x24, 0, 0, 1, &fd, 1));
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	CHECK_EQ(eventfd_count(fd), 0);
	CHECK_EQ(rig_read(&rig, ISR, 1), 0);
	for (unsigned i = 0; i < 2; i++) {
		rig_write(&rig, VIRTIO_PCI_COMMON_Q_SELECT, i, 2);
		rig_write(&rig, VIRTIO_PCI_COMMON_Q_MSIX, 0xffff, 2);
	}
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	CHECK_EQ(client_config_read(rig.iommu, 6, 2) & 8, 8);
	CHECK_EQ(rig_read(&rig, ISR, 1), 1);
	CHECK_EQ(rig_read(&rig, ISR, 1), 0);
	CHECK_EQ(client_config_read(rig.iommu, 6, 2) & 8, 0);
	close(fd);
	rig_stop(&rig);
}

TEST(no_bus_mastering_no_rings)
{
	uint32_t head = 0, len = 0;

	rig_start_ready(&rig, NULL);
	rig_set_desc(&rig, 0, 0, (struct rig_desc){ RIG_RAM, 4, 0, 0 });
	rig_make_available(&rig, 0, 0);
	client_config_write(rig.iommu, 4, 2, 2);
	rig_kick(&rig, 0);
	CHECK(!rig_take_used(&rig, 0, &head, &len));
	client_config_write(rig.iommu, 4, 6, 2);
	CHECK(rig_take_used(&rig, 0, &head, &len));
	rig_stop(&rig);
}

TEST(failed_driver_gets_no_answers)
{
	uint32_t head = 0, len = 0;

	rig_start_ready(&rig, NULL);
	rig_write(&rig, STATUS, 0x8f, 1);
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	CHECK(!rig_take_used(&rig, 0, &head, &len));
	CHECK_EQ(rig_read(&rig, STATUS, 1), 0x8f);
	rig_stop(&rig);
}

/* What a broken queue looks like, and how the driver gets out of it. */
static void check_needs_reset(void)
{
	CHECK_EQ(rig_read(&rig, STATUS, 1) & VIRTIO_CONFIG_S_NEEDS_RESET,
		 VIRTIO_CONFIG_S_NEEDS_RESET);
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
}

TEST(broken_rings_need_a_reset)
{
	rig_start_ready(&rig, NULL);
	/* A head that is no descriptor. */
	rig_make_available(&rig, 0, RIG_QUEUE_SIZE);
	rig_kick(&rig, 0);
	check_needs_reset();
	/* More available than the ring holds. */
	*(uint16_t *)(rig.ram + rig.queues[0].avail + 2) += RIG_QUEUE_SIZE + 1;
	rig_kick(&rig, 0);
	check_needs_reset();
	/* Addresses that cannot be enabled, or lie in no memory. */
	rig_write(&rig, STATUS, 0, 1);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_DESCLO, RIG_RAM + 8, 8);
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	check_needs_reset();
	REQUIRE(rig_negotiate(&rig, RIG_ALL_FEATURES));
	rig_write(&rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	rig_driver_ok(&rig);
	check_needs_reset();
	rig_stop(&rig);
}

TEST(memory_that_goes_away_under_the_rings)
{
	rig_start_ready(&rig, NULL);
	REQUIRE(!client_dma_unmap(rig.iommu, RIG_RAM, RIG_RAM_SIZE));
	rig_make_available(&rig, 0, 0);
	rig_kick(&rig, 0);
	REQUIRE(!client_dma_map(rig.iommu, RIG_RAM, RIG_RAM_SIZE, 3, rig.memfd, 0));
	check_needs_reset();
	rig_stop(&rig);
}
