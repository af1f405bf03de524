// SPDX-License-Identifier: GPL-2.0-or-later
#include "mmio.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>

static sigjmp_buf recovery;
static volatile sig_atomic_t armed;

static void handle_sigbus(int signal)
{
	if (armed)
		siglongjmp(recovery, 1);
	/* Not ours: the access is repeated with the default action, which ends us. */
	sigaction(signal, &(struct sigaction){ .sa_handler = SIG_DFL }, NULL);
}

void mmio_init(void)
{
	/* SA_NODEFER: the jump out of the handler must not leave SIGBUS blocked. */
	struct sigaction action = { .sa_handler = handle_sigbus, .sa_flags = SA_NODEFER };

	sigaction(SIGBUS, &action, NULL);
}

static void load(volatile void *address, unsigned int size, uint64_t *value)
{
	if (size == 8)
		*value = *(volatile uint64_t *)address;
	else if (size == 4)
		*value = *(volatile uint32_t *)address;
	else if (size == 2)
		*value = *(volatile uint16_t *)address;
	else
		*value = *(volatile uint8_t *)address;
}

static void store(volatile void *address, unsigned int size, uint64_t value)
{
	if (size == 8)
		*(volatile uint64_t *)address = value;
	else if (size == 4)
		*(volatile uint32_t *)address = (uint32_t)value;
	else if (size == 2)
		*(volatile uint16_t *)address = (uint16_t)value;
	else
		*(volatile uint8_t *)address = (uint8_t)value;
}

int mmio_access(volatile void *address, unsigned int size, bool write, uint64_t *value)
{
	if (sigsetjmp(recovery, 0)) {
		armed = 0;
		return -EIO;
	}
	armed = 1;
	if (write)
		store(address, size, *value);
	else
		load(address, size, value);
	armed = 0;
	return 0;
}
