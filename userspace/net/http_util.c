// SPDX-License-Identifier: Apache-2.0
/* What handlers of HTTP requests use: text answers, query parameters, calls into another thread's loop. */
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/hex.h"
#include "net/http.h"

void http_text(struct http_response *out, int status, const char *fmt, ...)
{
	va_list ap;
	int n;

	free(out->body);
	va_start(ap, fmt);
	n = vasprintf(&out->body, fmt, ap);
	va_end(ap);
	out->status = n < 0 ? 500 : status;
	out->body = n < 0 ? NULL : out->body;
	out->body_len = n < 0 ? 0 : (size_t)n;
}

/* --- query parameters ----------------------------------------------------------------------------------- */

/* A %00 ends the value: nothing here knows what to do with what comes after. */
static void decode(const char *p, size_t n, char *buf, size_t len)
{
	size_t out = 0;

	for (size_t i = 0, used; i < n && out + 1 < len; i += used) {
		used = percent_next(p + i, n - i, &buf[out]);
		if (used == 1 && buf[out] == '+')
			buf[out] = ' ';
		out++;
	}
	buf[out] = '\0';
}

const char *http_query(const struct http_request *rq, const char *name, char *buf, size_t len)
{
	size_t name_len = strlen(name);

	for (const char *p = rq->query; *p;) {
		size_t n = strcspn(p, "&"), key = strcspn(p, "=&");

		if (key == name_len && memcmp(p, name, key) == 0) {
			key += key < n;
			decode(p + key, n - key, buf, len);
			return buf;
		}
		p += n + (p[n] == '&');
	}
	return NULL;
}

/* --- calls into another thread -------------------------------------------------------------------------- */

struct call { /* of two holders: the caller and the loop */
	struct msg msg;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	void (*fn)(void *arg);
	void (*release)(void *arg);
	void *arg;
	bool done, abandoned;
};

static void call_free(struct call *c)
{
	pthread_mutex_destroy(&c->lock);
	pthread_cond_destroy(&c->changed);
	free(c);
}

static void call_run(struct loop *l, struct msg *m)
{
	struct call *c = container_of(m, struct call, msg);
	bool abandoned;

	c->fn(c->arg);
	pthread_mutex_lock(&c->lock);
	c->done = true;
	abandoned = c->abandoned;
	pthread_cond_signal(&c->changed);
	pthread_mutex_unlock(&c->lock);
	if (!abandoned)
		return;
	if (c->release)
		c->release(c->arg);
	call_free(c);
}

static int call_wait(struct call *c)
{
	struct timespec until;
	int e = 0;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += HTTP_CALL_MS / 1000;
	pthread_mutex_lock(&c->lock);
	while (!c->done && !e)
		e = pthread_cond_timedwait(&c->changed, &c->lock, &until);
	c->abandoned = !c->done;
	e = c->done ? 0 : -ETIMEDOUT;
	pthread_mutex_unlock(&c->lock);
	return e;
}

int http_call(struct loop *l, void (*fn)(void *arg), void *arg, void (*release)(void *arg))
{
	struct call *c = calloc(1, sizeof *c);
	pthread_condattr_t monotonic;
	int e;

	if (!c)
		return -ENOMEM;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	c->fn = fn;
	c->release = release;
	c->arg = arg;
	loop_post(l, &c->msg, call_run);
	e = call_wait(c);
	if (!e)
		call_free(c);
	return e;
}
