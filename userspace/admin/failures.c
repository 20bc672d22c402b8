// SPDX-License-Identifier: Apache-2.0
/* Failed connections as JSON. */
#include "data/failures.h"

#include <stdio.h>
#include <stdlib.h>

#include "admin/json.h"
#include "admin/see.h"

static void write_time(struct json *j, const struct timespec *at)
{
	struct tm tm;
	char text[32] = "";

	if (gmtime_r(&at->tv_sec, &tm))
		strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
	json_key(j, "time");
	json_textf(j, "%s.%03ldZ", text, at->tv_nsec / 1000000);
}

static void write_one(struct json *j, const struct failure *f)
{
	char at[ENDPOINT_STRLEN];

	json_open(j, '{');
	json_key_text(j, "destination", endpoint_str(&f->dst, at));
	json_key_some(j, "destinationIdentity", f->dst_identity);
	json_key_text(j, "direction", f->inbound ? "inbound" : "outbound");
	json_key_text(j, "flag", traffic_flag_name(f->flag));
	json_key_text(j, "nextHop", endpoint_str(&f->next_hop, at));
	json_key(j, "pod");
	json_open(j, '{');
	json_key_text(j, "name", f->pod_name);
	json_key_text(j, "namespace", f->pod_ns);
	json_close(j, '}');
	json_key_text(j, "protocol", f->hbone ? "HBONE" : "TCP");
	json_key_text(j, "reason", f->why);
	json_key_some(j, "service", f->service);
	json_key_text(j, "source", endpoint_str(&f->src, at));
	json_key_some(j, "sourceIdentity", f->src_identity);
	write_time(j, &f->at);
	json_key(j, "unixTime");
	json_number(j, (uint64_t)f->at.tv_sec);
	json_close(j, '}');
}

void failures_serve(struct admin *a, const struct http_request *rq, struct http_response *out)
{
	struct failures_list l;
	struct json j = {0};

	if (data_failures(a->data, &l) < 0) {
		http_text(out, 500, "out of memory\n");
		return;
	}
	json_open(&j, '{');
	json_key(&j, "failures");
	json_open(&j, '[');
	for (unsigned i = 0; i < l.n; i++)
		write_one(&j, &l.all[i]);
	json_close(&j, ']');
	json_key(&j, "kept");
	json_number(&j, l.n);
	json_key(&j, "seen");
	json_number(&j, l.seen);
	json_close(&j, '}');
	json_raw(&j, "\n");
	free(l.all);
	if (j.failed) {
		free(j.p);
		http_text(out, 500, "out of memory\n");
		return;
	}
	out->body = j.p;
	out->body_len = j.len;
	out->content_type = "application/json";
}
