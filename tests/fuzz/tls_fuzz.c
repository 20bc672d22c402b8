/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes what net/tls reads from strangers. The first byte chooses: a subjectAltName extension (DER), the
 * first bytes of a client to our server, of a server to our client, or a certificate chain in PEM. */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/tls_internal.h"
#include "tls_mint.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len);

#define SPIFFE "spiffe://cluster.local/ns/a/sa/b"

static struct tls_id *id;
static char *key_pem, *root_pem;

static void prepare(void)
{
	struct mint_ca ca = mint_ca("root", NULL);
	struct mint_pem pem = mint_leaf(&ca, &(struct mint_leaf){.san = "URI:" SPIFFE});
	char why[TLS_REASON_MAX];

	id = tls_id_new(pem.key, pem.chain, ca.pem, false, why);
	key_pem = strdup(pem.key);
	root_pem = strdup(ca.pem);
	mint_pem_free(&pem);
	mint_ca_free(&ca);
}

/* What passes must be text that means the same to everybody who reads it later. */
static void fuzz_san(const uint8_t *p, size_t len)
{
	X509 *cert = X509_new();
	ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
	X509_EXTENSION *e;
	char text[TLS_SPIFFE_MAX];

	ASN1_OCTET_STRING_set(value, p, (int)len);
	e = X509_EXTENSION_create_by_NID(NULL, NID_subject_alt_name, 0, value);
	X509_add_ext(cert, e, -1);
	if (!tls_cert_spiffe(cert, text)) {
		const char *path;

		if (strncmp(text, "spiffe://", 9) || strpbrk(text, " \t\r\n?#%@"))
			abort();
		path = strchr(text + 9, '/');
		if (!path || path == text + 9 || strlen(text) >= len)
			abort();
	}
	X509_EXTENSION_free(e);
	ASN1_OCTET_STRING_free(value);
	X509_free(cert);
}

static void fuzz_handshake(const uint8_t *p, size_t len, bool server)
{
	static const char *const expect[] = {SPIFFE};
	struct tls_handshake *h;
	uint32_t want;
	int fd[2], err;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd))
		return;
	h = server ? tls_server(fd[0], id) : tls_client(fd[0], id, expect, 1);
	tls_handshake_step(h, &want);
	if (write(fd[1], p, len) == (ssize_t)len) {
		tls_handshake_step(h, &want);
		shutdown(fd[1], SHUT_WR);
		err = tls_handshake_step(h, &want);
		if (!err || tls_peer(h)[0] || !tls_reason(h)[0])
			abort(); /* nobody can finish without a key */
	}
	tls_handshake_free(h);
	close(fd[0]);
	close(fd[1]);
}

static void fuzz_chain(const uint8_t *p, size_t len)
{
	char *text = strndup((const char *)p, len), why[TLS_REASON_MAX];

	tls_id_unref(tls_id_new(key_pem, text, root_pem, false, why));
	tls_id_unref(tls_id_new(text, root_pem, text, false, why));
	free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	if (!id)
		prepare();
	if (!len)
		return 0;
	switch (p[0] % 4) {
	case 0:
		fuzz_san(p + 1, len - 1);
		break;
	case 1:
		fuzz_handshake(p + 1, len - 1, true);
		break;
	case 2:
		fuzz_handshake(p + 1, len - 1, false);
		break;
	default:
		fuzz_chain(p + 1, len - 1);
	}
	return 0;
}
