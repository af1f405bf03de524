/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * memory.h - the address space that one vfio-user client has shown us.
 *
 * The reactor thread is the only writer, under the write lock of the context's
 * dma_lock; DMA workers read under its read lock, one slice at a time. The
 * reactor itself reads without the lock.
 */
#ifndef MEMORY_H
#define MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MEMORY_READ 1u  /* the device may read */
#define MEMORY_WRITE 2u /* the device may write */

struct memory;

int memory_create(struct memory **ret);
void memory_destroy(struct memory *memory);

/*
 * fd -1: an address range without memory of ours (ROM, BAR, anonymous RAM).
 * The fd stays the caller's; files are mapped once per inode, whole, and only if
 * they are sealed against shrinking (F_SEAL_SHRINK): -EPERM otherwise.
 * -EEXIST overlap, -EINVAL size, wrap, or beyond the end of the file, -ENOSPC too many.
 */
int memory_map(struct memory *memory, uint64_t addr, uint64_t size, unsigned prot, int fd,
	       uint64_t offset);
int memory_unmap(struct memory *memory, uint64_t addr,
		 uint64_t size); /* exactly one earlier range: else -ENOENT */
/*
 * Every range that lies inside: what QEMU asks for when it disables an IOMMU with
 * mappings left. -EINVAL if a range lies across an end, -ENOENT if there is none.
 */
int memory_unmap_within(struct memory *memory, uint64_t addr, uint64_t size);
void memory_unmap_all(struct memory *memory);

/*
 * Host address of guest address addr, with *len cut to what lies contiguous
 * behind it. NULL if the first byte is not in memory of ours with all of prot.
 */
void *memory_lookup(const struct memory *memory, uint64_t addr, size_t *len, unsigned prot);

/* Changes whenever a range goes: until then what memory_lookup() found stays right. */
uint64_t memory_generation(const struct memory *memory);

#endif /* MEMORY_H */
