// SPDX-License-Identifier: Apache-2.0
/* The trace: source and target, the outbound decision, the certificate, then what the other side decides; each step as the
 * deciding functions note it down. */
#include "admin/trace.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "state/authorize.h"

static void fail(struct trace *t, enum traffic_flag flag, const char *reason)
{
	t->carried = false;
	t->flag = flag;
	snprintf(t->reason, sizeof t->reason, "%s", reason);
}

/* --- the certificate ------------------------------------------------------------------------------------ */

struct wanted { /* shared with the control thread */
	struct certs *certs;
	char spiffe[IDENTITY_MAX], why[CERT_WHY_MAX];
	bool known;
	enum certs_state state;
	struct tls_id *id;
};

static void wanted_free(void *arg)
{
	struct wanted *w = arg;

	if (w->id)
		tls_id_unref(w->id);
	free(w);
}

static void look_at(void *arg, const struct certs_entry *e)
{
	struct wanted *w = arg;

	if (strcmp(e->spiffe, w->spiffe) != 0)
		return;
	w->known = true;
	w->state = e->state;
	w->id = e->id ? tls_id_ref(e->id) : NULL;
	snprintf(w->why, sizeof w->why, "%s", e->why);
}

static void look_for(void *arg)
{
	struct wanted *w = arg;

	certs_dump(w->certs, look_at, w);
}

/* The first is the pod's own. */
static void expiry(void *arg, const struct certs_x509 *x)
{
	time_t *t = arg;

	if (!*t)
		*t = x->not_after;
}

static void take_certificate(struct trace *t, const struct wanted *w)
{
	t->asked = true;
	t->known = w->known;
	t->state = w->state;
	snprintf(t->cert_why, sizeof t->cert_why, "%s", w->why);
	if (w->id)
		certs_x509_each(tls_id_chain(w->id), expiry, &t->not_after);
}

static void certificate(struct trace *t)
{
	struct wanted *w = calloc(1, sizeof *w);
	int e = -1;

	if (!w)
		return;
	w->certs = t->a->certs;
	memcpy(w->spiffe, t->identity, sizeof w->spiffe);
	e = http_call(t->a->control, look_for, w, wanted_free);
	if (!e)
		take_certificate(t, w);
	if (e != -ETIMEDOUT)
		wanted_free(w);
	if (!t->asked)
		WHY(&t->why, "certificate", "%s: the control thread did not answer", t->identity);
	else if (!t->known)
		WHY(&t->why, "certificate", "%s: there is none yet; the first connection asks for it and waits",
		    t->identity);
	else if (t->state == CERTS_AVAILABLE)
		WHY(&t->why, "certificate", "%s: there is one%s%s", t->identity,
		    *t->cert_why ? "; its last renewal failed: " : "", t->cert_why);
	else
		WHY(&t->why, "certificate", "%s: %s%s", t->identity,
		    t->state == CERTS_UNAVAILABLE ? "cannot be had: " : "is being fetched",
		    t->state == CERTS_UNAVAILABLE ? t->cert_why : "");
	if (t->known && t->state == CERTS_UNAVAILABLE)
		fail(t, FLAG_IDENTITY, t->cert_why);
}

/* --- the other side ------------------------------------------------------------------------------------- */

static bool is_pod_here(const struct trace *t, const struct workload *w)
{
	for (unsigned i = 0; i < t->pods.n_pods; i++)
		if (!strcmp(t->pods.pods[i].ns, w->ns) && !strcmp(t->pods.pods[i].name, w->name) &&
		    !strcmp(t->pods.pods[i].sa, w->service_account))
			return true;
	return false;
}

static void authorized(struct trace *t, const struct workload *dst, const struct endpoint *src)
{
	struct authorize_request q = {dst, *src, t->application, t->identity, &t->why};
	struct authorize_result r;

	authorize(t->a->store, &q, &r);
	t->judged = true;
	if (r.allowed)
		WHY(&t->why, "policy", "%s/%s takes connections from %s", dst->ns, dst->name, t->identity);
	else
		fail(t, FLAG_DENY, r.why);
}

static void other_side(struct trace *t)
{
	const struct workload *dst = t->route.destination;
	const struct addr *from = trace_addr(t->ends.source, &t->route.authority.ip);
	struct endpoint src = {from ? *from : addr_any4, 0};
	struct inbound_request q = {.local = dst,
				    .network = t->o->network,
				    .pod_ip = t->route.next_hop.ip,
				    .authority = t->route.authority,
				    .forwarded_host = t->route.service ? t->route.service->hostname : NULL,
				    .socks = t->o->socks};
	char at[ENDPOINT_STRLEN], reason[TRACE_WHY_MAX];
	struct inbound_route r;

	route_inbound(t->a->store, &q, &r);
	if (r.error == INBOUND_OK) {
		t->application = r.target;
		WHY(&t->why, "application", "%s/%s hands it to its application at %s%s", dst->ns, dst->name,
		    endpoint_str(&r.target, at), r.proxy_protocol ? ", with a PROXY header" : "");
		authorized(t, dst, &src);
	} else {
		route_inbound_reason(r.error, &q, reason, sizeof reason);
		WHY(&t->why, "application", "refused with status %d: %s", route_inbound_status(r.error), reason);
		fail(t, FLAG_CONNECT, reason);
	}
	route_inbound_release(&r);
}

/* Who decides on it, and what, as far as it can be told from here. */
static void judge(struct trace *t)
{
	const struct route *r = &t->route;

	if (r->kind == ROUTE_HBONE_NESTED)
		WHY(&t->why, "policy", "what is beyond the gateway decides by its own mesh");
	else if (r->waypoint && r->destination->native_tunnel)
		WHY(&t->why, "policy", "the waypoint decides; whom it connects to sees the waypoint's identity");
	else if (r->destination && r->destination->native_tunnel)
		WHY(&t->why, "policy", "%s/%s ends the tunnel itself, and decides", r->destination->ns,
		    r->destination->name);
	else if (r->kind == ROUTE_PASSTHROUGH)
		WHY(&t->why, "policy", "none: what is dialled in plain TCP is not asked for by the mesh");
	else if (r->lookup)
		WHY(&t->why, "policy", "not told: the address is what \"%s\" resolves to then",
		    r->destination->hostname);
	else
		other_side(t);
}

/* --- the decision --------------------------------------------------------------------------------------- */

struct absent {
	struct trace *t;
	const struct service *v;
};

static int note_unhealthy(void *arg, struct workload *w)
{
	struct absent *a = arg;

	for (unsigned i = 0; i < w->n_services && !w->healthy; i++)
		if (!strcmp(w->services[i].ns, a->v->ns) && !strcmp(w->services[i].hostname, a->v->hostname))
			WHY(&a->t->why, "endpoint", "%s/%s: not in rotation: it is not healthy", w->ns, w->name);
	return a->t->why.n >= WHY_ENDPOINTS_MAX;
}

static void route(struct trace *t)
{
	struct route_request q = {.source = t->ends.source,
				  .network = t->o->network,
				  .target = t->ends.target,
				  .socks = t->o->socks,
				  .why = &t->why};
	struct route *r = &t->route;

	if (*t->ends.named)
		WHY(&t->why, "name", "%s", t->ends.named);
	route_outbound(t->a->store, &q, r);
	if (r->service && !r->service->lb_allow_unhealthy)
		store_each_workload(t->a->store, note_unhealthy, &(struct absent){t, r->service});
	if (r->kind == ROUTE_REJECT)
		fail(t, FLAG_CONNECT, r->reason);
	if (r->missing.kind != GATEWAY_NONE && t->o->demand)
		WHY(&t->why, "destination", "a connection would first ask istiod for what is not known");
	t->same_node = t->ends.local && r->kind == ROUTE_HBONE && !r->waypoint && !t->o->local_hbone &&
		       is_pod_here(t, r->destination);
}

static void decide(struct trace *t)
{
	const struct workload *w = t->ends.source;

	t->carried = true;
	route(t);
	if (t->route.kind == ROUTE_REJECT)
		return;
	if (t->route.kind != ROUTE_PASSTHROUGH &&
	    identity_format(t->identity, w->trust_domain, w->ns, w->service_account) < 0) {
		fail(t, FLAG_IDENTITY, "the pod's identity is too long");
		return;
	}
	if (!t->ends.local)
		WHY(&t->why, "certificate", "%s/%s is no pod of this node: its own node has its certificate", w->ns,
		    w->name);
	else if (t->same_node)
		WHY(&t->why, "carrier", "both pods are on this node: from socket to socket, no certificate is shown");
	judge(t);
}

/* --- the question ----------------------------------------------------------------------------------------- */

static void answer(struct json *j, int status, struct http_response *out)
{
	if (j->failed) {
		free(j->p);
		http_text(out, 500, "out of memory\n");
		return;
	}
	out->status = status;
	out->body = j->p;
	out->body_len = j->len;
	out->content_type = "application/json";
}

static void refuse(const char *why, struct http_response *out)
{
	struct json j = {0};

	json_open(&j, '{');
	json_key_text(&j, "error", why);
	json_close(&j, '}');
	answer(&j, 400, out);
}

static bool read_question(const struct http_request *rq, char src[TRACE_NAME_MAX], char dst[TRACE_NAME_MAX],
			  uint16_t *port)
{
	char text[8];

	return http_query(rq, "src", src, TRACE_NAME_MAX) && *src && http_query(rq, "dst", dst, TRACE_NAME_MAX) &&
	       *dst && http_query(rq, "port", text, sizeof text) && port_parse(port, text) == 0 && *port;
}

/* Inside the read section; what outlives it is referenced. */
static int find_and_decide(struct trace *t, const char *src, const char *dst, char why[TRACE_WHY_MAX])
{
	int e;

	store_thread_register();
	store_read_lock();
	e = trace_find_source(t->a->store, t->o->network, &t->pods, src, &t->ends, why);
	if (!e)
		e = trace_find_target(t->a->store, t->o->network, dst, &t->ends, why);
	if (!e) {
		workload_ref(t->ends.source);
		decide(t);
	}
	store_read_unlock();
	store_thread_unregister();
	return e;
}

/* The control thread is asked outside the read section, for which it may be waiting. */
static void serve(struct trace *t, const char *src, const char *dst, struct http_response *out)
{
	char why[TRACE_WHY_MAX];
	struct json j = {0};

	if (find_and_decide(t, src, dst, why) < 0) {
		refuse(why, out);
		return;
	}
	if (t->carried && t->ends.local && !t->same_node && t->route.kind != ROUTE_PASSTHROUGH)
		certificate(t);
	trace_write(&j, t);
	answer(&j, 200, out);
	route_release(&t->route);
	workload_unref(t->ends.source);
}

void trace_serve(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	struct trace t = {.a = a, .o = data_options(a->data)};
	char src[TRACE_NAME_MAX], dst[TRACE_NAME_MAX];

	if (!read_question(rq, src, dst, &t.ends.target.port)) {
		refuse("usage: /trace?src=POD&dst=ADDRESS-OR-NAME&port=NUMBER", out);
		return;
	}
	if (data_dump(a->data, DUMP_PODS, &t.pods) < 0) {
		refuse("the control thread did not answer in time", out);
		return;
	}
	serve(&t, src, dst, out);
	tunnel_dump_free(&t.pods);
	why_free(&t.why);
}
