// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bind.c - move a PCI function between drivers.
 *
 * The BDF is written to the driver's own bind file: drivers_probe returns success
 * even when the probe failed, and the errno of the probe is what we are after.
 */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "file.h"
#include "pci.h"
#include "probe.h"

/* Write to an attribute; a failure is reported as step @step. */
static int write_step(const char *path, const char *data, const char *step, struct reply *reply)
{
	const char *op;
	int error = file_write(path, 0, data, strlen(data), &op);

	if (error)
		return reply_fail(reply, step, -error, "%s %s: %s", op, path, strerror(-error));
	return 0;
}

static bool driver_valid(const char *driver)
{
	for (const char *c = driver; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '_' && *c != '-')
			return false;
	return *driver && strlen(driver) < PCI_NAME_SIZE;
}

static int check_bdf(const char *bdf, struct reply *reply)
{
	if (pci_bdf_valid(bdf))
		return 0;
	return reply_fail(reply, "parse", EINVAL, "bad bdf '%.40s'", bdf);
}

/* The driver bound now, "" for none. */
static int current_driver(const char *bdf, char ret[PCI_NAME_SIZE], struct reply *reply)
{
	int error = pci_driver(bdf, ret);

	if (error == -ENOENT)
		*ret = '\0';
	else if (error)
		return reply_fail(reply, "readlink driver", -error, NULL);
	return 0;
}

static int unbind(const char *bdf, struct reply *reply)
{
	char path[PCI_PATH_SIZE];

	pci_path(path, bdf, "driver/unbind");
	return write_step(path, bdf, "unbind", reply);
}

/*
 * vfio-pci claims no ids: without an override its bind file answers ENODEV. Any
 * other driver is a return to the native one, where an override must not stay.
 */
static int set_override(const char *bdf, const char *driver, bool override, struct reply *reply)
{
	char path[PCI_PATH_SIZE];

	pci_path(path, bdf, "driver_override");
	return write_step(path, override ? driver : "\n", "driver_override", reply);
}

static int bind(const char *bdf, const char *driver, struct reply *reply)
{
	char path[PCI_PATH_SIZE], bound[PCI_NAME_SIZE];
	int error;

	snprintf(path, sizeof(path), "/sys/bus/pci/drivers/%s/bind", driver);
	error = write_step(path, bdf, "bind", reply);
	if (!error)
		error = current_driver(bdf, bound, reply);
	if (error)
		return error;
	if (strcmp(bound, driver))
		return reply_fail(reply, "bind", EIO, "written, but the driver is '%s'", bound);
	return 0;
}

static int run_bind(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *bdf = arg_text(args, "bdf"), *driver = arg_text(args, "driver");
	char bound[PCI_NAME_SIZE];
	unsigned int group;
	int error = check_bdf(bdf, reply);

	(void)probe;
	if (!error && !driver_valid(driver))
		error = reply_fail(reply, "parse", EINVAL, "bad driver '%.80s'", driver);
	if (!error)
		error = current_driver(bdf, bound, reply);
	if (error)
		return error;
	json_text(&reply->fields, "previous", bound);
	error = set_override(bdf, driver, arg_number(args, "override", !strcmp(driver, "vfio-pci")),
			     reply);
	if (!error && strcmp(bound, driver) && *bound)
		error = unbind(bdf, reply);
	if (!error && strcmp(bound, driver))
		error = bind(bdf, driver, reply);
	if (error)
		return error;
	json_text(&reply->fields, "driver", driver);
	if (pci_iommu_group(bdf, &group))
		json_null(&reply->fields, "group");
	else
		json_number(&reply->fields, "group", group);
	return 0;
}

static int run_unbind(struct probe *probe, const struct args *args, struct reply *reply)
{
	const char *bdf = arg_text(args, "bdf");
	char bound[PCI_NAME_SIZE];
	int error = check_bdf(bdf, reply);

	(void)probe;
	if (!error)
		error = current_driver(bdf, bound, reply);
	if (error)
		return error;
	json_text(&reply->fields, "previous", bound);
	if (!*bound)
		return reply_fail(reply, "unbind", ENODEV, "no driver is bound");
	return unbind(bdf, reply);
}

static const struct key bind_keys[] = {
	{ "bdf", KEY_TEXT, NEED, NULL },
	{ "driver", KEY_TEXT, NEED, NULL },
	{ "override", KEY_CHOICE, MAY, choices_bool },
	{ 0 },
};

static const struct key unbind_keys[] = { { "bdf", KEY_TEXT, NEED, NULL }, { 0 } };

const struct command bind_commands[] = {
	{ "bind", bind_keys, run_bind },
	{ "unbind", unbind_keys, run_unbind },
	{ 0 },
};
