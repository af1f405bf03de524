// SPDX-License-Identifier: GPL-2.0-or-later
/* The worker threads of a context, and the one queue they share. */
#include "engine.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

struct worker {
	struct engine_pool *pool;
	pthread_t thread;
	uint8_t bounce[DMA_SLICE];
};

struct engine_pool {
	unsigned nr_workers;
	unsigned nr_running;
	struct worker *workers;
	struct crc32_table *crc32;
	atomic_bool stop;
	atomic_uint nr_busy;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct engine_slot *first, *last;
};

int engine_pool_create(unsigned nr_workers, struct engine_pool **ret)
{
	struct engine_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->nr_workers = nr_workers;
	pool->workers = calloc(nr_workers, sizeof(*pool->workers));
	if (!pool->workers || crc32_table_create(&pool->crc32) < 0) {
		free(pool->workers);
		free(pool);
		return -ENOMEM;
	}
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	*ret = pool;
	return 0;
}

void engine_pool_destroy(struct engine_pool *pool)
{
	if (!pool)
		return;
	crc32_table_destroy(pool->crc32);
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool->workers);
	free(pool);
}

unsigned engine_pool_busy(const struct engine_pool *pool)
{
	return atomic_load(&pool->nr_busy);
}

const struct crc32_table *engine_pool_crc32(const struct engine_pool *pool)
{
	return pool->crc32;
}

static void dequeue(struct engine_pool *pool, struct engine_slot *slot)
{
	*(slot->prev ? &slot->prev->next : &pool->first) = slot->next;
	*(slot->next ? &slot->next->prev : &pool->last) = slot->prev;
	slot->next = NULL;
	slot->prev = NULL;
	slot->queued = false;
}

/* NULL when the pool ends. */
static struct engine_slot *wait_for_slot(struct engine_pool *pool)
{
	struct engine_slot *slot;

	pthread_mutex_lock(&pool->lock);
	while (!pool->first && !atomic_load(&pool->stop))
		pthread_cond_wait(&pool->wake, &pool->lock);
	slot = atomic_load(&pool->stop) ? NULL : pool->first;
	if (slot)
		dequeue(pool, slot);
	pthread_mutex_unlock(&pool->lock);
	return slot;
}

/*
 * A guest spins with interrupts off until the reactor has answered it, and nobody
 * spins for a copy: the worker that an UNMAP has just let go on must not take the
 * processor from the answer. A wish: without it, everything works. Not a lower
 * priority: a worker that a busy guest keeps from running in the middle of a slice
 * keeps the UNMAP waiting, and did so for milliseconds when it was tried.
 */
static void be_modest(void)
{
	const struct sched_param param = { 0 };

	(void)pthread_setschedparam(pthread_self(), SCHED_BATCH, &param);
}

static void *work(void *opaque)
{
	struct worker *worker = opaque;
	struct engine_slot *slot;

	be_modest();
	while ((slot = wait_for_slot(worker->pool))) {
		atomic_fetch_add(&worker->pool->nr_busy, 1);
		engine_run(slot, &worker->pool->stop, worker->bounce);
		atomic_fetch_sub(&worker->pool->nr_busy, 1);
	}
	return NULL;
}

/* 0 or a positive errno. */
static int start_worker(struct worker *worker)
{
	sigset_t all, old;
	int err;

	/* Signals belong to the program around us, never to its device threads. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(&worker->thread, NULL, work, worker);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return err;
}

int engine_pool_start(struct engine_pool *pool)
{
	for (; pool->nr_running < pool->nr_workers; pool->nr_running++) {
		struct worker *worker = &pool->workers[pool->nr_running];
		int r;

		worker->pool = pool;
		r = start_worker(worker);
		if (r) {
			engine_pool_stop(pool);
			return -r;
		}
	}
	return 0;
}

void engine_pool_stop(struct engine_pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	atomic_store(&pool->stop, true);
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	while (pool->nr_running)
		pthread_join(pool->workers[--pool->nr_running].thread, NULL);
}

void engine_pool_submit(struct engine_pool *pool, struct engine_slot *slot)
{
	pthread_mutex_lock(&pool->lock);
	if (!slot->queued) {
		slot->queued = true;
		slot->next = NULL;
		slot->prev = pool->last;
		*(pool->last ? &pool->last->next : &pool->first) = slot;
		pool->last = slot;
		pthread_cond_signal(&pool->wake);
	}
	pthread_mutex_unlock(&pool->lock);
}

void engine_pool_cancel(struct engine_pool *pool, struct engine_slot *slot)
{
	pthread_mutex_lock(&pool->lock);
	if (slot->queued)
		dequeue(pool, slot);
	pthread_mutex_unlock(&pool->lock);
}
