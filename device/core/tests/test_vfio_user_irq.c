// SPDX-License-Identifier: GPL-2.0-or-later
/* SET_IRQS in all its forms, and what raising an interrupt does. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

enum { INTX = 0, MSI = 1, MSIX = 2, ERR = 3 };
enum {
	SET_EVENTFD = 0x24,
	DISABLE = 0x21,
	TRIGGER_BOOL = 0x22,
	MASK = 0x09,
	UNMASK = 0x11,
	UNMASK_EVENTFD = 0x14,
};

static void enable_msix(int sock)
{
	unsigned int msix = client_find_cap(sock, 0x11);

	client_config_write(sock, msix + 2, 0x8000, 2);
}

static uint8_t read_pba(int sock)
{
	uint8_t pba[8];

	REQUIRE(!client_region_read(sock, FIXTURE_MSIX_BAR, FIXTURE_PBA, pba, sizeof(pba)));
	CHECK_EQ(pba[1] | pba[7], 0);
	return pba[0];
}

TEST(msix_vector_fires_its_eventfd)
{
	struct viommu_log_record record;
	struct fixture fixture;
	int fds[3];

	fixture_start_connected(&fixture);
	for (int i = 0; i < 3; i++)
		fds[i] = make_eventfd();
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 1, 3, fds, 3), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 2), 0);
	CHECK_EQ(eventfd_count(fds[1]), 1);
	CHECK_EQ(eventfd_count(fds[0]) + eventfd_count(fds[2]), 0);
	record = fixture_wait_log(&fixture, VIOMMU_LOG_IRQ);
	CHECK_EQ(record.start, 2);
	CHECK_EQ(record.endpoint, FIXTURE_ENDPOINT);
	CHECK_EQ(fixture_counter(&fixture, VIOMMU_COUNT_IRQS), 1);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), -ENOENT);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, FIXTURE_VECTORS), -EINVAL);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, -2), -EINVAL);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	fixture_stop(&fixture);
}

TEST(msix_eventfds_are_replaced_cleared_and_disabled)
{
	struct fixture fixture;
	int old = make_eventfd(), new = make_eventfd(), both[2] = { old, new };
	unsigned int nr_fds;

	fixture_start_connected(&fixture);
	nr_fds = count_open_fds();
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &old, 1), 0);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &new, 1), 0);
	CHECK_EQ(count_open_fds(), nr_fds + 1);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
	CHECK_EQ(eventfd_count(old), 0);
	CHECK_EQ(eventfd_count(new), 1);
	/* Without descriptors: clear. */
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 4, NULL, 0), 0);
	CHECK_EQ(count_open_fds(), nr_fds);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), -ENOENT);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 2, 2, both, 2), 0);
	CHECK_EQ(count_open_fds(), nr_fds + 2);
	CHECK_EQ(client_set_irqs(fixture.sock, DISABLE, MSIX, 0, 0, NULL, 0), 0);
	CHECK_EQ(count_open_fds(), nr_fds);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 3), -ENOENT);
	close(old);
	close(new);
	fixture_stop(&fixture);
}

TEST(msix_pending_vector_fires_when_its_eventfd_comes)
{
	struct fixture fixture;
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	/* Not enabled: an interrupt is lost, not kept. */
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 3), -ENOENT);
	CHECK_EQ(read_pba(fixture.sock), 0);
	enable_msix(fixture.sock);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 3), -ENOENT);
	CHECK_EQ(read_pba(fixture.sock), 8);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 3, 1, &fd, 1), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	CHECK_EQ(read_pba(fixture.sock), 0);
	close(fd);
	fixture_stop(&fixture);
}

TEST(msix_needs_bus_mastering)
{
	struct fixture fixture;
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &fd, 1), 0);
	client_config_write(fixture.sock, 4, 2, 2);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), -ENODEV);
	CHECK_EQ(eventfd_count(fd), 0);
	/* The eventfd outlives a reset: QEMU does not send it again. */
	CHECK_EQ(client_reset(fixture.sock), 0);
	client_config_write(fixture.sock, 4, 6, 2);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	close(fd);
	fixture_stop(&fixture);
}

TEST(msix_client_triggers_vectors_itself)
{
	uint8_t request[23] = { 0 };
	struct vfio_user_irq_set set = {
		.argsz = 23,
		.flags = TRIGGER_BOOL,
		.index = MSIX,
		.start = 0,
		.count = 3,
	};
	struct fixture fixture;
	int fds[3];

	fixture_start_connected(&fixture);
	for (int i = 0; i < 3; i++)
		fds[i] = make_eventfd();
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 3, fds, 3), 0);
	CHECK_EQ(client_set_irqs(fixture.sock, DISABLE, MSIX, 0, 1, NULL, 0), 0);
	CHECK_EQ(eventfd_count(fds[0]), 1);
	memcpy(request, &set, sizeof(set));
	request[20] = request[22] = 1;
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_SET_IRQS, request, 23, NULL, 0), 0);
	CHECK_EQ(eventfd_count(fds[0]), 1);
	CHECK_EQ(eventfd_count(fds[1]), 0);
	CHECK_EQ(eventfd_count(fds[2]), 1);
	/* One byte short. */
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DEVICE_SET_IRQS, request, 22, NULL, 0),
		 -EINVAL);
	for (int i = 0; i < 3; i++)
		close(fds[i]);
	fixture_stop(&fixture);
}

TEST(intx_fires_once_until_unmasked)
{
	struct fixture fixture;
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), -ENOENT);
	vfu_intx_deassert(fixture.vfu);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, INTX, 0, 1, &fd, 1), 0);
	CHECK_EQ(eventfd_count(fd), 0);
	CHECK_EQ(client_config_read(fixture.sock, 6, 1) & 8, 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	CHECK_EQ(client_config_read(fixture.sock, 6, 1) & 8, 8);
	/* Still asserted at the end of the interrupt: again. */
	CHECK_EQ(client_set_irqs(fixture.sock, UNMASK, INTX, 0, 1, NULL, 0), 0);
	CHECK_EQ(eventfd_count(fd), 1);
	vfu_intx_deassert(fixture.vfu);
	CHECK_EQ(client_config_read(fixture.sock, 6, 1) & 8, 0);
	CHECK_EQ(client_set_irqs(fixture.sock, UNMASK, INTX, 0, 1, NULL, 0), 0);
	CHECK_EQ(eventfd_count(fd), 0);
	close(fd);
	fixture_stop(&fixture);
}

TEST(intx_obeys_mask_and_interrupt_disable)
{
	struct fixture fixture;
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, INTX, 0, 1, &fd, 1), 0);
	CHECK_EQ(client_set_irqs(fixture.sock, MASK, INTX, 0, 1, NULL, 0), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), 0);
	CHECK_EQ(eventfd_count(fd), 0);
	client_config_write(fixture.sock, 4, 0x0406, 2);
	CHECK_EQ(client_set_irqs(fixture.sock, UNMASK, INTX, 0, 1, NULL, 0), 0);
	CHECK_EQ(eventfd_count(fd), 0);
	CHECK_EQ(client_config_read(fixture.sock, 6, 1) & 8, 8);
	client_config_write(fixture.sock, 4, 0x0006, 2);
	CHECK_EQ(eventfd_count(fd), 1);
	CHECK_EQ(client_set_irqs(fixture.sock, DISABLE, INTX, 0, 0, NULL, 0), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), -ENOENT);
	close(fd);
	fixture_stop(&fixture);
}

TEST(intx_unmask_eventfd_refires)
{
	struct fixture fixture;
	int fd = make_eventfd(), unmask = make_eventfd();
	uint64_t one = 1;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, INTX, 0, 1, &fd, 1), 0);
	CHECK_EQ(client_set_irqs(fixture.sock, UNMASK_EVENTFD, INTX, 0, 1, &unmask, 1), 0);
	CHECK_EQ(vfu_irq_raise(fixture.vfu, VFU_INTX), 0);
	CHECK_EQ(eventfd_wait(fd), 1);
	CHECK_EQ(write(unmask, &one, sizeof(one)), sizeof(one));
	CHECK_EQ(eventfd_wait(fd), 1);
	/* Taken back: the reactor forgets the descriptor. */
	CHECK_EQ(client_set_irqs(fixture.sock, UNMASK_EVENTFD, INTX, 0, 1, NULL, 0), 0);
	CHECK_EQ(write(unmask, &one, sizeof(one)), sizeof(one));
	CHECK_EQ(client_config_read(fixture.sock, 0x3d, 1), 1);
	CHECK_EQ(eventfd_count(fd), 0);
	close(fd);
	close(unmask);
	fixture_stop(&fixture);
}

TEST(set_irqs_refuses_nonsense)
{
	struct fixture fixture;
	int fds[5], file = make_memfd(4096, true);
	unsigned int nr_fds;

	fixture_start_connected(&fixture);
	for (int i = 0; i < 5; i++)
		fds[i] = make_eventfd();
	nr_fds = count_open_fds();
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, ERR, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSI, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, UINT32_MAX, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 5, fds, 5), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 4, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, UINT32_MAX, 2, fds, 2), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 1, UINT32_MAX, NULL, 0), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 3, fds, 2), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 0, NULL, 0), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, DISABLE, MSIX, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, MASK, MSIX, 0, 1, NULL, 0), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, MASK | UNMASK, INTX, 0, 1, NULL, 0), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, 0x0c, INTX, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, 0x27, MSIX, 0, 1, fds, 1), -EINVAL);
	CHECK_EQ(client_set_irqs(fixture.sock, 0x1000024, MSIX, 0, 1, fds, 1), -EINVAL);
	/* Eight bytes of ours have no place in a file. */
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &file, 1), -EBADF);
	CHECK_EQ(count_open_fds(), nr_fds);
	for (int i = 0; i < 5; i++)
		close(fds[i]);
	close(file);
	fixture_stop(&fixture);
}

/* Makes the counter of the eventfd full, and its descriptor blocking: the server must not hang. */
TEST(msix_full_eventfd_does_not_block)
{
	uint64_t full = UINT64_MAX - 1;
	struct fixture fixture;
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	REQUIRE(!fcntl(fd, F_SETFL, 0));
	CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &fd, 1), 0);
	CHECK_EQ(write(fd, &full, sizeof(full)), sizeof(full));
	CHECK_EQ(vfu_irq_raise(fixture.vfu, 0), 0);
	CHECK_EQ(eventfd_count(fd), full);
	close(fd);
	fixture_stop(&fixture);
}

static void *raise_many(void *opaque)
{
	struct fixture *fixture = opaque;

	for (int i = 0; i < 5000; i++) {
		vfu_irq_raise(fixture->vfu, i % FIXTURE_VECTORS);
		vfu_irq_raise(fixture->vfu, VFU_INTX);
		vfu_intx_deassert(fixture->vfu);
	}
	return NULL;
}

TEST(irqs_raised_while_the_client_reconfigures)
{
	struct fixture fixture;
	pthread_t threads[2];
	int fd = make_eventfd();

	fixture_start_connected(&fixture);
	enable_msix(fixture.sock);
	for (int i = 0; i < 2; i++)
		REQUIRE(!pthread_create(&threads[i], NULL, raise_many, &fixture));
	for (int i = 0; i < 100; i++) {
		CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, MSIX, 0, 1, &fd, 1), 0);
		CHECK_EQ(client_set_irqs(fixture.sock, SET_EVENTFD, INTX, 0, 1, &fd, 1), 0);
		CHECK_EQ(client_set_irqs(fixture.sock, UNMASK, INTX, 0, 1, NULL, 0), 0);
		client_config_write(fixture.sock, 4, i & 1 ? 0x406 : 0x006, 2);
		CHECK_EQ(client_set_irqs(fixture.sock, DISABLE, MSIX, 0, 0, NULL, 0), 0);
		CHECK_EQ(client_reset(fixture.sock), 0);
	}
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	close(fd);
	fixture_stop(&fixture);
}
