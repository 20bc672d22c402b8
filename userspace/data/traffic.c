// SPDX-License-Identifier: Apache-2.0
/* Counts connections by ztunnel's label set (traffic_labels.c).
 *
 * Connections of the same kind share a series: one label set and its samples. A series is found by a hash
 * over its 27 values, which are pointers into the mesh's objects, so a connection costs one lookup and no
 * text. Series without a connection are kept at hand, the longest idle ones go first; the counts live on in
 * the registry. */
#include "data/traffic.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "base/list.h"
#include "base/monotonic.h"
#include "data/accesslog.h"
#include "data/traffic_labels.h"

enum { OPENED, CLOSED, RECEIVED, SENT, FAILED, FAMILIES };
enum { BUCKETS = 1024 };

struct series {
	struct list idle; /* while it has no connection */
	struct series *next;
	uint64_t hash;
	unsigned connections;
	struct metric *m[FAMILIES]; /* those that were needed so far; CLOSED always */
};

struct traffic {
	struct series *series;
	uint64_t opened_ms, received, sent;
};

static struct metric_family *families[FAMILIES], *lookups;
static struct metric *sockets[2], *demands_refused;

static struct {
	pthread_mutex_t lock;
	struct series *bucket[BUCKETS];
	struct list idle;
	unsigned n_idle;
} table = {.lock = PTHREAD_MUTEX_INITIALIZER, .idle = {&table.idle, &table.idle}};

/* --- series: all under the lock ------------------------------------------------------------------------- */

static void series_free(struct series *s)
{
	struct series **p = &table.bucket[s->hash % BUCKETS];

	while (*p != s)
		p = &(*p)->next;
	*p = s->next;
	list_del(&s->idle);
	for (unsigned i = 0; i < FAMILIES; i++)
		metric_put(s->m[i]);
	free(s);
}

static struct series *series_new(const struct traffic_labels *l, uint64_t hash)
{
	struct series *s = calloc(1, sizeof *s);

	if (!s)
		return NULL;
	s->m[CLOSED] = metric_get(families[CLOSED], l->value);
	if (!s->m[CLOSED]) {
		free(s);
		return NULL;
	}
	s->hash = hash;
	s->next = table.bucket[hash % BUCKETS];
	table.bucket[hash % BUCKETS] = s;
	list_init(&s->idle);
	return s;
}

static struct series *series_find(const struct traffic_labels *l, uint64_t hash)
{
	struct series *s = table.bucket[hash % BUCKETS];

	while (s && (s->hash != hash || !metric_has(s->m[CLOSED], l->value)))
		s = s->next;
	return s;
}

static struct series *series_hold(const struct traffic_facts *f, enum traffic_flag flag)
{
	struct traffic_labels l;
	struct series *s;
	uint64_t hash;

	traffic_labels_fill(&l, f, flag);
	hash = metric_hash(l.value, TRAFFIC_LABELS);
	pthread_mutex_lock(&table.lock);
	s = series_find(&l, hash);
	if (!s)
		s = series_new(&l, hash);
	if (s && s->connections++ == 0 && !list_empty(&s->idle)) {
		list_del(&s->idle);
		table.n_idle--;
	}
	pthread_mutex_unlock(&table.lock);
	return s;
}

static void series_drop(struct series *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&table.lock);
	if (--s->connections == 0) {
		list_add_tail(&table.idle, &s->idle);
		if (++table.n_idle > TRAFFIC_IDLE_MAX) {
			table.n_idle--;
			series_free(list_entry(table.idle.next, struct series, idle));
		}
	}
	pthread_mutex_unlock(&table.lock);
}

/* The sample of one family, made when it is first needed. */
static struct metric *series_metric(struct series *s, unsigned family)
{
	struct metric *m;

	if (!s)
		return NULL;
	m = __atomic_load_n(&s->m[family], __ATOMIC_ACQUIRE);
	if (m)
		return m;
	pthread_mutex_lock(&table.lock);
	m = s->m[family];
	if (!m) {
		m = metric_get_like(families[family], s->m[CLOSED]);
		__atomic_store_n(&s->m[family], m, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&table.lock);
	return m;
}

/* --- connections ---------------------------------------------------------------------------------------- */

struct traffic *traffic_open(const struct traffic_facts *f)
{
	struct traffic *t = calloc(1, sizeof *t);

	accesslog_opened(f);
	if (!t)
		return NULL;
	t->series = series_hold(f, FLAG_NONE);
	t->opened_ms = monotonic_ms();
	metric_add(series_metric(t->series, OPENED), 1);
	metric_add(series_metric(t->series, RECEIVED), 0);
	metric_add(series_metric(t->series, SENT), 0);
	return t;
}

void traffic_received(struct traffic *t, size_t n)
{
	if (!t)
		return;
	t->received += n;
	metric_add(series_metric(t->series, RECEIVED), (int64_t)n);
}

void traffic_sent(struct traffic *t, size_t n)
{
	if (!t)
		return;
	t->sent += n;
	metric_add(series_metric(t->series, SENT), (int64_t)n);
}

void traffic_close(struct traffic *t, const struct traffic_facts *f, enum traffic_flag flag, const char *error)
{
	static const struct traffic unknown;
	const struct traffic *seen = t ? t : &unknown;
	struct series *s = series_hold(f, flag);
	uint64_t now = monotonic_ms();

	metric_add(series_metric(s, CLOSED), 1);
	if (flag != FLAG_NONE)
		metric_add(series_metric(s, FAILED), 1);
	series_drop(s);
	accesslog_closed(f, seen->received, seen->sent, t ? now - t->opened_ms : 0, now, error);
	if (t)
		series_drop(t->series);
	free(t);
}

void traffic_reject(enum traffic_reporter reporter, const struct endpoint *src, const struct endpoint *dst,
		    const char *error, uint64_t at_ms)
{
	accesslog_rejected(reporter, src, dst, error, at_ms);
}

void traffic_sockets(enum traffic_reporter reporter, int delta)
{
	metric_add(sockets[reporter], delta);
}

void traffic_lookup(const struct workload *source, const char *host)
{
	const char *value[TRAFFIC_LOOKUP_LABELS];
	char principal[IDENTITY_MAX];
	struct metric *m;

	traffic_lookup_fill(value, principal, source, host);
	m = metric_get(lookups, value);
	metric_add(m, 1);
	metric_put(m);
}

void traffic_demand_refused(void)
{
	metric_add(demands_refused, 1);
}

static double suppressed(void *arg)
{
	return (double)accesslog_suppressed();
}

int traffic_init(void)
{
	static const struct {
		const char *name, *help;
	} described[FAMILIES] = {
		[OPENED] = {"istio_tcp_connections_opened", "TCP connections that were opened"},
		[CLOSED] = {"istio_tcp_connections_closed", "TCP connections that were closed"},
		[RECEIVED] = {"istio_tcp_received_bytes", "Bytes that went from the accepted side towards upstream"},
		[SENT] = {"istio_tcp_sent_bytes", "Bytes that went from upstream towards the accepted side"},
		[FAILED] = {"istio_tcp_connections_failed", "TCP connections that failed (unstable)"},
	};
	static const char *const by_reporter[] = {"reporter", NULL}, *const none[] = {NULL};
	struct metric_family *open, *left_out;
	bool complete = true;

	for (unsigned i = 0; i < FAMILIES; i++) {
		families[i] =
			metric_family(METRIC_COUNTER, described[i].name, described[i].help, traffic_label_names, NULL);
		complete &= families[i] != NULL;
	}
	open = metric_family(METRIC_GAUGE, "istio_tcp_sockets_open", "TCP sockets that are open (unstable)",
			     by_reporter, NULL);
	for (unsigned i = 0; i < 2; i++) {
		sockets[i] = metric_get(open, &traffic_reporter_names[i]);
		complete &= sockets[i] != NULL;
	}
	demands_refused =
		metric_get(metric_family(METRIC_COUNTER, "culvert_on_demand_refused",
					 "Connections that needed more names of istiod than one may ask for (unstable)",
					 NULL, NULL),
			   none);
	lookups = metric_family(METRIC_COUNTER, "istio_on_demand_dns",
				"Connections whose next hop was resolved by host name (unstable)", traffic_lookup_names,
				NULL);
	left_out =
		metric_family(METRIC_COUNTER, "culvert_log_lines_suppressed",
			      "Access log lines about failures that were left out by the limit (unstable)", NULL, NULL);
	metric_callback(left_out, suppressed, NULL);
	return complete && left_out && lookups && demands_refused ? 0 : -ENOMEM;
}
