// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A fuzz target without libFuzzer: replays files, or mutates seeds blindly.
 *
 *   target FILE...                      replay
 *   target [-runs=N] [-max_total_time=S] [-seed=N]
 *
 * With the same -seed= and -runs= the same inputs are made. The one in hand when
 * a run dies is left in the file "crash-input".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define MAX_INPUT (2 * FUZZ_MAX_SEED)
#define MAX_SEEDS 256
#define MAX_CHANGES 8

static uint64_t random_state = 1;

static uint64_t next_random(void)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return random_state;
}

static size_t below(size_t n)
{
	return n ? next_random() % n : 0;
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void set_number(uint8_t *at, size_t room)
{
	static const uint64_t interesting[] = {
		0,
		1,
		2,
		3,
		4,
		7,
		8,
		16,
		31,
		0x7f,
		0xff,
		0x100,
		0xfff,
		0x1000,
		0x7fff,
		0xffff,
		0x10000,
		0x7fffffff,
		0x80000000,
		0xffffffff,
		0x100000000,
		0x7fffffffffffffff,
		UINT64_MAX - 0xfff,
		UINT64_MAX,
	};
	uint64_t value = interesting[below(sizeof(interesting) / sizeof(interesting[0]))];
	size_t len = 1u << below(4);

	memcpy(at, &value, len < room ? len : room);
}

/* One change; returns the new size. */
static size_t change(uint8_t *buf, size_t size)
{
	size_t at = below(size), len = below(32) + 1;

	switch (below(6)) {
	case 0:
		if (size)
			buf[at] ^= 1u << below(8);
		return size;
	case 1:
		if (size)
			buf[at] = next_random();
		return size;
	case 2:
		if (size)
			set_number(buf + at, size - at);
		return size;
	case 3: /* cut the end */
		return below(16) ? size : at;
	case 4: /* take a piece out */
		if (len > size - at)
			len = size - at;
		memmove(buf + at, buf + at + len, size - at - len);
		return size - len;
	default: /* repeat a piece */
		if (len > size - at)
			len = size - at;
		if (size + len > MAX_INPUT)
			return size;
		memmove(buf + at + len, buf + at, size - at);
		return size + len;
	}
}

static size_t make_input(uint8_t *buf, unsigned nr_seeds)
{
	size_t size = fuzz_seed(below(nr_seeds), buf);

	for (size_t i = below(MAX_CHANGES); i; i--)
		size = change(buf, size);
	return size;
}

/* The input in hand, kept where it survives the crash of whoever reads it. */
static uint8_t *create_witness(void)
{
	int fd = open("crash-input", O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	void *map = MAP_FAILED;

	if (fd >= 0 && !ftruncate(fd, MAX_INPUT))
		map = mmap(NULL, MAX_INPUT, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	return map == MAP_FAILED ? NULL : map;
}

static int mutate(unsigned long runs, double seconds)
{
	uint8_t *input = create_witness();
	unsigned nr_seeds = 0;
	double start = now();
	unsigned long done;

	if (!input) {
		perror("crash-input");
		return 1;
	}
	while (nr_seeds < MAX_SEEDS && fuzz_seed(nr_seeds, input))
		nr_seeds++;
	for (done = 0; (!runs || done < runs) && (!seconds || now() - start < seconds); done++) {
		size_t size = done < nr_seeds ? fuzz_seed(done, input) :
						make_input(input, nr_seeds);

		/* A copy of the exact size, so that the sanitizer sees its end. */
		uint8_t *copy = malloc(size ? size : 1);

		memcpy(copy, input, size);
		LLVMFuzzerTestOneInput(copy, size);
		free(copy);
		if (truncate("crash-input", MAX_INPUT) < 0)
			break;
	}
	munmap(input, MAX_INPUT);
	unlink("crash-input");
	printf("Done %lu runs in %.1f second(s)\n", done, now() - start);
	return 0;
}

static int replay(const char *path)
{
	uint8_t *buf = malloc(1 << 20);
	FILE *file = fopen(path, "rb");
	size_t size;

	if (!file || !buf) {
		perror(path);
		free(buf);
		return 1;
	}
	size = fread(buf, 1, 1 << 20, file);
	fclose(file);
	buf = realloc(buf, size ? size : 1);
	LLVMFuzzerTestOneInput(buf, size);
	free(buf);
	return 0;
}

int main(int argc, char **argv)
{
	unsigned long runs = 0;
	double seconds = 0;
	bool replayed = false;
	int r = 0;

	LLVMFuzzerInitialize(&argc, &argv);
	for (int i = 1; i < argc && r == 0; i++) {
		if (!strncmp(argv[i], "-runs=", 6)) {
			runs = strtoul(argv[i] + 6, NULL, 10);
		} else if (!strncmp(argv[i], "-max_total_time=", 16)) {
			seconds = strtod(argv[i] + 16, NULL);
		} else if (!strncmp(argv[i], "-seed=", 6)) {
			/* Zero would stay zero. */
			random_state = strtoull(argv[i] + 6, NULL, 10) * 2 + 1;
		} else {
			r = replay(argv[i]);
			replayed = true;
		}
	}
	return replayed || r ? r : mutate(runs ? runs : seconds ? 0 : 10000, seconds);
}
