/* SPDX-License-Identifier: Apache-2.0 */
/* Owns gRPC channels and calls: addresses, deadlines, messages, statuses. */
#include "net/grpc.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/grpc_internal.h"

static const char *const status_names[] = {
	"OK",	     "CANCELLED",      "UNKNOWN",	    "INVALID_ARGUMENT",	  "DEADLINE_EXCEEDED",
	"NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
	"ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",	    "INTERNAL",		  "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED"};

const char *grpc_status_name(enum grpc_status s)
{
	return (unsigned)s < sizeof status_names / sizeof *status_names ? status_names[s] : "UNKNOWN";
}

/* --- channels ------------------------------------------------------------------------------------------- */

static const char *address_parse(struct grpc_channel *c, const char *text)
{
	const char *host, *end, *port;
	size_t len;
	unsigned long n;
	char *stop;

	if (!strncmp(text, "https://", 8))
		c->tls = true;
	else if (strncmp(text, "http://", 7))
		return "neither https:// nor http://";
	host = text + (c->tls ? 8 : 7);
	end = host + strcspn(host, "/?#");
	if (*host == '[') {
		const char *close = memchr(host, ']', (size_t)(end - host));

		if (!close || (close + 1 < end && close[1] != ':'))
			return "bad IPv6 address";
		port = close + 1 < end ? close + 2 : NULL;
		len = (size_t)(close - ++host);
	} else {
		port = memchr(host, ':', (size_t)(end - host));
		len = (size_t)((port ? port++ : end) - host);
	}
	if (!len || len >= sizeof c->host || memchr(host, '@', len))
		return "bad host";
	memcpy(c->host, host, len);
	n = port ? strtoul(port, &stop, 10) : c->tls ? 443 : 80;
	if (port && (stop != end || *port < '0' || *port > '9' || !n || n > 65535))
		return "bad port";
	c->port = (uint16_t)n;
	snprintf(c->authority, sizeof c->authority, host > text && host[-1] == '[' ? "[%s]:%u" : "%s:%u", c->host,
		 c->port);
	return NULL;
}

static bool text_copy(char **out, const char *in)
{
	*out = in ? strdup(in) : NULL;
	return !in || *out;
}

struct grpc_channel *grpc_channel_new(struct loop *l, const struct grpc_options *o, char why[GRPC_WHY_MAX])
{
	struct grpc_channel *c = calloc(1, sizeof *c);
	const char *wrong = "out of memory";

	if (c) {
		c->loop = l;
		c->tls12 = o->tls12;
		c->pqc = o->pqc;
		list_init(&c->conns);
		if (text_copy(&c->root, o->root) && text_copy(&c->alt_host, o->alt_host))
			wrong = address_parse(c, o->address);
	}
	if (!wrong)
		return c;
	snprintf(why, GRPC_WHY_MAX, "%s: %s", o->address, wrong);
	grpc_channel_free(c);
	return NULL;
}

void grpc_channel_free(struct grpc_channel *c)
{
	if (!c)
		return;
	while (!list_empty(&c->conns))
		conn_free((struct conn *)c->conns.next); /* the link is a conn's first member */
	free(c->root);
	free(c->alt_host);
	free(c);
}

void grpc_channel_renew(struct grpc_channel *c)
{
	if (c->current)
		conn_retire(c->current);
}

/* --- calls ---------------------------------------------------------------------------------------------- */

void call_free(struct grpc_call *call)
{
	if (!call)
		return;
	timer_cancel(&call->deadline);
	timer_cancel(&call->slow);
	if (call->conn)
		conn_drop_call(call->conn, call);
	call->cancelled = true;
	if (call->busy)
		return;
	call->channel->n_calls--;
	for (unsigned i = 0; i < call->n_headers; i++) {
		free((char *)call->headers[i].name);
		free((char *)call->headers[i].value);
	}
	grpc_frames_free(&call->frames);
	free(call->headers);
	free(call->path);
	free(call->out);
	free(call);
}

void call_close(struct grpc_call *call, enum grpc_status status, const char *why)
{
	struct grpc_call_events ev = call->ev;
	void *arg = call->arg;
	char text[GRPC_WHY_MAX];

	snprintf(text, sizeof text, "%s", why);
	call_free(call);
	ev.closed(arg, status, text);
}

static void too_late(struct timer *t)
{
	call_close(container_of(t, struct grpc_call, deadline), GRPC_DEADLINE_EXCEEDED, "no answer in time");
}

static bool headers_copy(struct grpc_call *call, const struct grpc_header *h, unsigned n)
{
	call->headers = calloc(n ? n : 1, sizeof *h);
	if (!call->headers)
		return false;
	for (; call->n_headers < n; call->n_headers++) {
		struct grpc_header *copy = &call->headers[call->n_headers];

		if (!text_copy((char **)&copy->name, h[call->n_headers].name))
			return false;
		if (!text_copy((char **)&copy->value, h[call->n_headers].value)) {
			free((char *)copy->name);
			return false;
		}
	}
	return true;
}

struct grpc_call *grpc_call_new(struct grpc_channel *c, const struct grpc_call_options *o,
				const struct grpc_call_events *ev, void *arg)
{
	struct grpc_call *call;

	if (c->n_calls >= GRPC_CALLS_MAX || o->n_headers > GRPC_HEADERS_MAX || !(call = calloc(1, sizeof *call)))
		return NULL;
	c->n_calls++;
	call->channel = c;
	call->ev = *ev;
	call->arg = arg;
	call->status = -1;
	call->frames.max = o->message_max ? o->message_max : GRPC_MESSAGE_DEFAULT;
	list_init(&call->link);
	if (!c->current)
		c->current = conn_new(c);
	if (!c->current || !headers_copy(call, o->headers, o->n_headers) || !text_copy(&call->path, o->path)) {
		call_free(call);
		return NULL;
	}
	call->deadline_ms = o->deadline_ms;
	call->message_ms = o->message_ms;
	if (o->deadline_ms)
		timer_set(c->loop, &call->deadline, o->deadline_ms, too_late);
	conn_add_call(c->current, call);
	return call;
}

/* Room for so many more bytes; many short messages may wait. */
static bool out_grow(struct grpc_call *call, size_t more)
{
	size_t kept = call->out_len - call->out_at, cap = call->out_cap;
	uint8_t *out;

	if (call->out_len + more <= cap)
		return true;
	if (call->out_at)
		memmove(call->out, call->out + call->out_at, kept);
	call->out_at = 0;
	call->out_len = kept;
	if (kept + more <= cap / 2)
		return true;
	cap = cap + kept + more;
	out = realloc(call->out, cap);
	if (!out)
		return false;
	call->out = out;
	call->out_cap = cap;
	return true;
}

int grpc_call_send(struct grpc_call *call, const void *msg, size_t len, bool last)
{
	if (len > UINT32_MAX || !out_grow(call, GRPC_PREFIX + len))
		return -ENOMEM;
	grpc_prefix_write(call->out + call->out_len, (uint32_t)len);
	if (len)
		memcpy(call->out + call->out_len + GRPC_PREFIX, msg, len);
	call->out_len += GRPC_PREFIX + len;
	call->last = last;
	if (call->conn)
		conn_resume(call->conn, call);
	return 0;
}

size_t grpc_call_queued(const struct grpc_call *call)
{
	return call->out_len - call->out_at;
}

void grpc_call_cancel(struct grpc_call *call)
{
	call_free(call);
}
