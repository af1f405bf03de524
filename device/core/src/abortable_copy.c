// SPDX-License-Identifier: GPL-2.0-or-later
#include "abortable_copy.h"

#include <stdlib.h>

/* clang's way to say what gcc's macros say. */
#ifndef __has_feature
#define __has_feature(name) 0
#endif
#if defined(__SANITIZE_THREAD__) || __has_feature(thread_sanitizer)
#define IS_TSAN 1
#else
#define IS_TSAN 0
#endif
#if defined(__SANITIZE_ADDRESS__) || __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#else
#define __asan_region_is_poisoned(start, size) ((void)(start), (void)(size), NULL)
#endif

/* The thread sanitizer would not see what the sequence writes. */
#if defined(__x86_64__) && !IS_TSAN && __has_include(<sys/rseq.h>)
#define HAS_RSEQ 1
#else
#define HAS_RSEQ 0
#endif

#if HAS_RSEQ

#include <linux/membarrier.h>
#include <sys/rseq.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CACHE_LINE 64
#define STEP 64 /* bytes of a turn of copy_steps() */
#define ALIGN_FROM 1024 /* bytes: below, it does not pay */

/* As the kernel looks for it before an abort handler; the two do not agree by chance. */
_Static_assert(RSEQ_SIG == 0x53053053, "the signature in the assembly below");

static struct rseq *thread_rseq(void)
{
	return (struct rseq *)((char *)__builtin_thread_pointer() + __rseq_offset);
}

static long membarrier(int command)
{
	return syscall(SYS_membarrier, command, 0, 0);
}

bool abortable_copy_init(void)
{
	/* The C library registers all threads, or none. */
	if (!__rseq_size || (int32_t)thread_rseq()->cpu_id < 0)
		return false;
	return !membarrier(MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ);
}

/*
 * Between 1 and 2 the kernel sends the thread to 4 if it lost the processor. Registers
 * are as they were. The descriptor may stay in rseq_cs behind the end: the kernel looks
 * whether the thread is inside. The bytes before 4 are an invalid instruction with the
 * signature as its operand.
 */
#define SEQUENCE(body)                            \
	".pushsection __rseq_cs, \"aw\"\n\t"      \
	".balign 32\n"                            \
	"3:\n\t"                                  \
	".long 0, 0\n\t" /* version, flags */     \
	".quad 1f, 2f - 1f, 4f\n\t"               \
	".popsection\n\t"                         \
	"leaq 3b(%%rip), %%rax\n\t"               \
	"movq %%rax, %[rseq_cs]\n"                \
	"1:\n\t"                                  \
	"cmpq %[expected], %[word]\n\t"           \
	"jne 2f\n" body "2:\n\t"                  \
	".pushsection __rseq_failure, \"ax\"\n\t" \
	".byte 0x0f, 0xb9, 0x3d\n\t"              \
	".long 0x53053053\n"                      \
	"4:\n\t"                                  \
	"jmp 2b\n\t"                              \
	".popsection"

/* What "rep movsb" had still to do when it was aborted is in rcx, exactly. */
static size_t copy_bytes(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
			 uint64_t expected)
{
	struct rseq *rseq = thread_rseq();

	__asm__ volatile(SEQUENCE("rep movsb\n")
			 : "+D"(to), "+S"(from), "+c"(len), [rseq_cs] "=m"(rseq->rseq_cs)
			 : [word] "m"(*word), [expected] "r"(expected)
			 : "rax", "cc", "memory");
	return len;
}

/* Copies 16 bytes, then counts them: an abort in between leaves them to be copied again. */
#define COPY_16                                 \
	"movups (%[from], %[left]), %%xmm0\n\t" \
	"movups %%xmm0, (%[to], %[left])\n\t"   \
	"addq $16, %[left]\n\t"

/* The same of whole steps. "rep movsb" takes half as long again on some processors. */
static size_t copy_steps(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
			 uint64_t expected)
{
	struct rseq *rseq = thread_rseq();
	int64_t left = -(int64_t)len; /* an index from the ends, and the count at once */

	__asm__ volatile(SEQUENCE("5:\n\t" COPY_16 COPY_16 COPY_16 COPY_16 "jnz 5b\n")
			 : [left] "+r"(left), [rseq_cs] "=m"(rseq->rseq_cs)
			 : [to] "r"((char *)to + len), [from] "r"((const char *)from + len),
			   [word] "m"(*word), [expected] "r"(expected)
			 : "rax", "xmm0", "cc", "memory");
	return -left;
}

static size_t copy(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
		   uint64_t expected)
{
	size_t steps = len - len % STEP, left = 0;

	if (steps)
		left = copy_steps(to, from, steps, word, expected);
	if (left)
		return len - steps + left;
	return copy_bytes((char *)to + steps, (const char *)from + steps, len - steps, word,
			  expected);
}

size_t abortable_copy(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
		      uint64_t expected)
{
	size_t head = -(uintptr_t)to % CACHE_LINE, left = 0;

	/* Nor does the address sanitizer look into the assembly. */
	if (__asan_region_is_poisoned(to, len) || __asan_region_is_poisoned((void *)from, len))
		abort();
	/* It is fastest to write whole lines. */
	if (len < ALIGN_FROM)
		head = 0;
	if (head)
		left = copy_bytes(to, from, head, word, expected);
	if (left)
		return len - head + left;
	return copy((char *)to + head, (const char *)from + head, len - head, word, expected);
}

void abortable_copy_abort_all(void)
{
	/* Cannot fail once registered; and to go on without it is to corrupt the guest. */
	if (membarrier(MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ))
		abort();
}

#else /* !HAS_RSEQ */

bool abortable_copy_init(void)
{
	return false;
}

size_t abortable_copy(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
		      uint64_t expected)
{
	(void)to, (void)from, (void)len, (void)word, (void)expected;
	abort();
}

void abortable_copy_abort_all(void)
{
	abort();
}

#endif
