// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The message parser: any bytes, cut anywhere, with any descriptors, from a client.
 *
 * Input: a byte that chooses the function and whether the client is made known
 * first; then pieces: a byte of descriptors to send along, a length, the bytes.
 * DMA is not run: what it does is not the parser's, and not reproducible.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "ctx.h"
#include "engine.h"
#include "fixture.h"
#include "fuzz.h"
#include "reactor.h"
#include "rig.h"
#include "vfio_user_wire.h"

#define MAX_PIECES 64
#define MAX_FDS 20 /* more than any message may have */
#define MAX_TURNS 1000

enum { FD_SEALED, FD_UNSEALED, FD_EVENT, FD_SOCKET, NR_FD_KINDS };

static struct rig rig;
static int kinds[NR_FD_KINDS];

static void teardown(void)
{
	rig_stop(&rig);
}

static void setup(void)
{
	int pair[2];

	if (rig.ctx)
		return;
	rig_start(&rig, NULL);
	atexit(teardown);
	pool_stop(rig.ctx->pool);
	reactor_stop(rig.ctx->reactor);
	kinds[FD_SEALED] = make_memfd(0x10000, true);
	kinds[FD_UNSEALED] = make_memfd(0x10000, false);
	kinds[FD_EVENT] = make_eventfd();
	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	kinds[FD_SOCKET] = pair[0];
}

/* Until nothing is left to do: nothing here may keep the reactor busy by itself. */
static void settle(void)
{
	unsigned turns = 0;

	while (reactor_turn(rig.ctx->reactor, 0) > 0)
		FUZZ_CHECK(++turns < MAX_TURNS);
}

static void drain(int sock)
{
	static uint8_t waste[65536];

	while (recv(sock, waste, sizeof(waste), MSG_DONTWAIT) > 0)
		;
}

static int connect_client(bool endpoint)
{
	char path[128];
	int sock;

	snprintf(path, sizeof(path), "%s/%s", rig.dir, endpoint ? "ep0" : "iommu");
	sock = client_connect(path);
	FUZZ_CHECK(fcntl(sock, F_SETFL, O_NONBLOCK) >= 0);
	settle();
	return sock;
}

/* False: the server has closed the connection. */
static bool send_piece(int sock, const void *buf, size_t len, uint8_t which)
{
	union {
		char space[CMSG_SPACE(MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control = { 0 };
	struct iovec iov = { (void *)buf, len };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	unsigned nr = which >> 4 == 15 ? MAX_FDS : which >> 4;

	if (nr) {
		struct cmsghdr *cmsg = &control.align;

		msg.msg_control = &control;
		msg.msg_controllen = CMSG_SPACE(nr * sizeof(int));
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(nr * sizeof(int));
		for (unsigned i = 0; i < nr; i++)
			memcpy(CMSG_DATA(cmsg) + i * sizeof(int), &kinds[(which + i) % NR_FD_KINDS],
			       sizeof(int));
	}
	return sendmsg(sock, &msg, MSG_NOSIGNAL) >= 0;
}

/* What every client does first. */
static void introduce(int sock)
{
	const struct {
		struct vfio_user_header header;
		struct vfio_user_version version;
	} hello = { { 1, VFIO_USER_VERSION, sizeof(hello), 0, 0 }, { 0, 0 } };
	const struct {
		struct vfio_user_header header;
		struct vfio_user_dma_map map;
	} map = {
		{ 2, VFIO_USER_DMA_MAP, sizeof(map), 0, 0 },
		{ sizeof(map.map), 3, 0, RIG_RAM, 0x10000 },
	};

	send_piece(sock, &hello, sizeof(hello), 0);
	send_piece(sock, &map, sizeof(map), 0x10 + FD_SEALED);
	settle();
	drain(sock);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	uint8_t choice = fuzz_byte(&input);
	unsigned nr_fds;
	int sock;

	setup();
	nr_fds = count_open_fds();
	sock = connect_client(choice & 1);
	if (choice & 2)
		introduce(sock);
	for (unsigned i = 0; i < MAX_PIECES && input.size; i++) {
		uint8_t which = fuzz_byte(&input), buf[256];
		size_t len = fuzz_byte(&input);

		if (len > input.size)
			len = input.size;
		fuzz_take(&input, buf, len);
		if (len && !send_piece(sock, buf, len, which))
			break;
		settle();
		drain(sock);
	}
	close(sock);
	settle();
	/* Whatever it sent, it must not have left a descriptor with us. */
	FUZZ_CHECK(count_open_fds() == nr_fds);
	return 0;
}

/* One message of each command, as it should be. */
static size_t message(unsigned n, uint8_t *body, uint16_t *command, uint8_t *which)
{
	const uint32_t irqs[] = { 20, 4 | 32, 2, 0, 1 };
	const uint32_t info[] = { 32, 0, n == 4 ? 7 : 2, 0, 0, 0, 0, 0 };
	const struct vfio_user_dma_map map = { 32, 3, 0, 0x1000, 0x1000 };
	const struct vfio_user_dma_unmap unmap = { 24, 0, 0x1000, 0x1000 };
	const struct vfio_user_region_access access = { 0, n & 1 ? 7 : 4, 8 };
	static const uint16_t commands[] = {
		VFIO_USER_VERSION,
		VFIO_USER_DMA_MAP,
		VFIO_USER_DMA_UNMAP,
		VFIO_USER_DEVICE_GET_INFO,
		VFIO_USER_DEVICE_GET_REGION_INFO,
		VFIO_USER_DEVICE_GET_IRQ_INFO,
		VFIO_USER_DEVICE_SET_IRQS,
		VFIO_USER_REGION_READ,
		VFIO_USER_REGION_READ,
		VFIO_USER_REGION_WRITE,
		VFIO_USER_REGION_WRITE,
		VFIO_USER_DEVICE_RESET,
		VFIO_USER_REGION_WRITE_MULTI,
		VFIO_USER_DEVICE_FEATURE,
	};

	if (n >= sizeof(commands) / sizeof(commands[0]))
		return SIZE_MAX;
	*command = commands[n];
	*which = 0;
	memset(body, 0, 64);
	switch (*command) {
	case VFIO_USER_VERSION:
		memcpy(body + 4, "{\"capabilities\":{}}", 20);
		return 24;
	case VFIO_USER_DMA_MAP:
		*which = 0x10 + FD_SEALED;
		memcpy(body, &map, sizeof(map));
		return sizeof(map);
	case VFIO_USER_DMA_UNMAP:
		memcpy(body, &unmap, sizeof(unmap));
		return sizeof(unmap);
	case VFIO_USER_DEVICE_SET_IRQS:
		*which = 0x10 + FD_EVENT;
		memcpy(body, irqs, sizeof(irqs));
		return sizeof(irqs);
	case VFIO_USER_REGION_READ:
		memcpy(body, &access, sizeof(access));
		return sizeof(access);
	case VFIO_USER_REGION_WRITE:
		memcpy(body, &access, sizeof(access));
		return sizeof(access) + 8;
	case VFIO_USER_DEVICE_RESET:
		return 0;
	default:
		memcpy(body, info, sizeof(info));
		return *command == VFIO_USER_DEVICE_GET_REGION_INFO ? sizeof(info) : 16;
	}
}

/* Each command alone to either function, then all of them in one go. */
size_t fuzz_seed(unsigned n, uint8_t *buf)
{
	uint8_t body[64], which;
	uint16_t command;
	size_t at = 0, len;
	bool all = message(n / 2, body, &command, &which) == SIZE_MAX;

	buf[at++] = 2 | (n & 1);
	for (unsigned i = all ? 0 : n / 2; (len = message(i, body, &command, &which)) != SIZE_MAX;
	     i++) {
		struct vfio_user_header header = { i, command, sizeof(header) + len, 0, 0 };

		buf[at++] = which;
		buf[at++] = header.size;
		memcpy(buf + at, &header, sizeof(header));
		memcpy(buf + at + sizeof(header), body, len);
		at += header.size;
		if (!all)
			break;
	}
	return n / 2 > 14 ? 0 : at;
}
