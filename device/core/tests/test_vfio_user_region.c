// SPDX-License-Identifier: GPL-2.0-or-later
/* REGION_READ and REGION_WRITE; configuration space itself is in test_pci_config.c. */
#include <errno.h>
#include <string.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

TEST(region_bar_accesses_reach_the_device)
{
	struct fixture fixture;
	uint8_t page[4096], back[4096];

	fixture_start_connected(&fixture);
	for (uint32_t count = 1; count <= 8; count *= 2) {
		CHECK_EQ(client_region_write(fixture.sock, FIXTURE_RAM_BAR, 16 * count, "abcdefgh",
					     count),
			 0);
		CHECK_EQ(client_region_read(fixture.sock, FIXTURE_RAM_BAR, 16 * count, back, count),
			 0);
		CHECK(!memcmp(back, "abcdefgh", count));
	}
	memset(page, 0x5a, sizeof(page));
	CHECK_EQ(client_region_write(fixture.sock, FIXTURE_RAM_BAR, 12288, page, 4096), 0);
	CHECK_EQ(client_region_read(fixture.sock, FIXTURE_RAM_BAR, 12288, back, 4096), 0);
	CHECK(!memcmp(back, page, 4096));
	fixture_stop(&fixture);
}

TEST(region_accesses_outside_are_refused)
{
	static const struct vfio_user_region_access accesses[] = {
		{ .region = FIXTURE_RAM_BAR, .offset = 16384, .count = 1 },
		{ .region = FIXTURE_RAM_BAR, .offset = 16380, .count = 8 },
		{ .region = FIXTURE_RAM_BAR, .offset = UINT64_MAX, .count = 1 },
		{ .region = FIXTURE_RAM_BAR, .offset = UINT64_MAX - 3, .count = 8 },
		{ .region = FIXTURE_RAM_BAR, .offset = 0, .count = 0 },
		{ .region = FIXTURE_RAM_BAR, .offset = 0, .count = 4097 },
		{ .region = FIXTURE_RAM_BAR, .offset = 0, .count = UINT32_MAX },
		{ .region = 0, .offset = 0, .count = 4 },                   /* absent BAR */
		{ .region = FIXTURE_RAM_BAR + 1, .offset = 0, .count = 4 }, /* upper half */
		{ .region = 6, .offset = 0, .count = 4 },                   /* ROM */
		{ .region = VFU_REGION_CONFIG, .offset = 4094, .count = 4 },
		{ .region = 8, .offset = 0, .count = 4 },
		{ .region = UINT32_MAX, .offset = 0, .count = 4 },
	};
	struct fixture fixture;
	uint8_t reply[8192];

	fixture_start_connected(&fixture);
	for (size_t i = 0; i < sizeof(accesses) / sizeof(accesses[0]); i++) {
		uint8_t request[16 + 4097] = { 0 };
		uint32_t count = accesses[i].count <= 4097 ? accesses[i].count : 0;

		memcpy(request, &accesses[i], 16);
		CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_READ, request, 16, reply,
				     sizeof(reply)),
			 -EINVAL);
		CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_WRITE, request, 16 + count,
				     reply, sizeof(reply)),
			 -EINVAL);
	}
	/* More, or less, data than promised. */
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_WRITE,
			     "\0\0\0\0\0\0\0\0\4\0\0\0\4\0\0\0abc", 19, reply, sizeof(reply)),
		 -EINVAL);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_WRITE,
			     "\0\0\0\0\0\0\0\0\4\0\0\0\4\0\0\0abcde", 21, reply, sizeof(reply)),
		 -EINVAL);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_READ, "abc", 3, reply, sizeof(reply)),
		 -EINVAL);
	CHECK_EQ(fixture.ram[0], 0);
	fixture_stop(&fixture);
}

TEST(region_posted_writes_are_not_answered_but_done_in_order)
{
	struct vfio_user_header header = {
		.id = 7,
		.command = VFIO_USER_REGION_WRITE,
		.flags = VFIO_USER_NO_REPLY,
	};
	struct fixture fixture;
	uint8_t value = 0;

	fixture_start_connected(&fixture);
	for (int i = 0; i < 200; i++) {
		uint8_t request[17] = { [8] = FIXTURE_RAM_BAR, [12] = 1, [16] = (uint8_t)i };

		client_send(fixture.sock, header, request, sizeof(request), NULL, 0);
	}
	/* One that fails is not answered either. */
	client_send(fixture.sock, header, "", 1, NULL, 0);
	CHECK_EQ(client_region_read(fixture.sock, FIXTURE_RAM_BAR, 0, &value, 1), 0);
	CHECK_EQ(value, 199);
	fixture_stop(&fixture);
}

TEST(region_msix_structures_never_reach_the_device)
{
	struct fixture fixture;
	uint8_t buf[64];

	fixture_start_connected(&fixture);
	memset(buf, 0xff, sizeof(buf));
	CHECK_EQ(client_region_write(fixture.sock, FIXTURE_MSIX_BAR, 0, buf, 64), 0);
	CHECK_EQ(client_region_write(fixture.sock, FIXTURE_MSIX_BAR, FIXTURE_PBA, buf, 8), 0);
	CHECK_EQ(client_region_read(fixture.sock, FIXTURE_MSIX_BAR, 0, buf, 64), 0);
	CHECK_EQ(buf[0] | buf[63], 0);
	CHECK_EQ(client_region_read(fixture.sock, FIXTURE_MSIX_BAR, FIXTURE_PBA, buf, 8), 0);
	CHECK_EQ(buf[0] | buf[7], 0);
	CHECK_EQ(client_region_read(fixture.sock, FIXTURE_MSIX_BAR, 64, buf, 4), 0);
	CHECK_EQ(buf[0], 0xee);
	fixture_stop(&fixture);
}
