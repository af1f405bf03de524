// SPDX-License-Identifier: GPL-2.0-or-later
#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>

#include "dma.h"

struct worker {
	struct pool *pool;
	pthread_t thread;
	uint8_t bounce[DMA_SLICE];
};

struct pool {
	unsigned nr_workers;
	unsigned nr_running;
	struct worker *workers;
	atomic_bool stop;
	atomic_uint nr_busy;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct pool_job *first, *last;
};

int pool_create(unsigned nr_workers, struct pool **ret)
{
	struct pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return -ENOMEM;
	pool->nr_workers = nr_workers;
	pool->workers = calloc(nr_workers, sizeof(*pool->workers));
	if (!pool->workers) {
		free(pool);
		return -ENOMEM;
	}
	pthread_mutex_init(&pool->lock, NULL);
	pthread_cond_init(&pool->wake, NULL);
	*ret = pool;
	return 0;
}

void pool_destroy(struct pool *pool)
{
	if (!pool)
		return;
	pthread_cond_destroy(&pool->wake);
	pthread_mutex_destroy(&pool->lock);
	free(pool->workers);
	free(pool);
}

unsigned pool_busy(const struct pool *pool)
{
	return atomic_load(&pool->nr_busy);
}

static void dequeue(struct pool *pool, struct pool_job *job)
{
	*(job->prev ? &job->prev->next : &pool->first) = job->next;
	*(job->next ? &job->next->prev : &pool->last) = job->prev;
	job->next = NULL;
	job->prev = NULL;
	job->queued = false;
}

bool pool_run_one(struct pool *pool, uint8_t *bounce)
{
	static const atomic_bool never;
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	job = pool->first;
	if (job)
		dequeue(pool, job);
	pthread_mutex_unlock(&pool->lock);
	if (job)
		job->run(job, &never, bounce);
	return job;
}

/* NULL when the pool ends. */
static struct pool_job *wait_for_job(struct pool *pool)
{
	struct pool_job *job;

	pthread_mutex_lock(&pool->lock);
	while (!pool->first && !atomic_load(&pool->stop))
		pthread_cond_wait(&pool->wake, &pool->lock);
	job = atomic_load(&pool->stop) ? NULL : pool->first;
	if (job)
		dequeue(pool, job);
	pthread_mutex_unlock(&pool->lock);
	return job;
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
	struct pool_job *job;

	be_modest();
	while ((job = wait_for_job(worker->pool))) {
		atomic_fetch_add(&worker->pool->nr_busy, 1);
		job->run(job, &worker->pool->stop, worker->bounce);
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

int pool_start(struct pool *pool)
{
	for (; pool->nr_running < pool->nr_workers; pool->nr_running++) {
		struct worker *worker = &pool->workers[pool->nr_running];
		int r;

		worker->pool = pool;
		r = start_worker(worker);
		if (r) {
			pool_stop(pool);
			return -r;
		}
	}
	return 0;
}

void pool_stop(struct pool *pool)
{
	pthread_mutex_lock(&pool->lock);
	atomic_store(&pool->stop, true);
	pthread_cond_broadcast(&pool->wake);
	pthread_mutex_unlock(&pool->lock);
	while (pool->nr_running)
		pthread_join(pool->workers[--pool->nr_running].thread, NULL);
}

void pool_submit(struct pool *pool, struct pool_job *job)
{
	pthread_mutex_lock(&pool->lock);
	if (!job->queued) {
		job->queued = true;
		job->next = NULL;
		job->prev = pool->last;
		*(pool->last ? &pool->last->next : &pool->first) = job;
		pool->last = job;
		pthread_cond_signal(&pool->wake);
	}
	pthread_mutex_unlock(&pool->lock);
}

void pool_cancel(struct pool *pool, struct pool_job *job)
{
	pthread_mutex_lock(&pool->lock);
	if (job->queued)
		dequeue(pool, job);
	pthread_mutex_unlock(&pool->lock);
}
