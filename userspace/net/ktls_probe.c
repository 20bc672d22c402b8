/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the start-up probe: what this kernel's kTLS does right, tried on loopback connections whose other end is the user
 * back end. A kernel that loses or mixes up a byte does not have the feature. What is said on such a connection is
 * ktls_trial_tx.c's and ktls_trial_rx.c's. */
#include "net/ktls_trial.h"

#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/monotonic.h"

int trial_fails(struct trial *t, int err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(t->why, KTLS_WHY_MAX, fmt, ap);
	va_end(ap);
	return err ? err : -EIO;
}

/* --- the connection ------------------------------------------------------------------------------------- */

bool trial_readable(struct trial *t, int fd)
{
	struct probe *p = t->probe;
	struct pollfd pfd = {.fd = fd, .events = POLLIN};
	int64_t began = monotonic_ms();
	bool ready = p->left_ms > 0 && poll(&pfd, 1, p->left_ms) == 1;

	p->left_ms -= (int)(monotonic_ms() - began);
	return ready;
}

/* The other end may be there a moment after connect(2): a busy machine has the handshake's packets wait. */
static int pair_open(struct trial *t)
{
	int *fd = t->fd;
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof at;
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;

	fd[0] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	fd[1] = -1;
	if (l < 0 || fd[0] < 0 || bind(l, (void *)&at, len) < 0 || listen(l, 1) < 0 ||
	    getsockname(l, (void *)&at, &len) < 0 || (connect(fd[0], (void *)&at, len) < 0 && errno != EINPROGRESS))
		err = -errno;
	else if (!trial_readable(t, l))
		err = -ETIMEDOUT;
	else if ((fd[1] = accept4(l, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK)) < 0)
		err = -errno;
	if (l >= 0)
		close(l);
	return err;
}

static void pair_close(int fd[2])
{
	for (int i = 0; i < 2; i++)
		if (fd[i] >= 0)
			close(fd[i]);
}

int trial_key(struct trial *t, struct record_key *k, bool seals)
{
	static const uint8_t secret[RECORD_SECRET_MAX] = "probe";

	*k = (struct record_key){.seals = seals};
	return record_key_set(k, t->probe->pool, t->cipher, secret, t->cipher == RECORD_AES_256_GCM ? 48 : 32);
}

/* --- the whole ------------------------------------------------------------------------------------------ */

enum attempt { TRY_TX, TRY_TX_REKEY, TRY_RX, TRY_NO_PAD, TRY_RX_REKEY };

static bool attempt(struct probe *p, enum attempt what, enum record_cipher cipher, char why[KTLS_WHY_MAX])
{
	struct trial t = {.probe = p, .cipher = cipher, .why = why};
	int err = pair_open(&t);

	if (err) {
		trial_fails(&t, err, "no loopback: %s", strerror(-err));
	} else {
		err = ktls_attach(t.fd[0]);
		if (err)
			trial_fails(&t, err, "%s",
				    err == -ENOENT ? "this kernel has no kTLS (CONFIG_TLS, module tls)"
						   : strerror(-err));
	}
	if (!err && what <= TRY_TX_REKEY)
		err = trial_tx(&t, what == TRY_TX_REKEY);
	else if (!err)
		err = trial_rx(&t, what == TRY_NO_PAD, what == TRY_RX_REKEY);
	pair_close(t.fd);
	return !err;
}

/* Works with at least one cipher: those go to `ciphers`. */
static bool direction(struct probe *p, enum attempt what, uint8_t *ciphers, char why[KTLS_WHY_MAX])
{
	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++)
		if (attempt(p, what, c, why))
			*ciphers |= (uint8_t)(1u << (c - RECORD_AES_128_GCM));
	return *ciphers;
}

static bool all_of(struct probe *p, enum attempt what, uint8_t ciphers, char why[KTLS_WHY_MAX])
{
	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++)
		if (ciphers & 1u << (c - RECORD_AES_128_GCM) && !attempt(p, what, c, why))
			return false;
	return true;
}

static bool allowed(const struct ktls_switch *sw, enum ktls_feature f)
{
	bool receives = f == KTLS_FEATURE_RX || f == KTLS_FEATURE_RX_NO_PAD;

	return (sw->mode == KTLS_ON || (sw->mode == KTLS_TX && !receives)) && !sw->disabled[f];
}

static void forbid(struct ktls_features *f, enum ktls_feature which, const char *why)
{
	f->has[which] = false;
	f->off[which] = true;
	snprintf(f->why[which], KTLS_WHY_MAX, "%s", why);
}

static void try_all(struct probe *p, const struct ktls_switch *sw, struct ktls_features *f)
{
	bool *has = f->has;

	p->left_ms = KTLS_PROBE_MS;
	for (size_t i = 0; i < TRIAL_TEXT_MAX; i++)
		p->text[i] = (uint8_t)(i * 31 + (i >> 8));
	if (allowed(sw, KTLS_FEATURE_TX))
		has[KTLS_FEATURE_TX] = direction(p, TRY_TX, &f->ciphers[0], f->why[KTLS_FEATURE_TX]);
	if (allowed(sw, KTLS_FEATURE_RX))
		has[KTLS_FEATURE_RX] = direction(p, TRY_RX, &f->ciphers[1], f->why[KTLS_FEATURE_RX]);
	if (allowed(sw, KTLS_FEATURE_RX_NO_PAD) && has[KTLS_FEATURE_RX])
		has[KTLS_FEATURE_RX_NO_PAD] = all_of(p, TRY_NO_PAD, f->ciphers[1], f->why[KTLS_FEATURE_RX_NO_PAD]);
	if (allowed(sw, KTLS_FEATURE_REKEY) && (has[KTLS_FEATURE_TX] || has[KTLS_FEATURE_RX]))
		has[KTLS_FEATURE_REKEY] = all_of(p, TRY_TX_REKEY, f->ciphers[0], f->why[KTLS_FEATURE_REKEY]) &&
					  all_of(p, TRY_RX_REKEY, f->ciphers[1], f->why[KTLS_FEATURE_REKEY]);
}

static void probe_run(const struct ktls_switch *sw, struct ktls_features *f)
{
	struct probe *p = calloc(1, sizeof *p);

	if (p)
		p->pool = record_pool_new(2);
	if (p && p->pool)
		try_all(p, sw, f);
	else
		snprintf(f->why[KTLS_FEATURE_TX], KTLS_WHY_MAX, "out of memory");
	record_pool_free(p ? p->pool : NULL);
	free(p);
}

void ktls_probe(const struct ktls_switch *sw, struct ktls_features *f)
{
	memset(f, 0, sizeof *f);
	if (sw->mode == KTLS_TX || sw->mode == KTLS_ON)
		probe_run(sw, f);
	for (unsigned i = 0; i < KTLS_FEATURES; i++) {
		if (!allowed(sw, i))
			forbid(f, i, sw->mode == KTLS_AUTO ? "the tunnel's own way costs less" : "switched off");
		else if (!f->has[i] && !*f->why[i]) /* not tried: what it needs is not there */
			memcpy(f->why[i], f->why[i == KTLS_FEATURE_RX_NO_PAD ? KTLS_FEATURE_RX : KTLS_FEATURE_TX],
			       KTLS_WHY_MAX);
		else if (f->has[i])
			*f->why[i] = '\0';
	}
}
