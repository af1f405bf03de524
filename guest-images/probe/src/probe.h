/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * probe.h - the state of the process and the tables of commands.
 *
 * All that a command opens belongs to struct probe, so that end of input closes
 * it, and a dead orchestrator leaves no mapping or interrupt behind.
 */
#ifndef PROBE_PROBE_H
#define PROBE_PROBE_H

#include "buffer.h"
#include "command.h"
#include "engine.h"
#include "vfio.h"

#define PROBE_VERSION 1

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "register and memory layouts are little-endian"
#endif

#define PROBE_DEVICES 4
#define PROBE_DEVICE_NAME 16

/* A device that was opened, and is not the one that commands go to now. */
struct parked {
	char name[PROBE_DEVICE_NAME];
	struct vfio vfio;
	struct engine engine;
};

struct probe {
	struct buffer *buffers;
	/* The device that commands go to, and the name that "use" gave it. */
	char device[PROBE_DEVICE_NAME];
	struct vfio vfio;
	struct engine engine;
	struct parked parked[PROBE_DEVICES]; /* free: no backend, no name */
	int kmsg; /* file descriptor: its position is what dmesg remembers; -1: not open */
};

extern const struct command system_commands[];
extern const struct command sysfs_commands[];
extern const struct command bind_commands[];
extern const struct command kprobe_commands[];
extern const struct command kmsg_commands[];
extern const struct command buffer_commands[];
extern const struct command content_commands[];
extern const struct command vfio_commands[];
extern const struct command device_commands[];
extern const struct command region_commands[];
extern const struct command dma_map_commands[];
extern const struct command iommufd_commands[];
extern const struct command irq_commands[];
extern const struct command engine_commands[];
extern const struct command race_commands[];
extern const struct command storm_commands[];

void devices_init(struct probe *probe);
/* Close every device. */
void devices_close(struct probe *probe);
/* The open device of that name, whether in use or parked; NULL if there is none. */
struct vfio *devices_find(struct probe *probe, const char *name);

#endif /* PROBE_PROBE_H */
