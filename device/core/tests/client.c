// SPDX-License-Identifier: GPL-2.0-or-later
#include "client.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "harness.h"

#define CLIENT_MAX_FDS 64u

int client_connect(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval timeout = { .tv_sec = 20 };
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	REQUIRE(sock >= 0 && strlen(path) < sizeof(address.sun_path));
	memcpy(address.sun_path, path, strlen(path));
	REQUIRE(!connect(sock, (struct sockaddr *)&address, sizeof(address)));
	REQUIRE(!setsockopt(sock, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)));
	return sock;
}

void client_send_raw(int sock, const void *buf, size_t len, const int *fds, size_t nr_fds)
{
	union {
		char space[CMSG_SPACE(CLIENT_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { .iov_base = (void *)buf, .iov_len = len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	REQUIRE(nr_fds <= CLIENT_MAX_FDS);
	if (nr_fds) {
		struct cmsghdr *cmsg;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nr_fds * sizeof(int));
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr_fds * sizeof(int));
		memcpy(CMSG_DATA(cmsg), fds, nr_fds * sizeof(int));
	}
	/* A server that has closed meanwhile is the test's business, at the next receive. */
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != (ssize_t)len)
		CHECK(errno == EPIPE || errno == ECONNRESET);
}

void client_send(int sock, struct vfio_user_header header, const void *payload, size_t len,
		 const int *fds, size_t nr_fds)
{
	uint8_t *buf = malloc(sizeof(header) + len);

	REQUIRE(buf);
	header.size = (uint32_t)(sizeof(header) + len);
	memcpy(buf, &header, sizeof(header));
	if (len)
		memcpy(buf + sizeof(header), payload, len);
	client_send_raw(sock, buf, sizeof(header) + len, fds, nr_fds);
	free(buf);
}

static int receive_all(int sock, void *buf, size_t len)
{
	ssize_t nr = len ? recv(sock, buf, len, MSG_WAITALL) : 0;

	if (nr < 0)
		return -errno;
	return (size_t)nr == len ? 0 : -EPIPE;
}

ssize_t client_receive(int sock, struct vfio_user_header *header, void *payload, size_t size)
{
	int err = receive_all(sock, header, sizeof(*header));
	size_t len;

	if (err)
		return err;
	REQUIRE(header->size >= sizeof(*header));
	len = header->size - sizeof(*header);
	/* QEMU would lose its place in the stream here, for good. */
	REQUIRE(len <= size);
	err = receive_all(sock, payload, len);
	return err ? err : (ssize_t)len;
}

ssize_t client_call_fds(int sock, uint16_t command, const void *payload, size_t len, const int *fds,
			size_t nr_fds, void *reply, size_t reply_size)
{
	static _Thread_local uint16_t next_id = 0xfff0;
	struct vfio_user_header header = { .id = next_id++, .command = command }, answer;
	ssize_t nr;

	client_send(sock, header, payload, len, fds, nr_fds);
	nr = client_receive(sock, &answer, reply, reply_size);
	if (nr < 0)
		return nr;
	CHECK_EQ(answer.id, header.id);
	CHECK_EQ(answer.command, command);
	CHECK_EQ(answer.flags & VFIO_USER_TYPE_MASK, VFIO_USER_REPLY);
	if (!(answer.flags & VFIO_USER_ERROR))
		return nr;
	CHECK_EQ(nr, 0);
	CHECK(answer.error > 0 && answer.error < 4096);
	return -(ssize_t)answer.error;
}

ssize_t client_call(int sock, uint16_t command, const void *payload, size_t len, void *reply,
		    size_t reply_size)
{
	return client_call_fds(sock, command, payload, len, NULL, 0, reply, reply_size);
}

bool client_is_closed(int sock)
{
	char buf[4096];
	ssize_t nr;

	do
		nr = recv(sock, buf, sizeof(buf), 0);
	while (nr > 0);
	return !nr || errno == ECONNRESET;
}

int client_version(int sock)
{
	/* As long as QEMU 11.1's, so that the reply has the same room. */
	char request[214 - 16] = { 0 }, reply[214 - 16];
	ssize_t nr;

	strcpy(request + 4,
	       "{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576}}");
	nr = client_call(sock, VFIO_USER_VERSION, request, sizeof(request), reply, sizeof(reply));
	return nr < 0 ? (int)nr : 0;
}

int client_dma_map(int sock, uint64_t addr, uint64_t size, uint32_t flags, int fd, uint64_t offset)
{
	struct vfio_user_dma_map map = {
		.argsz = sizeof(map),
		.flags = flags,
		.offset = offset,
		.address = addr,
		.size = size,
	};
	ssize_t nr = client_call_fds(sock, VFIO_USER_DMA_MAP, &map, sizeof(map), &fd, fd >= 0, &map,
				     sizeof(map));

	return (int)nr;
}

int client_dma_unmap(int sock, uint64_t addr, uint64_t size)
{
	struct vfio_user_dma_unmap unmap = {
		.argsz = sizeof(unmap),
		.address = addr,
		.size = size,
	};

	return (int)client_call(sock, VFIO_USER_DMA_UNMAP, &unmap, sizeof(unmap), &unmap,
				sizeof(unmap));
}

int client_region_read(int sock, uint32_t region, uint64_t offset, void *buf, uint32_t count)
{
	struct vfio_user_region_access access = {
		.offset = offset,
		.region = region,
		.count = count,
	};
	uint8_t reply[sizeof(access) + 4096];
	ssize_t nr = client_call(sock, VFIO_USER_REGION_READ, &access, sizeof(access), reply,
				 sizeof(reply));

	if (nr < 0)
		return (int)nr;
	CHECK_EQ(nr, sizeof(access) + count);
	CHECK(!memcmp(reply, &access, sizeof(access)));
	memcpy(buf, reply + sizeof(access), count);
	return 0;
}

int client_region_write(int sock, uint32_t region, uint64_t offset, const void *buf, uint32_t count)
{
	struct vfio_user_region_access access = {
		.offset = offset,
		.region = region,
		.count = count,
	};
	uint8_t request[sizeof(access) + 4096];
	ssize_t nr;

	REQUIRE(count <= 4096);
	memcpy(request, &access, sizeof(access));
	memcpy(request + sizeof(access), buf, count);
	nr = client_call(sock, VFIO_USER_REGION_WRITE, request, sizeof(access) + count, &access,
			 sizeof(access));
	if (nr < 0)
		return (int)nr;
	CHECK_EQ(nr, sizeof(access));
	CHECK_EQ(access.count, count);
	return 0;
}

int client_set_irqs(int sock, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		    const int *fds, size_t nr_fds)
{
	struct vfio_user_irq_set set = {
		.argsz = sizeof(set),
		.flags = flags,
		.index = index,
		.start = start,
		.count = count,
	};

	return (int)client_call_fds(sock, VFIO_USER_DEVICE_SET_IRQS, &set, sizeof(set), fds, nr_fds,
				    NULL, 0);
}

int client_reset(int sock)
{
	return (int)client_call(sock, VFIO_USER_DEVICE_RESET, NULL, 0, NULL, 0);
}

uint32_t client_config_read(int sock, unsigned int offset, unsigned int count)
{
	uint8_t buf[4] = { 0 };

	REQUIRE(!client_region_read(sock, VFU_REGION_CONFIG, offset, buf, count));
	return (uint32_t)buf[0] | (uint32_t)buf[1] << 8 | (uint32_t)buf[2] << 16 |
	       (uint32_t)buf[3] << 24;
}

void client_config_write(int sock, unsigned int offset, uint32_t value, unsigned int count)
{
	uint8_t buf[4] = { (uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
			   (uint8_t)(value >> 24) };

	REQUIRE(!client_region_write(sock, VFU_REGION_CONFIG, offset, buf, count));
}

unsigned int client_find_cap(int sock, uint8_t id)
{
	unsigned int offset = client_config_read(sock, 0x34, 1);

	for (int i = 0; offset && i < 48; i++) {
		if (client_config_read(sock, offset, 1) == id)
			return offset;
		offset = client_config_read(sock, offset + 1, 1);
	}
	return 0;
}
