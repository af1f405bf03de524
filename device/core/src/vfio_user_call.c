// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vfio_user_call.c - DMA_READ and DMA_WRITE, which we send and the client answers.
 *
 * A call that is cancelled (reset, bus mastering off) frees its worker at once,
 * but the client may still do what it has been asked for: the protocol has no
 * way to take a message back.
 */
#include "vfio_user_private.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* QEMU loses the tail of larger replies when its socket is full. */
#define MAX_ACCESS 65536u
/* What an error reply may say; anything else would not be an errno. */
#define MAX_ERRNO 4095u

/* A request that waits for its answer; lives on the caller's stack. */
struct vfu_call {
	uint16_t id;
	uint16_t command;
	void *buf;
	size_t count;
	bool done;
	int result;
	pthread_cond_t answered;
	struct vfu_call *next;
};

static struct vfu_call *find_call(struct vfu *vfu, uint16_t id)
{
	for (struct vfu_call *call = vfu->calls; call; call = call->next)
		if (call->id == id)
			return call;
	return NULL;
}

static void remove_call(struct vfu *vfu, const struct vfu_call *call)
{
	struct vfu_call **link = &vfu->calls;

	while (*link && *link != call)
		link = &(*link)->next;
	if (*link)
		*link = call->next;
}

static void finish_call(struct vfu *vfu, struct vfu_call *call, int result)
{
	remove_call(vfu, call);
	call->done = true;
	call->result = result;
	pthread_cond_signal(&call->answered);
}

void vfu_call_cancel_locked(struct vfu *vfu, int err)
{
	while (vfu->calls)
		finish_call(vfu, vfu->calls, err);
}

/* What the reply says: 0, having filled the caller's buffer, or -errno. */
static int take_reply(struct vfu_call *call, const struct vfu_message *message)
{
	const struct vfio_user_header *header = &message->header;
	struct vfio_user_dma_access access;

	if (header->flags & VFIO_USER_ERROR)
		return header->error && header->error <= MAX_ERRNO ? -(int)header->error : -EIO;
	if (header->command != call->command || message->len < sizeof(access))
		return -EPROTO;
	memcpy(&access, message->body, sizeof(access));
	if (access.count != call->count)
		return -EPROTO;
	if (call->command == VFIO_USER_DMA_WRITE)
		return 0;
	if (message->len - sizeof(access) != call->count)
		return -EPROTO;
	memcpy(call->buf, message->body + sizeof(access), call->count);
	return 0;
}

void vfu_call_reply(struct vfu *vfu, const struct vfu_message *message)
{
	struct vfu_call *call;

	pthread_mutex_lock(&vfu->call_lock);
	call = find_call(vfu, message->header.id);
	/* Nobody waits for it any more, or ever did: its bytes are read and forgotten. */
	if (call)
		finish_call(vfu, call, take_reply(call, message));
	pthread_mutex_unlock(&vfu->call_lock);
}

/* With call_lock held: the connection the call belongs to, in *generation. */
static int start_call(struct vfu *vfu, struct vfu_call *call, uint64_t *generation)
{
	if (!vfu->client_max_xfer)
		return -ENOTCONN;
	/* The client would say so too, and would count it as our fault. */
	if (!vfu_bus_master(vfu))
		return -ENODEV;
	if (call->count > vfu->client_max_xfer)
		return -E2BIG;
	do
		call->id = vfu->next_id++;
	while (find_call(vfu, call->id));
	call->next = vfu->calls;
	vfu->calls = call;
	*generation = vfu->generation;
	return 0;
}

static void wait_for_answer(struct vfu *vfu, struct vfu_call *call, unsigned int timeout_ms)
{
	struct timespec deadline;

	clock_gettime(CLOCK_MONOTONIC, &deadline);
	deadline.tv_sec += timeout_ms / 1000;
	deadline.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
	if (deadline.tv_nsec >= 1000000000) {
		deadline.tv_sec++;
		deadline.tv_nsec -= 1000000000;
	}
	while (!call->done) {
		if (pthread_cond_timedwait(&call->answered, &vfu->call_lock, &deadline) &&
		    !call->done)
			finish_call(vfu, call, -ETIMEDOUT);
	}
}

static int do_call(struct vfu *vfu, struct vfu_call *call, uint64_t addr, unsigned int timeout_ms)
{
	struct vfio_user_dma_access access = { .address = addr, .count = call->count };
	struct vfio_user_header header = {
		.command = call->command,
		.flags = VFIO_USER_REQUEST,
	};
	uint64_t generation;
	int err;

	pthread_mutex_lock(&vfu->call_lock);
	err = start_call(vfu, call, &generation);
	if (!err) {
		header.id = call->id;
		/* The answer may be in before vfu_conn_send() is back. */
		pthread_mutex_unlock(&vfu->call_lock);
		err = vfu_conn_send(vfu, generation, header, &access, sizeof(access), call->buf,
				    call->command == VFIO_USER_DMA_WRITE ? call->count : 0);
		pthread_mutex_lock(&vfu->call_lock);
		if (err && !call->done)
			finish_call(vfu, call, err);
		wait_for_answer(vfu, call, timeout_ms);
		err = call->result;
	}
	pthread_mutex_unlock(&vfu->call_lock);
	return err;
}

int vfu_dma_access(struct vfu *vfu, uint64_t addr, void *buf, size_t count, bool is_write,
		   unsigned timeout_ms)
{
	struct vfu_call call = {
		.command = is_write ? VFIO_USER_DMA_WRITE : VFIO_USER_DMA_READ,
		.buf = buf,
		.count = count,
	};
	pthread_condattr_t attr;
	int err;

	if (!count || count > MAX_ACCESS)
		return -EINVAL;
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&call.answered, &attr);
	pthread_condattr_destroy(&attr);
	err = do_call(vfu, &call, addr, timeout_ms);
	pthread_cond_destroy(&call.answered);
	return err;
}
