// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * devices.c - several devices at once.
 *
 * Commands go to one device. "use" puts it aside under its name and takes up
 * another, so that no other command needs to know that there are several.
 */
#include <errno.h>
#include <string.h>

#include "probe.h"

void devices_init(struct probe *probe)
{
	vfio_init(&probe->vfio);
	for (int i = 0; i < PROBE_DEVICES; i++)
		vfio_init(&probe->parked[i].vfio);
}

void devices_close(struct probe *probe)
{
	vfio_close(&probe->vfio);
	for (int i = 0; i < PROBE_DEVICES; i++)
		vfio_close(&probe->parked[i].vfio);
}

static struct parked *find_parked(struct probe *probe, const char *name)
{
	for (int i = 0; i < PROBE_DEVICES; i++)
		if (probe->parked[i].vfio.backend && !strcmp(probe->parked[i].name, name))
			return &probe->parked[i];
	return NULL;
}

static struct parked *find_free(struct probe *probe)
{
	for (int i = 0; i < PROBE_DEVICES; i++)
		if (!probe->parked[i].vfio.backend)
			return &probe->parked[i];
	return NULL;
}

struct vfio *devices_find(struct probe *probe, const char *name)
{
	struct parked *parked = find_parked(probe, name);

	if (!strcmp(probe->device, name) && probe->vfio.backend)
		return &probe->vfio;
	return parked ? &parked->vfio : NULL;
}

static void park(struct probe *probe, struct parked *parked)
{
	strcpy(parked->name, probe->device);
	parked->vfio = probe->vfio;
	parked->engine = probe->engine;
	vfio_init(&probe->vfio);
	engine_forget(&probe->engine);
}

static void take_up(struct probe *probe, struct parked *parked)
{
	probe->vfio = parked->vfio;
	probe->engine = parked->engine;
	vfio_init(&parked->vfio);
}

static int run_use(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *name = arg_text(args, "device");
	struct parked *wanted, *aside;

	if (strlen(name) >= PROBE_DEVICE_NAME)
		return reply_fail(reply, "parse", EINVAL, "the name '%.40s' is too long", name);
	if (!strcmp(name, probe->device))
		return 0;
	wanted = find_parked(probe, name);
	aside = find_free(probe);
	if (probe->vfio.backend && !aside)
		return reply_fail(reply, "use", ENOSPC, "%d devices are put aside already",
				  PROBE_DEVICES);
	if (probe->vfio.backend)
		park(probe, aside);
	if (wanted)
		take_up(probe, wanted);
	strcpy(probe->device, name);
	return 0;
}

static const struct key use_keys[] = { { "device", KEY_TEXT, NEED, NULL }, { 0 } };

const struct command device_commands[] = {
	{ "use", use_keys, run_use },
	{ 0 },
};
