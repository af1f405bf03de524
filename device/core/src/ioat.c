// SPDX-License-Identifier: GPL-2.0-or-later
/* The I/OAT endpoint: its life, its global registers, its interrupts. */
#include "ioat.h"

#include <string.h>

#include "ctx.h"
#include "regs.h"
#include "vfio_user.h"

#define GLOBAL_SIZE IOAT_CHANNEL(0)

/* --- interrupts; the lock is held --- */

static uint8_t read_intrctrl(const struct ioat *ioat)
{
	uint8_t value = ioat->intrctrl;

	if (ioat->attention)
		value |= IOAT_INTRCTRL_STATUS;
	if (ioat->attention && value & IOAT_INTRCTRL_MASTER_ENABLE)
		value |= IOAT_INTRCTRL_INTERRUPT;
	return value;
}

static bool wants_intx(const struct ioat *ioat)
{
	return !(ioat->intrctrl & IOAT_INTRCTRL_MSIX) &&
	       read_intrctrl(ioat) & IOAT_INTRCTRL_INTERRUPT;
}

static void update_intx(struct ioat *ioat, bool before)
{
	bool now = wants_intx(ioat);

	if (now && !before)
		ctx_irq_raise(ioat->endpoint.ctx, ioat->endpoint.vfu, ioat->endpoint.id, VFU_INTX);
	else if (before && !now)
		vfu_intx_deassert(ioat->endpoint.vfu);
}

void ioat_interrupt(struct ioat_channel *channel)
{
	struct ioat *ioat = channel->ioat;
	bool before = wants_intx(ioat);

	if (channel->control & IOAT_CHANCTRL_INT_REARM) {
		channel->irq_pending = true;
		return;
	}
	channel->irq_pending = false;
	channel->control |= IOAT_CHANCTRL_INT_REARM;
	ioat->attention |= 1u << channel->index;
	if (ioat->intrctrl & IOAT_INTRCTRL_MSIX)
		ctx_irq_raise(ioat->endpoint.ctx, ioat->endpoint.vfu, ioat->endpoint.id,
			      channel->index);
	else
		update_intx(ioat, before);
}

/* --- registers; reactor --- */

static void read_global(struct ioat *ioat, unsigned offset, void *buf, size_t count)
{
	uint8_t regs[GLOBAL_SIZE] = {
		[IOAT_CHANCNT] = ioat->nr_channels,
		[IOAT_XFERCAP] = IOAT_XFERCAP_VALUE,
		[IOAT_INTRCTRL] = read_intrctrl(ioat),
		[IOAT_CBVER] = IOAT_CBVER_VALUE,
	};

	regs_put(regs, IOAT_ATTNSTATUS, ioat->attention, 4);
	memcpy(buf, regs + offset, count);
	if (offset <= IOAT_ATTNSTATUS && offset + count > IOAT_ATTNSTATUS) {
		bool before = wants_intx(ioat);

		ioat->attention = 0;
		update_intx(ioat, before);
	}
}

static void write_global(struct ioat *ioat, unsigned offset, const uint8_t *buf, size_t count)
{
	bool before = wants_intx(ioat);

	if (offset > IOAT_INTRCTRL || offset + count <= IOAT_INTRCTRL)
		return;
	ioat->intrctrl = buf[IOAT_INTRCTRL - offset] &
			 (IOAT_INTRCTRL_MASTER_ENABLE | IOAT_INTRCTRL_MSIX);
	update_intx(ioat, before);
}

/* The block of registers at offset: *ret is its channel, or NULL for the global ones. */
static bool find_block(struct ioat *ioat, uint64_t offset, struct ioat_channel **ret)
{
	uint64_t block = offset / IOAT_CHANNEL_SIZE;

	if (block > ioat->nr_channels)
		return false;
	*ret = block ? &ioat->channels[block - 1] : NULL;
	return true;
}

/* No access goes beyond the block it begins in: registers do not lie across, and tools can wait. */
static size_t cut_to_block(uint64_t offset, size_t count)
{
	size_t left = IOAT_CHANNEL_SIZE - offset % IOAT_CHANNEL_SIZE;

	return count < left ? count : left;
}

static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count)
{
	struct ioat *ioat = opaque;
	struct ioat_channel *channel;

	(void)bar;
	memset(buf, 0, count);
	count = cut_to_block(offset, count);
	if (!find_block(ioat, offset, &channel))
		return;
	pthread_mutex_lock(&ioat->lock);
	if (channel)
		ioat_channel_read(channel, offset % IOAT_CHANNEL_SIZE, buf, count);
	else
		read_global(ioat, offset, buf, count);
	pthread_mutex_unlock(&ioat->lock);
}

static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count)
{
	struct ioat *ioat = opaque;
	struct ioat_channel *channel;
	uint8_t command = 0;

	(void)bar;
	count = cut_to_block(offset, count);
	if (!find_block(ioat, offset, &channel))
		return;
	pthread_mutex_lock(&ioat->lock);
	if (channel)
		ioat_channel_write(channel, offset % IOAT_CHANNEL_SIZE, buf, count);
	else
		write_global(ioat, offset, buf, count);
	pthread_mutex_unlock(&ioat->lock);
	if (channel)
		command = ioat_channel_command_of(offset % IOAT_CHANNEL_SIZE, buf, count);
	if (command)
		ioat_channel_command(channel, command);
}

/* --- life --- */

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	struct ioat *ioat = opaque;

	(void)kind; /* all are alike */
	for (unsigned i = 0; i < ioat->nr_channels; i++)
		ioat_channel_stop(&ioat->channels[i], true);
	pthread_mutex_lock(&ioat->lock);
	ioat->intrctrl = 0;
	ioat->attention = 0;
	vfu_intx_deassert(ioat->endpoint.vfu);
	pthread_mutex_unlock(&ioat->lock);
}

/* A channel at work ends there; what comes later finds bus mastering off. */
static void bus_master(void *opaque, bool on)
{
	struct ioat *ioat = opaque;

	for (unsigned i = 0; !on && i < ioat->nr_channels; i++) {
		struct ioat_channel *channel = &ioat->channels[i];
		bool active;

		pthread_mutex_lock(&ioat->lock);
		active = channel->state == IOAT_ACTIVE;
		pthread_mutex_unlock(&ioat->lock);
		if (active)
			ioat_channel_stop(channel, false);
	}
}

static int init(struct endpoint *endpoint, const struct viommu_endpoint_config *config,
		unsigned nr_vectors)
{
	struct ioat *ioat = (struct ioat *)endpoint;

	(void)config;
	/* Without MSI-X, all of them by INTx. */
	ioat->nr_channels = nr_vectors ?: IOAT_MAX_CHANNELS;
	pthread_mutex_init(&ioat->lock, NULL);
	for (unsigned i = 0; i < ioat->nr_channels; i++)
		ioat_channel_init(&ioat->channels[i], ioat, i);
	return 0;
}

static void deinit(struct endpoint *endpoint)
{
	pthread_mutex_destroy(&((struct ioat *)endpoint)->lock);
}

const struct endpoint_model ioat_model = {
	.size = sizeof(struct ioat),
	.default_vectors = IOAT_MAX_CHANNELS,
	.max_vectors = IOAT_MAX_CHANNELS,
	.pci = {
		.vendor_id = IOAT_VENDOR_ID,
		.device_id = IOAT_DEVICE_ID,
		.subsystem_vendor_id = IOAT_VENDOR_ID,
		.class_code = IOAT_CLASS,
		.revision = 4,
		.bars[IOAT_BAR] = { .size = IOAT_BAR_SIZE, .is_64bit = true },
		.intx = true,
		.msix_bar = IOAT_BAR,
		.msix_table_offset = IOAT_MSIX_TABLE,
		.msix_pba_offset = IOAT_MSIX_PBA,
		.ops = {
			.bar_read = bar_read,
			.bar_write = bar_write,
			.reset = reset,
			.bus_master = bus_master,
		},
	},
	.init = init,
	.deinit = deinit,
};
