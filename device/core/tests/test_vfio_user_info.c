// SPDX-License-Identifier: GPL-2.0-or-later
/* VERSION, DEVICE_GET_INFO, GET_REGION_INFO, GET_IRQ_INFO, and commands we do not have. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

static ssize_t send_version(int sock, uint16_t major, const char *json, size_t json_len,
			    char *reply)
{
	char request[512] = { 0 };

	memcpy(request, &major, sizeof(major));
	memcpy(request + 4, json, json_len);
	return client_call(sock, VFIO_USER_VERSION, request, 4 + json_len, reply, 256);
}

TEST(version_reply_is_short_and_minor_0)
{
	static const char json[198] = "{\"capabilities\":{\"max_data_xfer_size\": 1048576}}";
	struct fixture fixture;
	char reply[256];
	ssize_t nr;
	int sock;

	fixture_start(&fixture);
	sock = client_connect(fixture.path);
	nr = send_version(sock, 0, json, sizeof(json), reply);
	CHECK(nr > 4 && nr <= 214 - 16);
	CHECK(!memcmp(reply, "\0\0\0\0", 4));
	CHECK_EQ(reply[nr - 1], 0);
	CHECK(strstr(reply + 4, "\"max_msg_fds\":16"));
	/* Once is enough. */
	CHECK_EQ(send_version(sock, 0, json, sizeof(json), reply), -EINVAL);
	close(sock);
	fixture_stop(&fixture);
}

TEST(version_without_json_gets_none)
{
	struct fixture fixture;
	char reply[256];
	int sock;

	fixture_start(&fixture);
	sock = client_connect(fixture.path);
	CHECK_EQ(send_version(sock, 0, "", 0, reply), 4);
	close(sock);
	fixture_stop(&fixture);
}

TEST(version_that_makes_no_sense_is_refused)
{
	static const char *const jsons[] = {
		"{\"max_data_xfer_size\":0}",
		"{\"max_data_xfer_size\":-1}",
		"{\"max_data_xfer_size\"",
		"{\"max_data_xfer_size\":\"x\"}",
	};
	struct fixture fixture;
	char reply[256];
	int sock;

	fixture_start(&fixture);
	sock = client_connect(fixture.path);
	CHECK_EQ(send_version(sock, 1, "", 1, reply), -EINVAL);
	CHECK_EQ(send_version(sock, 0, "{}", 2, reply), -EINVAL); /* not terminated */
	for (size_t i = 0; i < sizeof(jsons) / sizeof(jsons[0]); i++)
		CHECK_EQ(send_version(sock, 0, jsons[i], strlen(jsons[i]) + 1, reply), -EINVAL);
	CHECK_EQ(client_call(sock, VFIO_USER_VERSION, "", 1, reply, sizeof(reply)), -EINVAL);
	/* And nothing works before it. */
	CHECK_EQ(client_reset(sock), -EINVAL);
	CHECK_EQ(client_version(sock), 0);
	CHECK_EQ(client_reset(sock), 0);
	close(sock);
	fixture_stop(&fixture);
}

TEST(get_info_is_32_bytes)
{
	struct vfio_user_device_info info = { .argsz = sizeof(info) };
	struct fixture fixture;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info), &info,
			     sizeof(info)),
		 sizeof(info));
	CHECK_EQ(info.flags, 3);
	CHECK_EQ(info.num_regions, 9);
	CHECK_EQ(info.num_irqs, 5);
	info.argsz = 15;
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info), &info,
			     sizeof(info)),
		 -EINVAL);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_GET_INFO, &info, 3, &info,
			     sizeof(info)),
		 -EINVAL);
	fixture_stop(&fixture);
}

TEST(get_region_info_has_no_mmap)
{
	static const uint64_t sizes[9] = {
		[FIXTURE_MSIX_BAR] = 4096,
		[FIXTURE_RAM_BAR] = 16384,
		[VFU_REGION_CONFIG] = 4096,
	};
	struct fixture fixture;

	fixture_start_connected(&fixture);
	for (uint32_t index = 0; index <= 9; index++) {
		struct vfio_user_region_info info = { .argsz = sizeof(info), .index = index };
		ssize_t nr = client_call(fixture.sock, VFIO_USER_DEVICE_GET_REGION_INFO, &info,
					 sizeof(info), &info, sizeof(info));

		CHECK_EQ(nr, index < 9 ? (ssize_t)sizeof(info) : -EINVAL);
		if (index == 9)
			break;
		CHECK_EQ(info.argsz, sizeof(info));
		CHECK_EQ(info.index, index);
		CHECK_EQ(info.size, sizes[index]);
		CHECK_EQ(info.flags, sizes[index] ? 3 : 0);
	}
	fixture_stop(&fixture);
}

TEST(get_irq_info_per_index)
{
	/* -1: refused, which keeps QEMU quiet about error recovery. */
	static const int counts[6] = { 1, 0, FIXTURE_VECTORS, -1, -1, -1 };
	static const uint32_t flags[6] = { 7, 0, 1 };
	struct fixture fixture;

	fixture_start_connected(&fixture);
	for (uint32_t index = 0; index < 6; index++) {
		struct vfio_user_irq_info info = { .argsz = sizeof(info), .index = index };
		ssize_t nr = client_call(fixture.sock, VFIO_USER_DEVICE_GET_IRQ_INFO, &info,
					 sizeof(info), &info, sizeof(info));

		CHECK_EQ(nr, counts[index] < 0 ? -EINVAL : (ssize_t)sizeof(info));
		if (counts[index] < 0)
			continue;
		CHECK_EQ(info.count, counts[index]);
		CHECK_EQ(info.flags, flags[index]);
	}
	fixture_stop(&fixture);
}

TEST(unknown_commands_are_answered)
{
	static const uint16_t commands[] = { 0, 6, 11, 12, 14, 15, 17, 18, 999, 0xffff };
	struct fixture fixture;
	uint64_t before;

	fixture_start_connected(&fixture);
	before = fixture_counter(&fixture, VIOMMU_COUNT_MESSAGES);
	for (size_t i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		CHECK_EQ(client_call(fixture.sock, commands[i], "abcd", 4, NULL, 0), -ENOSYS);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_FEATURE, "abcd", 4, NULL, 0), -EINVAL);
	CHECK_EQ(fixture_counter(&fixture, VIOMMU_COUNT_MESSAGES), before + 11);
	fixture_stop(&fixture);
}
