/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the issuers whose certificates were met. All of it is under the lock.
 *
 * Issuers form a tree: an anchor at each root, below it what it has signed. Which lists speak for an issuer, and whether
 * it is revoked itself, is judged once for each set of lists: that takes the signatures. */
#include <openssl/err.h>
#include <stdlib.h>

#include "net/crl_internal.h"

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

enum crl_verdict issuer_verdict(const struct issuer *i, const ASN1_INTEGER *serial)
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
	i->verdict = i->parent ? issuer_verdict(i->parent, X509_get0_serialNumber(i->cert)) : CRL_GOOD;
	i->judged = c->generation;
	return true;
}

/* Its lists are about to go: nothing is known of it until it is judged. */
static void issuer_forget(struct issuer *i)
{
	i->n_own = 0;
	i->verdict = CRL_NO_MEMORY;
}

/* --- those that were met ---------------------------------------------------------------------------------- */

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

void issuer_put(struct crls *c, struct issuer *i)
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

struct issuer *issuer_get(struct crls *c, X509 *cert, struct issuer *parent)
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

/* --- all of them ------------------------------------------------------------------------------------------ */

void issuers_judge(struct crls *c)
{
	list_for_each (p, &c->issuers) {
		struct issuer *i = list_entry(p, struct issuer, link);

		if (!issuer_judge(c, i))
			issuer_forget(i);
	}
}

void issuers_free(struct crls *c)
{
	while (!list_empty(&c->issuers)) {
		struct issuer *i = list_entry(c->issuers.next, struct issuer, link);

		list_del(&i->link);
		X509_free(i->cert);
		free(i->own);
		free(i);
	}
}
