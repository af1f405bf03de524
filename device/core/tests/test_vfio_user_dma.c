// SPDX-License-Identifier: GPL-2.0-or-later
/* DMA_MAP and DMA_UNMAP. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

#define RW 3

static void *lookup(struct fixture *fixture, uint64_t addr, unsigned int prot)
{
	size_t len = 1;
	void *host;

	pthread_rwlock_rdlock(&fixture->dma_lock);
	host = memory_lookup(vfu_memory(fixture->vfu), addr, &len, prot);
	pthread_rwlock_unlock(&fixture->dma_lock);
	return host;
}

TEST(dma_map_shares_the_clients_memory)
{
	struct viommu_log_record record;
	struct fixture fixture;
	int fd = make_memfd(0x4000, true);
	unsigned int nr_fds;
	char *ours;

	fixture_start_connected(&fixture);
	ours = mmap(NULL, 0x4000, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	REQUIRE(ours != MAP_FAILED);
	nr_fds = count_open_fds();
	CHECK_EQ(client_dma_map(fixture.sock, 0x10000, 0x2000, RW, fd, 0x1000), 0);
	CHECK_EQ(client_dma_map(fixture.sock, 0x12000, 0x1000, 1, fd, 0x3000), 0);
	CHECK_EQ(count_open_fds(), nr_fds);
	strcpy(ours + 0x1000, "shared");
	REQUIRE(lookup(&fixture, 0x10000, RW));
	CHECK(!strcmp(lookup(&fixture, 0x10000, RW), "shared"));
	CHECK(!lookup(&fixture, 0x12000, MEMORY_WRITE));
	CHECK(lookup(&fixture, 0x12000, MEMORY_READ));

	record = fixture_wait_log(&fixture, VIOMMU_LOG_DMA_MAP);
	CHECK_EQ(record.start, 0x10000);
	CHECK_EQ(record.end, 0x11fff);
	CHECK_EQ(record.flags, 7);
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_DMA_MAP).flags, 5);
	CHECK_EQ(client_dma_unmap(fixture.sock, 0x10000, 0x2000), 0);
	CHECK(!lookup(&fixture, 0x10000, MEMORY_READ));
	record = fixture_wait_log(&fixture, VIOMMU_LOG_DMA_UNMAP);
	CHECK_EQ(record.start, 0x10000);
	CHECK_EQ(record.end, 0x11fff);
	munmap(ours, 0x4000);
	close(fd);
	fixture_stop(&fixture);
}

/* The seal that was asked for is for ever; what a client may still do costs nobody but it. */
TEST(dma_map_outlives_what_is_done_to_the_file)
{
	struct fixture fixture;
	int fd = make_memfd(0x4000, true);
	volatile char *host;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x4000, RW, fd, 0), 0);
	host = lookup(&fixture, 0x3000, RW);
	REQUIRE(host);
	*host = 1;
	CHECK(ftruncate(fd, 0) < 0 && errno == EPERM);
	CHECK(ftruncate(fd, 0x3fff) < 0 && errno == EPERM);
	CHECK_EQ(*host, 1);
	REQUIRE(!fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 0x4000));
	CHECK_EQ(*host, 0);
	*host = 2;
	CHECK_EQ(*host, 2);
	close(fd);
	fixture_stop(&fixture);
}

TEST(dma_map_without_descriptor_is_accepted)
{
	struct fixture fixture;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0xfffc0000, 0x40000, 1, -1, 0), 0);
	CHECK(!lookup(&fixture, 0xfffc0000, MEMORY_READ));
	CHECK_EQ(client_dma_unmap(fixture.sock, 0xfffc0000, 0x40000), 0);
	fixture_stop(&fixture);
}

TEST(dma_map_refuses_nonsense)
{
	struct vfio_user_dma_map map = { .argsz = 32, .flags = RW, .address = 0, .size = 0x1000 };
	struct fixture fixture;
	int fd = make_memfd(0x1000, true), unsealed = make_memfd(0x1000, false);
	int both[2] = { fd, fd };

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, RW, unsealed, 0), -EPERM);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x2000, RW, fd, 0), -EINVAL);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0, RW, fd, 0), -EINVAL);
	CHECK_EQ(client_dma_map(fixture.sock, UINT64_MAX, 2, RW, -1, 0), -EINVAL);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, 4, fd, 0), -EINVAL);
	CHECK_EQ(client_call_fds(fixture.sock, VFIO_USER_DMA_MAP, &map, 32, both, 2, NULL, 0),
		 -EINVAL);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_MAP, &map, 31, NULL, 0), -EINVAL);
	map.argsz = 31;
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_MAP, &map, 32, NULL, 0), -EINVAL);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, RW, fd, 0), 0);
	CHECK_EQ(client_dma_map(fixture.sock, 0x800, 0x1000, RW, -1, 0), -EEXIST);
	CHECK_EQ(fixture_wait_log(&fixture, VIOMMU_LOG_DMA_MAP).status, EPERM);
	close(fd);
	close(unsealed);
	fixture_stop(&fixture);
}

TEST(dma_unmap_one_several_or_all)
{
	struct vfio_user_dma_unmap all = { .argsz = sizeof(all), .flags = 2 };
	struct fixture fixture;

	fixture_start_connected(&fixture);
	for (uint64_t i = 0; i < 8; i++)
		CHECK_EQ(client_dma_map(fixture.sock, i << 12, 0x1000, RW, -1, 0), 0);
	CHECK_EQ(client_dma_unmap(fixture.sock, 0x800, 0x1000), -EINVAL);
	CHECK_EQ(client_dma_unmap(fixture.sock, 0x9000, 0x1000), -ENOENT);
	CHECK_EQ(client_dma_unmap(fixture.sock, 0, 0x1000), 0);
	/* What QEMU does when its own IOMMU is switched off. */
	CHECK_EQ(client_dma_unmap(fixture.sock, 0, 0x4000), 0);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x4000, RW, -1, 0), 0);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_UNMAP, &all, sizeof(all), NULL, 0), 0);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x100000, RW, -1, 0), 0);
	all.size = 0x1000;
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_UNMAP, &all, sizeof(all), NULL, 0),
		 -EINVAL);
	all.flags = 1;
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_UNMAP, &all, sizeof(all), NULL, 0),
		 -EINVAL);
	CHECK_EQ(client_call(fixture.sock, VFIO_USER_DMA_UNMAP, &all, 23, NULL, 0), -EINVAL);
	fixture_stop(&fixture);
}

/* The reader holds a slice: the reply must not come before it is done. */
TEST(dma_unmap_waits_for_dma_in_flight)
{
	struct vfio_user_dma_unmap unmap = { .argsz = sizeof(unmap), .size = 0x1000 };
	struct vfio_user_header header = { .id = 5, .command = VFIO_USER_DMA_UNMAP };
	struct fixture fixture;
	int fd = make_memfd(0x1000, true);
	uint64_t nr_messages;
	size_t len = 1;

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, RW, fd, 0), 0);
	nr_messages = fixture_counter(&fixture, VIOMMU_COUNT_MESSAGES);
	pthread_rwlock_rdlock(&fixture.dma_lock);
	client_send(fixture.sock, header, &unmap, sizeof(unmap), NULL, 0);
	while (fixture_counter(&fixture, VIOMMU_COUNT_MESSAGES) == nr_messages)
		usleep(1000);
	usleep(20000); /* time for a wrong answer */
	CHECK_EQ(recv(fixture.sock, &header, 1, MSG_DONTWAIT), -1);
	CHECK(memory_lookup(vfu_memory(fixture.vfu), 0, &len, RW));
	pthread_rwlock_unlock(&fixture.dma_lock);
	CHECK_EQ(client_receive(fixture.sock, &header, NULL, 0), 0);
	CHECK_EQ(header.flags, VFIO_USER_REPLY);
	close(fd);
	fixture_stop(&fixture);
}

TEST(dma_maps_of_a_client_die_with_it)
{
	struct fixture fixture;
	int fd = make_memfd(0x1000, true);

	fixture_start_connected(&fixture);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, RW, fd, 0), 0);
	/* A reset is no reason to lose them. */
	CHECK_EQ(client_reset(fixture.sock), 0);
	CHECK(lookup(&fixture, 0, RW));
	close(fixture.sock);
	fixture_wait_log(&fixture, VIOMMU_LOG_CLIENT_GONE);
	CHECK(!lookup(&fixture, 0, RW));
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	CHECK_EQ(client_dma_map(fixture.sock, 0, 0x1000, RW, fd, 0), 0);
	close(fd);
	fixture_stop(&fixture);
}
