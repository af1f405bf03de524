// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The ring walker: any bytes as rings and descriptors.
 *
 * Input: a header (where the rings are, which features), then guest memory from
 * its start on. Memory has a hole and a part that is read-only; nothing is ever
 * written but inside of it, which the sanitizer watches, and the read-only part
 * stays as it was, which is checked here.
 */
#include <sys/mman.h>

#include <linux/virtio_ring.h>

#include "fixture.h"
#include "fuzz.h"
#include "memory.h"
#include "virtqueue.h"

#define BASE 0x10000ull
#define PAGE 0x1000u
#define NR_PAGES 4u /* of the file; guest pages 0, 1 and 4, 5: between them is the hole */
#define READ_ONLY (3 * PAGE) /* the last page of the file */
#define ROUNDS 4

struct header {
	uint64_t desc, driver, device; /* offsets from BASE; wrap as they like */
	uint16_t next_avail, next_used;
	uint8_t size_shift, event_idx;
};

static struct memory *memory;
static uint8_t *ram;

static void setup(void)
{
	int fd;

	if (memory)
		return;
	fd = make_memfd(NR_PAGES * PAGE, true);
	ram = mmap(NULL, NR_PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	FUZZ_CHECK(ram != MAP_FAILED && !memory_create(&memory));
	FUZZ_CHECK(!memory_map(memory, BASE, 2 * PAGE, MEMORY_READ | MEMORY_WRITE, fd, 0));
	FUZZ_CHECK(!memory_map(memory, BASE + 4 * PAGE, PAGE, MEMORY_READ | MEMORY_WRITE, fd,
			       2 * PAGE));
	FUZZ_CHECK(!memory_map(memory, BASE + 5 * PAGE, PAGE, MEMORY_READ, fd, READ_ONLY));
}

static void check_chain(const struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	uint64_t readable = 0, writable = 0;

	FUZZ_CHECK(chain->head < vq->size);
	FUZZ_CHECK(chain->nr_segments <= VIRTQUEUE_MAX_SIZE);
	FUZZ_CHECK(chain->nr_readable <= chain->nr_segments);
	for (unsigned i = 0; i < chain->nr_segments; i++)
		*(i < chain->nr_readable ? &readable : &writable) += chain->segments[i].len;
	FUZZ_CHECK(readable == chain->readable && writable == chain->writable);
	FUZZ_CHECK(!chain->malformed || !chain->nr_segments);
}

static void use_chain(struct virtqueue *vq, const struct virtqueue_chain *chain)
{
	uint8_t buf[72];
	size_t len = chain->readable < sizeof(buf) ? chain->readable : sizeof(buf);
	bool writable;

	memset(buf, 0x5a, sizeof(buf));
	FUZZ_CHECK(virtqueue_read(vq, chain, buf, sizeof(buf)) < 0 ||
		   chain->readable >= sizeof(buf));
	virtqueue_read(vq, chain, buf, len);
	writable = virtqueue_check_writable(vq, chain, 0, sizeof(buf)) == 0;
	FUZZ_CHECK(writable == (virtqueue_write(vq, chain, 0, buf, sizeof(buf)) == 0));
	FUZZ_CHECK(!writable || chain->writable >= sizeof(buf));
	virtqueue_write(vq, chain, chain->writable / 2, buf, 4);
}

/* False: the queue is broken. */
static bool run_batch(struct virtqueue *vq)
{
	static struct virtqueue_chain chain;
	int nr = virtqueue_poll(vq);
	bool wanted;

	FUZZ_CHECK(nr <= vq->size);
	for (; nr > 0; nr--) {
		if (virtqueue_pop(vq, &chain) < 0)
			return false;
		check_chain(vq, &chain);
		use_chain(vq, &chain);
		if (virtqueue_push(vq, chain.head, chain.writable) < 0)
			return false;
	}
	return nr == 0 && virtqueue_publish(vq, &wanted) == 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	static uint8_t before[PAGE];
	struct header header;
	struct virtqueue vq = { .memory = NULL };

	setup();
	fuzz_take(&input, &header, sizeof(header));
	fuzz_take(&input, ram, NR_PAGES * PAGE);
	memcpy(before, ram + READ_ONLY, PAGE);
	vq.memory = memory;
	virtqueue_reset(&vq);
	vq.desc = BASE + header.desc;
	vq.driver = BASE + header.driver;
	vq.device = BASE + header.device;
	vq.size = 1u << header.size_shift % 9;
	vq.next_avail = header.next_avail;
	vq.next_used = vq.published = header.next_used;
	virtqueue_set_event_idx(&vq, header.event_idx & 1);
	for (unsigned i = 0; i < ROUNDS && virtqueue_enable(&vq) == 0 && run_batch(&vq); i++) {
		if (virtqueue_arm(&vq) < 0)
			break;
		virtqueue_disarm(&vq);
	}
	FUZZ_CHECK(!memcmp(before, ram + READ_ONLY, PAGE));
	return 0;
}

/* Rings for 16 descriptors, one after the other, then a table and buffers. */
#define SEED_DRIVER 0x100
#define SEED_DEVICE 0x200
#define SEED_TABLE 0x300
#define SEED_BUFFER 0x400

static void put_desc(uint8_t *ram_image, unsigned at, struct vring_desc desc)
{
	memcpy(ram_image + at, &desc, sizeof(desc));
}

size_t fuzz_seed(unsigned n, uint8_t *buf)
{
	struct header header = {
		.driver = SEED_DRIVER,
		.device = SEED_DEVICE,
		.size_shift = 4,
		.event_idx = n & 1,
	};
	uint8_t *image = buf + sizeof(header);
	uint16_t avail[] = { 0, 1, 0 };

	if (n >= 6)
		return 0;
	memset(buf, 0, FUZZ_MAX_SEED);
	if (n >= 4)
		header.device += n == 4 ? 2 * PAGE : 5 * PAGE; /* the hole; read-only */
	memcpy(buf, &header, sizeof(header));
	put_desc(image, 0, (struct vring_desc){ BASE + SEED_BUFFER, 72, VRING_DESC_F_NEXT, 1 });
	put_desc(image, 16,
		 (struct vring_desc){ BASE + SEED_BUFFER + 0x80, 80, VRING_DESC_F_WRITE, 0 });
	if (n & 2) {
		put_desc(image, 0,
			 (struct vring_desc){ BASE + SEED_TABLE, 32, VRING_DESC_F_INDIRECT, 0 });
		put_desc(image, SEED_TABLE,
			 (struct vring_desc){ BASE + SEED_BUFFER, 72, VRING_DESC_F_NEXT, 1 });
		put_desc(image, SEED_TABLE + 16,
			 (struct vring_desc){ BASE + 2 * PAGE - 8, 80, VRING_DESC_F_WRITE, 0 });
	}
	memcpy(image + SEED_DRIVER, avail, sizeof(avail));
	return sizeof(header) + SEED_BUFFER + 0x100;
}
