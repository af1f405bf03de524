// SPDX-License-Identifier: GPL-2.0-or-later
#include "irq.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "clock.h"
#include "dma_engine.h"
#include "probe.h"

const char *const choices_irq[] = { "msix", "intx", "msi", NULL };

static const uint32_t vfio_index[IRQ_NR] = { VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_INTX_IRQ_INDEX,
					     VFIO_PCI_MSI_IRQ_INDEX };

struct irq_set {
	struct vfio_irq_set head;
	int32_t fds[IRQ_VECTORS_MAX];
};

static void close_vectors(struct irq_index *irq)
{
	for (unsigned int i = 0; i < irq->nr_vectors; i++)
		close(irq->vectors[i].fd);
	irq->nr_vectors = 0;
}

void irq_init(struct vfio *vfio)
{
	memset(vfio->irqs, 0, sizeof(vfio->irqs));
}

/* Closing the device disables its interrupts: only the eventfds are ours to close. */
void irq_deinit(struct vfio *vfio)
{
	for (int kind = 0; kind < IRQ_NR; kind++)
		close_vectors(&vfio->irqs[kind]);
}

bool irq_enabled(const struct vfio *vfio, enum irq_kind kind, uint64_t vector)
{
	return vector < vfio->irqs[kind].nr_vectors;
}

int64_t irq_collect(struct vfio *vfio, enum irq_kind kind, unsigned int vector)
{
	struct irq_vector *irq = &vfio->irqs[kind].vectors[vector];
	uint64_t count;
	ssize_t size = read(irq->fd, &count, sizeof(count));

	if (size < 0)
		return errno == EAGAIN ? 0 : -errno;
	if (size != sizeof(count))
		return -EIO;
	irq->total += count;
	return (int64_t)count;
}

int irq_action(struct vfio *vfio, enum irq_kind kind, uint32_t action, unsigned int start,
	       unsigned int count)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set),
		.flags = VFIO_IRQ_SET_DATA_NONE | action,
		.index = vfio_index[kind],
		.start = start,
		.count = count,
	};

	return ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, &set) ? -errno : 0;
}

/* Open an eventfd for each vector and hand them over in one call. */
static int enable(struct vfio *vfio, enum irq_kind kind, unsigned int nr_vectors,
		  struct reply *reply)
{
	struct irq_index *irq = &vfio->irqs[kind];
	struct irq_set set = {
		.head.argsz = (uint32_t)(sizeof(set.head) + nr_vectors * sizeof(set.fds[0])),
		.head.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER,
		.head.index = vfio_index[kind],
		.head.count = nr_vectors,
	};
	int error = 0, available;

	while (irq->nr_vectors < nr_vectors && !error) {
		int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

		if (fd < 0) {
			error = reply_fail(reply, "eventfd", errno, NULL);
			break;
		}
		set.fds[irq->nr_vectors] = fd;
		irq->vectors[irq->nr_vectors++] = (struct irq_vector){ .fd = fd };
	}
	available = error ? 0 : ioctl(vfio->device, VFIO_DEVICE_SET_IRQS, &set);
	if (available < 0)
		error = reply_fail(reply, "VFIO_DEVICE_SET_IRQS", errno, NULL);
	else if (available > 0)
		/* Fewer than asked for, and none is enabled then. */
		error = reply_fail(reply, "VFIO_DEVICE_SET_IRQS", ENOSPC,
				   "the kernel has %d vectors for it", available);
	if (error)
		close_vectors(irq);
	return error;
}

static int run_irq_enable(struct probe *probe, const struct args *args, struct reply *reply)
{
	enum irq_kind kind = (enum irq_kind)arg_number(args, "index", 0);
	uint64_t vectors = arg_number(args, "vectors", 1);
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	if (!vectors || vectors > IRQ_VECTORS_MAX)
		return reply_fail(reply, "parse", EINVAL, "vectors is not in 1..%d",
				  IRQ_VECTORS_MAX);
	if (probe->vfio.irqs[kind].nr_vectors)
		return reply_fail(reply, "irq", EBUSY, "%s is enabled", choices_irq[kind]);
	return enable(&probe->vfio, kind, (unsigned int)vectors, reply);
}

/* Check that the vector in the keys is enabled. */
static int require_vector(struct probe *probe, const struct args *args, enum irq_kind *ret_kind,
			  unsigned int *ret_vector, struct reply *reply)
{
	enum irq_kind kind = (enum irq_kind)arg_number(args, "index", IRQ_MSIX);
	uint64_t vector = arg_number(args, "vector", 0);
	int error = vfio_require(&probe->vfio, reply);

	if (error)
		return error;
	if (!irq_enabled(&probe->vfio, kind, vector))
		return reply_fail(reply, "irq", ENODEV, "%s vector %llu is not enabled",
				  choices_irq[kind], (unsigned long long)vector);
	*ret_kind = kind;
	*ret_vector = (unsigned int)vector;
	return 0;
}

static int run_irq_disable(struct probe *probe, const struct args *args, struct reply *reply)
{
	enum irq_kind kind;
	unsigned int vector;
	int error = require_vector(probe, args, &kind, &vector, reply);

	if (error)
		return error;
	error = irq_action(&probe->vfio, kind, VFIO_IRQ_SET_ACTION_TRIGGER, 0, 0);
	if (error)
		return reply_fail(reply, "VFIO_DEVICE_SET_IRQS", -error, NULL);
	close_vectors(&probe->vfio.irqs[kind]);
	return 0;
}

static int run_irq_wait(struct probe *probe, const struct args *args, struct reply *reply)
{
	uint64_t timeout = arg_number(args, "timeout_ms", TIMEOUT_MS_DEFAULT);
	struct irq_vector *irq;
	enum irq_kind kind;
	unsigned int vector;
	int64_t count;
	int error = require_vector(probe, args, &kind, &vector, reply);

	if (error)
		return error;
	if (timeout > TIMEOUT_MS_MAX)
		return reply_fail(reply, "parse", EINVAL, "timeout_ms is too long");
	irq = &probe->vfio.irqs[kind].vectors[vector];
	count = irq_collect(&probe->vfio, kind, vector);
	if (!count && irq->total == irq->taken) {
		if (clock_poll(irq->fd, timeout * NS_PER_MS) < 0)
			return reply_fail(reply, "ppoll", errno, NULL);
		count = irq_collect(&probe->vfio, kind, vector);
	}
	if (count < 0)
		return reply_fail(reply, "read", (int)-count, NULL);
	json_number(&reply->fields, "count", irq->total - irq->taken);
	json_number(&reply->fields, "total", irq->total);
	if (irq->total == irq->taken)
		return reply_fail(reply, "irq-wait", ETIMEDOUT, "no interrupt in %llu ms",
				  (unsigned long long)timeout);
	irq->taken = irq->total;
	return 0;
}

static int act(struct probe *probe, const struct args *args, uint32_t action, struct reply *reply)
{
	enum irq_kind kind;
	unsigned int vector;
	int error = require_vector(probe, args, &kind, &vector, reply);

	if (error)
		return error;
	error = irq_action(&probe->vfio, kind, action, vector, 1);
	if (error)
		return reply_fail(reply, "VFIO_DEVICE_SET_IRQS", -error, NULL);
	return 0;
}

static int run_irq_mask(struct probe *probe, const struct args *args, struct reply *reply)
{
	return act(probe, args, VFIO_IRQ_SET_ACTION_MASK, reply);
}

static int run_irq_unmask(struct probe *probe, const struct args *args, struct reply *reply)
{
	return act(probe, args, VFIO_IRQ_SET_ACTION_UNMASK, reply);
}

/* The device raises it, not the kernel: the whole way is under test. */
static int run_irq_trigger(struct probe *probe, const struct args *args, struct reply *reply)
{
	bool intx = arg_number(args, "index", IRQ_MSIX) == IRQ_INTX;
	uint64_t value = intx ? DMA_ENGINE_TRIGGER_INTX : arg_number(args, "vector", 0);
	int error = engine_require(&probe->engine, &probe->vfio, reply);

	if (error)
		return error;
	if (!intx && value >= DMA_ENGINE_TRIGGER_INTX)
		return reply_fail(reply, "parse", EINVAL, "vector is too large");
	error = vfio_access(&probe->vfio, DMA_ENGINE_BAR_REGS, DMA_ENGINE_IRQ_TRIGGER, 4, true,
			    &value);
	if (error)
		return reply_fail(reply, "write", -error, NULL);
	return 0;
}

#define INDEX_KEY(need) { "index", KEY_CHOICE, need, choices_irq }
#define VECTOR_KEY { "vector", KEY_NUMBER, MAY, NULL }

static const struct key enable_keys[] = {
	INDEX_KEY(NEED),
	{ "vectors", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

static const struct key disable_keys[] = { INDEX_KEY(NEED), VECTOR_KEY, { 0 } };
static const struct key vector_keys[] = { INDEX_KEY(MAY), VECTOR_KEY, { 0 } };

static const struct key wait_keys[] = {
	INDEX_KEY(MAY),
	VECTOR_KEY,
	{ "timeout_ms", KEY_NUMBER, MAY, NULL },
	{ 0 },
};

const struct command irq_commands[] = {
	{ "irq-enable", enable_keys, run_irq_enable },
	{ "irq-disable", disable_keys, run_irq_disable },
	{ "irq-wait", wait_keys, run_irq_wait },
	{ "irq-mask", vector_keys, run_irq_mask },
	{ "irq-unmask", vector_keys, run_irq_unmask },
	{ "irq-trigger", vector_keys, run_irq_trigger },
	{ 0 },
};
