/* SPDX-License-Identifier: Apache-2.0 */
/* Sets OpenSSL up for HBONE: what is offered and accepted, and the callbacks by which a handshake tells its
 * struct tls_handshake what happens: traffic secrets, alerts, socket errors. */
#include "net/tls_internal.h"

#include <errno.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#include "base/hex.h"

static const unsigned char alpn_h2[] = {2, 'h', '2'};

/* A client that names protocols must name ours; one that names none never gets here and is taken to speak
 * h2. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *in,
		       unsigned in_len, void *arg)
{
	for (unsigned i = 0; i < in_len; i += in[i] + 1u)
		if (in[i] == 2 && i + 2 < in_len && !memcmp(in + i + 1, "h2", 2)) {
			*out = in + i + 1;
			*out_len = 2;
			return SSL_TLSEXT_ERR_OK;
		}
	return SSL_TLSEXT_ERR_ALERT_FATAL;
}

/* LABEL CLIENT_RANDOM SECRET, the latter two in hexadecimal. */
static void note_secret(const SSL *ssl, const char *line)
{
	struct tls_handshake *h = SSL_get_app_data(ssl);
	bool client = !strncmp(line, "CLIENT_TRAFFIC_SECRET_0 ", 24);
	bool server = !strncmp(line, "SERVER_TRAFFIC_SECRET_0 ", 24);
	bool ours = h->server ? server : client;
	uint8_t *out = ours ? h->secrets.tx : h->secrets.rx;
	const char *p = strrchr(line, ' ');
	size_t n = 0;

	if (!(client || server) || !p)
		return;
	for (p++; p[0] && p[1] && n < RECORD_SECRET_MAX; p += 2) {
		int high = hex_digit(p[0]), low = hex_digit(p[1]);

		if (high < 0 || low < 0)
			return;
		out[n++] = (uint8_t)(high << 4 | low);
	}
	h->secrets.len = n;
	*(ours ? &h->have_tx : &h->have_rx) = true;
}

static void note_alert(const SSL *ssl, int where, int value)
{
	struct tls_handshake *h = SSL_get_app_data(ssl);

	if (!(where & SSL_CB_ALERT))
		return;
	*(where & SSL_CB_READ ? &h->alert_in : &h->alert_out) = value & 0xff;
}

static bool set_groups(SSL_CTX *ctx, bool pqc)
{
	if (pqc)
		return SSL_CTX_set1_groups_list(ctx, "X25519MLKEM768") == 1;
	return SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384:X25519MLKEM768") == 1 ||
	       SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384") == 1;
}

bool tls_has_pqc(void)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());
	bool has = ctx && set_groups(ctx, true);

	SSL_CTX_free(ctx);
	ERR_clear_error();
	return has;
}

static bool set_protocol(SSL_CTX *ctx)
{
	return SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) == 1 &&
	       SSL_CTX_set_ciphersuites(ctx, "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384") == 1 &&
	       SSL_CTX_set_alpn_protos(ctx, alpn_h2, sizeof alpn_h2) == 0 && SSL_CTX_set_num_tickets(ctx, 0) == 1;
}

SSL_CTX *tls_context_new(bool pqc, char why[TLS_REASON_MAX])
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_method());

	if (!ctx || !set_protocol(ctx)) {
		snprintf(why, TLS_REASON_MAX, "OpenSSL cannot be set up for TLS 1.3");
		goto fail;
	}
	if (!set_groups(ctx, pqc)) {
		snprintf(why, TLS_REASON_MAX, "OpenSSL does not know the key exchange %s",
			 pqc ? "X25519MLKEM768" : "X25519");
		goto fail;
	}
	/* The chain is sent as the CA gave it: OpenSSL must not complete it by a search in each handshake. */
	SSL_CTX_set_mode(ctx, SSL_MODE_NO_AUTO_CHAIN);
	/* Sizes the write buffer of each handshake: our longest flight goes in two or three records then. */
	SSL_CTX_set_max_send_fragment(ctx, HANDSHAKE_FRAGMENT);
	SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
	SSL_CTX_set_read_ahead(ctx, 0); /* what follows the handshake belongs to the record layer */
	SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
	SSL_CTX_set_keylog_callback(ctx, note_secret);
	SSL_CTX_set_info_callback(ctx, note_alert);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
	SSL_CTX_set_cert_verify_callback(ctx, tls_verify_peer, NULL);
	/* Any root that was given is an anchor, self-signed or not. */
	X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
	X509_VERIFY_PARAM_set_depth(SSL_CTX_get0_param(ctx), TLS_CHAIN_DEPTH);
	return ctx;
fail:
	SSL_CTX_free(ctx);
	ERR_clear_error();
	return NULL;
}

/* OpenSSL's socket BIO writes without MSG_NOSIGNAL: a peer that hangs up would end the process. */
static int bio_result(BIO *bio, struct tls_handshake *h, ssize_t n, int retry)
{
	BIO_clear_retry_flags(bio);
	if (n >= 0)
		return (int)n;
	if (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)
		BIO_set_flags(bio, retry | BIO_FLAGS_SHOULD_RETRY);
	else
		h->io_error = errno;
	return -1;
}

static int bio_write(BIO *bio, const char *p, int len)
{
	struct tls_handshake *h = BIO_get_data(bio);

	return bio_result(bio, h, send(h->fd, p, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL), BIO_FLAGS_WRITE);
}

static int bio_read(BIO *bio, char *p, int len)
{
	struct tls_handshake *h = BIO_get_data(bio);
	ssize_t n = recv(h->fd, p, (size_t)len, MSG_DONTWAIT);

	if (n == 0)
		h->io_eof = true;
	return bio_result(bio, h, n, BIO_FLAGS_READ);
}

static long bio_ctrl(BIO *bio, int command, long number, void *arg)
{
	struct tls_handshake *h = BIO_get_data(bio);

	if (command == BIO_CTRL_EOF)
		return h->io_eof;
	return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *bio_method;

static void bio_method_make(void)
{
	BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "tls handshake");

	if (m && BIO_meth_set_write(m, bio_write) && BIO_meth_set_read(m, bio_read) && BIO_meth_set_ctrl(m, bio_ctrl))
		bio_method = m;
	else
		BIO_meth_free(m);
}

BIO *tls_bio_new(struct tls_handshake *h)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	BIO *bio;

	pthread_once(&once, bio_method_make);
	bio = bio_method ? BIO_new(bio_method) : NULL;
	if (!bio)
		return NULL;
	BIO_set_data(bio, h);
	BIO_set_init(bio, 1);
	return bio;
}
