// SPDX-License-Identifier: Apache-2.0
/* A trace as JSON. */
#include "admin/trace.h"

static void json_place(struct json *j, const char *key, const struct endpoint *e, bool known)
{
	char at[ENDPOINT_STRLEN];

	json_key_text(j, key, known ? endpoint_str(e, at) : NULL);
}

static void json_named(struct json *j, const char *key, const char *ns, const char *name)
{
	json_key(j, key);
	json_textf(j, "%s/%s", ns, name);
}

static void write_route(struct json *j, const struct trace *t)
{
	static const char *const kinds[] = {[ROUTE_PASSTHROUGH] = "plain",
					    [ROUTE_HBONE] = "hbone",
					    [ROUTE_HBONE_NESTED] = "hbone-in-hbone",
					    [ROUTE_REJECT] = "refused"};
	const struct route *r = &t->route;

	json_key(j, "route");
	json_open(j, '{');
	json_place(j, "authority", &r->authority, r->kind == ROUTE_HBONE || r->kind == ROUTE_HBONE_NESTED);
	json_key(j, "identities");
	json_open(j, '[');
	for (unsigned i = 0; i < r->expect.n; i++)
		json_text(j, r->expect.id[i]);
	json_close(j, ']');
	json_key_text(j, "kind", t->same_node ? "same-node" : kinds[r->kind]);
	json_place(j, "nextHop", &r->next_hop, r->kind != ROUTE_REJECT && !r->lookup);
	if (r->service)
		json_named(j, "service", r->service->ns, r->service->hostname);
	json_key(j, "waypoint");
	json_bool(j, r->waypoint);
	if (r->destination)
		json_named(j, "workload", r->destination->ns, r->destination->name);
	json_close(j, '}');
}

static void write_certificate(struct json *j, const struct trace *t)
{
	static const char *const states[] = {[CERTS_INITIALIZING] = "Initializing",
					     [CERTS_AVAILABLE] = "Available",
					     [CERTS_UNAVAILABLE] = "Unavailable"};

	json_key(j, "certificate");
	json_open(j, '{');
	if (t->not_after)
		json_key_time(j, "expirationTime", t->not_after);
	json_key_some(j, "identity", t->identity);
	json_key_some(j, "reason", t->cert_why);
	json_key_text(j, "state", !t->asked ? NULL : t->known ? states[t->state] : "Absent");
	json_close(j, '}');
}

static void write_steps(struct json *j, const struct why *w)
{
	json_key(j, "steps");
	json_open(j, '[');
	for (unsigned i = 0; i < w->n; i++) {
		json_open(j, '{');
		json_key_text(j, "text", w->step[i].text);
		json_key_text(j, "topic", w->step[i].topic);
		json_close(j, '}');
	}
	json_close(j, ']');
	json_key(j, "stepsLeftOut");
	json_number(j, w->left_out);
}

void trace_write(struct json *j, const struct trace *t)
{
	const struct workload *w = t->ends.source;

	json_open(j, '{');
	json_place(j, "application", &t->application, t->judged);
	write_certificate(j, t);
	json_place(j, "destination", &t->ends.target, true);
	json_key_text(j, "flag", traffic_flag_name(t->flag));
	json_key_text(j, "outcome", t->carried ? "carried" : t->flag == FLAG_DENY ? "denied" : "refused");
	json_key_some(j, "reason", t->reason);
	write_route(j, t);
	json_key(j, "source");
	json_open(j, '{');
	json_key(j, "local");
	json_bool(j, t->ends.local);
	json_key_text(j, "name", w->name);
	json_key_text(j, "namespace", w->ns);
	json_key_text(j, "node", w->node);
	json_close(j, '}');
	write_steps(j, &t->why);
	json_close(j, '}');
	json_raw(j, "\n");
}
