// SPDX-License-Identifier: GPL-2.0-or-later
/* Commands that concern blocks (6): the file behind them. */
#include "nvme.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "regs.h"

#define RANGE_SIZE 16u
#define MAX_RANGES 256u

uint16_t nvme_flush(struct nvme *nvme)
{
	return !nvme->read_only && fdatasync(nvme->fd) < 0 ? NVME_WRITE_FAULT : NVME_SUCCESS;
}

void nvme_run_shutdown(struct pool_job *job, const atomic_bool *stop, uint8_t *bounce)
{
	struct nvme *nvme = (struct nvme *)((char *)job - offsetof(struct nvme, shutdown));

	(void)stop;
	(void)bounce;
	nvme_flush(nvme);
	pthread_mutex_lock(&nvme->lock);
	/* A reset may have come in between. */
	if (nvme->csts & NVME_CSTS_SHUTDOWN_RUNS)
		nvme->csts ^= NVME_CSTS_SHUTDOWN_RUNS | NVME_CSTS_SHUTDOWN_DONE;
	pthread_mutex_unlock(&nvme->lock);
}

static bool in_range(const struct nvme *nvme, uint64_t lba, uint64_t nr)
{
	return nr <= nvme->nr_blocks && lba <= nvme->nr_blocks - nr;
}

static uint64_t first_block(const struct nvme_run *run)
{
	return run->command.dwords[0] | (uint64_t)run->command.dwords[1] << 32;
}

static uint64_t nr_blocks(const struct nvme_run *run)
{
	return (run->command.dwords[2] & 0xffff) + 1;
}

/* A file that has become shorter is a medium that cannot be read. */
static uint16_t read_file(struct nvme *nvme, uint8_t *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t nr = pread(nvme->fd, buf, len, offset);

		if (nr < 0 && errno == EINTR)
			continue;
		if (nr <= 0)
			return NVME_READ_ERROR;
		buf += nr;
		len -= nr;
		offset += nr;
	}
	return NVME_SUCCESS;
}

static uint16_t write_file(struct nvme *nvme, const uint8_t *buf, size_t len, uint64_t offset)
{
	while (len) {
		ssize_t nr = pwrite(nvme->fd, buf, len, offset);

		if (nr < 0 && errno == EINTR)
			continue;
		if (nr <= 0)
			return nr < 0 && errno == ENOSPC ? NVME_CAPACITY : NVME_WRITE_FAULT;
		buf += nr;
		len -= nr;
		offset += nr;
	}
	return NVME_SUCCESS;
}

/* Whether the command has been taken away: then the file is left alone. */
static bool is_void(struct nvme_run *run)
{
	bool mine;

	pthread_mutex_lock(&run->nvme->lock);
	mine = nvme_is_mine(run);
	pthread_mutex_unlock(&run->nvme->lock);
	return !mine;
}

static uint16_t move_piece(struct nvme_run *run, struct nvme_prp *prp, size_t len, uint64_t media)
{
	uint16_t status;

	if (run->is_write) {
		status = read_file(run->nvme, run->bounce, len, media);
		return status == NVME_SUCCESS ? nvme_prp_move(run, prp, run->bounce, len, true) :
						status;
	}
	status = nvme_prp_move(run, prp, run->bounce, len, false);
	if (status == NVME_SUCCESS && is_void(run))
		status = NVME_DATA_TRANSFER;
	return status == NVME_SUCCESS ? write_file(run->nvme, run->bounce, len, media) : status;
}

/* Without a write cache, or if the command asks for it: what is written is there. */
static bool wants_flush(struct nvme_run *run)
{
	bool write_through;

	pthread_mutex_lock(&run->nvme->lock);
	write_through = !(run->nvme->features[NVME_FEATURE_WRITE_CACHE] & 1);
	pthread_mutex_unlock(&run->nvme->lock);
	return write_through || run->command.dwords[2] & NVME_IO_FUA;
}

static uint16_t move(struct nvme_run *run, bool is_read)
{
	uint64_t total = nr_blocks(run) * NVME_BLOCK;
	struct nvme_prp prp;
	uint16_t status;

	if (total > NVME_MAX_DATA)
		return NVME_INVALID_FIELD | NVME_DNR;
	if (!in_range(run->nvme, first_block(run), nr_blocks(run)))
		return NVME_LBA_RANGE | NVME_DNR;
	if (!is_read && run->nvme->read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	run->length = total;
	run->media = first_block(run) * NVME_BLOCK;
	run->is_write = is_read;
	status = nvme_prp_init(run, &prp, total);
	for (uint64_t done = 0; status == NVME_SUCCESS && done < total;) {
		size_t len = total - done < DMA_SLICE ? total - done : DMA_SLICE;

		status = move_piece(run, &prp, len, run->media + done);
		done += len;
	}
	if (status == NVME_SUCCESS && !is_read && wants_flush(run))
		status = nvme_flush(run->nvme);
	return status;
}

/* A hole reads as zeroes; where the file cannot have one, they are written. */
static uint16_t clear_blocks(struct nvme_run *run, uint64_t lba, uint64_t nr)
{
	uint64_t offset = lba * NVME_BLOCK, len = nr * NVME_BLOCK;
	uint16_t status = NVME_SUCCESS;

	if (is_void(run))
		return NVME_DATA_TRANSFER;
	if (fallocate(run->nvme->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len) == 0)
		return NVME_SUCCESS;
	memset(run->bounce, 0, DMA_SLICE);
	for (; status == NVME_SUCCESS && len; len -= len < DMA_SLICE ? len : DMA_SLICE) {
		status = write_file(run->nvme, run->bounce, len < DMA_SLICE ? len : DMA_SLICE,
				    offset);
		offset += DMA_SLICE;
	}
	return status;
}

static uint16_t write_zeroes(struct nvme_run *run)
{
	uint16_t status;

	if (!in_range(run->nvme, first_block(run), nr_blocks(run)))
		return NVME_LBA_RANGE | NVME_DNR;
	if (run->nvme->read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	status = clear_blocks(run, first_block(run), nr_blocks(run));
	if (status == NVME_SUCCESS && wants_flush(run))
		status = nvme_flush(run->nvme);
	return status;
}

/* Only deallocation means something to a file; the rest are hints. */
static uint16_t manage_dataset(struct nvme_run *run)
{
	unsigned nr = (run->command.dwords[0] & 0xff) + 1;
	uint8_t ranges[MAX_RANGES * RANGE_SIZE];
	uint16_t status = nvme_transfer(run, ranges, nr * RANGE_SIZE, false);

	if (status != NVME_SUCCESS || !(run->command.dwords[1] & NVME_DATASET_DEALLOCATE))
		return status;
	if (run->nvme->read_only)
		return NVME_WRITE_PROTECTED | NVME_DNR;
	/* All are checked before the first has an effect. */
	for (unsigned i = 0; i < nr; i++) {
		if (!in_range(run->nvme, regs_get(ranges, i * RANGE_SIZE + 8, 8),
			      regs_get(ranges, i * RANGE_SIZE + 4, 4)))
			return NVME_LBA_RANGE | NVME_DNR;
	}
	for (unsigned i = 0; i < nr && status == NVME_SUCCESS; i++) {
		uint64_t blocks = regs_get(ranges, i * RANGE_SIZE + 4, 4);

		if (blocks)
			status = clear_blocks(run, regs_get(ranges, i * RANGE_SIZE + 8, 8), blocks);
	}
	return status;
}

uint16_t nvme_io(struct nvme_run *run)
{
	uint32_t nsid = run->command.nsid;
	bool is_flush = run->command.opcode == NVME_IO_FLUSH;

	if (nsid != 1 && !(is_flush && nsid == NVME_ALL_NAMESPACES))
		return NVME_INVALID_NAMESPACE | NVME_DNR;
	switch (run->command.opcode) {
	case NVME_IO_FLUSH:
		return nvme_flush(run->nvme);
	case NVME_IO_WRITE:
		return move(run, false);
	case NVME_IO_READ:
		return move(run, true);
	case NVME_IO_WRITE_ZEROES:
		return write_zeroes(run);
	case NVME_IO_DATASET:
		return manage_dataset(run);
	default:
		return NVME_INVALID_OPCODE | NVME_DNR;
	}
}
