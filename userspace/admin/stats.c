// SPDX-License-Identifier: Apache-2.0
/* /metrics and /stats/prometheus: OpenMetrics text, or the plain one before it, compressed where the client takes gzip. */
#include "admin/stats.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/resource.h>

#include "admin/gzip.h"
#include "base/log.h"
#include "base/metrics.h"

enum { GZIP_WORTHWHILE = 512 };

/* --- the process ---------------------------------------------------------------------------------------- */

static double open_fds(void *arg)
{
	DIR *d = opendir("/proc/self/fd");
	double n = 0;

	if (!d)
		return 0;
	/* cppcheck-suppress readdirCalled ; this stream is nobody else's */
	for (struct dirent *e; (e = readdir(d));)
		n += e->d_name[0] != '.';
	closedir(d);
	return n - 1; /* without the folder itself */
}

static double max_fds(void *arg)
{
	struct rlimit r;

	return getrlimit(RLIMIT_NOFILE, &r) < 0 ? 0 : (double)r.rlim_cur;
}

static double lines_lost(void *arg)
{
	return (double)log_lost();
}

static double overflows(void *arg)
{
	return (double)metrics_overflows();
}

int stats_init(const char *istio_version)
{
	static const char *const labels[] = {"component", "tag", NULL};
	const char *values[] = {"ztunnel", istio_version};
	struct metric_family *open, *max, *build, *lost, *shared;
	struct metric *m;

	open = metric_family(METRIC_GAUGE, "process_open_fds", "Descriptors that are open", NULL, NULL);
	max = metric_family(METRIC_GAUGE, "process_max_fds", "Descriptors that may be open", NULL, NULL);
	build = metric_family(METRIC_GAUGE, "istio_build", "The component's place in Istio and the tag of its build",
			      labels, NULL);
	lost = metric_family(METRIC_COUNTER, "culvert_log_lines_lost",
			     "Log lines that the log's reader was too slow for (unstable)", NULL, NULL);
	shared = metric_family(METRIC_COUNTER, "culvert_metric_overflows",
			       "Label sets that had to share a sample, since a family was full (unstable)", NULL, NULL);
	metric_callback(lost, lines_lost, NULL);
	metric_callback(shared, overflows, NULL);
	metric_callback(open, open_fds, NULL);
	metric_callback(max, max_fds, NULL);
	m = metric_get(build, values);
	metric_set(m, 1);
	return open && max && m && lost && shared ? 0 : -ENOMEM;
}

/* --- what the client takes ------------------------------------------------------------------------------ */

/* Does the list of a header have this element, without a weight of 0? */
static bool accepts(const char *header, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = header; *p;) {
		const char *end = p + strcspn(p, ",");
		const char *q;

		p += strspn(p, " \t");
		if (!strncasecmp(p, name, len) && strchr(" \t;,", p[len])) {
			q = p + len + strspn(p + len, " \t");
			q += *q == ';' ? 1 + strspn(q + 1, " \t") : 0;
			return strncasecmp(q, "q=0", 3) != 0 || strspn(q + 3, ".0") != strcspn(q + 3, " \t,;");
		}
		p = end + (*end == ',');
	}
	return false;
}

static void compress_body(struct http_response *out)
{
	char *to;
	size_t len;

	if (out->body_len < GZIP_WORTHWHILE || gzip(out->body, out->body_len, &to, &len) < 0)
		return;
	free(out->body);
	out->body = to;
	out->body_len = len;
	out->encoding = "gzip";
}

void stats_serve(void *arg, const struct http_request *rq, struct http_response *out)
{
	bool open;

	if (strcmp(rq->path, "/metrics") != 0 && strcmp(rq->path, "/stats/prometheus") != 0) {
		http_text(out, 404, "try /metrics\n");
		return;
	}
	open = accepts(rq->accept, "application/openmetrics-text");
	out->body = metrics_text(&out->body_len, !open);
	if (!out->body) {
		http_text(out, 500, "out of memory\n");
		return;
	}
	if (open)
		out->content_type = "application/openmetrics-text;charset=utf-8;version=1.0.0";
	if (accepts(rq->accept_encoding, "gzip"))
		compress_body(out);
}
