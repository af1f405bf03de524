/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * irq.h - the interrupts of one function: an eventfd per MSI-X vector, and INTx.
 *
 * Any thread; setting up and tearing down is for the reactor thread.
 */
#ifndef IRQ_H
#define IRQ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IRQ_MAX_VECTORS 64u

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
struct reactor;

struct irq_request {
	uint32_t flags, index, start, count;
	const uint8_t *bools; /* IRQ_DATA_BOOL: count of them */
	int *fds;             /* IRQ_DATA_EVENTFD: those taken over are set to -1 */
	size_t nr_fds;        /* count, or 0: clear */
};

int irqs_create(struct reactor *reactor, unsigned int nr_vectors, bool intx, struct irqs **ret);
void irqs_destroy(struct irqs *irqs);
/* How many interrupts an index has. */
uint32_t irqs_count(const struct irqs *irqs, uint32_t index);
int irqs_set(struct irqs *irqs, const struct irq_request *request);

/* Takes back every assertion and pending bit; the eventfds stay. */
void irqs_reset(struct irqs *irqs);
void irqs_close_all(struct irqs *irqs); /* as irqs_reset(), and the eventfds too */

/* 0; -EINVAL no such vector; -ENOENT no eventfd (the vector's pending bit is then set). */
int irqs_raise_msix(struct irqs *irqs, unsigned int vector);
int irqs_raise_intx(struct irqs *irqs);
void irqs_deassert_intx(struct irqs *irqs);
bool irqs_intx_asserted(struct irqs *irqs);

/* The Command register's Interrupt Disable, and the Enable bit of MSI-X. */
void irqs_disable_intx(struct irqs *irqs, bool disabled);
void irqs_enable_msix(struct irqs *irqs, bool enabled);
/* Copies len bytes of the pending bit array from offset on. */
void irqs_read_pba(struct irqs *irqs, size_t offset, uint8_t *buf, size_t len);

#endif /* IRQ_H */
