// SPDX-License-Identifier: GPL-2.0-or-later
/* main() of every test program; benchmarks and fuzz targets have their own. */
#include "harness.h"

int main(int argc, char **argv)
{
	return harness_main(argc, argv);
}
