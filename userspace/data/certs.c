// SPDX-License-Identifier: Apache-2.0
/* How connections of both roles come to a credential. */
#include "data/certs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

int cert_ask(struct certs *c, const char *spiffe, struct loop *l, void *owner, void (*done)(struct cert_request *r),
	     struct tls_id **id, struct cert_request **r)
{
	*id = c->ops->cached(c, spiffe);
	if (*id)
		return 0;
	*r = calloc(1, sizeof **r);
	if (!*r)
		return -ENOMEM;
	snprintf((*r)->spiffe, sizeof(*r)->spiffe, "%s", spiffe);
	(*r)->loop = l;
	(*r)->owner = owner;
	(*r)->done = done;
	c->ops->request(c, *r, CERT_REALTIME);
	return 0;
}

void *cert_owner(struct cert_request *r)
{
	void *owner = r->owner;

	if (!owner) {
		tls_id_unref(r->id);
		free(r);
	}
	return owner;
}

struct tls_id *cert_answer(struct cert_request *r, char why[CERT_ANSWER_MAX])
{
	struct tls_id *id = r->id;

	if (!id)
		snprintf(why, CERT_ANSWER_MAX, "certificate: %s", r->why);
	free(r);
	return id;
}
