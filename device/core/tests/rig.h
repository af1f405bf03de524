/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rig.h - a whole context, driven as a guest would drive it: over its sockets.
 *
 * One virtio-iommu, two endpoints behind it, one behind none, and RAM that all
 * clients share. The server handles a message before it answers it, so what a
 * register write causes on the reactor is done when rig_write() returns.
 */
#ifndef RIG_H
#define RIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "dma_engine.h"
#include "viommu.h"

#define RIG_RAM 0x40000000ull /* guest address */
#define RIG_RAM_SIZE 0x2000000ull
#define RIG_DATA 0x100000ull /* offset: before it are rings and buffers */
#define RIG_QUEUE_SIZE 64
#define RIG_MSI 0xfee00000ull
#define RIG_MSI_END 0xfeefffffull
#define RIG_RESERVED 0x10000000ull
#define RIG_RESERVED_END 0x10000fffull

enum { RIG_EP0, RIG_EP1, RIG_EP_DIRECT, RIG_NR_ENDPOINTS };
#define RIG_ID0 8u /* has both reserved regions; the others none */
#define RIG_ID1 9u
#define RIG_BRIDGE_ID 256u

#define RIG_ALL_FEATURES UINT64_MAX /* accept what is offered */

struct rig_queue {
	uint64_t desc, avail, used; /* offsets in RAM */
	uint16_t next_avail;
	uint16_t next_used;
};

struct rig {
	char dir[64];
	viommu_ctx_t *ctx;
	bool borrowed; /* the context and the directory are another rig's */
	uint32_t iommu_index;
	uint32_t endpoint_index[RIG_NR_ENDPOINTS];
	int iommu; /* sockets */
	int endpoints[RIG_NR_ENDPOINTS];
	/* Of RIG_EP1: model, image, read_only, nr_vectors, no_msix, requester (an id of its own); or NULL. */
	const struct viommu_endpoint_config *ep1;
	int memfd;
	uint8_t *ram;
	struct rig_queue queues[2];
	/* Else every used element that is taken asks for an interrupt at the next. */
	bool keep_used_event;
	uint64_t log_seq;
};

/* iommu: NULL for the defaults; socket_path is filled in. Clients connected, bus masters. */
void rig_start(struct rig *rig, const struct viommu_iommu_config *iommu);
/* config: as viommu_ctx_create() takes it. */
void rig_start_with(struct rig *rig, const struct viommu_config *config,
		    const struct viommu_iommu_config *iommu);
/* As rig_start_ready(), with another RIG_EP1: see the field. */
void rig_start_model(struct rig *rig, const struct viommu_endpoint_config *ep1);
/* As rig_start(), and the virtio driver initialised with everything offered. */
void rig_start_ready(struct rig *rig, const struct viommu_iommu_config *iommu);
/* As rig_start_ready(), but the DMA of EP1 carries RIG_BRIDGE_ID, which is no function. */
void rig_start_bridged(struct rig *rig);
void rig_stop(struct rig *rig);
/*
 * Two virtio-iommus in one context, with RAM, endpoints and endpoint ids of their
 * own, as if of two guests; both drivers are ready. The first is stopped last.
 */
void rig_start_pair(struct rig *first, struct rig *second);

/* Registers of BAR 4 of the virtio-iommu. */
uint64_t rig_read(struct rig *rig, uint64_t offset, unsigned count);
void rig_write(struct rig *rig, uint64_t offset, uint64_t value, unsigned count);
uint64_t rig_offered(struct rig *rig);
/* Reset to FEATURES_OK; false if the device did not accept the features. */
bool rig_negotiate(struct rig *rig, uint64_t features);
void rig_setup_queues(struct rig *rig);
void rig_driver_ok(struct rig *rig);
/* All three. */
void rig_init_driver(struct rig *rig, uint64_t features);

struct rig_desc {
	uint64_t addr; /* guest address */
	uint32_t len;
	uint16_t flags;
	uint16_t next;
};

void rig_set_desc(struct rig *rig, unsigned queue, unsigned i, struct rig_desc desc);
void rig_make_available(struct rig *rig, unsigned queue, uint16_t head);
void rig_kick(struct rig *rig, unsigned queue);
/* The next used entry; false if there is none. */
bool rig_take_used(struct rig *rig, unsigned queue, uint32_t *head, uint32_t *len);

/*
 * One request with a readable and a writable part; the latter is prefilled with
 * 0xaa and copied out. Returns the used length; ends the program without answer.
 */
uint32_t rig_request(struct rig *rig, const void *readable, size_t readable_len, void *writable,
		     size_t writable_len);
/* Requests with a tail only: its status, or -1 for a used length other than 4. */
int rig_call(struct rig *rig, const void *readable, size_t len);
int rig_attach(struct rig *rig, uint32_t domain, uint32_t endpoint, uint32_t flags);
int rig_detach(struct rig *rig, uint32_t domain, uint32_t endpoint);
int rig_map(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end, uint64_t phys,
	    uint32_t flags);
int rig_unmap(struct rig *rig, uint32_t domain, uint64_t start, uint64_t end);
/* One page of the domain's addresses onto RAM_DATA + its number. */
int rig_map_page(struct rig *rig, uint32_t domain, uint64_t iova, unsigned page);

/* Registers of an endpoint. */
uint64_t rig_ep_read(struct rig *rig, unsigned ep, uint64_t offset, unsigned count);
void rig_ep_write(struct rig *rig, unsigned ep, uint64_t offset, uint64_t value, unsigned count);

struct rig_dma {
	uint32_t command; /* enum dma_engine_opcode | DMA_COMMAND_* */
	uint64_t iova, operand, length;
};

void rig_dma_start(struct rig *rig, unsigned ep, unsigned slot, const struct rig_dma *dma);
/* Waits for the end; returns enum dma_engine_status. */
uint32_t rig_dma_wait(struct rig *rig, unsigned ep, unsigned slot);
uint32_t rig_dma(struct rig *rig, unsigned ep, uint32_t opcode, uint64_t iova, uint64_t operand,
		 uint64_t length);
uint64_t rig_slot(struct rig *rig, unsigned ep, unsigned slot, unsigned offset, unsigned count);
/* enum dma_engine_fault of a one-byte access, 0 if it is allowed. */
uint32_t rig_probe_read(struct rig *rig, unsigned ep, uint64_t iova);
uint32_t rig_probe_write(struct rig *rig, unsigned ep, uint64_t iova);

uint64_t rig_counter(struct rig *rig, enum viommu_counter counter);
/* The next record of the kind after the last found; ends the program after 10 s. */
struct viommu_log_record rig_wait_log(struct rig *rig, enum viommu_log_kind kind);

#endif /* RIG_H */
