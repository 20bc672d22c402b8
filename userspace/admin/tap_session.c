// SPDX-License-Identifier: Apache-2.0
/* The thread of a tap: question, pod, then records as lines until somebody leaves. */
#include "admin/tap_session.h"

#include <errno.h>
#include <jansson.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "admin/tap.h"
#include "admin/tap_line.h"
#include "base/log.h"
#include "base/qualified.h"
#include "tap_abi.h"

static const char target[] = "tap";

/* --- words to and from the reader -------------------------------------------------------------- */

/* 0; -ETIMEDOUT, -ECANCELED when all has to end, -EPIPE when the reader has gone. */
static int await(struct tap_session *s, short what, int wake, int ms)
{
	struct pollfd p[3] = {{s->fd, (short)(what | POLLRDHUP), 0}, {s->stop, POLLIN, 0}, {wake, POLLIN, 0}};
	int n;

	do
		n = poll(p, wake >= 0 ? 3 : 2, ms);
	while (n < 0 && errno == EINTR);
	if (n <= 0)
		return n ? -errno : -ETIMEDOUT;
	if (p[1].revents)
		return -ECANCELED;
	if (p[0].revents & (POLLERR | POLLHUP | POLLRDHUP))
		return -EPIPE;
	return 0;
}

static int say(struct tap_session *s, const char *p, size_t len)
{
	while (len) {
		ssize_t n = send(s->fd, p, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		int e = 0;

		if (n < 0 && errno == EAGAIN)
			e = await(s, POLLOUT, -1, TAP_STALL_MS);
		else if (n < 0 && errno != EINTR)
			e = -EPIPE;
		if (e)
			return e;
		p += n > 0 ? n : 0;
		len -= n > 0 ? (size_t)n : 0;
	}
	return 0;
}

/* Takes the object over. */
static int say_json(struct tap_session *s, json_t *o)
{
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int e = text ? say(s, text, strlen(text)) : -ENOMEM;

	json_decref(o);
	free(text);
	return e ? e : say(s, "\n", 1);
}

/* The question, terminated. */
static int hear(struct tap_session *s, char buf[TAP_REQUEST_MAX])
{
	size_t len = 0;

	while (len < TAP_REQUEST_MAX - 1) {
		ssize_t n;
		int e = await(s, POLLIN, -1, TAP_REQUEST_MS);

		if (e)
			return e;
		n = recv(s->fd, buf + len, TAP_REQUEST_MAX - 1 - len, MSG_DONTWAIT);
		if (n <= 0)
			return -EPIPE;
		len += (size_t)n;
		if (memchr(buf, '\n', len)) {
			buf[len] = '\0';
			return 0;
		}
	}
	return -EMSGSIZE;
}

/* --- the pod --------------------------------------------------------------------------------- */

static bool is_named(const struct dump_pod *p, const char *text)
{
	return !strcmp(p->uid, text) || !strcmp(p->name, text) || qualified_is(text, p->ns, p->name);
}

static const char *choose(struct tap_session *s, const struct tunnel_dump *d, const char *pod)
{
	const struct dump_pod *found = NULL;

	for (unsigned i = 0; i < d->n_pods; i++) {
		if (!is_named(&d->pods[i], pod))
			continue;
		if (found)
			return "several pods of this node have that name; say NAMESPACE/NAME or a uid";
		found = &d->pods[i];
	}
	if (!found)
		return "no pod of that name is on this node; see culvertctl pods";
	memcpy(s->filter.uid, found->uid, sizeof s->filter.uid);
	memcpy(s->ns, found->ns, sizeof s->ns);
	memcpy(s->name, found->name, sizeof s->name);
	return NULL;
}

/* NULL, or what is wrong with the question. */
static const char *understand(struct tap_session *s, const char *text)
{
	struct tap_question q;
	struct tunnel_dump d;
	const char *wrong = tap_question(text, &q);

	if (wrong)
		return wrong;
	if (data_dump(s->data, DUMP_PODS, &d) < 0)
		return "the control thread did not answer in time";
	wrong = choose(s, &d, q.pod);
	memcpy(s->filter.peer, q.peer, sizeof s->filter.peer);
	tunnel_dump_free(&d);
	return wrong;
}

/* --- records --------------------------------------------------------------------------------- */

/* Whatever the log's level: somebody reads what others say to each other. */
static void audit(const struct tap_session *s, const char *message, const char *why, const struct tap_lost *lost)
{
	struct log_line l;

	log_begin(&l, LOG_WARN, target, message);
	log_str(&l, "pod", s->name);
	log_str(&l, "namespace", s->ns);
	log_str(&l, "uid", s->filter.uid);
	log_str(&l, "peer", *s->filter.peer ? s->filter.peer : NULL);
	log_u64(&l, "by.uid", s->uid);
	log_u64(&l, "by.pid", (uint64_t)s->pid);
	if (lost) {
		log_u64(&l, "records", s->records);
		log_u64(&l, "bytes", s->bytes);
		log_u64(&l, "lost_records", lost->records);
		log_u64(&l, "lost_bytes", lost->bytes);
		log_str(&l, "reason", why);
	}
	log_end(&l);
}

static int pass_on(struct tap_session *s, const struct tap_record *r)
{
	char *line;
	size_t len;
	int e = tap_line(r, &line, &len);

	if (e)
		return e;
	e = say(s, line, len);
	free(line);
	s->records++;
	s->bytes += r->head.data_len;
	return e;
}

static int tell_lost(struct tap_session *s, struct tap *t, struct tap_lost *told)
{
	struct tap_lost now;

	tap_lost(t, &now);
	if (now.records == told->records)
		return 0;
	*told = now;
	return say_json(s, json_pack("{ss sI sI}", "event", "lost", "records", (json_int_t)now.records, "bytes",
				     (json_int_t)now.bytes));
}

/* While there is always more to tell, nothing else would be looked at. */
static int look_up(struct tap_session *s, struct tap *t, struct tap_lost *told)
{
	int e = await(s, 0, -1, 0);

	return e && e != -ETIMEDOUT ? e : tell_lost(s, t, told);
}

static int follow(struct tap_session *s, struct tap *t, struct tap_record *r)
{
	struct tap_lost told = {0};
	int e = tap_begun(t) ? 0 : await(s, 0, tap_fd(t), TAP_JOIN_MS);

	if (e && e != -ETIMEDOUT)
		return e;
	e = say_json(s, json_pack("{s{s{ssssss}ss}}", "tap", "pod", "uid", s->filter.uid, "namespace", s->ns, "name",
				  s->name, "peer", s->filter.peer));

	while (!e) {
		while (!e && tap_next(t, r)) {
			e = pass_on(s, r);
			if (!e && s->records % TAP_LOOK_UP == 0)
				e = look_up(s, t, &told);
		}
		if (!e)
			e = tell_lost(s, t, &told);
		if (!e)
			e = await(s, 0, tap_fd(t), -1);
	}
	return e;
}

static void carry(struct tap_session *s)
{
	struct tap_record *r = malloc(sizeof *r);
	struct tap *t = r ? tap_new(s->data, &s->filter) : NULL;
	struct tap_lost lost;
	int e;

	if (t) {
		audit(s, "a tap begins", NULL, NULL);
		e = follow(s, t, r);
		tap_lost(t, &lost);
		audit(s, "a tap ends",
		      e == -EPIPE	? "the reader has gone"
		      : e == -ECANCELED ? "the tunnel ends"
		      : e == -ETIMEDOUT ? "the reader took nothing for too long"
					: "out of memory",
		      &lost);
	} else {
		say_json(s, json_pack("{ss}", "error", "out of memory"));
	}
	tap_free(t);
	free(r);
}

void *tap_session_main(void *arg)
{
	struct tap_session *s = arg;
	char question[TAP_REQUEST_MAX];
	const char *wrong = "no question came in time, or it is too long";

	if (hear(s, question) == 0)
		wrong = understand(s, question);
	if (wrong)
		say_json(s, json_pack("{ss}", "error", wrong));
	else
		carry(s);
	shutdown(s->fd, SHUT_RDWR); /* it is closed when somebody joins this thread */
	__atomic_store_n(&s->over, true, __ATOMIC_RELEASE);
	return NULL;
}
