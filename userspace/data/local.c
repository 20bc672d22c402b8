// SPDX-License-Identifier: Apache-2.0
/* Both pods on this node: identity, policy, logs and metrics as over HBONE, but the bytes go from socket to
 * socket. The outbound connection carries them; an inbound one stands beside it for the destination's side. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "data/inbound.h"
#include "data/outbound.h"

struct local {
	struct conn in;
	struct outbound *out;
	struct tls_id *from,
		*to; /* where revocation lists are in use: what would have been shown in a tunnel; or NULL */
};

/* Nothing is shown to anybody here; but who is refused everywhere else is not let in by his neighbours. */
bool local_revoked(const struct outbound *o)
{
	const struct local *l = o->local;

	return l && ((l->from && tls_id_revoked(l->from)) || (l->to && tls_id_revoked(l->to)));
}

static struct tls_id *shown(const struct conn *c, const struct rstr *identity)
{
	struct certs *certs = c->w->o->certs;

	return c->w->o->lists && identity ? certs->ops->cached(certs, identity->text) : NULL;
}

static void local_free(struct local *l)
{
	tls_id_unref(l->from);
	tls_id_unref(l->to);
	free(l);
}

static void in_kill(struct conn *c, enum traffic_flag flag, const char *why)
{
	struct local *l = container_of(c, struct local, in);

	conn_closed(&l->in, flag, why);
	outbound_finish(l->out, FLAG_CONNECT, why);
}

static const struct conn_ops in_ops = {.kill = in_kill};

void local_end(struct outbound *o, enum traffic_flag flag, const char *why)
{
	struct local *l = o->local;

	if (!l)
		return;
	o->local = NULL;
	conn_closed(&l->in, flag, why);
	local_free(l);
}

void local_moved(struct outbound *o, bool from_client, const struct iovec *iov, size_t n)
{
	if (o->local)
		(from_client ? conn_received : conn_sent)(&o->local->in, iov, n);
}

static void dialled(struct dial *d, int fd, int err)
{
	struct outbound *o = container_of(d, struct outbound, dial);

	if (fd < 0) {
		conn_closed(&o->local->in, FLAG_CONNECT, strerror(-err));
		outbound_finish(o, FLAG_CONNECT, "http status: 503");
	} else {
		outbound_relay(o, fd);
	}
}

enum outcome {
	CARRIED,      /* the application is being dialled */
	REFUSED,      /* with a status, as the destination's node would have answered to the CONNECT */
	NEEDS_TUNNEL, /* the application wants a PROXY header, or the certificate is to be refused as everywhere */
};

static enum outcome admit(struct outbound *o, struct local *l, struct post *p, int *status)
{
	struct conn *in = &l->in;
	char why[256];
	struct inbound_target target;

	*status = inbound_target(in, p->w, o->conn.authority.ip, NULL, &target, why, sizeof why);
	if (*status == 200 && target.proxy_header)
		return NEEDS_TUNNEL;
	if (*status != 200) {
		conn_closed(in, FLAG_NONE, why);
		return REFUSED;
	}
	conn_opened(in);
	if (!conn_allowed(in, why, sizeof why)) {
		conn_closed(in, FLAG_DENY, why);
		*status = 401;
		return REFUSED;
	}
	if (dial_application(&o->dial, p->w, p->pod, &in->original, &in->src, dialled) == 0)
		return CARRIED;
	*status = 503;
	return REFUSED;
}

bool local_start(struct outbound *o, const struct route *r)
{
	struct conn *c = &o->conn;
	/* Another pod could not answer to a loopback address. */
	bool here = r->destination && (!addr_is_loopback(&c->src.ip) || addr_is_loopback(&r->authority.ip));
	struct post *p = here ? post_find(c->w, r->destination, &r->authority.ip) : NULL;
	struct local *l = p ? calloc(1, sizeof *l) : NULL;
	enum outcome outcome;
	char why[64];
	int status;

	if (!l)
		return false;
	l->out = o;
	l->in.src = c->src;
	l->in.authority = c->authority;
	l->in.dst = r->next_hop;
	l->in.hbone = l->in.local = true;
	conn_init(&l->in, c->w, p->pod, true, &in_ops);
	l->in.source = workload_ref(c->source);
	l->in.destination = workload_ref(r->destination);
	l->in.service = c->service ? service_ref(c->service) : NULL;
	l->in.src_identity = rstr_ref(c->src_identity);
	l->in.dst_identity = rstr_ref(c->dst_identity);
	l->from = shown(c, c->src_identity);
	l->to = shown(c, c->dst_identity);
	o->local = l;
	outcome = local_revoked(o) ? NEEDS_TUNNEL : admit(o, l, p, &status);
	if (outcome == NEEDS_TUNNEL) {
		local_end(o, FLAG_NONE, NULL);
		return false;
	}
	c->local = true;
	conn_opened(c);
	if (outcome == CARRIED)
		return true;
	snprintf(why, sizeof why, "http status: %d", status);
	outbound_finish(o, FLAG_CONNECT, why);
	return true;
}
