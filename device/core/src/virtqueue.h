/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtqueue.h - the device's side of a split virtqueue in guest memory.
 *
 * The guest may change any byte at any time: indices and descriptors are read
 * once, checked, and then used. Ring addresses are looked up at every access, so
 * a change of the memory map needs no invalidation.
 *
 * Reactor thread only.
 */
#ifndef VIRTQUEUE_H
#define VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VIRTQUEUE_MAX_SIZE 256

struct memory;

struct virtqueue {
	const struct memory *memory;
	uint16_t size;
	bool enabled;
	bool event_idx; /* VIRTIO_RING_F_EVENT_IDX was negotiated */
	uint16_t vector;
	uint64_t desc;   /* descriptor area */
	uint64_t driver; /* available ring */
	uint64_t device; /* used ring */
	/* Free running, as the indices in the rings. */
	uint16_t next_avail;
	uint16_t next_used;
	uint16_t published;
};

struct virtqueue_segment {
	uint64_t addr;
	uint32_t len;
};

/* A descriptor chain, copied out of the rings. */
struct virtqueue_chain {
	uint16_t head;
	bool malformed; /* the lengths and segments below are then empty */
	unsigned nr_readable;
	unsigned nr_segments; /* the readable ones come first */
	uint64_t readable;    /* bytes */
	uint64_t writable;
	struct virtqueue_segment segments[VIRTQUEUE_MAX_SIZE];
};

/* Back to what a device reset leaves: disabled, largest size. */
void virtqueue_reset(struct virtqueue *vq);
/* -EINVAL if the rings are not aligned as the specification asks, or wrap around. */
int virtqueue_enable(struct virtqueue *vq);

/* What of the ring is decided by negotiated features, before the queue is used. */
void virtqueue_set_event_idx(struct virtqueue *vq, bool on);

/*
 * The number of chains available. -EFAULT if the ring is not in memory,
 * -EINVAL if its index is impossible.
 */
int virtqueue_poll(struct virtqueue *vq);
/*
 * Asks the driver to notify of the next chain. What virtqueue_poll() says
 * afterwards is returned: such chains may come without a notification.
 */
int virtqueue_arm(struct virtqueue *vq);
/* Asks for no notifications for now: virtqueue_poll() will be called often. A hint. */
void virtqueue_disarm(struct virtqueue *vq);
/*
 * Takes the next of the chains that virtqueue_poll() announced. A broken chain
 * is a success with malformed set: it is returned to the driver like any other.
 * -errno if not even its head can be known.
 */
int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain);
/* Leaves the chain that was popped last where it was: it will be popped again. */
void virtqueue_unpop(struct virtqueue *vq);
/* Hands a chain back, with len bytes written; seen by the driver only after the publish. */
int virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len);
/* Shows the driver all that was pushed. *ret: whether it wants an interrupt. */
int virtqueue_publish(struct virtqueue *vq, bool *ret);

/* Copies the first len readable bytes; -EFAULT if there are fewer or they are not in memory. */
int virtqueue_read(const struct virtqueue *vq, const struct virtqueue_chain *chain, void *buf,
		   size_t len);
/* Writes at byte offset of the writable part, -EFAULT likewise. */
int virtqueue_write(const struct virtqueue *vq, const struct virtqueue_chain *chain,
		    uint64_t offset, const void *buf, size_t len);
/* 0 if virtqueue_write() to the same bytes would succeed. */
int virtqueue_check_writable(const struct virtqueue *vq, const struct virtqueue_chain *chain,
			     uint64_t offset, size_t len);

#endif /* VIRTQUEUE_H */
