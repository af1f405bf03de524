// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The request parser: any bytes as requests, on rings that are right.
 *
 * Input: a byte of features, then requests: lengths of the readable and the
 * writable part, and the readable bytes. Every request must come back once, in
 * order, with a status that the specification knows and nothing written behind it.
 */
#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "ctx.h"
#include "fuzz.h"
#include "iommu.h"
#include "reactor.h"
#include "rig.h"

#define READABLE 0x40000ull /* offsets in RAM */
#define WRITABLE 0x50000ull
#define MAX_READABLE 255u
#define MAX_WRITABLE 1023u
#define MAX_REQUESTS 64u
#define PATTERN 0xaa

static struct rig rig;
static struct iommu *iommu;

static void teardown(void)
{
	rig_stop(&rig);
}

static void setup(void)
{
	const struct viommu_iommu_config config = {
		.max_mappings = 8,
		.input_end = 0xffffffffff,
		.domain_end = 99,
	};

	if (iommu)
		return;
	rig_start(&rig, &config);
	atexit(teardown);
	/* From here on, this thread is the reactor. */
	reactor_stop(rig.ctx->reactor);
	iommu = rig.ctx->functions[rig.iommu_index].iommu;
}

static void poke(uint64_t offset, uint64_t value, unsigned count)
{
	virtio_pci_bar_write(&iommu->vdev, VIRTIO_PCI_BAR, offset, &value, count);
}

static void setup_queue(void)
{
	memset(rig.ram, 0, 0x4000);
	rig.queues[0] = (struct rig_queue){ .desc = 0, .avail = 0x1000, .used = 0x2000 };
	poke(VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	poke(VIRTIO_PCI_COMMON_Q_SIZE, RIG_QUEUE_SIZE, 2);
	poke(VIRTIO_PCI_COMMON_Q_DESCLO, RIG_RAM, 8);
	poke(VIRTIO_PCI_COMMON_Q_AVAILLO, RIG_RAM + 0x1000, 8);
	poke(VIRTIO_PCI_COMMON_Q_USEDLO, RIG_RAM + 0x2000, 8);
	poke(VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

/* Each bit of features leaves one out. */
static void start_driver(uint8_t without)
{
	uint64_t features = iommu->vdev.offered & ~(uint64_t)(without & 0x7f);
	uint8_t status = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	if (without & 0x80)
		features &= ~(1ull << VIRTIO_RING_F_EVENT_IDX);
	poke(VIRTIO_PCI_COMMON_STATUS, 0, 1);
	for (unsigned i = 0; i < 2; i++) {
		poke(VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		poke(VIRTIO_PCI_COMMON_GF, features >> 32 * i & 0xffffffff, 4);
	}
	poke(VIRTIO_PCI_COMMON_STATUS, status | VIRTIO_CONFIG_S_FEATURES_OK, 1);
	setup_queue();
	poke(VIRTIO_PCI_COMMON_STATUS,
	     status | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK, 1);
	FUZZ_CHECK(virtio_pci_queue_ready(&iommu->vdev, 0));
}

static bool status_known(uint8_t status)
{
	return status <= VIRTIO_IOMMU_S_NOMEM;
}

static void check_answer(unsigned writable)
{
	uint8_t *answer = rig.ram + WRITABLE;
	uint32_t head, len;

	FUZZ_CHECK(rig_take_used(&rig, 0, &head, &len));
	FUZZ_CHECK(head == 0 && (len == 0 || len == writable));
	if (len) {
		FUZZ_CHECK(len >= sizeof(struct virtio_iommu_req_tail));
		FUZZ_CHECK(status_known(answer[len - 4]));
		FUZZ_CHECK(!answer[len - 3] && !answer[len - 2] && !answer[len - 1]);
	}
	for (unsigned i = len; i < writable + 16; i++)
		FUZZ_CHECK(answer[i] == PATTERN);
	FUZZ_CHECK(!rig_take_used(&rig, 0, &head, &len));
}

static void send_request(struct fuzz_input *input)
{
	unsigned readable = fuzz_byte(input);
	uint16_t writable;

	fuzz_take(input, &writable, sizeof(writable));
	writable &= MAX_WRITABLE;
	fuzz_take(input, rig.ram + READABLE, readable);
	memset(rig.ram + WRITABLE, PATTERN, writable + 16);
	rig_set_desc(&rig, 0, 0,
		     (struct rig_desc){ RIG_RAM + READABLE, readable, VRING_DESC_F_NEXT, 1 });
	rig_set_desc(&rig, 0, 1,
		     (struct rig_desc){ RIG_RAM + WRITABLE, writable, VRING_DESC_F_WRITE, 0 });
	rig_make_available(&rig, 0, 0);
	virtio_pci_notify(&iommu->vdev, 0);
	check_answer(writable);
}

/* What must hold whatever was asked for. */
static void check_domains(void)
{
	struct viommu_domain_info domains[RIG_NR_ENDPOINTS];
	size_t nr = viommu_ctx_query_domains(rig.ctx, domains, RIG_NR_ENDPOINTS);

	FUZZ_CHECK(nr <= RIG_NR_ENDPOINTS);
	for (size_t i = 0; i < nr; i++) {
		FUZZ_CHECK(domains[i].nr_endpoints >= 1);
		FUZZ_CHECK(domains[i].nr_mappings <= 8);
		FUZZ_CHECK(!domains[i].bypass || !domains[i].nr_mappings);
		FUZZ_CHECK(!domains[i].nr_mappings == !domains[i].mapped_bytes);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };

	setup();
	start_driver(fuzz_byte(&input));
	for (unsigned i = 0; i < MAX_REQUESTS && input.size; i++)
		send_request(&input);
	check_domains();
	return 0;
}

static size_t put(uint8_t *buf, size_t at, const void *readable, uint8_t len, uint16_t writable)
{
	buf[at++] = len;
	memcpy(buf + at, &writable, sizeof(writable));
	at += sizeof(writable);
	memcpy(buf + at, readable, len);
	return at + len;
}

/* The life of a domain, with one thing at a time different. */
size_t fuzz_seed(unsigned n, uint8_t *buf)
{
	struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = 1,
		.endpoint = RIG_ID0 + (n & 1),
		.flags = n == 4 ? VIRTIO_IOMMU_ATTACH_F_BYPASS : 0,
	};
	struct virtio_iommu_req_detach detach = {
		.head.type = VIRTIO_IOMMU_T_DETACH,
		.domain = 1,
		.endpoint = RIG_ID0,
	};
	struct virtio_iommu_req_map map = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = 1,
		.virt_start = 0x1000,
		.virt_end = n == 5 ? 0xffffffffff : 0x1fff,
		.phys_start = n == 5 ? 0 : RIG_RAM,
		.flags = 3,
	};
	struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = 1,
		.virt_end = 0xffffff,
	};
	struct virtio_iommu_req_probe probe = {
		.head.type = VIRTIO_IOMMU_T_PROBE,
		.endpoint = RIG_ID0,
	};
	size_t at = 0;

	if (n >= 8)
		return 0;
	buf[at++] = n >= 6 ? 1u << n : 0;
	at = put(buf, at, &probe, offsetof(typeof(probe), properties), 516);
	at = put(buf, at, &attach, offsetof(typeof(attach), tail), 4);
	for (unsigned i = 0; i < 10; i++, map.virt_start += 0x1000, map.virt_end += 0x1000)
		at = put(buf, at, &map, offsetof(typeof(map), tail), 4);
	at = put(buf, at, &unmap, offsetof(typeof(unmap), tail), n == 3 ? 40 : 4);
	return put(buf, at, &detach, offsetof(typeof(detach), tail), 4);
}
