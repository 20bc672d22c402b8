/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the tunnel's connection to the keeper (or to istio-cni), from which it has what pods there are, and their sockets.
 *
 * A connection begins with our hello; the server then sends one request at a time and gets one answer each. A pod that
 * cannot be started is answered with an error, and is pending. Running pods do not notice when the connection breaks. */
#include "control/zds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/zds_internal.h"
#include "control/zds_msg.h"
#include "net/seqpacket.h"

static const char target[] = "zds";

void zds_ready_update(struct zds *z)
{
	bool now = z->io.fd >= 0 && z->snapshot && z->n_pending == 0;

	if (now == z->ready)
		return;
	z->ready = now;
	z->h.ready(z->h.arg, now);
}

static void connect_now(struct timer *t);

static void disconnect(struct zds *z)
{
	io_close(z->loop, &z->io);
	z->snapshot = false;
	zds_named_clear(z);
	zds_pending_clear(z);
	zds_ready_update(z);
}

static void connect_later(struct zds *z)
{
	timer_set(z->loop, &z->again, z->backoff_ms, connect_now);
	z->backoff_ms = 2 * z->backoff_ms < ZDS_BACKOFF_MAX_MS ? 2 * z->backoff_ms : ZDS_BACKOFF_MAX_MS;
}

static int answer(struct zds *z, int err, const char *why, const int socket[ZDS_SOCKETS])
{
	uint8_t buf[ZDS_ACK_BYTES], list[ZDS_SOCKETS];
	int fds[ZDS_SOCKETS];
	unsigned n = 0;

	for (unsigned i = 0; !err && i < ZDS_SOCKETS; i++)
		if (socket[i] >= 0) {
			fds[n] = socket[i];
			list[n++] = (uint8_t)i;
		}
	return seqpacket_send(z->io.fd, buf, zds_ack_encode(buf, err ? why : "", list, n), fds, n);
}

static void packet_ready(struct io *io, uint32_t events)
{
	struct zds *z = container_of(io, struct zds, io);
	uint8_t buf[SEQPACKET_BYTES];
	int fds[SEQPACKET_FDS], socket[ZDS_SOCKETS], err, sent;
	char why[ZDS_WHY_MAX] = "";
	size_t n_fds = 0;
	ssize_t n = seqpacket_recv(io->fd, buf, sizeof buf, fds, &n_fds);

	if (n == -EAGAIN)
		return;
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		socket[i] = -1;
	if (n > 0) {
		err = zds_serve(z, buf, (size_t)n, fds, n_fds, why, socket);
	} else {
		err = n == -EMSGSIZE ? -EBADMSG : n ? (int)n : -ECONNRESET;
		snprintf(why, sizeof why, "%s", n ? strerror((int)-n) : "closed by the server");
	}
	sent = n > 0 || err == -EBADMSG ? answer(z, err, why, socket) : 0;
	if (n > 0 && !sent && err != -EBADMSG && err != -EPROTO) {
		zds_ready_update(z);
		return;
	}
	log_warn(target, "connection to %s ends: %s", z->path, why[0] ? why : strerror(-sent));
	disconnect(z);
	connect_later(z);
}

static void connect_now(struct timer *t)
{
	struct zds *z = container_of(t, struct zds, again);
	uint8_t hello[ZDS_HELLO_BYTES];
	int fd = seqpacket_connect(z->path), err = fd < 0 ? fd : 0;

	if (!err && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		err = -errno;
	if (!err)
		err = seqpacket_send(fd, hello, zds_hello_encode(hello, z->draining), NULL, 0);
	if (!err) {
		io_init(&z->io, fd, packet_ready);
		err = io_want(z->loop, &z->io, EPOLLIN);
	}
	if (!err) {
		z->ours &= z->draining; /* who listens there now has to show it */
		log_info(target, "connected to %s", z->path);
		return;
	}
	z->io.fd = -1;
	if (fd >= 0)
		close(fd);
	log_warn(target, "cannot connect to %s: %s; next attempt in %llu ms", z->path, strerror(-err),
		 (unsigned long long)z->backoff_ms);
	connect_later(z);
}

struct zds *zds_new(struct loop *l, const char *path, const struct zds_handler *h)
{
	struct zds *z = calloc(1, sizeof *z + strlen(path) + 1);

	if (!z)
		return NULL;
	z->loop = l;
	z->h = *h;
	z->io.fd = -1;
	z->backoff_ms = ZDS_BACKOFF_MIN_MS;
	list_init(&z->pending);
	strcpy(z->path, path);
	timer_set(l, &z->again, 0, connect_now);
	return z;
}

void zds_free(struct zds *z)
{
	if (!z)
		return;
	timer_cancel(&z->again);
	if (z->io.fd >= 0)
		io_close(z->loop, &z->io);
	zds_named_clear(z);
	zds_pending_clear(z);
	free(z);
}

void zds_drain(struct zds *z)
{
	if (z->draining)
		return;
	z->draining = true;
	if (z->retiring) {
		zds_pending_clear(z);
		return;
	}
	if (z->io.fd >= 0)
		disconnect(z);
	if (z->ours)
		timer_set(z->loop, &z->again, 0, connect_now);
	else
		timer_cancel(&z->again);
}

unsigned zds_pending(const struct zds *z)
{
	return z->n_pending;
}
