/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * irq.h - the interrupts of one function: an eventfd per MSI-X or MSI vector, and INTx.
 *
 * Any thread; setting up and tearing down is for the reactor thread.
 */
#ifndef IRQ_H
#define IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "pci_config.h"

#define IRQ_MAX_VECTORS 64u
#define IRQ_MAX_MSI 32u /* of the PCI specification */

/* Interrupt indices of VFIO's PCI devices. */
enum { IRQ_INDEX_INTX = 0, IRQ_INDEX_MSI = 1, IRQ_INDEX_MSIX = 2 };

/* VFIO_IRQ_SET_*: what a SET_IRQS message carries, and what it asks for. */
#define IRQ_DATA_NONE 0x01u
#define IRQ_DATA_BOOL 0x02u
#define IRQ_DATA_EVENTFD 0x04u
#define IRQ_ACTION_MASK 0x08u
#define IRQ_ACTION_UNMASK 0x10u
#define IRQ_ACTION_TRIGGER 0x20u

struct irqs;
struct vfu_config;

struct irq_request {
	uint32_t flags, index, start, count;
	const uint8_t *bools; /* IRQ_DATA_BOOL: count of them */
	int *fds;             /* IRQ_DATA_EVENTFD: those taken over are set to -1 */
	size_t nr_fds;        /* count, or 0: clear */
};

int irqs_create(const struct vfu_config *config, struct irqs **ret);
void irqs_destroy(struct irqs *irqs);
/* How many interrupts an index has. */
uint32_t irqs_count(const struct irqs *irqs, uint32_t index);
int irqs_set(struct irqs *irqs, const struct irq_request *request);

/* Takes back every assertion and pending bit; the eventfds stay. */
void irqs_reset(struct irqs *irqs);
void irqs_close_all(struct irqs *irqs); /* as irqs_reset(), and the eventfds too */

/*
 * By MSI if that is enabled, else by MSI-X. 0; -EINVAL no such vector; -ENOENT no
 * eventfd (a vector of MSI-X is then pending).
 */
int irqs_raise_message(struct irqs *irqs, unsigned int vector);
/* The MSI vector that has this address and data; -ENOENT. */
int irqs_msi_vector(struct irqs *irqs, uint64_t addr, uint32_t data);
int irqs_raise_intx(struct irqs *irqs);
void irqs_deassert_intx(struct irqs *irqs);
bool irqs_intx_asserted(struct irqs *irqs);

/* The Command register's Interrupt Disable, the Enable bit of MSI-X, and MSI's registers. */
void irqs_disable_intx(struct irqs *irqs, bool disabled);
void irqs_enable_msix(struct irqs *irqs, bool enabled);
void irqs_configure_msi(struct irqs *irqs, struct msi_config msi);
/* Copies len bytes of the pending bit array from offset on. */
void irqs_read_pba(struct irqs *irqs, size_t offset, uint8_t *buf, size_t len);

#endif /* IRQ_H */
