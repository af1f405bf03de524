// SPDX-License-Identifier: GPL-2.0-or-later
#include "rig.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

#define VIRTIO_BAR 4
/* Offsets in RAM. */
#define QUEUES 0x0ull
#define QUEUE_STRIDE 0x4000ull
#define BUFFERS 0x10000ull
#define WRITABLE (BUFFERS + 0x1000)

static const struct viommu_config default_config = { .log_capacity = 1 << 14 };

/* --- life --- */

static const char *prefix(const struct rig *rig)
{
	return rig->borrowed ? "b-" : "";
}

static int connect_to(struct rig *rig, const char *name)
{
	char path[128];
	int sock;

	snprintf(path, sizeof(path), "%s/%s%s", rig->dir, prefix(rig), name);
	sock = client_connect(path);
	REQUIRE(client_version(sock) >= 0);
	REQUIRE(!client_dma_map(sock, RIG_RAM, RIG_RAM_SIZE, 3, rig->memfd, 0));
	client_config_write(sock, 4, 0x0006, 2); /* memory, bus mastering */
	return sock;
}

static void add_functions(struct rig *rig, const struct viommu_iommu_config *iommu)
{
	static const struct viommu_resv_mem resv[] = {
		{ VIOMMU_RESV_MSI, RIG_MSI, RIG_MSI_END },
		{ VIOMMU_RESV_RESERVED, RIG_RESERVED, RIG_RESERVED_END },
	};
	const struct viommu_endpoint_config none = { 0 }, *ep1 = rig->ep1 ?: &none;
	struct viommu_iommu_config iommu_config = { 0 };
	char path[128];

	if (iommu)
		iommu_config = *iommu;
	snprintf(path, sizeof(path), "%s/%siommu", rig->dir, prefix(rig));
	iommu_config.socket_path = path;
	REQUIRE(!viommu_ctx_add_iommu(rig->ctx, &iommu_config, &rig->iommu_index));
	if (ep1->requester) {
		const struct viommu_endpoint_config id = { .name = "bridge",
							   .iommu = rig->iommu_index,
							   .id = ep1->requester };

		REQUIRE(!viommu_ctx_add_id(rig->ctx, &id));
	}
	for (unsigned i = 0; i < RIG_NR_ENDPOINTS; i++) {
		char name[] = "ep0";
		struct viommu_endpoint_config config = {
			.socket_path = path,
			.name = name,
			.iommu = i == RIG_EP_DIRECT ? (uint32_t)VIOMMU_NO_IOMMU : rig->iommu_index,
			.id = RIG_ID0 + i,
			.resv = i ? NULL : resv,
			.nr_resv = i ? 0 : 2,
		};

		if (i == RIG_EP1) {
			config.model = ep1->model;
			config.image = ep1->image;
			config.read_only = ep1->read_only;
			config.nr_vectors = ep1->nr_vectors;
			config.no_msix = ep1->no_msix;
			config.requester = ep1->requester;
		}
		name[2] += i;
		snprintf(path, sizeof(path), "%s/%s%s", rig->dir, prefix(rig), name);
		REQUIRE(!viommu_ctx_add_endpoint(rig->ctx, &config, &rig->endpoint_index[i]));
	}
}

static void create_ram(struct rig *rig)
{
	rig->memfd = make_memfd(RIG_RAM_SIZE, true);
	rig->ram = mmap(NULL, RIG_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, rig->memfd, 0);
	REQUIRE(rig->ram != MAP_FAILED);
}

/* A context with everything of ours added, not started. */
static void create(struct rig *rig, const struct viommu_config *config,
		   const struct viommu_iommu_config *iommu,
		   const struct viommu_endpoint_config *ep1)
{
	memset(rig, 0, sizeof(*rig));
	rig->ep1 = ep1;
	strcpy(rig->dir, "/tmp/viommu-rig.XXXXXX");
	REQUIRE(mkdtemp(rig->dir));
	create_ram(rig);
	REQUIRE(!viommu_ctx_create(config, &rig->ctx));
	add_functions(rig, iommu);
}

static void connect_all(struct rig *rig)
{
	static const char *const names[] = { "ep0", "ep1", "ep2" };

	rig->iommu = connect_to(rig, "iommu");
	for (unsigned i = 0; i < RIG_NR_ENDPOINTS; i++)
		rig->endpoints[i] = connect_to(rig, names[i]);
}

static void start_all(struct rig *rig)
{
	REQUIRE(!viommu_ctx_start(rig->ctx));
	connect_all(rig);
}

void rig_start(struct rig *rig, const struct viommu_iommu_config *iommu)
{
	rig_start_with(rig, &default_config, iommu);
}

void rig_start_with(struct rig *rig, const struct viommu_config *config,
		    const struct viommu_iommu_config *iommu)
{
	create(rig, config, iommu, NULL);
	start_all(rig);
}

void rig_start_model(struct rig *rig, const struct viommu_endpoint_config *ep1)
{
	create(rig, &default_config, NULL, ep1);
	start_all(rig);
	rig_init_driver(rig, RIG_ALL_FEATURES);
}

void rig_start_bridged(struct rig *rig)
{
	static const struct viommu_endpoint_config ep1 = { .requester = RIG_BRIDGE_ID };

	rig_start_model(rig, &ep1);
}

void rig_start_pair(struct rig *first, struct rig *second)
{
	create(first, &default_config, NULL, NULL);
	memset(second, 0, sizeof(*second));
	second->ctx = first->ctx;
	second->borrowed = true;
	strcpy(second->dir, first->dir);
	create_ram(second);
	add_functions(second, NULL);
	REQUIRE(!viommu_ctx_start(first->ctx));
	connect_all(first);
	connect_all(second);
	rig_init_driver(first, RIG_ALL_FEATURES);
	rig_init_driver(second, RIG_ALL_FEATURES);
}

void rig_start_ready(struct rig *rig, const struct viommu_iommu_config *iommu)
{
	rig_start(rig, iommu);
	rig_init_driver(rig, RIG_ALL_FEATURES);
}

void rig_stop(struct rig *rig)
{
	close(rig->iommu);
	for (unsigned i = 0; i < RIG_NR_ENDPOINTS; i++)
		close(rig->endpoints[i]);
	if (!rig->borrowed)
		viommu_ctx_destroy(rig->ctx);
	munmap(rig->ram, RIG_RAM_SIZE);
	close(rig->memfd);
	/* The server has removed its sockets, or this fails. */
	if (!rig->borrowed)
		CHECK(!rmdir(rig->dir));
}

/* --- the virtio device --- */

uint64_t rig_read(struct rig *rig, uint64_t offset, unsigned count)
{
	uint64_t value = 0;

	REQUIRE(client_region_read(rig->iommu, VIRTIO_BAR, offset, &value, count) >= 0);
	return value;
}

void rig_write(struct rig *rig, uint64_t offset, uint64_t value, unsigned count)
{
	REQUIRE(client_region_write(rig->iommu, VIRTIO_BAR, offset, &value, count) >= 0);
}

uint64_t rig_offered(struct rig *rig)
{
	uint64_t low;

	rig_write(rig, VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	low = rig_read(rig, VIRTIO_PCI_COMMON_DF, 4);
	rig_write(rig, VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	return low | rig_read(rig, VIRTIO_PCI_COMMON_DF, 4) << 32;
}

static void add_status(struct rig *rig, uint8_t bits)
{
	uint64_t status = rig_read(rig, VIRTIO_PCI_COMMON_STATUS, 1);

	rig_write(rig, VIRTIO_PCI_COMMON_STATUS, status | bits, 1);
}

bool rig_negotiate(struct rig *rig, uint64_t features)
{
	if (features == RIG_ALL_FEATURES)
		features = rig_offered(rig);
	rig_write(rig, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	add_status(rig, VIRTIO_CONFIG_S_ACKNOWLEDGE);
	add_status(rig, VIRTIO_CONFIG_S_DRIVER);
	rig_write(rig, VIRTIO_PCI_COMMON_GFSELECT, 0, 4);
	rig_write(rig, VIRTIO_PCI_COMMON_GF, features & 0xffffffff, 4);
	rig_write(rig, VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	rig_write(rig, VIRTIO_PCI_COMMON_GF, features >> 32, 4);
	add_status(rig, VIRTIO_CONFIG_S_FEATURES_OK);
	return rig_read(rig, VIRTIO_PCI_COMMON_STATUS, 1) & VIRTIO_CONFIG_S_FEATURES_OK;
}

void rig_setup_queues(struct rig *rig)
{
	for (unsigned i = 0; i < 2; i++) {
		struct rig_queue *queue = &rig->queues[i];

		*queue = (struct rig_queue){
			.desc = QUEUES + i * QUEUE_STRIDE,
			.avail = QUEUES + i * QUEUE_STRIDE + 0x1000,
			.used = QUEUES + i * QUEUE_STRIDE + 0x2000,
		};
		memset(rig->ram + queue->desc, 0, QUEUE_STRIDE);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_SELECT, i, 2);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_SIZE, RIG_QUEUE_SIZE, 2);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_MSIX, i + 1, 2);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_DESCLO, RIG_RAM + queue->desc, 8);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_AVAILLO, RIG_RAM + queue->avail, 8);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_USEDLO, RIG_RAM + queue->used, 8);
		rig_write(rig, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	}
}

void rig_driver_ok(struct rig *rig)
{
	add_status(rig, VIRTIO_CONFIG_S_DRIVER_OK);
}

void rig_init_driver(struct rig *rig, uint64_t features)
{
	REQUIRE(rig_negotiate(rig, features));
	rig_setup_queues(rig);
	rig_driver_ok(rig);
}

/* --- rings --- */

void rig_set_desc(struct rig *rig, unsigned queue, unsigned i, struct rig_desc desc)
{
	struct vring_desc raw = { desc.addr, desc.len, desc.flags, desc.next };

	memcpy(rig->ram + rig->queues[queue].desc + i * sizeof(raw), &raw, sizeof(raw));
}

void rig_make_available(struct rig *rig, unsigned queue, uint16_t head)
{
	struct rig_queue *q = &rig->queues[queue];
	struct vring_avail *avail = (struct vring_avail *)(rig->ram + q->avail);

	avail->ring[q->next_avail++ % RIG_QUEUE_SIZE] = head;
	__atomic_store_n(&avail->idx, q->next_avail, __ATOMIC_RELEASE);
}

void rig_kick(struct rig *rig, unsigned queue)
{
	rig_write(rig, 0x3000 + 4 * queue, queue, 2);
}

bool rig_take_used(struct rig *rig, unsigned queue, uint32_t *head, uint32_t *len)
{
	struct rig_queue *q = &rig->queues[queue];
	struct vring_avail *avail = (struct vring_avail *)(rig->ram + q->avail);
	struct vring_used *used = (struct vring_used *)(rig->ram + q->used);
	const struct vring_used_elem *elem;

	if (__atomic_load_n(&used->idx, __ATOMIC_ACQUIRE) == q->next_used)
		return false;
	elem = &used->ring[q->next_used++ % RIG_QUEUE_SIZE];
	/* Where VIRTIO_RING_F_EVENT_IDX has it; without, nobody looks there. */
	if (!rig->keep_used_event)
		__atomic_store_n(&avail->ring[RIG_QUEUE_SIZE], q->next_used, __ATOMIC_SEQ_CST);
	*head = elem->id;
	*len = elem->len;
	return true;
}

/* --- requests --- */

uint32_t rig_request(struct rig *rig, const void *readable, size_t readable_len, void *writable,
		     size_t writable_len)
{
	struct rig_desc request = { RIG_RAM + BUFFERS, readable_len, 0, 1 };
	uint32_t head = 0, len = 0;

	memcpy(rig->ram + BUFFERS, readable, readable_len);
	memset(rig->ram + WRITABLE, 0xaa, writable_len + 64);
	request.flags = writable_len ? VRING_DESC_F_NEXT : 0;
	rig_set_desc(rig, 0, 0, request);
	rig_set_desc(rig, 0, 1,
		     (struct rig_desc){
			     RIG_RAM + WRITABLE,
			     writable_len,
			     VRING_DESC_F_WRITE,
			     0,
		     });
	rig_make_available(rig, 0, 0);
	rig_kick(rig, 0);
	REQUIRE(rig_take_used(rig, 0, &head, &len));
	CHECK_EQ(head, 0);
	memcpy(writable, rig->ram + WRITABLE, writable_len);
	for (unsigned i = 0; i < 64; i++)
		CHECK_EQ(rig->ram[WRITABLE + writable_len + i], 0xaa);
	return len;
}

int rig_call(struct rig *rig, const void *readable, size_t len)
{
	struct virtio_iommu_req_tail tail;

	if (rig_request(rig, readable, len, &tail, sizeof(tail)) != sizeof(tail))
		return -1;
	CHECK(!tail.reserved[0] && !tail.reserved[1] && !tail.reserved[2]);
	return tail.status;
}

int rig_attach(struct rig *rig, uint32_t domain, uint32_t endpoint, uint32_t flags)
{
	struct virtio_iommu_req_attach attach = {
		.head.type = VIRTIO_IOMMU_T_ATTACH,
		.domain = domain,
		.endpoint = endpoint,
		.flags = flags,
	};

	return rig_call(rig, &attach, offsetof(typeof(attach), tail));
}

int rig_detach(struct rig *rig, uint32_t domain, uint32_t endpoint)
{
	struct virtio_iommu_req_detach detach = {
		.head.type = VIRTIO_IOMMU_T_DETACH,
		.domain = domain,
		.endpoint = endpoint,
	};

	return rig_call(rig, &detach, offsetof(typeof(detach), tail));
}

int rig_map(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end, uint64_t phys,
	    uint32_t flags)
{
	struct virtio_iommu_req_map map = {
		.head.type = VIRTIO_IOMMU_T_MAP,
		.domain = domain,
		.virt_start = start,
		.virt_end = end,
		.phys_start = phys,
		.flags = flags,
	};

	return rig_call(rig, &map, offsetof(typeof(map), tail));
}

int rig_unmap(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end)
{
	struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = domain,
		.virt_start = start,
		.virt_end = end,
	};

	return rig_call(rig, &unmap, offsetof(typeof(unmap), tail));
}

int rig_map_page(struct rig *rig, uint32_t domain, uint64_t iova, unsigned page)
{
	return rig_map(rig, domain, iova, iova + 0xfff, RIG_RAM + RIG_DATA + page * 0x1000ull, 3);
}
