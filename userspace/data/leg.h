/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP socket joined to a CONNECT stream: the half of a tunnel that a node carries. Private to data/. */
#pragma once
#include "data/grace.h"
#include "data/worker.h"
#include "net/h2.h"

struct leg_ops {
	/* `n` bytes went; they fill `iov` from its front, until this returns. */
	void (*moved)(void *owner, bool from_app, const struct iovec *iov, size_t n);
	/* The answer to a client's CONNECT; with 200 the owner calls leg_join(). NULL on servers. */
	void (*response)(void *owner, const struct h2_headers *h);
	/* The end: clean (`why` NULL) or not; both sides were reset then, with what came before delivered
	 * (data/grace.h). Stream and descriptor are gone. Called once; the owner frees the leg in a deferred task.
	 * `refused`: the peer has not seen the request, it may be repeated. */
	void (*done)(void *owner, const char *why, bool refused);
};

struct leg {
	struct io app;
	struct h2_stream stream;
	struct worker *w;
	const struct leg_ops *ops;
	void *owner;
	struct grace grace;
	struct task fail;
	const char *why;
	bool joined, blocked, full; /* the application is there; the tunnel, the application takes nothing now */
	bool app_eof, app_shut, over;
	bool lingering, failing; /* the tunnel is over, the app gets what came before; then its reset */
	bool broken;		 /* the app's socket has failed, the tunnel gets what came before; then its reset */
	bool unheard;		 /* it is over, and the tunnel's peer has never spoken HTTP/2 */
};

/* Client: opens the stream. -errno: nothing happened. */
int leg_connect(struct leg *g, struct worker *w, struct h2 *h, const char *authority, const nghttp2_nv *nv, size_t n,
		const struct leg_ops *ops, void *owner);
/* Server: takes a request over. */
int leg_accept(struct leg *g, struct worker *w, struct h2 *h, int32_t id, const struct leg_ops *ops, void *owner);
/* Server: an error status instead; the leg is over, `done` is not called. */
void leg_refuse(struct leg *g, int status);
/* Both: takes the application's descriptor over and lets bytes flow. A server has answered 200 before. */
void leg_join(struct leg *g, int fd);
/* Resets both sides without `done`. Takes one that never began or is over. */
void leg_kill(struct leg *g, uint32_t code);
