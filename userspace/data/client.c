// SPDX-License-Identifier: Apache-2.0
/* Owns the steps of a tunnel's client. Each either leads to the next one or tells the owner what went wrong, as the last
 * thing that it does: the owner may free the client then. */
#include "data/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rstr.h"
#include "data/offload.h"
#include "data/revoke.h"

enum { CLIENT_WHY_MAX = 64 + TLS_REASON_MAX };

/* --- whom it expects ------------------------------------------------------------------------------------ */

static char *expect_text(const struct route_peers *expect)
{
	size_t len = 1;
	char *text, *p;

	for (unsigned i = 0; i < expect->n; i++)
		len += strlen(expect->id[i]) + 1;
	text = p = malloc(len);
	if (!text)
		return NULL;
	for (unsigned i = 0; i < expect->n; i++)
		p = stpcpy(stpcpy(p, expect->id[i]), "\n");
	*p = '\0';
	return text;
}

bool client_expects(const struct client *c, const struct route_peers *expect)
{
	const char *text = c->expect;

	for (unsigned i = 0; i < expect->n; i++) {
		size_t n = strlen(expect->id[i]);

		if (strncmp(text, expect->id[i], n) != 0 || text[n] != '\n')
			return false;
		text += n + 1;
	}
	return !*text;
}

static struct tls_handshake *handshake_new(const struct client *c, int fd)
{
	const char *expect[TLS_EXPECT_MAX];
	unsigned n = 0;
	char *text = strdup(c->expect), *save = NULL;
	struct tls_handshake *h;

	if (!text)
		return NULL;
	for (char *p = strtok_r(text, "\n", &save); p && n < TLS_EXPECT_MAX; p = strtok_r(NULL, "\n", &save))
		expect[n++] = p;
	h = tls_client(fd, c->id, expect, n);
	free(text);
	return h;
}

/* --- TLS ------------------------------------------------------------------------------------------------ */

static void handshake_done(struct client *c)
{
	struct record *r;

	io_stop(c->w->loop, &c->io);
	if (!revoke_follow(REPORT_SOURCE, c->tls, &c->path)) {
		c->ops->failed(c, FLAG_CERT_REVOKED, REVOKED_TEXT);
		return;
	}
	c->peer = rstr_new(tls_peer(c->tls));
	r = !c->peer	      ? NULL
	    : c->ops->offload ? offload_finish(c->w, c->tls)
			      : tls_handshake_finish(c->tls, c->w->records);
	if (!r) {
		c->ops->failed(c, FLAG_TLS_FAILURE, "out of memory");
		return;
	}
	c->io.fd = -1;
	tls_handshake_free(c->tls);
	c->tls = NULL;
	timer_cancel(&c->timer);
	c->large = c->w->n_large < CLIENT_LARGE_MAX;
	c->w->n_large += c->large;
	c->h2 = h2_new(c->w->loop, r, c->large ? H2_CLIENT_LARGE : H2_CLIENT, NULL, c->ops->h2, c);
	if (c->h2) {
		c->ops->up(c);
	} else {
		record_free(r);
		c->ops->failed(c, FLAG_H2_FAILURE, "out of memory");
	}
}

static void tls_ready(struct io *io, uint32_t events)
{
	struct client *c = container_of(io, struct client, io);
	char why[CLIENT_WHY_MAX];
	uint32_t want = 0;
	int e = tls_handshake_step(c->tls, &want);

	if (e == 0) {
		handshake_done(c);
	} else if (e != -EAGAIN || io_want(c->w->loop, io, want) < 0) {
		revoke_refused(REPORT_SOURCE, c->tls);
		snprintf(why, sizeof why, "TLS handshake%s failed: %s", c->ops->where, tls_reason(c->tls));
		c->ops->failed(c, FLAG_TLS_FAILURE, why);
	}
}

static void tls_late(struct timer *t)
{
	struct client *c = container_of(t, struct client, timer);
	char why[CLIENT_WHY_MAX];

	snprintf(why, sizeof why, "TLS handshake%s timed out", c->ops->where);
	c->ops->failed(c, FLAG_TLS_FAILURE, why);
}

void client_connected(struct client *c, int fd)
{
	io_init(&c->io, fd, tls_ready);
	c->tls = handshake_new(c, fd);
	if (!c->tls) {
		c->ops->failed(c, FLAG_TLS_FAILURE, "out of memory");
		return;
	}
	timer_set(c->w->loop, &c->timer, DATA_HANDSHAKE_MS, tls_late);
	tls_ready(&c->io, 0);
}

/* --- the credential ------------------------------------------------------------------------------------- */

static void have_cert(struct cert_request *r)
{
	struct client *c = cert_owner(r);
	char why[CERT_ANSWER_MAX];

	if (!c)
		return;
	c->cert = NULL;
	c->id = cert_answer(r, why);
	if (c->id)
		c->ops->ready(c);
	else
		c->ops->failed(c, FLAG_IDENTITY, why);
}

void client_start(struct client *c, const char *self)
{
	if (cert_ask(c->w->o->certs, self, c->w->loop, c, have_cert, &c->id, &c->cert) < 0)
		c->ops->failed(c, FLAG_IDENTITY, "out of memory");
	else if (c->id)
		c->ops->ready(c);
}

/* --- its life ------------------------------------------------------------------------------------------- */

int client_init(struct client *c, struct worker *w, const struct client_ops *ops, const struct route_peers *expect)
{
	*c = (struct client){.w = w, .ops = ops, .io.fd = -1, .expect = expect_text(expect)};
	return c->expect ? 0 : -ENOMEM;
}

void client_stop(struct client *c)
{
	timer_cancel(&c->timer);
	if (c->cert)
		c->cert->owner = NULL;
	c->cert = NULL;
	tls_handshake_free(c->tls);
	c->tls = NULL;
	if (c->io.fd >= 0)
		io_close(c->w->loop, &c->io);
}

void client_free(struct client *c)
{
	h2_free(c->h2);
	c->w->n_large -= c->large;
	rstr_unref(c->peer);
	crl_path_free(c->path);
	tls_id_unref(c->id);
	free(c->expect);
}
