/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * abortable_copy.h - a memcpy() that another thread can end at once.
 *
 * Who takes an endpoint's mapping away must know that nothing is copied by it any
 * more. A lock around the copy tells him, but not before the copier's turn on the
 * processor: if that was taken from it in the middle, milliseconds. So the copy is a
 * restartable sequence (rseq(2)): a thread that lost the processor, or is interrupted
 * by membarrier(2), comes back not into the copy but behind it, with the count of
 * bytes left.
 *
 * Only where kernel, C library and processor can: see abortable_copy_init().
 */
#ifndef ABORTABLE_COPY_H
#define ABORTABLE_COPY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Bytes that may have been copied of those that are left. */
#define ABORTABLE_COPY_UNCOUNTED 16u

/* False: the rest of this file is not to be used. For the process; any number of times. */
bool abortable_copy_init(void);

/*
 * Copies while *word is expected, and returns how many bytes are left: 0 if all are
 * copied. Some may be left although *word has not changed: then try again. Of what is
 * left the first ABORTABLE_COPY_UNCOUNTED bytes may have been copied nevertheless.
 */
size_t abortable_copy(void *to, const void *from, size_t len, const _Atomic uint64_t *word,
		      uint64_t expected);

/*
 * When this returns, no copy goes on that has seen a *word from before the call, nor
 * will one go on.
 */
void abortable_copy_abort_all(void);

#endif /* ABORTABLE_COPY_H */
