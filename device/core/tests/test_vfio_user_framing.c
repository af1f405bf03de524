// SPDX-License-Identifier: GPL-2.0-or-later
/* Hostile and broken messages: the server answers or hangs up, and leaks nothing. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

#define GET_INFO_SIZE (sizeof(struct vfio_user_header) + sizeof(struct vfio_user_device_info))

static void make_get_info(uint8_t *buf)
{
	struct vfio_user_header header = {
		.id = 1,
		.command = VFIO_USER_DEVICE_GET_INFO,
		.size = GET_INFO_SIZE,
	};
	struct vfio_user_device_info info = { .argsz = sizeof(info) };

	memcpy(buf, &header, sizeof(header));
	memcpy(buf + sizeof(header), &info, sizeof(info));
}

TEST(framing_message_in_single_bytes)
{
	struct vfio_user_device_info info;
	struct vfio_user_header header;
	struct fixture fixture;
	uint8_t buf[GET_INFO_SIZE];

	fixture_start_connected(&fixture);
	make_get_info(buf);
	for (size_t i = 0; i < sizeof(buf); i++)
		client_send_raw(fixture.sock, buf + i, 1, NULL, 0);
	CHECK_EQ(client_receive(fixture.sock, &header, &info, sizeof(info)), sizeof(info));
	CHECK_EQ(header.id, 1);
	fixture_stop(&fixture);
}

TEST(framing_many_messages_in_one_write)
{
	struct vfio_user_device_info info;
	struct vfio_user_header header;
	struct fixture fixture;
	uint8_t buf[200 * GET_INFO_SIZE];

	fixture_start_connected(&fixture);
	for (size_t i = 0; i < 200; i++)
		make_get_info(buf + i * GET_INFO_SIZE);
	client_send_raw(fixture.sock, buf, sizeof(buf), NULL, 0);
	for (size_t i = 0; i < 200; i++)
		if (!CHECK_EQ(client_receive(fixture.sock, &header, &info, sizeof(info)),
			      sizeof(info)))
			break;
	fixture_stop(&fixture);
}

static void check_header_ends_connection(struct vfio_user_header header, int status)
{
	struct fixture fixture;

	fixture_start_connected(&fixture);
	client_send_raw(fixture.sock, &header, sizeof(header), NULL, 0);
	CHECK(client_is_closed(fixture.sock));
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_GONE).status, status);
	/* The next client finds everything in order. */
	close(fixture.sock);
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	fixture_stop(&fixture);
}

TEST(framing_bad_headers_end_the_connection)
{
	check_header_ends_connection((struct vfio_user_header){ .command = 4, .size = 0 }, EPROTO);
	check_header_ends_connection((struct vfio_user_header){ .command = 4, .size = 15 }, EPROTO);
	check_header_ends_connection((struct vfio_user_header){ .command = 4, .size = UINT32_MAX },
				     EMSGSIZE);
	check_header_ends_connection(
		(struct vfio_user_header){ .command = 4, .size = (1 << 20) + 49 }, EMSGSIZE);
	check_header_ends_connection(
		(struct vfio_user_header){ .command = 4, .size = 32, .flags = 7 }, EPROTO);
}

TEST(framing_longest_message_is_read_whole)
{
	size_t len = (1 << 20) + 32;
	uint8_t *payload = calloc(1, len);
	struct fixture fixture;

	REQUIRE(payload);
	fixture_start_connected(&fixture);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_REGION_WRITE, payload, len, NULL, 0), -EINVAL);
	CHECK_EQ(client_reset(fixture.sock), 0);
	free(payload);
	fixture_stop(&fixture);
}

TEST(framing_end_of_file_inside_a_message)
{
	struct fixture fixture;
	uint8_t buf[GET_INFO_SIZE];

	fixture_start_connected(&fixture);
	make_get_info(buf);
	client_send_raw(fixture.sock, buf, 20, NULL, 0);
	close(fixture.sock);
	fixture.sock = -1;
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_GONE).status, EPROTO);
	fixture_stop(&fixture);
}

/* 40 descriptors, more than the server takes; and some on a command that takes none. */
TEST(framing_stray_descriptors_are_refused_and_closed)
{
	struct vfio_user_device_info info = { .argsz = sizeof(info) };
	struct fixture fixture;
	unsigned int nr_fds;
	int fds[40];

	fixture_start_connected(&fixture);
	for (int i = 0; i < 40; i++)
		fds[i] = make_eventfd();
	nr_fds = count_open_fds();
	for (size_t nr = 1; nr <= 40; nr += 13) {
		CHECK_EQ(client_call_fds(fixture.sock, VFIO_USER_DEVICE_GET_INFO, &info,
					 sizeof(info), fds, nr, &info, sizeof(info)),
			 -EINVAL);
		CHECK_EQ(client_call_fds(fixture.sock, 999, NULL, 0, fds, nr, NULL, 0), -EINVAL);
		CHECK_EQ(count_open_fds(), nr_fds);
	}
	CHECK_EQ(client_set_irqs(fixture.sock, 0x24, 2, 0, 4, fds, 40), -EINVAL);
	CHECK_EQ(count_open_fds(), nr_fds);
	for (int i = 0; i < 40; i++)
		close(fds[i]);
	fixture_stop(&fixture);
}

TEST(framing_descriptors_on_every_byte_are_closed)
{
	struct vfio_user_header header;
	struct fixture fixture;
	uint8_t buf[GET_INFO_SIZE];
	int fds[5];

	fixture_start_connected(&fixture);
	for (int i = 0; i < 5; i++)
		fds[i] = make_eventfd();
	make_get_info(buf);
	for (size_t i = 0; i < sizeof(buf); i++)
		client_send_raw(fixture.sock, buf + i, 1, fds, 5);
	CHECK_EQ(client_receive(fixture.sock, &header, NULL, 0), 0);
	CHECK_EQ(header.error, EINVAL);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	/* And those of a message that never becomes whole. */
	client_send_raw(fixture.sock, buf, 8, &fixture.sock, 1);
	fixture_stop(&fixture);
}

TEST(framing_random_bytes_never_hurt)
{
	struct fixture fixture;
	unsigned int nr_fds;

	fixture_start(&fixture);
	nr_fds = count_open_fds();
	srand(7);
	for (int round = 0; round < 300; round++) {
		struct vfio_user_header header = {
			.command = (uint16_t)(rand() % 18),
			.flags = rand() & 1 ? VFIO_USER_NO_REPLY : (uint32_t)rand() % 3,
		};
		uint8_t payload[64];
		int sock = client_connect(fixture.path);

		if (round & 1)
			client_version(sock);
		for (int i = 0; i < 20; i++) {
			for (size_t j = 0; j < sizeof(payload); j++)
				payload[j] = (uint8_t)(rand() & 3 ? rand() % 10 : rand());
			header.command = (uint16_t)(rand() % 18);
			client_send(sock, header, payload, (size_t)rand() % sizeof(payload), NULL,
				    0);
		}
		client_send_raw(sock, payload, sizeof(payload), NULL, 0);
		close(sock);
	}
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	CHECK_EQ(client_reset(fixture.sock), 0);
	/* Ours and the server's end of one connection. */
	CHECK_EQ(count_open_fds(), nr_fds + 2);
	fixture_stop(&fixture);
}
