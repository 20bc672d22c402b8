/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the embedded CA behind the interface of ca.h.
 *
 * A fetch is a message to the CA's own loop: one key and two signatures (some 0.2 ms) are made per message, so a burst
 * of identities shares the control thread with its other work. */
#include "control/ca_embedded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/ca_root.h"
#include "control/csr.h"

struct embedded {
	struct ca ca;
	struct loop *loop;
	struct ca_root *root;
	long ttl_s;
};

struct ca_fetch {
	struct msg msg;
	struct embedded *owner; /* NULL: cancelled */
	ca_done *done;
	void *arg;
	char spiffe[];
};

static bool cert_make(struct embedded *e, const char *spiffe, struct ca_cert *out, char *why)
{
	char *csr = NULL;

	if (csr_new(spiffe, &out->key, &csr)) {
		snprintf(why, CA_WHY_MAX, "cannot make a key");
		return false;
	}
	out->chain = ca_root_sign(e->root, csr, spiffe, e->ttl_s, why);
	free(csr);
	if (!out->chain)
		return false;
	out->roots = strdup(ca_root_pem(e->root));
	if (!out->roots)
		snprintf(why, CA_WHY_MAX, "out of memory");
	return out->roots;
}

static void fetch_run(struct loop *l, struct msg *m)
{
	struct ca_fetch *f = container_of(m, struct ca_fetch, msg);
	struct ca_cert cert = {0};
	char why[CA_WHY_MAX] = "";

	if (f->owner && cert_make(f->owner, f->spiffe, &cert, why))
		f->done(f->arg, &cert, NULL);
	else if (f->owner)
		f->done(f->arg, NULL, why);
	ca_cert_clear(&cert);
	free(f);
}

static struct ca_fetch *embedded_fetch(struct ca *ca, const char *spiffe, ca_done *done, void *arg)
{
	struct embedded *e = container_of(ca, struct embedded, ca);
	struct ca_fetch *f = calloc(1, sizeof *f + strlen(spiffe) + 1);

	if (!f)
		return NULL;
	f->owner = e;
	f->done = done;
	f->arg = arg;
	strcpy(f->spiffe, spiffe);
	loop_post(e->loop, &f->msg, fetch_run);
	return f;
}

static void embedded_cancel(struct ca_fetch *f)
{
	f->owner = NULL;
}

static void embedded_free(struct ca *ca)
{
	struct embedded *e = container_of(ca, struct embedded, ca);

	ca_root_free(e->root);
	free(e);
}

struct ca *ca_embedded_new(struct loop *l, const struct ca_embedded_options *o, char why[CA_WHY_MAX])
{
	struct embedded *e = calloc(1, sizeof *e);

	if (!e) {
		snprintf(why, CA_WHY_MAX, "out of memory");
		return NULL;
	}
	e->ca = (struct ca){.fetch = embedded_fetch, .cancel = embedded_cancel, .free = embedded_free};
	e->loop = l;
	e->ttl_s = o->ttl_s > 0 ? o->ttl_s : CA_TTL_DEFAULT_S;
	e->root = ca_root_new(o->cert_path, o->key_path, why);
	if (!e->root) {
		free(e);
		return NULL;
	}
	log_warn("ca", "certificates come from the embedded CA (%s): not for production",
		 o->cert_path ? o->cert_path : "made at start");
	return &e->ca;
}
