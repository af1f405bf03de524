/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * irq.h - interrupts by eventfd.
 *
 * Events are counted since the interrupt was enabled, so that several waiters can
 * each compare against the count they started from.
 */
#ifndef PROBE_IRQ_H
#define PROBE_IRQ_H

#include <stdbool.h>
#include <stdint.h>

#define IRQ_VECTORS_MAX 256

struct vfio;

/* The order of choices_irq[]. */
enum irq_kind { IRQ_MSIX, IRQ_INTX, IRQ_MSI, IRQ_NR };

struct irq_vector {
	int fd;
	uint64_t total; /* events since it was enabled */
	uint64_t taken; /* those that irq-wait or a finished transaction has seen */
};

struct irq_index {
	unsigned int nr_vectors; /* 0: not enabled */
	struct irq_vector vectors[IRQ_VECTORS_MAX];
};

extern const char *const choices_irq[];

void irq_init(struct vfio *vfio);
void irq_deinit(struct vfio *vfio);

/* Is the vector enabled? */
bool irq_enabled(const struct vfio *vfio, enum irq_kind kind, uint64_t vector);

/* Count the events that came so far. Return their number, 0 for none, or -errno. */
int64_t irq_collect(struct vfio *vfio, enum irq_kind kind, unsigned int vector);

/* VFIO_DEVICE_SET_IRQS without data: @action is VFIO_IRQ_SET_ACTION_*. 0 or -errno. */
int irq_action(struct vfio *vfio, enum irq_kind kind, uint32_t action, unsigned int start,
	       unsigned int count);

#endif /* PROBE_IRQ_H */
