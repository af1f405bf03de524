/* SPDX-License-Identifier: GPL-2.0-or-later */
/* reactor.h - one thread, one epoll set: every socket message and every ring is handled here. */
#ifndef REACTOR_H
#define REACTOR_H

#include <stdint.h>

struct reactor;
struct log;

/* Called on the reactor thread with the epoll events of the fd. */
typedef void (*reactor_handler)(void *opaque, uint32_t events);

int reactor_create(struct log *log, struct reactor **ret);
void reactor_destroy(struct reactor *reactor); /* after reactor_stop() */

/* Before start, or on the reactor thread. */
int reactor_add(struct reactor *reactor, int fd, uint32_t events, reactor_handler handler,
		void *opaque);
void reactor_remove(struct reactor *reactor, int fd);

int reactor_start(struct reactor *reactor); /* renews the log's heartbeat every 100 ms */
void reactor_stop(struct reactor *reactor); /* returns when the thread has ended */
/*
 * Handles what is ready, waiting for it at most timeout_ms (-1: for ever); the
 * number of events. What the thread does all the time; while it is stopped,
 * somebody else may, and is the reactor's thread then.
 */
int reactor_turn(struct reactor *reactor, int timeout_ms);

/*
 * Runs handler(opaque, 0) once on the reactor thread, soon. Any thread; never
 * blocks. At most one call is pending per work item: posting again is a no-op.
 */
struct reactor_work;
int reactor_work_create(struct reactor *reactor, reactor_handler handler, void *opaque,
			struct reactor_work **ret);
void reactor_work_destroy(struct reactor_work *work);
void reactor_work_post(struct reactor_work *work);

#endif /* REACTOR_H */
