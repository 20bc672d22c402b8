/* SPDX-License-Identifier: Apache-2.0 */
/* Owns connections to control-plane servers: lookup, connect (each address in turn), handshake, bytes. */
#include "net/wire_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/resolve.h"

enum wire_state { LOOKUP, CONNECT, HANDSHAKE, UP, DOWN };

struct wire {
	struct loop *loop;
	struct wire_options o; /* strings are ours */
	struct wire_events ev;
	void *arg;
	enum wire_state state;
	struct resolve *resolve;
	struct endpoint at[RESOLVE_ADDRS_MAX];
	unsigned n, next;
	struct io io; /* fd -1: none */
	struct timer deadline;
	SSL *ssl;
	bool blocked;	    /* a write found no room */
	bool ssl_wants_out; /* the handshake, or a read that has to answer the peer first */
	char why[WIRE_WHY_MAX];
};

static void try_next(struct wire *w);

static void drop_socket(struct wire *w)
{
	timer_cancel(&w->deadline);
	SSL_free(w->ssl);
	w->ssl = NULL;
	if (w->io.fd >= 0) {
		io_stop(w->loop, &w->io);
		close(w->io.fd);
	}
	w->io.fd = -1;
	w->blocked = w->ssl_wants_out = false;
}

static void go_down(struct wire *w, const char *why)
{
	if (w->state == DOWN)
		return;
	w->state = DOWN;
	drop_socket(w);
	w->ev.down(w->arg, why);
}

/* The interest follows from the state and from nothing else. */
static int watch(struct wire *w)
{
	uint32_t mask = w->state == CONNECT ? EPOLLOUT : EPOLLIN;

	if (w->blocked || w->ssl_wants_out)
		mask |= EPOLLOUT;
	return io_want(w->loop, &w->io, mask);
}

static void __attribute__((format(printf, 2, 3))) failed(struct wire *w, const char *fmt, ...)
{
	char text[ENDPOINT_STRLEN];
	va_list ap;
	int n = snprintf(w->why, sizeof w->why, "%s: ", endpoint_str(&w->at[w->next - 1], text));

	va_start(ap, fmt);
	vsnprintf(w->why + n, sizeof w->why - (size_t)n, fmt, ap);
	va_end(ap);
	if (w->state == UP) {
		go_down(w, w->why);
		return;
	}
	drop_socket(w);
	try_next(w);
}

/* 0: wait. Positive: go on. Negative: it failed. */
static int tls_wait(struct wire *w, int ret, bool reading)
{
	int code = ret > 0 ? SSL_ERROR_NONE : SSL_get_error(w->ssl, ret);

	if (reading)
		w->ssl_wants_out = code == SSL_ERROR_WANT_WRITE;
	switch (code) {
	case SSL_ERROR_NONE:
		return 1;
	case SSL_ERROR_WANT_READ:
	case SSL_ERROR_WANT_WRITE:
		return 0;
	default:
		failed(w, "%s", code == SSL_ERROR_ZERO_RETURN ? "closed by the server" : wire_tls_error(w->ssl, code));
		ERR_clear_error();
		return -1;
	}
}

/* --- progress ------------------------------------------------------------------------------------------- */

static void now_up(struct wire *w)
{
	timer_cancel(&w->deadline);
	w->state = UP;
	w->ev.up(w->arg);
}

static void shake(struct wire *w)
{
	ERR_clear_error();
	if (tls_wait(w, SSL_do_handshake(w->ssl), true) <= 0)
		return;
	if (wire_tls_is_meant(w->ssl, &w->o))
		now_up(w);
	else
		failed(w, "the server's certificate is not for %s", w->o.host);
}

static bool connected(struct wire *w)
{
	int err = 0;
	socklen_t len = sizeof err;
	const char *wrong;

	getsockopt(w->io.fd, SOL_SOCKET, SO_ERROR, &err, &len);
	if (err) {
		failed(w, "%s", strerror(err));
		return false;
	}
	if (!w->o.tls) {
		now_up(w);
		return w->state == UP;
	}
	wrong = wire_tls_new(&w->o, w->io.fd, &w->ssl);
	if (wrong) {
		failed(w, "%s", wrong);
		return false;
	}
	w->state = HANDSHAKE;
	return true;
}

static ssize_t read_plain(struct wire *w, uint8_t *buf, size_t len)
{
	ssize_t n = recv(w->io.fd, buf, len, 0);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (n <= 0) {
		failed(w, "%s", n ? strerror(errno) : "closed by the server");
		return -1;
	}
	return n;
}

static ssize_t read_tls(struct wire *w, uint8_t *buf, size_t len)
{
	int n = (ERR_clear_error(), SSL_read(w->ssl, buf, (int)len)), go = tls_wait(w, n, true);

	return go > 0 ? n : go;
}

static void read_all(struct wire *w)
{
	uint8_t buf[16384];
	size_t total = 0;

	/* What the library has decrypted already would not wake epoll again, hence SSL_pending. */
	while (w->state == UP && (total < WIRE_READ_MAX || (w->ssl && SSL_pending(w->ssl)))) {
		ssize_t n = w->ssl ? read_tls(w, buf, sizeof buf) : read_plain(w, buf, sizeof buf);

		if (n <= 0)
			return;
		total += (size_t)n;
		w->ev.data(w->arg, buf, (size_t)n);
	}
}

static void socket_ready(struct io *io, uint32_t events)
{
	struct wire *w = container_of(io, struct wire, io);

	if (w->state == CONNECT && !connected(w))
		return;
	if (w->state == HANDSHAKE)
		shake(w);
	if (w->state == UP) {
		if (events & EPOLLOUT)
			w->blocked = false;
		read_all(w);
		if (w->state == UP)
			w->ev.turn(w->arg);
	}
	if ((w->state == HANDSHAKE || w->state == UP) && watch(w)) /* else down, or on to the next address */
		go_down(w, "cannot watch the connection");
}

static void too_late(struct timer *t)
{
	struct wire *w = container_of(t, struct wire, deadline);

	failed(w, w->state == HANDSHAKE ? "no TLS handshake in time" : "no connection in time");
}

static int connect_to(struct wire *w, const struct endpoint *at)
{
	static const int on = 1, idle = 300, interval = 75;
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(at, &ss);
	int fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
	setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof interval);
	if (connect(fd, (struct sockaddr *)&ss, len) && errno != EINPROGRESS) {
		int err = -errno;
		close(fd);
		return err;
	}
	io_init(&w->io, fd, socket_ready);
	return 0;
}

static void try_next(struct wire *w)
{
	while (w->next < w->n) {
		int err = connect_to(w, &w->at[w->next++]);

		w->state = CONNECT;
		if (!err)
			err = watch(w);
		if (!err) {
			timer_set(w->loop, &w->deadline, WIRE_CONNECT_MS, too_late);
			return;
		}
		drop_socket(w);
		snprintf(w->why, sizeof w->why, "%s: %s", w->o.host, strerror(-err));
	}
	go_down(w, w->why);
}

static void looked_up(void *arg, const struct endpoint *at, unsigned n, const char *why)
{
	struct wire *w = arg;

	w->resolve = NULL;
	memcpy(w->at, at, n * sizeof *at);
	w->n = n;
	if (why)
		snprintf(w->why, sizeof w->why, "%s: %s", w->o.host, why);
	try_next(w);
}

/* --- life ----------------------------------------------------------------------------------------------- */

struct wire *wire_new(struct loop *l, const struct wire_options *o, const struct wire_events *ev, void *arg)
{
	struct wire *w = calloc(1, sizeof *w);

	if (!w)
		return NULL;
	w->loop = l;
	w->o = *o;
	w->ev = *ev;
	w->arg = arg;
	w->io.fd = -1;
	w->o.host = strdup(o->host);
	w->o.root = strdup(o->root ? o->root : "SYSTEM");
	w->o.alt_host = o->alt_host ? strdup(o->alt_host) : NULL;
	if (w->o.host && w->o.root && (!o->alt_host || w->o.alt_host))
		w->resolve = resolve_new(l, o->host, o->port, looked_up, w);
	if (w->resolve)
		return w;
	wire_free(w);
	return NULL;
}

void wire_free(struct wire *w)
{
	if (!w)
		return;
	resolve_cancel(w->resolve);
	drop_socket(w);
	free((char *)w->o.host);
	free((char *)w->o.root);
	free((char *)w->o.alt_host);
	free(w);
}

ssize_t wire_write(struct wire *w, const void *buf, size_t len)
{
	ssize_t n;

	if (w->state != UP)
		return -ENOTCONN;
	if (w->ssl) {
		int ret = (ERR_clear_error(), SSL_write(w->ssl, buf, len > INT32_MAX ? INT32_MAX : (int)len));
		int code = ret > 0 ? SSL_ERROR_NONE : SSL_get_error(w->ssl, ret);

		n = ret > 0 ? ret : code == SSL_ERROR_WANT_WRITE || code == SSL_ERROR_WANT_READ ? -EAGAIN : -EPIPE;
		ERR_clear_error();
	} else {
		n = send(w->io.fd, buf, len, MSG_NOSIGNAL);
		if (n < 0)
			n = -errno;
	}
	if (n == -EAGAIN)
		w->blocked = true;
	watch(w); /* an epoll that refuses shows when the peer's silence does */
	return n;
}
