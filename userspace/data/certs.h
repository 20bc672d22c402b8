/* SPDX-License-Identifier: Apache-2.0 */
/* Where the data plane gets credentials: an interface that control/certs.c implements. */
#pragma once
#include "base/list.h"
#include "loop/loop.h"
#include "net/tls.h"

enum { CERT_WHY_MAX = 256 };

/* One request for one identity. The requester allocates it; `done` is called exactly once, on `loop`, with either `id`
 * (a reference for the callee) or `why`; it owns the request from then on. A requester that goes away first clears its
 * own back pointer and lets `done` free the request. */
struct cert_request {
	struct msg msg;   /* private to the implementation */
	struct list link; /* private to the implementation */
	struct loop *loop;
	char spiffe[TLS_SPIFFE_MAX];
	struct tls_id *id;
	char why[CERT_WHY_MAX];
	void (*done)(struct cert_request *r);
};

enum cert_priority { CERT_BACKGROUND, CERT_WARMUP, CERT_REALTIME };

struct certs;
struct certs_ops {
	/* A reference to the credential if it is there and valid, else NULL. Any thread, never waits. */
	struct tls_id *(*cached)(struct certs *c, const char *spiffe);
	/* Any thread. */
	void (*request)(struct certs *c, struct cert_request *r, enum cert_priority p);
	/* No local workload has the identity any more. Any thread. */
	void (*forget)(struct certs *c, const char *spiffe);
};
struct certs {
	const struct certs_ops *ops;
};
