/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the life of a request. libcurl may not be called from its own callbacks, so these only note what happened:
 * bytes and ends are delivered by a task. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "node/kube_api_internal.h"

enum { BODY_STEP = 16384, KEEPALIVE_S = 15, ERROR_TEXT_MAX = 256 };

void kube_call_free(struct kube_call *c)
{
	timer_cancel(&c->deadline);
	timer_cancel(&c->silence);
	task_cancel(&c->task);
	list_del(&c->link);
	c->api->n_calls--;
	if (c->easy) {
		c->api->curl.multi_remove_handle(c->api->multi, c->easy);
		c->api->curl.easy_cleanup(c->easy);
	}
	for (struct curl_slist *h = c->headers; h; h = h->next)
		explicit_bzero(h->data, strlen(h->data));
	c->api->curl.slist_free_all(c->headers);
	free(c->url);
	free(c->sent);
	free(c->buf);
	free(c);
}

/* --- delivery ------------------------------------------------------------------------------------------- */

static int err_of(CURLcode code)
{
	switch (code) {
	case CURLE_OK:
		return 0;
	case CURLE_OPERATION_TIMEDOUT:
		return -ETIMEDOUT;
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		return -EACCES;
	default:
		return -EIO;
	}
}

/* The API server explains itself in a Status object; its message is what people need. A cut one will do. */
static void error_text(const char *body, char out[ERROR_TEXT_MAX])
{
	const char *p = body ? strstr(body, "\"message\":") : NULL;
	size_t n = 0;

	p = p ? p + strlen("\"message\":") : NULL;
	p = p ? p + strspn(p, " \"") : "";
	while (*p && *p != '"' && n + 1 < ERROR_TEXT_MAX) {
		p += *p == '\\' && p[1];
		out[n++] = (unsigned char)*p < ' ' ? ' ' : *p;
		p++;
	}
	out[n] = '\0';
}

static void answer(struct kube_call *c)
{
	struct kube_reply r = {.err = c->err ? c->err : err_of(c->code), .body = c->buf ? c->buf : "", .len = c->len};
	char said[ERROR_TEXT_MAX];
	curl_off_t after = 0;
	long status = 0;

	c->api->curl.easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	c->api->curl.easy_getinfo(c->easy, CURLINFO_RETRY_AFTER, &after);
	r.status = (int)status;
	r.retry_after_ms = after > 0 && after < 3600 ? (unsigned)after * 1000 : 0;
	if (!c->err && r.err)
		snprintf(c->why, sizeof c->why, "%s", c->error[0] ? c->error : c->api->curl.easy_strerror(c->code));
	else if (!r.err && status / 100 != 2) {
		error_text(c->buf, said);
		snprintf(c->why, sizeof c->why, "the API server answered %ld%s%s", status, said[0] ? ": " : "", said);
	}
	r.why = c->why;
	c->delivering = true; /* a cancel from within is late, and harmless */
	c->rq.done(c->rq.arg, &r);
	kube_call_free(c);
}

bool kube_call_is_open(const struct kube_call *c)
{
	long status = 0;

	if (c)
		c->api->curl.easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
	return status / 100 == 2;
}

static void deliver(struct task *t)
{
	struct kube_call *c = container_of(t, struct kube_call, task);

	if (c->rq.bytes && c->len && kube_call_is_open(c)) {
		size_t n = c->len;

		c->len = 0;
		c->delivering = true;
		c->rq.bytes(c->rq.arg, c->buf, n);
		c->delivering = false;
	}
	if (c->cancelled)
		kube_call_free(c);
	else if (c->ended)
		answer(c);
}

void kube_call_end(struct kube_call *c, int err)
{
	if (c->ended)
		return;
	c->ended = true;
	c->err = err;
	timer_cancel(&c->deadline);
	timer_cancel(&c->silence);
	loop_defer(c->api->loop, &c->task, deliver);
}

static void deadline_over(struct timer *t)
{
	struct kube_call *c = container_of(t, struct kube_call, deadline);

	snprintf(c->why, sizeof c->why, "no answer within %u ms", c->rq.deadline_ms);
	kube_call_end(c, -ETIMEDOUT);
}

static void silent(struct timer *t)
{
	struct kube_call *c = container_of(t, struct kube_call, silence);

	snprintf(c->why, sizeof c->why, "nothing came for %u ms", c->rq.silence_ms);
	kube_call_end(c, -ETIMEDOUT);
}

static size_t body_came(char *p, size_t size, size_t n, void *arg)
{
	struct kube_call *c = arg;
	size_t need = c->len + n + 1;

	if (c->ended || need > c->rq.body_max + 1) {
		snprintf(c->why, sizeof c->why, "the answer is larger than %zu bytes", c->rq.body_max);
		kube_call_end(c, -EMSGSIZE);
		return 0;
	}
	if (need > c->cap) {
		size_t cap = 2 * c->cap > need ? 2 * c->cap : need + BODY_STEP;
		char *more = realloc(c->buf, cap);

		if (!more) {
			snprintf(c->why, sizeof c->why, "out of memory");
			kube_call_end(c, -ENOMEM);
			return 0;
		}
		c->buf = more;
		c->cap = cap;
	}
	memcpy(c->buf + c->len, p, n);
	c->len += n;
	c->buf[c->len] = '\0';
	if (c->rq.silence_ms)
		timer_set(c->api->loop, &c->silence, c->rq.silence_ms, silent);
	if (c->rq.bytes)
		loop_defer(c->api->loop, &c->task, deliver);
	return n;
}

/* --- beginning ------------------------------------------------------------------------------------------ */

static bool header_add(struct kube_call *c, const char *line)
{
	struct curl_slist *more = c->api->curl.slist_append(c->headers, line);

	c->headers = more ? more : c->headers;
	return more != NULL;
}

static int headers_make(struct kube_call *c, char why[POD_WHY_MAX])
{
	char *token = malloc(KUBE_TOKEN_MAX), *line = malloc(KUBE_TOKEN_MAX + 32);
	int e = token && line ? kube_token_read(c->api->config, token, why) : -ENOMEM;

	if (!e && token[0]) {
		snprintf(line, KUBE_TOKEN_MAX + 32, "Authorization: Bearer %s", token);
		e = header_add(c, line) ? 0 : -ENOMEM;
	}
	if (!e && c->sent)
		e = header_add(c, "Content-Type: application/merge-patch+json") ? 0 : -ENOMEM;
	if (!e)
		e = header_add(c, "Accept: application/json") && header_add(c, "Expect:") ? 0 : -ENOMEM;
	if (token)
		explicit_bzero(token, KUBE_TOKEN_MAX);
	if (line)
		explicit_bzero(line, KUBE_TOKEN_MAX + 32);
	free(token);
	free(line);
	if (e == -ENOMEM)
		snprintf(why, POD_WHY_MAX, "out of memory");
	return e;
}

static void options_set(struct kube_call *c, const char *method)
{
	const struct kube_config *config = c->api->config;
	CURL *h = c->easy;

	c->api->curl.easy_setopt(h, CURLOPT_URL, c->url);
	c->api->curl.easy_setopt(h, CURLOPT_CUSTOMREQUEST, method);
	c->api->curl.easy_setopt(h, CURLOPT_HTTPHEADER, c->headers);
	c->api->curl.easy_setopt(h, CURLOPT_USERAGENT, "culvert/" CULVERT_VERSION);
	c->api->curl.easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https,http");
	c->api->curl.easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
	c->api->curl.easy_setopt(h, CURLOPT_NOSIGNAL, 1L);
	c->api->curl.easy_setopt(h, CURLOPT_CONNECTTIMEOUT_MS, (long)KUBE_CONNECT_MS);
	c->api->curl.easy_setopt(h, CURLOPT_TCP_KEEPALIVE, 1L);
	c->api->curl.easy_setopt(h, CURLOPT_TCP_KEEPIDLE, (long)KEEPALIVE_S);
	c->api->curl.easy_setopt(h, CURLOPT_TCP_KEEPINTVL, (long)KEEPALIVE_S);
	c->api->curl.easy_setopt(h, CURLOPT_OPENSOCKETFUNCTION, kube_socket_open);
	c->api->curl.easy_setopt(h, CURLOPT_WRITEFUNCTION, body_came);
	c->api->curl.easy_setopt(h, CURLOPT_WRITEDATA, c);
	c->api->curl.easy_setopt(h, CURLOPT_PRIVATE, c);
	c->api->curl.easy_setopt(h, CURLOPT_ERRORBUFFER, c->error);
	if (c->sent)
		c->api->curl.easy_setopt(h, CURLOPT_POSTFIELDS, c->sent);
	if (config->ca_file[0]) {
		c->api->curl.easy_setopt(h, CURLOPT_CAINFO, config->ca_file);
		c->api->curl.easy_setopt(h, CURLOPT_CAPATH,
					 NULL); /* the system's would be loaded as well, and cost 5 MB */
	}
	c->api->curl.easy_setopt(h, CURLOPT_SSL_VERIFYPEER, config->skip_verify ? 0L : 1L);
	c->api->curl.easy_setopt(h, CURLOPT_SSL_VERIFYHOST, config->skip_verify ? 0L : 2L);
}

static int call_start(struct kube_call *c, const struct kube_request *rq, char why[POD_WHY_MAX])
{
	int e;

	c->easy = c->api->curl.easy_init();
	c->sent = rq->body ? strdup(rq->body) : NULL;
	if (!c->easy || (rq->body && !c->sent) || asprintf(&c->url, "%s%s", c->api->config->server, rq->path) < 0) {
		c->url = NULL;
		snprintf(why, POD_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	e = headers_make(c, why);
	if (e)
		return e;
	options_set(c, rq->method);
	if (c->api->curl.multi_add_handle(c->api->multi, c->easy) != CURLM_OK) {
		snprintf(why, POD_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	if (rq->deadline_ms)
		timer_set(c->api->loop, &c->deadline, rq->deadline_ms, deadline_over);
	if (rq->silence_ms)
		timer_set(c->api->loop, &c->silence, rq->silence_ms, silent);
	return 0;
}

int kube_call_new(struct kube_call **out, struct kube_api *a, const struct kube_request *rq, char why[POD_WHY_MAX])
{
	struct kube_call *c = a->n_calls < KUBE_CALLS_MAX ? calloc(1, sizeof *c) : NULL;
	int e;

	if (!c) {
		snprintf(why, POD_WHY_MAX, "too many requests to the API server are under way");
		return -EAGAIN;
	}
	c->api = a;
	c->rq = *rq;
	list_init(&c->link);
	list_add_tail(&a->calls, &c->link);
	a->n_calls++;
	e = call_start(c, rq, why);
	if (e) {
		kube_call_free(c);
		return e;
	}
	*out = c;
	return 0;
}

void kube_call_cancel(struct kube_call *c)
{
	if (!c || c->cancelled)
		return;
	if (!c->delivering) {
		kube_call_free(c);
		return;
	}
	c->cancelled = true;
}
