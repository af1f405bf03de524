// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <string.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

#define DEVCTL 8
#define DEVCTL_FLR 0x8000

TEST(pci_header_identifies_the_device)
{
	struct fixture fixture;
	int sock;

	fixture_start_connected(&fixture);
	sock = fixture.sock;
	CHECK_EQ(client_config_read(sock, 0x00, 4), 0x10571af4);
	CHECK_EQ(client_config_read(sock, 0x08, 4), 0x08060001);
	CHECK_EQ(client_config_read(sock, 0x06, 2), 0x0010);
	CHECK_EQ(client_config_read(sock, 0x0e, 1), 0);
	CHECK_EQ(client_config_read(sock, 0x2c, 4), 0x11001af4);
	CHECK_EQ(client_config_read(sock, 0x3d, 1), 1);
	CHECK_EQ(client_config_read(sock, 0x10 + 4 * FIXTURE_MSIX_BAR, 4), 0);
	CHECK_EQ(client_config_read(sock, 0x10 + 4 * FIXTURE_RAM_BAR, 4), 0xc);
	/* No extended capabilities. */
	CHECK_EQ(client_config_read(sock, 0x100, 4), 0);
	fixture_stop(&fixture);
}

TEST(pci_capabilities_are_laid_out)
{
	struct fixture fixture;
	unsigned int pm, express, msix;
	int sock;

	fixture_start_connected(&fixture);
	sock = fixture.sock;
	pm = client_find_cap(sock, 0x01);
	express = client_find_cap(sock, 0x10);
	msix = client_find_cap(sock, 0x11);
	REQUIRE(pm && express && msix);
	CHECK_EQ(client_find_cap(sock, 0x09), fixture.cap);
	CHECK_EQ((pm | express | msix | fixture.cap) & 3, 0);
	CHECK_EQ(client_config_read(sock, express + 2, 2), 0x0002);
	CHECK_EQ(client_config_read(sock, express + 4, 4) & 0x10000000, 0x10000000);
	CHECK_EQ(client_config_read(sock, msix + 2, 2), FIXTURE_VECTORS - 1);
	CHECK_EQ(client_config_read(sock, msix + 4, 4), FIXTURE_MSIX_BAR);
	CHECK_EQ(client_config_read(sock, msix + 8, 4), FIXTURE_PBA | FIXTURE_MSIX_BAR);
	fixture_stop(&fixture);
}

TEST(pci_writes_change_only_writable_bits)
{
	struct fixture fixture;
	unsigned int express, msix, pm;
	int sock;

	fixture_start_connected(&fixture);
	sock = fixture.sock;
	for (unsigned int offset = 0; offset < 0x40; offset += 4)
		client_config_write(sock, offset, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, 0x00, 4), 0x10571af4);
	CHECK_EQ(client_config_read(sock, 0x04, 4), 0x00100507);
	CHECK_EQ(client_config_read(sock, 0x10 + 4 * FIXTURE_RAM_BAR, 4), 0xc);
	CHECK_EQ(client_config_read(sock, 0x30, 4), 0);
	CHECK_EQ(client_config_read(sock, 0x34, 1), 0x40);
	CHECK_EQ(client_config_read(sock, 0x3c, 4), 0x000001ff);

	express = client_find_cap(sock, 0x10);
	client_config_write(sock, express, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, express + 2, 2), 0x0002);
	client_config_write(sock, express + DEVCTL, 0x7fff, 2);
	CHECK_EQ(client_config_read(sock, express + DEVCTL, 2), 0x78ff);
	msix = client_find_cap(sock, 0x11);
	client_config_write(sock, msix + 2, 0xffff, 2);
	CHECK_EQ(client_config_read(sock, msix + 2, 2), 0xc000 | (FIXTURE_VECTORS - 1));
	pm = client_find_cap(sock, 0x01);
	client_config_write(sock, pm + 4, 0xffff, 2);
	CHECK_EQ(client_config_read(sock, pm + 4, 2), 0x000b);
	/* D1 and D2 do not exist. */
	client_config_write(sock, pm + 4, 1, 2);
	CHECK_EQ(client_config_read(sock, pm + 4, 2), 0x000b);
	client_config_write(sock, pm + 4, 0, 2);
	CHECK_EQ(client_config_read(sock, pm + 4, 2), 0x0008);
	client_config_write(sock, 0xffc, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, 0xffc, 4), 0);
	fixture_stop(&fixture);
}

TEST(pci_live_bytes_go_to_the_device)
{
	struct fixture fixture;
	uint8_t space[4096];
	unsigned int cap;
	int sock;

	fixture_start_connected(&fixture);
	sock = fixture.sock;
	cap = fixture.cap;
	CHECK_EQ(client_config_read(sock, cap + 2, 2), 0x0514);
	client_config_write(sock, cap + 4, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, cap + 4, 4), 0x000000a4);
	client_config_write(sock, cap + 16, 0x04030201, 4);
	CHECK(!memcmp(fixture.live, "\1\2\3\4", 4));
	/* Across the edge: two bytes are stored (or not), two are live. */
	client_config_write(sock, cap + 14, 0x0a0b0c0d, 4);
	CHECK(!memcmp(fixture.live, "\xb\xa\3\4", 4));
	CHECK_EQ(client_config_read(sock, cap + 14, 4), 0x0a0b0000);
	CHECK_EQ(client_config_read(sock, cap + 18, 2), 0x0403);
	/* The read that QEMU starts with. */
	CHECK_EQ(client_region_read(sock, VFU_REGION_CONFIG, 0, space, sizeof(space)), 0);
	CHECK(!memcmp(space + cap + 16, "\xb\xa\3\4", 4));
	CHECK(!memcmp(space, "\xf4\x1a\x57\x10", 4));
	fixture_stop(&fixture);
}

TEST(pci_flr_resets_and_reads_zero)
{
	struct fixture fixture;
	unsigned int express;
	int sock;

	fixture_start_connected(&fixture);
	sock = fixture.sock;
	express = client_find_cap(sock, 0x10);
	client_config_write(sock, 0x3c, 11, 1);
	client_config_write(sock, express + DEVCTL, DEVCTL_FLR, 2);
	CHECK_EQ(fixture.nr_resets[VIOMMU_RESET_FLR], 1);
	CHECK(fixture.reset_was_clean);
	CHECK_EQ(fixture.nr_bus_master_off, 1);
	CHECK_EQ(client_config_read(sock, 4, 2), 0);
	CHECK_EQ(client_config_read(sock, 0x3c, 1), 0);
	CHECK_EQ(client_config_read(sock, express + DEVCTL, 2), 0x2810);
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_FLR);
	/* The high byte alone does it too, the low one does not. */
	client_config_write(sock, express + DEVCTL, 0x80, 1);
	CHECK_EQ(fixture.nr_resets[VIOMMU_RESET_FLR], 1);
	client_config_write(sock, express + DEVCTL + 1, 0x80, 1);
	CHECK_EQ(fixture.nr_resets[VIOMMU_RESET_FLR], 2);
	CHECK_EQ(fixture_counter(&fixture, VIOMMU_COUNT_RESETS), 2);
	fixture_stop(&fixture);
}

TEST(pci_bus_master_is_reported_once_per_change)
{
	struct viommu_log_record record;
	struct fixture fixture;

	fixture_start_connected(&fixture);
	record = fixture_wait_log(&fixture, VIOMMU_LOG_BUS_MASTER);
	CHECK_EQ(record.flags, 1);
	CHECK_EQ(record.source, FIXTURE_SOURCE);
	CHECK_EQ(record.endpoint, FIXTURE_ENDPOINT);
	client_config_write(fixture.sock, 4, 0x0007, 2);
	CHECK_EQ(fixture.nr_bus_master_on, 1);
	client_config_write(fixture.sock, 4, 0x0002, 2);
	CHECK_EQ(fixture.nr_bus_master_off, 1);
	CHECK(!vfu_bus_master(fixture.vfu));
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_BUS_MASTER).flags, 0);
	fixture_stop(&fixture);
}

TEST(pci_capability_space_is_bounded)
{
	static const uint8_t body[254];
	struct fixture fixture;
	unsigned int offset = 0;

	fixture_start(&fixture);
	reactor_stop(fixture.reactor);
	CHECK_EQ(vfu_pci_cap(fixture.vfu, body, sizeof(body), 0, 0, &offset), -ENOSPC);
	CHECK_EQ(vfu_pci_cap(fixture.vfu, body, 0, 0, 0, &offset), -ENOSPC);
	CHECK_EQ(vfu_pci_cap(fixture.vfu, body, 14, 12, 5, &offset), -EINVAL);
	CHECK_EQ(vfu_pci_cap(fixture.vfu, body, 14, 1, 2, &offset), -EINVAL);
	CHECK_EQ(offset, 0);
	while (!vfu_pci_cap(fixture.vfu, body, 14, 0, 0, &offset))
		;
	CHECK(offset <= 240);
	fixture_stop(&fixture);
}
