// SPDX-License-Identifier: Apache-2.0
/* What an inbound request means for a pod: its application's address, and what is told about the service. */
#include "data/inbound.h"

#include <stdio.h>

#include "data/plane.h"
#include "state/route.h"

int inbound_target(struct conn *in, struct worker *w, struct addr pod_ip, const char *host, struct inbound_target *out,
		   char *why, size_t len)
{
	struct inbound_request q = {.network = w->o->network,
				    .pod_ip = pod_ip,
				    .authority = in->authority,
				    .host = host,
				    .forwarded_host = rstr_text(in->host),
				    .socks = w->o->socks};
	char stranger[POD_STRANGER_MAX];
	struct inbound_route r;
	struct workload *src;
	int status;

	if (!in->destination)
		in->destination = pod_workload(w, in->pod);
	if (!in->destination) {
		*out = (struct inbound_target){0};
		snprintf(why, len, "%s", pod_stranger(in->pod, stranger));
		return 503;
	}
	q.local = in->destination;
	store_read_lock();
	route_inbound(w->o->store, &q, &r);
	if (!in->source && !in->foreign) {
		src = store_workload_by_addr(w->o->store, w->o->network, &in->src.ip);
		in->source = src ? workload_ref(src) : NULL;
	}
	store_read_unlock();
	in->original = r.target;
	*out = (struct inbound_target){r.proxy_protocol, r.advertised};
	if (r.app_loopback && w->o->app_tunnel_loopback)
		in->original.ip = addr_is4(&pod_ip) ? addr_loopback4 : addr_loopback6;
	if (!in->service && r.service)
		in->service = service_ref(r.service);
	route_inbound_reason(r.error, &q, why, len);
	status = route_inbound_status(r.error);
	route_inbound_release(&r);
	return status;
}
