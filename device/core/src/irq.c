// SPDX-License-Identifier: GPL-2.0-or-later
#include "irq.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/uio.h>
#include <unistd.h>

#include "reactor.h"
#include "vfio_user.h"

struct irqs {
	struct reactor *reactor;
	unsigned int nr_vectors, nr_msi;
	bool has_intx;
	pthread_mutex_t lock; /* guards all below */
	int msix_fds[IRQ_MAX_VECTORS], msi_fds[IRQ_MAX_MSI];
	struct msi_config msi;
	uint64_t pending; /* one bit per MSI-X vector */
	bool msix_enabled;
	int intx_fd;
	int unmask_fd; /* KVM signals the end of an INTx by it; -1: SET_IRQS does */
	bool intx_asserted, intx_masked, intx_disabled;
};

_Static_assert(IRQ_MAX_VECTORS <= 64, "the pending bits are one word");

int irqs_create(const struct vfu_config *config, struct irqs **ret)
{
	struct irqs *irqs;

	if (config->nr_vectors > IRQ_MAX_VECTORS || config->nr_msi > IRQ_MAX_MSI)
		return -EINVAL;
	irqs = calloc(1, sizeof(*irqs));
	if (!irqs)
		return -ENOMEM;
	irqs->reactor = config->reactor;
	irqs->nr_vectors = config->nr_vectors;
	irqs->nr_msi = config->nr_msi;
	irqs->has_intx = config->intx;
	irqs->intx_fd = irqs->unmask_fd = -1;
	for (size_t i = 0; i < IRQ_MAX_VECTORS; i++)
		irqs->msix_fds[i] = -1;
	for (size_t i = 0; i < IRQ_MAX_MSI; i++)
		irqs->msi_fds[i] = -1;
	pthread_mutex_init(&irqs->lock, NULL);
	*ret = irqs;
	return 0;
}

void irqs_destroy(struct irqs *irqs)
{
	if (!irqs)
		return;
	irqs_close_all(irqs);
	pthread_mutex_destroy(&irqs->lock);
	free(irqs);
}

uint32_t irqs_count(const struct irqs *irqs, uint32_t index)
{
	if (index == IRQ_INDEX_MSIX)
		return irqs->nr_vectors;
	if (index == IRQ_INDEX_MSI)
		return irqs->nr_msi;
	return index == IRQ_INDEX_INTX && irqs->has_intx ? 1 : 0;
}

/*
 * Anything else than an eventfd could block the writer for good (a full pipe),
 * or be harmed by eight bytes of ours (a file).
 */
static bool is_eventfd(int fd)
{
	char path[32], target[32];
	ssize_t len;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	len = readlink(path, target, sizeof(target));
	return len == (ssize_t)strlen("anon_inode:[eventfd]") &&
	       !memcmp(target, "anon_inode:[eventfd]", (size_t)len);
}

static bool prepare_eventfd(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return is_eventfd(fd) && flags >= 0 && !fcntl(fd, F_SETFL, flags | O_NONBLOCK);
}

static void signal_eventfd(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	uint64_t one = 1;

	/*
	 * A full counter: the client has an interrupt to see already. Asked first: what
	 * we set on the descriptor, O_NONBLOCK, the client can clear.
	 */
	if (poll(&pfd, 1, 0) != 1 || !(pfd.revents & POLLOUT) || write(fd, &one, sizeof(one)) < 0)
		return;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* --- INTx; all with the lock held --- */

/* Level triggered and automasked: says so once, then waits for an unmask. */
static void fire_intx(struct irqs *irqs)
{
	if (!irqs->intx_asserted || irqs->intx_masked || irqs->intx_disabled || irqs->intx_fd < 0)
		return;
	irqs->intx_masked = true;
	signal_eventfd(irqs->intx_fd);
}

static void unmask_intx(struct irqs *irqs)
{
	irqs->intx_masked = false;
	fire_intx(irqs);
}

static void handle_unmask_event(void *opaque, uint32_t events)
{
	struct irqs *irqs = opaque;
	uint64_t count;
	struct iovec iov = { &count, sizeof(count) };

	(void)events;
	pthread_mutex_lock(&irqs->lock);
	/* Not to be held up by a client that was there first, and wants it to block. */
	if (irqs->unmask_fd >= 0 && preadv2(irqs->unmask_fd, &iov, 1, -1, RWF_NOWAIT) > 0)
		unmask_intx(irqs);
	pthread_mutex_unlock(&irqs->lock);
}

static void close_unmask_fd(struct irqs *irqs)
{
	if (irqs->unmask_fd >= 0)
		reactor_remove(irqs->reactor, irqs->unmask_fd);
	close_fd(&irqs->unmask_fd);
}

static int set_unmask_fd(struct irqs *irqs, const struct irq_request *request)
{
	int err;

	close_unmask_fd(irqs);
	if (!request->nr_fds)
		return 0;
	err = reactor_add(irqs->reactor, request->fds[0], EPOLLIN, handle_unmask_event, irqs);
	if (err)
		return err;
	irqs->unmask_fd = request->fds[0];
	request->fds[0] = -1;
	return 0;
}

static int set_intx(struct irqs *irqs, const struct irq_request *request, uint32_t action)
{
	bool wanted = request->bools ? request->bools[0] : true;

	if (request->flags & IRQ_DATA_EVENTFD) {
		if (action == IRQ_ACTION_MASK)
			return -EINVAL;
		if (action == IRQ_ACTION_UNMASK)
			return set_unmask_fd(irqs, request);
		close_fd(&irqs->intx_fd);
		irqs->intx_masked = false;
		if (request->nr_fds) {
			irqs->intx_fd = request->fds[0];
			request->fds[0] = -1;
			fire_intx(irqs);
		}
	} else if (wanted && action == IRQ_ACTION_MASK) {
		irqs->intx_masked = true;
	} else if (wanted && action == IRQ_ACTION_UNMASK) {
		unmask_intx(irqs);
	} else if (wanted && irqs->intx_fd >= 0) {
		/* TRIGGER without an eventfd: a test of the client's own handler. */
		signal_eventfd(irqs->intx_fd);
	}
	return 0;
}

/* --- MSI-X and MSI; all with the lock held --- */

static int *message_fds(struct irqs *irqs, uint32_t index)
{
	return index == IRQ_INDEX_MSI ? irqs->msi_fds : irqs->msix_fds;
}

static void set_vector(struct irqs *irqs, uint32_t index, uint32_t vector, int fd)
{
	int *fds = message_fds(irqs, index);

	close_fd(&fds[vector]);
	fds[vector] = fd;
	if (index == IRQ_INDEX_MSIX && fd >= 0 && irqs->pending >> vector & 1) {
		irqs->pending &= ~(UINT64_C(1) << vector);
		signal_eventfd(fd);
	}
}

static int set_messages(struct irqs *irqs, const struct irq_request *request, uint32_t action)
{
	const int *fds = message_fds(irqs, request->index);

	/* Masking is done in the client, which owns the table. */
	if (action != IRQ_ACTION_TRIGGER)
		return -EINVAL;
	for (uint32_t i = 0; i < request->count; i++) {
		uint32_t vector = request->start + i;

		if (request->flags & IRQ_DATA_EVENTFD) {
			set_vector(irqs, request->index, vector,
				   request->nr_fds ? request->fds[i] : -1);
			if (request->nr_fds)
				request->fds[i] = -1;
		} else if ((!request->bools || request->bools[i]) && fds[vector] >= 0) {
			signal_eventfd(fds[vector]);
		}
	}
	return 0;
}

/* --- all --- */

static void disable_index(struct irqs *irqs, uint32_t index)
{
	if (index == IRQ_INDEX_INTX) {
		close_fd(&irqs->intx_fd);
		close_unmask_fd(irqs);
		irqs->intx_masked = false;
		return;
	}
	for (uint32_t i = 0; i < irqs_count(irqs, index); i++)
		close_fd(&message_fds(irqs, index)[i]);
	if (index == IRQ_INDEX_MSIX)
		irqs->pending = 0;
}

static int check_request(const struct irqs *irqs, const struct irq_request *request)
{
	uint32_t count = irqs_count(irqs, request->index);
	uint32_t data = request->flags & (IRQ_DATA_NONE | IRQ_DATA_BOOL | IRQ_DATA_EVENTFD);

	if (data != IRQ_DATA_NONE && data != IRQ_DATA_BOOL && data != IRQ_DATA_EVENTFD)
		return -EINVAL;
	if (request->index > IRQ_INDEX_MSIX || request->start > count ||
	    request->count > count - request->start)
		return -EINVAL;
	if (data != IRQ_DATA_EVENTFD)
		return request->nr_fds ? -EINVAL : 0;
	if (request->nr_fds && request->nr_fds != request->count)
		return -EINVAL;
	for (size_t i = 0; i < request->nr_fds; i++)
		if (!prepare_eventfd(request->fds[i]))
			return -EBADF;
	return 0;
}

int irqs_set(struct irqs *irqs, const struct irq_request *request)
{
	uint32_t action = request->flags & ~(IRQ_DATA_NONE | IRQ_DATA_BOOL | IRQ_DATA_EVENTFD);
	int err = check_request(irqs, request);

	if (err)
		return err;
	if (action != IRQ_ACTION_MASK && action != IRQ_ACTION_UNMASK &&
	    action != IRQ_ACTION_TRIGGER)
		return -EINVAL;
	pthread_mutex_lock(&irqs->lock);
	if (!request->count) {
		/* Only the disabling of a whole index has nothing to count. */
		if (action == IRQ_ACTION_TRIGGER && request->flags & IRQ_DATA_NONE &&
		    !request->start)
			disable_index(irqs, request->index);
		else
			err = -EINVAL;
	} else if (request->index == IRQ_INDEX_INTX) {
		err = set_intx(irqs, request, action);
	} else {
		err = set_messages(irqs, request, action);
	}
	pthread_mutex_unlock(&irqs->lock);
	return err;
}

void irqs_reset(struct irqs *irqs)
{
	pthread_mutex_lock(&irqs->lock);
	irqs->pending = 0;
	irqs->msix_enabled = false;
	irqs->msi = (struct msi_config){ 0 };
	irqs->intx_asserted = irqs->intx_masked = irqs->intx_disabled = false;
	pthread_mutex_unlock(&irqs->lock);
}

void irqs_close_all(struct irqs *irqs)
{
	irqs_reset(irqs);
	pthread_mutex_lock(&irqs->lock);
	disable_index(irqs, IRQ_INDEX_INTX);
	disable_index(irqs, IRQ_INDEX_MSI);
	disable_index(irqs, IRQ_INDEX_MSIX);
	pthread_mutex_unlock(&irqs->lock);
}

int irqs_raise_message(struct irqs *irqs, unsigned int vector)
{
	int err = 0;

	if (vector >= irqs->nr_vectors && vector >= irqs->nr_msi)
		return -EINVAL;
	pthread_mutex_lock(&irqs->lock);
	if (irqs->msi.nr_vectors) {
		/* A driver that chose fewer vectors has them shared. */
		int fd = irqs->msi_fds[vector % irqs->msi.nr_vectors];

		if (fd >= 0)
			signal_eventfd(fd);
		else
			err = -ENOENT;
	} else if (vector >= irqs->nr_vectors) {
		err = -EINVAL;
	} else if (irqs->msix_fds[vector] >= 0) {
		signal_eventfd(irqs->msix_fds[vector]);
	} else {
		/* Masked, if MSI-X is in use at all: the client sends the eventfd at unmask. */
		if (irqs->msix_enabled)
			irqs->pending |= UINT64_C(1) << vector;
		err = -ENOENT;
	}
	pthread_mutex_unlock(&irqs->lock);
	return err;
}

int irqs_msi_vector(struct irqs *irqs, uint64_t addr, uint32_t data)
{
	int vector = -ENOENT;
	uint32_t low_bits;

	pthread_mutex_lock(&irqs->lock);
	low_bits = irqs->msi.nr_vectors - 1;
	if (irqs->msi.nr_vectors && addr == irqs->msi.address &&
	    (data & ~low_bits) == (irqs->msi.data & ~low_bits))
		vector = (int)(data & low_bits);
	pthread_mutex_unlock(&irqs->lock);
	return vector;
}

int irqs_raise_intx(struct irqs *irqs)
{
	int err;

	if (!irqs->has_intx)
		return -EINVAL;
	pthread_mutex_lock(&irqs->lock);
	irqs->intx_asserted = true;
	fire_intx(irqs);
	err = irqs->intx_fd < 0 ? -ENOENT : 0;
	pthread_mutex_unlock(&irqs->lock);
	return err;
}

void irqs_deassert_intx(struct irqs *irqs)
{
	pthread_mutex_lock(&irqs->lock);
	irqs->intx_asserted = false;
	pthread_mutex_unlock(&irqs->lock);
}

bool irqs_intx_asserted(struct irqs *irqs)
{
	bool asserted;

	pthread_mutex_lock(&irqs->lock);
	asserted = irqs->intx_asserted;
	pthread_mutex_unlock(&irqs->lock);
	return asserted;
}

void irqs_disable_intx(struct irqs *irqs, bool disabled)
{
	pthread_mutex_lock(&irqs->lock);
	irqs->intx_disabled = disabled;
	fire_intx(irqs);
	pthread_mutex_unlock(&irqs->lock);
}

void irqs_enable_msix(struct irqs *irqs, bool enabled)
{
	pthread_mutex_lock(&irqs->lock);
	irqs->msix_enabled = enabled;
	if (!enabled)
		irqs->pending = 0;
	pthread_mutex_unlock(&irqs->lock);
}

void irqs_configure_msi(struct irqs *irqs, struct msi_config msi)
{
	pthread_mutex_lock(&irqs->lock);
	irqs->msi = msi;
	pthread_mutex_unlock(&irqs->lock);
}

void irqs_read_pba(struct irqs *irqs, size_t offset, uint8_t *buf, size_t len)
{
	uint64_t pending;

	pthread_mutex_lock(&irqs->lock);
	pending = irqs->pending;
	pthread_mutex_unlock(&irqs->lock);
	for (size_t i = 0; i < len; i++)
		buf[i] = offset + i < sizeof(pending) ? (uint8_t)(pending >> 8 * (offset + i)) : 0;
}
