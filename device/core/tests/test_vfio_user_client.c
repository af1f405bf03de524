// SPDX-License-Identifier: GPL-2.0-or-later
/* Clients that come and go, DEVICE_RESET, and the socket in the file system. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

TEST(client_gone_leaves_nothing_behind)
{
	struct fixture fixture;
	unsigned int nr_fds;

	fixture_start(&fixture);
	nr_fds = count_open_fds();
	for (int i = 0; i < 3; i++) {
		int eventfd = make_eventfd(), sock = client_connect(fixture.path);
		struct viommu_log_record record;

		CHECK_EQ(client_version(sock), 0);
		CHECK(vfu_connected(fixture.vfu));
		fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_ATTACHED);
		client_config_write(sock, 4, 6, 2);
		client_config_write(sock, 0x3c, 5, 1);
		CHECK_EQ(client_set_irqs(sock, 0x24, 2, 0, 1, &eventfd, 1), 0);
		CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
		close(sock);
		close(eventfd);
		record = fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_GONE);
		CHECK_EQ(record.status, 0);
		CHECK_EQ(record.source, FIXTURE_SOURCE);
		CHECK_EQ(fixture.nr_resets[VIOMMU_RESET_LOST], i + 1);
		CHECK(fixture.reset_was_clean);
		CHECK(!vfu_connected(fixture.vfu) && !vfu_bus_master(fixture.vfu));
		CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), -ENODEV);
		CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), -ENODEV);
		CHECK_EQ(count_open_fds(), nr_fds);
	}
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	CHECK_EQ(client_config_read(fixture.sock, 0x3c, 1), 0);
	CHECK_EQ(client_config_read(fixture.sock, 4, 2), 0);
	fixture_stop(&fixture);
}

TEST(client_second_one_is_turned_away)
{
	struct fixture fixture;
	int second;

	fixture_start_connected(&fixture);
	second = client_connect(fixture.path);
	CHECK(client_is_closed(second));
	close(second);
	CHECK_EQ(client_reset(fixture.sock), 0);
	fixture_stop(&fixture);
}

/* End of file and the next connection may be seen in one turn, in either order. */
TEST(client_reconnects_at_once)
{
	struct fixture fixture;

	fixture_start(&fixture);
	for (int i = 0; i < 300; i++) {
		int sock = client_connect(fixture.path);

		if (!CHECK_EQ(client_version(sock), 0)) {
			close(sock);
			break;
		}
		close(sock);
	}
	fixture_stop(&fixture);
}

TEST(device_reset_clears_state_and_keeps_the_connection)
{
	struct fixture fixture;

	fixture_start_connected(&fixture);
	client_config_write(fixture.sock, 0x3c, 5, 1);
	CHECK_EQ(client_reset(fixture.sock), 0);
	CHECK_EQ(fixture.nr_resets[VIOMMU_RESET_DEVICE], 1);
	CHECK(fixture.reset_was_clean);
	CHECK(!vfu_bus_master(fixture.vfu));
	CHECK_EQ(fixture.nr_bus_master_off, 1);
	CHECK_EQ(client_config_read(fixture.sock, 0x3c, 1), 0);
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_RESET).flags, VIOMMU_RESET_DEVICE);
	CHECK_EQ(fixture_counter(&fixture, VIOMMU_COUNT_RESETS), 1);
	fixture_stop(&fixture);
}

TEST(device_destroyed_under_a_client)
{
	struct fixture fixture;
	int fd = make_memfd(0x1000, true), sock;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, 3, fd, 0), 0);
	sock = fixture.sock;
	fixture.sock = -1;
	fixture_stop(&fixture);
	CHECK(client_is_closed(sock));
	close(sock);
	close(fd);
}

/* Another function at the same path as the fixture's, or at one of the test's. */
static int listen_at(struct fixture *fixture, const char *path)
{
	struct vfu_config config = {
		.socket_path = path,
		.reactor = fixture->reactor,
		.log = fixture->log,
		.dma_lock = &fixture->dma_lock,
	};
	struct vfu *vfu;
	int err;

	REQUIRE(!vfu_create(&config, &vfu));
	err = vfu_listen(vfu);
	vfu_destroy(vfu);
	return err;
}

TEST(listen_replaces_only_stale_sockets)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct fixture fixture;
	char other[128], longest[200];
	struct stat st;
	int sock, fd;

	fixture_start(&fixture);
	CHECK(!stat(fixture.path, &st));
	CHECK_EQ(st.st_mode & 0777, 0600);
	CHECK_EQ(listen_at(&fixture, fixture.path), -EADDRINUSE);
	CHECK(!access(fixture.path, F_OK));
	reactor_stop(fixture.reactor);

	REQUIRE(snprintf(other, sizeof(other), "%s/other", fixture.dir) > 0);
	fd = open(other, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	REQUIRE(fd >= 0);
	CHECK_EQ(listen_at(&fixture, other), -EEXIST);
	close(fd);
	CHECK(!unlink(other));

	strcpy(address.sun_path, other);
	sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	REQUIRE(sock >= 0 && !bind(sock, (struct sockaddr *)&address, sizeof(address)));
	close(sock);
	CHECK_EQ(listen_at(&fixture, other), 0);
	CHECK_EQ(access(other, F_OK), -1);

	memset(longest, 'x', sizeof(longest));
	longest[sizeof(longest) - 1] = 0;
	CHECK_EQ(listen_at(&fixture, longest), -ENAMETOOLONG);
	CHECK_EQ(listen_at(&fixture, ""), -EINVAL);
	CHECK_EQ(listen_at(&fixture, "/nonexistent/dir/sock"), -ENOENT);
	fixture_stop(&fixture);
}

TEST(create_refuses_impossible_layouts)
{
	struct fixture fixture;
	struct vfu *vfu = NULL;
	struct vfu_config good, config;

	fixture_start(&fixture);
	good = (struct vfu_config){
		.socket_path = "unused",
		.reactor = fixture.reactor,
		.log = fixture.log,
		.dma_lock = &fixture.dma_lock,
		.bars = { [1] = { .size = 4096 } },
		.msix_bar = 1,
		.nr_vectors = 2,
		.msix_pba_offset = 0x800,
	};
	config = good;
	config.bars[1].size = 4097;
	CHECK_EQ(vfu_create(&config, &vfu), -EINVAL);
	config = good;
	config.bars[5] = (struct vfu_bar){ .size = 4096, .is_64bit = true };
	CHECK_EQ(vfu_create(&config, &vfu), -EINVAL);
	config = good;
	config.nr_vectors = 65;
	CHECK_EQ(vfu_create(&config, &vfu), -EINVAL);
	config = good;
	config.msix_pba_offset = 4092;
	CHECK_EQ(vfu_create(&config, &vfu), -EINVAL);
	config = good;
	config.msix_bar = 2;
	CHECK_EQ(vfu_create(&config, &vfu), -EINVAL);
	CHECK(!vfu);
	CHECK_EQ(vfu_create(&good, &vfu), 0);
	vfu_destroy(vfu);
	vfu_destroy(NULL);
	fixture_stop(&fixture);
}
