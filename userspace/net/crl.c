/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the revocation lists in force, and the issuers whose certificates were met.
 *
 * Issuers form a tree: an anchor at each root, below it what it has signed. Which lists speak for an issuer, and whether
 * it is revoked itself, is judged once for each set of lists: that takes the signatures. What remains for a handshake,
 * and for a connection when other lists come, is a search for one serial number among its issuer's lists. */
#include "net/crl_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "base/list.h"

struct issuer {
	struct list link; /* crls->issuers; the one met last is the first */
	X509 *cert;
	struct issuer *parent; /* NULL: an anchor */
	unsigned refs;	       /* paths and children; without any it is kept as long as there is room */
	bool listed;	       /* it has a place in the table */
	enum crl_verdict verdict;
	bool forged;	 /* there are lists in its name, and none of them is its own */
	unsigned n_own;	 /* lists that speak for it, */
	X509_CRL **own;	 /* of crls->set */
	uint32_t judged; /* generation */
};

struct crls {
	pthread_mutex_t lock;
	uint32_t generation; /* of the set; written under the lock, read without */
	struct crl_set *set;
	struct list issuers;
	unsigned n_issuers;
};

struct crl_path {
	struct crls *lists;
	struct issuer *issuer; /* of the leaf */
	uint32_t generation;   /* by which it was good */
	uint8_t len;
	bool negative;
	uint8_t serial[]; /* of the leaf */
};

/* --- who speaks for whom ---------------------------------------------------------------------------------- */

static bool names(const struct crl_list *l, X509 *issuer)
{
	return !X509_NAME_cmp(X509_CRL_get_issuer(l->crl), X509_get_subject_name(issuer)) &&
	       (!l->akid || X509_check_akid(issuer, l->akid) == X509_V_OK);
}

/* An issuer that may not sign lists (keyUsage) is believed as well: all that its list can do is take trust away. */
static bool signed_by(X509_CRL *crl, X509 *issuer)
{
	EVP_PKEY *key = X509_get0_pubkey(issuer);
	bool good = key && X509_CRL_verify(crl, key) == 1;

	ERR_clear_error();
	return good;
}

static enum crl_verdict serial_verdict(const struct issuer *i, const ASN1_INTEGER *serial)
{
	X509_REVOKED *entry;

	if (i->verdict != CRL_GOOD)
		return i->verdict;
	for (unsigned k = 0; k < i->n_own; k++)
		if (X509_CRL_get0_by_serial(i->own[k], &entry, serial) == 1)
			return CRL_REVOKED;
	return i->forged ? CRL_FORGED : CRL_GOOD;
}

/* False: no memory, it stays as it was. */
static bool issuer_judge(struct crls *c, struct issuer *i)
{
	X509_CRL **own;

	if (i->judged == c->generation)
		return true;
	if (i->parent && !issuer_judge(c, i->parent))
		return false;
	own = calloc(c->set->n ? c->set->n : 1, sizeof(X509_CRL *));
	if (!own)
		return false;
	free(i->own);
	i->own = own;
	i->n_own = 0;
	i->forged = false;
	for (unsigned k = 0; k < c->set->n; k++) {
		const struct crl_list *l = &c->set->list[k];

		if (!names(l, i->cert))
			continue;
		if (signed_by(l->crl, i->cert))
			own[i->n_own++] = l->crl;
		else
			i->forged = true;
	}
	i->forged &= !i->n_own;
	i->verdict = i->parent ? serial_verdict(i->parent, X509_get0_serialNumber(i->cert)) : CRL_GOOD;
	i->judged = c->generation;
	return true;
}

/* Its lists are about to go: nothing is known of it until it is judged. */
static void issuer_forget(struct issuer *i)
{
	i->n_own = 0;
	i->verdict = CRL_NO_MEMORY;
}

/* --- issuers: all under the lock -------------------------------------------------------------------------- */

static void issuer_put(struct crls *c, struct issuer *i);

static void issuer_free(struct crls *c, struct issuer *i)
{
	struct issuer *parent = i->parent;

	if (i->listed)
		c->n_issuers--;
	list_del(&i->link);
	X509_free(i->cert);
	free(i->own);
	free(i);
	issuer_put(c, parent);
}

static void issuer_put(struct crls *c, struct issuer *i)
{
	if (i && --i->refs == 0 && !i->listed)
		issuer_free(c, i);
}

static bool make_room(struct crls *c)
{
	if (c->n_issuers < CRL_ISSUERS_MAX)
		return true;
	for (struct list *p = c->issuers.prev; p != &c->issuers; p = p->prev) {
		struct issuer *i = list_entry(p, struct issuer, link);

		if (!i->refs) {
			issuer_free(c, i);
			return true;
		}
	}
	return false;
}

static struct issuer *issuer_find(struct crls *c, X509 *cert, const struct issuer *parent)
{
	list_for_each (p, &c->issuers) {
		struct issuer *i = list_entry(p, struct issuer, link);

		if (i->parent == parent && !X509_cmp(i->cert, cert)) {
			list_del(&i->link);
			list_add(&c->issuers, &i->link);
			return i;
		}
	}
	return NULL;
}

/* A reference; that to `parent` is taken over, also when there is no memory (NULL). */
static struct issuer *issuer_get(struct crls *c, X509 *cert, struct issuer *parent)
{
	struct issuer *i = issuer_find(c, cert, parent);

	if (i) {
		issuer_put(c, parent);
		if (!issuer_judge(c, i))
			return NULL;
		i->refs++;
		return i;
	}
	i = calloc(1, sizeof *i);
	if (!i) {
		issuer_put(c, parent);
		return NULL;
	}
	list_init(&i->link);
	i->refs = 1;
	i->parent = parent;
	X509_up_ref(cert);
	i->cert = cert;
	X509_check_purpose(cert, -1, 0); /* has its key identifier read */
	i->judged = c->generation - 1;
	if (!issuer_judge(c, i)) {
		issuer_put(c, i); /* and with it `parent` */
		return NULL;
	}
	/* What is not in the table may not have children there. */
	i->listed = (!parent || parent->listed) && make_room(c);
	if (i->listed) {
		list_add(&c->issuers, &i->link);
		c->n_issuers++;
	}
	return i;
}

/* --- chains ----------------------------------------------------------------------------------------------- */

/* Takes the reference over. NULL: there is no room for it. */
static struct crl_path *path_new(struct crls *c, struct issuer *i, const ASN1_INTEGER *serial)
{
	int len = ASN1_STRING_length(serial);
	struct crl_path *p = i->listed && len <= CRL_SERIAL_MAX ? malloc(sizeof *p + (size_t)len) : NULL;

	if (!p) {
		issuer_put(c, i);
		return NULL;
	}
	p->lists = c;
	p->issuer = i;
	p->generation = c->generation;
	p->len = (uint8_t)len;
	p->negative = ASN1_STRING_type(serial) == V_ASN1_NEG_INTEGER;
	memcpy(p->serial, ASN1_STRING_get0_data(serial), (size_t)len);
	return p;
}

static enum crl_verdict check(struct crls *c, struct stack_st_X509 *chain, struct crl_path **path)
{
	const ASN1_INTEGER *serial = X509_get0_serialNumber(sk_X509_value(chain, 0));
	int anchor = sk_X509_num(chain) - 1;
	struct issuer *i = issuer_get(c, sk_X509_value(chain, anchor), NULL);
	enum crl_verdict verdict;

	for (int k = anchor - 1; i && k > 0; k--)
		i = issuer_get(c, sk_X509_value(chain, k), i);
	if (!i)
		return CRL_NO_MEMORY;
	verdict = serial_verdict(i, serial);
	if (verdict != CRL_GOOD) {
		issuer_put(c, i);
		return verdict;
	}
	*path = path_new(c, i, serial);
	return *path ? CRL_GOOD : CRL_UNFOLLOWED;
}

enum crl_verdict crls_check(struct crls *c, struct stack_st_X509 *chain, struct crl_path **path)
{
	enum crl_verdict verdict;

	*path = NULL;
	if (sk_X509_num(chain) < 2) /* the leaf is an anchor: nobody has issued it */
		return CRL_GOOD;
	pthread_mutex_lock(&c->lock);
	verdict = check(c, chain, path);
	pthread_mutex_unlock(&c->lock);
	return verdict;
}

static enum crl_verdict path_verdict(const struct crl_path *p)
{
	ASN1_INTEGER *serial = ASN1_STRING_type_new(p->negative ? V_ASN1_NEG_INTEGER : V_ASN1_INTEGER);
	enum crl_verdict verdict = CRL_UNFOLLOWED;

	if (serial && ASN1_STRING_set(serial, p->serial, p->len))
		verdict = serial_verdict(p->issuer, serial);
	ASN1_STRING_free(serial);
	return verdict;
}

/* Only a certificate that is on a list ends a connection: a list that is wrong ends none. */
bool crl_path_revoked(struct crl_path *p)
{
	struct crls *c;
	enum crl_verdict verdict;

	if (!p || __atomic_load_n(&p->generation, __ATOMIC_RELAXED) ==
			  __atomic_load_n(&p->lists->generation, __ATOMIC_ACQUIRE))
		return false;
	c = p->lists;
	pthread_mutex_lock(&c->lock);
	verdict = path_verdict(p);
	if (verdict == CRL_GOOD)
		__atomic_store_n(&p->generation, c->generation, __ATOMIC_RELAXED);
	pthread_mutex_unlock(&c->lock);
	return verdict == CRL_REVOKED;
}

void crl_path_free(struct crl_path *p)
{
	if (!p)
		return;
	pthread_mutex_lock(&p->lists->lock);
	issuer_put(p->lists, p->issuer);
	pthread_mutex_unlock(&p->lists->lock);
	free(p);
}

/* --- the set in force ------------------------------------------------------------------------------------- */

int crls_load(struct crls *c, const void *text, size_t len, char why[CRL_WHY_MAX])
{
	struct crl_set *set, *old;
	int e = crl_set_new(text, len, &set, why);

	if (e)
		return e;
	pthread_mutex_lock(&c->lock);
	old = c->set;
	c->set = set;
	__atomic_store_n(&c->generation, c->generation + 1, __ATOMIC_RELEASE);
	list_for_each (p, &c->issuers) {
		struct issuer *i = list_entry(p, struct issuer, link);

		if (!issuer_judge(c, i))
			issuer_forget(i);
	}
	pthread_mutex_unlock(&c->lock);
	crl_set_free(old);
	return 0;
}

void crls_each(struct crls *c, void (*each)(void *arg, const struct crl_info *i), void *arg)
{
	pthread_mutex_lock(&c->lock);
	for (unsigned i = 0; i < c->set->n; i++)
		each(arg, &c->set->list[i].info);
	pthread_mutex_unlock(&c->lock);
}

struct crls *crls_new(void)
{
	struct crls *c = calloc(1, sizeof *c);
	char why[CRL_WHY_MAX];

	if (!c || crl_set_new("", 0, &c->set, why)) {
		free(c);
		return NULL;
	}
	pthread_mutex_init(&c->lock, NULL);
	list_init(&c->issuers);
	return c;
}

void crls_free(struct crls *c)
{
	if (!c)
		return;
	while (!list_empty(&c->issuers)) {
		struct issuer *i = list_entry(c->issuers.next, struct issuer, link);

		list_del(&i->link);
		X509_free(i->cert);
		free(i->own);
		free(i);
	}
	crl_set_free(c->set);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
