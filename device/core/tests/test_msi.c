// SPDX-License-Identifier: GPL-2.0-or-later
/* MSI: the capability, its eventfds, and DMA writes that are interrupts. */
#include <errno.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"

#define NR_MSI 4
#define CAP_MSI 0x05
#define CONTROL 2
#define ADDRESS 4
#define ADDRESS_HIGH 8
#define DATA 12
#define ENABLE_4 0x21 /* with four vectors */
#define ENABLE_1 0x01
#define ADDR (RIG_MSI + 0x40)
#define MESSAGE 0x4124u
#define SET_EVENTFD 0x24
#define DISABLE 0x21
#define MSI 1

static struct rig rig;
static int sock, fds[NR_MSI];
static unsigned cap;

/* Endpoint 0, whose IOMMU lets everything through but the reserved regions. */
static void start(uint16_t control)
{
	rig_start_ready(&rig, &(struct viommu_iommu_config){ .bypass = 1 });
	sock = rig.endpoints[RIG_EP0];
	for (int i = 0; i < NR_MSI; i++)
		fds[i] = make_eventfd();
	cap = client_find_cap(sock, CAP_MSI);
	REQUIRE(cap);
	REQUIRE(!client_set_irqs(sock, SET_EVENTFD, MSI, 0, NR_MSI, fds, NR_MSI));
	client_config_write(sock, cap + ADDRESS, ADDR, 4);
	client_config_write(sock, cap + ADDRESS_HIGH, 0, 4);
	client_config_write(sock, cap + DATA, MESSAGE, 2);
	client_config_write(sock, cap + CONTROL, control, 2);
}

static void stop(void)
{
	for (int i = 0; i < NR_MSI; i++)
		close(fds[i]);
	rig_stop(&rig);
}

static void send_message(uint64_t addr, uint32_t data)
{
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, addr, data, 4), DMA_STATUS_OK);
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_MSI_WRITE).target, data);
}

/* One bit for each vector that was raised since the last look, once each. */
static unsigned raised(void)
{
	unsigned mask = 0;

	for (int i = 0; i < NR_MSI; i++) {
		uint64_t count = eventfd_count(fds[i]);

		CHECK(count <= 1);
		mask |= (count > 0) << i;
	}
	return mask;
}

TEST(msi_capability_keeps_what_may_be_written)
{
	start(0);
	CHECK_EQ(client_config_read(sock, cap + CONTROL, 2), 0x84); /* 64 bits, four vectors */
	client_config_write(sock, cap + CONTROL, 0xffff, 2);
	CHECK_EQ(client_config_read(sock, cap + CONTROL, 2), 0xf5);
	client_config_write(sock, cap + ADDRESS, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, cap + ADDRESS, 4), 0xfffffffc);
	client_config_write(sock, cap + DATA, 0xffffffff, 4);
	CHECK_EQ(client_config_read(sock, cap + DATA, 4), 0xffff);
	REQUIRE(!client_reset(sock));
	CHECK_EQ(client_config_read(sock, cap + CONTROL, 2), 0x84);
	CHECK_EQ(client_config_read(sock, cap + ADDRESS, 4), 0);
	/* The virtio-iommu has MSI-X only. */
	CHECK_EQ(client_find_cap(rig.iommu, CAP_MSI), 0);
	CHECK_EQ(client_set_irqs(rig.iommu, SET_EVENTFD, MSI, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(sock, SET_EVENTFD, MSI, 1, NR_MSI, fds, NR_MSI), -EINVAL);
	stop();
}

TEST(R5_msi_write_raises_the_vector_it_means)
{
	start(ENABLE_4);
	for (unsigned vector = 0; vector < NR_MSI; vector++) {
		send_message(ADDR, MESSAGE + vector);
		CHECK_EQ(raised(), 1u << vector);
		CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_IRQ).start, vector);
	}
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_IRQS), NR_MSI);
	/* Consumed all the same: another address, data of others, the upper half set. */
	send_message(ADDR + 4, MESSAGE);
	send_message(ADDR, MESSAGE + NR_MSI);
	send_message(ADDR, MESSAGE - 1);
	send_message(ADDR, MESSAGE | 0x10000);
	CHECK_EQ(raised(), 0);
	/* One vector: then the low bits count. */
	client_config_write(sock, cap + CONTROL, ENABLE_1, 2);
	send_message(ADDR, MESSAGE + 1);
	CHECK_EQ(raised(), 0);
	send_message(ADDR, MESSAGE);
	CHECK_EQ(raised(), 1);
	stop();
}

TEST(R5_msi_write_is_consumed_without_a_listener)
{
	start(0);
	send_message(ADDR, MESSAGE); /* not enabled */
	client_config_write(sock, cap + CONTROL, ENABLE_4, 2);
	REQUIRE(!client_set_irqs(sock, DISABLE, MSI, 0, 0, NULL, 0));
	send_message(ADDR, MESSAGE); /* no eventfd */
	CHECK_EQ(raised(), 0);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_IRQS), 0);
	/* After a reset nothing is enabled, whatever eventfds there are. */
	REQUIRE(!client_set_irqs(sock, SET_EVENTFD, MSI, 0, NR_MSI, fds, NR_MSI));
	REQUIRE(!client_reset(sock));
	client_config_write(sock, 4, 6, 2);
	send_message(ADDR, MESSAGE);
	CHECK_EQ(raised(), 0);
	/* Without bus mastering there is no write. */
	client_config_write(sock, cap + ADDRESS, ADDR, 4);
	client_config_write(sock, cap + DATA, MESSAGE, 2);
	client_config_write(sock, cap + CONTROL, ENABLE_4, 2);
	send_message(ADDR, MESSAGE);
	CHECK_EQ(raised(), 1);
	client_config_write(sock, 4, 2, 2);
	CHECK_EQ(rig_dma(&rig, RIG_EP0, DMA_OP_FILL, ADDR, MESSAGE, 4), DMA_STATUS_NO_BUS_MASTER);
	CHECK_EQ(raised(), 0);
	stop();
}

TEST(msi_is_how_the_engine_interrupts_if_enabled)
{
	int msix = make_eventfd();

	start(0);
	REQUIRE(!client_set_irqs(sock, SET_EVENTFD, 2, 3, 1, &msix, 1));
	rig_ep_write(&rig, RIG_EP0, DMA_ENGINE_IRQ_TRIGGER, 3, 4);
	CHECK(eventfd_count(msix) == 1 && raised() == 0);
	client_config_write(sock, cap + CONTROL, ENABLE_4, 2);
	rig_ep_write(&rig, RIG_EP0, DMA_ENGINE_IRQ_TRIGGER, 3, 4);
	CHECK(eventfd_count(msix) == 0 && raised() == 8);
	/* Fewer vectors than asked for: shared. */
	client_config_write(sock, cap + CONTROL, 0x11, 2);
	rig_ep_write(&rig, RIG_EP0, DMA_ENGINE_IRQ_TRIGGER, 3, 4);
	CHECK_EQ(raised(), 2);
	close(msix);
	stop();
}

TEST(msi_is_dropped_by_rule)
{
	const struct viommu_inject_rule rule = {
		.action = VIOMMU_INJECT_DROP_INTERRUPT,
		.endpoint = RIG_ID0,
		.domain = -1,
		.count = 1,
	};
	uint32_t id = 0;

	start(ENABLE_4);
	REQUIRE(!viommu_ctx_inject_add(rig.ctx, &rule, &id));
	send_message(ADDR, MESSAGE);
	CHECK_EQ(raised(), 0);
	send_message(ADDR, MESSAGE);
	CHECK_EQ(raised(), 1);
	stop();
}
