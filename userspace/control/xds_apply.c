// SPDX-License-Identifier: Apache-2.0
/* Responses: first the envelope (type, nonce), then the resources one by one, each in memory that the next one uses again,
 * then what is removed. */
#include "control/xds_apply.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_fields.h"
#include "control/xds_parts.h"
#include "control/xds_scratch.h"
#include "proto/xds.pb-c.h"

typedef Envoy__Service__Discovery__V3__Resource resource;

const char *const xds_type_urls[XDS_TYPES] = {
	[XDS_ADDRESS] = "type.googleapis.com/istio.workload.Address",
	[XDS_AUTHORIZATION] = "type.googleapis.com/istio.security.Authorization",
};

/* Numbers of fields that are read in place. */
enum { RESPONSE_RESOURCES = 2, RESPONSE_TYPE_URL = 4, RESPONSE_NONCE = 5, RESPONSE_REMOVED = 6 };
enum { RESOURCE_NAME = 3, RESOURCE_ALIASES = 4 };
enum { NAME_SHOWN = 256 }; /* bytes of a name in a message */

struct apply {
	struct store *store;
	const uint8_t *msg;
	size_t len;
	struct xds_scratch scratch;
	struct xds_result *out;
	bool whole;
	unsigned *left_out, n_left_out, at_left_out; /* which resources of the message were refused, in order */
	size_t why_len;
	unsigned unsaid; /* entries that did not fit */
	int error;	 /* -ENOMEM */
};

/* --- what is refused ------------------------------------------------------------------------------------ */

static void say(struct apply *a, const char *name, const char *reason)
{
	char *to = a->out->why + a->why_len;
	size_t room = sizeof a->out->why - a->why_len - 32; /* "; and N more" */
	int n = snprintf(to, room, "%s%.*s: %s", a->why_len ? "; " : "", NAME_SHOWN, *name ? name : "(no name)",
			 reason);

	if (n < 0 || (size_t)n >= room) {
		*to = '\0';
		a->unsaid++;
		return;
	}
	for (char *c = to; *c; c++)
		if (*c < ' ' || *c > '~')
			*c = '?';
	a->why_len += (size_t)n;
}

static void said(struct apply *a)
{
	if (a->unsaid)
		snprintf(a->out->why + a->why_len, sizeof a->out->why - a->why_len, "%sand %u more",
			 a->why_len ? "; " : "", a->unsaid);
}

static void reject(struct apply *a, const char *name, int error, const char *reason)
{
	if (error == -ENOMEM)
		a->error = error;
	a->out->rejected++;
	say(a, name, error == -ENOMEM ? "out of memory" : reason);
}

/* --- the envelope --------------------------------------------------------------------------------------- */

static enum xds_type type_of(const char *url)
{
	for (unsigned t = 0; t < XDS_TYPES; t++)
		if (!strcmp(url, xds_type_urls[t]))
			return t;
	return XDS_TYPES;
}

/* Goes back as it came, so it has to fit. */
static bool keep(const struct xds_fields *f, char *to, size_t max)
{
	if (f->len > max || memchr(f->bytes, 0, f->len))
		return false;
	memcpy(to, f->bytes, f->len);
	to[f->len] = '\0';
	return true;
}

static int envelope(struct apply *a)
{
	struct xds_fields f = xds_fields(a->msg, a->len);
	struct xds_result *out = a->out;

	while (xds_field_next(&f)) {
		if (f.bytes && f.number == RESPONSE_TYPE_URL && !keep(&f, out->type_url, XDS_TYPE_MAX))
			return -EPROTO;
		if (f.bytes && f.number == RESPONSE_NONCE && !keep(&f, out->nonce, XDS_NONCE_MAX))
			return -EPROTO;
	}
	out->type = type_of(out->type_url);
	return f.bad ? -EPROTO : 0;
}

/* A text that is a field, terminated; "" where there is none. It is good until the scratch is reset. */
static const char *copy(struct apply *a, const uint8_t *bytes, size_t len)
{
	char *s = a->scratch.allocator.alloc(a->scratch.allocator.allocator_data, len + 1);

	if (!s) {
		a->error = -ENOMEM; /* a removal that is not carried out would never be told again */
		return "";
	}
	memcpy(s, bytes, len);
	s[len] = '\0';
	return s;
}

static const char *name_of(struct apply *a, const uint8_t *bytes, size_t len)
{
	struct xds_fields f = xds_fields(bytes, len);
	const char *name = "";

	while (xds_field_next(&f))
		if (f.number == RESOURCE_NAME && f.bytes && f.len <= XDS_RESOURCE_MAX)
			name = copy(a, f.bytes, f.len);
	return name;
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
		n = n << 4 | (uint64_t)(*s <= '9' ? *s - '0' : *s - 'a' + 10);
	return n;
}

static bool is_called(const char *name, const char *ns, const char *own)
{
	size_t len = strlen(ns);

	return !strncmp(name, ns, len) && name[len] == '/' && !strcmp(name + len + 1, own);
}

static void workload(struct apply *a, const resource *r, const Istio__Workload__Workload *m)
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

static void service(struct apply *a, const resource *r, const Istio__Workload__Service *m)
{
	char why[XDS_REASON_MAX] = "";
	struct service *s;
	int e = xds_service(m, &s, why);

	if (e) {
		reject(a, r->name, e, why);
	} else if (!is_called(r->name, s->ns, s->hostname)) {
		service_unref(s);
		reject(a, r->name, -EINVAL, "the resource's name is not NAMESPACE/HOSTNAME of the service");
	} else {
		arena_of(service_head(s))->version = version_of(r);
		e = store_insert_service(a->store, s);
		if (e)
			reject(a, r->name, e, "");
	}
}

static void address(struct apply *a, const resource *r)
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
static enum policy_scope scope_before(struct apply *a, const char *name)
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
static void close_off(struct apply *a, const char *name, enum policy_scope scope, const char *reason)
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
	say(a, name, reason);
}

static void authorization(struct apply *a, const resource *r)
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
	if (!is_called(r->name, p->ns, p->name)) {
		close_off(a, r->name, p->scope, "the resource's name is not NAMESPACE/NAME of the policy");
		policy_unref(p);
		return;
	}
	e = store_insert_policy(a->store, p);
	if (e) {
		reject(a, r->name, e, "");
	} else if (closed) {
		a->out->closed++;
		say(a, r->name, why);
	}
}

/* A mesh that comes again as a whole is for the most part the one that is there. */
static bool is_there(struct apply *a, const resource *r)
{
	return a->whole && a->out->type == XDS_ADDRESS && store_keep_address(a->store, r->name, version_of(r));
}

static void one(struct apply *a, const uint8_t *bytes, size_t len)
{
	bool policy = a->out->type == XDS_AUTHORIZATION;
	const resource *r = NULL;
	const char *name, *why;

	xds_scratch_reset(&a->scratch);
	a->out->resources++;
	a->out->bytes += len;
	if (len <= XDS_RESOURCE_MAX)
		r = envoy__service__discovery__v3__resource__unpack(&a->scratch.allocator, len, bytes);
	if (r && is_there(a, r))
		return;
	if (r) {
		policy ? authorization(a, r) : address(a, r);
		return;
	}
	name = name_of(a, bytes, len);
	why = len > XDS_RESOURCE_MAX ? "it is too long" : "it cannot be decoded";
	if (policy)
		close_off(a, name, scope_before(a, name), why);
	else
		reject(a, name, -EINVAL, why);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

/* The nth resource: written down while they are applied, for those that are few. */
static void left_out(struct apply *a, unsigned nth)
{
	unsigned *grown;

	if (!(a->n_left_out & (a->n_left_out - 1))) { /* full, at the powers of two */
		grown = realloc(a->left_out, (a->n_left_out ? 2 * a->n_left_out : 1) * sizeof *grown);
		if (!grown) {
			a->error = -ENOMEM;
			return;
		}
		a->left_out = grown;
	}
	a->left_out[a->n_left_out++] = nth;
}

/* Asked for in order. */
static bool is_left_out(struct apply *a, unsigned nth)
{
	if (a->at_left_out == a->n_left_out || a->left_out[a->at_left_out] != nth)
		return false;
	a->at_left_out++;
	return true;
}

static void resources(struct apply *a)
{
	struct xds_fields f = xds_fields(a->msg, a->len);
	unsigned nth = 0, rejected;

	while (xds_field_next(&f))
		if (f.number == RESPONSE_RESOURCES && f.bytes) {
			rejected = a->out->rejected;
			one(a, f.bytes, f.len);
			if (a->out->rejected > rejected)
				left_out(a, nth);
			nth++;
		}
}

static void removals(struct apply *a)
{
	struct xds_fields f = xds_fields(a->msg, a->len);

	while (xds_field_next(&f)) {
		const char *name;

		if (f.number != RESPONSE_REMOVED || !f.bytes)
			continue;
		xds_scratch_reset(&a->scratch);
		name = copy(a, f.bytes, f.len);
		a->out->removed++;
		if (a->out->type == XDS_AUTHORIZATION)
			store_remove_policy(a->store, name);
		else
			store_remove_address(a->store, name);
	}
}

/* After the commit: who is woken finds what came. One that was left out has not come. */
static void tell(struct apply *a, const struct xds_listener *l)
{
	struct xds_fields f = xds_fields(a->msg, a->len), inner;

	for (unsigned nth = 0; xds_field_next(&f);) {
		if (!f.bytes)
			continue;
		xds_scratch_reset(&a->scratch);
		if (f.number == RESPONSE_REMOVED)
			l->named(l->arg, copy(a, f.bytes, f.len), true);
		if (f.number != RESPONSE_RESOURCES || is_left_out(a, nth++))
			continue;
		for (inner = xds_fields(f.bytes, f.len); xds_field_next(&inner);)
			if ((inner.number == RESOURCE_NAME || inner.number == RESOURCE_ALIASES) && inner.bytes)
				l->named(l->arg, copy(a, inner.bytes, inner.len), false);
	}
}

int xds_apply(struct store *s, const uint8_t *msg, size_t len, unsigned whole, const struct xds_listener *listener,
	      struct xds_result *out)
{
	struct apply a = {.store = s, .msg = msg, .len = len, .out = out};
	unsigned part;
	int e;

	*out = (struct xds_result){.type = XDS_TYPES};
	e = envelope(&a);
	if (e || out->type == XDS_TYPES)
		return e;
	part = out->type == XDS_ADDRESS ? STORE_ADDRESSES : STORE_POLICIES;
	xds_scratch_init(&a.scratch, XDS_SCRATCH_MAX);
	a.whole = whole >> out->type & 1;
	store_begin_xds(s, a.whole ? part : 0);
	resources(&a);
	removals(&a);
	if (out->rejected) /* what was left out may have a version that is there */
		store_keep_rest(s);
	store_commit(s);
	said(&a);
	if (listener)
		tell(&a, listener);
	xds_scratch_free(&a.scratch);
	free(a.left_out);
	return a.error;
}
