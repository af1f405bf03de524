/* SPDX-License-Identifier: GPL-2.0-or-later */
/* client.h - the client half of vfio-user, as small as tests need it. */
#ifndef CLIENT_H
#define CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "vfio_user_wire.h"

/* Connects; ends the program if nobody listens. Returns the socket, blocking, with a timeout. */
int client_connect(const char *path);
/* Writes bytes as they are, with descriptors. */
void client_send_raw(int sock, const void *buf, size_t len, const int *fds, size_t nr_fds);
/* Sends header (size filled in) and payload in one piece. */
void client_send(int sock, struct vfio_user_header header, const void *payload, size_t len,
		 const int *fds, size_t nr_fds);
/* Receives one message; the payload's length, or -errno; -EPIPE at end of file. */
ssize_t client_receive(int sock, struct vfio_user_header *header, void *payload, size_t size);
/* A request and its reply: the length of the reply's payload, or -errno as answered. */
ssize_t client_call_fds(int sock, uint16_t command, const void *payload, size_t len, const int *fds,
			size_t nr_fds, void *reply, size_t reply_size);
ssize_t client_call(int sock, uint16_t command, const void *payload, size_t len, void *reply,
		    size_t reply_size);
/* True once the server has closed the connection; what it sent before is thrown away. */
bool client_is_closed(int sock);

/* 0 or -errno, as answered. */
int client_version(int sock);
int client_dma_map(int sock, uint64_t addr, uint64_t size, uint32_t flags, int fd, uint64_t offset);
int client_dma_unmap(int sock, uint64_t addr, uint64_t size);
int client_region_read(int sock, uint32_t region, uint64_t offset, void *buf, uint32_t count);
int client_region_write(int sock, uint32_t region, uint64_t offset, const void *buf,
			uint32_t count);
int client_set_irqs(int sock, uint32_t flags, uint32_t index, uint32_t start, uint32_t count,
		    const int *fds, size_t nr_fds);
int client_reset(int sock);

/* Configuration space, little endian. */
uint32_t client_config_read(int sock, unsigned int offset, unsigned int count);
void client_config_write(int sock, unsigned int offset, uint32_t value, unsigned int count);
/* Offset of the capability, 0 if there is none. */
unsigned int client_find_cap(int sock, uint8_t id);

#endif /* CLIENT_H */
