/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of net/tls share: the credential, the handshake, and what its callbacks note down. */
#pragma once
#include <openssl/ssl.h>

#include "net/record_internal.h"
#include "net/tls.h"

enum {
	TLS_CHAIN_DEPTH = 8,	   /* certificates between a leaf and a root */
	HANDSHAKE_FRAGMENT = 4096, /* bytes of a record that we send in a handshake */
};

struct tls_id {
	unsigned refs;	       /* atomic */
	SSL_CTX *ctx;	       /* for both roles */
	struct crls *lists;    /* or NULL */
	struct crl_path *path; /* its own; NULL: none */
	bool revoked;	       /* by the lists of its first day */
	char *chain, *roots;
	time_t not_before, not_after;
	char spiffe[TLS_SPIFFE_MAX];
};

struct tls_handshake {
	SSL *ssl;
	struct tls_id *id;
	int fd;
	bool server, done;
	int failed;   /* what every further step returns */
	bool refused; /* the peer's certificate did not pass */
	enum crl_verdict verdict;
	struct crl_path *path;
	int io_error; /* errno of the socket; 0: fine, or end of file */
	bool io_eof;
	int alert_in, alert_out; /* description, or -1 */
	struct record_secrets secrets;
	bool have_tx, have_rx;
	char **expect; /* one allocation, texts behind the pointers */
	unsigned n_expect;
	char reason[TLS_REASON_MAX];
	char peer[TLS_SPIFFE_MAX];
};

/* A context for both roles without credential: protocol, groups, ALPN and the callbacks of a handshake. */
SSL_CTX *tls_context_new(bool pqc, char why[TLS_REASON_MAX]);
/* The socket of `h` as a BIO; NULL: no memory. */
BIO *tls_bio_new(struct tls_handshake *h);

bool tls_time(const ASN1_TIME *t, time_t *out);
/* The one SPIFFE identity of a certificate (tls_verify.c). 0, -ENOENT: no URI SAN with the scheme, -EINVAL:
 * more than one URI SAN, or a malformed one. */
int tls_cert_spiffe(X509 *cert, char out[TLS_SPIFFE_MAX]);
/* SSL_CTX_set_cert_verify_callback(): chain, then identity. Notes the peer or the reason in the handshake. */
int tls_verify_peer(X509_STORE_CTX *store, void *arg);
