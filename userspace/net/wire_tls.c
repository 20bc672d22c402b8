/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what TLS means for a wire: which roots count, what is offered, whose certificate is right, and the words for what
 * went wrong. The bytes are wire.c's. */
#include <errno.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <string.h>
#include <unistd.h>

#include "base/addr.h"
#include "net/wire_internal.h"

static bool is_ip(const char *host)
{
	struct addr a;

	return addr_parse(&a, host) == 0;
}

static bool roots_from_text(SSL_CTX *ctx, const char *pem)
{
	BIO *in = BIO_new_mem_buf(pem, -1);
	X509 *x;
	bool any = false;

	while (in && (x = PEM_read_bio_X509(in, NULL, NULL, NULL))) {
		any |= X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) == 1;
		X509_free(x);
	}
	BIO_free(in);
	return any;
}

static bool roots_load(SSL_CTX *ctx, const char *root)
{
	if (!strcmp(root, "SYSTEM"))
		return SSL_CTX_set_default_verify_paths(ctx) == 1;
	if (access(root, F_OK) == 0)
		return SSL_CTX_load_verify_file(ctx, root) == 1;
	return roots_from_text(ctx, root);
}

bool wire_root_usable(const char *root)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	bool usable = ctx && roots_load(ctx, root);

	SSL_CTX_free(ctx);
	ERR_clear_error();
	return usable;
}

const char *wire_tls_new(const struct wire_options *o, int fd, SSL **out)
{
	static const unsigned char h2[] = {2, 'h', '2'};
	SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
	const char *wrong = NULL;
	SSL *ssl = NULL;

	if (!ctx)
		return "out of memory";
	SSL_CTX_set_min_proto_version(ctx, o->tls12 ? TLS1_2_VERSION : TLS1_3_VERSION);
	SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
	SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
				      SSL_MODE_RELEASE_BUFFERS);
	SSL_CTX_set_alpn_protos(ctx, h2, sizeof h2);
	if (!roots_load(ctx, o->root))
		wrong = "no usable root certificates";
	else if (o->pqc && SSL_CTX_set1_groups_list(ctx, "X25519MLKEM768") != 1)
		wrong = "OpenSSL does not know the key exchange X25519MLKEM768";
	else if (!(ssl = SSL_new(ctx)) || !SSL_set_fd(ssl, fd) ||
		 (!is_ip(o->host) && !SSL_set_tlsext_host_name(ssl, o->host)))
		wrong = "out of memory";
	SSL_CTX_free(ctx);
	ERR_clear_error();
	if (wrong) {
		SSL_free(ssl);
		return wrong;
	}
	SSL_set_connect_state(ssl);
	*out = ssl;
	return NULL;
}

static bool name_matches(X509 *cert, const char *name)
{
	return is_ip(name) ? X509_check_ip_asc(cert, name, 0) == 1
			   : X509_check_host(cert, name, 0, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS, NULL) == 1;
}

/* Names are checked here and not by the library, which can demand a name and an address but not one of both. */
bool wire_tls_is_meant(const SSL *ssl, const struct wire_options *o)
{
	X509 *cert = SSL_get0_peer_certificate(ssl);

	return cert && (name_matches(cert, o->host) || (o->alt_host && name_matches(cert, o->alt_host)));
}

const char *wire_tls_error(const SSL *ssl, int code)
{
	long verify = SSL_get_verify_result(ssl);
	unsigned long e = ERR_peek_error();
	const char *reason = e ? ERR_reason_error_string(e) : NULL;

	if (verify != X509_V_OK)
		return X509_verify_cert_error_string(verify);
	if (reason)
		return reason;
	return code == SSL_ERROR_SYSCALL && errno ? strerror(errno) : "connection closed";
}
