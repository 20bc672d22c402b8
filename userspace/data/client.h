/* SPDX-License-Identifier: Apache-2.0 */
/* The client's side of a tunnel, until HTTP/2 is there: credential -> a descriptor, which the owner brings -> TLS, with
 * its deadline -> who the peer is, and that no list names him -> HTTP/2. Embedded in its owner. Private to data/. */
#pragma once
#include "data/certs.h"
#include "data/traffic.h"
#include "data/worker.h"
#include "net/h2.h"
#include "state/route.h"

/* So many of a worker's tunnels have large windows: a server may send 4 MiB to each application that reads nothing. */
enum { CLIENT_LARGE_MAX = 128 };

struct client;
struct client_ops {
	const struct h2_ops *h2; /* their h2_owner() is the client */
	const char *where;	 /* follows "TLS handshake": "" or " ..." */
	bool offload;		 /* the kernel may carry the records */
	/* The credential is there: the next is client_connected(). */
	void (*ready)(struct client *c);
	/* `c->h2` takes streams. */
	void (*up)(struct client *c);
	/* It went wrong before that; the owner calls client_stop(). */
	void (*failed)(struct client *c, enum traffic_flag flag, const char *why);
};

struct client {
	struct worker *w;
	const struct client_ops *ops;
	char *expect; /* accepted identities, each ended by '\n' */
	struct cert_request *cert;
	struct tls_id *id;
	struct io io; /* until the record has it */
	struct tls_handshake *tls;
	struct timer timer;
	struct rstr *peer;     /* who was verified */
	struct crl_path *path; /* of the peer; or NULL */
	struct h2 *h2;
	bool large; /* counted in the worker's n_large */
};

/* `expect` is copied. -ENOMEM: nothing to free. */
int client_init(struct client *c, struct worker *w, const struct client_ops *ops, const struct route_peers *expect);
/* Whether it was made to expect these, and nobody else. */
bool client_expects(const struct client *c, const struct route_peers *expect);
/* The first step, as identity `self`; it may have failed when this returns, or be far beyond. */
void client_start(struct client *c, const char *self);
/* The tunnel's bytes go through `fd`, which is the client's from now on. */
void client_connected(struct client *c, int fd);
/* Takes no further step. What is up stays. */
void client_stop(struct client *c);
/* Frees what it holds; stopped before, unless it is up. */
void client_free(struct client *c);
