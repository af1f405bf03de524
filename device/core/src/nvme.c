// SPDX-License-Identifier: GPL-2.0-or-later
/* The NVMe controller: its life, its resets, its file. */
#include "nvme.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ctx.h"
#include "vfio_user.h"

#define DEFAULT_VECTORS 4
#define MAX_VECTORS 32

void nvme_controller_reset(struct nvme *nvme)
{
	for (unsigned i = 0; i < NVME_NR_QUEUES; i++)
		nvme_revoke(&nvme->sqs[i], true);
	pthread_mutex_lock(&nvme->lock);
	memset(nvme->cqs, 0, sizeof(nvme->cqs));
	memset(nvme->features, 0, sizeof(nvme->features));
	nvme->features[NVME_FEATURE_WRITE_CACHE] = 1;
	nvme->csts = 0;
	nvme->nr_events = 0;
	nvme->event = NVME_EVENT_NONE;
	nvme->event_masked = false;
	pthread_mutex_unlock(&nvme->lock);
}

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	struct nvme *nvme = opaque;

	(void)kind; /* all are alike */
	nvme_controller_reset(nvme);
	pthread_mutex_lock(&nvme->lock);
	nvme->cc = 0;
	nvme->aqa = 0;
	nvme->asq = 0;
	nvme->acq = 0;
	pthread_mutex_unlock(&nvme->lock);
}

static void bus_master(void *opaque, bool on)
{
	struct nvme *nvme = opaque;
	bool lost = false;

	for (unsigned i = 0; !on && i < NVME_NR_QUEUES; i++)
		lost |= nvme_revoke(&nvme->sqs[i], false);
	pthread_mutex_lock(&nvme->lock);
	/* Its completion will never come. */
	if (lost)
		nvme->csts |= NVME_CSTS_FATAL;
	for (unsigned i = 0; on && i < NVME_NR_QUEUES; i++)
		nvme_kick(&nvme->sqs[i]);
	pthread_mutex_unlock(&nvme->lock);
}

/* Two that write to one file would each find the other's blocks under its feet. */
static int open_image(struct nvme *nvme, const char *path)
{
	struct stat st;

	nvme->fd = open(path, (nvme->read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NONBLOCK);
	if (nvme->fd < 0 || fstat(nvme->fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || !st.st_size || st.st_size % NVME_BLOCK)
		return -EINVAL;
	if (flock(nvme->fd, (nvme->read_only ? LOCK_SH : LOCK_EX) | LOCK_NB) < 0)
		return -errno;
	nvme->nr_blocks = st.st_size / NVME_BLOCK;
	return 0;
}

static int init(struct endpoint *endpoint, const struct viommu_endpoint_config *config,
		unsigned nr_vectors)
{
	struct nvme *nvme = (struct nvme *)endpoint;

	nvme->nr_vectors = nr_vectors;
	nvme->fd = -1;
	nvme->read_only = config->read_only;
	nvme->event = NVME_EVENT_NONE;
	nvme->features[NVME_FEATURE_WRITE_CACHE] = 1;
	nvme->shutdown.run = nvme_run_shutdown;
	pthread_mutex_init(&nvme->lock, NULL);
	for (unsigned i = 0; i < NVME_NR_QUEUES; i++) {
		nvme->sqs[i].nvme = nvme;
		nvme->sqs[i].id = i;
		nvme->sqs[i].job.run = nvme_run_queue;
	}
	/* It has no other interrupts. */
	if (!config->image || !nr_vectors)
		return -EINVAL;
	return open_image(nvme, config->image);
}

static void deinit(struct endpoint *endpoint)
{
	struct nvme *nvme = (struct nvme *)endpoint;

	if (nvme->fd >= 0)
		close(nvme->fd);
	pthread_mutex_destroy(&nvme->lock);
}

const struct endpoint_model nvme_model = {
	.size = sizeof(struct nvme),
	.default_vectors = DEFAULT_VECTORS,
	.max_vectors = MAX_VECTORS,
	.pci = {
		.vendor_id = NVME_VENDOR_ID,
		.device_id = NVME_DEVICE_ID,
		.subsystem_vendor_id = NVME_VENDOR_ID,
		.subsystem_id = NVME_DEVICE_ID,
		.class_code = NVME_CLASS,
		.revision = 1,
		.bars[NVME_BAR] = { .size = NVME_BAR_SIZE, .is_64bit = true },
		.msix_bar = NVME_BAR,
		.msix_table_offset = NVME_MSIX_TABLE,
		.msix_pba_offset = NVME_MSIX_PBA,
		.ops = {
			.bar_read = nvme_bar_read,
			.bar_write = nvme_bar_write,
			.reset = reset,
			.bus_master = bus_master,
		},
	},
	.init = init,
	.deinit = deinit,
};
