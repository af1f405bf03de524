/* SPDX-License-Identifier: GPL-2.0-or-later */
/* nvme_spec.h - what the NVM Express base specification 1.4 defines and we use of it. */
#ifndef NVME_SPEC_H
#define NVME_SPEC_H

/* Controller registers (3.1). */
#define NVME_CAP 0x00 /* 64 */
#define NVME_VS 0x08
#define NVME_CC 0x14
#define NVME_CSTS 0x1c
#define NVME_AQA 0x24
#define NVME_ASQ 0x28 /* 64 */
#define NVME_ACQ 0x30 /* 64 */
#define NVME_REGS_SIZE 0x40
#define NVME_DOORBELLS 0x1000 /* of queue n: submission tail, completion head, 4 bytes each */

#define NVME_VS_1_4 0x00010400u
#define NVME_CAP_CONTIGUOUS (1ull << 16)
#define NVME_CAP_TIMEOUT_SHIFT 24 /* in 500 ms */
#define NVME_CAP_NVM_COMMANDS (1ull << 37)
#define NVME_CC_ENABLE 0x1u
/* Command set, page size and arbitration: 0 is all that CAP offers. */
#define NVME_CC_CHOICES 0x3ff0u
#define NVME_CC_SHUTDOWN 0xc000u
#define NVME_CC_IOSQES(cc) ((cc) >> 16 & 0xf)
#define NVME_CC_IOCQES(cc) ((cc) >> 20 & 0xf)
#define NVME_CSTS_READY 0x1u
#define NVME_CSTS_FATAL 0x2u
#define NVME_CSTS_SHUTDOWN_RUNS 0x4u
#define NVME_CSTS_SHUTDOWN_DONE 0x8u

#define NVME_SQE_SIZE 64u
#define NVME_CQE_SIZE 16u
#define NVME_SQE_LOG2 6
#define NVME_CQE_LOG2 4
#define NVME_PAGE 4096u

/* Status codes (4.6.1), type << 8 | code, and "do not retry". */
enum {
	NVME_SUCCESS = 0x000,
	NVME_INVALID_OPCODE = 0x001,
	NVME_INVALID_FIELD = 0x002,
	NVME_DATA_TRANSFER = 0x004,
	NVME_INVALID_NAMESPACE = 0x00b,
	NVME_PRP_OFFSET = 0x013,
	NVME_WRITE_PROTECTED = 0x020,
	NVME_LBA_RANGE = 0x080,
	NVME_CAPACITY = 0x081,
	NVME_CQ_INVALID = 0x100,
	NVME_QID_INVALID = 0x101,
	NVME_QUEUE_SIZE = 0x102,
	NVME_AER_LIMIT = 0x105,
	NVME_VECTOR_INVALID = 0x108,
	NVME_LOG_PAGE_INVALID = 0x109,
	NVME_QUEUE_DELETION = 0x10c,
	NVME_NOT_SAVEABLE = 0x10d,
	NVME_WRITE_FAULT = 0x280,
	NVME_READ_ERROR = 0x281,
	NVME_DNR = 0x4000,
	NVME_LATER = 0x8000, /* ours: no completion yet */
};

enum {
	NVME_ADMIN_DELETE_SQ = 0x00,
	NVME_ADMIN_CREATE_SQ = 0x01,
	NVME_ADMIN_GET_LOG_PAGE = 0x02,
	NVME_ADMIN_DELETE_CQ = 0x04,
	NVME_ADMIN_CREATE_CQ = 0x05,
	NVME_ADMIN_IDENTIFY = 0x06,
	NVME_ADMIN_ABORT = 0x08,
	NVME_ADMIN_SET_FEATURES = 0x09,
	NVME_ADMIN_GET_FEATURES = 0x0a,
	NVME_ADMIN_ASYNC_EVENT = 0x0c,
};

enum {
	NVME_IO_FLUSH = 0x00,
	NVME_IO_WRITE = 0x01,
	NVME_IO_READ = 0x02,
	NVME_IO_WRITE_ZEROES = 0x08,
	NVME_IO_DATASET = 0x09,
};

#define NVME_IO_FUA (1u << 30) /* in dword 12 */
#define NVME_DATASET_DEALLOCATE 0x4u

enum {
	NVME_CNS_NAMESPACE = 0x00,
	NVME_CNS_CONTROLLER = 0x01,
	NVME_CNS_NAMESPACES = 0x02,
	NVME_CNS_DESCRIPTORS = 0x03,
};

enum {
	NVME_FEATURE_ARBITRATION = 0x01,
	NVME_FEATURE_ERROR_RECOVERY = 0x05,
	NVME_FEATURE_WRITE_CACHE = 0x06,
	NVME_FEATURE_NR_QUEUES = 0x07,
	NVME_FEATURE_ASYNC_EVENTS = 0x0b,
	NVME_NR_FEATURES = 0x0c,
};

enum { NVME_LOG_ERROR = 0x01, NVME_LOG_HEALTH = 0x02, NVME_LOG_FIRMWARE = 0x03 };

#define NVME_QUEUE_CONTIGUOUS 0x1u
#define NVME_QUEUE_INTERRUPTS 0x2u

/* Asynchronous events of type "error" (5.2.1). */
enum { NVME_EVENT_DOORBELL_REGISTER = 0, NVME_EVENT_DOORBELL_VALUE = 1, NVME_EVENT_NONE = -1 };

#define NVME_ALL_NAMESPACES 0xffffffffu

#endif /* NVME_SPEC_H */
