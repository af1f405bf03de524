// SPDX-License-Identifier: GPL-2.0-or-later
/* Physical Region Pages (4.3): where a command's data lie in the guest. */
#include "nvme.h"

#include "regs.h"

#define ENTRY 8u

bool nvme_access(struct nvme_run *run, uint64_t iova, void *buf, size_t len, bool is_write)
{
	size_t moved = 0;

	run->status = dma_slice(&run->transfer, iova, buf, len, is_write, NULL, &moved);
	return run->status == DMA_STATUS_OK;
}

uint16_t nvme_prp_init(struct nvme_run *run, struct nvme_prp *prp, uint64_t total)
{
	const struct nvme_command *command = &run->command;
	uint64_t offset = command->prp1 % NVME_PAGE;

	if (command->prp1 % 4)
		return NVME_PRP_OFFSET | NVME_DNR;
	*prp = (struct nvme_prp){
		.total = total,
		.page = command->prp1,
		.left = total < NVME_PAGE - offset ? total : NVME_PAGE - offset,
	};
	if (total - prp->left > NVME_PAGE) {
		/* A list, which may begin anywhere in its page. */
		prp->list = command->prp2;
		if (prp->list % ENTRY)
			return NVME_PRP_OFFSET | NVME_DNR;
	} else if (total > prp->left) {
		/* The second page itself: as a list of one that has been read. */
		prp->entries[0] = command->prp2;
		prp->nr = 1;
	}
	return NVME_SUCCESS;
}

/*
 * The next page of the list. "The last entry of it is a pointer to the next if
 * more entries are needed than fit." Every page of the list but the first yields
 * 511 entries, so a list that leads to itself ends with the data, too.
 */
static uint16_t read_list(struct nvme_run *run, struct nvme_prp *prp)
{
	uint64_t left = prp->total - prp->offset;
	unsigned nr = (left + NVME_PAGE - 1) / NVME_PAGE;
	unsigned room = (NVME_PAGE - prp->list % NVME_PAGE) / ENTRY;
	bool is_chained = nr > room;

	if (is_chained)
		nr = room;
	if (!nvme_access(run, prp->list, prp->entries, nr * ENTRY, false))
		return NVME_DATA_TRANSFER;
	for (unsigned i = 0; i < nr; i++)
		prp->entries[i] = le64toh(prp->entries[i]);
	prp->next = 0;
	prp->nr = nr;
	if (is_chained) {
		prp->list = prp->entries[--prp->nr];
		if (prp->list % NVME_PAGE)
			return NVME_PRP_OFFSET | NVME_DNR;
	}
	return NVME_SUCCESS;
}

/* On to the page behind; prp->offset is where it begins. */
static uint16_t next_page(struct nvme_run *run, struct nvme_prp *prp)
{
	uint64_t left = prp->total - prp->offset;
	uint16_t status;

	while (prp->next == prp->nr) {
		status = read_list(run, prp);
		if (status != NVME_SUCCESS)
			return status;
	}
	prp->page = prp->entries[prp->next++];
	prp->left = left < NVME_PAGE ? left : NVME_PAGE;
	return prp->page % NVME_PAGE ? NVME_PRP_OFFSET | NVME_DNR : NVME_SUCCESS;
}

uint16_t nvme_prp_move(struct nvme_run *run, struct nvme_prp *prp, void *buf, size_t len,
		       bool is_write)
{
	for (size_t done = 0; done < len;) {
		size_t piece = len - done;

		if (!prp->left) {
			uint16_t status = next_page(run, prp);

			if (status != NVME_SUCCESS)
				return status;
		}
		if (piece > prp->left)
			piece = prp->left;
		if (!nvme_access(run, prp->page, (uint8_t *)buf + done, piece, is_write))
			return NVME_DATA_TRANSFER;
		prp->page += piece;
		prp->left -= piece;
		prp->offset += piece;
		done += piece;
	}
	return NVME_SUCCESS;
}

uint16_t nvme_transfer(struct nvme_run *run, void *buf, size_t len, bool is_write)
{
	struct nvme_prp prp;
	uint16_t status = nvme_prp_init(run, &prp, len);

	run->length = len;
	run->is_write = is_write;
	return status == NVME_SUCCESS ? nvme_prp_move(run, &prp, buf, len, is_write) : status;
}
