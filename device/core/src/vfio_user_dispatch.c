// SPDX-License-Identifier: GPL-2.0-or-later
#include "vfio_user_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/*
 * QEMU refuses a reply longer than its own VERSION request, about 200 bytes.
 * write_multiple is left out: QEMU 10 queues messages wrongly when it is on.
 */
static const char version_json[] =
	"{\"capabilities\":{\"max_msg_fds\":16,\"max_data_xfer_size\":1048576,"
	"\"pgsizes\":4096,\"max_dma_maps\":65535}}";

/* Where a handler leaves the payload of its reply. */
struct reply {
	uint8_t *data; /* room for the longest reply */
	size_t len;
};

static void put_reply(struct reply *reply, const void *data, size_t len)
{
	memcpy(reply->data + reply->len, data, len);
	reply->len += len;
}

/* Copies the fixed part of a payload, checking that it is there. */
static bool get_payload(const struct vfu_message *message, void *payload, size_t size)
{
	if (message->len < size)
		return false;
	memcpy(payload, message->body, size);
	return true;
}

/*
 * The client's max_data_xfer_size: all that matters of its capabilities, so
 * that looking for the key will do. 0: there is one that makes no sense.
 */
static size_t parse_max_xfer(const char *json)
{
	static const char key[] = "\"max_data_xfer_size\"";
	const char *at = strstr(json, key);
	unsigned long long value;

	if (!at)
		return VFU_MAX_XFER; /* the default of the specification */
	at += strlen(key);
	at += strspn(at, " \t\r\n");
	if (*at++ != ':')
		return 0;
	at += strspn(at, " \t\r\n");
	if (*at < '0' || *at > '9')
		return 0;
	/* Past the end of the type it says the largest value: as good. */
	value = strtoull(at, NULL, 10);
	return value < VFU_MAX_XFER ? (size_t)value : VFU_MAX_XFER;
}

static int handle_version(struct vfu *vfu, const struct vfu_message *message, struct reply *reply)
{
	struct vfio_user_version version;
	const char *json = "";
	size_t max_xfer;

	if (vfu->negotiated || !get_payload(message, &version, sizeof(version)))
		return -EINVAL;
	if (message->len > sizeof(version)) {
		if (message->body[message->len - 1])
			return -EINVAL;
		json = (const char *)message->body + sizeof(version);
	}
	max_xfer = parse_max_xfer(json);
	if (version.major || !max_xfer)
		return -EINVAL;
	vfu->negotiated = true;
	pthread_mutex_lock(&vfu->call_lock);
	vfu->client_max_xfer = max_xfer;
	pthread_mutex_unlock(&vfu->call_lock);
	version.minor = 0;
	put_reply(reply, &version, sizeof(version));
	if (message->len >= sizeof(version) + sizeof(version_json))
		put_reply(reply, version_json, sizeof(version_json));
	return 0;
}

static void log_dma(struct vfu *vfu, enum viommu_log_kind kind, int err, uint32_t flags,
		    uint64_t address, uint64_t size)
{
	struct viommu_log_record record = {
		.kind = (uint16_t)kind,
		.status = (uint16_t)-err,
		.flags = flags,
		.start = address,
		.end = address + (size - 1),
	};

	vfu_log(vfu, record);
}

static int handle_dma_map(struct vfu *vfu, const struct vfu_message *message)
{
	struct vfio_user_dma_map map;
	unsigned int prot = 0;
	int err;

	if (!get_payload(message, &map, sizeof(map)) || map.argsz < sizeof(map) ||
	    map.flags & ~(VFIO_USER_DMA_MAP_READ | VFIO_USER_DMA_MAP_WRITE) || message->nr_fds > 1)
		return -EINVAL;
	prot |= map.flags & VFIO_USER_DMA_MAP_READ ? MEMORY_READ : 0;
	prot |= map.flags & VFIO_USER_DMA_MAP_WRITE ? MEMORY_WRITE : 0;
	pthread_rwlock_wrlock(vfu->config.dma_lock);
	err = memory_map(vfu->memory, map.address, map.size, prot,
			 message->nr_fds ? message->fds[0] : -1, map.offset);
	pthread_rwlock_unlock(vfu->config.dma_lock);
	log_dma(vfu, VIOMMU_LOG_DMA_MAP, err, map.flags | (message->nr_fds ? 4 : 0), map.address,
		map.size);
	return err;
}

static int handle_dma_unmap(struct vfu *vfu, const struct vfu_message *message)
{
	struct vfio_user_dma_unmap unmap;
	int err = 0;

	if (!get_payload(message, &unmap, sizeof(unmap)) || unmap.argsz < sizeof(unmap) ||
	    unmap.flags & ~VFIO_USER_DMA_UNMAP_ALL)
		return -EINVAL;
	if (unmap.flags && (unmap.address || unmap.size))
		return -EINVAL;
	/* Waits for slices of DMA in flight: when the reply is out, the memory is the client's. */
	pthread_rwlock_wrlock(vfu->config.dma_lock);
	if (unmap.flags) {
		memory_unmap_all(vfu->memory);
	} else {
		err = memory_unmap(vfu->memory, unmap.address, unmap.size);
		/* VFIO's rule: a larger request takes every mapping inside it. */
		if (err == -ENOENT)
			err = memory_unmap_within(vfu->memory, unmap.address, unmap.size);
	}
	pthread_rwlock_unlock(vfu->config.dma_lock);
	log_dma(vfu, VIOMMU_LOG_DMA_UNMAP, err, 0, unmap.address, unmap.size);
	return err;
}

static int handle_device_get_info(const struct vfu_message *message, struct reply *reply)
{
	struct vfio_user_device_info info;

	if (!get_payload(message, &info, sizeof(info)) || info.argsz < sizeof(info))
		return -EINVAL;
	info = (struct vfio_user_device_info){
		.argsz = sizeof(info),
		.flags = VFIO_DEVICE_FLAGS_RESET | VFIO_DEVICE_FLAGS_PCI,
		.num_regions = VFU_NR_REGIONS,
		.num_irqs = VFU_NR_IRQS,
	};
	put_reply(reply, &info, sizeof(info));
	return 0;
}

static int handle_device_get_region_info(const struct vfu *vfu, const struct vfu_message *message,
					 struct reply *reply)
{
	struct vfio_user_region_info info;
	uint64_t size = 0;

	if (!get_payload(message, &info, sizeof(info)) || info.argsz < sizeof(info) ||
	    info.index >= VFU_NR_REGIONS)
		return -EINVAL;
	if (info.index < VFU_NR_BARS)
		size = vfu->config.bars[info.index].size;
	else if (info.index == VFU_REGION_CONFIG)
		size = PCI_CONFIG_SIZE;
	info = (struct vfio_user_region_info){
		.argsz = sizeof(info),
		/* No mmap: one such region would end posted writes for the whole device. */
		.flags = size ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0,
		.index = info.index,
		.size = size,
	};
	put_reply(reply, &info, sizeof(info));
	return 0;
}

static int handle_device_get_irq_info(const struct vfu *vfu, const struct vfu_message *message,
				      struct reply *reply)
{
	struct vfio_user_irq_info info;

	/* ERR and REQ are refused, not counted as 0: that QEMU would warn about. */
	if (!get_payload(message, &info, sizeof(info)) || info.argsz < sizeof(info) ||
	    info.index > IRQ_INDEX_MSIX)
		return -EINVAL;
	info.argsz = sizeof(info);
	info.count = irqs_count(vfu->irqs, info.index);
	info.flags = info.count ? VFIO_IRQ_INFO_EVENTFD : 0;
	if (info.count && info.index == IRQ_INDEX_INTX)
		info.flags |= VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED;
	put_reply(reply, &info, sizeof(info));
	return 0;
}

static int handle_device_set_irqs(struct vfu *vfu, const struct vfu_message *message)
{
	struct vfio_user_irq_set set;
	struct irq_request request;

	if (!get_payload(message, &set, sizeof(set)) || set.argsz < sizeof(set))
		return -EINVAL;
	request = (struct irq_request){
		.flags = set.flags,
		.index = set.index,
		.start = set.start,
		.count = set.count,
		.fds = message->fds,
		.nr_fds = message->nr_fds,
	};
	if (set.flags & IRQ_DATA_BOOL) {
		if (message->len - sizeof(set) < set.count)
			return -EINVAL;
		request.bools = message->body + sizeof(set);
	}
	return irqs_set(vfu->irqs, &request);
}

static int handle_region_read(struct vfu *vfu, const struct vfu_message *message,
			      struct reply *reply)
{
	struct vfio_user_region_access access;
	int err;

	if (!get_payload(message, &access, sizeof(access)))
		return -EINVAL;
	err = vfu_region_read(vfu, &access, reply->data + sizeof(access));
	if (err)
		return err;
	put_reply(reply, &access, sizeof(access));
	reply->len += access.count;
	return 0;
}

static int handle_region_write(struct vfu *vfu, const struct vfu_message *message,
			       struct reply *reply)
{
	struct vfio_user_region_access access;
	int err;

	if (!get_payload(message, &access, sizeof(access)) ||
	    message->len - sizeof(access) != access.count)
		return -EINVAL;
	err = vfu_region_write(vfu, &access, message->body + sizeof(access));
	if (err)
		return err;
	put_reply(reply, &access, sizeof(access));
	return 0;
}

static int handle_device_reset(struct vfu *vfu)
{
	vfu_reset(vfu, VIOMMU_RESET_DEVICE);
	return 0;
}

static int dispatch_command(struct vfu *vfu, const struct vfu_message *message, struct reply *reply)
{
	switch (message->header.command) {
	case VFIO_USER_VERSION:
		return handle_version(vfu, message, reply);
	case VFIO_USER_DMA_MAP:
		return handle_dma_map(vfu, message);
	case VFIO_USER_DMA_UNMAP:
		return handle_dma_unmap(vfu, message);
	case VFIO_USER_DEVICE_GET_INFO:
		return handle_device_get_info(message, reply);
	case VFIO_USER_DEVICE_GET_REGION_INFO:
		return handle_device_get_region_info(vfu, message, reply);
	case VFIO_USER_DEVICE_GET_IRQ_INFO:
		return handle_device_get_irq_info(vfu, message, reply);
	case VFIO_USER_DEVICE_SET_IRQS:
		return handle_device_set_irqs(vfu, message);
	case VFIO_USER_REGION_READ:
		return handle_region_read(vfu, message, reply);
	case VFIO_USER_REGION_WRITE:
		return handle_region_write(vfu, message, reply);
	case VFIO_USER_DEVICE_RESET:
		return handle_device_reset(vfu);
	case VFIO_USER_DEVICE_FEATURE:
		/* EINVAL is what QEMU turns into "not supported". */
		return -EINVAL;
	default:
		return -ENOSYS;
	}
}

static int check_message(const struct vfu *vfu, const struct vfu_message *message)
{
	uint16_t command = message->header.command;

	if (message->nr_fds > VFU_MAX_FDS)
		return -EINVAL;
	if (message->nr_fds && command != VFIO_USER_DMA_MAP && command != VFIO_USER_DEVICE_SET_IRQS)
		return -EINVAL;
	/* Before VERSION nothing else is understood, as the specification has it. */
	return vfu->negotiated || command == VFIO_USER_VERSION ? 0 : -EINVAL;
}

int vfu_dispatch(struct vfu *vfu, const struct vfu_message *message)
{
	struct reply reply = { .data = vfu->reply };
	struct vfio_user_header header = {
		.id = message->header.id,
		.command = message->header.command,
		.flags = VFIO_USER_REPLY,
	};
	int err = check_message(vfu, message);

	if (!err)
		err = dispatch_command(vfu, message, &reply);
	/* Before the reply: who has that may count on them being closed. */
	vfu_conn_close_fds(vfu);
	if (message->header.flags & VFIO_USER_NO_REPLY)
		return 0;
	if (err) {
		header.flags |= VFIO_USER_ERROR;
		header.error = (uint32_t)-err;
		reply.len = 0;
	}
	/* A reply that cannot be sent is a client that waits for ever: no less than fatal. */
	return vfu_conn_reply(vfu, header, reply.data, reply.len);
}
