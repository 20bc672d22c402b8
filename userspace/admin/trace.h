/* SPDX-License-Identifier: Apache-2.0 */
/* GET /trace?src=..&dst=..&port=..: what a connection would get, and why, without one. The answers come from the functions that
 * decide on connections (state/), with the mesh as this node knows it now. Private to admin/. */
#pragma once
#include "admin/admin.h"
#include "admin/json.h"
#include "data/traffic.h"
#include "state/identity.h"
#include "state/route.h"

enum { TRACE_NAME_MAX = 512, TRACE_WHY_MAX = 640 };

void trace_serve(struct admin *a, const struct http_request *rq, struct http_response *out);

/* trace_find.c: whom the words of the question mean. Inside a read section; results are borrowed. */
struct trace_ends {
	struct workload *source;
	bool local; /* a pod of this node is the source */
	struct endpoint target;
	char named[TRACE_WHY_MAX]; /* how the name became the address; "" for an address */
};
/* `pods`: this node's. -1 with one line in `why`. */
int trace_find_source(struct store *s, const char *network, const struct tunnel_dump *pods, const char *text,
		      struct trace_ends *out, char why[TRACE_WHY_MAX]);
/* Needs the source. The port is in `out` already. */
int trace_find_target(struct store *s, const char *network, const char *text, struct trace_ends *out,
		      char why[TRACE_WHY_MAX]);
/* An address of the workload, of the family of `like` if it has one; NULL: it has none. */
const struct addr *trace_addr(const struct workload *w, const struct addr *like);

struct trace {
	struct admin *a;
	const struct data_options *o;
	struct tunnel_dump pods;
	struct trace_ends ends;
	struct why why;
	struct route route;
	char identity[IDENTITY_MAX]; /* of the source */
	bool same_node;		     /* from socket to socket */
	/* the certificate */
	bool asked, known;
	enum certs_state state;
	char cert_why[CERT_WHY_MAX];
	time_t not_after; /* 0: there is none; it may be past */
	/* the other side */
	bool judged;
	struct endpoint application;
	/* what comes of it */
	bool carried;
	enum traffic_flag flag;
	char reason[TRACE_WHY_MAX];
};

/* trace_answer.c */
void trace_write(struct json *j, const struct trace *t);
