/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the requests for certificates to Istio's CA.
 *
 * A fetch makes a key, then calls; a call that failed in a way that may pass (the server is not there, or not yet) is
 * made again with the same request until CA_TRIES or the fetch's deadline is used up. Longer waits belong to the
 * certificate manager. */
#include "control/ca_client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/csr.h"
#include "control/file_watch.h"
#include "proto/ca.pb-c.h"

static const char method[] = "/istio.v1.auth.IstioCertificateService/CreateCertificate";

struct client {
	struct ca ca;
	struct loop *loop;
	struct grpc_channel *channel;
	char *token, *cluster_id, *root;
	struct stat root_seen; /* the file of the roots that the channel was last made with */
	long ttl_s;
	bool impersonate;
	struct grpc_header headers[CA_HEADERS_MAX];
	unsigned n_headers;
};

struct ca_fetch {
	struct client *c;
	ca_done *done;
	void *arg;
	struct grpc_call *call;
	struct timer again; /* the next try; the first one too, so that nothing is reported from inside fetch() */
	unsigned tries;
	uint64_t started;
	struct ca_cert cert; /* the key is ours from the start */
	char *csr;
	char why[CA_WHY_MAX];
	char spiffe[];
};

static void fetch_free(struct ca_fetch *f)
{
	timer_cancel(&f->again);
	if (f->call)
		grpc_call_cancel(f->call);
	ca_cert_clear(&f->cert);
	free(f->csr);
	free(f);
}

static void fetch_end(struct ca_fetch *f)
{
	bool good = f->cert.chain && f->cert.roots;

	f->done(f->arg, good ? &f->cert : NULL, good ? NULL : f->why);
	fetch_free(f);
}

/* --- answer --------------------------------------------------------------------------------------------- */

static char *texts_join(char *const *v, size_t n)
{
	size_t len = 1;
	char *out, *at;

	for (size_t i = 0; i < n; i++)
		len += strlen(v[i]) + 1;
	out = at = malloc(len);
	if (!out)
		return NULL;
	for (size_t i = 0; i < n; i++) {
		at = stpcpy(at, v[i]);
		if (at > out && at[-1] != '\n')
			*at++ = '\n';
	}
	*at = 0;
	return out;
}

static void answered(void *arg, const uint8_t *msg, size_t len)
{
	struct ca_fetch *f = arg;
	Istio__V1__Auth__IstioCertificateResponse *r =
		istio__v1__auth__istio_certificate_response__unpack(NULL, len, msg);

	if (!r) {
		snprintf(f->why, sizeof f->why, "the CA's answer cannot be decoded");
	} else if (f->cert.chain) {
		snprintf(f->why, sizeof f->why, "the CA answered twice");
	} else if (r->n_cert_chain < 2 || r->n_cert_chain > CA_CHAIN_MAX) {
		snprintf(f->why, sizeof f->why, "the CA's answer has %zu certificates, 2 to %d are due",
			 r->n_cert_chain, CA_CHAIN_MAX);
	} else {
		f->cert.chain = texts_join(r->cert_chain, r->n_cert_chain - 1);
		f->cert.roots = texts_join(&r->cert_chain[r->n_cert_chain - 1], 1);
	}
	if (r)
		istio__v1__auth__istio_certificate_response__free_unpacked(r, NULL);
}

static void try_now(struct timer *t);

static void closed(void *arg, enum grpc_status status, const char *why)
{
	struct ca_fetch *f = arg;
	uint64_t wait = ca_jitter((uint64_t)CA_TRY_AGAIN_MS << (f->tries - 1), CA_TRY_JITTER);
	uint64_t spent = loop_now(f->c->loop) - f->started;

	f->call = NULL;
	if (status != GRPC_OK) {
		free(f->cert.chain);
		free(f->cert.roots);
		f->cert.chain = f->cert.roots = NULL;
		snprintf(f->why, sizeof f->why, "CA: %s: %.200s", grpc_status_name(status), why);
	} else if (!f->cert.chain && !f->why[0]) {
		snprintf(f->why, sizeof f->why, "the CA's answer is empty");
	}
	if (status == GRPC_UNAVAILABLE && f->tries < CA_TRIES && spent + wait < CA_FETCH_MS)
		timer_set(f->c->loop, &f->again, wait, try_now);
	else
		fetch_end(f);
}

/* --- request -------------------------------------------------------------------------------------------- */

static uint8_t *request_encode(const struct ca_fetch *f, size_t *len)
{
	static char key[] = "ImpersonatedIdentity";
	Istio__V1__Auth__MetadataValue value = ISTIO__V1__AUTH__METADATA_VALUE__INIT;
	Istio__V1__Auth__MetadataEntry entry = ISTIO__V1__AUTH__METADATA_ENTRY__INIT, *entries[] = {&entry};
	Istio__V1__Auth__Metadata metadata = ISTIO__V1__AUTH__METADATA__INIT;
	Istio__V1__Auth__IstioCertificateRequest r = ISTIO__V1__AUTH__ISTIO_CERTIFICATE_REQUEST__INIT;
	uint8_t *out;

	value.kind_case = ISTIO__V1__AUTH__METADATA_VALUE__KIND_STRING_VALUE;
	value.string_value = (char *)f->spiffe;
	entry.key = key;
	entry.value = &value;
	metadata.n_fields = 1;
	metadata.fields = entries;
	r.csr = f->csr;
	r.validity_duration = f->c->ttl_s;
	r.metadata = f->c->impersonate ? &metadata : NULL;
	*len = istio__v1__auth__istio_certificate_request__get_packed_size(&r);
	out = malloc(*len ? *len : 1);
	if (out)
		istio__v1__auth__istio_certificate_request__pack(&r, out);
	return out;
}

static int call_start(struct ca_fetch *f, const char *bearer)
{
	static const struct grpc_call_events events = {.message = answered, .closed = closed};
	const struct client *c = f->c;
	struct grpc_header h[CA_HEADERS_MAX + 2];
	unsigned n = 0;
	uint64_t end = f->started + CA_FETCH_MS, now = loop_now(c->loop);
	size_t len;
	uint8_t *msg = request_encode(f, &len);
	int err = -ENOMEM;

	h[n++] = (struct grpc_header){"clusterid", c->cluster_id};
	if (bearer)
		h[n++] = (struct grpc_header){"authorization", bearer};
	memcpy(&h[n], c->headers, c->n_headers * sizeof *h);
	n += c->n_headers;
	f->call = grpc_call_new(c->channel,
				&(struct grpc_call_options){.path = method,
							    .headers = h,
							    .n_headers = n,
							    .deadline_ms = now < end ? (unsigned)(end - now) : 1,
							    .message_max = CA_ANSWER_MAX},
				&events, f);
	if (f->call && msg)
		err = grpc_call_send(f->call, msg, len, true);
	free(msg);
	return err;
}

/* A connection lasts as long as it is used: with other roots in the file the server has to prove itself anew. While these
 * cannot be used, the one that there is goes on. */
static void follow_root(struct client *c)
{
	struct stat now;

	if (stat(c->root, &now) < 0 || file_is_same(&now, &c->root_seen) || !wire_root_usable(c->root))
		return;
	c->root_seen = now;
	grpc_channel_renew(c->channel);
}

static void try_now(struct timer *t)
{
	struct ca_fetch *f = container_of(t, struct ca_fetch, again);
	char *bearer = NULL;
	int err = 0;

	f->tries++;
	f->why[0] = 0;
	if (!f->csr)
		err = csr_new(f->spiffe, &f->cert.key, &f->csr);
	if (err) {
		snprintf(f->why, sizeof f->why, "cannot make a key");
		fetch_end(f);
		return;
	}
	follow_root(f->c);
	if (f->c->token)
		err = token_header(f->c->token, &bearer);
	if (err)
		snprintf(f->why, sizeof f->why, "token: %s", strerror(-err));
	else if (call_start(f, bearer))
		snprintf(f->why, sizeof f->why, "out of memory");
	free(bearer);
	if (f->why[0])
		fetch_end(f);
}

/* --- interface ------------------------------------------------------------------------------------------ */

static struct ca_fetch *client_fetch(struct ca *ca, const char *spiffe, ca_done *done, void *arg)
{
	struct client *c = container_of(ca, struct client, ca);
	struct ca_fetch *f = calloc(1, sizeof *f + strlen(spiffe) + 1);

	if (!f)
		return NULL;
	f->c = c;
	f->done = done;
	f->arg = arg;
	f->started = loop_now(c->loop);
	strcpy(f->spiffe, spiffe);
	timer_set(c->loop, &f->again, 0, try_now);
	return f;
}

static void client_free(struct ca *ca)
{
	struct client *c = container_of(ca, struct client, ca);

	grpc_channel_free(c->channel);
	for (unsigned i = 0; i < CA_HEADERS_MAX; i++) {
		free((char *)c->headers[i].name);
		free((char *)c->headers[i].value);
	}
	free(c->token);
	free(c->cluster_id);
	free(c->root);
	free(c);
}

static bool options_copy(struct client *c, const struct ca_client_options *o)
{
	c->cluster_id = strdup(o->cluster_id);
	c->token = o->token ? strdup(o->token) : NULL;
	c->root = strdup(o->server.root ? o->server.root : "SYSTEM");
	c->n_headers = o->n_headers < CA_HEADERS_MAX ? o->n_headers : CA_HEADERS_MAX;
	for (unsigned i = 0; i < c->n_headers; i++) {
		c->headers[i].name = strdup(o->headers[i].name);
		c->headers[i].value = strdup(o->headers[i].value);
		if (!c->headers[i].name || !c->headers[i].value)
			return false;
	}
	return c->cluster_id && c->root && !o->token == !c->token;
}

struct ca *ca_client_new(struct loop *l, const struct ca_client_options *o, char why[CA_WHY_MAX])
{
	struct client *c = calloc(1, sizeof *c);

	if (!c) {
		snprintf(why, CA_WHY_MAX, "out of memory");
		return NULL;
	}
	c->ca = (struct ca){.fetch = client_fetch, .cancel = fetch_free, .free = client_free};
	c->loop = l;
	c->ttl_s = o->ttl_s > 0 ? o->ttl_s : CA_TTL_DEFAULT_S;
	c->impersonate = o->impersonate;
	if (!options_copy(c, o))
		snprintf(why, CA_WHY_MAX, "out of memory");
	else
		c->channel = grpc_channel_new(l, &o->server, why);
	if (c->channel)
		return &c->ca;
	client_free(&c->ca);
	return NULL;
}
