/* SPDX-License-Identifier: Apache-2.0 */
/* Workload keys and certificate signing requests: a fresh P-256 key, an empty subject and one critical URI SAN. */
#pragma once
#include <stddef.h>

/* PEM texts: the key's is for pem_key_free(), the other malloc'ed. 0, -ENOMEM, or -EIO when the library fails. */
int csr_new(const char *spiffe, char **key_pem, char **csr_pem);
/* The first URI SAN that a request asks for; malloc'ed. NULL: there is none, or it is no request. */
char *csr_identity(const char *csr_pem);
/* Frees a PEM text that holds a key, after wiping it. */
void pem_key_free(char *pem);
