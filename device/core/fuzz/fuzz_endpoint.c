// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a guest may do to an endpoint: any accesses to its BARs and configuration
 * space, in any order, with anything in memory that it may take for descriptors.
 *
 * Input: a byte that chooses the model and whether its addresses are translated, then
 * steps. Everything runs on this thread, DMA too, so that the same input does the same.
 * The client never answers: what is not in its memory is refused at once.
 */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "client.h"
#include "ctx.h"
#include "dma.h"
#include "domain.h"
#include "endpoint_model.h"
#include "fixture.h"
#include "fuzz.h"
#include "ioat_regs.h"
#include "iommu.h"
#include "nvme_spec.h"
#include "pool.h"
#include "reactor.h"
#include "vfio_user_private.h"

#define MAX_STEPS 256
#define MAX_JOBS 4096
#define MAX_TURNS 1000

/* Memory: writable, and behind a hole read-only. One file, so one page in both. */
#define RAM 0x10000ull
#define RAM_SIZE 0x8000ull
#define ROM 0x20000ull
#define ROM_SIZE 0x1000ull
#define DOMAIN 1
/* What the domain maps: RAM whole, ROM, then nothing of RAM but its second page read-only. */
#define IOVA_RAM 0x100000ull
#define IOVA_ROM 0x200000ull
#define IOVA_PAGE 0x300000ull

#define NR_MODELS VIOMMU_NR_MODELS
#define NR_VECTORS 4
#define IMAGE_SIZE (1 << 20)
#define MSI_WINDOW 0xfee00000ull

enum {
	STEP_WRITE,
	STEP_READ,
	STEP_CONFIG_WRITE,
	STEP_CONFIG_READ,
	STEP_MEMORY,
	STEP_RUN,
	STEP_RESET,
	STEP_MAP,
	NR_STEPS
};

static viommu_ctx_t *ctx;
static struct iommu *iommu;
static struct endpoint *endpoints[NR_MODELS];
static char dir[] = "/tmp/viommu-fuzz.XXXXXX";
static uint8_t *file;
static int memfd;

static void make_path(char *path, size_t size, const char *name)
{
	snprintf(path, size, "%s/%s", dir, name);
}

static void teardown(void)
{
	char path[64];

	viommu_ctx_destroy(ctx);
	make_path(path, sizeof(path), "image");
	unlink(path);
	rmdir(dir);
}

static void add_endpoint(uint32_t model, const char *image)
{
	static const struct viommu_resv_mem msi = { VIOMMU_RESV_MSI, MSI_WINDOW,
						    MSI_WINDOW + 0xfffff };
	char path[64], name[] = "ep0";
	const struct viommu_endpoint_config config = {
		.socket_path = path,
		.name = name,
		.id = 8 + model,
		.model = model,
		.image = model == VIOMMU_MODEL_NVME ? image : NULL,
		.resv = &msi,
		.nr_resv = 1,
	};
	uint32_t index;

	name[2] += model;
	make_path(path, sizeof(path), name);
	FUZZ_CHECK(!viommu_ctx_add_endpoint(ctx, &config, &index));
	endpoints[model] = ctx->functions[index].endpoint;
}

static void create(void)
{
	const struct viommu_config config = { .log_capacity = 1 << 10 };
	struct viommu_iommu_config iommu_config = { 0 };
	char path[64], image[64];
	uint32_t index;
	FILE *stream;

	FUZZ_CHECK(mkdtemp(dir) && !viommu_ctx_create(&config, &ctx));
	make_path(path, sizeof(path), "iommu");
	iommu_config.socket_path = path;
	FUZZ_CHECK(!viommu_ctx_add_iommu(ctx, &iommu_config, &index));
	iommu = ctx->functions[index].iommu;
	make_path(image, sizeof(image), "image");
	stream = fopen(image, "w");
	FUZZ_CHECK(stream && !ftruncate(fileno(stream), IMAGE_SIZE) && !fclose(stream));
	for (uint32_t model = 0; model < NR_MODELS; model++)
		add_endpoint(model, image);
	FUZZ_CHECK(!viommu_ctx_start(ctx));
	pool_stop(ctx->pool);
	reactor_stop(ctx->reactor);
}

static void settle(void)
{
	unsigned turns = 0;

	while (reactor_turn(ctx->reactor, 0) > 0)
		FUZZ_CHECK(++turns < MAX_TURNS);
}

static void give_eventfds(struct vfu *vfu, uint32_t index)
{
	for (uint32_t i = 0; i < irqs_count(vfu->irqs, index); i++) {
		int fd = make_eventfd();
		const struct irq_request request = {
			.flags = IRQ_DATA_EVENTFD | IRQ_ACTION_TRIGGER,
			.index = index,
			.start = i,
			.count = 1,
			.fds = &fd,
			.nr_fds = 1,
		};

		FUZZ_CHECK(!irqs_set(vfu->irqs, &request));
	}
}

static void map_memory(struct vfu *vfu)
{
	struct memory *memory = vfu_memory(vfu);

	pthread_rwlock_wrlock(&ctx->dma_lock);
	memory_unmap_all(memory);
	FUZZ_CHECK(!memory_map(memory, RAM, RAM_SIZE, MEMORY_READ | MEMORY_WRITE, memfd, 0));
	FUZZ_CHECK(!memory_map(memory, ROM, ROM_SIZE, MEMORY_READ, memfd, RAM_SIZE));
	pthread_rwlock_unlock(&ctx->dma_lock);
}

static void setup(void)
{
	if (ctx)
		return;
	memfd = make_memfd(RAM_SIZE + ROM_SIZE, true);
	file = mmap(NULL, RAM_SIZE + ROM_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	FUZZ_CHECK(file != MAP_FAILED);
	create();
	atexit(teardown);
	for (unsigned i = 0; i < NR_MODELS; i++) {
		struct vfu *vfu = endpoints[i]->vfu;

		/* Never asks for a version: then it cannot be asked for memory. */
		client_connect(vfu->config.socket_path);
		settle();
		FUZZ_CHECK(vfu_connected(vfu));
		give_eventfds(vfu, IRQ_INDEX_INTX);
		give_eventfds(vfu, IRQ_INDEX_MSI);
		give_eventfds(vfu, IRQ_INDEX_MSIX);
	}
}

static void map_domain(uint64_t iova, uint64_t size, uint64_t phys, uint32_t flags)
{
	const struct domain_map map = { .domain = DOMAIN,
					.flags = flags,
					.start = iova,
					.end = iova + size - 1,
					.phys = phys };

	FUZZ_CHECK(domain_map(iommu, &map) == 0);
}

static void start_endpoint(struct endpoint *endpoint, bool bypass)
{
	const uint8_t command[] = { 6, 0 };
	const struct vfio_user_region_access access = { 4, VFU_REGION_CONFIG, sizeof(command) };

	domain_detach_all(iommu);
	FUZZ_CHECK(domain_attach(iommu, endpoint, DOMAIN, bypass) == 0);
	if (!bypass) {
		map_domain(IOVA_RAM, RAM_SIZE, RAM, 3);
		map_domain(IOVA_ROM, ROM_SIZE, ROM, 3);
		map_domain(IOVA_PAGE, 0x1000, RAM + 0x1000, 1);
	}
	map_memory(endpoint->vfu);
	vfu_reset(endpoint->vfu, VIOMMU_RESET_DEVICE);
	FUZZ_CHECK(!vfu_region_write(endpoint->vfu, &access, command));
}

static uint32_t take32(struct fuzz_input *input)
{
	uint32_t value;

	fuzz_take(input, &value, sizeof(value));
	return value;
}

/* Where it lies is a matter of luck only in part: most accesses are to be inside a BAR. */
static struct vfio_user_region_access take_access(struct fuzz_input *input, const struct vfu *vfu,
						  bool config)
{
	uint8_t shape = fuzz_byte(input);
	struct vfio_user_region_access access = {
		.region = config ? VFU_REGION_CONFIG : shape >> 2 & 7,
		.offset = take32(input) & 0xffffff,
		.count = 1u << (shape & 3),
	};
	uint64_t size = config ? PCI_CONFIG_SIZE : 0;

	if (access.region < VFU_NR_BARS)
		size = vfu->config.bars[access.region].size;
	if (size && !(shape & 0x80))
		access.offset &= (size - 1) & ~(uint64_t)(access.count - 1);
	if (shape & 0x40)
		access.count = 1 + take32(input) % VFU_MAX_ACCESS;
	return access;
}

static void access_region(struct fuzz_input *input, struct vfu *vfu, bool is_write, bool config)
{
	struct vfio_user_region_access access = take_access(input, vfu, config);
	uint8_t *buf =
		malloc(access.count); /* of the exact size, so that the sanitizer sees its end */

	FUZZ_CHECK(buf);
	if (is_write) {
		fuzz_take(input, buf, access.count);
		vfu_region_write(vfu, &access, buf);
	} else {
		vfu_region_read(vfu, &access, buf);
	}
	free(buf);
}

static void write_memory(struct fuzz_input *input)
{
	uint32_t offset = take32(input) % RAM_SIZE;
	size_t len = fuzz_byte(input);

	if (len > RAM_SIZE - offset)
		len = RAM_SIZE - offset;
	fuzz_take(input, file + offset, len);
}

/* What the guest has left to do is done, unless it never ends. */
static void run_jobs(void)
{
	static uint8_t bounce[DMA_SLICE];
	unsigned nr = 0;

	while (nr < MAX_JOBS && pool_run_one(ctx->pool, bounce))
		nr++;
	settle();
}

static void change_map(struct fuzz_input *input, struct vfu *vfu)
{
	switch (fuzz_byte(input) % 4) {
	case 0:
		pthread_rwlock_wrlock(&ctx->dma_lock);
		memory_unmap_all(vfu_memory(vfu));
		pthread_rwlock_unlock(&ctx->dma_lock);
		break;
	case 1:
		map_memory(vfu);
		break;
	case 2:
		domain_unmap(iommu, DOMAIN, 0, UINT64_MAX);
		break;
	default:
		domain_detach_all(iommu);
	}
}

static void step(struct fuzz_input *input, struct endpoint *endpoint)
{
	struct vfu *vfu = endpoint->vfu;

	switch (fuzz_byte(input) % NR_STEPS) {
	case STEP_WRITE:
		access_region(input, vfu, true, false);
		break;
	case STEP_READ:
		access_region(input, vfu, false, false);
		break;
	case STEP_CONFIG_WRITE:
		access_region(input, vfu, true, true);
		break;
	case STEP_CONFIG_READ:
		access_region(input, vfu, false, true);
		break;
	case STEP_MEMORY:
		write_memory(input);
		break;
	case STEP_RUN:
		run_jobs();
		break;
	case STEP_RESET:
		vfu_reset(vfu, fuzz_byte(input) & 1 ? VIOMMU_RESET_FLR : VIOMMU_RESET_DEVICE);
		break;
	default:
		change_map(input, vfu);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	uint8_t choice = fuzz_byte(&input);
	static uint8_t before[ROM_SIZE];
	struct endpoint *endpoint;

	setup();
	endpoint = endpoints[(choice >> 1) % NR_MODELS];
	memset(file, 0, RAM_SIZE);
	memset(file + RAM_SIZE, 0x5a, ROM_SIZE);
	memcpy(before, file + RAM_SIZE, ROM_SIZE);
	start_endpoint(endpoint, choice & 1);
	for (unsigned i = 0; i < MAX_STEPS && input.size; i++)
		step(&input, endpoint);
	run_jobs();
	/* Whatever it was made to do, it wrote where it may, and stops when told to. */
	FUZZ_CHECK(!memcmp(before, file + RAM_SIZE, ROM_SIZE));
	vfu_reset(endpoint->vfu, VIOMMU_RESET_DEVICE);
	FUZZ_CHECK(!atomic_load(&endpoint->in_flight));
	FUZZ_CHECK(!vfu_bus_master(endpoint->vfu));
	return 0;
}

static size_t put_write(uint8_t *buf, size_t at, uint8_t bar, uint32_t offset, uint64_t value,
			uint8_t log2_size)
{
	buf[at++] = STEP_WRITE;
	buf[at++] = bar << 2 | log2_size;
	memcpy(buf + at, &offset, sizeof(offset));
	memcpy(buf + at + sizeof(offset), &value, 1u << log2_size);
	return at + sizeof(offset) + (1u << log2_size);
}

static size_t put_memory(uint8_t *buf, size_t at, uint32_t offset, const void *bytes, uint8_t len)
{
	buf[at++] = STEP_MEMORY;
	memcpy(buf + at, &offset, sizeof(offset));
	at += sizeof(offset);
	buf[at++] = len;
	memcpy(buf + at, bytes, len);
	return at + len;
}

/* A transaction of the dma engine, and time for it. */
static size_t put_transaction(uint8_t *buf, size_t at, uint32_t command, uint64_t iova,
			      uint64_t operand)
{
	const uint32_t slot = DMA_ENGINE_SLOTS + DMA_ENGINE_SLOT_SIZE * (command & 7);

	at = put_write(buf, at, DMA_ENGINE_BAR_REGS, slot + DMA_SLOT_IOVA, iova, 3);
	at = put_write(buf, at, DMA_ENGINE_BAR_REGS, slot + DMA_SLOT_OPERAND, operand, 3);
	at = put_write(buf, at, DMA_ENGINE_BAR_REGS, slot + DMA_SLOT_LENGTH, 0x1800, 3);
	at = put_write(buf, at, DMA_ENGINE_BAR_REGS, slot + DMA_SLOT_COMMAND, command, 2);
	buf[at++] = STEP_RUN;
	return at;
}

/* Every operation. */
static size_t seed_engine(uint8_t *buf, size_t at, uint64_t ram, uint64_t rom)
{
	for (uint32_t op = DMA_OP_READ; op <= DMA_OP_CHECKSUM; op++) {
		at = put_transaction(buf, at, op | DMA_COMMAND_IRQ_MSIX, ram + 0x10,
				     op == DMA_OP_COPY ? ram + 0x4000 : 0x20);
		at = put_transaction(buf, at, op | DMA_COMMAND_IRQ_INTX, rom - 0x10, ram);
	}
	return at;
}

/* A chain of three copies, the last of which may not be. */
static size_t seed_ioat(uint8_t *buf, size_t at, uint64_t ram, uint64_t rom)
{
	const uint32_t channel = IOAT_CHANNEL(0);

	for (unsigned i = 0; i < 3; i++) {
		const struct {
			uint32_t length, control;
			uint64_t source, destination, next;
		} desc = {
			0x800,
			IOAT_CONTROL_INTERRUPT | IOAT_CONTROL_COMPLETION,
			i == 1 ? rom : ram + 0x4000,
			i == 2 ? rom : ram + 0x5000,
			ram + IOAT_DESCRIPTOR_SIZE * (i + 1),
		};

		at = put_memory(buf, at, IOAT_DESCRIPTOR_SIZE * i, &desc, sizeof(desc));
	}
	at = put_write(buf, at, IOAT_BAR, channel + IOAT_CHANCMP, ram + 0x1000, 3);
	at = put_write(buf, at, IOAT_BAR, channel + IOAT_CHANCTRL,
		       IOAT_CHANCTRL_ERR_INT_EN | IOAT_CHANCTRL_ERR_COMPLETION_EN, 1);
	at = put_write(buf, at, IOAT_BAR, channel + IOAT_CHAINADDR, ram, 3);
	at = put_write(buf, at, IOAT_BAR, channel + IOAT_DMACOUNT, 3, 1);
	buf[at++] = STEP_RUN;
	return at;
}

struct nvme_entry {
	uint32_t command, nsid, reserved[4];
	uint64_t prp1, prp2;
	uint32_t dwords[6];
};

/* The admin queues and a pair of others, then a write and a read. */
static size_t seed_nvme(uint8_t *buf, size_t at, uint64_t ram)
{
	const struct nvme_entry admin[] = {
		{ 0x06, .prp1 = ram + 0x2000, .dwords = { 1 } }, /* identify */
		{ 0x10005, .prp1 = ram + 0x3000, .dwords = { 3 << 16 | 1, 3 } },
		{ 0x20001, .prp1 = ram + 0x4000, .dwords = { 3 << 16 | 1, 1 << 16 | 1 } },
	};
	const struct nvme_entry io[] = {
		{ 0x01, 1, .prp1 = ram + 0x5000, .prp2 = ram + 0x6000, .dwords = { [2] = 15 } },
		{ 0x10002, 1, .prp1 = ram + 0x6000, .prp2 = ram + 0x7000, .dwords = { [2] = 15 } },
	};

	at = put_memory(buf, at, 0, admin, sizeof(admin));
	at = put_memory(buf, at, 0x4000, io, sizeof(io));
	at = put_write(buf, at, 0, NVME_AQA, 3 << 16 | 3, 2);
	at = put_write(buf, at, 0, NVME_ASQ, ram, 3);
	at = put_write(buf, at, 0, NVME_ACQ, ram + 0x1000, 3);
	at = put_write(buf, at, 0, NVME_CC,
		       NVME_CC_ENABLE | NVME_SQE_LOG2 << 16 | NVME_CQE_LOG2 << 20, 2);
	buf[at++] = STEP_RUN;
	at = put_write(buf, at, 0, NVME_DOORBELLS, 3, 2);
	buf[at++] = STEP_RUN;
	at = put_write(buf, at, 0, NVME_DOORBELLS + 8, 2, 2);
	buf[at++] = STEP_RUN;
	return at;
}

/* A plain use of each model, its addresses translated or not. */
size_t fuzz_seed(unsigned n, uint8_t *buf)
{
	bool bypass = n & 1;
	uint64_t ram = bypass ? RAM : IOVA_RAM, rom = bypass ? ROM : IOVA_ROM;

	buf[0] = n;
	switch (n >> 1) {
	case VIOMMU_MODEL_DMA_ENGINE:
		return seed_engine(buf, 1, ram, rom);
	case VIOMMU_MODEL_IOAT:
		return seed_ioat(buf, 1, ram, rom);
	case VIOMMU_MODEL_NVME:
		return seed_nvme(buf, 1, ram);
	default:
		return 0;
	}
}
