// SPDX-License-Identifier: GPL-2.0-or-later
/* The tests of test_mapping.c with nodes so small that their trees are deep. */
#define MAPPING_FANOUT 8u

/* Instead of the library's, whose nodes are large. */
#include "../src/mapping.c"
#include "../src/mapping_node.c"

#include "test_mapping.c"
