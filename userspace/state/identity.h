/* SPDX-License-Identifier: Apache-2.0 */
/* SPIFFE identities of the mesh: spiffe://TRUST_DOMAIN/ns/NAMESPACE/sa/SERVICE_ACCOUNT. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

enum { IDENTITY_MAX = 1024 }; /* bytes of the text, with the terminator */

/* Parts of an identity; they point into the text that was parsed or given and are not terminated there. */
struct identity {
	const char *trust_domain, *ns, *sa;
	size_t trust_domain_len, ns_len, sa_len;
};

/* Exactly five slash-separated parts after the scheme, literal "ns" and "sa", no percent-decoding; parts may be
 * empty except the trust domain. -EINVAL, -ENAMETOOLONG. */
int identity_parse(struct identity *out, const char *text);
/* Writes the text; -ENAMETOOLONG, or -EINVAL for parts that identity_parse() would not give back. */
int identity_format(char buf[IDENTITY_MAX], const char *trust_domain, const char *ns, const char *sa);
