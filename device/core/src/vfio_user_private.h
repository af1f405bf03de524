/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vfio_user_private.h - what the files of vfio_user*.c share.
 *
 * vfio_user.c           the function: create, listen, accept, reset, interrupts
 * vfio_user_conn.c      framing: messages in, messages out
 * vfio_user_dispatch.c  one handler per command
 * vfio_user_region.c    BAR and configuration space accesses
 * vfio_user_call.c      our own requests to the client
 */
#ifndef VFIO_USER_PRIVATE_H
#define VFIO_USER_PRIVATE_H

#include <stdatomic.h>
#include <sys/stat.h>

#include "irq.h"
#include "log.h"
#include "memory.h"
#include "pci_config.h"
#include "reactor.h"
#include "vfio_user.h"
#include "vfio_user_wire.h"

/* The longest access to a BAR or to configuration space. */
#define VFU_MAX_ACCESS 4096u

/* A message as far as it has come in. */
struct vfu_rx {
	size_t have; /* bytes, header included */
	struct vfio_user_header header;
	uint8_t *body; /* VFU_MAX_MESSAGE bytes */
	int fds[VFU_MAX_FDS];
	size_t nr_fds;
	bool too_many_fds;
};

struct vfu_call;

struct vfu {
	struct vfu_config config;
	struct irqs *irqs;
	struct memory *memory;
	atomic_bool connected, bus_master;

	/* The reactor's own. */
	struct pci_config pci;
	int listen_fd;
	bool bound;
	struct stat socket_stat; /* of the file we bound */
	struct vfu_rx rx;
	bool negotiated;
	bool is_throttled; /* waiting for room to reply, not for messages */
	uint8_t reply[sizeof(struct vfio_user_region_access) + VFU_MAX_ACCESS];

	/*
	 * One message goes out at a time. fd and generation change under tx_lock
	 * and on the reactor only, which may therefore read them without it. The lock
	 * is never held while anybody waits for the client.
	 */
	pthread_mutex_t tx_lock;
	pthread_cond_t tx_free; /* neither of the two that follow holds any more */
	bool tx_busy;           /* a worker is in the middle of a message */
	size_t tx_pending_len;  /* of a reply that waits for room in the socket */
	uint8_t tx_pending[sizeof(struct vfio_user_header) +
			   sizeof(struct vfio_user_region_access) + VFU_MAX_ACCESS];
	int fd;
	uint64_t generation; /* of connections: a worker must not talk to the next client */

	/* Our requests to the client; taken before tx_lock if both are. */
	pthread_mutex_t call_lock;
	struct vfu_call *calls;
	uint16_t next_id;
	size_t client_max_xfer; /* 0: no VERSION yet */
};

/* A request in hand. Descriptors that a handler keeps, it sets to -1. */
struct vfu_message {
	struct vfio_user_header header;
	const uint8_t *body;
	size_t len;
	int *fds;
	size_t nr_fds;
};

/* vfio_user.c */
void vfu_log(struct vfu *vfu, struct viommu_log_record record);
void vfu_set_bus_master(struct vfu *vfu, bool on);
void vfu_reset(struct vfu *vfu, enum viommu_reset_kind kind);

/* vfio_user_conn.c */
/*
 * Handles what has come in. 0: for now that is all; 1: end of file; -errno: the
 * connection is beyond repair.
 */
int vfu_conn_service(struct vfu *vfu);
/* Forgets the message, and closes those of its descriptors that nobody kept. */
void vfu_conn_clear_rx(struct vfu *vfu);
void vfu_conn_close_fds(struct vfu *vfu); /* the latter only */
/*
 * Sends a reply, or keeps it until there is room: true in vfu_conn_is_blocked(), and
 * nothing more is read from this client. Reactor; never waits.
 */
int vfu_conn_reply(struct vfu *vfu, struct vfio_user_header header, const void *payload,
		   size_t len);
/* Sends what was kept, if there is room now. */
int vfu_conn_flush(struct vfu *vfu);
bool vfu_conn_is_blocked(const struct vfu *vfu); /* reactor */
/*
 * Sends one message whole, from a worker. -ENOTCONN: generation is over. -ETIMEDOUT:
 * the client takes nothing, and nothing was sent; after other errors the connection is
 * dead.
 */
int vfu_conn_send(struct vfu *vfu, uint64_t generation, struct vfio_user_header header,
		  const void *payload1, size_t len1, const void *payload2, size_t len2);

/* vfio_user_dispatch.c; 0, or -errno that ends the connection */
int vfu_dispatch(struct vfu *vfu, const struct vfu_message *message);

/* vfio_user_region.c */
int vfu_region_read(struct vfu *vfu, const struct vfio_user_region_access *access, uint8_t *buf);
int vfu_region_write(struct vfu *vfu, const struct vfio_user_region_access *access,
		     const uint8_t *buf);

/* vfio_user_call.c */
void vfu_call_reply(struct vfu *vfu, const struct vfu_message *message);
/* Ends every call with err, with call_lock held. */
void vfu_call_cancel_locked(struct vfu *vfu, int err);

#endif /* VFIO_USER_PRIVATE_H */
