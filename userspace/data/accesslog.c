// SPDX-License-Identifier: Apache-2.0
/* Writes one line a connection to the log target "access", with ztunnel's keys in ztunnel's order. */
#include "data/accesslog.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"

#define TARGET "access"

static uint64_t suppressed_total;
static unsigned threads = 1;

void accesslog_threads(unsigned n)
{
	threads = n;
}

static const char *some(const char *s)
{
	return s && *s ? s : NULL;
}

enum { WORKLOAD, NAMESPACE, IDENTITY, CLUSTER, KEYS };

/* `w` NULL: as the peer says of itself in `told`, or nothing. */
static void side(struct log_line *l, const char *const keys[KEYS], const struct workload *w, const char *told,
		 const char *identity)
{
	struct baggage b = {0};

	if (!w && told)
		baggage_parse(&b, told, strlen(told));
	log_str(l, keys[WORKLOAD], some(w ? w->name : *b.service ? b.service : b.workload));
	log_str(l, keys[NAMESPACE], some(w ? w->ns : b.ns));
	log_str(l, keys[IDENTITY], some(identity));
	log_str(l, keys[CLUSTER], some(w ? w->cluster_id : b.cluster));
}

static void source(struct log_line *l, const struct traffic_facts *f)
{
	static const char *const keys[KEYS] = {"src.workload", "src.namespace", "src.identity", "src.cluster"};

	side(l, keys, f->source, f->reporter == REPORT_DESTINATION ? f->baggage : NULL,
	     f->mutual_tls ? f->src_identity : NULL);
}

static void destination(struct log_line *l, const struct traffic_facts *f)
{
	static const char *const keys[KEYS] = {"dst.workload", "dst.namespace", "dst.identity", "dst.cluster"};

	log_str(l, "dst.service", f->service ? some(f->service->hostname) : NULL);
	side(l, keys, f->destination, f->reporter == REPORT_SOURCE ? f->baggage : NULL,
	     f->mutual_tls ? f->dst_identity : NULL);
}

static void direction(struct log_line *l, enum traffic_reporter reporter)
{
	log_str(l, "direction", reporter == REPORT_SOURCE ? "outbound" : "inbound");
}

static void line_begin(struct log_line *l, enum log_level level, const char *message, const struct traffic_facts *f)
{
	char text[ENDPOINT_STRLEN];

	log_begin(l, level, TARGET, message);
	log_bare(l, "src.addr", endpoint_str(&f->src, text));
	source(l, f);
	log_bare(l, "dst.addr", endpoint_str(&f->dst, text));
	log_bare(l, "dst.hbone_addr", f->hbone_target);
	destination(l, f);
	direction(l, f->reporter);
}

/* `lines` are for all threads. */
static bool line_allowed(struct log_limit *limit, unsigned lines, uint64_t now_ms, uint64_t *left_out)
{
	limit->per_second = lines > threads ? lines / threads : 1;
	if (log_allowed(limit, now_ms, left_out))
		return true;
	__atomic_fetch_add(&suppressed_total, 1, __ATOMIC_RELAXED);
	return false;
}

static void line_end(struct log_line *l, uint64_t left_out)
{
	if (left_out)
		log_u64(l, "suppressed", left_out);
	log_end(l);
}

void accesslog_opened(const struct traffic_facts *f)
{
	struct log_line l;

	if (!log_enabled(LOG_DEBUG, TARGET))
		return;
	line_begin(&l, LOG_DEBUG, "connection opened", f);
	log_end(&l);
}

void accesslog_closed(const struct traffic_facts *f, uint64_t received, uint64_t sent, uint64_t duration_ms,
		      uint64_t now_ms, const char *error)
{
	static __thread struct log_limit limit;
	enum log_level level = error ? LOG_ERROR : LOG_INFO;
	bool outbound = f->reporter == REPORT_SOURCE;
	uint64_t left_out = 0;
	struct log_line l;
	char duration[24];

	if (!log_enabled(level, TARGET) || (error && !line_allowed(&limit, TRAFFIC_ERROR_LINES, now_ms, &left_out)))
		return;
	line_begin(&l, level, "connection complete", f);
	log_u64(&l, "bytes_sent", outbound ? received : sent);
	log_u64(&l, "bytes_recv", outbound ? sent : received);
	snprintf(duration, sizeof duration, "%" PRIu64 "ms", duration_ms);
	log_str(&l, "duration", duration);
	log_str(&l, "error", error);
	line_end(&l, left_out);
}

void accesslog_rejected(enum traffic_reporter reporter, const struct endpoint *src, const struct endpoint *dst,
			const char *error, uint64_t now_ms)
{
	static __thread struct log_limit limit;
	char text[ENDPOINT_STRLEN];
	uint64_t left_out = 0;
	struct log_line l;

	if (!log_enabled(LOG_WARN, TARGET) || !line_allowed(&limit, TRAFFIC_REJECT_LINES, now_ms, &left_out))
		return;
	log_begin(&l, LOG_WARN, TARGET, "connection failed");
	log_bare(&l, "src.addr", endpoint_str(src, text));
	log_bare(&l, "dst.addr", endpoint_str(dst, text));
	direction(&l, reporter);
	log_str(&l, "error", error);
	line_end(&l, left_out);
}

uint64_t accesslog_suppressed(void)
{
	return __atomic_load_n(&suppressed_total, __ATOMIC_RELAXED);
}
