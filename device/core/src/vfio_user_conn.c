// SPDX-License-Identifier: GPL-2.0-or-later
#include "vfio_user_private.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* After so many messages other connections get their turn. */
#define MESSAGES_PER_TURN 64
/* How long a full socket may stay full. Shorter than QEMU's x-msg-timeout of 5 s. */
#define SEND_TIMEOUT_NS UINT64_C(2000000000)

/* --- in --- */

void vfu_conn_close_fds(struct vfu *vfu)
{
	struct vfu_rx *rx = &vfu->rx;

	for (size_t i = 0; i < rx->nr_fds; i++)
		if (rx->fds[i] >= 0)
			close(rx->fds[i]);
	rx->nr_fds = 0;
	rx->too_many_fds = false;
}

void vfu_conn_clear_rx(struct vfu *vfu)
{
	vfu_conn_close_fds(vfu);
	vfu->rx.have = 0;
}

static void take_fds(struct vfu_rx *rx, struct msghdr *msg)
{
	/* The kernel has closed what did not fit. */
	if (msg->msg_flags & MSG_CTRUNC)
		rx->too_many_fds = true;
	for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(msg); cmsg; cmsg = CMSG_NXTHDR(msg, cmsg)) {
		size_t nr;

		if (cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS)
			continue;
		nr = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		for (size_t i = 0; i < nr; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
			if (rx->nr_fds < VFU_MAX_FDS) {
				rx->fds[rx->nr_fds++] = fd;
			} else {
				rx->too_many_fds = true;
				close(fd);
			}
		}
	}
}

/*
 * Reads up to len bytes of the message. Never asks for more than belongs to
 * it: descriptors of the next message would be taken for this one's.
 */
static ssize_t receive(struct vfu *vfu, void *buf, size_t len)
{
	union {
		char space[CMSG_SPACE(VFU_MAX_FDS * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	ssize_t nr;

	do
		nr = recvmsg(vfu->fd, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	while (nr < 0 && errno == EINTR);
	if (nr < 0)
		return -errno;
	take_fds(&vfu->rx, &msg);
	return nr;
}

static int check_header(const struct vfio_user_header *header)
{
	uint32_t type = header->flags & VFIO_USER_TYPE_MASK;

	if (header->size > VFU_MAX_MESSAGE)
		return -EMSGSIZE;
	if (header->size < sizeof(*header) ||
	    (type != VFIO_USER_REQUEST && type != VFIO_USER_REPLY))
		return -EPROTO;
	return 0;
}

/* 1: a whole message is there; 0: end of file; -EAGAIN; -errno. */
static int receive_message(struct vfu *vfu)
{
	struct vfu_rx *rx = &vfu->rx;
	size_t header_size = sizeof(rx->header);

	for (;;) {
		ssize_t nr;

		if (rx->have < header_size) {
			nr = receive(vfu, (uint8_t *)&rx->header + rx->have,
				     header_size - rx->have);
		} else {
			/* Where the next message starts, a wrong size does not tell. */
			int err = check_header(&rx->header);

			if (err)
				return err;
			if (rx->have == rx->header.size)
				return 1;
			nr = receive(vfu, rx->body + (rx->have - header_size),
				     rx->header.size - rx->have);
		}
		if (nr < 0)
			return (int)nr;
		if (!nr)
			return rx->have ? -EPROTO : 0;
		rx->have += (size_t)nr;
	}
}

static int handle_message(struct vfu *vfu)
{
	struct vfu_rx *rx = &vfu->rx;
	struct vfu_message message = {
		.header = rx->header,
		.body = rx->body,
		.len = rx->header.size - sizeof(rx->header),
		.fds = rx->fds,
		.nr_fds = rx->nr_fds,
	};
	int err = 0;

	/* No command takes that many: the handler refuses the message for it. */
	if (rx->too_many_fds)
		message.nr_fds = VFU_MAX_FDS + 1;
	log_count(vfu->config.log, VIOMMU_COUNT_MESSAGES, 1);
	if ((rx->header.flags & VFIO_USER_TYPE_MASK) == VFIO_USER_REPLY)
		vfu_call_reply(vfu, &message);
	else
		err = vfu_dispatch(vfu, &message);
	vfu_conn_clear_rx(vfu);
	return err;
}

int vfu_conn_service(struct vfu *vfu)
{
	int err = vfu_conn_flush(vfu);

	if (err)
		return err;
	/* Who does not take his replies is not asked for more work. */
	for (int i = 0; i < MESSAGES_PER_TURN && !vfu_conn_is_blocked(vfu); i++) {
		int result = receive_message(vfu);

		if (result == -EAGAIN)
			return 0;
		if (result <= 0)
			return result ? result : 1;
		result = handle_message(vfu);
		if (result)
			return result;
	}
	return 0;
}

/* --- out --- */

/* False: deadline reached. */
static bool wait_writable(int fd, uint64_t deadline_ns)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	uint64_t now = log_now_ns();

	if (now >= deadline_ns)
		return false;
	/* What poll() says does not matter: the caller tries again. */
	poll(&pfd, 1, (int)((deadline_ns - now) / 1000000 + 1));
	return true;
}

static void advance(struct msghdr *msg, size_t nr)
{
	while (msg->msg_iovlen && nr >= msg->msg_iov->iov_len) {
		nr -= msg->msg_iov->iov_len;
		msg->msg_iov++;
		msg->msg_iovlen--;
	}
	if (nr) {
		msg->msg_iov->iov_base = (uint8_t *)msg->msg_iov->iov_base + nr;
		msg->msg_iov->iov_len -= nr;
	}
}

/* What sendmsg() takes at once: 0 for nothing, -errno. */
static ssize_t try_send(struct vfu *vfu, struct msghdr *msg)
{
	ssize_t nr;

	do
		nr = sendmsg(vfu->fd, msg, MSG_NOSIGNAL | MSG_DONTWAIT);
	while (nr < 0 && errno == EINTR);
	if (nr < 0)
		return errno == EAGAIN ? 0 : -errno;
	return nr;
}

/* With tx_lock held. The reply is at most the one that the reactor has in hand. */
static void keep(struct vfu *vfu, const struct msghdr *msg)
{
	for (size_t i = 0; i < msg->msg_iovlen; i++) {
		const struct iovec *iov = &msg->msg_iov[i];

		memcpy(vfu->tx_pending + vfu->tx_pending_len, iov->iov_base, iov->iov_len);
		vfu->tx_pending_len += iov->iov_len;
	}
}

int vfu_conn_reply(struct vfu *vfu, struct vfio_user_header header, const void *payload, size_t len)
{
	struct iovec iov[] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = (void *)payload, .iov_len = len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };
	ssize_t nr = 0;

	header.size = (uint32_t)(sizeof(header) + len);
	pthread_mutex_lock(&vfu->tx_lock);
	if (!vfu->tx_busy)
		nr = try_send(vfu, &msg);
	if (nr >= 0) {
		advance(&msg, (size_t)nr);
		keep(vfu, &msg);
	}
	pthread_mutex_unlock(&vfu->tx_lock);
	return nr < 0 ? (int)nr : 0;
}

int vfu_conn_flush(struct vfu *vfu)
{
	struct iovec iov = { .iov_base = vfu->tx_pending };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
	ssize_t nr = 0;

	pthread_mutex_lock(&vfu->tx_lock);
	iov.iov_len = vfu->tx_pending_len;
	if (vfu->tx_pending_len && !vfu->tx_busy)
		nr = try_send(vfu, &msg);
	if (nr > 0) {
		vfu->tx_pending_len -= (size_t)nr;
		memmove(vfu->tx_pending, vfu->tx_pending + nr, vfu->tx_pending_len);
		if (!vfu->tx_pending_len)
			pthread_cond_broadcast(&vfu->tx_free);
	}
	pthread_mutex_unlock(&vfu->tx_lock);
	return nr < 0 ? (int)nr : 0;
}

bool vfu_conn_is_blocked(const struct vfu *vfu)
{
	/* Only the reactor, which asks, makes it longer or shorter. */
	return vfu->tx_pending_len;
}

static bool is_over(const struct vfu *vfu, uint64_t generation)
{
	return vfu->fd < 0 || vfu->generation != generation;
}

/* With tx_lock held: until the stream is between two messages. False: deadline reached. */
static bool wait_for_turn(struct vfu *vfu, uint64_t generation, uint64_t deadline_ns)
{
	const struct timespec deadline = {
		.tv_sec = (time_t)(deadline_ns / 1000000000),
		.tv_nsec = (long)(deadline_ns % 1000000000),
	};

	while (!is_over(vfu, generation) && (vfu->tx_busy || vfu->tx_pending_len)) {
		if (pthread_cond_timedwait(&vfu->tx_free, &vfu->tx_lock, &deadline))
			return false;
	}
	return true;
}

/*
 * With tx_lock held, which is let go while waiting: neither a worker nor the client may
 * keep the reactor. Behind the first byte tx_busy keeps other messages out.
 */
static int send_locked(struct vfu *vfu, uint64_t generation, struct msghdr *msg)
{
	uint64_t deadline_ns = log_now_ns() + SEND_TIMEOUT_NS;
	bool started = false;

	while (msg->msg_iovlen) {
		ssize_t nr;
		bool in_time;
		int fd;

		if (!started && !wait_for_turn(vfu, generation, deadline_ns))
			return -ETIMEDOUT;
		if (is_over(vfu, generation))
			return -ENOTCONN;
		nr = try_send(vfu, msg);
		if (nr < 0)
			return (int)nr;
		if (nr) {
			vfu->tx_busy = started = true;
			advance(msg, (size_t)nr);
			continue;
		}
		/* The fd may be closed meanwhile; then it is polled for nothing. */
		fd = vfu->fd;
		pthread_mutex_unlock(&vfu->tx_lock);
		in_time = wait_writable(fd, deadline_ns);
		pthread_mutex_lock(&vfu->tx_lock);
		if (!in_time)
			return started ? -EPIPE : -ETIMEDOUT;
	}
	return 0;
}

int vfu_conn_send(struct vfu *vfu, uint64_t generation, struct vfio_user_header header,
		  const void *payload1, size_t len1, const void *payload2, size_t len2)
{
	struct iovec iov[] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = (void *)payload1, .iov_len = len1 },
		{ .iov_base = (void *)payload2, .iov_len = len2 },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 3 };
	bool started;
	int err;

	header.size = (uint32_t)(sizeof(header) + len1 + len2);
	pthread_mutex_lock(&vfu->tx_lock);
	err = send_locked(vfu, generation, &msg);
	started = msg.msg_iov != iov || iov[0].iov_len != sizeof(header);
	if (started && !is_over(vfu, generation)) {
		vfu->tx_busy = false;
		pthread_cond_broadcast(&vfu->tx_free);
	}
	/* The reactor sees the end of file, and closes. */
	if (err && err != -ENOTCONN && err != -ETIMEDOUT && !is_over(vfu, generation))
		shutdown(vfu->fd, SHUT_RDWR);
	pthread_mutex_unlock(&vfu->tx_lock);
	return err;
}
