/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of revocation lists: what a file of them may be, whom they revoke and whom they do not, and connections that have
 * been let in before. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "net/crl.h"
#include "tls_mint.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct mint_ca root, middle, twin, stranger; /* `twin` has the name of `middle`, and another key */

static char *leaf_pem(const struct mint_ca *ca)
{
	struct mint_pem pem = mint_leaf(ca, &(struct mint_leaf){.san = "URI:spiffe://td/ns/a/sa/b"});

	free(pem.key);
	return pem.chain;
}

static void load(struct crls *c, const char *text)
{
	char why[CRL_WHY_MAX] = "";

	if (crls_load(c, text, strlen(text), why))
		fail_msg("%s", why);
}

static void load_one(struct crls *c, const struct mint_ca *ca, const struct mint_crl *want)
{
	char *pem = mint_crl_pem(ca, want);

	load(c, pem);
	free(pem);
}

/* The leaf, then `ca` and its own issuer. */
static enum crl_verdict ask(struct crls *c, const char *leaf, const struct mint_ca *ca, struct crl_path **path)
{
	STACK_OF(X509) *chain = sk_X509_new_null();
	X509 *cert = mint_read(leaf);
	enum crl_verdict verdict;

	sk_X509_push(chain, cert);
	sk_X509_push(chain, ca->cert);
	if (ca == &middle || ca == &twin)
		sk_X509_push(chain, root.cert);
	verdict = crls_check(c, chain, path);
	sk_X509_free(chain);
	X509_free(cert);
	return verdict;
}

/* --- files ------------------------------------------------------------------------------------------------- */

static void count(void *arg, const struct crl_info *i)
{
	++*(unsigned *)arg;
}

static char *pem_block(const char *kind, const unsigned char *data, long len)
{
	BIO *bio = BIO_new(BIO_s_mem());

	PEM_write_bio(bio, kind, "", data, len);
	return mint_text(bio);
}

static void test_files(void **state)
{
	char *leaf = leaf_pem(&middle), *one = mint_crl_pem(&middle, &(struct mint_crl){.revoked = {leaf}});
	char *other = mint_crl_pem(&root, &(struct mint_crl){0}), *two = mint_join(strdup(one), other);
	char *beside = mint_join(mint_join(strdup("# of our CA\n"), root.pem), one);
	char *cut = strndup(one, strlen(one) / 2), *damaged = strdup(one), *second = mint_join(strdup(other), cut);
	char *no_list = pem_block(PEM_STRING_X509_CRL, (const unsigned char *)"hello", 5), *many = strdup(other),
	     *long_;
	const struct {
		const char *name, *text;
		int err;
		unsigned lists;
		const char *why;
	} rows[] = {
		{"empty", "", 0, 0, NULL},
		{"blank", " \n\t\n", 0, 0, NULL},
		{"one", one, 0, 1, NULL},
		{"two", two, 0, 2, NULL},
		{"text and a certificate beside it", beside, 0, 1, NULL},
		{"a certificate alone", root.pem, 0, 0, NULL},
		{"text", "hello", -EINVAL, 0, "it has no PEM block and is not a revocation list"},
		{"cut", cut, -EINVAL, 0, "cut or damaged after 0"},
		{"the second one cut", second, -EINVAL, 0, "cut or damaged after 1"},
		{"damaged", damaged, -EINVAL, 0, "block 1 of the PEM text is not a revocation list"},
		{"another thing in its block", no_list, -EINVAL, 0, "block 1 of the PEM text"},
		{"too many", many, -E2BIG, 0, "more than 256 revocation lists"},
		{"too long", long_ = malloc(CRL_TEXT_MAX + 2), -E2BIG, 0, "more than 16 MiB"},
	};

	memset(long_, ' ', CRL_TEXT_MAX + 1);
	long_[CRL_TEXT_MAX + 1] = '\0';
	memset(strchr(damaged, '\n') + 1, 'A', 60);
	many = realloc(many, (CRL_LISTS_MAX + 1) * strlen(other) + 1);
	for (unsigned i = 0; i <= CRL_LISTS_MAX; i++)
		strcpy(many + i * strlen(other), other);
	for (size_t i = 0; i < COUNT(rows); i++) {
		const char *text = strstr(rows[i].name, "many") ? many : rows[i].text;
		struct crls *c = crls_new();
		char why[CRL_WHY_MAX] = "";
		unsigned n = 0;
		int e = crls_load(c, text, strlen(text), why);

		crls_each(c, count, &n);
		if (e != rows[i].err || n != rows[i].lists || (rows[i].why && !strstr(why, rows[i].why)))
			fail_msg("%s: %d, %u lists: %s", rows[i].name, e, n, why);
		/* What is wrong changes nothing. */
		load(c, two);
		n = 0;
		e = crls_load(c, text, strlen(text), why);
		crls_each(c, count, &n);
		if (n != (e ? 2 : rows[i].lists))
			fail_msg("%s, after two: %u lists", rows[i].name, n);
		crls_free(c);
	}
	free(leaf);
	free(one);
	free(other);
	free(two);
	free(beside);
	free(cut);
	free(damaged);
	free(second);
	free(no_list);
	free(many);
	free(long_);
}

static void test_der(void **state)
{
	char *leaf = leaf_pem(&middle), why[CRL_WHY_MAX];
	X509_CRL *crl = mint_crl(&middle, &(struct mint_crl){.revoked = {leaf}});
	unsigned char *der = NULL;
	int len = i2d_X509_CRL(crl, &der);
	struct crls *c = crls_new();
	struct crl_path *path;

	assert_int_equal(crls_load(c, der, (size_t)len, why), 0);
	assert_int_equal(ask(c, leaf, &middle, &path), CRL_REVOKED);
	assert_int_equal(crls_load(c, der, (size_t)len - 1, why), -EINVAL);
	der = OPENSSL_realloc(der, (size_t)len + 1);
	der[len] = '\n';
	assert_int_equal(crls_load(c, der, (size_t)len + 1, why), -EINVAL);
	OPENSSL_free(der);
	X509_CRL_free(crl);
	crls_free(c);
	free(leaf);
}

static void check_info(void *arg, const struct crl_info *i)
{
	++*(unsigned *)arg;
	assert_string_equal(i->issuer, "CN=middle");
	assert_string_equal(i->number, "4711");
	assert_int_equal(i->entries, 1);
	assert_in_range(time(NULL) - i->last_update, 3600, 3610);
	assert_in_range(i->next_update - time(NULL), 3590, 3600);
}

static void test_info(void **state)
{
	char *leaf = leaf_pem(&middle);
	struct crls *c = crls_new();
	unsigned calls = 0;

	load_one(c, &middle, &(struct mint_crl){.revoked = {leaf}, .number = 4711});
	crls_each(c, check_info, &calls);
	assert_int_equal(calls, 1);
	crls_free(c);
	free(leaf);
}

/* --- verdicts ---------------------------------------------------------------------------------------------- */

enum who { NOBODY, LEAF, MIDDLE, ROOT };

static const struct verdict_row {
	const char *name;
	struct {
		const struct mint_ca *of;
		enum who revoked;
		struct mint_crl more;
	} list[2];
	enum crl_verdict want;
} verdicts[] = {
	{"no list", {{0}}, CRL_GOOD},
	{"a list of nobody", {{&middle, NOBODY, {{0}}}}, CRL_GOOD},
	{"the leaf, by its issuer", {{&middle, LEAF, {{0}}}}, CRL_REVOKED},
	{"the intermediate, by the root", {{&root, MIDDLE, {{0}}}}, CRL_REVOKED},
	{"the leaf's number, by the root", {{&root, LEAF, {{0}}}}, CRL_GOOD},
	{"the root, by itself", {{&root, ROOT, {{0}}}}, CRL_GOOD},
	{"by a stranger", {{&stranger, LEAF, {{0}}}}, CRL_GOOD},
	{"out of date", {{&middle, LEAF, {.from = -7200, .to = -3600}}}, CRL_REVOKED},
	{"not yet in date", {{&middle, LEAF, {.from = 3600, .to = 7200}}}, CRL_REVOKED},
	{"without a next update", {{&middle, LEAF, {.to = -1}}}, CRL_REVOKED},
	{"with a reason", {{&middle, LEAF, {.reason = CRL_REASON_KEY_COMPROMISE}}}, CRL_REVOKED},
	{"taken off the list again", {{&middle, LEAF, {.reason = CRL_REASON_REMOVE_FROM_CRL}}}, CRL_GOOD},
	{"the second of two lists", {{&root, NOBODY, {{0}}}, {&middle, LEAF, {{0}}}}, CRL_REVOKED},
	{"one of two lists of an issuer", {{&middle, NOBODY, {{0}}}, {&middle, LEAF, {{0}}}}, CRL_REVOKED},
	{"the other of them", {{&middle, LEAF, {{0}}}, {&middle, NOBODY, {{0}}}}, CRL_REVOKED},
	{"without a key identifier", {{&middle, LEAF, {.no_akid = true}}}, CRL_REVOKED},
	{"of another key of the same name", {{&twin, LEAF, {{0}}}}, CRL_GOOD},
	{"of another key that says nothing of itself", {{&twin, LEAF, {.no_akid = true}}}, CRL_FORGED},
	{"with a stranger's signature", {{&middle, LEAF, {.signer = &stranger}}}, CRL_FORGED},
	{"the same, of nobody", {{&middle, NOBODY, {.signer = &stranger}}}, CRL_FORGED},
	{"the same, beside a good one of nobody",
	 {{&middle, LEAF, {.signer = &stranger}}, {&middle, NOBODY, {{0}}}},
	 CRL_GOOD},
	{"the same, beside a good one",
	 {{&middle, NOBODY, {.signer = &stranger}}, {&middle, LEAF, {{0}}}},
	 CRL_REVOKED},
	{"the root's with a stranger's signature", {{&root, NOBODY, {.signer = &stranger}}}, CRL_FORGED},
};

static void test_verdicts(void **state)
{
	char *leaf = leaf_pem(&middle);
	const char *const whose[] = {[LEAF] = leaf, [MIDDLE] = middle.pem, [ROOT] = root.pem};

	for (size_t i = 0; i < COUNT(verdicts); i++) {
		const struct verdict_row *row = &verdicts[i];
		struct crls *fresh = crls_new(), *old = crls_new();
		struct crl_path *path, *before;
		enum crl_verdict got;
		char *text = strdup("");

		for (unsigned k = 0; k < 2 && row->list[k].of; k++) {
			struct mint_crl want = row->list[k].more;
			char *pem;

			want.revoked[0] = whose[row->list[k].revoked];
			pem = mint_crl_pem(row->list[k].of, &want);
			text = mint_join(text, pem);
			free(pem);
		}
		load(fresh, text);
		got = ask(fresh, leaf, &middle, &path);
		if (got != row->want || !path != (got != CRL_GOOD))
			fail_msg("%s: verdict %d", row->name, got);
		assert_false(crl_path_revoked(path));
		/* The same for who was let in before; a list that nobody has signed ends nothing. */
		assert_int_equal(ask(old, leaf, &middle, &before), CRL_GOOD);
		load(old, text);
		if (crl_path_revoked(before) != (row->want == CRL_REVOKED))
			fail_msg("%s: a connection that exists", row->name);
		crl_path_free(path);
		crl_path_free(before);
		crls_free(fresh);
		crls_free(old);
		free(text);
	}
	free(leaf);
}

static void test_anchors(void **state)
{
	struct crls *c = crls_new();
	struct crl_path *path;
	STACK_OF(X509) *chain = sk_X509_new_null();

	load_one(c, &root, &(struct mint_crl){.revoked = {root.pem}});
	sk_X509_push(chain, root.cert);
	assert_int_equal(crls_check(c, chain, &path), CRL_GOOD);
	assert_null(path);
	assert_false(crl_path_revoked(path));
	sk_X509_free(chain);
	crls_free(c);
}

/* --- connections that exist -------------------------------------------------------------------------------- */

static void test_followed(void **state)
{
	char *a = leaf_pem(&middle), *b = leaf_pem(&middle), *direct = leaf_pem(&root), why[CRL_WHY_MAX];
	struct crls *c = crls_new();
	struct crl_path *pa, *pb, *pd;

	assert_int_equal(ask(c, a, &middle, &pa), CRL_GOOD);
	assert_int_equal(ask(c, b, &middle, &pb), CRL_GOOD);
	assert_int_equal(ask(c, direct, &root, &pd), CRL_GOOD);
	load_one(c, &middle, &(struct mint_crl){.revoked = {a}});
	assert_true(crl_path_revoked(pa));
	assert_true(crl_path_revoked(pa)); /* it stays so */
	assert_false(crl_path_revoked(pb));
	assert_false(crl_path_revoked(pd));
	assert_int_equal(crls_load(c, "garbage", 7, why), -EINVAL);
	assert_true(crl_path_revoked(pa));
	assert_false(crl_path_revoked(pb));
	/* An intermediate goes with all below it, and with nobody beside. */
	load_one(c, &root, &(struct mint_crl){.revoked = {middle.pem}});
	assert_true(crl_path_revoked(pb));
	assert_false(crl_path_revoked(pd));
	load(c, "");
	assert_false(crl_path_revoked(pb));
	crl_path_free(pa);
	crl_path_free(pb);
	crl_path_free(pd);
	crls_free(c);
	free(a);
	free(b);
	free(direct);
}

/* A serial number longer than is kept: judged, but not followed. */
static void test_long_serial(void **state)
{
	static const struct {
		unsigned len;
		enum crl_verdict want;
	} rows[] = {{1, CRL_GOOD}, {20, CRL_GOOD}, {CRL_SERIAL_MAX, CRL_GOOD}, {CRL_SERIAL_MAX + 1, CRL_UNFOLLOWED}};

	for (size_t i = 0; i < COUNT(rows); i++) {
		EVP_PKEY *key = EVP_EC_gen("P-256");
		X509 *cert = mint_blank(key, NULL, 0, 0);
		unsigned char serial[CRL_SERIAL_MAX + 1];
		struct crls *c = crls_new();
		struct crl_path *path;
		char *pem;

		memset(serial, 0x7e, sizeof serial);
		ASN1_STRING_set(X509_get_serialNumber(cert), serial, (int)rows[i].len);
		X509_set_issuer_name(cert, X509_get_subject_name(middle.cert));
		X509_sign(cert, middle.key, EVP_sha256());
		pem = mint_cert_pem(cert);
		assert_int_equal(ask(c, pem, &middle, &path), rows[i].want);
		load_one(c, &middle, &(struct mint_crl){.revoked = {pem}});
		assert_int_equal(crl_path_revoked(path), rows[i].want == CRL_GOOD);
		crl_path_free(path);
		assert_int_equal(ask(c, pem, &middle, &path), CRL_REVOKED);
		crls_free(c);
		free(pem);
		X509_free(cert);
		EVP_PKEY_free(key);
	}
}

/* More issuers than there are places: those beyond are judged and not followed, until others have gone. */
static void test_many_issuers(void **state)
{
	static struct crl_path *paths[CRL_ISSUERS_MAX];
	struct crls *c = crls_new();
	struct crl_path *path;
	char *leaf = leaf_pem(&middle);
	X509 *cert = mint_read(leaf);
	EVP_PKEY *key = EVP_EC_gen("P-256");

	for (unsigned i = 0; i <= CRL_ISSUERS_MAX; i++) {
		X509 *issuer = mint_blank(key, "many", 0, 0);
		STACK_OF(X509) *chain = sk_X509_new_null();
		enum crl_verdict want = i < CRL_ISSUERS_MAX ? CRL_GOOD : CRL_UNFOLLOWED;

		X509_set_issuer_name(issuer, X509_get_subject_name(issuer));
		X509_sign(issuer, key, EVP_sha256());
		sk_X509_push(chain, cert);
		sk_X509_push(chain, issuer);
		assert_int_equal(crls_check(c, chain, i < CRL_ISSUERS_MAX ? &paths[i] : &path), want);
		if (i == CRL_ISSUERS_MAX) {
			assert_null(path);
			crl_path_free(paths[7]);
			assert_int_equal(crls_check(c, chain, &paths[7]), CRL_GOOD);
		}
		sk_X509_free(chain);
		X509_free(issuer);
	}
	load_one(c, &middle, &(struct mint_crl){.revoked = {leaf}});
	for (unsigned i = 0; i < CRL_ISSUERS_MAX; i++) {
		assert_false(crl_path_revoked(paths[i]));
		crl_path_free(paths[i]);
	}
	crls_free(c);
	EVP_PKEY_free(key);
	X509_free(cert);
	free(leaf);
}

/* Handshakes on other threads while lists come and go: whoever was good by lists that name him is told so later. */
static struct {
	struct crls *lists;
	char *leaf;
	bool stop;
	unsigned refused, ended;
} race;

static void *shake(void *arg)
{
	while (!__atomic_load_n(&race.stop, __ATOMIC_ACQUIRE)) {
		struct crl_path *path;

		if (ask(race.lists, race.leaf, &middle, &path) == CRL_REVOKED)
			__atomic_add_fetch(&race.refused, 1, __ATOMIC_RELAXED);
		else if (crl_path_revoked(path))
			__atomic_add_fetch(&race.ended, 1, __ATOMIC_RELAXED);
		crl_path_free(path);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct crl_path *path;
	pthread_t t[3];
	char *with, *without = mint_crl_pem(&middle, &(struct mint_crl){0});

	race.lists = crls_new();
	race.leaf = leaf_pem(&middle);
	with = mint_crl_pem(&middle, &(struct mint_crl){.revoked = {race.leaf}});
	for (unsigned i = 0; i < COUNT(t); i++)
		pthread_create(&t[i], NULL, shake, NULL);
	for (unsigned i = 0; i < 300 || !__atomic_load_n(&race.refused, __ATOMIC_RELAXED); i++) {
		load(race.lists, without);
		assert_int_equal(ask(race.lists, race.leaf, &middle, &path), CRL_GOOD);
		load(race.lists, with);
		assert_true(crl_path_revoked(path));
		crl_path_free(path);
	}
	__atomic_store_n(&race.stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < COUNT(t); i++)
		pthread_join(t[i], NULL);
	crls_free(race.lists);
	free(race.leaf);
	free(with);
	free(without);
}

static int setup(void **state)
{
	root = mint_ca("root", NULL);
	middle = mint_ca("middle", &root);
	twin = mint_ca("middle", &root);
	stranger = mint_ca("stranger", NULL);
	return 0;
}

static int teardown(void **state)
{
	mint_ca_free(&root);
	mint_ca_free(&middle);
	mint_ca_free(&twin);
	mint_ca_free(&stranger);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_files),	    cmocka_unit_test(test_der),
		cmocka_unit_test(test_info),	    cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_anchors),	    cmocka_unit_test(test_followed),
		cmocka_unit_test(test_long_serial), cmocka_unit_test(test_many_issuers),
		cmocka_unit_test(test_threads),
	};

	return cmocka_run_group_tests_name("crl", tests, setup, teardown);
}
