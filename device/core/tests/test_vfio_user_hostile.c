// SPDX-License-Identifier: GPL-2.0-or-later
/* Clients that want to hold up the server: it stays there for everybody else. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"

#define SET_EVENTFD 0x24
#define UNMASK_EVENTFD 0x14
#define MSIX 2
#define MAX_SEQUENCE 2048

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

struct read_request {
	struct vfio_user_header header;
	struct vfio_user_region_access access;
};

static struct read_request read_request(uint16_t id)
{
	return (struct read_request){
		.header = { id, VFIO_USER_REGION_READ, sizeof(struct read_request), 0, 0 },
		.access = { 0, DMA_ENGINE_BAR_LOCAL, 4096 },
	};
}

/* Asks until the socket takes no more, and for long after that; the number of requests. */
static unsigned ask_without_reading(int sock)
{
	unsigned nr = 0;

	for (unsigned nr_full = 0; nr_full < 20;) {
		struct read_request request = read_request(nr);

		if (send(sock, &request, sizeof(request), MSG_DONTWAIT) == sizeof(request)) {
			nr++;
			continue;
		}
		REQUIRE(errno == EAGAIN);
		nr_full++;
		usleep(2000);
	}
	return nr;
}

TEST(client_that_never_reads_holds_up_nobody)
{
	static uint8_t reply[sizeof(struct vfio_user_region_access) + 4096];
	struct vfio_user_header header;
	static struct rig rig;
	unsigned nr;
	double start;

	rig_start_ready(&rig, NULL);
	nr = ask_without_reading(rig.endpoints[RIG_EP0]);
	start = now();
	for (unsigned i = 0; i < 10; i++) {
		CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), 0);
		CHECK_EQ(rig_detach(&rig, 1, RIG_ID1), 0);
	}
	/* One that waits for the client would do so for seconds, each time. */
	CHECK(now() - start < 1.5);
	/* And it has lost nothing itself. */
	for (unsigned i = 0; i < nr; i++) {
		if (!CHECK_EQ(client_receive(rig.endpoints[RIG_EP0], &header, reply, sizeof(reply)),
			      sizeof(reply)) ||
		    !CHECK_EQ(header.id, (uint16_t)i))
			break;
	}
	CHECK_EQ(rig_ep_read(&rig, RIG_EP0, DMA_ENGINE_VERSION, 4), 1);
	/* Once more, and gone with all of it unread. */
	ask_without_reading(rig.endpoints[RIG_EP0]);
	close(rig.endpoints[RIG_EP0]);
	rig_wait_log(&rig, VIOMMU_LOG_CLIENT_GONE);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), 0);
	rig_stop(&rig);
}

static void *access_memory(void *opaque)
{
	static uint8_t buf[65536];
	struct fixture *fixture = opaque;

	for (int i = 0; i < 8; i++)
		vfu_dma_access(fixture->vfu, 0, buf, sizeof(buf), true, 1);
	return NULL;
}

/* A worker stuck in the middle of a message, and a reply that must wait for it. */
TEST(worker_in_the_middle_of_a_message_does_not_hold_the_reactor)
{
	struct vfio_user_header header = { .id = 77, .command = VFIO_USER_DEVICE_RESET };
	static uint8_t payload[65536 + 16];
	struct fixture fixture;
	pthread_t thread;
	double start;

	fixture_start_connected(&fixture);
	REQUIRE(!pthread_create(&thread, NULL, access_memory, &fixture));
	usleep(100000); /* the socket is full by now; if not, the test is only weaker */
	client_send(fixture.sock, header, NULL, 0, NULL, 0);
	start = now();
	for (int i = 0; i < 5; i++) {
		int second = client_connect(fixture.path);

		CHECK(client_is_closed(second));
		close(second);
	}
	CHECK(now() - start < 1.5);
	for (;;) {
		ssize_t nr = client_receive(fixture.sock, &header, payload, sizeof(payload));

		if (nr < 0 || header.command == VFIO_USER_DEVICE_RESET)
			break;
		CHECK_EQ(header.command, VFIO_USER_DMA_WRITE);
	}
	CHECK(header.id == 77 || client_is_closed(fixture.sock));
	pthread_join(thread, NULL);
	fixture_stop(&fixture);
}

/* The flag belongs to the file, not to our descriptor: the client can take it back. */
TEST(eventfd_made_blocking_and_full_afterwards)
{
	uint64_t full = UINT64_MAX - 1;
	struct fixture fixture;
	int fd = make_eventfd(), intx = make_eventfd();

	fixture_start_connected(&fixture);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &fd, 1), 0);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, 0, 0, 1, &intx, 1), 0);
	REQUIRE(!fcntl(fd, F_SETFL, 0) && !fcntl(intx, F_SETFL, 0));
	REQUIRE(write(fd, &full, sizeof(full)) == sizeof(full));
	REQUIRE(write(intx, &full, sizeof(full)) == sizeof(full));
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), 0);
	CHECK_EQ(eventfd_count(fd), full);
	CHECK_EQ(eventfd_count(intx), full);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	close(fd);
	close(intx);
	fixture_stop(&fixture);
}

static void check_refused_as_eventfd(struct fixture *fixture, int fd)
{
	CHECK_EQ(client_set_irqs(fixture->sock, SET_EVENTFD, MSIX, 0, 1, &fd, 1), -EBADF);
	CHECK_EQ(client_set_irqs(fixture->sock, SET_EVENTFD, 0, 0, 1, &fd, 1), -EBADF);
	CHECK_EQ(client_set_irqs(fixture->sock, UNMASK_EVENTFD, 0, 0, 1, &fd, 1), -EBADF);
}

TEST(only_eventfds_are_eventfds)
{
	struct fixture fixture;
	int pipes[2], sockets[2], epoll = epoll_create1(EPOLL_CLOEXEC);
	unsigned nr_fds;

	fixture_start_connected(&fixture);
	REQUIRE(!pipe2(pipes, O_CLOEXEC) && epoll >= 0 &&
		!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
	nr_fds = count_open_fds();
	check_refused_as_eventfd(&fixture, pipes[0]);
	check_refused_as_eventfd(&fixture, pipes[1]);
	check_refused_as_eventfd(&fixture, sockets[0]);
	check_refused_as_eventfd(&fixture, epoll);
	check_refused_as_eventfd(&fixture, fixture.sock);
	CHECK_EQ(count_open_fds(), nr_fds);
	for (int i = 0; i < 2; i++) {
		close(pipes[i]);
		close(sockets[i]);
	}
	close(epoll);
	fixture_stop(&fixture);
}

static size_t put(uint8_t *sequence, size_t at, uint16_t command, const void *payload, size_t len)
{
	struct vfio_user_header header = { at, command, sizeof(header) + len, 0, 0 };

	REQUIRE(at + header.size <= MAX_SEQUENCE);
	memcpy(sequence + at, &header, sizeof(header));
	if (len)
		memcpy(sequence + at + sizeof(header), payload, len);
	return at + header.size;
}

static size_t put_config_write(uint8_t *sequence, size_t at, uint64_t offset, uint16_t value)
{
	struct {
		struct vfio_user_region_access access;
		uint16_t value;
	} write = { { offset, VFU_REGION_CONFIG, sizeof(value) }, value };

	return put(sequence, at, VFIO_USER_REGION_WRITE, &write, sizeof(write.access) + 2);
}

/* What a client does from the first message to a device in use, and then a reset. */
static size_t start_up(uint8_t *sequence)
{
	const struct vfio_user_version version = { 0, 0 };
	const struct vfio_user_dma_map map = { sizeof(map), 3, 0, 0, 0x1000 };
	const struct vfio_user_dma_unmap unmap = { sizeof(unmap), 0, 0, 0x1000 };
	const struct vfio_user_device_info info = { .argsz = sizeof(info) };
	const struct vfio_user_region_info region = { .argsz = sizeof(region), .index = 7 };
	const struct vfio_user_irq_info irq = { .argsz = sizeof(irq), .index = MSIX };
	const struct vfio_user_irq_set set = { sizeof(set), SET_EVENTFD, MSIX, 0, 1 };
	const struct vfio_user_region_access access = { 0, VFU_REGION_CONFIG, 64 };
	size_t at = put(sequence, 0, VFIO_USER_VERSION, &version, sizeof(version));

	at = put(sequence, at, VFIO_USER_DEVICE_GET_INFO, &info, sizeof(info));
	at = put(sequence, at, VFIO_USER_DEVICE_GET_REGION_INFO, &region, sizeof(region));
	at = put(sequence, at, VFIO_USER_DEVICE_GET_IRQ_INFO, &irq, sizeof(irq));
	at = put(sequence, at, VFIO_USER_REGION_READ, &access, sizeof(access));
	at = put(sequence, at, VFIO_USER_DMA_MAP, &map, sizeof(map));
	at = put_config_write(sequence, at, 4, 6);
	at = put(sequence, at, VFIO_USER_DEVICE_SET_IRQS, &set, sizeof(set));
	at = put(sequence, at, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap));
	at = put_config_write(sequence, at, 4, 2);
	return put(sequence, at, VFIO_USER_DEVICE_RESET, NULL, 0);
}

/* Descriptors go with whichever byte is the first of a message that takes one. */
static void send_start(int sock, const uint8_t *sequence, size_t len, int memory, int eventfd)
{
	for (size_t at = 0; at < len;) {
		struct vfio_user_header header;
		size_t size = len - at;
		int fd = -1;

		memcpy(&header, sequence + at, sizeof(header));
		if (header.command == VFIO_USER_DMA_MAP)
			fd = memory;
		else if (header.command == VFIO_USER_DEVICE_SET_IRQS)
			fd = eventfd;
		if (header.size < size)
			size = header.size;
		client_send_raw(sock, sequence + at, size, &fd, fd >= 0);
		at += size;
	}
}

TEST(disconnect_after_every_byte_of_a_start)
{
	/* Room behind the end, where a header is looked at that is not all sent. */
	static uint8_t sequence[MAX_SEQUENCE + sizeof(struct vfio_user_header)];
	int memory = make_memfd(0x1000, true), eventfd = make_eventfd();
	size_t len = start_up(sequence);
	struct fixture fixture;
	unsigned nr_fds;

	fixture_start(&fixture);
	nr_fds = count_open_fds();
	for (size_t cut = 0; cut <= len; cut++) {
		int sock = client_connect(fixture.path);

		send_start(sock, sequence, cut, memory, eventfd);
		close(sock);
		fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_GONE);
		if (!CHECK_EQ(count_open_fds(), nr_fds) ||
		    !CHECK(!vfu_bus_master(fixture.vfu) && !vfu_connected(fixture.vfu)))
			break;
	}
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	CHECK_EQ(client_config_read(fixture.sock, 4, 2), 0);
	close(memory);
	close(eventfd);
	fixture_stop(&fixture);
}
