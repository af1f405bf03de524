// SPDX-License-Identifier: GPL-2.0-or-later
#include "ctx.h"

#include <errno.h>
#include <stdlib.h>

#include "abortable_copy.h"
#include "endpoint_model.h"
#include "iommu.h"
#include "log.h"
#include "pool.h"
#include "ring_poll.h"
#include "reactor.h"
#include "vfio_user.h"

#define DEFAULT_WORKERS 2
#define MAX_WORKERS 64

static void init_locks(struct viommu_ctx *ctx)
{
	pthread_rwlockattr_t attr;

	/*
	 * An UNMAP must not wait for readers that keep coming: its guest spins with
	 * interrupts off.
	 */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&ctx->dma_lock, &attr);
	pthread_rwlock_init(&ctx->map_lock, &attr);
	pthread_rwlockattr_destroy(&attr);
	pthread_mutex_init(&ctx->lock, NULL);
	inject_init(&ctx->inject);
}

int viommu_ctx_create(const struct viommu_config *config, viommu_ctx_t **ret)
{
	unsigned nr_workers = config->nr_workers ?: DEFAULT_WORKERS;
	struct viommu_ctx *ctx;
	int r;

	if (nr_workers > MAX_WORKERS || config->poll_us > RING_POLL_MAX_US)
		return -EINVAL;
	ctx = calloc(1, sizeof(*ctx));
	if (!ctx)
		return -ENOMEM;
	init_locks(ctx);
	ctx->poll_us = config->poll_us;
	ctx->nr_cpus = config->nr_cpus;
	ctx->can_abort_copies = abortable_copy_init();
	r = log_create(config->log_path, config->log_capacity, &ctx->log);
	if (r == 0)
		r = reactor_create(ctx->log, &ctx->reactor);
	if (r == 0)
		r = pool_create(nr_workers, &ctx->pool);
	if (r < 0) {
		viommu_ctx_destroy(ctx);
		return r;
	}
	*ret = ctx;
	return 0;
}

static void stop(struct viommu_ctx *ctx)
{
	/* Workers first: one may be waiting for an answer that the reactor receives. */
	if (ctx->pool)
		pool_stop(ctx->pool);
	if (ctx->started)
		reactor_stop(ctx->reactor);
	ctx->started = false;
}

void viommu_ctx_destroy(viommu_ctx_t *ctx)
{
	if (!ctx)
		return;
	stop(ctx);
	/* IOMMUs first: they still know their endpoints. */
	for (uint32_t i = 0; i < ctx->nr_functions; i++)
		iommu_destroy(ctx->functions[i].iommu);
	for (uint32_t i = 0; i < ctx->nr_functions; i++)
		endpoint_destroy(ctx->functions[i].endpoint);
	free(ctx->functions);
	pool_destroy(ctx->pool);
	if (ctx->reactor)
		reactor_destroy(ctx->reactor);
	if (ctx->log)
		log_destroy(ctx->log);
	inject_deinit(&ctx->inject);
	pthread_mutex_destroy(&ctx->lock);
	pthread_rwlock_destroy(&ctx->map_lock);
	pthread_rwlock_destroy(&ctx->dma_lock);
	free(ctx);
}

/* Room for one more function; ctx->lock is held. */
static int reserve_function(struct viommu_ctx *ctx)
{
	struct ctx_function *functions;

	if (ctx->started)
		return -EBUSY;
	if (ctx->nr_functions == VIOMMU_NO_IOMMU)
		return -ENOSPC;
	functions = reallocarray(ctx->functions, ctx->nr_functions + 1, sizeof(*functions));
	if (!functions)
		return -ENOMEM;
	ctx->functions = functions;
	functions[ctx->nr_functions] = (struct ctx_function){ NULL, NULL };
	return 0;
}

int viommu_ctx_add_iommu(viommu_ctx_t *ctx, const struct viommu_iommu_config *config, uint32_t *ret)
{
	int r;

	pthread_mutex_lock(&ctx->lock);
	r = reserve_function(ctx);
	if (r == 0)
		r = iommu_create(ctx, ctx->nr_functions, config,
				 &ctx->functions[ctx->nr_functions].iommu);
	if (r == 0)
		*ret = ctx->nr_functions++;
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

/* The IOMMU that an endpoint names; NULL is a valid answer. */
static int resolve_iommu(const struct viommu_ctx *ctx, uint32_t index, struct iommu **ret)
{
	if (index == VIOMMU_NO_IOMMU) {
		*ret = NULL;
		return 0;
	}
	if (index >= ctx->nr_functions || !ctx->functions[index].iommu)
		return -ENOENT;
	*ret = ctx->functions[index].iommu;
	return 0;
}

int viommu_ctx_add_endpoint(viommu_ctx_t *ctx, const struct viommu_endpoint_config *config,
			    uint32_t *ret)
{
	struct iommu *iommu;
	int r;

	pthread_mutex_lock(&ctx->lock);
	r = resolve_iommu(ctx, config->iommu, &iommu);
	if (r == 0)
		r = reserve_function(ctx);
	if (r == 0)
		r = endpoint_create(ctx, iommu, ctx->nr_functions, config,
				    &ctx->functions[ctx->nr_functions].endpoint);
	if (r == 0)
		*ret = ctx->nr_functions++;
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

int viommu_ctx_add_id(viommu_ctx_t *ctx, const struct viommu_endpoint_config *config)
{
	struct iommu *iommu;
	int r;

	pthread_mutex_lock(&ctx->lock);
	r = ctx->started ? -EBUSY : resolve_iommu(ctx, config->iommu, &iommu);
	if (r == 0)
		r = iommu ? iommu_add_id(iommu, config) : -EINVAL;
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

static int listen_all(struct viommu_ctx *ctx)
{
	int r = 0;

	for (uint32_t i = 0; r == 0 && i < ctx->nr_functions; i++) {
		const struct ctx_function *function = &ctx->functions[i];

		r = vfu_listen(function->iommu ? function->iommu->vdev.vfu :
						 function->endpoint->vfu);
	}
	return r;
}

int viommu_ctx_start(viommu_ctx_t *ctx)
{
	int r;

	pthread_mutex_lock(&ctx->lock);
	r = ctx->started ? -EBUSY : listen_all(ctx);
	if (r == 0)
		r = pool_start(ctx->pool);
	if (r == 0)
		r = reactor_start(ctx->reactor);
	if (r == 0)
		ctx->started = true;
	pthread_mutex_unlock(&ctx->lock);
	return r;
}

void ctx_irq_raise(struct viommu_ctx *ctx, struct vfu *vfu, int64_t endpoint, int vector)
{
	const struct inject_target target = { .endpoint = endpoint, .domain = -1 };

	if (inject_hit(&ctx->inject, VIOMMU_INJECT_DROP_INTERRUPT, &target, NULL))
		return;
	/*
	 * Without a client, bus mastering or an eventfd there is nobody to interrupt:
	 * what the guest can poll is already in place.
	 */
	(void)vfu_irq_raise(vfu, vector);
}

/* A rule is gone: what it may have held back is looked at again. */
static void resume_queues(struct viommu_ctx *ctx)
{
	pthread_mutex_lock(&ctx->lock);
	for (uint32_t i = 0; i < ctx->nr_functions; i++) {
		if (ctx->functions[i].iommu)
			iommu_resume(ctx->functions[i].iommu);
	}
	pthread_mutex_unlock(&ctx->lock);
}

int viommu_ctx_inject_add(viommu_ctx_t *ctx, const struct viommu_inject_rule *rule, uint32_t *ret)
{
	return inject_add(&ctx->inject, rule, NULL, ret);
}

int viommu_ctx_inject_remove(viommu_ctx_t *ctx, uint32_t id)
{
	int r = inject_remove(&ctx->inject, id);

	if (r == 0)
		resume_queues(ctx);
	return r;
}

size_t viommu_ctx_inject_list(viommu_ctx_t *ctx, struct viommu_inject_info *buf, size_t max)
{
	return inject_list(&ctx->inject, buf, max);
}

int viommu_ctx_set_mutant(viommu_ctx_t *ctx, const char *name, bool on)
{
	int r = mutant_set(&ctx->inject, name, on);

	if (r == 0 && !on)
		resume_queues(ctx);
	return r;
}

const struct viommu_log_header *viommu_ctx_log(viommu_ctx_t *ctx)
{
	return log_header(ctx->log);
}

size_t viommu_ctx_log_read(viommu_ctx_t *ctx, uint64_t *seq, struct viommu_log_record *buf,
			   size_t max, uint64_t *dropped)
{
	return log_read(ctx->log, seq, buf, max, dropped);
}

int viommu_ctx_event_fd(viommu_ctx_t *ctx)
{
	return log_event_fd(ctx->log);
}

void viommu_ctx_set_event_mask(viommu_ctx_t *ctx, uint64_t mask)
{
	log_set_event_mask(ctx->log, mask);
}
