/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ioat_regs.h - registers of the "ioat" endpoint (PCI 8086:2021).
 *
 * The part of Intel's QuickData Technology (Xeon E5 data sheet, volume 2, and
 * Linux: drivers/dma/ioat/registers.h, hw.h) that moves memory: descriptor
 * chains, completion write-back, interrupts. Offered is what is implemented: copy
 * and null descriptors; no XOR, PQ, CRC, fill or direct cache access.
 *
 * BAR 0 (64-bit memory, 16 KiB): global registers, 0x80 bytes for each channel from
 * 0x80 on, MSI-X table at 0x2000, PBA at 0x3000. Any access size up to 8; a write
 * takes effect in the registers that it covers whole.
 */
#ifndef IOAT_REGS_H
#define IOAT_REGS_H

#define IOAT_VENDOR_ID 0x8086
#define IOAT_DEVICE_ID 0x2021 /* Skylake-X */
#define IOAT_CLASS 0x088000 /* system peripheral, other */

#define IOAT_BAR 0
#define IOAT_BAR_SIZE 0x4000
#define IOAT_MSIX_TABLE 0x2000
#define IOAT_MSIX_PBA 0x3000
#define IOAT_MAX_CHANNELS 4

/* Global registers. */
#define IOAT_CHANCNT 0x00 /* 8, RO */
#define IOAT_XFERCAP 0x01 /* 8, RO: log2 of the most bytes of a descriptor */
#define IOAT_GENCTRL 0x02 /* 8 */
#define IOAT_INTRCTRL 0x03 /* 8 */
#define IOAT_ATTNSTATUS 0x04 /* 32, RO: channels with an interrupt to see; reading clears it */
#define IOAT_CBVER 0x08 /* 8, RO */
#define IOAT_INTRDELAY 0x0c /* 16: 0, no coalescing */
#define IOAT_CS_STATUS 0x0e /* 16, RO */
#define IOAT_DMACAPABILITY 0x10 /* 32, RO */

#define IOAT_CBVER_VALUE 0x33
/* A descriptor is one slice of DMA. */
#define IOAT_XFERCAP_VALUE 16

#define IOAT_INTRCTRL_MASTER_ENABLE 0x01u
#define IOAT_INTRCTRL_STATUS 0x02u /* RO: ATTNSTATUS is not 0 */
#define IOAT_INTRCTRL_INTERRUPT 0x04u /* RO: both */
/* Each channel has its MSI-X vector, and MASTER_ENABLE no part in it. Without: INTx. */
#define IOAT_INTRCTRL_MSIX 0x08u

/* Registers of channel n, from IOAT_CHANNEL(n) on. */
#define IOAT_CHANNEL(n) (0x80 * ((n) + 1))
#define IOAT_CHANNEL_SIZE 0x80
#define IOAT_CHANCTRL 0x00 /* 16 */
#define IOAT_DMA_COMP 0x02 /* 16, RO: 2, compatible with version 2 */
#define IOAT_CHANCMD 0x04 /* 8: reads as 0, since commands end at once */
#define IOAT_DMACOUNT 0x06 /* 16: descriptors to do since CHAINADDR was written, modulo 2^16 */
#define IOAT_CHANSTS 0x08 /* 64, RO: address of the last descriptor done | state */
#define IOAT_CHAINADDR 0x10 /* 64: either half begins a new chain; not while ACTIVE */
#define IOAT_CHANCMP 0x18 /* 64: where CHANSTS is written back to */
#define IOAT_CHANERR 0x28 /* 32, write 1 to clear */
#define IOAT_CHANERRMSK 0x2c /* 32 */
#define IOAT_DCACTRL 0x30 /* 32: kept, without effect */

/*
 * An interrupt sets INT_REARM: no other follows until 1 is written to it, which
 * clears it. What came in between is then told at once.
 */
#define IOAT_CHANCTRL_INT_REARM 0x0001u
#define IOAT_CHANCTRL_ERR_COMPLETION_EN 0x0004u
#define IOAT_CHANCTRL_ANY_ERR_ABORT_EN 0x0008u /* always so */
#define IOAT_CHANCTRL_ERR_INT_EN 0x0010u
#define IOAT_CHANCTRL_WRITABLE 0xf33cu

/* One at a time, or CHANERR says COMMAND. START, APPEND: what DMACOUNT asks for. */
#define IOAT_CHANCMD_START 0x01u
#define IOAT_CHANCMD_APPEND 0x02u
#define IOAT_CHANCMD_SUSPEND 0x04u /* after the descriptor at work */
#define IOAT_CHANCMD_ABORT 0x08u /* ends in HALTED, CHANERR as it was */
#define IOAT_CHANCMD_RESUME 0x10u
#define IOAT_CHANCMD_RESET 0x20u /* ends in HALTED, all registers of the channel 0 */

enum ioat_state {
	IOAT_ACTIVE = 0,
	IOAT_DONE = 1,
	IOAT_SUSPENDED = 2,
	IOAT_HALTED = 3, /* by a reset or, if CHANERR is not 0, by an error */
};
#define IOAT_CHANSTS_STATE 0x7u
#define IOAT_CHANSTS_ADDRESS (~0x3full)

/* An IOMMU's refusal shows as the bit of what the access was for. */
#define IOAT_CHANERR_NEXT_ADDRESS 0x0004u /* a descriptor behind the first could not be read */
#define IOAT_CHANERR_NEXT_ALIGNMENT 0x0008u
#define IOAT_CHANERR_CHAIN_ADDRESS 0x0010u /* the first one: not aligned, or could not be read */
#define IOAT_CHANERR_COMMAND 0x0020u
#define IOAT_CHANERR_READ_DATA 0x0100u
#define IOAT_CHANERR_WRITE_DATA 0x0200u
#define IOAT_CHANERR_CONTROL 0x0400u /* unknown operation */
#define IOAT_CHANERR_LENGTH 0x0800u /* 0, or more than XFERCAP says */
#define IOAT_CHANERR_COMPLETION_ADDRESS 0x1000u

/* A descriptor: 64 bytes, aligned to that. Little endian. */
#define IOAT_DESCRIPTOR_SIZE 64
#define IOAT_DESC_LENGTH 0 /* 32 */
#define IOAT_DESC_CONTROL 4 /* 32 */
#define IOAT_DESC_SOURCE 8 /* 64 */
#define IOAT_DESC_DESTINATION 16 /* 64 */
#define IOAT_DESC_NEXT 24 /* 64: read together with the rest */

#define IOAT_CONTROL_INTERRUPT 0x01u
#define IOAT_CONTROL_SOURCE_NO_SNOOP 0x02u
#define IOAT_CONTROL_DESTINATION_NO_SNOOP 0x04u
#define IOAT_CONTROL_COMPLETION 0x08u /* write CHANSTS back */
#define IOAT_CONTROL_FENCE 0x10u /* without effect: descriptors are done in their order */
#define IOAT_CONTROL_NULL 0x20u /* moves nothing */
#define IOAT_CONTROL_OPERATION(control) ((control) >> 24)
#define IOAT_OPERATION_COPY 0x00u

#endif /* IOAT_REGS_H */
