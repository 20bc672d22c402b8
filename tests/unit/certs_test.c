/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the certificate manager against a scripted CA (what it is asked for, and when) and the embedded one. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "control/ca_embedded.h"
#include "control/certs.h"
#include "tls_mint.h"

#define ALICE "spiffe://cluster.local/ns/shop/sa/alice"
#define BOB   "spiffe://cluster.local/ns/shop/sa/bob"

/* A CA that counts and can be told to fail; certificates come from an embedded one. */
static struct scripted {
	struct ca ca;
	struct ca *inner;
	struct loop *loop;
	unsigned fetches, cancels, most, now, fail; /* fail: how many of the next fetches fail */
	bool silent;				    /* never answers */
	const char *instead;			    /* signs for this identity */
	char order[64];				    /* last letter of each identity asked for */
} ca;

struct ca_fetch { /* the scripted CA's own */
	struct msg msg;
	struct ca_fetch *inner;
	ca_done *done;
	void *arg;
	bool cancelled;
};

static void fetch_fails(struct loop *l, struct msg *m)
{
	struct ca_fetch *f = container_of(m, struct ca_fetch, msg);

	if (!f->cancelled) {
		ca.now--;
		f->done(f->arg, NULL, "told to fail");
	}
	free(f);
}

static void fetch_done(void *arg, struct ca_cert *cert, const char *why)
{
	struct ca_fetch *f = arg;

	ca.now--;
	f->done(f->arg, cert, why);
	free(f);
}

static struct ca_fetch *scripted_fetch(struct ca *c, const char *spiffe, ca_done *done, void *arg)
{
	struct ca_fetch *f = calloc(1, sizeof *f);

	f->done = done;
	f->arg = arg;
	if (ca.fetches < sizeof ca.order - 1)
		ca.order[ca.fetches] = spiffe[strlen(spiffe) - 1];
	ca.fetches++;
	if (++ca.now > ca.most)
		ca.most = ca.now;
	if (ca.silent)
		return f;
	if (ca.fail) {
		ca.fail--;
		loop_post(ca.loop, &f->msg, fetch_fails);
	} else {
		f->inner = ca.inner->fetch(ca.inner, ca.instead ? ca.instead : spiffe, fetch_done, f);
	}
	return f;
}

static void scripted_cancel(struct ca_fetch *f)
{
	ca.cancels++;
	ca.now--;
	f->cancelled = true;
	if (f->inner)
		ca.inner->cancel(f->inner);
	if (f->inner || ca.silent)
		free(f);
}

struct rig {
	struct loop *loop;
	struct certs *certs;
	unsigned answers, wanted;
	struct timer stop;
};

struct asked {
	struct cert_request r;
	struct rig *rig;
	bool good;
	char why[CERT_WHY_MAX];
};

static void stop_now(struct timer *t)
{
	loop_stop(container_of(t, struct rig, stop)->loop);
}

/* Runs the loop for a while; a loop stops once, so each test uses one run or builds a new rig. */
static void rig_run(struct rig *g, unsigned ms)
{
	timer_set(g->loop, &g->stop, ms, stop_now);
	loop_run(g->loop);
}

/* Until so many answers have come, or for some seconds. */
static void rig_run_until(struct rig *g, unsigned answers)
{
	g->wanted = answers;
	rig_run(g, 5000);
	timer_cancel(&g->stop);
}

static void asked_done(struct cert_request *r)
{
	struct asked *a = container_of(r, struct asked, r);

	if (++a->rig->answers == a->rig->wanted)
		loop_stop(a->rig->loop);
	a->good = r->id && !strcmp(tls_id_spiffe(r->id), r->spiffe);
	snprintf(a->why, sizeof a->why, "%s", r->why);
	tls_id_unref(r->id);
	r->id = NULL;
}

static void ask(struct rig *g, struct asked *a, const char *spiffe, enum cert_priority p)
{
	memset(a, 0, sizeof *a);
	a->r.loop = g->loop;
	a->r.done = asked_done;
	a->rig = g;
	snprintf(a->r.spiffe, sizeof a->r.spiffe, "%s", spiffe);
	g->certs->ops->request(g->certs, &a->r, p);
}

static void rig_make(struct rig *g, const struct ca_embedded_options *inner, const struct certs_options *o)
{
	struct certs_options options = *o;
	char why[CA_WHY_MAX];

	memset(g, 0, sizeof *g);
	memset(&ca, 0, sizeof ca);
	g->loop = loop_new();
	ca.loop = g->loop;
	ca.inner = ca_embedded_new(g->loop, inner, why);
	ca.ca = (struct ca){.fetch = scripted_fetch, .cancel = scripted_cancel};
	assert_non_null(ca.inner);
	options.ca = &ca.ca;
	g->certs = certs_new(g->loop, &options);
	assert_non_null(g->certs);
}

static void rig_new(struct rig *g, long ttl_s, unsigned refresh_ms, unsigned retry_ms, unsigned demand_ms)
{
	rig_make(g, &(struct ca_embedded_options){.ttl_s = ttl_s},
		 &(struct certs_options){.refresh_min_ms = refresh_ms, .retry_ms = retry_ms, .demand_ms = demand_ms});
}

/* Into a new file; `path` is mkstemp()'s. */
static void put_file(char *path, const char *text)
{
	int fd = mkstemp(path);

	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static void rig_free(struct rig *g)
{
	certs_free(g->certs);
	loop_free(g->loop);
	ca_free(ca.inner);
}

static void test_one_fetch_for_many(void **state)
{
	struct rig g;
	struct asked a[50], b;
	struct tls_id *id;

	rig_new(&g, 3600, 0, 0, 0);
	for (unsigned i = 0; i < 50; i++)
		ask(&g, &a[i], ALICE, CERT_REALTIME);
	ask(&g, &b, BOB, CERT_REALTIME);
	assert_null(g.certs->ops->cached(g.certs, ALICE));
	rig_run(&g, 100);
	assert_int_equal(g.answers, 51);
	for (unsigned i = 0; i < 50; i++)
		assert_true(a[i].good);
	assert_true(b.good);
	assert_int_equal(ca.fetches, 2);
	id = g.certs->ops->cached(g.certs, ALICE);
	assert_non_null(id);
	assert_string_equal(tls_id_spiffe(id), ALICE);
	tls_id_unref(id);
	rig_free(&g);
}

/* Eight at a time, urgent ones first, and an identity that becomes urgent moves up. */
static void test_order(void **state)
{
	struct rig g;
	struct asked a[26];
	char spiffe[] = "spiffe://td/ns/n/sa/A";

	rig_new(&g, 3600, 0, 0, 0);
	for (unsigned i = 0; i < 20; i++) {
		spiffe[sizeof spiffe - 2] = (char)('a' + i);
		ask(&g, &a[i], spiffe, i < 10 ? CERT_BACKGROUND : i < 15 ? CERT_WARMUP : CERT_REALTIME);
	}
	ask(&g, &a[20], "spiffe://td/ns/n/sa/j", CERT_REALTIME);
	rig_run_until(&g, 21);
	assert_int_equal(g.answers, 21);
	assert_int_equal(ca.fetches, 20);
	assert_int_equal(ca.most, CERTS_FETCHES_MAX);
	assert_string_equal(ca.order, "pqrstjklmnoabcdefghi");
	rig_free(&g);
}

static struct {
	struct rig *g;
	struct asked *a;
	struct timer later;
} second;

static void ask_again(struct timer *t)
{
	ask(second.g, second.a, ALICE, CERT_REALTIME);
}

/* A failure answers those who waited and nobody else: the next caller gets a fresh attempt, whatever the backoff
 * (60 s here). */
static void test_failure_does_not_stick(void **state)
{
	struct rig g;
	struct asked a, b;

	rig_new(&g, 3600, 0, 60000, 80);
	ca.fail = 1;
	ask(&g, &a, ALICE, CERT_REALTIME);
	second.g = &g;
	second.a = &b;
	timer_set(g.loop, &second.later, 40, ask_again);
	rig_run(&g, 300);
	assert_int_equal(g.answers, 2);
	assert_false(a.good);
	assert_true(b.good);
	assert_int_equal(ca.fetches, 2);
	rig_free(&g);
}

static void test_background_retry(void **state)
{
	struct rig g;
	struct asked a;
	struct tls_id *id;

	rig_new(&g, 3600, 0, 30, 0);
	ca.fail = 2;
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 300);
	assert_int_equal(ca.fetches, 3);
	assert_false(a.good);
	id = g.certs->ops->cached(g.certs, ALICE);
	assert_non_null(id);
	tls_id_unref(id);
	rig_free(&g);
}

/* A lifetime of 2 s is renewed at half of what remains, and the one in use stays while renewals fail. */
static void test_renewal(void **state)
{
	struct rig g;
	struct asked a;
	struct tls_id *id;

	rig_new(&g, 2, 50, 20, 0);
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 1800);
	assert_true(a.good);
	assert_in_range(ca.fetches, 2, 6);
	id = g.certs->ops->cached(g.certs, ALICE);
	assert_non_null(id);
	tls_id_unref(id);
	rig_free(&g);
}

static void state_of(void *arg, const struct certs_entry *e)
{
	*(struct certs_entry *)arg = *e;
}

/* While the CA refuses, the one in use stays, and is told as available, until it ends. */
static void test_kept_while_the_ca_refuses(void **state)
{
	struct rig g;
	struct asked a;
	struct certs_entry seen;
	struct certs_summary s;
	struct tls_id *id;

	rig_new(&g, 3, 50, 60, 0);
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run_until(&g, 1);
	assert_true(a.good);
	ca.fail = 1000;
	rig_run(&g, 1900);
	assert_true(ca.fetches >= 2);
	id = g.certs->ops->cached(g.certs, ALICE);
	assert_non_null(id);
	certs_dump(g.certs, state_of, &seen);
	assert_int_equal(seen.state, CERTS_AVAILABLE);
	assert_string_equal(seen.why, "told to fail");
	certs_summarize(g.certs, &s);
	assert_true(s.identities == 1 && !s.without && s.first_end == tls_id_not_after(id));
	tls_id_unref(id);
	rig_run(&g, 1500);
	assert_null(g.certs->ops->cached(g.certs, ALICE));
	certs_dump(g.certs, state_of, &seen);
	assert_int_equal(seen.state, CERTS_UNAVAILABLE);
	certs_summarize(g.certs, &s);
	assert_true(s.identities == 1 && s.without == 1 && !s.first_end);
	rig_free(&g);
}

/* 40 ms after the first failure, then 80, 160, 320, 640, each a fifth more or less. */
static void test_retries_become_rare(void **state)
{
	struct rig g;
	struct asked a;

	rig_new(&g, 3600, 0, 40, 60000);
	ca.fail = 1000;
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 1000);
	assert_in_range(ca.fetches, 4, 6);
	rig_free(&g);
}

static void test_summary(void **state)
{
	struct rig g;
	struct certs_summary s;

	rig_new(&g, 3600, 0, 60000, 0);
	certs_summarize(g.certs, &s);
	assert_true(!s.identities && !s.without && !s.first_end);
	ca.fail = 1;
	g.certs->ops->prefetch(g.certs, BOB);
	g.certs->ops->prefetch(g.certs, ALICE);
	rig_run(&g, 100);
	certs_summarize(g.certs, &s);
	assert_true(s.identities == 2 && s.without == 1);
	assert_in_range(s.first_end - time(NULL), 3590, 3600);
	rig_free(&g);
}

/* However short the lifetime, one identity is not asked for more often than the minimum. */
static void test_renewal_is_bounded(void **state)
{
	struct rig g;
	struct asked a;

	rig_new(&g, 1, 200, 0, 0);
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 900);
	assert_in_range(ca.fetches, 1, 5);
	rig_free(&g);
}

static void test_wrong_identity(void **state)
{
	struct rig g;
	struct asked a;

	rig_new(&g, 3600, 0, 0, 0);
	ca.instead = BOB;
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 60);
	assert_false(a.good);
	assert_non_null(strstr(a.why, "another identity"));
	assert_null(g.certs->ops->cached(g.certs, ALICE));
	rig_free(&g);
}

static void count_entry(void *arg, const struct certs_entry *e)
{
	++*(unsigned *)arg;
}

/* Alice of any trust domain, and nobody whose name is longer or shorter. */
#define ALICE_ELSEWHERE "spiffe://other.test/ns/shop/sa/alice"
#define NOT_ALICE	"spiffe://cluster.local/ns/shop/sa/malice"
#define NOT_SHOP	"spiffe://cluster.local/ns/bookshop/sa/alice"

static void forget_alice(struct timer *t)
{
	second.g->certs->ops->forget(second.g->certs, "shop", "alice");
}

static void test_forget(void **state)
{
	struct rig g;
	struct asked a, b;
	unsigned n = 0;

	rig_new(&g, 3600, 0, 0, 0);
	ca.silent = true;
	ask(&g, &a, ALICE, CERT_REALTIME);
	ask(&g, &b, BOB, CERT_REALTIME);
	certs_prefetch(g.certs, ALICE_ELSEWHERE, CERT_WARMUP);
	certs_prefetch(g.certs, NOT_ALICE, CERT_WARMUP);
	certs_prefetch(g.certs, NOT_SHOP, CERT_WARMUP);
	second.g = &g;
	timer_set(g.loop, &second.later, 20, forget_alice);
	rig_run(&g, 60);
	assert_int_equal(ca.cancels, 2);
	assert_int_equal(g.answers, 1);
	assert_string_equal(a.why, "the identity is no longer needed");
	certs_dump(g.certs, count_entry, &n);
	assert_int_equal(n, 3);
	rig_free(&g);
}

static void test_shutdown_answers(void **state)
{
	struct rig g;
	struct asked a;

	rig_new(&g, 3600, 0, 0, 0);
	ca.silent = true;
	ask(&g, &a, ALICE, CERT_REALTIME);
	certs_prefetch(g.certs, BOB, CERT_WARMUP);
	rig_run(&g, 20);
	rig_free(&g);
	assert_int_equal(g.answers, 1);
	assert_string_equal(a.why, "shutting down");
	assert_int_equal(ca.cancels, 2);
}

static void check_entry(void *arg, const struct certs_entry *e)
{
	unsigned *seen = arg;

	if (!strcmp(e->spiffe, ALICE)) {
		assert_int_equal(e->state, CERTS_AVAILABLE);
		assert_non_null(e->id);
	} else {
		assert_int_equal(e->state, CERTS_UNAVAILABLE);
		assert_string_equal(e->why, "told to fail");
	}
	++*seen;
}

static void check_x509(void *arg, const struct certs_x509 *x)
{
	assert_true(strlen(x->serial) > 30);
	assert_true(x->not_before < time(NULL) && x->not_after > time(NULL));
	assert_true(!strncmp(x->pem, "-----BEGIN", 10));
	++*(unsigned *)arg;
}

static void test_dump(void **state)
{
	struct rig g;
	struct asked a, b;
	unsigned n = 0, certs = 0;
	struct tls_id *id;

	rig_new(&g, 3600, 0, 0, 0);
	ca.fail = 1;
	ask(&g, &b, BOB, CERT_REALTIME);
	ask(&g, &a, ALICE, CERT_REALTIME);
	rig_run(&g, 60);
	certs_dump(g.certs, check_entry, &n);
	assert_int_equal(n, 2);
	id = g.certs->ops->cached(g.certs, ALICE);
	certs_x509_each(tls_id_chain(id), check_x509, &certs);
	assert_int_equal(certs, 1);
	certs_x509_each("-----BEGIN CERTIFICATE-----\nbad\n-----END CERTIFICATE-----\n", check_x509, &certs);
	assert_int_equal(certs, 1);
	tls_id_unref(id);
	rig_free(&g);
}

/* Other threads read and forget while the control thread renews. */
static struct {
	struct certs *certs;
	bool stop;
	unsigned hits;
} threads;

static void *reader(void *arg)
{
	while (!__atomic_load_n(&threads.stop, __ATOMIC_ACQUIRE)) {
		struct tls_id *id = threads.certs->ops->cached(threads.certs, ALICE);

		if (id)
			__atomic_add_fetch(&threads.hits, 1, __ATOMIC_RELAXED);
		else
			certs_prefetch(threads.certs, ALICE, CERT_REALTIME);
		tls_id_unref(id);
		threads.certs->ops->forget(threads.certs, "shop", "bob");
		certs_prefetch(threads.certs, BOB, CERT_WARMUP);
		nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct rig g;
	pthread_t t[3];

	rig_new(&g, 3600, 20, 0, 0);
	threads.certs = g.certs;
	threads.stop = false;
	for (unsigned i = 0; i < 3; i++)
		pthread_create(&t[i], NULL, reader, NULL);
	rig_run(&g, 300);
	__atomic_store_n(&threads.stop, true, __ATOMIC_RELEASE);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
	assert_true(threads.hits > 0);
	rig_free(&g);
}

/* A certificate of our own that is on a list is replaced, and that one only once. */
static void test_revoked(void **state)
{
	char cert[] = "/tmp/culvert-cert-XXXXXX", key[] = "/tmp/culvert-key-XXXXXX", why[CRL_WHY_MAX], *pem, *list;
	struct mint_ca mint = mint_ca("root", NULL);
	struct crls *lists = crls_new();
	struct rig g;
	struct asked a, b;
	struct tls_id *id, *next;

	put_file(cert, mint.pem);
	put_file(key, pem = mint_key_pem(mint.key));
	rig_make(&g, &(struct ca_embedded_options){.cert_path = cert, .key_path = key},
		 &(struct certs_options){.lists = lists});
	ask(&g, &a, ALICE, CERT_REALTIME);
	ask(&g, &b, BOB, CERT_REALTIME);
	rig_run_until(&g, 2);
	id = g.certs->ops->cached(g.certs, ALICE);
	list = mint_crl_pem(&mint, &(struct mint_crl){.revoked = {tls_id_chain(id)}});
	assert_int_equal(crls_load(lists, list, strlen(list), why), 0);
	certs_lists_changed(g.certs);
	rig_run(&g, 60);
	certs_lists_changed(g.certs);
	rig_run(&g, 60);
	assert_int_equal(ca.fetches, 3);
	next = g.certs->ops->cached(g.certs, ALICE);
	assert_non_null(next);
	assert_true(tls_id_revoked(id));
	assert_false(tls_id_revoked(next));
	/* So is the one that came. */
	free(list);
	list = mint_crl_pem(&mint, &(struct mint_crl){.revoked = {tls_id_chain(id), tls_id_chain(next)}});
	assert_int_equal(crls_load(lists, list, strlen(list), why), 0);
	certs_lists_changed(g.certs);
	rig_run(&g, 60);
	assert_int_equal(ca.fetches, 4);
	tls_id_unref(id);
	tls_id_unref(next);
	rig_free(&g);
	crls_free(lists);
	free(list);
	free(pem);
	mint_ca_free(&mint);
	unlink(cert);
	unlink(key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_fetch_for_many),
		cmocka_unit_test(test_order),
		cmocka_unit_test(test_failure_does_not_stick),
		cmocka_unit_test(test_forget),
		cmocka_unit_test(test_background_retry),
		cmocka_unit_test(test_renewal),
		cmocka_unit_test(test_kept_while_the_ca_refuses),
		cmocka_unit_test(test_retries_become_rare),
		cmocka_unit_test(test_summary),
		cmocka_unit_test(test_renewal_is_bounded),
		cmocka_unit_test(test_wrong_identity),
		cmocka_unit_test(test_shutdown_answers),
		cmocka_unit_test(test_dump),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_revoked),
	};
	return cmocka_run_group_tests_name("certs", tests, NULL, NULL);
}
