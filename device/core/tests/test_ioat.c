// SPDX-License-Identifier: GPL-2.0-or-later
/* The I/OAT endpoint, driven as Linux' ioatdma and its VFIO selftest drive one. */
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "ctx.h"
#include "fixture.h"
#include "harness.h"
#include "ioat.h"
#include "rig.h"

#define EP RIG_EP1
#define DOMAIN 1
/* 256 KiB of guest memory that the endpoint reaches; around it, nothing. */
#define IOVA 0x100000ull
#define MAPPED 0x40000ull
#define UNMAPPED (IOVA + MAPPED)
/* Offsets in it. */
#define CHAIN 0x0ull
#define COMPLETION 0x2000ull
#define SOURCE 0x10000ull
#define TARGET 0x20000ull
#define RUN                                                                                    \
	(IOAT_CHANCTRL_INT_REARM | IOAT_CHANCTRL_ERR_INT_EN | IOAT_CHANCTRL_ANY_ERR_ABORT_EN | \
	 IOAT_CHANCTRL_ERR_COMPLETION_EN)

static const struct viommu_endpoint_config ioat = { .model = VIOMMU_MODEL_IOAT };
static struct rig rig;
static int eventfds[IOAT_MAX_CHANNELS];

struct desc {
	uint32_t length, control;
	uint64_t source, target, next;
};

static uint8_t *ram(uint64_t offset)
{
	return rig.ram + RIG_DATA + offset;
}

static uint64_t reg(unsigned channel, unsigned offset, unsigned count)
{
	return rig_ep_read(&rig, EP, IOAT_CHANNEL(channel) + offset, count);
}

static void set_reg(unsigned channel, unsigned offset, uint64_t value, unsigned count)
{
	rig_ep_write(&rig, EP, IOAT_CHANNEL(channel) + offset, value, count);
}

static unsigned state(unsigned channel)
{
	return reg(channel, IOAT_CHANSTS, 8) & IOAT_CHANSTS_STATE;
}

static unsigned wait_state(unsigned channel)
{
	unsigned now;

	for (unsigned i = 0; (now = state(channel)) == IOAT_ACTIVE; i++) {
		REQUIRE(i < 100000);
		usleep(100);
	}
	return now;
}

static void start(void)
{
	rig_start_model(&rig, &ioat);
	REQUIRE(rig_attach(&rig, DOMAIN, RIG_ID1, 0) == VIRTIO_IOMMU_S_OK);
	REQUIRE(rig_map(&rig, DOMAIN, IOVA, IOVA + MAPPED - 1, RIG_RAM + RIG_DATA, 3) ==
		VIRTIO_IOMMU_S_OK);
	for (unsigned i = 0; i < IOAT_MAX_CHANNELS; i++)
		eventfds[i] = make_eventfd();
	REQUIRE(!client_set_irqs(rig.endpoints[EP], 0x24, 2, 0, IOAT_MAX_CHANNELS, eventfds,
				 IOAT_MAX_CHANNELS));
	rig_ep_write(&rig, EP, IOAT_INTRCTRL, IOAT_INTRCTRL_MSIX, 1);
	for (unsigned i = 0; i < 0x10000; i++)
		ram(SOURCE)[i] = i * 13 + i / 251;
}

static void stop(void)
{
	for (unsigned i = 0; i < IOAT_MAX_CHANNELS; i++)
		close(eventfds[i]);
	rig_stop(&rig);
}

/* Descriptor n of the ring that lies at CHAIN. */
static void put_desc(unsigned n, struct desc desc)
{
	uint8_t raw[IOAT_DESCRIPTOR_SIZE] = { 0 };

	memcpy(raw, &desc, sizeof(desc));
	memcpy(ram(CHAIN) + n * sizeof(raw), raw, sizeof(raw));
}

static uint64_t desc_at(unsigned n)
{
	return IOVA + CHAIN + n * IOAT_DESCRIPTOR_SIZE;
}

static struct desc copy_desc(unsigned n, uint32_t length, uint32_t control)
{
	return (struct desc){ length, control, IOVA + SOURCE, IOVA + TARGET, desc_at(n + 1) };
}

static void begin(unsigned channel, uint64_t chain, uint16_t count)
{
	set_reg(channel, IOAT_CHANCTRL, RUN, 2);
	set_reg(channel, IOAT_CHANCMP, IOVA + COMPLETION + 64 * channel, 8);
	set_reg(channel, IOAT_CHAINADDR, chain & 0xffffffff, 4);
	set_reg(channel, IOAT_CHAINADDR + 4, chain >> 32, 4);
	set_reg(channel, IOAT_DMACOUNT, count, 2);
}

static uint64_t completion(unsigned channel)
{
	uint64_t value;

	memcpy(&value, ram(COMPLETION) + 64 * channel, sizeof(value));
	return value;
}

TEST(registers_that_a_driver_looks_at)
{
	start();
	CHECK_EQ(client_config_read(rig.endpoints[EP], 0, 4), 0x20218086);
	CHECK_EQ(client_config_read(rig.endpoints[EP], 8, 4) >> 8, IOAT_CLASS);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_CHANCNT, 1), 4);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_XFERCAP, 1), 16);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_CBVER, 1), 0x33);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_DMACAPABILITY, 4), 0);
	CHECK_EQ(reg(0, IOAT_DMA_COMP, 2), 2);
	CHECK_EQ(state(3), IOAT_HALTED);
	/* Behind the last channel there is nothing. */
	set_reg(4, IOAT_CHANERRMSK, 0xffff, 4);
	CHECK_EQ(reg(4, IOAT_CHANERRMSK, 4), 0);
	/* Half a register is none. */
	set_reg(0, IOAT_CHANERRMSK, 0xffff, 4);
	set_reg(0, IOAT_CHANERRMSK, 0, 2);
	CHECK_EQ(reg(0, IOAT_CHANERRMSK, 4), 0xffff);
	CHECK_EQ(reg(0, IOAT_CHANERRMSK, 1), 0xff);
	stop();
}

/* As Linux begins: a null descriptor with everything on, then copies behind it. */
TEST(chain_goes_on_with_the_count)
{
	const uint32_t all = IOAT_CONTROL_INTERRUPT | IOAT_CONTROL_COMPLETION;

	start();
	put_desc(0, (struct desc){ 8, all | IOAT_CONTROL_NULL, 0, 0, desc_at(1) });
	put_desc(1, copy_desc(1, 2000, 0));
	put_desc(2, copy_desc(2, 65536, all | IOAT_CONTROL_FENCE));
	begin(0, desc_at(0), 1);
	CHECK_EQ(wait_state(0), IOAT_DONE);
	CHECK_EQ(completion(0), desc_at(0) | IOAT_DONE);
	CHECK_EQ(eventfd_wait(eventfds[0]), 1);
	CHECK_EQ(*ram(TARGET), 0);
	set_reg(0, IOAT_CHANCTRL, RUN, 2);
	set_reg(0, IOAT_DMACOUNT, 3, 2);
	CHECK_EQ(wait_state(0), IOAT_DONE);
	CHECK(!memcmp(ram(TARGET), ram(SOURCE), 65536));
	CHECK_EQ(reg(0, IOAT_CHANSTS, 8), desc_at(2) | IOAT_DONE);
	CHECK_EQ(completion(0), desc_at(2) | IOAT_DONE);
	CHECK_EQ(eventfd_wait(eventfds[0]), 1);
	CHECK_EQ(eventfd_count(eventfds[1]), 0);
	CHECK_EQ(reg(0, IOAT_CHANERR, 4), 0);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS), 3);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_ERRORS), 0);
	stop();
}

/* The selftest's storm: one descriptor that is its own successor. */
TEST(descriptor_that_follows_itself)
{
	struct desc desc = copy_desc(0, 64, 0);

	start();
	desc.next = desc_at(0);
	put_desc(0, desc);
	begin(2, desc_at(0), 0xffff);
	CHECK_EQ(wait_state(2), IOAT_DONE);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS), 0xffff);
	CHECK_EQ(eventfd_count(eventfds[2]), 0);
	set_reg(2, IOAT_CHANCMD, IOAT_CHANCMD_SUSPEND, 1);
	CHECK_EQ(state(2), IOAT_SUSPENDED);
	/* A new chain, and the count begins anew. */
	desc.control = IOAT_CONTROL_INTERRUPT;
	put_desc(0, desc);
	begin(2, desc_at(0), 1);
	CHECK_EQ(wait_state(2), IOAT_DONE);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS), 0x10000);
	CHECK_EQ(eventfd_wait(eventfds[2]), 1);
	stop();
}

TEST(interrupt_waits_for_its_rearming)
{
	start();
	for (unsigned i = 0; i < 3; i++)
		put_desc(i, copy_desc(i, 8, IOAT_CONTROL_INTERRUPT));
	begin(1, desc_at(0), 3);
	CHECK_EQ(wait_state(1), IOAT_DONE);
	CHECK_EQ(eventfd_wait(eventfds[1]), 1);
	CHECK(reg(1, IOAT_CHANCTRL, 2) & IOAT_CHANCTRL_INT_REARM);
	set_reg(1, IOAT_CHANCTRL, RUN, 2);
	CHECK_EQ(eventfd_wait(eventfds[1]), 1);
	set_reg(1, IOAT_CHANCTRL, RUN, 2);
	CHECK_EQ(eventfd_count(eventfds[1]), 0);
	stop();
}

TEST(intx_follows_attnstatus)
{
	int fd = make_eventfd();

	start();
	REQUIRE(!client_set_irqs(rig.endpoints[EP], 0x24, 0, 0, 1, &fd, 1));
	rig_ep_write(&rig, EP, IOAT_INTRCTRL, IOAT_INTRCTRL_MASTER_ENABLE, 1);
	put_desc(0, copy_desc(0, 8, IOAT_CONTROL_INTERRUPT));
	begin(3, desc_at(0), 1);
	CHECK_EQ(eventfd_wait(fd), 1);
	CHECK_EQ(wait_state(3), IOAT_DONE);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_INTRCTRL, 1), 7);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_ATTNSTATUS, 4), 1u << 3);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_ATTNSTATUS, 4), 0);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_INTRCTRL, 1), 1);
	/* Deasserted: the unmask finds nothing. */
	REQUIRE(!client_set_irqs(rig.endpoints[EP], 0x11, 0, 0, 1, NULL, 0));
	CHECK_EQ(eventfd_count(fd), 0);
	close(fd);
	stop();
}

TEST(without_msix_there_are_as_many_channels)
{
	const struct viommu_endpoint_config config = {
		.model = VIOMMU_MODEL_IOAT,
		.no_msix = true,
	};

	rig_start_model(&rig, &config);
	CHECK_EQ(client_find_cap(rig.endpoints[EP], 0x11), 0);
	CHECK_EQ(rig_ep_read(&rig, EP, IOAT_CHANCNT, 1), IOAT_MAX_CHANNELS);
	rig_stop(&rig);
}

/* Halts with the error, tells of it, and goes on after a reset. */
static void check_halt(unsigned channel, uint32_t error, uint64_t completed)
{
	CHECK_EQ(wait_state(channel), IOAT_HALTED);
	CHECK_EQ(reg(channel, IOAT_CHANERR, 4), error);
	CHECK_EQ(reg(channel, IOAT_CHANSTS, 8), completed | IOAT_HALTED);
	CHECK_EQ(eventfd_wait(eventfds[channel]), 1);
	if (!(error & IOAT_CHANERR_COMPLETION_ADDRESS))
		CHECK_EQ(completion(channel), completed | IOAT_HALTED);
	/* No count gets it out of there. */
	set_reg(channel, IOAT_DMACOUNT, 7, 2);
	CHECK_EQ(state(channel), IOAT_HALTED);
	set_reg(channel, IOAT_CHANERR, error, 4);
	CHECK_EQ(reg(channel, IOAT_CHANERR, 4), 0);
	set_reg(channel, IOAT_CHANCMD, IOAT_CHANCMD_RESET, 1);
	CHECK_EQ(reg(channel, IOAT_CHANCMD, 1), 0);
	CHECK_EQ(reg(channel, IOAT_CHANSTS, 8), IOAT_HALTED);
}

static void check_fault(uint64_t addr, bool is_write)
{
	struct viommu_log_record record = rig_wait_log(&rig, VIOMMU_LOG_FAULT);

	CHECK_EQ(record.start, addr);
	CHECK_EQ(record.flags & VIRTIO_IOMMU_FAULT_F_WRITE, is_write ? 2 : 0);
	CHECK_EQ(record.endpoint, RIG_ID1);
}

TEST(refused_accesses_halt_the_channel)
{
	struct desc desc;

	start();
	put_desc(0, copy_desc(0, 64, 0));
	desc = copy_desc(1, 64, 0);
	desc.source = UNMAPPED;
	put_desc(1, desc);
	begin(0, desc_at(0), 2);
	check_halt(0, IOAT_CHANERR_READ_DATA, desc_at(0));
	check_fault(UNMAPPED, false);

	/* The first byte beyond the mapping. */
	desc = copy_desc(0, 64, 0);
	desc.target = UNMAPPED - 32;
	put_desc(0, desc);
	begin(0, desc_at(0), 1);
	check_halt(0, IOAT_CHANERR_WRITE_DATA, 0);
	check_fault(UNMAPPED, true);

	begin(0, UNMAPPED, 1);
	check_halt(0, IOAT_CHANERR_CHAIN_ADDRESS, 0);
	check_fault(UNMAPPED, false);

	desc = copy_desc(0, 64, 0);
	desc.next = UNMAPPED + 0x40;
	put_desc(0, desc);
	begin(0, desc_at(0), 2);
	check_halt(0, IOAT_CHANERR_NEXT_ADDRESS, desc_at(0));
	check_fault(UNMAPPED + 0x40, false);

	put_desc(0, copy_desc(0, 64, IOAT_CONTROL_COMPLETION));
	set_reg(0, IOAT_CHANCTRL, RUN, 2);
	set_reg(0, IOAT_CHANCMP, UNMAPPED, 8);
	set_reg(0, IOAT_CHAINADDR, desc_at(0), 8);
	set_reg(0, IOAT_DMACOUNT, 1, 2);
	check_halt(0, IOAT_CHANERR_COMPLETION_ADDRESS, 0);
	check_fault(UNMAPPED, true);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_ERRORS), 5);
	stop();
}

TEST(descriptors_with_mistakes_halt_the_channel)
{
	struct desc desc = copy_desc(0, 64, 0x87u << 24);

	start();
	put_desc(0, desc);
	begin(0, desc_at(0), 1);
	check_halt(0, IOAT_CHANERR_CONTROL, 0);
	put_desc(0, copy_desc(0, 0, IOAT_CONTROL_NULL));
	begin(0, desc_at(0), 1);
	check_halt(0, IOAT_CHANERR_LENGTH, 0);
	put_desc(0, copy_desc(0, 65537, 0));
	begin(0, desc_at(0), 1);
	check_halt(0, IOAT_CHANERR_LENGTH, 0);
	begin(0, desc_at(0) + 8, 1);
	check_halt(0, IOAT_CHANERR_CHAIN_ADDRESS, 0);
	desc = copy_desc(0, 64, 0);
	desc.next += 8;
	put_desc(0, desc);
	begin(0, desc_at(0), 2);
	check_halt(0, IOAT_CHANERR_NEXT_ALIGNMENT, desc_at(0));
	/* None of them is the IOMMU's matter. */
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULT_MAPPING), 0);
	set_reg(0, IOAT_CHANCMD, IOAT_CHANCMD_RESET | IOAT_CHANCMD_SUSPEND, 1);
	CHECK_EQ(reg(0, IOAT_CHANERR, 4), IOAT_CHANERR_COMMAND);
	stop();
}

TEST(suspended_channel_goes_on_where_it_was)
{
	struct desc desc = copy_desc(0, 4096, 0);

	start();
	desc.next = desc_at(0);
	put_desc(0, desc);
	begin(0, desc_at(0), 20000);
	set_reg(0, IOAT_CHANCMD, IOAT_CHANCMD_SUSPEND, 1);
	CHECK_EQ(wait_state(0), IOAT_SUSPENDED);
	CHECK(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS) < 20000);
	set_reg(0, IOAT_DMACOUNT, 20001, 2);
	CHECK_EQ(state(0), IOAT_SUSPENDED);
	set_reg(0, IOAT_CHANCMD, IOAT_CHANCMD_RESUME, 1);
	CHECK_EQ(wait_state(0), IOAT_DONE);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS), 20001);
	stop();
}

/* A storm is cut off: when the answer is there, no byte moves any more, and nothing is told. */
static void check_cut_off(void (*cut)(void))
{
	struct desc desc = copy_desc(0, 4096, IOAT_CONTROL_INTERRUPT | IOAT_CONTROL_COMPLETION);
	static uint8_t mark[4096];
	unsigned nr_late = 0;

	memset(mark, 0xee, sizeof(mark));
	start();
	desc.next = desc_at(0);
	put_desc(0, desc);
	for (unsigned round = 0; round < 20; round++) {
		uint64_t state_after;

		begin(0, desc_at(0), 0xffff);
		usleep(round * 50);
		cut();
		memcpy(ram(TARGET), mark, sizeof(mark));
		memcpy(ram(COMPLETION), mark, 8);
		/* Whoever is starved for long comes when all of it is done: no cut, then. */
		state_after = state(0);
		nr_late += state_after == IOAT_DONE;
		CHECK(state_after == IOAT_HALTED || state_after == IOAT_DONE);
		usleep(500);
		CHECK(!memcmp(ram(TARGET), mark, sizeof(mark)));
		CHECK(!memcmp(ram(COMPLETION), mark, 8));
		CHECK_EQ(state(0), state_after);
		client_config_write(rig.endpoints[EP], 4, 6, 2);
		set_reg(0, IOAT_CHANERR, 0xffffffff, 4);
	}
	CHECK(nr_late < 20);
	put_desc(0, copy_desc(0, 64, 0));
	begin(0, desc_at(0), 1);
	CHECK_EQ(wait_state(0), IOAT_DONE);
	stop();
}

static void cut_by_reset(void)
{
	set_reg(0, IOAT_CHANCMD, IOAT_CHANCMD_RESET, 1);
}

static void cut_by_abort(void)
{
	set_reg(0, IOAT_CHANCMD, IOAT_CHANCMD_ABORT, 1);
}

static void cut_by_device_reset(void)
{
	REQUIRE(!client_reset(rig.endpoints[EP]));
}

static void cut_by_bus_master(void)
{
	client_config_write(rig.endpoints[EP], 4, 2, 2);
}

TEST(channel_reset_cuts_off)
{
	check_cut_off(cut_by_reset);
}

TEST(abort_cuts_off)
{
	check_cut_off(cut_by_abort);
}

TEST(device_reset_cuts_off)
{
	check_cut_off(cut_by_device_reset);
}

TEST(bus_master_off_cuts_off)
{
	check_cut_off(cut_by_bus_master);
}

TEST(channels_share_the_workers)
{
	start();
	for (unsigned i = 0; i < IOAT_MAX_CHANNELS; i++) {
		struct desc desc = copy_desc(16 * i, 4096, 0);

		desc.target += i * 4096;
		desc.next = desc_at(16 * i);
		put_desc(16 * i, desc);
	}
	for (unsigned i = 0; i < IOAT_MAX_CHANNELS; i++)
		begin(i, desc_at(16 * i), 2000 + i);
	for (unsigned i = 0; i < IOAT_MAX_CHANNELS; i++) {
		CHECK_EQ(wait_state(i), IOAT_DONE);
		CHECK(!memcmp(ram(TARGET + i * 4096), ram(SOURCE), 4096));
	}
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_DMA_TRANSACTIONS), 8006);
	stop();
}
