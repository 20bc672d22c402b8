/* SPDX-License-Identifier: Apache-2.0 */
/* Pods with their connections, certificates and revocation lists in the dump. */
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "admin/dump.h"

/* --- pods ----------------------------------------------------------------------------------------------- */

static int by_pod(const void *a, const void *b)
{
	const struct dump_conn *x = a, *y = b;
	int e = strcmp(x->pod_uid, y->pod_uid);

	return e ? e : (int)y->inbound - (int)x->inbound;
}

static int by_uid(const void *a, const void *b)
{
	return strcmp(((const struct dump_pod *)a)->uid, ((const struct dump_pod *)b)->uid);
}

static void connection(struct json *j, const struct dump_conn *c)
{
	char buf[ENDPOINT_STRLEN];

	json_open(j, '{');
	json_key_text(j, "actualDst", endpoint_str(&c->actual_dst, buf));
	if (c->inbound)
		json_key_text(j, "originalDst", *c->forwarded_host ? c->forwarded_host : NULL);
	else
		json_key_text(j, "originalDst", endpoint_str(&c->original_dst, buf));
	json_key_text(j, "protocol", c->nested ? "DOUBLEHBONE" : c->hbone ? "HBONE" : "TCP");
	json_key_text(j, "src", endpoint_str(&c->src, buf));
	if (c->cipher) {
		json_key(j, "tls");
		json_open(j, '{');
		json_key_text(j, "cipher", c->cipher);
		json_key_text(j, "rx", c->kernel_rx ? "kernel" : "user");
		json_key_text(j, "tx", c->kernel_tx ? "kernel" : "user");
		json_close(j, '}');
	}
	json_close(j, '}');
}

/* `*c` walks over the connections of one pod, inbound first. */
static void direction(struct json *j, const struct tunnel_dump *d, const char *uid, bool inbound, unsigned *c)
{
	json_key(j, inbound ? "inbound" : "outbound");
	json_open(j, '[');
	for (; *c < d->n_conns && !strcmp(d->conns[*c].pod_uid, uid) && d->conns[*c].inbound == inbound; ++*c)
		connection(j, &d->conns[*c]);
	json_close(j, ']');
}

/* Has the mesh a workload that is this pod? Else its connections are refused. */
static bool is_known(struct store *s, const struct dump_pod *p)
{
	bool known;

	store_read_lock();
	known = store_local_workload(s, p->ns, p->sa, p->name) != NULL;
	store_read_unlock();
	return known;
}

static void pod(struct json *j, const struct tunnel_dump *d, const struct dump_pod *p, struct store *s, unsigned *c)
{
	/* Of pods that have gone since. */
	while (*c < d->n_conns && strcmp(d->conns[*c].pod_uid, p->uid) < 0)
		++*c;
	json_key(j, p->uid);
	json_open(j, '{');
	json_key(j, "connections");
	json_open(j, '{');
	direction(j, d, p->uid, true, c);
	direction(j, d, p->uid, false, c);
	json_close(j, '}');
	json_key(j, "inMesh");
	json_bool(j, is_known(s, p));
	json_key(j, "info");
	json_open(j, '{');
	json_key_text(j, "name", p->name);
	json_key_text(j, "namespace", p->ns);
	json_key_text(j, "serviceAccount", p->sa);
	json_close(j, '}');
	json_key_text(j, "state", p->up ? "Up" : "Pending");
	json_close(j, '}');
}

void dump_pods(struct json *j, struct tunnel_dump *d, struct store *s)
{
	unsigned c = 0;

	if (d->n_pods)
		qsort(d->pods, d->n_pods, sizeof *d->pods, by_uid);
	if (d->n_conns)
		qsort(d->conns, d->n_conns, sizeof *d->conns, by_pod);
	json_open(j, '{');
	for (unsigned i = 0; i < d->n_pods; i++)
		pod(j, d, &d->pods[i], s, &c);
	json_close(j, '}');
}

/* --- certificates --------------------------------------------------------------------------------------- */

struct copy {
	char *spiffe, *why;
	enum certs_state state;
	struct tls_id *id;
};
struct copies {
	struct certs *certs;
	struct copy *all;
	size_t n, cap;
	bool failed;
};

static void copies_free(void *arg)
{
	struct copies *c = arg;

	for (size_t i = 0; i < c->n; i++) {
		free(c->all[i].spiffe);
		free(c->all[i].why);
		if (c->all[i].id)
			tls_id_unref(c->all[i].id);
	}
	free(c->all);
	free(c);
}

static void copy_one(void *arg, const struct certs_entry *e)
{
	struct copies *c = arg;
	struct copy one = {strdup(e->spiffe), strdup(e->why), e->state, e->id ? tls_id_ref(e->id) : NULL}, *more;

	if (c->n == c->cap) {
		c->cap = c->cap ? 2 * c->cap : 16;
		more = realloc(c->all, c->cap * sizeof *more);
		if (!more) {
			c->cap = c->n;
			c->failed = true;
			free(one.spiffe);
			free(one.why);
			if (one.id)
				tls_id_unref(one.id);
			return;
		}
		c->all = more;
	}
	c->failed |= !one.spiffe || !one.why;
	c->all[c->n++] = one;
}

static void copy_all(void *arg)
{
	struct copies *c = arg;

	certs_dump(c->certs, copy_one, c);
}

static void x509(void *arg, const struct certs_x509 *x)
{
	struct json *j = arg;
	unsigned char *pem = malloc((x->pem_len + 2) / 3 * 4 + 1);

	if (!pem) {
		j->failed = true;
		return;
	}
	EVP_EncodeBlock(pem, (const unsigned char *)x->pem, (int)x->pem_len);
	json_open(j, '{');
	json_key_time(j, "expirationTime", x->not_after);
	json_key_text(j, "pem", (const char *)pem);
	json_key_text(j, "serialNumber", x->serial);
	json_key_time(j, "validFrom", x->not_before);
	json_close(j, '}');
	free(pem);
}

static void chain(struct json *j, const char *key, const char *pem)
{
	json_key(j, key);
	json_open(j, '[');
	if (pem)
		certs_x509_each(pem, x509, j);
	json_close(j, ']');
}

static void certificate(struct json *j, const struct copy *c)
{
	json_open(j, '{');
	chain(j, "certChain", c->id ? tls_id_chain(c->id) : NULL);
	json_key_text(j, "identity", c->spiffe);
	chain(j, "rootCerts", c->id ? tls_id_roots(c->id) : NULL);
	json_key(j, "state");
	if (c->state == CERTS_UNAVAILABLE)
		json_textf(j, "Unavailable: %s", c->why);
	else
		json_text(j, c->state == CERTS_AVAILABLE ? "Available" : "Initializing");
	json_close(j, '}');
}

static int by_identity(const void *a, const void *b)
{
	return strcmp(((const struct copy *)a)->spiffe, ((const struct copy *)b)->spiffe);
}

bool dump_certificates(struct json *j, struct loop *control, struct certs *certs)
{
	struct copies *c = calloc(1, sizeof *c);
	int e;

	if (!c)
		return false;
	c->certs = certs;
	e = http_call(control, copy_all, c, copies_free);
	if (e < 0) {
		if (e != -ETIMEDOUT)
			copies_free(c);
		return false;
	}
	json_open(j, '[');
	j->failed |= c->failed;
	if (c->n && !c->failed)
		qsort(c->all, c->n, sizeof *c->all, by_identity);
	for (size_t i = 0; i < c->n && !c->failed; i++)
		certificate(j, &c->all[i]);
	json_close(j, ']');
	copies_free(c);
	return true;
}

/* --- revocation lists ------------------------------------------------------------------------------------- */

static void list(void *arg, const struct crl_info *i)
{
	struct json *j = arg;

	json_open(j, '{');
	json_key(j, "entries");
	json_number(j, i->entries);
	json_key_text(j, "issuer", i->issuer);
	json_key_time(j, "lastUpdate", i->last_update);
	if (i->next_update)
		json_key_time(j, "nextUpdate", i->next_update);
	json_key_some(j, "number", i->number);
	json_close(j, '}');
}

void dump_lists(struct json *j, struct crl_file *f)
{
	char trouble[CRL_FILE_WHY_MAX];

	crl_file_trouble(f, trouble);
	json_open(j, '{');
	json_key(j, "lists");
	json_open(j, '[');
	crls_each(crl_file_lists(f), list, j);
	json_close(j, ']');
	json_key_text(j, "path", crl_file_path(f));
	json_key_some(j, "trouble", trouble);
	json_close(j, '}');
}
