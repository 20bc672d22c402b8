// SPDX-License-Identifier: Apache-2.0
/* Owns the way of one resource into the store: decoded, called what it is, converted; and what is said of it when it is
 * refused. A policy that is not understood fails closed. */
#include "control/xds_resource.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/hex.h"
#include "base/qualified.h"
#include "control/xds_parts.h"
#include "proto/xds.pb-c.h"

typedef Envoy__Service__Discovery__V3__Resource resource;

enum { NAME_SHOWN = 256 }; /* bytes of a name in a message */

/* --- what is refused ------------------------------------------------------------------------------------ */

static void say(struct xds_apply *a, const char *name, const char *reason, bool closed)
{
	char *to = a->out->why + a->why_len, line[XDS_LINE_MAX];
	size_t room = sizeof a->out->why - a->why_len - 32; /* "; and N more" */
	int n;

	snprintf(line, sizeof line, "%.*s: %s", NAME_SHOWN, *name ? name : "(no name)", reason);
	for (char *c = line; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	xds_apply_judged(a, name, line, closed);
	n = snprintf(to, room, "%s%s", a->why_len ? "; " : "", line);
	if (n < 0 || (size_t)n >= room) {
		*to = '\0';
		a->unsaid++;
		return;
	}
	a->why_len += (size_t)n;
}

void xds_resource_said(struct xds_apply *a)
{
	if (a->unsaid)
		snprintf(a->out->why + a->why_len, sizeof a->out->why - a->why_len, "%sand %u more",
			 a->why_len ? "; " : "", a->unsaid);
}

static void reject(struct xds_apply *a, const char *name, int error, const char *reason)
{
	if (error == -ENOMEM)
		a->error = error;
	a->out->rejected++;
	say(a, name, error == -ENOMEM ? "out of memory" : reason, false);
}

/* --- one resource --------------------------------------------------------------------------------------- */

/* What istiod gives addresses for a version: a hash in hexadecimal. Others are not kept, and such a resource is sent again
 * after a reconnect. */
static uint64_t version_of(const resource *r)
{
	uint64_t n = 0;
	const char *s = r->version;

	if (*s == '0' || strlen(s) > 16 || s[strspn(s, "0123456789abcdef")])
		return 0;
	for (; *s; s++)
		n = n << 4 | (uint64_t)hex_digit(*s);
	return n;
}

static void workload(struct xds_apply *a, const resource *r, const Istio__Workload__Workload *m)
{
	char why[XDS_REASON_MAX] = "";
	struct workload *w;
	int e = xds_workload(m, &w, why);

	if (e) {
		reject(a, r->name, e, why);
	} else if (strcmp(w->uid, r->name) != 0) { /* else nobody could remove it */
		workload_unref(w);
		reject(a, r->name, -EINVAL, "the resource's name is not the workload's uid");
	} else {
		arena_of(w)->version = version_of(r);
		e = store_insert_workload(a->store, w);
		if (e)
			reject(a, r->name, e, "");
	}
}

static void service(struct xds_apply *a, const resource *r, const Istio__Workload__Service *m)
{
	char why[XDS_REASON_MAX] = "";
	struct service *s;
	int e = xds_service(m, &s, why);

	if (e) {
		reject(a, r->name, e, why);
	} else if (!qualified_is(r->name, s->ns, s->hostname)) {
		service_unref(s);
		reject(a, r->name, -EINVAL, "the resource's name is not NAMESPACE/HOSTNAME of the service");
	} else {
		arena_of(service_head(s))->version = version_of(r);
		e = store_insert_service(a->store, s);
		if (e)
			reject(a, r->name, e, "");
	}
}

static void address(struct xds_apply *a, const resource *r)
{
	const ProtobufCBinaryData *v = r->resource ? &r->resource->value : NULL;
	const Istio__Workload__Address *m =
		v ? istio__workload__address__unpack(&a->scratch.allocator, v->len, v->data) : NULL;

	if (!m)
		reject(a, r->name, -EINVAL, v ? "it cannot be decoded" : "it is empty");
	else if (m->type_case == ISTIO__WORKLOAD__ADDRESS__TYPE_WORKLOAD)
		workload(a, r, m->workload);
	else if (m->type_case == ISTIO__WORKLOAD__ADDRESS__TYPE_SERVICE)
		service(a, r, m->service);
	else
		reject(a, r->name, -EINVAL, "neither a workload nor a service");
}

/* Of the policy that it replaces. One that was never seen holds in its namespace: that it could be meant for the whole mesh
 * is no reason to let every namespace stop it. */
static enum policy_scope scope_before(struct xds_apply *a, const char *name)
{
	const struct policy *p;
	enum policy_scope scope;

	store_read_lock();
	p = store_policy(a->store, name);
	scope = p ? p->scope : POLICY_NAMESPACE;
	store_read_unlock();
	return scope;
}

/* A policy that is not understood denies; only where it has no name, there is nothing to put in its place. */
static void close_off(struct xds_apply *a, const char *name, enum policy_scope scope, const char *reason)
{
	struct policy *p;
	int e = xds_policy_closed(name, scope, &p);

	if (!e)
		e = store_insert_policy(a->store, p);
	if (e) {
		reject(a, name, e, reason);
		return;
	}
	a->out->closed++;
	say(a, name, reason, true);
}

static void authorization(struct xds_apply *a, const resource *r)
{
	const ProtobufCBinaryData *v = r->resource ? &r->resource->value : NULL;
	const Istio__Security__Authorization *m =
		v ? istio__security__authorization__unpack(&a->scratch.allocator, v->len, v->data) : NULL;
	char why[XDS_REASON_MAX] = "";
	struct policy *p;
	int e, closed;

	if (!m) {
		close_off(a, r->name, scope_before(a, r->name), v ? "it cannot be decoded" : "it is empty");
		return;
	}
	e = closed = xds_policy(m, &p, why);
	if (e == -ENOMEM) {
		reject(a, r->name, e, "");
		return;
	}
	if (!qualified_is(r->name, p->ns, p->name)) {
		close_off(a, r->name, p->scope, "the resource's name is not NAMESPACE/NAME of the policy");
		policy_unref(p);
		return;
	}
	e = store_insert_policy(a->store, p);
	if (e) {
		reject(a, r->name, e, "");
	} else if (closed) {
		a->out->closed++;
		say(a, r->name, why, true);
	}
}

/* A mesh that comes again as a whole is for the most part the one that is there. */
static bool is_there(struct xds_apply *a, const resource *r)
{
	return a->whole && a->out->type == XDS_ADDRESS && store_keep_address(a->store, r->name, version_of(r));
}

void xds_resource_apply(struct xds_apply *a, const uint8_t *bytes, size_t len)
{
	bool policy = a->out->type == XDS_AUTHORIZATION;
	unsigned wrong = a->out->rejected + a->out->closed;
	const resource *r = NULL;
	const char *name, *why;

	xds_scratch_reset(&a->scratch);
	a->out->resources++;
	a->out->bytes += len;
	if (len <= XDS_RESOURCE_MAX)
		r = envoy__service__discovery__v3__resource__unpack(&a->scratch.allocator, len, bytes);
	if (r) {
		if (!is_there(a, r))
			policy ? authorization(a, r) : address(a, r);
		if (a->out->rejected + a->out->closed == wrong)
			xds_apply_judged(a, r->name, NULL, false);
		return;
	}
	name = xds_apply_name(a, bytes, len);
	why = len > XDS_RESOURCE_MAX ? "it is too long" : "it cannot be decoded";
	if (policy)
		close_off(a, name, scope_before(a, name), why);
	else
		reject(a, name, -EINVAL, why);
}
