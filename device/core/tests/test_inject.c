// SPDX-License-Identifier: GPL-2.0-or-later
/* Fault injection: each action, and which requests a rule is for. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/virtio_iommu.h>
#include <linux/virtio_ring.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"
#include "rig.h"
#include "shorthand.h"

#define BUFFER 0x20000ull /* offset in RAM: the requests that post() sends */

static struct rig rig;

#define RULE(action_name, ...)                                     \
	(struct viommu_inject_rule)                                \
	{                                                          \
		.action = VIOMMU_INJECT_##action_name, __VA_ARGS__ \
	}

/* -1 for any endpoint or domain. */
static int try_add(struct viommu_inject_rule rule, int64_t endpoint, int64_t domain, uint32_t *ret)
{
	rule.endpoint = endpoint;
	rule.domain = domain;
	return viommu_ctx_inject_add(rig.ctx, &rule, ret);
}

static uint32_t add_for(struct viommu_inject_rule rule, int64_t endpoint, int64_t domain)
{
	uint32_t id = 0;

	REQUIRE(!try_add(rule, endpoint, domain, &id));
	return id;
}

static uint32_t add(struct viommu_inject_rule rule)
{
	return add_for(rule, -1, -1);
}

/* Endpoint 0 in domain 1 and endpoint 1 in domain 2, each with a page at PAGE. */
static void start_both(void)
{
	rig_start_ready(&rig, NULL);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID1, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), OK);
	CHECK_EQ(rig_map_page(&rig, 2, PAGE, 1), OK);
}

static int map_and_unmap(uint32_t domain)
{
	int status = rig_map_page(&rig, domain, 8 * PAGE, 0);

	rig_unmap(&rig, domain, 8 * PAGE, 9 * PAGE - 1);
	return status;
}

TEST(rules_that_mean_nothing_are_refused)
{
	const struct viommu_inject_rule wrong[] = {
		RULE(NR_ACTIONS),
		RULE(DROP, .request = VIOMMU_LOG_UNKNOWN_REQUEST),
		RULE(LOSE_FAULT, .request = VIOMMU_LOG_MAP),
		RULE(DROP, .parameter = 1),
		RULE(DELAY),
		RULE(STATUS, .parameter = 256),
	};
	uint32_t id = 77;

	rig_start(&rig, NULL);
	for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
		CHECK_EQ(try_add(wrong[i], -1, -1, &id), -EINVAL);
	CHECK_EQ(try_add(RULE(DROP), 1ll << 32, -1, &id), -EINVAL);
	CHECK_EQ(try_add(RULE(DROP), -1, 1ll << 32, &id), -EINVAL);
	CHECK_EQ(id, 77);
	CHECK_EQ(viommu_ctx_inject_remove(rig.ctx, 0), -ENOENT);
	CHECK_EQ(viommu_ctx_inject_remove(rig.ctx, 1), -ENOENT);
	CHECK_EQ(viommu_ctx_inject_list(rig.ctx, NULL, 0), 0);
	rig_stop(&rig);
}

TEST(rules_are_listed_counted_and_bounded)
{
	const struct viommu_inject_rule rule = RULE(DROP, .request = VIOMMU_LOG_PROBE);
	struct viommu_inject_info info[2];
	uint32_t first, id;

	start_both();
	first = add(RULE(STATUS, .request = VIOMMU_LOG_MAP, .parameter = DEVERR, .after = 1,
			 .count = 2));
	CHECK_EQ(map_and_unmap(1), OK);
	CHECK_EQ(map_and_unmap(1), DEVERR);
	CHECK_EQ(map_and_unmap(2), DEVERR);
	CHECK_EQ(map_and_unmap(1), OK);
	CHECK_EQ(viommu_ctx_inject_list(rig.ctx, info, 2), 1);
	CHECK_EQ(info[0].id, first);
	CHECK(!info[0].mutant);
	CHECK_EQ(info[0].rule.parameter, DEVERR);
	CHECK_EQ(info[0].nr_matches, 4);
	CHECK_EQ(info[0].nr_hits, 2);
	for (unsigned i = 1; i < 64; i++)
		add(rule);
	CHECK_EQ(try_add(rule, -1, -1, &id), -ENOSPC);
	CHECK_EQ(viommu_ctx_inject_list(rig.ctx, info, 2), 64);
	CHECK(!viommu_ctx_inject_remove(rig.ctx, first));
	CHECK_EQ(viommu_ctx_inject_remove(rig.ctx, first), -ENOENT);
	CHECK(add(rule) > 64);
	rig_stop(&rig);
}

TEST(rules_choose_by_request_domain_and_endpoint)
{
	uint32_t id;

	start_both();
	id = add_for(RULE(STATUS, .parameter = DEVERR), -1, 2);
	CHECK_EQ(map_and_unmap(1), OK);
	CHECK_EQ(map_and_unmap(2), DEVERR);
	CHECK_EQ(rig_detach(&rig, 2, RIG_ID1), DEVERR);
	CHECK(!viommu_ctx_inject_remove(rig.ctx, id));
	/* A MAP is of the endpoints that are in its domain. */
	id = add_for(RULE(STATUS, .parameter = DEVERR), RIG_ID0, -1);
	CHECK_EQ(map_and_unmap(1), DEVERR);
	CHECK_EQ(map_and_unmap(2), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), DEVERR);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID1, 0), OK);
	CHECK(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(map_and_unmap(1), OK);
	rig_stop(&rig);
}

TEST(ignore_answers_ok_only_to_what_is_right)
{
	uint32_t id;

	start_both();
	id = add(RULE(IGNORE));
	CHECK_EQ(rig_map_page(&rig, 1, PAGE, 0), VIRTIO_IOMMU_S_INVAL);
	CHECK_EQ(rig_map_page(&rig, 1, 8 * PAGE, 0), OK);
	CHECK_EQ(rig_unmap(&rig, 1, PAGE, 2 * PAGE - 1), OK);
	CHECK_EQ(rig_attach(&rig, 2, RIG_ID0, 0), OK);
	CHECK_EQ(rig_detach(&rig, 2, RIG_ID0), VIRTIO_IOMMU_S_INVAL);
	CHECK_EQ(rig_detach(&rig, 1, RIG_ID0), OK);
	CHECK(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 8 * PAGE), DMA_FAULT_MAPPING);
	rig_stop(&rig);
}

TEST(probe_that_is_ignored_has_no_properties)
{
	struct virtio_iommu_req_probe probe = { .head.type = VIRTIO_IOMMU_T_PROBE };
	uint8_t answer[512 + 4], zeroes[512 + 4] = { 0 };

	start_both();
	probe.endpoint = RIG_ID0;
	CHECK_EQ(rig_request(&rig, &probe, 72, answer, sizeof(answer)), sizeof(answer));
	CHECK(memcmp(answer, zeroes, sizeof(answer)));
	REQUIRE(!viommu_ctx_set_mutant(rig.ctx, "empty-probe", true));
	CHECK_EQ(rig_request(&rig, &probe, 72, answer, sizeof(answer)), sizeof(answer));
	CHECK(!memcmp(answer, zeroes, sizeof(answer)));
	rig_stop(&rig);
}

TEST(leak_reaches_another_domains_mapping)
{
	uint32_t id;

	start_both();
	CHECK_EQ(rig_map_page(&rig, 2, 8 * PAGE, 1), OK);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 8 * PAGE), DMA_FAULT_MAPPING);
	id = add_for(RULE(LEAK_DOMAIN), RIG_ID0, -1);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 8 * PAGE), DMA_FAULT_NONE);
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 9 * PAGE), DMA_FAULT_MAPPING);
	CHECK(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(rig_probe_read(&rig, RIG_EP0, 8 * PAGE), DMA_FAULT_MAPPING);
	rig_stop(&rig);
}

/* --- rings --- */

/* Makes an UNMAP of nothing available in descriptors 2n and 2n + 1. */
static void post(unsigned n)
{
	const struct virtio_iommu_req_unmap unmap = {
		.head.type = VIRTIO_IOMMU_T_UNMAP,
		.domain = 1,
		.virt_start = 0x100000 * (n + 1),
		.virt_end = 0x100000 * (n + 1) + PAGE - 1,
	};
	uint64_t at = BUFFER + n * 0x100;

	memcpy(rig.ram + at, &unmap, sizeof(unmap));
	rig_set_desc(&rig, 0, 2 * n,
		     (struct rig_desc){ RIG_RAM + at, offsetof(typeof(unmap), tail),
					VRING_DESC_F_NEXT, 2 * n + 1 });
	rig_set_desc(&rig, 0, 2 * n + 1,
		     (struct rig_desc){ RIG_RAM + at + 0x80, 4, VRING_DESC_F_WRITE, 0 });
	rig_make_available(&rig, 0, 2 * n);
}

static void check_used(unsigned n)
{
	uint32_t head = 0, len = 0;

	CHECK(rig_take_used(&rig, 0, &head, &len));
	CHECK_EQ(head, 2 * n);
	CHECK_EQ(len, 4);
}

static bool nothing_used(void)
{
	uint32_t head, len;

	return !rig_take_used(&rig, 0, &head, &len);
}

/* The device's own interrupt for the request queue. */
static int request_irq(void)
{
	int fd = make_eventfd();

	/* VFIO_IRQ_SET_DATA_EVENTFD | ACTION_TRIGGER, MSI-X, vector 1 */
	REQUIRE(client_set_irqs(rig.iommu, 4 | 32, 2, 1, 1, &fd, 1) >= 0);
	return fd;
}

TEST(drop_loses_one_request)
{
	start_both();
	add(RULE(DROP, .after = 1, .count = 1));
	for (unsigned n = 0; n < 3; n++)
		post(n);
	rig_kick(&rig, 0);
	check_used(0);
	check_used(2);
	CHECK(nothing_used());
	rig_stop(&rig);
}

TEST(answer_twice_repeats_a_used_element)
{
	start_both();
	add(RULE(ANSWER_TWICE, .count = 1));
	post(0);
	post(1);
	rig_kick(&rig, 0);
	check_used(0);
	check_used(0);
	check_used(1);
	CHECK(nothing_used());
	rig_stop(&rig);
}

TEST(delay_holds_the_queue_and_not_the_device)
{
	int fd;

	start_both();
	fd = request_irq();
	add(RULE(DELAY, .parameter = 300000, .after = 1, .count = 1));
	for (unsigned n = 0; n < 3; n++)
		post(n);
	rig_kick(&rig, 0);
	/* What was before it is answered, and the registers are served. */
	CHECK_EQ(eventfd_count(fd), 1);
	check_used(0);
	CHECK(nothing_used());
	CHECK_EQ(eventfd_wait(fd), 1);
	check_used(1);
	check_used(2);
	CHECK(nothing_used());
	close(fd);
	rig_stop(&rig);
}

TEST(delay_ends_with_a_reset)
{
	start_both();
	add(RULE(DELAY, .parameter = 4000000000u, .count = 1));
	post(0);
	rig_kick(&rig, 0);
	CHECK(nothing_used());
	rig_init_driver(&rig, RIG_ALL_FEATURES);
	CHECK_EQ(rig_attach(&rig, 1, RIG_ID0, 0), OK);
	rig_stop(&rig);
}

TEST(stall_lasts_as_long_as_its_rule)
{
	uint32_t id;
	int fd;

	start_both();
	fd = request_irq();
	id = add(RULE(STALL, .request = VIOMMU_LOG_UNMAP, .after = 1));
	for (unsigned n = 0; n < 3; n++)
		post(n);
	rig_kick(&rig, 0);
	CHECK_EQ(eventfd_wait(fd), 1);
	check_used(0);
	rig_kick(&rig, 0);
	CHECK(nothing_used());
	CHECK(!viommu_ctx_inject_remove(rig.ctx, id));
	CHECK_EQ(eventfd_wait(fd), 1);
	check_used(1);
	check_used(2);
	close(fd);
	rig_stop(&rig);
}

TEST(interrupts_are_dropped_for_one_endpoint_only)
{
	int fd;

	start_both();
	fd = request_irq();
	add_for(RULE(DROP_INTERRUPT), RIG_ID0, -1);
	CHECK_EQ(map_and_unmap(1), OK);
	CHECK_EQ(eventfd_count(fd), 2);
	add(RULE(DROP_INTERRUPT));
	CHECK_EQ(map_and_unmap(1), OK);
	CHECK_EQ(eventfd_count(fd), 0);
	close(fd);
	rig_stop(&rig);
}

TEST(reset_is_ignored_by_one_endpoint_only)
{
	uint64_t before;

	start_both();
	before = rig_counter(&rig, VIOMMU_COUNT_RESETS);
	for (unsigned i = 0; i < 2; i++)
		rig_ep_write(&rig, i, DMA_ENGINE_SCRATCH, 0x1234, 4);
	add_for(RULE(IGNORE_RESET), RIG_ID0, -1);
	for (unsigned i = 0; i < 2; i++)
		CHECK_EQ(client_reset(rig.endpoints[i]), 0);
	CHECK_EQ(rig_ep_read(&rig, 0, DMA_ENGINE_SCRATCH, 4), 0x1234);
	CHECK_EQ(rig_ep_read(&rig, 1, DMA_ENGINE_SCRATCH, 4), 0);
	CHECK_EQ(rig_counter(&rig, VIOMMU_COUNT_RESETS), before + 1);
	rig_stop(&rig);
}

/* --- death --- */

static void remove_sockets(const char *dir)
{
	static const char *const names[] = { "iommu", "ep0", "ep1", "ep2" };
	char path[128];

	for (unsigned i = 0; i < 4; i++) {
		snprintf(path, sizeof(path), "%s/%s", dir, names[i]);
		CHECK(!unlink(path));
	}
	CHECK(!rmdir(dir));
}

TEST(die_kills_the_process)
{
	/* Shared, so that the parent can tidy up after the child. */
	struct rig *shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
				  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status = 0;
	pid_t child;

	REQUIRE(shared != MAP_FAILED);
	fflush(stdout);
	child = fork();
	REQUIRE(child >= 0);
	if (!child) {
		struct viommu_inject_rule rule = RULE(DIE, .endpoint = -1, .domain = -1);
		uint32_t id;

		rig_start_ready(shared, NULL);
		REQUIRE(!viommu_ctx_inject_add(shared->ctx, &rule, &id));
		rig_attach(shared, 1, RIG_ID0, 0);
		_exit(0);
	}
	REQUIRE(waitpid(child, &status, 0) == child);
	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGKILL);
	remove_sockets(shared->dir);
	munmap(shared, sizeof(*shared));
}

TEST(mutants_are_rules_with_a_name)
{
	struct viommu_inject_info info[1];

	rig_start(&rig, NULL);
	for (const struct viommu_mutant_info *m = viommu_mutants(); m->name; m++) {
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, m->name, true));
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, m->name, true));
		CHECK_EQ(viommu_ctx_inject_list(rig.ctx, info, 1), 1);
		CHECK(info[0].mutant && !strcmp(info[0].mutant, m->name));
		CHECK_EQ(info[0].rule.action, m->rule.action);
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, m->name, false));
		REQUIRE(!viommu_ctx_set_mutant(rig.ctx, m->name, false));
		CHECK_EQ(viommu_ctx_inject_list(rig.ctx, info, 1), 0);
	}
	rig_stop(&rig);
}
