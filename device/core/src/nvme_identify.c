// SPDX-License-Identifier: GPL-2.0-or-later
/* What the controller and its namespace tell of themselves (5.15). */
#include "nvme.h"

#include <stdio.h>
#include <string.h>

#include "regs.h"

/* Offsets in the data of a controller. */
enum {
	ID_VID = 0,
	ID_SSVID = 2,
	ID_SERIAL = 4, /* 20 characters */
	ID_MODEL = 24, /* 40 */
	ID_FIRMWARE = 64, /* 8 */
	ID_MDTS = 77,
	ID_VER = 80,
	ID_CONTROLLER_TYPE = 111,
	ID_ACL = 258,
	ID_AERL = 259,
	ID_FIRMWARE_UPDATES = 260,
	ID_SQES = 512,
	ID_CQES = 513,
	ID_NN = 516,
	ID_ONCS = 520,
	ID_VWC = 525,
	ID_SUBNQN = 768, /* 256 */
};

#define CONTROLLER_IO 1
#define FIRMWARE_ONE_READ_ONLY_SLOT 0x03
#define ONCS_DATASET 0x04
#define ONCS_WRITE_ZEROES 0x08
/* There is one, and Flush takes all namespaces as well. */
#define VWC_PRESENT 0x07

/* Offsets in the data of a namespace. */
enum {
	NS_SIZE = 0,
	NS_CAPACITY = 8,
	NS_USE = 16,
	NS_DLFEAT = 33,
	NS_ATTRIBUTES = 99,
	NS_LBAF0 = 128
};

#define ATTRIBUTE_WRITE_PROTECTED 0x01
#define DLFEAT_READS_ZERO 0x01

#define DESCRIPTOR_UUID 3
#define UUID_SIZE 16
#define FNV_OFFSET 0xcbf29ce484222325ull
#define FNV_PRIME 0x100000001b3ull

static void put_text(uint8_t *data, unsigned offset, size_t size, const char *text)
{
	size_t len = strlen(text);

	memset(data + offset, ' ', size);
	memcpy(data + offset, text, len < size ? len : size);
}

static void identify_controller(const struct nvme *nvme, uint8_t *data)
{
	char serial[21];

	snprintf(serial, sizeof(serial), "%08x", nvme->endpoint.id);
	regs_put(data, ID_VID, NVME_VENDOR_ID, 2);
	regs_put(data, ID_SSVID, NVME_VENDOR_ID, 2);
	put_text(data, ID_SERIAL, 20, serial);
	put_text(data, ID_MODEL, 40, "viotest NVMe");
	put_text(data, ID_FIRMWARE, 8, "1");
	data[ID_MDTS] = NVME_MDTS;
	regs_put(data, ID_VER, NVME_VS_1_4, 4);
	data[ID_CONTROLLER_TYPE] = CONTROLLER_IO;
	data[ID_ACL] = 3; /* 0's based, what the specification recommends */
	data[ID_AERL] = NVME_MAX_EVENTS - 1;
	data[ID_FIRMWARE_UPDATES] = FIRMWARE_ONE_READ_ONLY_SLOT;
	data[ID_SQES] = NVME_SQE_LOG2 << 4 | NVME_SQE_LOG2;
	data[ID_CQES] = NVME_CQE_LOG2 << 4 | NVME_CQE_LOG2;
	regs_put(data, ID_NN, 1, 4);
	regs_put(data, ID_ONCS, ONCS_DATASET | ONCS_WRITE_ZEROES, 2);
	data[ID_VWC] = VWC_PRESENT;
	/* Controllers of one name would be one subsystem's. */
	snprintf((char *)data + ID_SUBNQN, 256, "nqn.2026-01.org.viotest:nvme:%08x:%s",
		 nvme->endpoint.id, nvme->endpoint.name);
}

static void identify_namespace(const struct nvme *nvme, uint8_t *data)
{
	regs_put(data, NS_SIZE, nvme->nr_blocks, 8);
	regs_put(data, NS_CAPACITY, nvme->nr_blocks, 8);
	regs_put(data, NS_USE, nvme->nr_blocks, 8);
	data[NS_DLFEAT] = DLFEAT_READS_ZERO;
	data[NS_ATTRIBUTES] = nvme->read_only ? ATTRIBUTE_WRITE_PROTECTED : 0;
	regs_put(data, NS_LBAF0, NVME_BLOCK_LOG2 << 16, 4);
}

/* An identifier is wanted: one of the name, marked as such (RFC 9562, version 8). */
static void identify_descriptors(const struct nvme *nvme, uint8_t *data)
{
	uint64_t hash = FNV_OFFSET ^ nvme->endpoint.id;
	uint8_t *uuid = data + 4;

	for (const char *c = nvme->endpoint.name; *c; c++)
		hash = (hash ^ (uint8_t)*c) * FNV_PRIME;
	data[0] = DESCRIPTOR_UUID;
	data[1] = UUID_SIZE;
	regs_put(uuid, 0, hash, 8);
	regs_put(uuid, 8, hash * FNV_PRIME, 8);
	uuid[6] = (uuid[6] & 0x0f) | 0x80;
	uuid[8] = (uuid[8] & 0x3f) | 0x80;
}

uint16_t nvme_identify(struct nvme_run *run)
{
	uint32_t nsid = run->command.nsid;
	uint8_t *data = run->bounce;

	memset(data, 0, NVME_PAGE);
	switch (run->command.dwords[0] & 0xff) {
	case NVME_CNS_NAMESPACE:
		/* All: what they have in common, without namespace management nothing. */
		if (nsid != 1)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		identify_namespace(run->nvme, data);
		break;
	case NVME_CNS_CONTROLLER:
		identify_controller(run->nvme, data);
		break;
	case NVME_CNS_NAMESPACES:
		if (nsid >= NVME_ALL_NAMESPACES - 1)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		/* Those behind the one that was named. */
		regs_put(data, 0, nsid < 1 ? 1 : 0, 4);
		break;
	case NVME_CNS_DESCRIPTORS:
		if (nsid != 1)
			return NVME_INVALID_NAMESPACE | NVME_DNR;
		identify_descriptors(run->nvme, data);
		break;
	default:
		return NVME_INVALID_FIELD | NVME_DNR;
	}
	return nvme_transfer(run, data, NVME_PAGE, true);
}
