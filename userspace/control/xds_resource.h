/* SPDX-License-Identifier: Apache-2.0 */
/* What xds_apply.c (a response) and xds_resource.c (one resource of it) share. */
#pragma once
#include "control/xds_apply.h"
#include "control/xds_scratch.h"

/* A response that is being applied. */
struct xds_apply {
	struct store *store;
	const uint8_t *msg;
	size_t len;
	struct xds_scratch scratch;
	struct xds_result *out;
	const struct xds_listener *listener;
	bool whole;
	unsigned *left_out, n_left_out, at_left_out; /* which resources of the message were refused, in order */
	size_t why_len;
	unsigned unsaid; /* entries that did not fit */
	int error;	 /* -ENOMEM */
};

/* xds_resource.c: one resource goes into the store, or is refused. */
void xds_resource_apply(struct xds_apply *a, const uint8_t *bytes, size_t len);
/* No more of them come: what of the refusals did not fit is said as a number. */
void xds_resource_said(struct xds_apply *a);

/* xds_apply.c: the name of a resource that the library does not decode; "" where there is none. */
const char *xds_apply_name(struct xds_apply *a, const uint8_t *bytes, size_t len);
/* As the listener's. */
void xds_apply_judged(const struct xds_apply *a, const char *name, const char *line, bool closed);
