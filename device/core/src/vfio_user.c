// SPDX-License-Identifier: GPL-2.0-or-later
#include "vfio_user_private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* One client per function; the second is told so at once. */
#define LISTEN_BACKLOG 4

/* --- events of the device --- */

void vfu_log(struct vfu *vfu, struct viommu_log_record record)
{
	record.endpoint = vfu->config.endpoint;
	record.domain = UINT32_MAX;
	record.source = vfu->config.source;
	log_append(vfu->config.log, &record);
}

void vfu_set_bus_master(struct vfu *vfu, bool on)
{
	const struct vfu_ops *ops = &vfu->config.ops;

	if (vfu_bus_master(vfu) == on)
		return;
	/*
	 * A worker that waits for the client must be let go before the device is
	 * told: telling it may wait for that worker, whose answer only this thread
	 * can receive. Under the lock, so that none starts to wait after that.
	 */
	pthread_mutex_lock(&vfu->call_lock);
	atomic_store(&vfu->bus_master, on);
	if (!on)
		vfu_call_cancel_locked(vfu, -ENODEV);
	pthread_mutex_unlock(&vfu->call_lock);
	if (ops->bus_master)
		ops->bus_master(vfu->config.opaque, on);
	vfu_log(vfu, (struct viommu_log_record){ .kind = VIOMMU_LOG_BUS_MASTER, .flags = on });
}

void vfu_reset(struct vfu *vfu, enum viommu_reset_kind kind)
{
	const struct vfu_ops *ops = &vfu->config.ops;

	if (kind != VIOMMU_RESET_LOST && ops->ignores_reset &&
	    ops->ignores_reset(vfu->config.opaque))
		return;
	pci_config_reset(&vfu->pci);
	irqs_reset(vfu->irqs);
	vfu_set_bus_master(vfu, false);
	if (ops->reset)
		ops->reset(vfu->config.opaque, kind);
	/* A lost client has a record of its own. */
	if (kind == VIOMMU_RESET_LOST)
		return;
	vfu_log(vfu, (struct viommu_log_record){ .kind = VIOMMU_LOG_RESET, .flags = kind });
	log_count(vfu->config.log, VIOMMU_COUNT_RESETS, 1);
}

static int raised(struct vfu *vfu, uint64_t vector)
{
	vfu_log(vfu, (struct viommu_log_record){ .kind = VIOMMU_LOG_IRQ, .start = vector });
	log_count(vfu->config.log, VIOMMU_COUNT_IRQS, 1);
	return 0;
}

int vfu_irq_raise(struct vfu *vfu, int vector)
{
	int err;

	if (!vfu_connected(vfu))
		return -ENODEV;
	if (vector == VFU_INTX) {
		err = irqs_raise_intx(vfu->irqs);
		return err ? err : raised(vfu, UINT64_MAX);
	}
	/* A message signalled interrupt is a write: the client's eventfd would not stop it. */
	if (!vfu_bus_master(vfu))
		return -ENODEV;
	if (vector < 0)
		return -EINVAL;
	err = irqs_raise_message(vfu->irqs, (unsigned int)vector);
	return err ? err : raised(vfu, (uint64_t)vector);
}

void vfu_intx_deassert(struct vfu *vfu)
{
	irqs_deassert_intx(vfu->irqs);
}

int vfu_msi_vector(struct vfu *vfu, uint64_t addr, uint32_t data)
{
	return irqs_msi_vector(vfu->irqs, addr, data);
}

/* --- the client --- */

/* With no call in progress any more, and none to come. */
static void close_client(struct vfu *vfu)
{
	atomic_store(&vfu->connected, false);
	pthread_mutex_lock(&vfu->call_lock);
	vfu->client_max_xfer = 0;
	vfu_call_cancel_locked(vfu, -ENOTCONN);
	pthread_mutex_unlock(&vfu->call_lock);
	vfu->negotiated = false;
	vfu_conn_clear_rx(vfu);
	pthread_mutex_lock(&vfu->tx_lock);
	close(vfu->fd);
	vfu->fd = -1;
	vfu->tx_busy = false;
	vfu->tx_pending_len = 0;
	pthread_cond_broadcast(&vfu->tx_free);
	pthread_mutex_unlock(&vfu->tx_lock);
	vfu->is_throttled = false;
}

static void disconnect(struct vfu *vfu, int err)
{
	struct viommu_log_record gone = {
		.kind = VIOMMU_LOG_CLIENT_GONE,
		.status = (uint16_t)-err,
	};

	reactor_remove(vfu->config.reactor, vfu->fd);
	close_client(vfu);
	vfu_reset(vfu, VIOMMU_RESET_LOST);
	irqs_close_all(vfu->irqs);
	pthread_rwlock_wrlock(vfu->config.dma_lock);
	memory_unmap_all(vfu->memory);
	pthread_rwlock_unlock(vfu->config.dma_lock);
	vfu_log(vfu, gone);
}

static void handle_client(void *opaque, uint32_t events);

/* Messages, or room for a reply that has been kept. */
static int listen_for(struct vfu *vfu, bool room)
{
	if (vfu->is_throttled == room)
		return 0;
	vfu->is_throttled = room;
	reactor_remove(vfu->config.reactor, vfu->fd);
	return reactor_add(vfu->config.reactor, vfu->fd, room ? EPOLLOUT : EPOLLIN, handle_client,
			   vfu);
}

static void service(struct vfu *vfu)
{
	int result = vfu_conn_service(vfu);

	if (!result)
		result = listen_for(vfu, vfu_conn_is_blocked(vfu));
	if (result)
		disconnect(vfu, result < 0 ? result : 0);
}

static void handle_client(void *opaque, uint32_t events)
{
	(void)events; /* reading tells the same, and in the right order */
	service(opaque);
}

static bool peer_closed(int fd)
{
	struct pollfd pfd = { .fd = fd };

	return poll(&pfd, 1, 0) > 0 && pfd.revents & (POLLHUP | POLLERR);
}

/*
 * True: there is no client. One that has hung up may not have been noticed
 * yet; what it sent before comes first.
 */
static bool make_room(struct vfu *vfu)
{
	while (vfu->fd >= 0 && peer_closed(vfu->fd))
		service(vfu);
	return vfu->fd < 0;
}

static int adopt(struct vfu *vfu, int fd)
{
	int err = reactor_add(vfu->config.reactor, fd, EPOLLIN, handle_client, vfu);

	if (err)
		return err;
	/* Both locks: each alone is enough to read them. */
	pthread_mutex_lock(&vfu->call_lock);
	pthread_mutex_lock(&vfu->tx_lock);
	vfu->fd = fd;
	vfu->generation++;
	pthread_mutex_unlock(&vfu->tx_lock);
	pthread_mutex_unlock(&vfu->call_lock);
	atomic_store(&vfu->connected, true);
	vfu_log(vfu, (struct viommu_log_record){ .kind = VIOMMU_LOG_CLIENT_ATTACHED });
	return 0;
}

/*
 * A second client is accepted and closed: QEMU then ends at once with an
 * error, while in the backlog it would wait for ever, and nobody knew why.
 *
 * The socket is edge triggered: a connection that cannot be accepted, for want
 * of descriptors, must not keep the reactor spinning. The next one retries.
 */
static void handle_listen(void *opaque, uint32_t events)
{
	struct vfu *vfu = opaque;

	(void)events;
	for (;;) {
		int fd = accept4(vfu->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

		if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
			continue;
		if (fd < 0)
			return;
		if (!make_room(vfu) || adopt(vfu, fd))
			close(fd);
	}
}

/* --- the socket --- */

/* Is the path free, or freed of a socket that nobody listens on any more? */
static int clear_path(const struct sockaddr_un *address)
{
	struct stat st;
	int fd, err = 0;

	if (lstat(address->sun_path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISSOCK(st.st_mode))
		return -EEXIST;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	/* EAGAIN: the backlog is full, so there is somebody. */
	if (!connect(fd, (const struct sockaddr *)address, sizeof(*address)) || errno == EAGAIN)
		err = -EADDRINUSE;
	else if (errno != ECONNREFUSED || (unlink(address->sun_path) < 0 && errno != ENOENT))
		err = -errno;
	close(fd);
	return err;
}

static int bind_and_listen(struct vfu *vfu, const struct sockaddr_un *address)
{
	/* Before bind(), which creates the file with the mode of the socket. */
	if (fchmod(vfu->listen_fd, 0600) < 0 ||
	    bind(vfu->listen_fd, (const struct sockaddr *)address, sizeof(*address)) < 0)
		return -errno;
	if (lstat(address->sun_path, &vfu->socket_stat) < 0)
		return -errno;
	vfu->bound = true;
	if (listen(vfu->listen_fd, LISTEN_BACKLOG) < 0)
		return -errno;
	return reactor_add(vfu->config.reactor, vfu->listen_fd, EPOLLIN | EPOLLET, handle_listen,
			   vfu);
}

static void close_listener(struct vfu *vfu)
{
	const char *path = vfu->config.socket_path;
	struct stat st;

	if (vfu->listen_fd >= 0) {
		reactor_remove(vfu->config.reactor, vfu->listen_fd);
		close(vfu->listen_fd);
	}
	vfu->listen_fd = -1;
	/* Somebody may have put another socket in its place. */
	if (vfu->bound && !lstat(path, &st) && st.st_dev == vfu->socket_stat.st_dev &&
	    st.st_ino == vfu->socket_stat.st_ino)
		unlink(path);
	vfu->bound = false;
}

int vfu_listen(struct vfu *vfu)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t len = strlen(vfu->config.socket_path);
	int err;

	if (!len)
		return -EINVAL;
	if (len >= sizeof(address.sun_path))
		return -ENAMETOOLONG;
	memcpy(address.sun_path, vfu->config.socket_path, len);
	err = clear_path(&address);
	if (err)
		return err;
	vfu->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (vfu->listen_fd < 0)
		return -errno;
	err = bind_and_listen(vfu, &address);
	if (err)
		close_listener(vfu);
	return err;
}

/* --- life --- */

static bool bar_valid(const struct vfu_config *config, size_t index)
{
	const struct vfu_bar *bar = &config->bars[index];

	if (!bar->size)
		return true;
	if (bar->size < 4096 || bar->size & (bar->size - 1))
		return false;
	return bar->is_64bit ? index + 1 < VFU_NR_BARS && !config->bars[index + 1].size :
			       bar->size <= UINT32_MAX;
}

static bool config_valid(const struct vfu_config *config)
{
	uint64_t table_size = (uint64_t)config->nr_vectors * 16, bar_size;

	if (!config->socket_path || !config->reactor || !config->log || !config->dma_lock)
		return false;
	for (size_t i = 0; i < VFU_NR_BARS; i++)
		if (!bar_valid(config, i))
			return false;
	if (config->nr_msi > IRQ_MAX_MSI || config->nr_msi & (config->nr_msi - 1))
		return false;
	if (!config->nr_vectors)
		return true;
	if (config->nr_vectors > IRQ_MAX_VECTORS || config->msix_bar >= VFU_NR_BARS)
		return false;
	bar_size = config->bars[config->msix_bar].size;
	/* The low three bits of both offsets hold the BAR's number. */
	return !(config->msix_table_offset & 7) && !(config->msix_pba_offset & 7) &&
	       config->msix_table_offset + table_size <= bar_size &&
	       (uint64_t)config->msix_pba_offset + 8 <= bar_size;
}

static void init_tx(struct vfu *vfu)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&vfu->tx_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vfu->tx_free, &attr);
	pthread_condattr_destroy(&attr);
}

int vfu_create(const struct vfu_config *config, struct vfu **ret)
{
	struct vfu *vfu;
	int err;

	if (!config_valid(config))
		return -EINVAL;
	vfu = calloc(1, sizeof(*vfu));
	if (!vfu)
		return -ENOMEM;
	vfu->config = *config;
	vfu->listen_fd = vfu->fd = -1;
	init_tx(vfu);
	pthread_mutex_init(&vfu->call_lock, NULL);
	pci_config_init(&vfu->pci, config);
	vfu->config.socket_path = strdup(config->socket_path);
	vfu->config.name = strdup(config->name ? config->name : "");
	vfu->rx.body = malloc(VFU_MAX_MESSAGE);
	err = vfu->config.socket_path && vfu->config.name && vfu->rx.body ? 0 : -ENOMEM;
	if (!err)
		err = memory_create(&vfu->memory);
	if (!err)
		err = irqs_create(config, &vfu->irqs);
	if (err) {
		vfu_destroy(vfu);
		return err;
	}
	*ret = vfu;
	return 0;
}

void vfu_destroy(struct vfu *vfu)
{
	if (!vfu)
		return;
	if (vfu->fd >= 0) {
		reactor_remove(vfu->config.reactor, vfu->fd);
		close_client(vfu);
	}
	close_listener(vfu);
	irqs_destroy(vfu->irqs);
	memory_destroy(vfu->memory);
	free(vfu->rx.body);
	free((char *)vfu->config.name);
	free((char *)vfu->config.socket_path);
	pthread_mutex_destroy(&vfu->call_lock);
	pthread_cond_destroy(&vfu->tx_free);
	pthread_mutex_destroy(&vfu->tx_lock);
	free(vfu);
}

int vfu_pci_cap(struct vfu *vfu, const void *body, size_t len, size_t live_offset, size_t live_len,
		unsigned *ret)
{
	return pci_config_add_vendor_cap(&vfu->pci, body, len, live_offset, live_len, ret);
}

struct memory *vfu_memory(struct vfu *vfu)
{
	return vfu->memory;
}

bool vfu_connected(const struct vfu *vfu)
{
	return atomic_load(&vfu->connected);
}

bool vfu_bus_master(const struct vfu *vfu)
{
	return atomic_load(&vfu->bus_master);
}
