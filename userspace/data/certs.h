/* SPDX-License-Identifier: Apache-2.0 */
/* Where the data plane gets credentials: an interface that control/certs.c implements. */
#pragma once
#include "base/list.h"
#include "loop/loop.h"
#include "net/tls.h"

enum { CERT_WHY_MAX = 256 };

enum cert_priority { CERT_BACKGROUND, CERT_WARMUP, CERT_REALTIME };

/* One request for one identity. The requester allocates it; `done` is called exactly once, on `loop`, with either `id`
 * (a reference for the callee) or `why`; it owns the request from then on. A requester that goes away first clears its
 * own back pointer and lets `done` free the request. */
struct cert_request {
	struct msg msg;		     /* private to the implementation */
	struct list link;	     /* private to the implementation */
	enum cert_priority priority; /* private to the implementation */
	struct loop *loop;
	void *owner; /* the requester's back pointer */
	char spiffe[TLS_SPIFFE_MAX];
	struct tls_id *id;
	char why[CERT_WHY_MAX];
	void (*done)(struct cert_request *r);
};

struct certs;
struct certs_ops {
	/* A reference to the credential if it is there and valid, else NULL. Any thread, never waits. */
	struct tls_id *(*cached)(struct certs *c, const char *spiffe);
	/* Any thread. */
	void (*request)(struct certs *c, struct cert_request *r, enum cert_priority p);
	/* It will be needed: asked for, and nobody waits. Any thread. */
	void (*prefetch)(struct certs *c, const char *spiffe);
	/* The last local pod of this service account has gone: its identities, whatever their trust domains, are not
	 * renewed any more. After what was requested before. Any thread. */
	void (*forget)(struct certs *c, const char *ns, const char *sa);
};
struct certs {
	const struct certs_ops *ops;
};

/* A connection that needs a credential now: either `*id` is it, or `*r` will bring it. -ENOMEM. */
int cert_ask(struct certs *c, const char *spiffe, struct loop *l, void *owner, void (*done)(struct cert_request *r),
	     struct tls_id **id, struct cert_request **r);
/* Both are for `done`. Who asked; NULL: he has gone, and the request is freed. */
void *cert_owner(struct cert_request *r);
enum { CERT_ANSWER_MAX = CERT_WHY_MAX + 16 };
/* The credential, or NULL and one line in `why`. Frees the request. */
struct tls_id *cert_answer(struct cert_request *r, char why[CERT_ANSWER_MAX]);
