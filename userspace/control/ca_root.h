/* SPDX-License-Identifier: Apache-2.0 */
/* A root certificate and its key in memory, and the certificates that it signs. */
#pragma once
#include "control/ca.h"

struct ca_root;

/* From PEM files, or made now (P-256) when both are NULL. NULL on failure, with one line in `why`. */
struct ca_root *ca_root_new(const char *cert_path, const char *key_path, char why[CA_WHY_MAX]);
void ca_root_free(struct ca_root *r);
const char *ca_root_pem(const struct ca_root *r);
/* Writes certificate and key (the key with mode 0600). 0 or -errno. */
int ca_root_save(const struct ca_root *r, const char *cert_path, const char *key_path);

/* Signs the request's key for an identity (a SPIFFE ID; names in the request are ignored), for client and server
 * roles. Validity is cut to the root's. The leaf as PEM, malloc'ed; NULL with one line in `why`. */
char *ca_root_sign(const struct ca_root *r, const char *csr_pem, const char *spiffe, long ttl_s, char why[CA_WHY_MAX]);
/* A server's key and certificate for host names and IP addresses. 0 or -errno. */
int ca_root_server(const struct ca_root *r, const char *const *hosts, unsigned n, struct ca_cert *out);
