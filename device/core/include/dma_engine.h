/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * dma_engine.h - registers of the "dma engine" endpoint (PCI 1234:7e57).
 *
 * Shared by the device core, which implements it, and the guest's vfio-probe,
 * which drives it. A transaction says exactly which bytes it may touch, and its
 * slot says exactly which it did. Only if its mapping was taken away while it ran, up
 * to 16 bytes more than it says may have been moved, before the mapping went.
 *
 * BAR 0 (64-bit memory, 16 KiB): registers below. 4-byte and naturally aligned
 * 8-byte accesses; other accesses read as all ones and write nothing.
 * BAR 2 (64-bit memory, 4 MiB): the engine's local memory, any access size 1..8.
 * BAR 4 (64-bit memory, 4 KiB): MSI-X table at 0, PBA at 0x800.
 *
 * PCI Express endpoint with FLR, MSI-X, MSI (64-bit addresses, as many vectors as
 * MSI-X has, rounded down to a power of two) and INTx (pin A). With MSI enabled, an
 * MSI-X vector below stands for the MSI of the same number, modulo those that the
 * driver enabled; and a DMA write of a vector's data to its address in the IOMMU's MSI
 * window raises that vector. DMA and interrupts need bus mastering. FLR, DEVICE_RESET and CONTROL.RESET abort what is in flight and
 * zero the registers; the local memory is zeroed too.
 */
#ifndef DMA_ENGINE_H
#define DMA_ENGINE_H

#define DMA_ENGINE_VENDOR_ID 0x1234
#define DMA_ENGINE_DEVICE_ID 0x7e57
#define DMA_ENGINE_CLASS 0x088000 /* system peripheral, other */

#define DMA_ENGINE_BAR_REGS 0
#define DMA_ENGINE_BAR_LOCAL 2
#define DMA_ENGINE_BAR_MSIX 4
#define DMA_ENGINE_REGS_SIZE 0x4000
#define DMA_ENGINE_LOCAL_SIZE 0x400000
#define DMA_ENGINE_MSIX_SIZE 0x1000

/* Global registers, 32 bits each unless noted. */
#define DMA_ENGINE_MAGIC 0x000 /* RO: DMA_ENGINE_MAGIC_VALUE */
#define DMA_ENGINE_VERSION 0x004 /* RO: 1 */
#define DMA_ENGINE_NR_SLOTS 0x008 /* RO */
#define DMA_ENGINE_NR_VECTORS 0x00c /* RO: MSI-X vectors */
#define DMA_ENGINE_CONTROL 0x010 /* WO: bit 0 reset */
#define DMA_ENGINE_IN_FLIGHT 0x014 /* RO: slots in status BUSY */
#define DMA_ENGINE_INTX_STATUS 0x018 /* RW1C: bit 0: INTx is asserted */
#define DMA_ENGINE_SCRATCH 0x01c /* RW: keeps what is written; 0 after a reset */
#define DMA_ENGINE_IRQ_TRIGGER 0x020 /* WO: raises MSI-X vector n, or INTx for 0xffffffff */
#define DMA_ENGINE_COMPLETED 0x028 /* RO, 64 bits: transactions ended since the last reset */

#define DMA_ENGINE_MAGIC_VALUE 0x414d4456u /* "VDMA" */
#define DMA_ENGINE_CONTROL_RESET 1u
#define DMA_ENGINE_TRIGGER_INTX 0xffffffffu

/*
 * Slots: one transaction each. Fill the fields, then write COMMAND last, which
 * starts it. A write to any field of a BUSY slot is ignored.
 */
#define DMA_ENGINE_SLOTS 0x1000
#define DMA_ENGINE_SLOT_SIZE 0x40
#define DMA_ENGINE_NR_SLOTS_VALUE 128

#define DMA_SLOT_COMMAND 0x00 /* 32: bits 0-7 opcode, bits 8-9 interrupt, bits 16-31 MSI-X vector */
#define DMA_SLOT_STATUS 0x04 /* 32, RO: enum below */
#define DMA_SLOT_IOVA 0x08 /* 64: the address in memory; for COPY the source */
#define DMA_SLOT_OPERAND \
	0x10 /* 64: READ, WRITE: offset in local memory; COPY: destination IOVA; FILL: pattern */
#define DMA_SLOT_LENGTH 0x18 /* 64: bytes, 1 .. 1 GiB (READ, WRITE: within the local memory) */
#define DMA_SLOT_RESULT 0x20 /* 64, RO: CHECKSUM: CRC-32 (IEEE 802.3, as zlib's); 0 otherwise */
#define DMA_SLOT_FAULT_ADDR 0x28 /* 64, RO: first address that was refused */
#define DMA_SLOT_FAULT_INFO \
	0x30 /* 32, RO: bits 0-7 enum dma_engine_fault, bit 8 set: the refused access was a write */
#define DMA_SLOT_DONE \
	0x38 /* 64, RO: bytes moved before the end or the fault; exactly those bytes were touched */

#define DMA_COMMAND_IRQ_NONE 0u
#define DMA_COMMAND_IRQ_MSIX (1u << 8)
#define DMA_COMMAND_IRQ_INTX (2u << 8)
#define DMA_COMMAND_IRQ_MASK (3u << 8)

enum dma_engine_opcode {
	DMA_OP_READ = 1, /* memory at IOVA -> local memory */
	DMA_OP_WRITE = 2, /* local memory -> memory at IOVA */
	DMA_OP_COPY = 3, /* memory at IOVA -> memory at OPERAND; the ranges must not overlap */
	DMA_OP_FILL = 4, /* 8-byte little-endian pattern, repeated from its first byte */
	DMA_OP_CHECKSUM = 5, /* CRC-32 over memory at IOVA */
};

enum dma_engine_status {
	DMA_STATUS_IDLE = 0,
	DMA_STATUS_BUSY = 1,
	DMA_STATUS_OK = 2,
	DMA_STATUS_FAULT = 3, /* see FAULT_INFO, FAULT_ADDR, DONE */
	DMA_STATUS_INVALID = 4, /* opcode, length or local offset out of range, vector unknown */
	DMA_STATUS_NO_BUS_MASTER = 5, /* bus mastering is off, or went off on the way */
	DMA_STATUS_ABORTED = 6, /* reset on the way */
};

enum dma_engine_fault {
	DMA_FAULT_NONE = 0,
	DMA_FAULT_DOMAIN = 1, /* the endpoint is attached to no domain and may not bypass */
	DMA_FAULT_MAPPING = 2, /* no mapping */
	DMA_FAULT_PERMISSION = 3, /* a mapping without the needed permission */
	DMA_FAULT_RESERVED = 4, /* a reserved region, or a read in the MSI window */
	DMA_FAULT_BUS = 5, /* translated, but there is no memory (the client refused the access) */
};

#endif /* DMA_ENGINE_H */
