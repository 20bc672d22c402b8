/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a TLS handshake, from a connected descriptor to the keys of its record.
 *
 * A handshake steps until it is done or has failed, and stays so. OpenSSL reads record by record (no
 * read-ahead), so that when it is done the socket begins with the first record under the application keys,
 * sequence 0; nor has it sent any (no tickets). That is what lets a fresh struct record continue where the
 * SSL ends. */
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int copy_expect(struct tls_handshake *h, const char *const *expect, unsigned n)
{
	size_t bytes = n * sizeof *h->expect;
	char *text;

	for (unsigned i = 0; i < n; i++)
		bytes += strlen(expect[i]) + 1;
	h->expect = malloc(bytes ? bytes : 1);
	if (!h->expect)
		return -ENOMEM;
	text = (char *)(h->expect + n);
	for (unsigned i = 0; i < n; i++) {
		size_t len = strlen(expect[i]) + 1;

		h->expect[i] = memcpy(text, expect[i], len);
		text += len;
	}
	h->n_expect = n;
	return 0;
}

static struct tls_handshake *handshake_new(int fd, struct tls_id *id, bool server)
{
	struct tls_handshake *h = calloc(1, sizeof *h);
	BIO *bio = NULL;

	if (!h)
		return NULL;
	h->fd = fd;
	h->id = tls_id_ref(id);
	h->server = server;
	h->alert_in = h->alert_out = -1;
	h->ssl = SSL_new(id->ctx);
	if (h->ssl)
		bio = tls_bio_new(h);
	if (!bio) {
		tls_handshake_free(h);
		return NULL;
	}
	SSL_set_bio(h->ssl, bio, bio);
	SSL_set_app_data(h->ssl, h);
	if (server)
		SSL_set_accept_state(h->ssl);
	else
		SSL_set_connect_state(h->ssl);
	return h;
}

struct tls_handshake *tls_client(int fd, struct tls_id *id, const char *const *expect, unsigned n_expect)
{
	struct tls_handshake *h;

	if (n_expect > TLS_EXPECT_MAX)
		return NULL;
	h = handshake_new(fd, id, false);
	if (h && copy_expect(h, expect, n_expect)) {
		tls_handshake_free(h);
		return NULL;
	}
	return h;
}

/* A TLSPlaintext of a handshake: type, version, length (RFC 8446, 5.1). */
uint32_t tls_hello_size(int fd)
{
	enum { PLAINTEXT_MAX = 1 << 14 };
	uint8_t p[RECORD_HEADER];
	ssize_t n = recv(fd, p, sizeof p, MSG_PEEK | MSG_DONTWAIT);
	uint32_t len;

	if (n <= 0 || p[0] != RECORD_HANDSHAKE)
		return 0;
	if (n < RECORD_HEADER)
		return RECORD_HEADER;
	len = (uint32_t)p[3] << 8 | p[4];
	return len <= PLAINTEXT_MAX ? RECORD_HEADER + len : 0;
}

struct tls_handshake *tls_server(int fd, struct tls_id *id)
{
	return handshake_new(fd, id, true);
}

void tls_handshake_free(struct tls_handshake *h)
{
	if (!h)
		return;
	SSL_free(h->ssl);
	tls_id_unref(h->id);
	crl_path_free(h->path);
	free(h->expect);
	OPENSSL_cleanse(&h->secrets, sizeof h->secrets);
	free(h);
}

/* Puts the end of a handshake in words, unless the verification has done so, and chooses its errno. */
static int explain(struct tls_handshake *h)
{
	unsigned long code = ERR_peek_error();
	const char *text = ERR_reason_error_string(code);
	size_t len;

	if (ERR_GET_REASON(code) == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
		h->refused = true;
		snprintf(h->reason, sizeof h->reason, "the client has no certificate");
	}
	if (h->refused) {
		len = strlen(h->reason);
		if (h->alert_out >= 0)
			snprintf(h->reason + len, sizeof h->reason - len, " (sent %s)",
				 record_alert_text((uint8_t)h->alert_out));
		return -EACCES;
	}
	if (h->alert_in >= 0) {
		snprintf(h->reason, sizeof h->reason, "the peer sent %s", record_alert_text((uint8_t)h->alert_in));
		return -EPROTO;
	}
	if (h->io_eof) {
		snprintf(h->reason, sizeof h->reason, "the peer hung up during the handshake");
		return -ECONNRESET;
	}
	if (h->io_error) {
		snprintf(h->reason, sizeof h->reason, "connection lost: %s", strerror(h->io_error));
		return h->io_error == EPIPE ? -ECONNRESET : -h->io_error;
	}
	len = (size_t)snprintf(h->reason, sizeof h->reason, "%s", text ? text : "handshake failure");
	if (h->alert_out >= 0 && len < sizeof h->reason)
		snprintf(h->reason + len, sizeof h->reason - len, " (sent %s)",
			 record_alert_text((uint8_t)h->alert_out));
	return -EPROTO;
}

/* The handshake is over for OpenSSL: is everything there that a record needs? */
static int conclude(struct tls_handshake *h)
{
	const SSL_CIPHER *cipher = SSL_get_current_cipher(h->ssl);

	if (!h->have_tx || !h->have_rx || !cipher || SSL_has_pending(h->ssl) || !h->peer[0]) {
		snprintf(h->reason, sizeof h->reason, "OpenSSL did not hand the connection over");
		return -EPROTO;
	}
	h->secrets.cipher = SSL_CIPHER_get_protocol_id(cipher);
	h->secrets.server = h->server;
	h->done = true;
	return 0;
}

int tls_handshake_step(struct tls_handshake *h, uint32_t *want)
{
	int n, err;

	if (h->done || h->failed)
		return h->failed;
	ERR_clear_error(); /* SSL_get_error() looks at the thread's queue */
	n = SSL_do_handshake(h->ssl);
	if (n == 1)
		return h->failed = conclude(h);
	err = SSL_get_error(h->ssl, n);
	if (err == SSL_ERROR_WANT_READ || err == SSL_ERROR_WANT_WRITE) {
		*want = err == SSL_ERROR_WANT_READ ? EPOLLIN : EPOLLOUT;
		return -EAGAIN;
	}
	h->failed = explain(h);
	ERR_clear_error();
	return h->failed;
}

const char *tls_reason(const struct tls_handshake *h)
{
	return h->reason;
}

const char *tls_peer(const struct tls_handshake *h)
{
	return h->peer;
}

enum crl_verdict tls_verdict(const struct tls_handshake *h)
{
	return h->verdict;
}

struct crl_path *tls_take_path(struct tls_handshake *h)
{
	struct crl_path *path = h->path;

	h->path = NULL;
	return path;
}

struct record *tls_handshake_finish(struct tls_handshake *h, struct record_pool *pool)
{
	return h->done ? record_new(h->fd, &h->secrets, pool) : NULL;
}
