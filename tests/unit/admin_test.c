/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of the admin, metrics and readiness ports, asked without a socket: status, type, text, and what they change. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <cmocka.h>

#include "admin/admin.h"
#include "admin/profile.h"
#include "admin/ready.h"
#include "admin/stats.h"
#include "base/log.h"
#include "base/metrics.h"

#define COUNT(a) (sizeof(a) / sizeof *(a))

static unsigned quits;

static void count_quit(void *arg)
{
	quits++;
}

static struct admin admin = {.log_default = "access=off,info", .quit = count_quit};

static struct http_response ask(http_serve serve, void *arg, struct http_request rq)
{
	struct http_response out = {.status = 200, .content_type = "text/plain; charset=utf-8"};

	rq.query = rq.query ? rq.query : "";
	rq.accept = rq.accept ? rq.accept : "";
	rq.accept_encoding = rq.accept_encoding ? rq.accept_encoding : "";
	rq.body = "";
	serve(arg, &rq, &out);
	return out;
}

static void check(const char *name, struct http_response *out, int status, const char *want)
{
	if (out->status != status)
		fail_msg("%s: status %d", name, out->status);
	if (!out->body || out->body_len != strlen(out->body) || !strstr(out->body, want))
		fail_msg("%s: body %s", name, out->body ? out->body : "(none)");
	free(out->body);
	out->body = NULL;
}

/* --- admin --------------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *method, *path, *query;
	int status;
	const char *want;
} pages[] = {
	{"index", "GET", "/", NULL, 200, "<a href=\"config_dump\">"},
	{"index names the log level", "GET", "/", NULL, 200, "logging"},
	{"index names the profile", "GET", "/", NULL, 200, "<a href=\"debug/pprof/profile\">"},
	{"unknown page", "GET", "/other", NULL, 404, "no such page"},
	{"page with something behind", "GET", "/logging/x", NULL, 404, "no such page"},
	{"a profile of no time", "GET", "/debug/pprof/profile", "seconds=0", 400, "1 to 300"},
	{"a profile of too long a time", "GET", "/debug/pprof/profile", "seconds=301", 400, "1 to 300"},
	{"a profile of no number of seconds", "GET", "/debug/pprof/profile", "seconds=x", 400, "1 to 300"},
	{"a profile of no samples", "GET", "/debug/pprof/profile", "frequency=0", 400, "1 to 1000"},
	{"a profile of too many samples", "GET", "/debug/pprof/profile", "frequency=1001", 400, "1 to 1000"},
	{"names for pprof", "POST", "/debug/pprof/symbol", NULL, 200, "num_symbols: 0"},
	{"no heap profile", "GET", "/debug/pprof/heap", NULL, 404, "heaptrack(1)"},
	{"quit wants POST", "GET", "/quitquitquit", NULL, 405, "POST"},
	{"logging wants POST", "GET", "/logging", "level=debug", 405, "usage: POST /logging"},
};

static void test_pages(void **state)
{
	for (size_t i = 0; i < COUNT(pages); i++) {
		struct http_response out =
			ask(admin_serve, &admin,
			    (struct http_request){
				    .method = pages[i].method, .path = pages[i].path, .query = pages[i].query});

		check(pages[i].name, &out, pages[i].status, pages[i].want);
	}
	assert_int_equal(quits, 0);
}

/* No kernel has fewer ticks than 100 in a second, few have 1000. */
static const struct {
	const char *name, *query;
	unsigned seconds, hz_min, hz_max;
	const char *cut;
} profiles[] = {
	{"as it is", "", 10, 100, 100, ""},
	{"shorter, and less often", "seconds=1&frequency=1", 1, 1, 1, ""},
	{"as pprof asks", "seconds=30", 25, 100, 100, "25 s at 100 Hz, the most there is here, where 30 s at 100 Hz"},
	{"as often as may be", "frequency=1000&seconds=25", 25, 100, 1000, NULL},
};

static void test_profiles(void **state)
{
	for (size_t i = 0; i < COUNT(profiles); i++) {
		struct profile_request r;

		if (!profile_read(&(struct http_request){.query = profiles[i].query}, &r))
			fail_msg("%s: not understood", profiles[i].name);
		if (r.seconds != profiles[i].seconds || r.hz < profiles[i].hz_min || r.hz > profiles[i].hz_max)
			fail_msg("%s: %u s at %u Hz", profiles[i].name, r.seconds, r.hz);
		if (profiles[i].cut &&
		    (strncmp(r.cut, profiles[i].cut, strlen(profiles[i].cut)) != 0 || !*r.cut != !*profiles[i].cut))
			fail_msg("%s: %s", profiles[i].name, r.cut);
	}
}

static void test_index_type(void **state)
{
	struct http_response out = ask(admin_serve, &admin, (struct http_request){.method = "GET", .path = "/"});

	assert_string_equal(out.content_type, "text/html; charset=utf-8");
	free(out.body);
}

static void test_quit(void **state)
{
	struct http_response out =
		ask(admin_serve, &admin, (struct http_request){.method = "POST", .path = "/quitquitquit"});

	check("quit", &out, 200, "shutdown now\n");
	assert_int_equal(quits, 1);
}

static const struct {
	const char *name, *before, *query;
	int status;
	const char *after; /* the filter; the answer names it where the status is 200 */
} levels[] = {
	{"asked only", "access=off,info", "", 200, "access=off,info"},
	{"a level for everything else", "access=off,info", "level=debug", 200, "access=off,debug"},
	{"a level for a new target", "info", "level=pool=trace", 200, "pool=trace,info"},
	{"a level for a target that has one", "pool=trace,info", "level=pool=warn", 200, "pool=warn,info"},
	{"several, encoded", "info", "level=pool%3Dtrace%2Cerror", 200, "pool=trace,error"},
	{"empty: no change", "pool=trace,info", "level=", 200, "pool=trace,info"},
	{"unknown level", "info", "level=nonsense", 400, "info"},
	{"as istioctl's help has it (not_ztunnel: refused)", "info", "level=pool:debug,error", 200, "pool=debug,error"},
	{"of a target with colons", "info", "level=a::b:debug", 200, "a::b=debug,info"},
	{"two colons are a part of a target", "info", "level=pool::debug", 400, "info"},
	{"a colon before nothing", "info", "level=:debug", 400, "info"},
	{"level of nothing", "info", "level==debug", 400, "info"},
	{"wrong in part: no change", "info", "level=debug,pool=loud", 400, "info"},
	{"reset", "pool=trace,debug", "reset", 200, "access=off,info"},
	{"reset with a value", "pool=trace,debug", "reset=0", 200, "access=off,info"},
	{"reset, then add", "pool=trace,debug", "level=zds=debug&reset", 200, "access=off,zds=debug,info"},
	{"reset with a wrong level: no change", "debug", "reset&level=x", 400, "debug"},
	{"a target that begins like another", "pool=trace,info", "level=po=warn", 200, "pool=trace,po=warn,info"},
};

static void test_logging(void **state)
{
	for (size_t i = 0; i < COUNT(levels); i++) {
		struct http_response out;
		char now[LOG_SPEC_MAX], want[LOG_SPEC_MAX + 32];

		assert_int_equal(log_set_filter(levels[i].before), 0);
		out = ask(admin_serve, &admin,
			  (struct http_request){.method = "POST", .path = "/logging", .query = levels[i].query});
		if (strcmp(log_filter(now), levels[i].after) != 0)
			fail_msg("%s: the filter is %s", levels[i].name, now);
		snprintf(want, sizeof want, "current log level is %s\n", levels[i].after);
		check(levels[i].name, &out, levels[i].status, levels[i].status == 200 ? want : "usage: POST /logging");
	}
	log_set_filter("off");
}

static void test_logging_is_bounded(void **state)
{
	char query[4 * LOG_SPEC_MAX] = "level=", now[LOG_SPEC_MAX];
	struct http_response out;

	log_set_filter("info");
	for (unsigned i = 0; i < 64; i++)
		sprintf(query + strlen(query), "target-number-%u=debug,", i);
	out = ask(admin_serve, &admin, (struct http_request){.method = "POST", .path = "/logging", .query = query});
	check("64 targets", &out, 400, "usage");
	strcpy(query, "level=");
	for (unsigned i = 0; i < LOG_SPEC_MAX / 4; i++)
		strcat(query, "off,");
	strcat(query, "debug");
	out = ask(admin_serve, &admin, (struct http_request){.method = "POST", .path = "/logging", .query = query});
	check("a text that would be cut", &out, 400, "usage");
	assert_string_equal(log_filter(now), "info");
	log_set_filter("off");
}

/* --- readiness --------------------------------------------------------------------------------------------------------------- */

static void test_ready(void **state)
{
	struct ready r = {0};
	struct http_request get = {.method = "GET", .path = "/healthz/ready"};
	struct http_response out = ask(ready_serve, &r, get);

	check("at first", &out, 500, "not ready, pending: workload proxy manager\n");
	ready_set(&r, true);
	out = ask(ready_serve, &r, get);
	check("pods are complete", &out, 200, "ready\n");
	ready_set(&r, false);
	out = ask(ready_serve, &r, get);
	check("not any more", &out, 500, "not ready, pending: workload proxy manager\n");
	ready_await_mesh(&r, true);
	out = ask(ready_serve, &r, get);
	check("neither mesh nor pods", &out, 500, "not ready, pending: state manager, workload proxy manager\n");
	ready_set(&r, true);
	out = ask(ready_serve, &r, get);
	check("pods without the mesh", &out, 500, "not ready, pending: state manager\n");
	ready_await_mesh(&r, false);
	out = ask(ready_serve, &r, get);
	check("the mesh is complete", &out, 200, "ready\n");
	ready_await_mesh(&r, true);
	ready_set_lists(&r, false);
	out = ask(ready_serve, &r, get);
	check("neither mesh nor lists", &out, 500, "not ready, pending: revocation lists, state manager\n");
	ready_set(&r, false);
	out = ask(ready_serve, &r, get);
	check("nothing", &out, 500, "not ready, pending: revocation lists, state manager, workload proxy manager\n");
	ready_await_mesh(&r, false);
	ready_set(&r, true);
	out = ask(ready_serve, &r, get);
	check("the lists alone", &out, 500, "not ready, pending: revocation lists\n");
	ready_set_lists(&r, true);
	out = ask(ready_serve, &r, get);
	check("all", &out, 200, "ready\n");
	out = ask(ready_serve, &r, (struct http_request){.method = "POST", .path = "/healthz/ready"});
	check("other method", &out, 405, "GET");
	out = ask(ready_serve, &r, (struct http_request){.method = "GET", .path = "/"});
	check("other path", &out, 404, "/healthz/ready");
}

/* --- metrics ------------------------------------------------------------------------------------------------------------------ */

#define OPEN_METRICS "application/openmetrics-text;charset=utf-8;version=1.0.0"
#define PLAIN	     "text/plain; charset=utf-8"

static const struct {
	const char *name, *accept, *encoding, *type;
	bool gzip;
} scrapes[] = {
	{"nothing asked", "", "", PLAIN, false},
	{"any type", "*/*", "", PLAIN, false},
	{"OpenMetrics", "application/openmetrics-text", "", OPEN_METRICS, false},
	{"as Prometheus asks",
	 "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "", OPEN_METRICS,
	 false},
	{"second in the list", "text/plain, application/openmetrics-text", "", OPEN_METRICS, false},
	{"not wanted", "application/openmetrics-text;q=0", "", PLAIN, false},
	{"a longer type", "application/openmetrics-texts", "", PLAIN, false},
	{"gzip", "", "gzip", PLAIN, true},
	{"gzip in a list", "", "deflate, GZIP;q=0.5, br", PLAIN, true},
	{"gzip refused", "", "gzip;q=0", PLAIN, false},
	{"gzip refused with zeros", "", "gzip; q=0.000, identity", PLAIN, false},
	{"gzip hardly wanted", "", "gzip;q=0.001", PLAIN, true},
	{"others only", "", "zstd, br", PLAIN, false},
	{"a longer name", "", "gzipped", PLAIN, false},
};

static char *unzip(const struct http_response *out)
{
	z_stream z = {.next_in = (unsigned char *)out->body, .avail_in = (unsigned)out->body_len};
	char *text = calloc(1, 1 << 20);

	z.next_out = (unsigned char *)text;
	z.avail_out = (1 << 20) - 1;
	assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
	assert_int_equal(inflate(&z, Z_FINISH), Z_STREAM_END);
	inflateEnd(&z);
	return text;
}

static void test_scrapes(void **state)
{
	for (size_t i = 0; i < COUNT(scrapes); i++) {
		struct http_response out = ask(stats_serve, NULL,
					       (struct http_request){.method = "GET",
								     .path = "/metrics",
								     .accept = scrapes[i].accept,
								     .accept_encoding = scrapes[i].encoding});
		char *text;

		if (strcmp(out.content_type, scrapes[i].type) != 0)
			fail_msg("%s: type %s", scrapes[i].name, out.content_type);
		if (!out.encoding == scrapes[i].gzip)
			fail_msg("%s: encoding %s", scrapes[i].name, out.encoding ? out.encoding : "none");
		text = scrapes[i].gzip ? unzip(&out) : strndup(out.body, out.body_len);
		if (!strstr(text, "\nistio_build{component=\"ztunnel\",tag=\"1.99\"} 1\n") || !strstr(text, "# EOF\n"))
			fail_msg("%s: text %s", scrapes[i].name, text);
		if (!strstr(text, "# TYPE culvert_log_lines_lost counter\n") !=
		    (strcmp(scrapes[i].type, OPEN_METRICS) != 0))
			fail_msg("%s: counters' names in %s", scrapes[i].name, text);
		free(text);
		free(out.body);
	}
}

static void test_stats_paths(void **state)
{
	struct http_response out =
		ask(stats_serve, NULL, (struct http_request){.method = "POST", .path = "/stats/prometheus"});

	check("the other path, any method", &out, 200, "# EOF\n");
	out = ask(stats_serve, NULL, (struct http_request){.method = "GET", .path = "/"});
	check("other path", &out, 404, "/metrics");
}

static void test_process(void **state)
{
	struct http_response out = ask(stats_serve, NULL, (struct http_request){.method = "GET", .path = "/metrics"});
	const char *open = strstr(out.body, "\nprocess_open_fds "), *max = strstr(out.body, "\nprocess_max_fds ");

	assert_non_null(open);
	assert_non_null(max);
	assert_true(strtod(open + strlen("\nprocess_open_fds "), NULL) >= 3);
	assert_true(strtod(max + strlen("\nprocess_max_fds "), NULL) >= 64);
	assert_true(open < strstr(out.body, "\nistio_build{"));
	free(out.body);
}

static int setup(void **state)
{
	/* Long enough that compressing it is worth while. */
	static const char *const labels[] = {"a", NULL};
	struct metric_family *f;

	if (stats_init("1.99") < 0)
		return -1;
	f = metric_family(METRIC_COUNTER, "filler", "A long text (unstable)", labels, NULL);
	for (unsigned i = 0; i < 64; i++) {
		char value[32];
		const char *values[] = {value};

		snprintf(value, sizeof value, "value-%u", i);
		metric_put(metric_get(f, values));
	}
	return log_set_filter("off");
}

static int teardown(void **state)
{
	metrics_reset();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_pages),	    cmocka_unit_test(test_profiles),
		cmocka_unit_test(test_index_type),  cmocka_unit_test(test_quit),
		cmocka_unit_test(test_logging),	    cmocka_unit_test(test_logging_is_bounded),
		cmocka_unit_test(test_ready),	    cmocka_unit_test(test_scrapes),
		cmocka_unit_test(test_stats_paths), cmocka_unit_test(test_process),
	};

	return cmocka_run_group_tests_name("admin", tests, setup, teardown);
}
