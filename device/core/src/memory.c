// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * memory.c - a treap of address ranges over whole-file mappings.
 *
 * With an IOMMU in QEMU a client sends one small DMA_MAP per guest mapping, in
 * any order, 65535 of them at most: hence a balanced tree, and no mmap() per
 * range. A treap has the least code of all balanced trees; its random
 * priorities also keep a client from choosing the tree's shape.
 */
#include "memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>

#define MEMORY_MAX_RANGES 65535u /* max_dma_maps of our VERSION reply */
#define MEMORY_MAX_FILES 1024u   /* they are searched one by one */

/* A file mapped whole. Lives while a range lies in it. */
struct file {
	dev_t dev;
	ino_t ino;
	uint8_t *base;
	uint64_t size;
	bool writable;
	unsigned int nr_ranges;
	struct file *next;
};

struct range {
	uint64_t start, last;
	struct file *file; /* NULL: no memory of ours */
	uint64_t offset;
	unsigned int prot;
	uint32_t priority; /* of the heap: no child's is higher */
	struct range *left, *right;
};

struct memory {
	struct range *root;
	struct file *files;
	unsigned int nr_ranges, nr_files;
	uint64_t random;
	uint64_t generation;
};

int memory_create(struct memory **ret)
{
	struct memory *memory = calloc(1, sizeof(*memory));

	if (!memory)
		return -ENOMEM;
	if (getrandom(&memory->random, sizeof(memory->random), 0) != sizeof(memory->random)) {
		free(memory);
		return -EIO;
	}
	memory->random |= 1; /* zero would stay zero */
	*ret = memory;
	return 0;
}

void memory_destroy(struct memory *memory)
{
	if (!memory)
		return;
	memory_unmap_all(memory);
	free(memory);
}

static uint32_t next_random(struct memory *memory)
{
	memory->random ^= memory->random << 13;
	memory->random ^= memory->random >> 7;
	memory->random ^= memory->random << 17;
	return (uint32_t)(memory->random >> 32);
}

/* --- files --- */

/* 0, or why the file must not be mapped. */
static int check_file(int fd, uint64_t offset, uint64_t size, struct stat *ret)
{
	int seals;

	if (fstat(fd, ret) < 0)
		return -errno;
	if (!S_ISREG(ret->st_mode))
		return -EINVAL;
	/* A client that shrinks its file would end us by SIGBUS. */
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || !(seals & F_SEAL_SHRINK))
		return -EPERM;
	if (ret->st_size < 0 || offset > (uint64_t)ret->st_size ||
	    size > (uint64_t)ret->st_size - offset)
		return -EINVAL;
	return 0;
}

/* A file may have grown since it was mapped: then it is not the one. */
static struct file *find_file(struct memory *memory, const struct stat *st, uint64_t end,
			      unsigned int prot)
{
	for (struct file *file = memory->files; file; file = file->next)
		if (file->dev == st->st_dev && file->ino == st->st_ino && end <= file->size &&
		    (file->writable || !(prot & MEMORY_WRITE)))
			return file;
	return NULL;
}

static int map_file(struct memory *memory, const struct stat *st, int fd, unsigned int prot,
		    struct file **ret)
{
	struct file *file;
	bool writable = true;
	void *base;

	if (memory->nr_files == MEMORY_MAX_FILES)
		return -ENOSPC;
	/* Writable whatever prot says: other ranges of the file may need it. */
	base = mmap(NULL, (size_t)st->st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED && !(prot & MEMORY_WRITE)) {
		writable = false;
		base = mmap(NULL, (size_t)st->st_size, PROT_READ, MAP_SHARED, fd, 0);
	}
	if (base == MAP_FAILED)
		return -errno;
	file = calloc(1, sizeof(*file));
	if (!file) {
		munmap(base, (size_t)st->st_size);
		return -ENOMEM;
	}
	file->dev = st->st_dev;
	file->ino = st->st_ino;
	file->base = base;
	file->size = (uint64_t)st->st_size;
	file->writable = writable;
	file->next = memory->files;
	memory->files = file;
	memory->nr_files++;
	*ret = file;
	return 0;
}

static int get_file(struct memory *memory, struct range *range, int fd)
{
	uint64_t size = range->last - range->start + 1;
	struct stat st;
	int err;

	if (!size) /* all 2^64 bytes */
		return -EINVAL;
	err = check_file(fd, range->offset, size, &st);
	if (err)
		return err;
	range->file = find_file(memory, &st, range->offset + size, range->prot);
	if (!range->file)
		err = map_file(memory, &st, fd, range->prot, &range->file);
	if (!err)
		range->file->nr_ranges++;
	return err;
}

static void put_file(struct memory *memory, struct file *file)
{
	struct file **link = &memory->files;

	if (!file || --file->nr_ranges)
		return;
	while (*link != file)
		link = &(*link)->next;
	*link = file->next;
	memory->nr_files--;
	munmap(file->base, (size_t)file->size);
	free(file);
}

/* --- tree --- */

/* The range with the lowest start whose last byte is not below addr. */
static struct range *find_range(const struct memory *memory, uint64_t addr)
{
	struct range *range = memory->root, *found = NULL;

	while (range) {
		if (range->last >= addr) {
			found = range;
			range = range->left;
		} else {
			range = range->right;
		}
	}
	return found;
}

/* Everything below start goes to *left, the rest to *right. */
static void split(struct range *root, uint64_t start, struct range **left, struct range **right)
{
	while (root) {
		if (root->start < start) {
			*left = root;
			left = &root->right;
			root = root->right;
		} else {
			*right = root;
			right = &root->left;
			root = root->left;
		}
	}
	*left = *right = NULL;
}

static void insert(struct memory *memory, struct range *range)
{
	struct range **link = &memory->root;

	while (*link && (*link)->priority >= range->priority)
		link = range->start < (*link)->start ? &(*link)->left : &(*link)->right;
	split(*link, range->start, &range->left, &range->right);
	*link = range;
	memory->nr_ranges++;
}

/* Takes range out and joins its two subtrees in its place. */
static void erase(struct memory *memory, struct range *range)
{
	struct range **link = &memory->root, *left = range->left, *right = range->right;

	while (*link != range)
		link = range->start < (*link)->start ? &(*link)->left : &(*link)->right;
	while (left && right) {
		if (left->priority >= right->priority) {
			*link = left;
			link = &left->right;
			left = left->right;
		} else {
			*link = right;
			link = &right->left;
			right = right->left;
		}
	}
	*link = left ? left : right;
	memory->nr_ranges--;
}

static void drop(struct memory *memory, struct range *range)
{
	erase(memory, range);
	memory->generation++;
	put_file(memory, range->file);
	free(range);
}

/* --- the interface --- */

int memory_map(struct memory *memory, uint64_t addr, uint64_t size, unsigned prot, int fd,
	       uint64_t offset)
{
	struct range *range, *next;
	int err = 0;

	if (!size || addr + (size - 1) < addr || prot & ~(MEMORY_READ | MEMORY_WRITE))
		return -EINVAL;
	next = find_range(memory, addr);
	if (next && next->start <= addr + (size - 1))
		return -EEXIST;
	if (memory->nr_ranges == MEMORY_MAX_RANGES)
		return -ENOSPC;
	range = calloc(1, sizeof(*range));
	if (!range)
		return -ENOMEM;
	range->start = addr;
	range->last = addr + (size - 1);
	range->offset = offset;
	range->prot = prot;
	range->priority = next_random(memory);
	if (fd >= 0)
		err = get_file(memory, range, fd);
	if (err) {
		free(range);
		return err;
	}
	insert(memory, range);
	return 0;
}

int memory_unmap(struct memory *memory, uint64_t addr, uint64_t size)
{
	struct range *range = find_range(memory, addr);

	if (!size || !range || range->start != addr || range->last != addr + (size - 1))
		return -ENOENT;
	drop(memory, range);
	return 0;
}

int memory_unmap_within(struct memory *memory, uint64_t addr, uint64_t size)
{
	struct range *range = find_range(memory, addr);
	uint64_t last = addr + (size - 1);
	struct range *tail;

	if (!size || last < addr)
		return -EINVAL;
	if (!range || range->start > last)
		return -ENOENT;
	tail = find_range(memory, last);
	if (range->start < addr || (tail && tail->start <= last && tail->last > last))
		return -EINVAL;
	while (range && range->start <= last) {
		drop(memory, range);
		range = find_range(memory, addr);
	}
	return 0;
}

void memory_unmap_all(struct memory *memory)
{
	while (memory->root)
		drop(memory, memory->root);
}

void *memory_lookup(const struct memory *memory, uint64_t addr, size_t *len, unsigned prot)
{
	const struct range *range = find_range(memory, addr);
	uint64_t rest;

	if (!range || range->start > addr || !range->file || (range->prot & prot) != prot)
		return NULL;
	rest = range->last - addr; /* bytes behind the first one */
	if (*len > rest)
		*len = (size_t)rest + 1;
	return range->file->base + range->offset + (addr - range->start);
}

uint64_t memory_generation(const struct memory *memory)
{
	return memory->generation;
}
