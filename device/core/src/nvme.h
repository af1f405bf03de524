/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * nvme.h - an NVMe controller (1234:7e4d) with one namespace, whose blocks are a file's.
 *
 * nvme.c        its life, resets, the file
 * nvme_regs.c   registers and doorbells, on the reactor
 * nvme_queue.c  commands off a submission queue, completions; what follows is on workers
 * nvme_admin.c  admin commands; nvme_identify.c: what it tells of itself
 * nvme_io.c     reads and writes of the file
 * nvme_prp.c    where the guest's buffer is
 *
 * NVM Express 1.4. Each submission queue is one job: its commands are done in their
 * order. No slice moves after a reset; a write to the file that has begun may end
 * after it, and CSTS.RDY stays until it has.
 */
#ifndef NVME_H
#define NVME_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "dma.h"
#include "endpoint_model.h"
#include "nvme_spec.h"
#include "pool.h"

#define NVME_VENDOR_ID 0x1234
#define NVME_DEVICE_ID 0x7e4d
#define NVME_CLASS 0x010802 /* NVM Express I/O controller */
#define NVME_BAR 0
#define NVME_BAR_SIZE 0x4000
#define NVME_MSIX_TABLE 0x2000
#define NVME_MSIX_PBA 0x3000

#define NVME_BLOCK_LOG2 9
#define NVME_BLOCK (1u << NVME_BLOCK_LOG2)
#define NVME_IO_QUEUES 8
#define NVME_NR_QUEUES (NVME_IO_QUEUES + 1) /* 0: the admin queue */
#define NVME_MAX_ENTRIES 1024u
/* 2 MiB a command: PRP lists have to be chained. */
#define NVME_MDTS 9
#define NVME_MAX_DATA ((uint64_t)NVME_PAGE << NVME_MDTS)
#define NVME_MAX_EVENTS 4 /* Asynchronous Event Requests that may wait */

struct nvme;

struct nvme_cq {
	bool exists, interrupts;
	uint64_t base;
	uint32_t size;
	uint32_t head, tail;
	bool phase;
	unsigned vector;
	unsigned nr_sqs;
	unsigned nr_reserved; /* entries that commands in hand will take */
};

struct nvme_sq {
	struct pool_job job; /* first */
	struct nvme *nvme;
	uint16_t id;
	/* As an ioat_channel's: changes under dma_lock as the writer. */
	_Atomic uint64_t generation;
	bool taken; /* a worker of this generation is on it */
	bool busy; /* and has a command in hand, for which its CQ has an entry reserved */
	bool exists;
	uint64_t base;
	uint32_t size;
	uint32_t head, tail;
	uint16_t cq;
};

struct nvme {
	struct endpoint endpoint; /* first: what DMA sees of us */
	unsigned nr_vectors;
	/* The file: constant. */
	int fd;
	uint64_t nr_blocks;
	bool read_only;
	struct pool_job shutdown; /* flushes the file, then says so in CSTS */
	pthread_mutex_t lock; /* of the rest; dma_lock may be taken inside, not outside */
	uint32_t cc, aqa;
	uint64_t asq, acq;
	uint32_t csts; /* but for READY */
	unsigned nr_workers; /* that have a command of ours in hand, of any generation */
	uint32_t features[NVME_NR_FEATURES];
	struct nvme_sq sqs[NVME_NR_QUEUES];
	struct nvme_cq cqs[NVME_NR_QUEUES];
	uint16_t event_cids[NVME_MAX_EVENTS];
	unsigned nr_events; /* requests that wait */
	int event; /* what happened: NVME_EVENT_*; told of once, until its log page is read */
	bool event_masked;
};

/* A command, copied once. */
struct nvme_command {
	uint8_t opcode, flags;
	uint16_t cid;
	uint32_t nsid;
	uint64_t prp1, prp2;
	uint32_t dwords[6]; /* 10 to 15 */
};

/* A worker with a command in hand. */
struct nvme_run {
	struct nvme *nvme;
	struct nvme_sq *sq;
	struct dma_transfer transfer;
	uint8_t *bounce; /* DMA_SLICE bytes */
	struct nvme_command command;
	uint64_t start_ns;
	uint32_t result; /* dword 0 of the completion */
	/* For the log: data that it moves. */
	uint64_t length, media;
	bool is_write; /* to memory */
	enum dma_engine_status status;
};

/* Where the guest's buffer is, page by page. */
struct nvme_prp {
	uint64_t total, offset; /* bytes, and those before the current page */
	uint64_t list; /* address of entries not read yet */
	uint64_t entries[NVME_PAGE / 8];
	unsigned nr, next; /* entries here */
	uint64_t page; /* address of the current position */
	size_t left; /* bytes there */
};

extern const struct endpoint_model nvme_model;

/* Reactor, without the lock: no queue, no feature is left; CC, AQA, ASQ and ACQ are the caller's. */
void nvme_controller_reset(struct nvme *nvme);

/* Register accesses, with the signatures of vfu_ops. */
void nvme_bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count);
void nvme_bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count);

/* --- queues --- */

/* Any thread, the lock held: a worker looks at the queue if there is something to do. */
void nvme_kick(struct nvme_sq *sq);
void nvme_kick_all(struct nvme *nvme, unsigned cq);
/*
 * Takes the queue's work away; remove: and the queue. Any thread but the worker on
 * it, without the lock. True if a command was in hand, which is lost.
 */
bool nvme_revoke(struct nvme_sq *sq, bool remove);
/* The job of a queue. */
void nvme_run_queue(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce);
/* The job that ends a shutdown. */
void nvme_run_shutdown(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce);
/* Whether the command in hand is still wanted; the lock is held. */
bool nvme_is_mine(const struct nvme_run *run);

/* --- commands; a status, DNR included --- */

uint16_t nvme_admin(struct nvme_run *run);
uint16_t nvme_identify(struct nvme_run *run);
uint16_t nvme_io(struct nvme_run *run);
/* Writes the file's data to where they survive. */
uint16_t nvme_flush(struct nvme *nvme);

/* The command's buffer is total bytes, NVME_MAX_DATA at most. */
uint16_t nvme_prp_init(struct nvme_run *run, struct nvme_prp *prp, uint64_t total);
/* The next len bytes of it, DMA_SLICE at most. */
uint16_t nvme_prp_move(struct nvme_run *run, struct nvme_prp *prp, void *buf, size_t len,
		       bool is_write);
/* All of it, for a buffer of ours. */
uint16_t nvme_transfer(struct nvme_run *run, void *buf, size_t len, bool is_write);
/* One access to memory that is not a command's data; false: it was refused, or not ours any more. */
bool nvme_access(struct nvme_run *run, uint64_t iova, void *buf, size_t len, bool is_write);

#endif /* NVME_H */
