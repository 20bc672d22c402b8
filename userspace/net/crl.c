/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the revocation lists in force, and what they say of a handshake's chain, and of a connection when other lists come:
 * a search for one serial number among the lists of its issuer (crl_issuer.c). */
#include "net/crl_internal.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

struct crl_path {
	struct crls *lists;
	struct issuer *issuer; /* of the leaf */
	uint32_t generation;   /* by which it was good */
	uint8_t len;
	bool negative;
	uint8_t serial[]; /* of the leaf */
};

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
	verdict = issuer_verdict(i, serial);
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
		verdict = issuer_verdict(p->issuer, serial);
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
	issuers_judge(c);
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
	issuers_free(c);
	crl_set_free(c->set);
	pthread_mutex_destroy(&c->lock);
	free(c);
}
