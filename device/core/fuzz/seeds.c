// SPDX-License-Identifier: GPL-2.0-or-later
/* Of every fuzz program, libFuzzer's or not: TARGET -seeds=DIR writes the seeds there. */
#include <stdio.h>

#include "fuzz.h"

static int write_seeds(const char *dir)
{
	uint8_t buf[FUZZ_MAX_SEED];
	char path[4096];
	size_t size;

	for (unsigned n = 0; (size = fuzz_seed(n, buf)); n++) {
		FILE *file;

		snprintf(path, sizeof(path), "%s/seed-%03u", dir, n);
		file = fopen(path, "wb");
		if (!file || fwrite(buf, 1, size, file) != size) {
			perror(path);
			return 1;
		}
		fclose(file);
	}
	return 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	for (int i = 1; i < *argc; i++) {
		if (!strncmp((*argv)[i], "-seeds=", 7))
			exit(write_seeds((*argv)[i] + 7));
	}
	return 0;
}
