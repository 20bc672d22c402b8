/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's table: who shares a tunnel, how many there may be, and who goes for one more. Tunnels themselves are only
 * noted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "data/limits.h"
#include "data/pool.c"
#include "data/pool_conn.c"
#include "data/pool_share.c"
#include "one_turn.h"

enum { PODS = 6, PLACES = 10, ASKS_MAX = 64, CONNS_MAX = 4 };

struct h2 {
	void *owner;
	uint32_t peer_max;
	unsigned streams;
	bool greeted, shut;
};

static struct data_options options;
static struct worker w;
static struct pod pods[PODS];
static struct pool_conn *last[PODS][PLACES]; /* made from a pod to a port */
static unsigned n_made, reached[LIMITS];
static bool slow; /* tunnels come up when they are told to */

/* --- what the pool calls ------------------------------------------------------------------------------------ */

struct pod *pod_ref(struct pod *p)
{
	p->refs++;
	return p;
}

void pod_unref(struct pod *p)
{
	p->refs--;
}

void worker_tunnels(struct worker *at, int n)
{
}

bool revoke_due(enum traffic_reporter reporter, struct crl_path *path)
{
	return false;
}

void limit_reached(enum limit l)
{
	reached[l]++;
}

unsigned limit_of_files(unsigned max, unsigned of, unsigned workers, unsigned least)
{
	return CONNS_MAX;
}

int dial_start(struct dial *d, struct worker *at, struct pod *p, const struct endpoint *to,
	       void (*done)(struct dial *d, int fd, int err))
{
	return 0;
}

void dial_cancel(struct dial *d)
{
}

int client_init(struct client *c, struct worker *at, const struct client_ops *ops, const struct route_peers *expect)
{
	*c = (struct client){.w = at, .ops = ops, .expect = strdup(expect->id[0])};
	return 0;
}

bool client_expects(const struct client *c, const struct route_peers *expect)
{
	return !strcmp(c->expect, expect->id[0]);
}

static void bring_up(struct pool_conn *c)
{
	c->client.h2 = calloc(1, sizeof *c->client.h2);
	assert_non_null(c->client.h2);
	c->client.h2->owner = &c->client;
	c->client.ops->up(&c->client);
}

void client_start(struct client *client, const char *self)
{
	struct pool_conn *c = container_of(client, struct pool_conn, client);

	n_made++;
	last[c->share->pod - pods][c->to.port] = c;
	if (!slow)
		bring_up(c);
}

void client_connected(struct client *c, int fd)
{
}

void client_stop(struct client *c)
{
}

void client_free(struct client *c)
{
	free(c->expect);
	free(c->h2);
}

void h2_free(struct h2 *h)
{
	free(h);
}

void *h2_owner(const struct h2 *h)
{
	return h->owner;
}

void h2_shutdown(struct h2 *h, bool graceful)
{
	h->shut = true;
}

void h2_cut(struct h2 *h)
{
}

bool h2_is_cut(const struct h2 *h)
{
	return false;
}

unsigned h2_streams(const struct h2 *h)
{
	return h->streams;
}

bool h2_greeted(const struct h2 *h)
{
	return h->greeted;
}

uint32_t h2_peer_streams(const struct h2 *h)
{
	return h->peer_max;
}

bool h2_open_for_streams(struct h2 *h, unsigned max)
{
	return !h->shut && h->streams < max && (!h->greeted || h->streams < h->peer_max);
}

/* --- the rig ------------------------------------------------------------------------------------------------ */

static struct ask {
	struct pool_request r;
	struct h2 *h;
	bool failed;
} asks[ASKS_MAX];
static unsigned n_asks;

static void done(struct pool_request *r, struct h2 *h, enum traffic_flag flag, const char *why)
{
	struct ask *a = container_of(r, struct ask, r);

	a->h = h;
	a->failed = !h;
	if (h)
		h->streams++;
}

static struct ask *acquire(unsigned pod, uint16_t port, const char *self, const char *expect)
{
	struct ask *a = &asks[n_asks++];
	struct rstr *id = rstr_new(self);
	const struct route route = {.next_hop.port = port, .expect = {{(char *)expect}, 1}};

	assert_in_range(n_asks, 1, ASKS_MAX);
	memset(a, 0, sizeof *a);
	pool_acquire(w.pool, &a->r, &pods[pod], id, &route, done);
	rstr_unref(id);
	return a;
}

static void begin(void)
{
	memset(pods, 0, sizeof pods);
	n_asks = n_made = 0;
	slow = false;
	memset(reached, 0, sizeof reached);
	options = (struct data_options){.workers = 1, .pool_streams = 100, .pool_idle_ms = 60000};
	w.o = &options;
	w.pool = pool_new(&w);
	assert_non_null(w.pool);
}

static void finish(void)
{
	pool_free(w.pool);
	for (unsigned i = 0; i < PODS; i++)
		assert_int_equal(pods[i].refs, 0);
}

/* --- tests -------------------------------------------------------------------------------------------------- */

static void test_who_shares(void **state)
{
	static const struct {
		const char *name;
		unsigned pod;
		uint16_t port;
		const char *self, *expect;
		bool shares;
	} rows[] = {
		{"the same", 0, 1, "me", "you", true},
		{"another pod", 1, 1, "me", "you", false},
		{"another next hop", 0, 2, "me", "you", false},
		{"another peer", 0, 1, "me", "them", false},
		{"the pod has another identity now", 0, 1, "the new me", "you", false},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct pool_conn *first;

		begin();
		acquire(0, 1, "me", "you");
		first = last[0][1];
		acquire(rows[i].pod, rows[i].port, rows[i].self, rows[i].expect);
		if ((n_made == 1) != rows[i].shares || pool_has_sibling(first))
			fail_msg("%s", rows[i].name);
		finish();
	}
}

static bool step(const char *what)
{
	unsigned pod = (unsigned)(what[1] - 'a'), port = (unsigned)(what[2] - '0');
	struct pool_conn *c = last[pod][port];

	switch (*what) {
	case '+':
		return acquire(pod, (uint16_t)port, "me", "you")->h;
	case '!':
		return acquire(pod, (uint16_t)port, "me", "you")->failed;
	case '-':
		if (!--c->client.h2->streams)
			h2_ops.idle(c->client.h2);
		return true;
	case '~':
		c->client.h2->streams = 0;
		h2_ops.closed(c->client.h2, "closed");
		one_turn(w.loop);
		return true;
	case '=':
		return !c->client.h2->shut;
	default:
		return c->client.h2->shut;
	}
}

/* Four tunnels of a worker, two of a pod. "+a1": pod a has a stream to 1; "!a1": it cannot; "-a1": that stream ends; "~a1": its
 * tunnel has ended; "=a1": its tunnel stays; "xa1": it is told to end. */
static void test_who_goes(void **state)
{
	static const struct {
		const char *name, *steps;
		unsigned of_worker, of_pod; /* how often the limit was reached */
	} rows[] = {
		{"there is room", "+a1 +a2 +b1 +c1 =a1 =a2 =b1", 0, 0},
		{"one without streams", "+a1 -a1 +b1 +c1 +d1 +e1 xa1 =b1 =c1 =d1", 1, 0},
		{"the one that is so longest", "+a1 +b1 +c1 +d1 -c1 -b1 +e1 xc1 =b1 +f1 xb1", 2, 0},
		{"not one that is used again", "+a1 -a1 +b1 -b1 +a1 +c1 +d1 +e1 xb1 =a1", 1, 0},
		{"all have streams", "+a1 +b1 +c1 +d1 !e1 =a1 =b1 =c1 =d1", 1, 0},
		{"of those that leave none goes twice", "+a1 -a1 +b1 +c1 +d1 +e1 !f1 ~a1 !f1 ~b1 +f1", 3, 0},
		{"a pod's own", "+b1 -b1 +a1 -a1 +a2 -a2 +a3 xa1 =a2 =b1", 0, 1},
		{"a pod with streams on all of them", "+b1 -b1 +a1 +a2 !a3 =b1 +b2", 0, 1},
		{"as many again may linger", "+a1 -a1 +a2 -a2 +a3 -a3 +a4 -a4 !a5 ~a1 +a5 xa3", 0, 4},
		{"one whose end came is no longer there", "+a1 -a1 +a2 ~a1 +a3 =a2", 0, 0},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char steps[256], *save = NULL;

		begin();
		snprintf(steps, sizeof steps, "%s", rows[i].steps);
		for (char *s = strtok_r(steps, " ", &save); s; s = strtok_r(NULL, " ", &save))
			if (!step(s))
				fail_msg("%s: %s", rows[i].name, s);
		if (reached[LIMIT_TUNNELS] != rows[i].of_worker || reached[LIMIT_TUNNELS_OF_POD] != rows[i].of_pod)
			fail_msg("%s: %u and %u", rows[i].name, reached[LIMIT_TUNNELS], reached[LIMIT_TUNNELS_OF_POD]);
		finish();
	}
}

/* A tunnel is full; for a crowd others are made, whose peers have said nothing yet. */
static void test_streams_of_who_is_silent(void **state)
{
	static const struct {
		const char *name;
		unsigned ours;		    /* streams of a tunnel */
		uint32_t said;		    /* by the peer of the full one */
		unsigned crowd, made, then; /* tunnels; and for one more when the last of them is up */
	} rows[] = {
		{"as many as the other has said", 100, 4, 8, 2, 1},
		{"as many as we may", 4, 100, 8, 2, 1},
		{"who takes none says nothing about the next", 100, 0, 8, 1, 0},
	};

	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		begin();
		options.pool_streams = rows[i].ours;
		acquire(0, 1, "me", "you");
		last[0][1]->client.h2->greeted = true;
		last[0][1]->client.h2->peer_max = rows[i].said;
		last[0][1]->client.h2->streams = rows[i].said < rows[i].ours ? rows[i].said : rows[i].ours;
		w.pool->conns_max = 100;
		slow = true;
		for (unsigned k = 0; k < rows[i].crowd; k++)
			acquire(0, 1, "me", "you");
		if (n_made != 1 + rows[i].made)
			fail_msg("%s: %u tunnels", rows[i].name, n_made - 1);
		bring_up(last[0][1]);
		acquire(0, 1, "me", "you");
		if (n_made != 1 + rows[i].made + rows[i].then)
			fail_msg("%s: %u tunnels in the end", rows[i].name, n_made - 1);
		finish();
	}
}

static int setup(void **state)
{
	w.loop = loop_new();
	return !w.loop;
}

static int teardown(void **state)
{
	loop_free(w.loop);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_who_shares),
		cmocka_unit_test(test_who_goes),
		cmocka_unit_test(test_streams_of_who_is_silent),
	};

	return cmocka_run_group_tests_name("pool", tests, setup, teardown);
}
