// SPDX-License-Identifier: GPL-2.0-or-later
#include "virtqueue.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "memory.h"

#define NO_VECTOR 0xffff

/* What to do with each piece of guest memory that a range consists of. */
enum piece_op { PIECE_READ, PIECE_WRITE, PIECE_CHECK_WRITABLE };

/* A range of guest memory may lie in several host ranges. */
static int access_memory(const struct memory *memory, uint64_t addr, void *buf, size_t len,
			 enum piece_op op)
{
	unsigned prot = op == PIECE_READ ? MEMORY_READ : MEMORY_WRITE;
	uint8_t *bytes = buf;

	while (len) {
		size_t run = len;
		void *host = memory_lookup(memory, addr, &run, prot);

		if (!host)
			return -EFAULT;
		if (op == PIECE_READ)
			memcpy(bytes, host, run);
		else if (op == PIECE_WRITE)
			memcpy(host, bytes, run);
		if (bytes)
			bytes += run;
		addr += run;
		len -= run;
	}
	return 0;
}

/*
 * An index or flags field, accessed as one unit while the driver does the same.
 * A hostile client may have mapped its memory at an odd offset: then no ring can
 * work in it.
 */
static uint16_t *ring_field(const struct virtqueue *vq, uint64_t addr, unsigned prot)
{
	size_t len = sizeof(uint16_t);
	void *host = memory_lookup(vq->memory, addr, &len, prot);

	if (!host || len != sizeof(uint16_t) || (uintptr_t)host % sizeof(uint16_t))
		return NULL;
	return host;
}

void virtqueue_reset(struct virtqueue *vq)
{
	const struct memory *memory = vq->memory;

	memset(vq, 0, sizeof(*vq));
	vq->memory = memory;
	vq->size = VIRTQUEUE_MAX_SIZE;
	vq->vector = NO_VECTOR;
}

/* Behind the available ring: the used index at which the driver wants an interrupt. */
static uint64_t used_event_addr(const struct virtqueue *vq)
{
	return vq->driver + offsetof(struct vring_avail, ring) + vq->size * sizeof(uint16_t);
}

/* Behind the used ring: the available index at which we want a notification. */
static uint64_t avail_event_addr(const struct virtqueue *vq)
{
	return vq->device + offsetof(struct vring_used, ring) +
	       vq->size * sizeof(struct vring_used_elem);
}

/* By their last bytes, which lie below the first then. */
static bool wraps(const struct virtqueue *vq)
{
	return vq->desc + vq->size * sizeof(struct vring_desc) - 1 < vq->desc ||
	       used_event_addr(vq) + 1 < vq->driver || avail_event_addr(vq) + 1 < vq->device;
}

int virtqueue_enable(struct virtqueue *vq)
{
	if (wraps(vq))
		return -EINVAL;
	if (vq->desc % VRING_DESC_ALIGN_SIZE || vq->driver % VRING_AVAIL_ALIGN_SIZE ||
	    vq->device % VRING_USED_ALIGN_SIZE)
		return -EINVAL;
	vq->enabled = true;
	return 0;
}

void virtqueue_set_event_idx(struct virtqueue *vq, bool on)
{
	vq->event_idx = on;
}

static uint16_t *used_flags(const struct virtqueue *vq)
{
	return ring_field(vq, vq->device + offsetof(struct vring_used, flags), MEMORY_WRITE);
}

int virtqueue_arm(struct virtqueue *vq)
{
	uint16_t *field = vq->event_idx ? ring_field(vq, avail_event_addr(vq), MEMORY_WRITE) :
					  used_flags(vq);

	if (!field)
		return -EFAULT;
	/*
	 * Visible before the available index is read: the driver stores and loads
	 * the two the other way round. An exchange, as in virtqueue_publish().
	 */
	__atomic_exchange_n(field, vq->event_idx ? htole16(vq->next_avail) : 0, __ATOMIC_SEQ_CST);
	return virtqueue_poll(vq);
}

void virtqueue_disarm(struct virtqueue *vq)
{
	uint16_t *flags;

	/* With the index, it is enough to leave it behind. */
	if (vq->event_idx)
		return;
	flags = used_flags(vq);
	if (flags)
		__atomic_store_n(flags, htole16(VRING_USED_F_NO_NOTIFY), __ATOMIC_RELAXED);
}

int virtqueue_poll(struct virtqueue *vq)
{
	uint64_t addr = vq->driver + offsetof(struct vring_avail, idx);
	uint16_t *idx = ring_field(vq, addr, MEMORY_READ);
	uint16_t nr;

	if (!idx)
		return -EFAULT;
	/*
	 * The ring entries and descriptors were written before the index; after
	 * virtqueue_arm() it must also be read after what that has written.
	 */
	nr = le16toh(__atomic_load_n(idx, __ATOMIC_SEQ_CST)) - vq->next_avail;
	return nr <= vq->size ? nr : -EINVAL;
}

static int add_segment(struct virtqueue_chain *chain, const struct vring_desc *desc)
{
	bool is_write = desc->flags & VRING_DESC_F_WRITE;

	if (chain->nr_segments == VIRTQUEUE_MAX_SIZE)
		return -EINVAL;
	/* "device-writable descriptor elements [come] after any device-readable" ones. */
	if (!is_write && chain->nr_segments > chain->nr_readable)
		return -EINVAL;
	if (desc->len && desc->addr + desc->len - 1 < desc->addr)
		return -EINVAL;
	chain->segments[chain->nr_segments++] = (struct virtqueue_segment){ desc->addr, desc->len };
	if (is_write) {
		chain->writable += desc->len;
	} else {
		chain->nr_readable++;
		chain->readable += desc->len;
	}
	return 0;
}

/* host: the whole table, or NULL where it lies in several pieces. */
static int read_desc(const struct virtqueue *vq, uint64_t table, const uint8_t *host, unsigned i,
		     struct vring_desc *desc)
{
	int r = 0;

	if (host)
		memcpy(desc, host + i * sizeof(*desc), sizeof(*desc));
	else
		r = access_memory(vq->memory, table + i * sizeof(*desc), desc, sizeof(*desc),
				  PIECE_READ);
	if (r < 0)
		return r;
	desc->addr = le64toh(desc->addr);
	desc->len = le32toh(desc->len);
	desc->flags = le16toh(desc->flags);
	desc->next = le16toh(desc->next);
	return 0;
}

/*
 * Follows a chain through a table of nr descriptors. A chain that visits more
 * descriptors than the table has is a loop. The one indirect descriptor it may
 * end with is left in *indirect, with length 0 if there is none.
 */
static int walk_table(const struct virtqueue *vq, uint64_t table, unsigned nr, unsigned first,
		      struct virtqueue_chain *chain, struct vring_desc *indirect)
{
	struct vring_desc desc = { .next = first, .flags = VRING_DESC_F_NEXT };
	size_t size = nr * sizeof(desc);
	const uint8_t *host = memory_lookup(vq->memory, table, &size, MEMORY_READ);

	if (size != nr * sizeof(desc))
		host = NULL;
	indirect->len = 0;
	for (unsigned visited = 0; desc.flags & VRING_DESC_F_NEXT; visited++) {
		int r;

		if (visited == nr || desc.next >= nr)
			return -EINVAL;
		r = read_desc(vq, table, host, desc.next, &desc);
		if (r < 0)
			return r;
		if (desc.flags & VRING_DESC_F_INDIRECT) {
			*indirect = desc;
			return desc.flags & VRING_DESC_F_NEXT || !desc.len ? -EINVAL : 0;
		}
		r = add_segment(chain, &desc);
		if (r < 0)
			return r;
	}
	return 0;
}

static int walk_chain(const struct virtqueue *vq, struct virtqueue_chain *chain)
{
	struct vring_desc indirect, nested;
	unsigned nr;
	int r;

	r = walk_table(vq, vq->desc, vq->size, chain->head, chain, &indirect);
	if (r < 0 || !indirect.len)
		return r;
	nr = indirect.len / sizeof(struct vring_desc);
	if (indirect.len % sizeof(struct vring_desc) || nr > VIRTQUEUE_MAX_SIZE)
		return -EINVAL;
	r = walk_table(vq, indirect.addr, nr, 0, chain, &nested);
	return r < 0 || !nested.len ? r : -EINVAL;
}

int virtqueue_pop(struct virtqueue *vq, struct virtqueue_chain *chain)
{
	uint64_t addr = vq->driver + offsetof(struct vring_avail, ring);
	uint16_t head;
	int r;

	addr += (vq->next_avail & (vq->size - 1)) * sizeof(head);
	r = access_memory(vq->memory, addr, &head, sizeof(head), PIECE_READ);
	if (r < 0)
		return r;
	head = le16toh(head);
	if (head >= vq->size)
		return -EINVAL;
	vq->next_avail++;

	chain->head = head;
	chain->malformed = false;
	chain->nr_readable = 0;
	chain->nr_segments = 0;
	chain->readable = 0;
	chain->writable = 0;
	if (walk_chain(vq, chain) < 0) {
		chain->malformed = true;
		chain->nr_readable = 0;
		chain->nr_segments = 0;
		chain->readable = 0;
		chain->writable = 0;
	}
	return 0;
}

void virtqueue_unpop(struct virtqueue *vq)
{
	vq->next_avail--;
}

int virtqueue_push(struct virtqueue *vq, uint16_t head, uint32_t len)
{
	struct vring_used_elem elem = { htole32(head), htole32(len) };
	uint64_t addr = vq->device + offsetof(struct vring_used, ring);
	int r;

	addr += (vq->next_used & (vq->size - 1)) * sizeof(elem);
	r = access_memory(vq->memory, addr, &elem, sizeof(elem), PIECE_WRITE);
	if (r < 0)
		return r;
	vq->next_used++;
	return 0;
}

/* "The device MUST ignore the lower bit of flags" with VIRTIO_F_EVENT_IDX, and the index without. */
static bool wants_interrupt(const struct virtqueue *vq, uint16_t wish, uint16_t old)
{
	if (vq->event_idx)
		return vring_need_event(wish, vq->published, old);
	return !(wish & VRING_AVAIL_F_NO_INTERRUPT);
}

int virtqueue_publish(struct virtqueue *vq, bool *ret)
{
	uint16_t old = vq->published, *idx, *wish;

	if (vq->published == vq->next_used) {
		*ret = false;
		return 0;
	}
	idx = ring_field(vq, vq->device + offsetof(struct vring_used, idx), MEMORY_WRITE);
	wish = ring_field(vq,
			  vq->event_idx ? used_event_addr(vq) :
					  vq->driver + offsetof(struct vring_avail, flags),
			  MEMORY_READ);
	if (!idx || !wish)
		return -EFAULT;
	/*
	 * The wish must be read after the index is visible, or a driver that
	 * enables interrupts and looks at the index in between sees neither.
	 * An exchange, not a fence: thread sanitizers do not know fences.
	 */
	__atomic_exchange_n(idx, htole16(vq->next_used), __ATOMIC_SEQ_CST);
	vq->published = vq->next_used;
	*ret = wants_interrupt(vq, le16toh(__atomic_load_n(wish, __ATOMIC_SEQ_CST)), old);
	return 0;
}

/* Applies op to len bytes at offset of the segments [first, last). */
static int access_segments(const struct virtqueue *vq, const struct virtqueue_segment *segment,
			   const struct virtqueue_segment *last, uint64_t offset, void *buf,
			   size_t len, enum piece_op op)
{
	uint8_t *bytes = buf;

	/* Nearly always. */
	if (segment < last && offset <= segment->len && len <= segment->len - offset)
		return access_memory(vq->memory, segment->addr + offset, buf, len, op);
	for (; len && segment < last; segment++) {
		size_t run;
		int r;

		if (offset >= segment->len) {
			offset -= segment->len;
			continue;
		}
		run = segment->len - offset;
		if (run > len)
			run = len;
		r = access_memory(vq->memory, segment->addr + offset, bytes, run, op);
		if (r < 0)
			return r;
		if (bytes)
			bytes += run;
		len -= run;
		offset = 0;
	}
	return len ? -EFAULT : 0;
}

int virtqueue_read(const struct virtqueue *vq, const struct virtqueue_chain *chain, void *buf,
		   size_t len)
{
	return access_segments(vq, chain->segments, chain->segments + chain->nr_readable, 0, buf,
			       len, PIECE_READ);
}

int virtqueue_write(const struct virtqueue *vq, const struct virtqueue_chain *chain,
		    uint64_t offset, const void *buf, size_t len)
{
	/* PIECE_WRITE only reads from buf. */
	return access_segments(vq, chain->segments + chain->nr_readable,
			       chain->segments + chain->nr_segments, offset, (void *)buf, len,
			       PIECE_WRITE);
}

int virtqueue_check_writable(const struct virtqueue *vq, const struct virtqueue_chain *chain,
			     uint64_t offset, size_t len)
{
	return access_segments(vq, chain->segments + chain->nr_readable,
			       chain->segments + chain->nr_segments, offset, NULL, len,
			       PIECE_CHECK_WRITABLE);
}
