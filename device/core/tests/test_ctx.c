// SPDX-License-Identifier: GPL-2.0-or-later
/* The public interface: configuration errors, queries, mutants. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_pci.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

static struct rig rig;

TEST(destroy_without_start)
{
	const struct viommu_config config = { .nr_workers = 1 };
	const struct viommu_iommu_config iommu = { .socket_path = "/nowhere/x" };
	viommu_ctx_t *ctx;
	uint32_t index;

	viommu_ctx_destroy(NULL);
	REQUIRE(!viommu_ctx_create(&config, &ctx));
	CHECK_EQ(viommu_ctx_add_iommu(ctx, &iommu, &index), 0);
	CHECK_EQ(index, 0);
	CHECK(viommu_ctx_start(ctx) < 0);
	viommu_ctx_destroy(ctx);
}

static int add_iommu(viommu_ctx_t *ctx, struct viommu_iommu_config config)
{
	uint32_t index;

	config.socket_path = "/nowhere/x";
	return viommu_ctx_add_iommu(ctx, &config, &index);
}

static int add_endpoint(viommu_ctx_t *ctx, struct viommu_endpoint_config config)
{
	uint32_t index;

	config.socket_path = "/nowhere/y";
	if (!config.name)
		config.name = "name";
	return viommu_ctx_add_endpoint(ctx, &config, &index);
}

TEST(bad_configurations_are_refused)
{
	static const struct viommu_resv_mem inverted[] = { { 0, 2, 1 } };
	static const struct viommu_resv_mem overlapping[] = { { 0, 0, 9 }, { 0, 9, 10 } };
	static const struct viommu_resv_mem two_msi[] = { { 1, 0, 9 }, { 1, 20, 29 } };
	static const struct viommu_resv_mem subtype[] = { { 2, 0, 9 } };
	static const struct viommu_resv_mem good[] = { { 0, 20, 29 }, { 1, 0, 9 } };
	const struct viommu_config config = { 0 };
	viommu_ctx_t *ctx;

	REQUIRE(!viommu_ctx_create(&config, &ctx));
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ .features = 0x48 }), -EINVAL);
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ .features = 0x80 }), -EINVAL);
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ .bypass = 2 }), -EINVAL);
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ .input_start = 2, .input_end = 1 }),
		 -EINVAL);
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ .probe_size = 40 }), 0);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1, .iommu = 1 }),
		 -ENOENT);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1, .nr_vectors = 33 }),
		 -EINVAL);
	CHECK_EQ(add_endpoint(ctx,
			      (struct viommu_endpoint_config){
				      .name = "a name of thirty-two characters.",
			      }),
		 -EINVAL);
	CHECK_EQ(add_endpoint(ctx,
			      (struct viommu_endpoint_config){ .resv = inverted, .nr_resv = 1 }),
		 -EINVAL);
	CHECK_EQ(add_endpoint(ctx,
			      (struct viommu_endpoint_config){ .resv = overlapping, .nr_resv = 2 }),
		 -EINVAL);
	CHECK_EQ(add_endpoint(ctx,
			      (struct viommu_endpoint_config){ .resv = two_msi, .nr_resv = 2 }),
		 -EINVAL);
	CHECK_EQ(add_endpoint(ctx,
			      (struct viommu_endpoint_config){ .resv = subtype, .nr_resv = 1 }),
		 -EINVAL);
	/* Two properties need 48 bytes. */
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .resv = good, .nr_resv = 2 }),
		 -EMSGSIZE);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1 }), 0);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1 }), -EEXIST);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1, .iommu = 1 }),
		 -ENOENT);
	viommu_ctx_destroy(ctx);
}

TEST(ids_without_a_function_are_refused_as_endpoints_are)
{
	struct viommu_endpoint_config id = { .name = "bridge", .id = 7 };
	const struct viommu_config config = { 0 };
	viommu_ctx_t *ctx;

	REQUIRE(!viommu_ctx_create(&config, &ctx));
	CHECK_EQ(viommu_ctx_add_id(ctx, &id), -ENOENT);
	CHECK_EQ(add_iommu(ctx, (struct viommu_iommu_config){ 0 }), 0);
	id.iommu = VIOMMU_NO_IOMMU;
	CHECK_EQ(viommu_ctx_add_id(ctx, &id), -EINVAL);
	id.iommu = 0;
	id.requester = 8;
	CHECK_EQ(viommu_ctx_add_id(ctx, &id), -ENOENT);
	id.requester = 0;
	CHECK_EQ(viommu_ctx_add_id(ctx, &id), 0);
	CHECK_EQ(viommu_ctx_add_id(ctx, &id), -EEXIST);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 7 }), -EEXIST);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1, .requester = 2 }),
		 -ENOENT);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 1, .requester = 7 }), 0);
	CHECK_EQ(add_endpoint(ctx, (struct viommu_endpoint_config){ .id = 2, .no_msix = true }), 0);
	viommu_ctx_destroy(ctx);
}

TEST(dma_behind_a_bridge_has_the_rights_of_the_bridges_id)
{
	rig_start_bridged(&rig);
	/* Its own id is attached as any other, and means nothing to its DMA. */
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, PAGE), DMA_FAULT_DOMAIN);
	CHECK_EQ(rig_attach(&rig, 2, RIG_BRIDGE_ID, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, PAGE), DMA_FAULT_MAPPING);
	CHECK_EQ(rig_wait_log(&rig, VIOMMU_LOG_FAULT).endpoint, RIG_BRIDGE_ID);
	CHECK_EQ(rig_map_page(&rig, 2, PAGE, 0), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_detach(&rig, 2, RIG_BRIDGE_ID), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP1, PAGE), DMA_FAULT_DOMAIN);
	rig_stop(&rig);
}

TEST(queries)
{
	struct viommu_endpoint_info endpoints[RIG_NR_ENDPOINTS];
	struct viommu_domain_info domains[2];

	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 7, RIG_ID0, 0), OK);
	CHECK_EQ(rig_attach(&rig, 9, RIG_ID1, VIRTIO_IOMMU_ATTACH_F_BYPASS), OK);
	CHECK_EQ(rig_map_page(&rig, 7, PAGE, 0), OK);
	rig_probe_read(&rig, RIG_EP0, 0);
	CHECK_EQ(viommu_ctx_query_endpoints(rig.ctx, endpoints, 1), RIG_NR_ENDPOINTS);
	CHECK_EQ(viommu_ctx_query_endpoints(rig.ctx, endpoints, RIG_NR_ENDPOINTS),
		 RIG_NR_ENDPOINTS);
	CHECK(!strcmp(endpoints[0].name, "ep0") && endpoints[0].id == RIG_ID0);
	CHECK(endpoints[0].attached && endpoints[0].domain == 7);
	CHECK(endpoints[0].connected && endpoints[0].bus_master);
	CHECK(endpoints[0].transactions == 1 && endpoints[0].faults == 1);
	CHECK(endpoints[2].iommu == VIOMMU_NO_IOMMU && !endpoints[2].attached);
	CHECK_EQ(viommu_ctx_query_domains(rig.ctx, domains, 2), 2);
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(domains[i].nr_endpoints, 1);
		CHECK_EQ(domains[i].bypass, domains[i].id == 9);
		CHECK_EQ(domains[i].mapped_bytes, domains[i].id == 7 ? PAGE : 0);
		CHECK_EQ(domains[i].iommu, rig.iommu_index);
	}
	rig_stop(&rig);
}

static void *query_all_the_time(void *opaque)
{
	struct viommu_endpoint_info endpoints[RIG_NR_ENDPOINTS];
	struct viommu_domain_info domains[4];
	atomic_bool *stop = opaque;

	while (!atomic_load(stop)) {
		viommu_ctx_query_endpoints(rig.ctx, endpoints, RIG_NR_ENDPOINTS);
		CHECK(viommu_ctx_query_domains(rig.ctx, domains, 4) <= 2);
	}
	return NULL;
}

TEST(queries_while_everything_moves)
{
	const struct rig_dma dma = { DMA_OP_COPY, PAGE, 32 * PAGE, 16 * PAGE };
	atomic_bool stop = false;
	pthread_t thread;

	rig_start_ready(&rig, NULL);
	REQUIRE(!pthread_create(&thread, NULL, query_all_the_time, &stop));
	for (unsigned round = 0; round < 200; round++) {
		uint32_t domain = round % 3 + 1;

		CHECK_EQ(rig_attach(&rig, domain, RIG_ID0, 0), OK);
		CHECK_EQ(rig_attach(&rig, domain, RIG_ID1, 0), OK);
		for (unsigned page = 1; page < 64; page += 7)
			CHECK_EQ(rig_map_page(&rig, domain, page * PAGE, page), OK);
		rig_dma_start(&rig, round % 2, round % 16, &dma);
		CHECK_EQ(rig_unmap(&rig, domain, 0, 64 * PAGE - 1), OK);
		rig_dma_wait(&rig, round % 2, round % 16);
	}
	atomic_store(&stop, true);
	pthread_join(thread, NULL);
	rig_stop(&rig);
}

/* One domain with a readable page, one that is writable, and what must hold without mutants. */
static void check_device(bool good)
{
	int wrong = 0;

	memset(rig.ram + RIG_DATA, 1, PAGE);
	memset(rig.ram + RIG_DATA + PAGE, 2, PAGE);
	wrong += rig_attach(&rig, 1, RIG_ID0, 0) != OK;
	wrong += rig_map(&rig, 1, PAGE, 2 * PAGE - 1, RAM_DATA, 1) != OK;
	wrong += rig_probe_write(&rig, RIG_EP0, PAGE) != DMA_FAULT_PERMISSION;
	wrong += rig_dma(&rig, RIG_EP0, DMA_OP_CHECKSUM, PAGE, 0, 4) != DMA_STATUS_OK;
	/* zlib's crc32(b"\x01" * 4) */
	wrong += rig_slot(&rig, RIG_EP0, 0, DMA_SLOT_RESULT, 8) != 0xf626d399u;
	wrong += rig_unmap(&rig, 1, PAGE, 2 * PAGE - 1) != OK;
	wrong += rig_probe_read(&rig, RIG_EP0, PAGE) != DMA_FAULT_MAPPING;
	wrong += rig_detach(&rig, 1, RIG_ID0) != OK;
	wrong += rig_probe_read(&rig, RIG_EP0, PAGE) != DMA_FAULT_DOMAIN;
	if (good)
		CHECK_EQ(wrong, 0);
	else
		CHECK(wrong > 0);
}

TEST(mutants_are_noticed)
{
	static const char *const seen_here[] = {
		"ignore-unmap",      "ignore-permissions", "translate-off-by-page",
		"accept-map-ignore", "ignore-detach",      "short-used-len",
	};

	rig_start_ready(&rig, NULL);
	check_device(true);
	for (size_t i = 0; i < sizeof(seen_here) / sizeof(seen_here[0]); i++) {
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, seen_here[i], true));
		check_device(false);
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, seen_here[i], false));
		rig_init_driver(&rig, RIG_ALL_FEATURES);
		check_device(true);
	}
	CHECK_EQ(viommu_ctx_set_mutant(rig.ctx, "no-such-mutant", true), -ENOENT);
	rig_stop(&rig);
}

TEST(mutants_that_keep_silent)
{
	int fd = make_eventfd();

	rig_start_ready(&rig, NULL);
	REQUIRE(!viommu_ctx_set_mutant(rig.ctx, "lose-fault-event", true));
	rig_probe_read(&rig, RIG_EP0, 0);
	rig_read(&rig, VIRTIO_PCI_COMMON_STATUS, 1);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULT_DOMAIN), 1);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_FAULTS_DROPPED), 0);
	REQUIRE(!viommu_ctx_set_mutant(rig.ctx, "drop-interrupt", true));
	REQUIRE(!client_set_irqs(rig.endpoints[2], 0x24, 2, 0, 1, &fd, 1));
	rig_ep_write(&rig, 2, DMA_ENGINE_IRQ_TRIGGER, 0, 4);
	CHECK_EQ(eventfd_count(fd), 0);
	REQUIRE(!viommu_ctx_set_mutant(rig.ctx, "drop-interrupt", false));
	rig_ep_write(&rig, 2, DMA_ENGINE_IRQ_TRIGGER, 0, 4);
	CHECK_EQ(eventfd_count(fd), 1);
	close(fd);
	rig_stop(&rig);
}

TEST(every_mutant_says_what_to_notice)
{
	unsigned nr = 0;

	for (const struct viommu_mutant_info *info = viommu_mutants(); info->name; info++, nr++)
		CHECK(info->notice && strlen(info->notice) > 20);
	CHECK(nr >= 8);
}
