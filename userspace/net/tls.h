/* SPDX-License-Identifier: Apache-2.0 */
/* The TLS 1.3 handshake of HBONE (OpenSSL), from a connected descriptor to a `struct record`. ALPN is h2, no
 * SNI, no resumption, client certificates are required. When it is over the SSL is freed: only the record
 * remains.
 *
 * A `tls_id` is one workload's credential (key, chain, roots) with what OpenSSL needs to use it in both
 * roles. It is immutable and reference-counted (atomic), so that threads share it and a renewed one replaces
 * it. */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "net/crl.h"
#include "net/record.h"

enum {
	TLS_SPIFFE_MAX = 1024, /* bytes of a SPIFFE ID, with the terminator */
	TLS_EXPECT_MAX = 64,   /* identities that a client accepts */
	TLS_REASON_MAX = 256,
	TLS_SECURE_BYTES = 2 << 20, /* address space for private keys: 64 bytes each, touched as they come */
	TLS_SECURE_MIN = 32,
};

/* Private keys lie in memory of their own from now on, which is locked (never swapped out), not dumped, and wiped when
 * it is let go. Once, before the first key. -1: it cannot be locked; the rest holds all the same. */
int tls_secure_memory(void);

struct tls_id;

/* `key_pem`: the private key; `chain_pem`: leaf first, then intermediates; `roots_pem`: one or more roots.
 * The leaf must carry the key. NULL on failure, with one line in `why`. `pqc`: X25519MLKEM768 only. */
struct tls_id *tls_id_new(const char *key_pem, const char *chain_pem, const char *roots_pem, bool pqc,
			  char why[TLS_REASON_MAX]);
/* Its peers' certificates, and its own, are looked up in these lists, which outlive it. Before it is shared. */
void tls_id_use_lists(struct tls_id *id, struct crls *lists);
/* Whether these name it, or an issuer of it: who has the same lists will refuse it. */
bool tls_id_revoked(const struct tls_id *id); /* any thread */
/* Whether OpenSSL has X25519MLKEM768 (3.5 and later). */
bool tls_has_pqc(void);
struct tls_id *tls_id_ref(struct tls_id *id);
void tls_id_unref(struct tls_id *id);
const char *tls_id_spiffe(const struct tls_id *id); /* the leaf's SPIFFE URI SAN, or "" */
time_t tls_id_not_before(const struct tls_id *id);
time_t tls_id_not_after(const struct tls_id *id);
/* Chain and roots as given (PEM), for dumps. */
const char *tls_id_chain(const struct tls_id *id);
const char *tls_id_roots(const struct tls_id *id);

struct tls_handshake;

/* How many bytes must wait on a server's descriptor until it holds the whole first record of a ClientHello; its header's
 * five while these are not there. 0: it begins with something else, or cannot be read, which the handshake tells. */
uint32_t tls_hello_size(int fd);
/* `expect`: accepted server identities (clients), each a SPIFFE ID text; any-of, exact. Copied.
 * A server takes any client whose identity (see below) has the trust domain of `id`.
 * The fd stays the caller's until tls_handshake_finish() has given it to a record. */
struct tls_handshake *tls_client(int fd, struct tls_id *id, const char *const *expect, unsigned n_expect);
struct tls_handshake *tls_server(int fd, struct tls_id *id);
void tls_handshake_free(struct tls_handshake *h);

/* Goes on. 0: done. -EAGAIN: wait for `*want` (EPOLLIN or EPOLLOUT). Else -errno, and tls_reason() says why:
 * -EACCES the peer's certificate was refused, -EPROTO alert or protocol error, -ECONNRESET the peer went
 * away. */
int tls_handshake_step(struct tls_handshake *h, uint32_t *want);
const char *tls_reason(const struct tls_handshake *h);
/* The peer's identity: its one SPIFFE URI SAN, which was checked; "" before the handshake is over. Valid until
 * tls_handshake_free(). */
const char *tls_peer(const struct tls_handshake *h);
/* What revocation lists say of the peer. */
enum crl_verdict tls_verdict(const struct tls_handshake *h);
/* With CRL_GOOD: what to keep of its certificates, the caller's from then on; else NULL. */
struct crl_path *tls_take_path(struct tls_handshake *h);
/* After step returned 0: hands the descriptor and the traffic secrets to a record. NULL: no memory. */
struct record *tls_handshake_finish(struct tls_handshake *h, struct record_pool *pool);
