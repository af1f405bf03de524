// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The message parser: any bytes, cut anywhere, with any descriptors, from a client.
 *
 * Input: a byte that chooses the function, whether the client is made known first,
 * and whether there is little room for what is sent to it; then pieces: a byte of
 * descriptors to send along and whether the replies are left unread, a length, the
 * bytes. In the end, every interrupt is raised by whatever was set up for it.
 * DMA is not run: that is fuzz_endpoint's.
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
#include "iommu.h"
#include "reactor.h"
#include "rig.h"
#include "vfio_user_private.h"

#define MAX_PIECES 64
#define MAX_FDS 20 /* more than any message may have */
#define MAX_TURNS 1000

enum { CHOICE_ENDPOINT = 1, CHOICE_INTRODUCE = 2, CHOICE_LITTLE_ROOM = 4, CHOICE_LOSE = 8 };
#define LEAVE_UNREAD 0x08
/* Where the capability is; right or not, it is only a seed. */
#define CAP_MSI_AT 0x84
#define N_ENABLE_MSI 12
#define NR_MESSAGES 16

enum { FD_SEALED, FD_UNSEALED, FD_EVENT, FD_SOCKET, NR_FD_KINDS };

static struct rig rig;
static int kinds[NR_FD_KINDS];

/* Until nothing is left to do: nothing here may keep the reactor busy by itself. */
static void settle(void)
{
	unsigned turns = 0;

	while (reactor_turn(rig.ctx->reactor, 0) > 0)
		FUZZ_CHECK(++turns < MAX_TURNS);
}

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
	/* A function has one client: ours is not to be turned away. */
	close(rig.iommu);
	close(rig.endpoints[RIG_EP0]);
	rig.iommu = rig.endpoints[RIG_EP0] = -1;
	settle();
	kinds[FD_SEALED] = make_memfd(0x10000, true);
	kinds[FD_UNSEALED] = make_memfd(0x10000, false);
	kinds[FD_EVENT] = make_eventfd();
	FUZZ_CHECK(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	kinds[FD_SOCKET] = pair[0];
}

static struct vfu *find_vfu(uint8_t choice)
{
	if (choice & CHOICE_ENDPOINT)
		return rig.ctx->functions[rig.endpoint_index[RIG_EP0]].endpoint->vfu;
	return rig.ctx->functions[rig.iommu_index].iommu->vdev.vfu;
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

/* A message each, in turn with the server: what it kept must go out once it is read. */
static void drain_all(const struct vfu *vfu, int sock)
{
	for (unsigned i = 0; i < MAX_TURNS && vfu->fd >= 0 && vfu_conn_is_blocked(vfu); i++) {
		drain(sock);
		settle();
	}
	FUZZ_CHECK(vfu->fd < 0 || !vfu_conn_is_blocked(vfu));
	drain(sock);
}

static void raise_all(struct vfu *vfu)
{
	struct msi_config msi = pci_config_msi(&vfu->pci);
	int vector = vfu_msi_vector(vfu, msi.address, msi.data);

	FUZZ_CHECK(msi.nr_vectors <= vfu->config.nr_msi);
	FUZZ_CHECK(msi.nr_vectors ? vector == (int)(msi.data % msi.nr_vectors) : vector == -ENOENT);
	for (int i = VFU_INTX; i <= (int)IRQ_MAX_VECTORS; i++)
		vfu_irq_raise(vfu, i);
	vfu_intx_deassert(vfu);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	uint8_t choice = fuzz_byte(&input);
	struct vfu *vfu;
	unsigned nr_fds;
	int sock, least = 0;

	setup();
	vfu = find_vfu(choice);
	nr_fds = count_open_fds();
	sock = connect_client(choice & CHOICE_ENDPOINT);
	FUZZ_CHECK(vfu_connected(vfu));
	if (choice & CHOICE_LITTLE_ROOM)
		FUZZ_CHECK(!setsockopt(vfu->fd, SOL_SOCKET, SO_SNDBUF, &least, sizeof(least)));
	if (choice & CHOICE_INTRODUCE)
		introduce(sock);
	FUZZ_CHECK(vfu->negotiated == !!(choice & CHOICE_INTRODUCE));
	for (unsigned i = 0; i < MAX_PIECES && input.size; i++) {
		uint8_t which = fuzz_byte(&input), buf[256];
		size_t len = fuzz_byte(&input);

		if (len > input.size)
			len = input.size;
		fuzz_take(&input, buf, len);
		if (len && !send_piece(sock, buf, len, which))
			break;
		settle();
		if (!(which & LEAVE_UNREAD))
			drain(sock);
	}
	/* Some are read to the end, others lost with all of it unread. */
	if (!(choice & CHOICE_LOSE))
		drain_all(vfu, sock);
	raise_all(vfu);
	close(sock);
	settle();
	/* Whatever it sent, it must not have left a descriptor with us. */
	FUZZ_CHECK(count_open_fds() == nr_fds);
	return 0;
}

/* One message of each command, as it should be. */
static size_t message(unsigned n, uint8_t *body, uint16_t *command, uint8_t *which)
{
	/* A vector of MSI-X, or of MSI. */
	const uint32_t irqs[] = { 20, 4 | 32, n < 10 ? 2 : 1, 0, 1 };
	const uint32_t info[] = { 32, 0, n == 4 ? 7 : 2, 0, 0, 0, 0, 0 };
	const struct vfio_user_dma_map map = { 32, 3, 0, 0x1000, 0x1000 };
	const struct vfio_user_dma_unmap unmap = { 24, 0, 0x1000, 0x1000 };
	const struct vfio_user_region_access access = { 0, n & 1 ? 7 : 4, 8 };
	const struct vfio_user_region_access msi = { CAP_MSI_AT, 7, 14 };
	const uint8_t enable_msi[] = { 0, 0, 0xa5, 0, 0x40, 0, 0xe0, 0xfe, 0, 0, 0, 0, 0x24, 0x41 };
	static const uint16_t commands[NR_MESSAGES] = {
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
		VFIO_USER_REGION_WRITE,
		VFIO_USER_DEVICE_SET_IRQS,
		VFIO_USER_REGION_WRITE_MULTI,
		VFIO_USER_DEVICE_FEATURE,
	};

	if (n >= NR_MESSAGES)
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
		if (n == N_ENABLE_MSI) {
			memcpy(body, &msi, sizeof(msi));
			memcpy(body + sizeof(msi), enable_msi, sizeof(enable_msi));
			return sizeof(msi) + sizeof(enable_msi);
		}
		memcpy(body, &access, sizeof(access));
		return sizeof(access) + 8;
	case VFIO_USER_DEVICE_RESET:
		return 0;
	default:
		memcpy(body, info, sizeof(info));
		return *command == VFIO_USER_DEVICE_GET_REGION_INFO ? sizeof(info) : 16;
	}
}

/*
 * Each command alone to either function; then all of them in one go, read or unread, by
 * a client with or without room for the replies.
 */
size_t fuzz_seed(unsigned n, uint8_t *buf)
{
	uint8_t body[64], which;
	uint16_t command;
	size_t at = 0, len;
	bool all = n / 2 >= NR_MESSAGES;
	unsigned way = n / 2 - NR_MESSAGES;

	if (all && way >= 4)
		return 0;
	buf[at++] = CHOICE_INTRODUCE | (n & CHOICE_ENDPOINT) |
		    (all && way & 1 ? CHOICE_LITTLE_ROOM : 0) | (all && way & 2 ? CHOICE_LOSE : 0);
	for (unsigned i = all ? 0 : n / 2; (len = message(i, body, &command, &which)) != SIZE_MAX;
	     i++) {
		struct vfio_user_header header = { i, command, sizeof(header) + len, 0, 0 };

		buf[at++] = which | (all && way ? LEAVE_UNREAD : 0);
		buf[at++] = header.size;
		memcpy(buf + at, &header, sizeof(header));
		memcpy(buf + at + sizeof(header), body, len);
		at += header.size;
		if (!all)
			break;
	}
	return at;
}
