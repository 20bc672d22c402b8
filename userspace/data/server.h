/* SPDX-License-Identifier: Apache-2.0 */
/* An accepted HBONE connection: from accept through TLS to HTTP/2. Its requests become streams (stream.c).
 * Private to data/. */
#pragma once
#include "data/certs.h"
#include "data/pod.h"
#include "data/sources.h"
#include "net/h2.h"

enum {
	SERVER_SILENT_MS = 60000, /* from accept to the begin of the handshake, with the credential that the pod has at
				     accept; up to a quarter of it less by chance: a crowd comes again bit by bit */
	SERVER_HANDSHAKES_MAX = 256, /* of a worker under way; more wait their turn */
	SERVER_STUCK_MS = 1000,	     /* a handshake that has taken so long makes room for one that waits */
	SERVER_TURN_MS = 25,	     /* between two looks at who is stuck */
};

struct server {
	struct list link; /* the worker's servers */
	struct list turn; /* among the handshakes under way, or those of its source that wait */
	struct list step; /* among the handshakes that can go on */
	struct source_waiter pending;
	struct source *source;
	uint64_t began; /* the handshake */
	uint32_t hello; /* bytes of the ClientHello that it was waited for; 0: all was there at once */
	struct worker *w;
	struct post *post;
	struct pod *pod; /* referenced: it outlives the post */
	struct endpoint src, dst;
	struct io io;
	struct timer timer;
	struct workload_wait wait;
	struct cert_request *cert;
	struct tls_id *id;
	struct tls_handshake *tls;
	struct h2 *h2;
	struct rstr *self, *peer;
	struct crl_path *path; /* of the peer; or NULL */
	struct task bury;
	bool over;
	bool limited; /* its end is to be told */
};

/* `why` NULL: nothing to say. Freed when the last stream has gone. */
void server_end(struct server *s, const char *why);
/* Begins the handshake; goes on with it. */
void server_shake(struct server *s);
void server_step(struct server *s);

/* hello.c. The credential is there: calls turn_await() when the client has said enough. */
void hello_await(struct server *s);

/* turn.c. The client has said enough: calls server_shake() when it is this one's turn. */
void turn_await(struct server *s);
/* The handshake can go on: calls server_step() then. */
void turn_step(struct server *s);
/* The handshake is under way; is over, or will not be. */
void turn_begin(struct server *s);
void turn_leave(struct server *s);

void stream_request(struct server *s, int32_t id, const struct h2_headers *hd);
