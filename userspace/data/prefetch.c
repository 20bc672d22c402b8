// SPDX-License-Identifier: Apache-2.0
/* Asks for the certificates of this node's pods before their first connections want them: when a pod comes, and, since a
 * pod that has just been made is enrolled before istiod tells of it, when the mesh begins to know it. */
#include "data/prefetch.h"

#include "state/identity.h"

void prefetch_pod(struct data_plane *d, struct pod *p)
{
	char spiffe[IDENTITY_MAX] = "";
	struct workload *w;

	if (p->certified)
		return;
	store_read_lock();
	w = store_local_workload(d->o.store, p->ns, p->sa, p->name);
	if (w && (w->protocol == PROTO_HBONE || w->native_tunnel) &&
	    identity_format(spiffe, w->trust_domain, p->ns, p->sa) < 0)
		spiffe[0] = '\0';
	store_read_unlock();
	if (!spiffe[0])
		return;
	p->certified = true;
	d->o.certs->ops->prefetch(d->o.certs, spiffe);
}

void prefetch_pods(struct data_plane *d)
{
	list_for_each (pos, &d->pods)
		prefetch_pod(d, list_entry(pos, struct pod, link));
}
