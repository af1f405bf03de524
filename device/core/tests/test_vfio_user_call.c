// SPDX-License-Identifier: GPL-2.0-or-later
/* DMA_READ and DMA_WRITE: requests of ours, in worker threads of the test. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "client.h"
#include "fixture.h"
#include "harness.h"

struct worker {
	struct fixture *fixture;
	pthread_t thread;
	uint64_t addr;
	uint8_t buf[65536];
	size_t count;
	bool is_write;
	unsigned int timeout_ms;
	int result;
};

static void *work(void *opaque)
{
	struct worker *worker = opaque;

	worker->result = vfu_dma_access(worker->fixture->vfu, worker->addr, worker->buf,
					worker->count, worker->is_write, worker->timeout_ms);
	return NULL;
}

static struct worker *start_worker(struct fixture *fixture, uint64_t addr, size_t count,
				   bool is_write, unsigned int timeout_ms)
{
	struct worker *worker = calloc(1, sizeof(*worker));

	REQUIRE(worker);
	worker->fixture = fixture;
	worker->addr = addr;
	worker->count = count;
	worker->is_write = is_write;
	worker->timeout_ms = timeout_ms;
	memset(worker->buf, 'w', sizeof(worker->buf));
	REQUIRE(!pthread_create(&worker->thread, NULL, work, worker));
	return worker;
}

static int finish_worker(struct worker *worker, uint8_t *first)
{
	int result;

	pthread_join(worker->thread, NULL);
	result = worker->result;
	if (first)
		*first = worker->buf[0];
	free(worker);
	return result;
}

struct request {
	struct vfio_user_header header;
	struct vfio_user_dma_access access;
	uint8_t data[65536];
};

static void receive_request(int sock, struct request *request)
{
	ssize_t nr = client_receive(sock, &request->header, &request->access,
				    sizeof(request->access) + sizeof(request->data));
	size_t data = request->header.command == VFIO_USER_DMA_WRITE ? request->access.count : 0;

	CHECK_EQ(nr, 16 + data);
	CHECK_EQ(request->header.flags, VFIO_USER_REQUEST);
}

/* Answers with len bytes of payload, the access first. */
static void answer(int sock, struct request *request, size_t len, uint32_t error)
{
	request->header.flags = VFIO_USER_REPLY | (error ? VFIO_USER_ERROR : 0);
	request->header.error = error;
	client_send(sock, request->header, &request->access, len, NULL, 0);
}

TEST(dma_read_and_write_with_64_bit_count)
{
	static struct request request;
	struct fixture fixture;
	struct worker *worker;
	uint8_t first;

	fixture_start_connected(&fixture);
	worker = start_worker(&fixture, 0x123456789000, 65536, false, 10000);
	receive_request(fixture.sock, &request);
	CHECK_EQ(request.header.command, VFIO_USER_DMA_READ);
	CHECK_EQ(request.access.address, 0x123456789000);
	CHECK_EQ(request.access.count, 65536);
	memset(request.data, 'r', 65536);
	answer(fixture.sock, &request, 16 + 65536, 0);
	CHECK_EQ(finish_worker(worker, &first), 0);
	CHECK_EQ(first, 'r');

	worker = start_worker(&fixture, 0x1000, 65536, true, 10000);
	receive_request(fixture.sock, &request);
	CHECK_EQ(request.header.command, VFIO_USER_DMA_WRITE);
	CHECK_EQ(request.data[65535], 'w');
	answer(fixture.sock, &request, 16, 0);
	CHECK_EQ(finish_worker(worker, NULL), 0);
	fixture_stop(&fixture);
}

TEST(dma_access_reports_errors_and_nonsense)
{
	static const struct {
		size_t len;
		uint32_t error;
		int result;
	} answers[] = {
		{ 0, ENODEV, -ENODEV },  { 0, EFAULT, -EFAULT },  { 16, EPERM, -EPERM },
		{ 0, 99999, -EIO },      { 0, 0, -EPROTO },       { 16, 0, -EPROTO },
		{ 16 + 63, 0, -EPROTO }, { 16 + 65, 0, -EPROTO }, { 16 + 64, 0, 0 },
	};
	static struct request request;
	struct fixture fixture;

	fixture_start_connected(&fixture);
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		struct worker *worker = start_worker(&fixture, 0, 64, false, 10000);

		receive_request(fixture.sock, &request);
		answer(fixture.sock, &request, answers[i].len, answers[i].error);
		CHECK_EQ(finish_worker(worker, NULL), answers[i].result);
	}
	CHECK_EQ(vfu_dma_access(fixture.vfu, 0, NULL, 0, false, 1), -EINVAL);
	CHECK_EQ(vfu_dma_access(fixture.vfu, 0, NULL, 65537, false, 1), -EINVAL);
	fixture_stop(&fixture);
}

TEST(dma_access_answers_in_any_order)
{
	static struct request requests[3];
	struct fixture fixture;
	struct worker *workers[3];

	fixture_start_connected(&fixture);
	for (size_t i = 0; i < 3; i++)
		workers[i] = start_worker(&fixture, i, 16, false, 10000);
	for (size_t i = 0; i < 3; i++)
		receive_request(fixture.sock, &requests[i]);
	for (size_t i = 3; i-- > 0;) {
		/* The client's own requests go on in between. */
		CHECK_EQ(client_config_read(fixture.sock, 0, 2), 0x1af4);
		requests[i].data[0] = (uint8_t)('a' + requests[i].access.address);
		answer(fixture.sock, &requests[i], 16 + 16, 0);
	}
	for (size_t i = 0; i < 3; i++) {
		uint8_t first;

		CHECK_EQ(finish_worker(workers[i], &first), 0);
		CHECK_EQ(first, 'a' + i);
	}
	fixture_stop(&fixture);
}

TEST(dma_access_late_answer_is_forgotten)
{
	static struct request request;
	struct fixture fixture;

	fixture_start_connected(&fixture);
	CHECK_EQ(finish_worker(start_worker(&fixture, 0, 4096, false, 20), NULL), -ETIMEDOUT);
	receive_request(fixture.sock, &request);
	answer(fixture.sock, &request, 16 + 4096, 0);
	/* So is one to a question never asked. */
	request.header.id ^= 0x5555;
	answer(fixture.sock, &request, 16 + 4096, 0);
	CHECK_EQ(client_reset(fixture.sock), 0);
	fixture_stop(&fixture);
}

TEST(dma_access_needs_client_and_bus_mastering)
{
	struct fixture fixture;
	uint8_t byte;

	fixture_start(&fixture);
	CHECK_EQ(vfu_dma_access(fixture.vfu, 0, &byte, 1, false, 10), -ENOTCONN);
	fixture.sock = client_connect(fixture.path);
	CHECK_EQ(client_version(fixture.sock), 0);
	CHECK_EQ(vfu_dma_access(fixture.vfu, 0, &byte, 1, false, 10), -ENODEV);
	fixture_stop(&fixture);
}

TEST(dma_access_ends_with_reset_and_connection)
{
	static struct request request;
	struct fixture fixture;
	struct worker *worker;

	fixture_start_connected(&fixture);
	worker = start_worker(&fixture, 0, 16, false, 60000);
	receive_request(fixture.sock, &request);
	client_config_write(fixture.sock, 4, 2, 2);
	CHECK_EQ(finish_worker(worker, NULL), -ENODEV);

	client_config_write(fixture.sock, 4, 6, 2);
	worker = start_worker(&fixture, 0, 16, false, 60000);
	receive_request(fixture.sock, &request);
	close(fixture.sock);
	fixture.sock = -1;
	CHECK_EQ(finish_worker(worker, NULL), -ENOTCONN);
	fixture_stop(&fixture);
}

/* The client reads nothing: the socket fills, the workers give up, the stream stays in order. */
TEST(dma_access_to_a_client_that_does_not_read)
{
	static struct request request;
	struct fixture fixture;
	struct worker *workers[8];
	unsigned int nr_sent = 0;

	fixture_start_connected(&fixture);
	for (size_t i = 0; i < 8; i++)
		workers[i] = start_worker(&fixture, i, 65536, true, 100);
	for (size_t i = 0; i < 8; i++) {
		int result = finish_worker(workers[i], NULL);

		CHECK(result == -ETIMEDOUT || result == -EPIPE || result == -ENOTCONN);
	}
	while (client_receive(fixture.sock, &request.header, &request.access,
			      sizeof(request.access) + sizeof(request.data)) > 0) {
		CHECK_EQ(request.data[65535], 'w');
		if (++nr_sent == 8 ||
		    recv(fixture.sock, request.data, 1, MSG_PEEK | MSG_DONTWAIT) < 0)
			break;
	}
	CHECK(nr_sent > 0);
	fixture_stop(&fixture);
}
