/* SPDX-License-Identifier: Apache-2.0 */
/* The xDS client against a stand-in for istiod that keeps to the protocol, and against one that does not: what is asked, what
 * is answered, what stays when the stream is gone, and that it always comes back. */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/metrics.h"
#include "control/xds_internal.h"
#include "fake/istiod_server.h"
#include "xds_rig.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

enum { WAIT_MS = 20000, LOOK_MS = 8 };

#define MESH(more)                                                                                     \
	"workloads:\n"                                                                                 \
	"- {uid: a, name: a, namespace: ns, workloadIps: [10.0.0.1], services: {ns/s.ns: {80: 80}}}\n" \
	"- {uid: b, name: b, namespace: ns, workloadIps: [10.0.0.2]}\n" more                           \
	"services: [{name: s, namespace: ns, hostname: s.ns, vips: [/10.1.0.1], ports: {80: 80}}]\n"   \
	"policies: [{name: p, namespace: ns, scope: Namespace, action: Deny, rules: [[]]}]\n"
static const char mesh[] = MESH(""), more[] = MESH("- {uid: c, name: c, namespace: ns, workloadIps: [10.0.0.3]}\n"),
		  less[] = "workloads: [{uid: b, name: b, namespace: ns, workloadIps: [10.0.0.2]}]";

/* --- a client with its istiod --------------------------------------------------------------------------- */

struct rig {
	struct loop *loop;
	struct store *store;
	struct xds *xds;
	struct istiod *istiod;
	struct timer look;
	uint64_t until;
	bool (*done)(struct rig *r);
	bool late;
	unsigned warm, want; /* want: of the condition */
	const char *text;    /* the same */
	char address[64];
};

static void look(struct timer *t)
{
	struct rig *r = container_of(t, struct rig, look);
	bool done;

	pthread_mutex_lock(&r->istiod->lock);
	done = r->done(r);
	pthread_mutex_unlock(&r->istiod->lock);
	r->late = !done && loop_now(r->loop) > r->until;
	if (done || r->late)
		loop_stop(r->loop);
	else
		timer_set(r->loop, t, LOOK_MS, look);
}

/* Runs the client until the condition holds. */
static bool runs_until(struct rig *r, bool (*done)(struct rig *r), unsigned ms)
{
	r->done = done;
	r->until = loop_now(r->loop) + ms;
	timer_set(r->loop, &r->look, 0, look);
	loop_run(r->loop);
	return !r->late;
}

static void explain(struct rig *r, const char *what)
{
	struct store_counts n;
	struct xds_status s;

	store_count(r->store, &n);
	xds_status(r->xds, &s);
	fail_msg("%s: %u workloads, %u services, %u policies; %u streams, %u requests; %s; refused: %s", what,
		 n.workloads, n.services, n.policies, r->istiod->streams, r->istiod->n_seen, s.why, s.refused);
}

#define UNTIL(r, done, what)                       \
	do {                                       \
		if (!runs_until(r, done, WAIT_MS)) \
			explain(r, what);          \
	} while (0)

static void told_warm(void *arg)
{
	((struct rig *)arg)->warm++;
}

static void rig_start(struct rig *r, bool tls, const struct xds_options *more_options)
{
	static const char *const names[] = {"localhost"};
	struct xds_metadata node[] = {{"NODE_NAME", "node-1", false}};
	struct xds_options o = *more_options;
	char why[XDS_WHY_MAX];
	unsigned bad;
	uint8_t *p;
	size_t len;

	memset(r, 0, sizeof *r);
	r->loop = loop_new();
	r->store = store_new("node-1");
	r->istiod = istiod_new("127.0.0.1", 0, tls, NULL, names, 1);
	snprintf(r->address, sizeof r->address, tls ? "https://localhost:%u" : "http://127.0.0.1:%u",
		 r->istiod->server->port);
	assert_int_equal(xds_node_encode("ztunnel~me", node, 1, &p, &len, &bad), 0);
	if (o.server.address) /* "PORT" stands for istiod's */
		snprintf(r->address, sizeof r->address, o.server.address, r->istiod->server->port);
	o.server.address = r->address;
	if (!o.server.root)
		o.server.root = ca_root_pem(r->istiod->root);
	o.cluster_id = "one";
	o.node = p;
	o.node_len = len;
	o.warm = told_warm;
	o.arg = r;
	r->xds = xds_new(r->loop, r->store, &o, why);
	if (!r->xds)
		fail_msg("%s", why);
	free(p);
}

static void rig_stop(struct rig *r)
{
	xds_free(r->xds);
	istiod_free(r->istiod);
	loop_free(r->loop);
	store_free(r->store);
}

static void load(struct rig *r, const char *text)
{
	char why[LOCAL_REASON_MAX];

	assert_int_equal(istiod_load(r->istiod, NULL, text, why), 0);
}

static void set_mute(struct rig *r, bool mute)
{
	pthread_mutex_lock(&r->istiod->lock);
	r->istiod->mute = mute;
	pthread_mutex_unlock(&r->istiod->lock);
}

/* What changes is not told but to the next stream. */
static void load_quietly(struct rig *r, const char *text)
{
	set_mute(r, true);
	load(r, text);
	set_mute(r, false);
}

/* --- conditions: with istiod's lock held ---------------------------------------------------------------- */

static bool is_warm(struct rig *r)
{
	return r->warm;
}

static unsigned answers(const struct rig *r)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->istiod->n_seen; i++)
		n += r->istiod->seen[i].ack || r->istiod->seen[i].nack;
	return n;
}

static bool answered(struct rig *r)
{
	return answers(r) >= r->want;
}

static bool streams(struct rig *r)
{
	return r->istiod->streams >= r->want;
}

static bool knows(struct rig *r)
{
	return store_workload_by_uid(r->store, r->text);
}

static bool lacks(struct rig *r)
{
	return !knows(r);
}

static bool trouble(struct rig *r)
{
	struct xds_status s;

	xds_status(r->xds, &s);
	return strstr(s.why, r->text);
}

static bool never_true(struct rig *r)
{
	return false;
}

static const struct istiod_seen *last_seen(const struct rig *r)
{
	return &r->istiod->seen[r->istiod->n_seen - 1];
}

/* The first request of a type on the last stream. */
static const struct istiod_seen *opening(const struct rig *r, enum xds_type t)
{
	for (unsigned i = r->istiod->n_seen; i--;)
		if (r->istiod->seen[i].first && r->istiod->seen[i].type == t)
			return &r->istiod->seen[i];
	return NULL;
}

static void counts_are(struct rig *r, unsigned workloads, unsigned services, unsigned policies)
{
	struct store_counts n;

	store_count(r->store, &n);
	if (n.workloads != workloads || n.services != services || n.policies != policies)
		explain(r, "counts");
}

static double metric(const char *name, const char *label)
{
	size_t len;
	char *text = metrics_text(&len, false), line[256], *at;
	double v = 0;

	snprintf(line, sizeof line, "\n%s_total{%s} ", name, label);
	at = strstr(text, line);
	if (at)
		v = atof(at + strlen(line));
	free(text);
	return v;
}

/* --- the first stream ----------------------------------------------------------------------------------- */

static void test_first(void **state)
{
	static const struct grpc_header extra[] = {{"x-test", "more"}};
	struct rig r;
	struct xds_status s;
	const struct istiod_seen *seen;

	rig_start(&r, true, &(struct xds_options){.token = "secret", .headers = extra, .n_headers = 1});
	r.istiod->want_token = "secret";
	load(&r, mesh);
	UNTIL(&r, is_warm, "warm");
	counts_are(&r, 2, 1, 1);
	r.want = 2;
	UNTIL(&r, answered, "two answers");
	xds_status(r.xds, &s);
	assert_true(s.connected && s.warm && !*s.why && !*s.refused && s.since);
	assert_string_equal(r.istiod->token, "Bearer secret");
	assert_string_equal(r.istiod->clusterid, "one");
	assert_string_equal(r.istiod->extra, "more");
	seen = r.istiod->seen;
	assert_true(seen[0].first && seen[0].type == XDS_ADDRESS && seen[1].first && seen[1].type == XDS_AUTHORIZATION);
	for (unsigned i = 0; i < 2; i++) {
		assert_string_equal(seen[i].node, "ztunnel~me");
		assert_int_equal(seen[i].versions + seen[i].subscribes + seen[i].unsubscribes, 0);
		assert_string_equal(seen[i].nonce, "");
	}
	for (unsigned i = 2; i < 4; i++) { /* an answer has a type and a nonce, no more */
		assert_true(seen[i].ack && !seen[i].first && !*seen[i].node);
		assert_int_equal(seen[i].versions + seen[i].subscribes + seen[i].unsubscribes, 0);
	}
	assert_string_equal(seen[2].nonce, "1");
	assert_string_equal(seen[3].nonce, "2");
	assert_int_equal(r.warm, 1);
	rig_stop(&r);
}

static void test_changes(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	UNTIL(&r, is_warm, "warm");
	load(&r, more);
	r.text = "c";
	UNTIL(&r, knows, "a third workload");
	counts_are(&r, 3, 1, 1);
	load(&r, less);
	r.text = "a";
	UNTIL(&r, lacks, "one less");
	r.want = 5;
	UNTIL(&r, answered, "five answers"); /* two at first, one for more, two for less */
	counts_are(&r, 1, 0, 0);
	rig_stop(&r);
}

/* An empty mesh is a mesh: its answers have nothing in them. */
static void test_empty(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	UNTIL(&r, is_warm, "warm");
	r.want = 2;
	UNTIL(&r, answered, "answers to empty responses");
	counts_are(&r, 0, 0, 0);
	rig_stop(&r);
}

/* --- refusals ------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *type, *resource;
	size_t len; /* zero bytes of content; 0: one that is bad */
	const char *error;
} refused[] = {
	{"a bad workload", "type.googleapis.com/istio.workload.Address", "x", 0, "x: it cannot be decoded"},
	{"a bad policy", "type.googleapis.com/istio.security.Authorization", "ns/x", 0, "ns/x: it cannot be decoded"},
	{"10 MB", "type.googleapis.com/istio.workload.Address", "x", 10 << 20, "x: it is too long"},
	{"another type", "type.googleapis.com/envoy.config.cluster.v3.Cluster", "x", 0,
	 "resources of this type were not asked for"},
	{"no type", "", "x", 0, "resources of this type were not asked for"},
};

static void test_refused(void **state)
{
	for (size_t i = 0; i < COUNT(refused); i++) {
		struct rig r;
		struct xds_status s;
		char *bytes = calloc(1, refused[i].len + 1);

		bytes[0] = refused[i].len ? 0 : -1;
		rig_start(&r, false, &(struct xds_options){0});
		load(&r, mesh);
		r.want = 2;
		UNTIL(&r, answered, refused[i].name);
		istiod_raw(r.istiod, refused[i].type, refused[i].resource, bytes, refused[i].len ? refused[i].len : 1);
		r.want = 3;
		UNTIL(&r, answered, refused[i].name);
		xds_status(r.xds, &s);
		if (!last_seen(&r)->nack || strcmp(last_seen(&r)->error, refused[i].error) != 0 ||
		    strcmp(last_seen(&r)->nonce, "3") != 0 || strcmp(s.refused, refused[i].error) != 0)
			explain(&r, refused[i].name);
		load(&r, more); /* life goes on, on the same stream */
		r.text = "c";
		UNTIL(&r, knows, refused[i].name);
		assert_int_equal(r.istiod->streams, 1);
		free(bytes);
		rig_stop(&r);
	}
}

/* What is refused is told until it is corrected, or gone; what is good beside it changes nothing. */
static bool refusals_are(struct rig *r)
{
	struct xds_status s;

	xds_status(r->xds, &s);
	return !strcmp(s.refused, r->text) && s.closed == r->want;
}

static void want_refusals(struct rig *r, const char *text, unsigned closed)
{
	r->text = text;
	r->want = closed;
	UNTIL(r, refusals_are, text);
}

#define BAD "it cannot be decoded"

static void test_refusals_end(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	UNTIL(&r, is_warm, "warm");
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "x", "\377", 1);
	want_refusals(&r, "x: " BAD, 0);
	istiod_raw(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "ns/p", "\377", 1);
	want_refusals(&r, "x: " BAD "; ns/p: " BAD, 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "c", "\377", 1);
	want_refusals(&r, "x: " BAD "; ns/p: " BAD "; c: " BAD, 1);
	load(&r, more); /* c, as it should be */
	want_refusals(&r, "x: " BAD "; ns/p: " BAD, 1);
	istiod_removed(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "x"); /* of another type */
	istiod_removed(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "ns/p");
	want_refusals(&r, "x: " BAD, 0);
	istiod_removed(r.istiod, xds_type_urls[XDS_ADDRESS], "x");
	want_refusals(&r, "", 0);
	rig_stop(&r);
}

/* A policy that is closed stays so while istiod is away; what was left out comes again, or is gone. */
static void test_refusals_after_reconnect(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	UNTIL(&r, is_warm, "warm");
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "x", "\377", 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "ns/p", "\377", 1);
	want_refusals(&r, "x: " BAD "; ns/p: " BAD, 1);
	set_mute(&r, true);
	istiod_cut(r.istiod);
	r.want = 2;
	UNTIL(&r, streams, "a second stream");
	want_refusals(&r, "x: " BAD "; ns/p: " BAD, 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "y", "\377", 1);
	want_refusals(&r, "ns/p: " BAD "; y: " BAD, 1);
	set_mute(&r, false);
	istiod_cut(r.istiod);
	want_refusals(&r, "", 0); /* the policy comes as it should be */
	rig_stop(&r);
}

/* However many are refused, some are shown, and memory has a bound. */
static void test_refusals_are_bounded(void **state)
{
	struct xds_refused all;
	char text[XDS_WHY_MAX], name[16];

	xds_refused_init(&all);
	for (unsigned i = 0; i < XDS_REFUSED_MAX + 8; i++) {
		snprintf(name, sizeof name, "n%u", i);
		xds_refused_judged(&all, XDS_AUTHORIZATION, name, "0123456789012345678901234567890123456789", i % 2);
	}
	assert_int_equal(all.n, XDS_REFUSED_MAX);
	assert_int_equal(xds_refused_say(&all, text), XDS_REFUSED_MAX / 2);
	assert_non_null(strstr(text, "; and 21 more"));
	for (unsigned i = 0; i < XDS_REFUSED_MAX + 8; i++) {
		snprintf(name, sizeof name, "n%u", i);
		assert_int_equal(all.n, i < 8 ? XDS_REFUSED_MAX : XDS_REFUSED_MAX + 8 - i);
		xds_refused_judged(&all, XDS_ADDRESS, name, NULL, false);
		xds_refused_judged(&all, XDS_AUTHORIZATION, name, NULL, false);
	}
	assert_int_equal(xds_refused_say(&all, text), 0);
	assert_string_equal(text, "");
	for (unsigned i = 0; i < 4; i++)
		xds_refused_judged(&all, i % 2, i < 2 ? "a" : "b", "line", i < 2);
	xds_refused_restart(&all, 1u << XDS_ADDRESS);
	assert_int_equal(all.n, 1); /* the closed one of the other type */
	xds_refused_clear(&all);
	assert_int_equal(all.n, 0);
}

/* A first response of which something was left out is not the whole mesh, however often such come; as with ztunnel, a later one
 * of the type that has no fault is: one bad object does not keep a node from starting for ever. */
static void test_not_warm(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	set_mute(&r, true);
	r.want = 1;
	UNTIL(&r, streams, "a stream");
	istiod_raw(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "ns/x", "\377", 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "x", "\377", 1);
	r.want = 2;
	UNTIL(&r, answered, "two refusals");
	assert_int_equal(r.warm, 0);
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "y", "\377", 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_AUTHORIZATION], "ns/y", "\377", 1);
	r.want = 4;
	UNTIL(&r, answered, "two more refusals");
	assert_int_equal(r.warm, 0);
	istiod_removed(r.istiod, xds_type_urls[XDS_ADDRESS], "x");
	UNTIL(&r, is_warm, "warm"); /* the policy, closed, was complete */
	rig_stop(&r);
}

static const struct {
	const char *name, *nonce;
} nonces[] = {
	{"a long one", "0123456789012345678901234567890123456789012345678901234567890"},
	{"one with signs", "a b\"c\\d"},
	{"not ASCII", "\303\244"},
};

static void test_nonces(void **state)
{
	for (size_t i = 0; i < COUNT(nonces); i++) {
		struct rig r;

		rig_start(&r, false, &(struct xds_options){0});
		strcpy(r.istiod->nonce_text, nonces[i].nonce);
		r.want = 1;
		UNTIL(&r, answered, nonces[i].name);
		assert_string_equal(r.istiod->seen[2].nonce, nonces[i].nonce);
		rig_stop(&r);
	}
}

/* --- reconnects ----------------------------------------------------------------------------------------- */

static void test_claims(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	r.want = 2;
	UNTIL(&r, answered, "warm");
	load_quietly(&r, more);
	istiod_cut(r.istiod);
	r.text = "c";
	UNTIL(&r, knows, "what came meanwhile");
	r.want = 4;
	UNTIL(&r, answered, "answers");
	assert_int_equal(opening(&r, XDS_ADDRESS)->versions, 3);
	assert_string_equal(opening(&r, XDS_ADDRESS)->name, "a");
	assert_string_equal(opening(&r, XDS_ADDRESS)->version, fake_find(&r.istiod->mesh, XDS_ADDRESS, "a")->version);
	assert_int_equal(opening(&r, XDS_AUTHORIZATION)->versions, 1);
	assert_string_equal(opening(&r, XDS_AUTHORIZATION)->name, "ns/p");
	assert_string_equal(opening(&r, XDS_AUTHORIZATION)->version, "");
	load_quietly(&r, less);
	istiod_cut(r.istiod);
	r.text = "a";
	UNTIL(&r, lacks, "what went meanwhile");
	r.want = 6;
	UNTIL(&r, answered, "answers");
	counts_are(&r, 1, 0, 0);
	assert_int_equal(r.warm, 1);
	rig_stop(&r);
}

/* What was refused is not claimed; what it was before stays, with its version. */
static void test_claims_after_refusal(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	r.want = 2;
	UNTIL(&r, answered, "warm");
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "a", "\377", 1);
	istiod_raw(r.istiod, xds_type_urls[XDS_ADDRESS], "z", "\377", 1);
	r.want = 4;
	UNTIL(&r, answered, "two refusals");
	istiod_cut(r.istiod);
	r.want = 6;
	UNTIL(&r, answered, "a new stream");
	assert_int_equal(opening(&r, XDS_ADDRESS)->versions, 3);
	assert_string_equal(opening(&r, XDS_ADDRESS)->version, fake_find(&r.istiod->mesh, XDS_ADDRESS, "a")->version);
	counts_are(&r, 2, 1, 1);
	rig_stop(&r);
}

/* Workloads with names so long that istiod would not read a request with all of them. */
static char *long_names(unsigned n)
{
	size_t room = n * 4200ul + 64, at = 0;
	char *text = malloc(room), uid[4001];

	memset(uid, 'u', sizeof uid - 1);
	uid[sizeof uid - 1] = '\0';
	at += (size_t)snprintf(text, room, "workloads:\n");
	for (unsigned i = 0; i < n; i++)
		at += (size_t)snprintf(text + at, room - at,
				       "- {uid: %s%u, name: n, namespace: ns, workloadIps: [10.0.%u.%u]}\n", uid, i,
				       i / 256, i % 256);
	return text;
}

static void resync(struct rig *r, const char *next, unsigned versions, unsigned workloads)
{
	load_quietly(r, next);
	r->want = answers(r) + 2;
	istiod_cut(r->istiod);
	UNTIL(r, answered, "a new stream");
	assert_int_equal(opening(r, XDS_ADDRESS)->versions, versions);
	counts_are(r, workloads, 0, 0);
}

static void test_too_many_claims(void **state)
{
	char *many = long_names(800), *few = long_names(20), *another = long_names(21);
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, many);
	UNTIL(&r, is_warm, "warm");
	counts_are(&r, 800, 0, 0);
	resync(&r, few, 0, 20); /* all of it is sent again, and what is not in it is gone */
	r.want = answers(&r) + 1;
	load(&r, another); /* from then on only changes */
	UNTIL(&r, answered, "a change");
	counts_are(&r, 21, 0, 0);
	resync(&r, few, 21, 20);
	free(many);
	free(another);
	free(few);
	rig_stop(&r);
}

/* An istiod that takes less than istiod does: the whole mesh again, not the same request for ever. */
static void test_claims_refused(void **state)
{
	char *many = long_names(40);
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, many);
	UNTIL(&r, is_warm, "warm");
	r.istiod->request_max = 64 << 10;
	resync(&r, less, 0, 1);
	free(many);
	rig_stop(&r);
}

/* --- many changes, many ends ---------------------------------------------------------------------------- */

enum { MANY = 10000, ROUNDS = 12 };

/* Workloads of which each round has others, and changes some. */
static char *round_text(unsigned round)
{
	size_t room = MANY * 160ul + 64, at = 0;
	char *text = malloc(room);

	at += (size_t)snprintf(text, room, "workloads:\n");
	for (unsigned i = 0; i < MANY; i++)
		if ((i * 2654435761u >> 16) % 8 != round % 8)
			at += (size_t)snprintf(
				text + at, room - at,
				"- {uid: u%u, name: n%u, namespace: ns, workloadIps: [10.0.%u.%u], workloadType: "
				"pod, canonicalRevision: v%u}\n",
				i, i, i / 256, i % 256, i % 5 == round % 5 ? round : 0);
	return text;
}

static bool same_mesh(struct rig *r)
{
	struct store_counts n;

	store_count(r->store, &n);
	return n.workloads == r->istiod->mesh.of[XDS_ADDRESS].n;
}

/* Whatever was cut in the middle of what, in the end both have the same. */
static void test_coherent(void **state)
{
	struct store *want;
	struct rig r;
	char *text = NULL, *a, *b;

	rig_start(&r, false, &(struct xds_options){0});
	for (unsigned round = 0; round < ROUNDS; round++) {
		free(text);
		text = round_text(round);
		load(&r, text);
		if (round % 3 == 1)
			istiod_cut(r.istiod);
		if (round % 3 == 2)
			runs_until(&r, same_mesh, 5 * round);
	}
	UNTIL(&r, same_mesh, "the same mesh");
	want = rig_load(text);
	a = rig_dump(want);
	for (unsigned tries = 0; tries < 100 && (b = rig_dump(r.store)) && strcmp(a, b) != 0; tries++) {
		free(b); /* what is on its way has to arrive */
		runs_until(&r, never_true, 50);
	}
	assert_string_equal(a, b);
	free(a);
	free(b);
	free(text);
	store_free(want);
	rig_stop(&r);
}

/* --- everything that ends a stream ---------------------------------------------------------------------- */

static void say(struct rig *r, const char *bytes, size_t len)
{
	istiod_message(r->istiod, bytes, len);
}

static void f_cut(struct rig *r)
{
	istiod_cut(r->istiod);
}

static void f_goaway(struct rig *r)
{
	istiod_goaway(r->istiod);
	istiod_end(r->istiod, 14, "transport is closing");
}

static void f_clean(struct rig *r)
{
	istiod_end(r->istiod, 0, "");
}

static void f_error(struct rig *r)
{
	istiod_end(r->istiod, 13, "oh%20no");
}

static void f_garbage(struct rig *r)
{
	say(r, "\377\377", 2);
}

static void f_nonce(struct rig *r)
{
	memset(r->istiod->nonce_text, 'n', XDS_NONCE_MAX + 1);
	istiod_raw(r->istiod, xds_type_urls[XDS_ADDRESS], "x", "", 0);
}

static void f_long(struct rig *r)
{
	char *big = calloc(1, 3 << 20);

	say(r, big, 3 << 20);
	free(big);
}

/* Half a response arrives, then nothing or the end. */
static void half(struct rig *r, size_t *after)
{
	char *big = calloc(1, 1 << 20);

	pthread_mutex_lock(&r->istiod->lock);
	*after = 512 << 10;
	pthread_mutex_unlock(&r->istiod->lock);
	istiod_raw(r->istiod, xds_type_urls[XDS_ADDRESS], "x", big, 1 << 20);
	free(big);
}

static void f_cut_half(struct rig *r)
{
	half(r, &r->istiod->cut_after);
}

static void f_drip(struct rig *r)
{
	pthread_mutex_lock(&r->istiod->lock);
	r->istiod->drip = 1;
	pthread_mutex_unlock(&r->istiod->lock);
	istiod_raw(r->istiod, xds_type_urls[XDS_ADDRESS], "x", "0123456789012345678901234567890123456789", 40);
}

static const struct {
	const char *name;
	void (*fault)(struct rig *r);
	const char *reason, *why;
} faults[] = {
	{"cut", f_cut, "Error", "UNAVAILABLE"},
	{"cut in the middle of a message", f_cut_half, "Error", "UNAVAILABLE"},
	{"GOAWAY, then the end", f_goaway, "Reconnect", "UNAVAILABLE: transport is closing"},
	{"ended in peace", f_clean, "Complete", "closed by istiod"},
	{"ended with an error", f_error, "Error", "INTERNAL: oh no"},
	{"a message that is none", f_garbage, "Error", "cannot be decoded"},
	{"a nonce that is too long", f_nonce, "Error", "cannot be decoded"},
	{"a message that is too long", f_long, "Error", "a message that is too long"},
	{"a message that does not end", f_drip, "Reconnect", "a message did not end in time"},
};

static void test_faults(void **state)
{
	for (size_t i = 0; i < COUNT(faults); i++) {
		struct rig r;
		char label[64];
		double before;

		rig_start(&r, false,
			  &(struct xds_options){.message_max = 2 << 20,
						.message_ms = faults[i].fault == f_drip ? 100 : 0});
		load(&r, mesh);
		r.want = 2;
		UNTIL(&r, answered, faults[i].name);
		snprintf(label, sizeof label, "reason=\"%s\"", faults[i].reason);
		before = metric("istio_xds_connection_terminations", label);
		faults[i].fault(&r);
		r.text = faults[i].why;
		UNTIL(&r, trouble, faults[i].name);
		counts_are(&r, 2, 1, 1); /* what was there stays */
		if (metric("istio_xds_connection_terminations", label) < before + 1)
			explain(&r, faults[i].name);
		pthread_mutex_lock(&r.istiod->lock);
		r.istiod->drip = 0;
		pthread_mutex_unlock(&r.istiod->lock);
		r.want = 2;
		UNTIL(&r, streams, faults[i].name);
		load(&r, more);
		r.text = "c";
		UNTIL(&r, knows, faults[i].name);
		assert_int_equal(r.warm, 1);
		rig_stop(&r);
	}
}

/* A GOAWAY lets the stream go on: what is under way arrives. */
static void test_goaway_half(void **state)
{
	char *many = long_names(200);
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	r.istiod->goaway_after = 100 << 10;
	load(&r, many);
	UNTIL(&r, is_warm, "warm");
	counts_are(&r, 200, 0, 0);
	load(&r, less);
	r.text = "b";
	UNTIL(&r, knows, "a change");
	assert_int_equal(r.istiod->streams, 1);
	free(many);
	rig_stop(&r);
}

/* --- streams that do not come about --------------------------------------------------------------------- */

static void n_status(struct istiod *i)
{
	i->refuse = 14;
	strcpy(i->refuse_why, "not ready");
}

static void n_token(struct istiod *i)
{
	i->want_token = "another";
}

static void n_http(struct istiod *i)
{
	i->http_status = 503;
}

static void n_mute(struct istiod *i)
{
	i->mute = true;
}

static const struct {
	const char *name;
	bool tls;
	void (*refuse)(struct istiod *i);
	struct xds_options o;
	const char *why;
} never[] = {
	{"refused at once", false, n_status, {.token = NULL}, "UNAVAILABLE: not ready"},
	{"another token", false, n_token, {.token = "mine"}, "UNAUTHENTICATED: bad token"},
	{"no token", false, n_token, {.token = NULL}, "UNAUTHENTICATED: bad token"},
	{"a token that cannot be sent", false, NULL, {.token = "a b"}, "token: Invalid argument"},
	{"an HTTP error", false, n_http, {.token = NULL}, "HTTP status 503"},
	{"never an answer", false, n_mute, {.first_ms = 50}, "istiod does not answer"},
	{"nobody listens", false, NULL, {.server = {.address = "http://127.0.0.1:1"}}, "Connection refused"},
	{"no TLS", false, NULL, {.server = {.address = "https://127.0.0.1:%u"}}, "UNAVAILABLE"},
	{"TLS is due", true, NULL, {.server = {.address = "http://127.0.0.1:%u"}}, "UNAVAILABLE"},
	{"an unknown root", true, NULL, {.server = {.root = "SYSTEM"}}, "certificate"},
	{"no root", true, NULL, {.server = {.root = "/nonexistent"}}, "no usable root"},
	{"another name", true, NULL, {.server = {.address = "https://127.0.0.1:%u"}}, "is not for 127.0.0.1"},
	{"another name than the other one",
	 true,
	 NULL,
	 {.server = {.address = "https://127.0.0.1:%u", .alt_host = "istiod"}},
	 "is not for 127.0.0.1"},
};

static void test_never(void **state)
{
	for (size_t i = 0; i < COUNT(never); i++) {
		struct xds_status s;
		struct rig r;

		rig_start(&r, never[i].tls, &never[i].o);
		if (never[i].refuse)
			never[i].refuse(r.istiod);
		r.text = never[i].why;
		UNTIL(&r, trouble, never[i].name);
		xds_status(r.xds, &s);
		if (s.connected || r.warm)
			explain(&r, never[i].name);
		rig_stop(&r);
	}
}

/* However politely it ends a stream, istiod is not asked for everything in a loop. */
static bool too_many(struct rig *r)
{
	ISTIOD_EACH_LOCKED(r->istiod, a, if (!a->ended && a->at == a->len && a->len) ads_end(a, 0, ""))
	return r->istiod->streams > 12;
}

static void test_no_loop(void **state)
{
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	assert_false(runs_until(&r, too_many, 1000)); /* 10, 20, 40, ... ms, with half of it random */
	assert_true(r.istiod->streams >= 3);
	rig_stop(&r);
}

/* The token's file is read for each stream: Kubernetes changes it. */
static void write_token(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	fputs(text, f);
	fclose(f);
}

static void test_token_file(void **state)
{
	char path[] = "/tmp/culvert-token-XXXXXX";
	struct rig r;

	close(mkstemp(path));
	write_token(path, "first\n");
	rig_start(&r, false, &(struct xds_options){.token = path});
	r.want = 2;
	UNTIL(&r, answered, "warm");
	assert_string_equal(r.istiod->token, "Bearer first");
	write_token(path, "second\n");
	istiod_cut(r.istiod);
	r.want = 2;
	UNTIL(&r, streams, "a second stream");
	assert_string_equal(r.istiod->token, "Bearer second");
	rig_stop(&r);
	unlink(path);
}

static void test_alt_host(void **state)
{
	struct rig r;

	rig_start(&r, true,
		  &(struct xds_options){.server = {.address = "https://127.0.0.1:%u", .alt_host = "localhost"}});
	UNTIL(&r, is_warm, "warm");
	rig_stop(&r);
}

static void test_metrics(void **state)
{
	static const char address[] = "url=\"type.googleapis.com/istio.workload.Address\"";
	double messages = metric("istio_xds_message", address), bytes = metric("istio_xds_message_bytes", address);
	struct rig r;

	rig_start(&r, false, &(struct xds_options){0});
	load(&r, mesh);
	UNTIL(&r, is_warm, "warm");
	assert_true(metric("istio_xds_message", address) == messages + 1);
	assert_true(metric("istio_xds_message_bytes", address) > bytes + 50);
	rig_stop(&r);
}

/* --- on demand ------------------------------------------------------------------------------------------ */

static const char remote[] =
	"workloads:\n"
	"- {uid: mine, name: mine, namespace: ns, workloadIps: [10.0.0.1], node: node-1, services: "
	"{ns/own.ns: {80: 80}}}\n"
	"- {uid: a, name: a, namespace: ns, workloadIps: [10.0.0.2], node: other, services: "
	"{ns/s.ns: {80: 80}}}\n"
	"- {uid: b, name: b, namespace: ns, workloadIps: [10.0.0.3], node: other, services: "
	"{ns/s.ns: {80: 80}}}\n"
	"- {uid: c, name: c, namespace: ns, workloadIps: [10.0.0.4], node: other}\n"
	"services:\n"
	"- {name: s, namespace: ns, hostname: s.ns, vips: [/10.1.0.1], ports: {80: 80}}\n"
	"- {name: own, namespace: ns, hostname: own.ns, vips: [/10.1.0.2], ports: {80: 80}}\n"
	"- {name: t, namespace: ns, hostname: t.ns, vips: [/10.1.0.3], ports: {80: 80}}\n";

struct ask {
	struct demand_request r;
	unsigned done;
	bool answered;
};

static void asked(struct demand_request *r)
{
	struct ask *a = r->owner;

	a->done++;
	a->answered = r->answered;
}

static void ask(struct rig *r, struct ask *a, const char *name)
{
	struct demand *d = xds_demand(r->xds);

	*a = (struct ask){.r = {.loop = r->loop, .owner = a, .done = asked}};
	strcpy(a->r.name, name);
	d->ask(d, &a->r);
}

static struct ask the_ask;

static bool is_done(struct rig *r)
{
	return the_ask.done;
}

static bool asks(struct rig *r, const char *name)
{
	ask(r, &the_ask, name);
	UNTIL(r, is_done, name);
	return the_ask.answered;
}

static void demand_start(struct rig *r, unsigned demand_ms)
{
	rig_start(r, false, &(struct xds_options){.on_demand = true, .node_name = "node-1", .demand_ms = demand_ms});
	load(r, remote);
	UNTIL(r, is_warm, "warm");
	r->text = "mine";
	UNTIL(r, knows, "the node's pods");
}

static bool knows_own_service(struct rig *r)
{
	return store_service_exact(r->store, "ns", "own.ns");
}

static const struct {
	const char *name, *ask;
	unsigned workloads, services; /* known afterwards, beside the node's own */
} demands[] = {
	{"a pod's address", "/10.0.0.4", 1, 0},
	{"a VIP", "/10.1.0.1", 2, 1},
	{"a service's name", "ns/t.ns", 0, 1},
	{"a uid", "c", 1, 0},
	{"an address of nobody", "/10.9.9.9", 0, 0},
	{"a name of nobody", "ns/x.ns", 0, 0},
	{"no name", "", 0, 0},
};

static void test_demands(void **state)
{
	for (size_t i = 0; i < COUNT(demands); i++) {
		struct rig r;
		unsigned before;

		demand_start(&r, 0);
		UNTIL(&r, knows_own_service, "the services of the node's pods");
		counts_are(&r, 1, 1, 0);
		if (!asks(&r, demands[i].ask))
			explain(&r, demands[i].name);
		counts_are(&r, 1 + demands[i].workloads, 1 + demands[i].services, 0);
		before = r.istiod->n_seen;
		ask(&r, &the_ask, "ns/unrelated");
		UNTIL(&r, is_done, "another name");
		assert_true(r.istiod->n_seen > before);
		rig_stop(&r);
	}
}

/* The opening says: everything, and not that. */
static void test_demand_opening(void **state)
{
	struct rig r;
	const struct istiod_seen *first;

	demand_start(&r, 0);
	first = opening(&r, XDS_ADDRESS);
	assert_true(first->subscribes == 1 && first->unsubscribes == 1 && !strcmp(first->name, "*"));
	first = opening(&r, XDS_AUTHORIZATION);
	assert_int_equal(first->subscribes + first->unsubscribes, 0);
	rig_stop(&r);
}

static unsigned subscriptions(const struct rig *r, const char *name, bool ended)
{
	unsigned n = 0;

	for (unsigned i = 0; i < r->istiod->n_seen; i++)
		n += !r->istiod->seen[i].first && !strcmp(r->istiod->seen[i].name, name) &&
		     (ended ? r->istiod->seen[i].unsubscribes : r->istiod->seen[i].subscribes);
	return n;
}

/* What is no name is believed for a while: nobody asks istiod for each connection to the world outside. */
static void test_demand_nothing(void **state)
{
	struct rig r;

	demand_start(&r, 0);
	for (unsigned i = 0; i < 5; i++)
		assert_true(asks(&r, "/192.0.2.1"));
	assert_int_equal(subscriptions(&r, "/192.0.2.1", false), 1);
	rig_stop(&r);
}

/* istiod repeats nothing on a stream: what was known and has gone is subscribed to anew. */
static void test_demand_again(void **state)
{
	struct rig r;

	demand_start(&r, 0);
	assert_true(asks(&r, "/10.0.0.4"));
	istiod_removed(r.istiod, xds_type_urls[XDS_ADDRESS], "c");
	r.text = "c";
	UNTIL(&r, lacks, "it to go");
	assert_true(asks(&r, "/10.0.0.4"));
	assert_true(knows(&r));
	assert_int_equal(subscriptions(&r, "/10.0.0.4", true), 1);
	assert_int_equal(subscriptions(&r, "/10.0.0.4", false), 2);
	rig_stop(&r);
}

static void test_demand_unanswered(void **state)
{
	struct rig r;

	demand_start(&r, 50);
	set_mute(&r, true);
	assert_false(asks(&r, "/10.0.0.4"));
	set_mute(&r, false);
	assert_true(asks(&r, "/10.0.0.4")); /* given up, then asked for anew */
	r.text = "c";
	assert_true(knows(&r));
	rig_stop(&r);
}

/* Who waits when the stream ends is answered on the next one. */
static void test_demand_reconnect(void **state)
{
	struct rig r;

	demand_start(&r, 0);
	assert_true(asks(&r, "/10.1.0.1"));
	set_mute(&r, true);
	ask(&r, &the_ask, "/10.0.0.4");
	r.want = r.istiod->n_seen + 1;
	istiod_cut(r.istiod);
	set_mute(&r, false);
	UNTIL(&r, is_done, "an answer");
	assert_true(the_ask.answered);
	r.text = "c";
	assert_true(knows(&r));
	r.text = "a";
	assert_true(knows(&r)); /* what was there is claimed and stays */
	rig_stop(&r);
}

/* Nobody waits for ever. */
static void test_demand_end(void **state)
{
	struct ask all[3];
	struct rig r;

	demand_start(&r, 0);
	set_mute(&r, true);
	for (unsigned i = 0; i < COUNT(all); i++)
		ask(&r, &all[i], i ? "/10.0.0.4" : "/10.0.0.3");
	r.want = r.istiod->n_seen + 2;
	runs_until(&r, is_warm, 100);
	xds_free(r.xds);
	r.xds = NULL;
	runs_until(&r, is_warm, 100);
	for (unsigned i = 0; i < COUNT(all); i++)
		assert_true(all[i].done == 1 && !all[i].answered);
	rig_stop(&r);
}

/* However many names are wanted at once, each gets an answer, and memory has a bound. */
static unsigned many_done, many_answered;

static void one_of_many(struct demand_request *q)
{
	many_done++;
	many_answered += q->answered;
	free(q);
}

static bool all_done(struct rig *r)
{
	return many_done >= r->want;
}

static void ask_many(struct rig *r, unsigned n)
{
	struct demand *d = xds_demand(r->xds);

	many_done = many_answered = 0;
	for (unsigned i = 0; i < n; i++) {
		struct demand_request *q = calloc(1, sizeof *q);

		q->loop = r->loop;
		q->done = one_of_many;
		snprintf(q->name, sizeof q->name, "/10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
		d->ask(d, q);
	}
}

static void test_demand_many(void **state)
{
	struct rig r;

	demand_start(&r, 200);
	set_mute(&r, true);
	r.want = XDS_DEMANDS_MAX + 1000;
	ask_many(&r, r.want);
	UNTIL(&r, all_done, "all of them");
	assert_int_equal(many_answered, 0);
	rig_stop(&r);
}

/* istiod says that there is nothing of any of them. */
static void nothing_of_many(struct rig *r, unsigned n)
{
	ISTIOD_EACH(r->istiod, a, {
		struct ads_push p = ads_begin(XDS_ADDRESS);
		char *name = calloc(n, 32);

		for (unsigned i = 0; i < n; i++) {
			snprintf(name + 32ul * i, 32, "/10.%u.%u.%u", i >> 16 & 255, i >> 8 & 255, i & 255);
			ads_remove(&p, name + 32ul * i);
		}
		ads_finish(a, &p);
		free(name);
	});
}

static bool all_asked;

static void note_asked(struct loop *l, struct msg *m)
{
	all_asked = true;
}

static bool istiod_has_read(struct rig *r)
{
	return all_asked && !grpc_call_queued(r->xds->call);
}

static bool knows_t(struct rig *r)
{
	return store_service_exact(r->store, "ns", "t.ns");
}

/* Who scans the network fills the table with names of nobody: the oldest make room for the next one, also for those that a
 * pod of this node needs, which may be among them. */
static void test_demand_scan(void **state)
{
	static const char late[] =
		"- {uid: /10.0.0.0, name: late, namespace: ns, workloadIps: [10.0.0.9], node: node-1, "
		"services: {ns/t.ns: {80: 80}}}\n";
	static struct msg last;
	char mesh_later[sizeof remote + sizeof late];
	struct rig r;

	demand_start(&r, WAIT_MS);
	UNTIL(&r, knows_own_service, "the services of the node's pods");
	set_mute(&r, true);
	r.want = XDS_DEMANDS_MAX - 1; /* beside the service */
	ask_many(&r, r.want);
	loop_post(r.loop, &last, note_asked);
	UNTIL(&r, istiod_has_read, "istiod to have read it");
	nothing_of_many(&r, r.want);
	UNTIL(&r, all_done, "all of them");
	set_mute(&r, false);
	snprintf(mesh_later, sizeof mesh_later, "workloads:\n%s%s", late, remote + strlen("workloads:\n"));
	load(&r, mesh_later);
	UNTIL(&r, knows_t, "a service that a pod needs");
	assert_true(asks(&r, "/10.0.0.4"));
	r.text = "c";
	assert_true(knows(&r));
	rig_stop(&r);
}

/* --- who we are ----------------------------------------------------------------------------------------- */

static void test_node(void **state)
{
	static const struct xds_metadata all[] = {
		{"NAME", "n", false},
		{"J", "{\"a\": [1, -2.5, true, false, null, \"x\", {\"b\": {}}]}", true},
		{"NAME", "again", false},
	};
	static const struct {
		const char *name, *json;
		int err;
	} rows[] = {{"an object", "{}", 0},
		    {"a number", "1", 0},
		    {"nothing", "", -EINVAL},
		    {"not JSON", "{a}", -EINVAL},
		    {"too deep", NULL, -EINVAL}};
	Envoy__Service__Discovery__V3__Node *n;
	char deep[256] = "";
	uint8_t *p;
	size_t len;
	unsigned bad = 9;

	assert_int_equal(xds_node_encode("id", all, COUNT(all), &p, &len, &bad), 0);
	n = envoy__service__discovery__v3__node__unpack(NULL, len, p);
	assert_string_equal(n->id, "id");
	assert_int_equal(n->metadata->n_fields, 3);
	assert_string_equal(n->metadata->fields[2]->value->string_value, "again");
	assert_string_equal(n->metadata->fields[1]->value->struct_value->fields[0]->key, "a");
	assert_int_equal(n->metadata->fields[1]->value->struct_value->fields[0]->value->list_value->n_values, 7);
	assert_true(
		n->metadata->fields[1]->value->struct_value->fields[0]->value->list_value->values[1]->number_value ==
		-2.5);
	envoy__service__discovery__v3__node__free_unpacked(n, NULL);
	free(p);
	memset(deep, '[', XDS_JSON_DEPTH_MAX + 2);
	memset(deep + XDS_JSON_DEPTH_MAX + 2, ']', XDS_JSON_DEPTH_MAX + 2);
	for (size_t i = 0; i < COUNT(rows); i++) {
		const struct xds_metadata m[] = {{"A", "a", false}, {"J", rows[i].json ? rows[i].json : deep, true}};

		if (xds_node_encode("id", m, 2, &p, &len, &bad) != rows[i].err || (rows[i].err && bad != 1))
			fail_msg("%s", rows[i].name);
		if (!rows[i].err)
			free(p);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_first),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_empty),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_refusals_end),
		cmocka_unit_test(test_refusals_after_reconnect),
		cmocka_unit_test(test_refusals_are_bounded),
		cmocka_unit_test(test_not_warm),
		cmocka_unit_test(test_nonces),
		cmocka_unit_test(test_claims),
		cmocka_unit_test(test_claims_after_refusal),
		cmocka_unit_test(test_too_many_claims),
		cmocka_unit_test(test_claims_refused),
		cmocka_unit_test(test_coherent),
		cmocka_unit_test(test_faults),
		cmocka_unit_test(test_goaway_half),
		cmocka_unit_test(test_never),
		cmocka_unit_test(test_no_loop),
		cmocka_unit_test(test_token_file),
		cmocka_unit_test(test_alt_host),
		cmocka_unit_test(test_metrics),
		cmocka_unit_test(test_demands),
		cmocka_unit_test(test_demand_opening),
		cmocka_unit_test(test_demand_nothing),
		cmocka_unit_test(test_demand_again),
		cmocka_unit_test(test_demand_unanswered),
		cmocka_unit_test(test_demand_reconnect),
		cmocka_unit_test(test_demand_end),
		cmocka_unit_test(test_demand_many),
		cmocka_unit_test(test_demand_scan),
		cmocka_unit_test(test_node),
	};
	int e;

	signal(SIGPIPE, SIG_IGN);
	log_set_filter("off");
	store_thread_register();
	assert_int_equal(xds_metrics_init(), 0);
	e = cmocka_run_group_tests_name("xds", tests, NULL, NULL);
	store_thread_unregister();
	return e;
}
