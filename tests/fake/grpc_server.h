/* SPDX-License-Identifier: Apache-2.0 */
/* A small gRPC server for unary calls, over TLS or plaintext: one thread per connection, blocking. Header-only, so that
 * tests and fakes include it. */
#pragma once
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/grpc_frame.h"

enum { SERVER_CONNS_MAX = 64, SERVER_HEADERS_MAX = 24, SERVER_BODY_MAX = 1 << 20 };

struct server_request {
	char path[256];
	struct {
		char name[64], value[1024];
	} header[SERVER_HEADERS_MAX];
	unsigned n_headers;
	uint8_t *body; /* with its prefix */
	size_t len;
};
static inline const char *server_header(const struct server_request *r, const char *name)
{
	for (unsigned i = 0; i < r->n_headers; i++)
		if (!strcmp(r->header[i].name, name))
			return r->header[i].value;
	return NULL;
}

struct server_reply { /* filled by `serve` */
	int status;   /* gRPC */
	char message[128];
	uint8_t *body; /* malloc'ed message without prefix, or NULL */
	size_t len;
	unsigned http_status; /* 0: 200 */
	bool hang;	      /* never answers */
	bool reset;	      /* RST_STREAM(REFUSED_STREAM) */
	bool drop;	      /* closes the connection */
	bool goaway;	      /* after this answer */
};
struct server_conn;
struct server_options {
	const char *host;		 /* an address */
	uint16_t port;			 /* 0: any */
	const char *key_pem, *chain_pem; /* NULL: plaintext */
	void (*serve)(void *arg, const struct server_request *rq, struct server_reply *out);
	void *arg;
	bool mute;			     /* accepts and says nothing */
	void (*talk)(struct server_conn *c); /* NULL: unary calls only, by `serve` */
};
struct server {
	struct server_options o;
	int listener;
	uint16_t port;
	pthread_t acceptor;
	pthread_mutex_t lock;
	int fd[SERVER_CONNS_MAX];
	pthread_t thread[SERVER_CONNS_MAX];
	unsigned n, stopping;
	SSL_CTX *ctx;
};
struct server_conn {
	struct server *s;
	int fd;
	SSL *ssl;
	bool drop;
};
struct server_stream {
	struct server_request rq;
	struct server_reply reply;
	uint8_t *out;
	size_t out_len, at;
};

static inline ssize_t server_write(nghttp2_session *h2, const uint8_t *data, size_t len, int flags, void *arg)
{
	struct server_conn *c = arg;
	ssize_t n = c->ssl ? SSL_write(c->ssl, data, (int)len) : send(c->fd, data, len, MSG_NOSIGNAL);

	return n > 0 ? n : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static inline int server_begin(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
	if (f->hd.type == NGHTTP2_HEADERS)
		nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, calloc(1, sizeof(struct server_stream)));
	return 0;
}

static inline int server_on_header(nghttp2_session *h2, const nghttp2_frame *f, const uint8_t *name, size_t nl,
				   const uint8_t *value, size_t vl, uint8_t flags, void *arg)
{
	struct server_stream *st = nghttp2_session_get_stream_user_data(h2, f->hd.stream_id);
	struct server_request *r = st ? &st->rq : NULL;

	if (!r)
		return 0;
	if (nl == 5 && !memcmp(name, ":path", 5))
		snprintf(r->path, sizeof r->path, "%.*s", (int)vl, (const char *)value);
	else if (r->n_headers < SERVER_HEADERS_MAX) {
		snprintf(r->header[r->n_headers].name, sizeof r->header[0].name, "%.*s", (int)nl, (const char *)name);
		snprintf(r->header[r->n_headers++].value, sizeof r->header[0].value, "%.*s", (int)vl,
			 (const char *)value);
	}
	return 0;
}

static inline int server_on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
				 void *arg)
{
	struct server_stream *st = nghttp2_session_get_stream_user_data(h2, id);
	uint8_t *p = st && st->rq.len + len <= SERVER_BODY_MAX ? realloc(st->rq.body, st->rq.len + len) : NULL;

	if (!p)
		return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
	memcpy(p + st->rq.len, data, len);
	st->rq.body = p;
	st->rq.len += len;
	return 0;
}

#define SERVER_NV(n, v)                                                                    \
	{                                                                                  \
		(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE \
	}

static inline ssize_t server_body(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
				  nghttp2_data_source *src, void *arg)
{
	struct server_stream *st = nghttp2_session_get_stream_user_data(h2, id);
	size_t n = st->out_len - st->at < len ? st->out_len - st->at : len;
	char status[12];

	if (n)
		memcpy(buf, st->out + st->at, n);
	st->at += n;
	if (st->at == st->out_len) {
		snprintf(status, sizeof status, "%d", st->reply.status);
		nghttp2_nv nv[] = {SERVER_NV("grpc-status", status), SERVER_NV("grpc-message", st->reply.message)};
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		nghttp2_submit_trailer(h2, id, nv, 2);
	}
	return (ssize_t)n;
}

static inline void server_answer(nghttp2_session *h2, int32_t id, struct server_stream *st)
{
	nghttp2_data_provider body = {.read_callback = server_body};
	char status[12];

	snprintf(status, sizeof status, "%u", st->reply.http_status ? st->reply.http_status : 200);
	nghttp2_nv nv[] = {SERVER_NV(":status", status), SERVER_NV("content-type", "application/grpc")};
	if (st->reply.http_status) {
		nghttp2_submit_response(h2, id, nv, 2, NULL);
		return;
	}
	if (st->reply.body) {
		st->out_len = st->reply.len + GRPC_PREFIX;
		st->out = malloc(st->out_len);
		grpc_prefix_write(st->out, (uint32_t)st->reply.len);
		memcpy(st->out + GRPC_PREFIX, st->reply.body, st->reply.len);
	}
	nghttp2_submit_response(h2, id, nv, 2, &body);
}

static inline int server_on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
	struct server_conn *c = arg;
	bool ends =
		(f->hd.type == NGHTTP2_HEADERS || f->hd.type == NGHTTP2_DATA) && f->hd.flags & NGHTTP2_FLAG_END_STREAM;
	struct server_stream *st = ends ? nghttp2_session_get_stream_user_data(h2, f->hd.stream_id) : NULL;

	if (!st)
		return 0;
	c->s->o.serve(c->s->o.arg, &st->rq, &st->reply);
	if (st->reply.drop)
		c->drop = true;
	else if (st->reply.reset)
		nghttp2_submit_rst_stream(h2, 0, f->hd.stream_id, NGHTTP2_REFUSED_STREAM);
	else if (!st->reply.hang)
		server_answer(h2, f->hd.stream_id, st);
	if (st->reply.goaway)
		nghttp2_submit_goaway(h2, 0, f->hd.stream_id, NGHTTP2_NO_ERROR, NULL, 0);
	return 0;
}

static inline int server_on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
	struct server_stream *st = nghttp2_session_get_stream_user_data(h2, id);

	if (st) {
		free(st->rq.body);
		free(st->reply.body);
		free(st->out);
		free(st);
	}
	return 0;
}

/* Streams that are open when the connection ends are not closed by the library. */
static inline void server_forget_streams(nghttp2_session *h2)
{
	for (int32_t id = 1; id <= nghttp2_session_get_last_proc_stream_id(h2); id += 2)
		server_on_close(h2, id, 0, NULL);
}

static inline void server_talk(struct server_conn *c)
{
	nghttp2_session_callbacks *cb;
	nghttp2_session *h2;
	uint8_t buf[16384];

	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_send_callback(cb, server_write);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, server_begin);
	nghttp2_session_callbacks_set_on_header_callback(cb, server_on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, server_on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, server_on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, server_on_close);
	nghttp2_session_server_new(&h2, cb, c);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, NULL, 0);
	while (!c->drop && nghttp2_session_send(h2) == 0 &&
	       (nghttp2_session_want_read(h2) || nghttp2_session_want_write(h2))) {
		ssize_t n = c->ssl ? SSL_read(c->ssl, buf, sizeof buf) : recv(c->fd, buf, sizeof buf, 0);

		if (n <= 0 || nghttp2_session_mem_recv(h2, buf, (size_t)n) < 0)
			break;
	}
	server_forget_streams(h2);
	nghttp2_session_del(h2);
}

struct server_start {
	struct server *s;
	unsigned i;
};

static inline void *server_conn_run(void *arg)
{
	struct server_start *start = arg;
	struct server_conn c = {.s = start->s, .fd = start->s->fd[start->i]};
	char byte;
	bool ok = true;

	while (c.s->o.mute && recv(c.fd, &byte, 1, 0) > 0)
		;
	if (!c.s->o.mute && c.s->ctx) {
		c.ssl = SSL_new(c.s->ctx);
		SSL_set_fd(c.ssl, c.fd);
		ok = SSL_accept(c.ssl) == 1;
	}
	if (ok && !c.s->o.mute)
		(c.s->o.talk ? c.s->o.talk : server_talk)(&c);
	SSL_free(c.ssl);
	pthread_mutex_lock(&c.s->lock);
	close(c.fd);
	c.s->fd[start->i] = -1;
	pthread_mutex_unlock(&c.s->lock);
	free(start);
	return NULL;
}

/* A place is used again once its connection is over: its thread is joined then. */
static inline void *server_accept(void *arg)
{
	struct server *s = arg;
	int fd, on = 1;

	while ((fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		struct server_start *start = malloc(sizeof *start);
		unsigned i;

		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		pthread_mutex_lock(&s->lock);
		for (i = 0; i < s->n && s->fd[i] >= 0; i++)
			;
		if (i == SERVER_CONNS_MAX || s->stopping) {
			pthread_mutex_unlock(&s->lock);
			close(fd);
			free(start);
			continue;
		}
		if (i < s->n)
			pthread_join(s->thread[i], NULL);
		else
			s->n++;
		s->fd[i] = fd;
		*start = (struct server_start){s, i};
		pthread_create(&s->thread[i], NULL, server_conn_run, start);
		pthread_mutex_unlock(&s->lock);
	}
	return NULL;
}

static inline int server_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
			      unsigned in_len, void *arg)
{
	static const unsigned char h2[] = {2, 'h', '2'};

	return SSL_select_next_proto((unsigned char **)out, out_len, h2, sizeof h2, in, in_len) ==
			       OPENSSL_NPN_NEGOTIATED
		       ? SSL_TLSEXT_ERR_OK
		       : SSL_TLSEXT_ERR_ALERT_FATAL;
}

static inline SSL_CTX *server_ctx(const struct server_options *o)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	BIO *key = BIO_new_mem_buf(o->key_pem, -1), *chain = BIO_new_mem_buf(o->chain_pem, -1);
	EVP_PKEY *k = PEM_read_bio_PrivateKey(key, NULL, NULL, NULL);
	X509 *x = PEM_read_bio_X509(chain, NULL, NULL, NULL);

	SSL_CTX_use_certificate(ctx, x);
	SSL_CTX_use_PrivateKey(ctx, k);
	SSL_CTX_set_alpn_select_cb(ctx, server_alpn, NULL);
	EVP_PKEY_free(k);
	X509_free(x);
	BIO_free(key);
	BIO_free(chain);
	return ctx;
}

/* NULL and errno on failure. */
static inline struct server *server_start(const struct server_options *o)
{
	struct server *s = calloc(1, sizeof *s);
	struct sockaddr_storage ss = {0};
	struct sockaddr_in *v4 = (struct sockaddr_in *)&ss;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&ss;
	socklen_t len = sizeof ss;
	int on = 1;

	s->o = *o;
	pthread_mutex_init(&s->lock, NULL);
	if (inet_pton(AF_INET, o->host, &v4->sin_addr) == 1) {
		ss.ss_family = AF_INET;
	} else {
		inet_pton(AF_INET6, o->host, &v6->sin6_addr);
		ss.ss_family = AF_INET6;
	}
	v4->sin_port = htons(o->port);
	s->listener = socket(ss.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(s->listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(s->listener, (struct sockaddr *)&ss, ss.ss_family == AF_INET ? sizeof *v4 : sizeof *v6) ||
	    listen(s->listener, 64)) {
		close(s->listener);
		free(s);
		return NULL;
	}
	getsockname(s->listener, (struct sockaddr *)&ss, &len);
	s->port = ntohs(v4->sin_port);
	s->ctx = o->key_pem ? server_ctx(o) : NULL;
	pthread_create(&s->acceptor, NULL, server_accept, s);
	return s;
}

static inline void server_stop(struct server *s)
{
	if (!s)
		return;
	shutdown(s->listener, SHUT_RDWR);
	pthread_join(s->acceptor, NULL);
	close(s->listener);
	pthread_mutex_lock(&s->lock);
	s->stopping = 1;
	for (unsigned i = 0; i < s->n; i++)
		if (s->fd[i] >= 0)
			shutdown(s->fd[i], SHUT_RDWR);
	pthread_mutex_unlock(&s->lock);
	for (unsigned i = 0; i < s->n; i++)
		pthread_join(s->thread[i], NULL);
	SSL_CTX_free(s->ctx);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
