// SPDX-License-Identifier: GPL-2.0-or-later
#include "fixture.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"
#include "harness.h"

static void bar_read(void *opaque, unsigned bar, uint64_t offset, void *buf, size_t count)
{
	struct fixture *fixture = opaque;

	if (bar == FIXTURE_RAM_BAR)
		memcpy(buf, fixture->ram + offset, count);
	else
		memset(buf, 0xee, count);
}

static void bar_write(void *opaque, unsigned bar, uint64_t offset, const void *buf, size_t count)
{
	struct fixture *fixture = opaque;

	if (bar == FIXTURE_RAM_BAR)
		memcpy(fixture->ram + offset, buf, count);
	else
		CHECK(!"a write to the MSI-X BAR outside its structures");
}

static void reset(void *opaque, enum viommu_reset_kind kind)
{
	struct fixture *fixture = opaque;

	atomic_store(&fixture->reset_was_clean,
		     !vfu_bus_master(fixture->vfu) &&
			     vfu_connected(fixture->vfu) == (kind != VIOMMU_RESET_LOST));
	atomic_fetch_add(&fixture->nr_resets[kind], 1);
}

static void bus_master(void *opaque, bool on)
{
	struct fixture *fixture = opaque;

	CHECK_EQ(vfu_bus_master(fixture->vfu), on);
	atomic_fetch_add(on ? &fixture->nr_bus_master_on : &fixture->nr_bus_master_off, 1);
}

static void config_read(void *opaque, unsigned offset, void *buf, size_t count)
{
	struct fixture *fixture = opaque;
	size_t at = offset - (fixture->cap + 16);

	if (CHECK(at + count <= sizeof(fixture->live)))
		memcpy(buf, fixture->live + at, count);
}

static void config_write(void *opaque, unsigned offset, const void *buf, size_t count)
{
	struct fixture *fixture = opaque;
	size_t at = offset - (fixture->cap + 16);

	if (CHECK(at + count <= sizeof(fixture->live)))
		memcpy(fixture->live + at, buf, count);
}

static struct vfu_config fixture_config(struct fixture *fixture)
{
	return (struct vfu_config){
		.socket_path = fixture->path,
		.name = "fixture",
		.source = FIXTURE_SOURCE,
		.endpoint = FIXTURE_ENDPOINT,
		.vendor_id = 0x1af4,
		.device_id = 0x1057,
		.subsystem_vendor_id = 0x1af4,
		.subsystem_id = 0x1100,
		.class_code = 0x080600,
		.revision = 1,
		.bars = {
			[FIXTURE_MSIX_BAR] = { .size = 4096 },
			[FIXTURE_RAM_BAR] = {
				.size = 16384,
				.is_64bit = true,
				.prefetchable = true,
			},
		},
		.intx = true,
		.msix_bar = FIXTURE_MSIX_BAR,
		.nr_vectors = FIXTURE_VECTORS,
		.msix_pba_offset = FIXTURE_PBA,
		.ops = {
			.bar_read = bar_read,
			.bar_write = bar_write,
			.reset = reset,
			.bus_master = bus_master,
			.config_read = config_read,
			.config_write = config_write,
		},
		.opaque = fixture,
		.reactor = fixture->reactor,
		.log = fixture->log,
		.dma_lock = &fixture->dma_lock,
	};
}

void fixture_start(struct fixture *fixture)
{
	/* From byte 2 on: the length, then the device's own. */
	static const uint8_t body[18] = { 20, 5, 0xa4 };
	struct vfu_config config;

	memset(fixture, 0, sizeof(*fixture));
	strcpy(fixture->dir, "/tmp/viommu-test.XXXXXX");
	REQUIRE(mkdtemp(fixture->dir));
	snprintf(fixture->path, sizeof(fixture->path), "%s/sock", fixture->dir);
	fixture->sock = -1;
	REQUIRE(!pthread_rwlock_init(&fixture->dma_lock, NULL));
	REQUIRE(!log_create(NULL, 4096, &fixture->log));
	REQUIRE(!reactor_create(fixture->log, &fixture->reactor));
	config = fixture_config(fixture);
	REQUIRE(!vfu_create(&config, &fixture->vfu));
	REQUIRE(!vfu_pci_cap(fixture->vfu, body, sizeof(body), 16, 4, &fixture->cap));
	REQUIRE(!vfu_listen(fixture->vfu));
	REQUIRE(!reactor_start(fixture->reactor));
}

void fixture_start_connected(struct fixture *fixture)
{
	fixture_start(fixture);
	fixture->sock = client_connect(fixture->path);
	REQUIRE(!client_version(fixture->sock));
	client_config_write(fixture->sock, 4, 0x0006, 2);
	REQUIRE(vfu_bus_master(fixture->vfu));
}

void fixture_stop(struct fixture *fixture)
{
	reactor_stop(fixture->reactor);
	vfu_destroy(fixture->vfu);
	reactor_destroy(fixture->reactor);
	log_destroy(fixture->log);
	pthread_rwlock_destroy(&fixture->dma_lock);
	if (fixture->sock >= 0)
		close(fixture->sock);
	CHECK(access(fixture->path, F_OK));
	CHECK(!rmdir(fixture->dir));
}

struct viommu_log_record fixture_wait_log(struct fixture *fixture, enum viommu_log_kind kind)
{
	struct viommu_log_record record;
	uint64_t dropped;

	/* The mask may have been set too late for the first record: hence the short waits. */
	log_set_event_mask(fixture->log, UINT64_MAX);
	for (int i = 0; i < 1000; i++) {
		struct pollfd pfd = { .fd = log_event_fd(fixture->log), .events = POLLIN };

		while (log_read(fixture->log, &fixture->log_seq, &record, 1, &dropped))
			if (record.kind == kind)
				return record;
		poll(&pfd, 1, 10);
		eventfd_count(pfd.fd);
	}
	REQUIRE(!"the awaited log record");
	return record;
}

uint64_t fixture_counter(struct fixture *fixture, enum viommu_counter counter)
{
	return __atomic_load_n(&log_header(fixture->log)->counters[counter], __ATOMIC_RELAXED);
}

int make_memfd(size_t size, bool sealed)
{
	int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	REQUIRE(fd >= 0 && !ftruncate(fd, (off_t)size));
	REQUIRE(!sealed || !fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	return fd;
}

int make_eventfd(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	REQUIRE(fd >= 0);
	return fd;
}

uint64_t eventfd_count(int fd)
{
	uint64_t count = 0;

	return read(fd, &count, sizeof(count)) == sizeof(count) ? count : 0;
}

uint64_t eventfd_wait(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };

	return poll(&pfd, 1, 10000) == 1 ? eventfd_count(fd) : 0;
}

unsigned int count_open_fds(void)
{
	unsigned int nr = 0;
	DIR *dir = opendir("/proc/self/fd");

	REQUIRE(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}
