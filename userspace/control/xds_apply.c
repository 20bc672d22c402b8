// SPDX-License-Identifier: Apache-2.0
/* Responses: first the envelope (type, nonce), then the resources one by one, each in memory that the next one uses again,
 * then what is removed. */
#include "control/xds_apply.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_fields.h"
#include "control/xds_resource.h"

const char *const xds_type_urls[XDS_TYPES] = {
	[XDS_ADDRESS] = "type.googleapis.com/istio.workload.Address",
	[XDS_AUTHORIZATION] = "type.googleapis.com/istio.security.Authorization",
};

/* Numbers of fields that are read in place. */
enum { RESPONSE_RESOURCES = 2, RESPONSE_TYPE_URL = 4, RESPONSE_NONCE = 5, RESPONSE_REMOVED = 6 };
enum { RESOURCE_NAME = 3, RESOURCE_ALIASES = 4 };

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

static int envelope(struct xds_apply *a)
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
static const char *copy(struct xds_apply *a, const uint8_t *bytes, size_t len)
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

const char *xds_apply_name(struct xds_apply *a, const uint8_t *bytes, size_t len)
{
	struct xds_fields f = xds_fields(bytes, len);
	const char *name = "";

	while (xds_field_next(&f))
		if (f.number == RESOURCE_NAME && f.bytes && f.len <= XDS_RESOURCE_MAX)
			name = copy(a, f.bytes, f.len);
	return name;
}

void xds_apply_judged(const struct xds_apply *a, const char *name, const char *line, bool closed)
{
	if (a->listener && a->listener->judged)
		a->listener->judged(a->listener->arg, a->out->type, name, line, closed);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

/* The nth resource: written down while they are applied, for those that are few. */
static void left_out(struct xds_apply *a, unsigned nth)
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
static bool is_left_out(struct xds_apply *a, unsigned nth)
{
	if (a->at_left_out == a->n_left_out || a->left_out[a->at_left_out] != nth)
		return false;
	a->at_left_out++;
	return true;
}

static void resources(struct xds_apply *a)
{
	struct xds_fields f = xds_fields(a->msg, a->len);
	unsigned nth = 0, rejected;

	while (xds_field_next(&f))
		if (f.number == RESPONSE_RESOURCES && f.bytes) {
			rejected = a->out->rejected;
			xds_resource_apply(a, f.bytes, f.len);
			if (a->out->rejected > rejected)
				left_out(a, nth);
			nth++;
		}
}

static void removals(struct xds_apply *a)
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
		xds_apply_judged(a, name, NULL, false);
	}
}

/* After the commit: who is woken finds what came. One that was left out has not come. */
static void tell(struct xds_apply *a)
{
	const struct xds_listener *l = a->listener;
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
	struct xds_apply a = {.store = s, .msg = msg, .len = len, .out = out, .listener = listener};
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
	xds_resource_said(&a);
	if (listener && listener->named)
		tell(&a);
	xds_scratch_free(&a.scratch);
	free(a.left_out);
	return a.error;
}
