/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * pool.h - the worker threads of a context, and the one queue they share.
 *
 * A job belongs to an endpoint, which submits it when there is work, and whose
 * own state says what the work is. A worker may have a job in hand when it is
 * cancelled, and come late: run() finds out by the endpoint's generation.
 */
#ifndef POOL_H
#define POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

struct pool;

struct pool_job {
	/* On a worker; ends early once *stop. bounce: DMA_SLICE bytes that are the worker's. */
	void (*run)(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce);
	/* In the queue: under the pool's lock. */
	bool queued;
	struct pool_job *next, *prev;
};

int pool_create(unsigned nr_workers, struct pool **ret);
void pool_destroy(struct pool *pool); /* after pool_stop() */
int pool_start(struct pool *pool);
/* Ends what is running at its next slice; returns when the workers have ended. */
void pool_stop(struct pool *pool);
/* Never fails: a job is in the queue once, or not. Any thread. */
void pool_submit(struct pool *pool, struct pool_job *job);
/* Takes it off the queue; a worker may have it already. */
void pool_cancel(struct pool *pool, struct pool_job *job);
/*
 * What a worker does, on the caller's thread; false if there is no job. For who needs
 * to know when it happens, and has stopped the workers: tests.
 */
bool pool_run_one(struct pool *pool, uint8_t *bounce);
/* Workers that have a job in hand. Any thread. */
unsigned pool_busy(const struct pool *pool);

#endif /* POOL_H */
