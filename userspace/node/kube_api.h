/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the Kubernetes API server, by libcurl on the keeper's loop: one answer, or a stream of bytes. The only
 * user of libcurl. The token is read anew for each request. Nothing is tried again here. */
#pragma once
#include "loop/loop.h"
#include "node/kube_config.h"

enum {
	KUBE_CALLS_MAX = 64,	   /* under way at once; one more is -EAGAIN */
	KUBE_CONNECTIONS_MAX = 12, /* to the server; calls beyond wait for one */
	KUBE_CONNECT_MS = 4000,
	KUBE_PATH_MAX = 4096,
};

struct kube_api;
struct kube_call;

struct kube_reply {
	int err;    /* 0: the server answered; -ETIMEDOUT, -EMSGSIZE, -EACCES (token, certificate), else -EIO */
	int status; /* HTTP's, 0 if none came */
	unsigned retry_after_ms; /* as the server asked; 0 */
	const char *body;	 /* of an answer, terminated; "" for streams that began well */
	size_t len;
	const char *why; /* one line when `err`, or when the status is not 2xx */
};

struct kube_request {
	const char *method;   /* GET or PATCH */
	const char *path;     /* with the query, encoded */
	const char *body;     /* a merge patch, or NULL */
	size_t body_max;      /* of the answer; of a stream: what may wait for `bytes` */
	unsigned deadline_ms; /* for all of it; 0: none */
	unsigned silence_ms;  /* without a byte; 0: for ever */
	/* Bytes of a 2xx answer as they come; NULL: all at once, in the reply. */
	void (*bytes)(void *arg, const char *p, size_t n);
	/* Once, never before kube_call_new() returns. `reply` is good during the call. */
	void (*done)(void *arg, const struct kube_reply *reply);
	void *arg;
};

/* `config` must live as long. -errno and a line in `why`. */
int kube_api_open(struct kube_api **out, struct loop *l, const struct kube_config *config, char why[POD_WHY_MAX]);
/* Ends calls without `done`. Takes NULL. */
void kube_api_close(struct kube_api *a);

/* -EAGAIN: too many; -errno and a line in `why`. */
int kube_call_new(struct kube_call **out, struct kube_api *a, const struct kube_request *rq, char why[POD_WHY_MAX]);
/* Percent-encodes what goes into a query. -EMSGSIZE. */
int kube_escape(char *out, size_t cap, const char *text);
/* Has a good answer begun? `c` may be NULL. */
bool kube_call_is_open(const struct kube_call *c);
/* Without `done`; also from within `bytes`. Takes NULL. */
void kube_call_cancel(struct kube_call *c);
