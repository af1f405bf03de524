/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * fake_engine.h - a dma engine that runs each transaction at the write of COMMAND.
 *
 * FAKE_MAGIC=1 gives it a wrong magic, FAKE_SILENT=1 makes it raise no interrupt,
 * FAKE_STUCK=1 leaves every slot busy, FAKE_LATE=1 runs a transaction when its status
 * is looked at. FAKE_LOSE=N loses the Nth interrupt. Of mappings, FAKE_LAX=1 accepts
 * what is no whole page or overlaps, and FAKE_LEAK=1 forgets none.
 */
#ifndef PROBE_FAKE_ENGINE_H
#define PROBE_FAKE_ENGINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dma_engine.h"

#define NR_MAPS 16
#define NR_VECTORS 8

struct mapping {
	uint64_t iova;
	uint64_t size; /* 0: unused */
	uint8_t *memory;
	uint32_t flags;
	uint32_t ioas;
};

struct fake {
	struct mapping maps[NR_MAPS];
	bool attached; /* the device uses the mappings of attached_ioas */
	uint32_t attached_ioas;
	uint8_t config[256];
	uint8_t registers[DMA_ENGINE_REGS_SIZE];
	uint8_t local[DMA_ENGINE_LOCAL_SIZE];
	int eventfds[2][NR_VECTORS]; /* MSI-X, INTx; 0: none */
	bool intx_masked;
};

extern struct fake fake;

void fake_reset(void);

uint64_t fake_reg(uint64_t offset, size_t size);
void fake_set_reg(uint64_t offset, uint64_t value, size_t size);

/* @kind 1: MSI-X; 2: INTx, which is masked as it fires, as vfio-pci does. */
void fake_raise(unsigned int kind, unsigned int vector);

/* A COMMAND was written: run the transaction, now or when its status is read. */
void fake_start_slot(uint64_t slot, uint32_t command);
/* A register is about to be read. */
void fake_run_late(uint64_t offset);

/* Run the transaction of the slot whose registers begin at @slot. */
void fake_run_slot(uint64_t slot, uint32_t command);

#endif /* PROBE_FAKE_ENGINE_H */
