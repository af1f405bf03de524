// SPDX-License-Identifier: GPL-2.0-or-later
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fixture.h"
#include "harness.h"
#include "memory.h"

#define RW (MEMORY_READ | MEMORY_WRITE)

static struct memory *make_memory(void)
{
	struct memory *memory;

	REQUIRE(!memory_create(&memory));
	return memory;
}

/* Lines of /proc/self/maps that show a memfd of make_memfd(). */
static unsigned int count_mappings(void)
{
	FILE *file = fopen("/proc/self/maps", "r");
	unsigned int nr = 0;
	char line[512];

	REQUIRE(file);
	while (fgets(line, sizeof(line), file))
		nr += strstr(line, "/memfd:test") != NULL;
	fclose(file);
	return nr;
}

TEST(memory_lookup_cuts_to_the_range)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x10000, true);
	size_t len = 0x10000;
	uint8_t *host;

	CHECK_EQ(memory_map(memory, 0x100000, 0x4000, RW, fd, 0x2000), 0);
	CHECK_EQ(pwrite(fd, "mark", 4, 0x2010), 4);
	host = memory_lookup(memory, 0x100010, &len, MEMORY_READ);
	REQUIRE(host);
	CHECK(!memcmp(host, "mark", 4));
	CHECK_EQ(len, 0x3ff0);
	len = 8;
	CHECK(memory_lookup(memory, 0x103ffc, &len, RW) == host + 0x3fec);
	CHECK_EQ(len, 4);
	CHECK(!memory_lookup(memory, 0xfffff, &len, MEMORY_READ));
	CHECK(!memory_lookup(memory, 0x104000, &len, MEMORY_READ));
	close(fd);
	memory_destroy(memory);
}

TEST(memory_lookup_respects_protection)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x3000, true);
	size_t len = 1;

	CHECK_EQ(memory_map(memory, 0, 0x1000, MEMORY_READ, fd, 0), 0);
	CHECK_EQ(memory_map(memory, 0x1000, 0x1000, MEMORY_WRITE, fd, 0x1000), 0);
	CHECK_EQ(memory_map(memory, 0x2000, 0x1000, RW, -1, 0), 0);
	CHECK(memory_lookup(memory, 0, &len, MEMORY_READ));
	CHECK(!memory_lookup(memory, 0, &len, MEMORY_WRITE));
	CHECK(!memory_lookup(memory, 0x1000, &len, MEMORY_READ));
	CHECK(memory_lookup(memory, 0x1000, &len, MEMORY_WRITE));
	CHECK(!memory_lookup(memory, 0x2000, &len, MEMORY_READ)); /* none of ours */
	CHECK_EQ(len, 1);
	close(fd);
	memory_destroy(memory);
	memory_destroy(NULL);
}

TEST(memory_map_refuses_nonsense)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x3000, true), pipe_fds[2];

	REQUIRE(!pipe2(pipe_fds, O_CLOEXEC));
	CHECK_EQ(memory_map(memory, 0, 0, RW, fd, 0), -EINVAL);
	CHECK_EQ(memory_map(memory, UINT64_MAX, 2, RW, fd, 0), -EINVAL);
	CHECK_EQ(memory_map(memory, 0x1000, UINT64_MAX, RW, -1, 0), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x1000, 8, fd, 0), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x3001, RW, fd, 0), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, fd, 0x2001), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, fd, UINT64_MAX), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, pipe_fds[0], 0), -EINVAL);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, 1000, 0), -EBADF);
	/* The very top of the address space is an address like any other. */
	CHECK_EQ(memory_map(memory, UINT64_MAX - 0xfff, 0x1000, RW, fd, 0), 0);
	CHECK_EQ(memory_unmap(memory, UINT64_MAX - 0xfff, 0x1000), 0);
	close(pipe_fds[0]);
	close(pipe_fds[1]);
	close(fd);
	memory_destroy(memory);
}

TEST(memory_map_refuses_files_that_may_shrink)
{
	struct memory *memory = make_memory();
	int unsealed = make_memfd(0x1000, false);
	FILE *file = tmpfile();

	REQUIRE(file && !ftruncate(fileno(file), 0x1000));
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, unsealed, 0), -EPERM);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, fileno(file), 0), -EPERM);
	REQUIRE(!fcntl(unsealed, F_ADD_SEALS, F_SEAL_SHRINK));
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, unsealed, 0), 0);
	fclose(file);
	close(unsealed);
	memory_destroy(memory);
}

TEST(memory_map_refuses_overlaps)
{
	struct memory *memory = make_memory();

	CHECK_EQ(memory_map(memory, 0x1000, 0x2000, RW, -1, 0), 0);
	CHECK_EQ(memory_map(memory, 0x1000, 0x2000, RW, -1, 0), -EEXIST);
	CHECK_EQ(memory_map(memory, 0x2fff, 1, RW, -1, 0), -EEXIST);
	CHECK_EQ(memory_map(memory, 0, 0x1001, RW, -1, 0), -EEXIST);
	CHECK_EQ(memory_map(memory, 0, UINT64_MAX, RW, -1, 0), -EEXIST);
	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, -1, 0), 0);
	CHECK_EQ(memory_map(memory, 0x3000, 0x1000, RW, -1, 0), 0);
	memory_destroy(memory);
}

TEST(memory_unmap_takes_exactly_one_range)
{
	struct memory *memory = make_memory();

	CHECK_EQ(memory_map(memory, 0x1000, 0x2000, RW, -1, 0), 0);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0x1000), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0x3000), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x0, 0x3000), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0x2000), 0);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0x2000), -ENOENT);
	memory_destroy(memory);
}

TEST(memory_unmap_within_never_splits)
{
	struct memory *memory = make_memory();

	for (uint64_t addr = 0x1000; addr < 0x9000; addr += 0x2000)
		CHECK_EQ(memory_map(memory, addr, 0x1000, RW, -1, 0), 0);
	CHECK_EQ(memory_unmap_within(memory, 0x1800, 0x4000), -EINVAL);
	CHECK_EQ(memory_unmap_within(memory, 0, 0x1800), -EINVAL);
	CHECK_EQ(memory_unmap_within(memory, 0x2000, 0x1000), -ENOENT);
	CHECK_EQ(memory_unmap_within(memory, 0x2000, UINT64_MAX), -EINVAL);
	CHECK_EQ(memory_unmap_within(memory, 0x3000, 0x3000), 0);
	CHECK_EQ(memory_unmap(memory, 0x3000, 0x1000), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x5000, 0x1000), -ENOENT);
	CHECK_EQ(memory_unmap(memory, 0x1000, 0x1000), 0);
	CHECK_EQ(memory_unmap(memory, 0x7000, 0x1000), 0);
	memory_destroy(memory);
}

TEST(memory_files_are_mapped_once_and_whole)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x100000, true), again = dup(fd);
	unsigned int nr_fds = count_open_fds();

	REQUIRE(again >= 0);
	for (uint64_t i = 0; i < 64; i++)
		CHECK_EQ(memory_map(memory, i * 0x2000, 0x1000, RW, i & 1 ? fd : again, i * 0x1000),
			 0);
	CHECK_EQ(count_mappings(), 1);
	CHECK_EQ(count_open_fds(), nr_fds);
	for (uint64_t i = 0; i < 63; i++)
		CHECK_EQ(memory_unmap(memory, i * 0x2000, 0x1000), 0);
	CHECK_EQ(count_mappings(), 1);
	memory_unmap_all(memory);
	CHECK_EQ(count_mappings(), 0);
	close(again);
	close(fd);
	memory_destroy(memory);
}

TEST(memory_file_that_grew_is_mapped_again)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x1000, true);
	size_t len = 1;

	CHECK_EQ(memory_map(memory, 0, 0x1000, RW, fd, 0), 0);
	CHECK_EQ(memory_map(memory, 0x1000, 0x1000, RW, fd, 0x1000), -EINVAL);
	REQUIRE(!ftruncate(fd, 0x2000));
	CHECK_EQ(memory_map(memory, 0x1000, 0x1000, RW, fd, 0x1000), 0);
	CHECK_EQ(pwrite(fd, "x", 1, 0x1000), 1);
	CHECK_EQ(*(char *)memory_lookup(memory, 0x1000, &len, RW), 'x');
	close(fd);
	memory_destroy(memory);
}

TEST(memory_read_only_descriptor_allows_reading)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x1000, true), ro;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	ro = open(path, O_RDONLY | O_CLOEXEC);
	REQUIRE(ro >= 0);
	CHECK_EQ(memory_map(memory, 0, 0x1000, MEMORY_READ, ro, 0), 0);
	CHECK_EQ(memory_map(memory, 0x1000, 0x1000, RW, ro, 0), -EACCES);
	CHECK_EQ(memory_map(memory, 0x1000, 0x1000, RW, fd, 0), 0);
	close(ro);
	close(fd);
	memory_destroy(memory);
}

TEST(memory_holds_65535_ranges_and_no_more)
{
	struct memory *memory = make_memory();
	int fd = make_memfd(0x1000, true);
	uint64_t start_ns = log_now_ns();
	size_t len = 1;

	/* Descending: a plain tree would be a list now, and this test would not end. */
	for (uint64_t i = 65535; i; i--)
		if (!CHECK_EQ(memory_map(memory, i << 12, 0x1000, RW, fd, 0), 0))
			break;
	CHECK_EQ(memory_map(memory, 65536 << 12, 0x1000, RW, fd, 0), -ENOSPC);
	for (uint64_t i = 1; i <= 65535; i++)
		if (!CHECK(memory_lookup(memory, i << 12, &len, RW)))
			break;
	for (uint64_t i = 1; i <= 65535; i++)
		if (!CHECK_EQ(memory_unmap(memory, i << 12, 0x1000), 0))
			break;
	printf("# 65535 ranges mapped, found, unmapped in %ju ms\n",
	       (uintmax_t)((log_now_ns() - start_ns) / 1000000));
	close(fd);
	memory_destroy(memory);
}

/* Random operations against an array of pages, each owned by the range that starts at it. */
TEST(memory_agrees_with_a_naive_model)
{
	enum { NR_PAGES = 128, NR_STEPS = 20000 };
	static unsigned int owner[NR_PAGES + 8], size[NR_PAGES + 8];
	struct memory *memory = make_memory();
	int fd = make_memfd((NR_PAGES + 8) * 0x1000, true);

	srand(1);
	for (int step = 0; step < NR_STEPS; step++) {
		unsigned int page = (unsigned int)rand() % NR_PAGES,
			     nr = 1u + (unsigned int)rand() % 8;
		uint64_t addr = (uint64_t)page << 12;
		size_t len = SIZE_MAX;
		bool is_free = true;

		for (unsigned int i = page; i < page + nr; i++)
			is_free &= !owner[i];
		if (rand() & 1) {
			CHECK_EQ(memory_map(memory, addr, nr << 12, RW, fd, addr),
				 is_free ? 0 : -EEXIST);
			for (unsigned int i = page; is_free && i < page + nr; i++)
				owner[i] = page + 1;
			size[page] = is_free ? nr : size[page];
		} else {
			bool exact = owner[page] == page + 1 && size[page] == nr;

			CHECK_EQ(memory_unmap(memory, addr, nr << 12), exact ? 0 : -ENOENT);
			for (unsigned int i = page; exact && i < page + nr; i++)
				owner[i] = 0;
		}
		if (CHECK_EQ(!memory_lookup(memory, addr, &len, RW), !owner[page]) && owner[page])
			CHECK_EQ(len >> 12, owner[page] - 1 + size[owner[page] - 1] - page);
	}
	close(fd);
	memory_destroy(memory);
}
