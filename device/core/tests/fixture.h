/* SPDX-License-Identifier: GPL-2.0-or-later */
/* fixture.h - a vfio-user function with a reactor around it, and a record of what its ops saw. */
#ifndef FIXTURE_H
#define FIXTURE_H

#include <pthread.h>
#include <stdatomic.h>

#include "log.h"
#include "memory.h"
#include "reactor.h"
#include "vfio_user.h"

#define FIXTURE_SOURCE 3
#define FIXTURE_ENDPOINT 0x18
#define FIXTURE_VECTORS 4
#define FIXTURE_MSIX_BAR 1
#define FIXTURE_PBA 0x800
#define FIXTURE_RAM_BAR 4 /* 16 KiB, 64 bit, prefetchable: what is written reads back */

struct fixture {
	char dir[64];
	char path[96];
	struct log *log;
	struct reactor *reactor;
	pthread_rwlock_t dma_lock;
	struct vfu *vfu;
	unsigned int cap; /* vendor capability of 20 bytes, live from byte 16 on */
	int sock;         /* of a client, or -1 */
	uint64_t log_seq;

	/* Written by the ops on the reactor; a client that has its reply may read. */
	uint8_t ram[16384];
	uint8_t live[4];
	atomic_uint nr_resets[8]; /* by enum viommu_reset_kind */
	atomic_uint nr_bus_master_on, nr_bus_master_off;
	/* The last reset found bus mastering off, and the client as it should be. */
	atomic_bool reset_was_clean;
};

/* Listens, reactor running. */
void fixture_start(struct fixture *fixture);
/* With a client that has done VERSION and enabled memory and bus mastering. */
void fixture_start_connected(struct fixture *fixture);
void fixture_stop(struct fixture *fixture);

/* Waits for a record of the kind past the last one found; ends the program after 10 s. */
struct viommu_log_record fixture_wait_log(struct fixture *fixture, enum viommu_log_kind kind);
uint64_t fixture_counter(struct fixture *fixture, enum viommu_counter counter);

/* A memfd of size bytes, sealed against shrinking or not. */
int make_memfd(size_t size, bool sealed);
/* A nonblocking eventfd, and what has been counted since the last look; 0: nothing. */
int make_eventfd(void);
uint64_t eventfd_count(int fd);
/* Waits for an event at most 10 s. */
uint64_t eventfd_wait(int fd);
/* Descriptors this process has open. */
unsigned int count_open_fds(void);

#endif /* FIXTURE_H */
