/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * mmio.h - single accesses to a mapped BAR.
 *
 * vfio-pci answers an access with SIGBUS while the function's memory decoding is
 * off; here that is -EIO, so that a check about it gets a reply.
 */
#ifndef PROBE_MMIO_H
#define PROBE_MMIO_H

#include <stdbool.h>
#include <stdint.h>

/* Install the SIGBUS handler. */
void mmio_init(void);

/*
 * Read or write @size (1, 2, 4, 8) bytes at a naturally aligned address with one
 * instruction. Return 0 or -EIO.
 */
int mmio_access(volatile void *address, unsigned int size, bool write, uint64_t *value);

/* Order accesses to DMA memory against accesses to the device. */
static inline void dma_barrier(void)
{
#if defined(__aarch64__)
	/* The device is outside the inner shareable domain that a fence covers. */
	__asm__ volatile("dsb sy" : : : "memory");
#else
	__sync_synchronize();
#endif
}

#endif /* PROBE_MMIO_H */
