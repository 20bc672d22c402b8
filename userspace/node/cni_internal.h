/* SPDX-License-Identifier: Apache-2.0 */
/* A request to the CNI socket, as cni.c (its life) and cni_serve.c (what is done about it) share it. */
#pragma once
#include "net/http.h"
#include "node/cni.h"

struct cni_call;
struct cni_route {
	const char *path;
	enum cni_kind kind;
	void (*serve)(struct cni_call *c);
	bool always_done; /* when the time is over, that is an answer too: it goes on by itself */
};

struct cni {
	struct loop *loop;
	struct enrol *enrol;
	struct zds_server *zds;
	struct cni_decider decider;
	struct http_server *server;
	struct list calls;
	unsigned n_calls;
	struct list waiting; /* calls that are to enrol, in the order in which they came */
	unsigned n_enrolling;
	struct msg next; /* to ourselves: one is enrolled a turn, so that timers and answers come between */
	bool next_posted;
	bool closing;
	struct msg closed;
	uint64_t answers[CNI_STATUSES]; /* atomic: the server's thread answers as well */
	void (*done)(void *arg);
	void *arg;
};

void cni_count(struct cni *c, int status);

struct cni_question {
	struct cni_call *call;
};

struct cni_call {
	struct list link; /* of cni.calls, once it is on the loop */
	struct msg msg;
	struct cni *cni;
	const struct cni_route *route;
	struct http_ticket *ticket; /* NULL: answered */
	struct cni_request request;
	struct timer limit;
	uint64_t started_ms;
	unsigned refs;		      /* until it is answered, and for each callback that is to come */
	struct list turn;	      /* in cni.waiting */
	struct cni_decision decision; /* the verdict is to enrol; its texts are: */
	char sa[POD_NAME_MAX], uid[POD_UID_MAX];
	unsigned left;	 /* removals under way */
	unsigned failed; /* of them */
	struct cni_question question;
};

/* Answers, unless that is done. */
void cni_answer(struct cni_call *c, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
void cni_call_put(struct cni_call *c);
void cni_call_expired(struct timer *t);

extern const struct cni_route cni_routes[];
extern const unsigned cni_n_routes;
