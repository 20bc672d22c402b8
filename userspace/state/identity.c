/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the text form of SPIFFE identities. */
#include "state/identity.h"

#include <errno.h>
#include <string.h>

#define SCHEME	"spiffe://"
#define NS_PART "/ns/"
#define SA_PART "/sa/"

/* The part up to the next slash, or to the end for the last one. */
static const char *part_end(const char *s, bool last)
{
	const char *end = strchr(s, '/');

	if (last)
		return end ? NULL : s + strlen(s);
	return end;
}

static bool literal(const char *s, const char *end, const char *want)
{
	return (size_t)(end - s) == strlen(want) && memcmp(s, want, strlen(want)) == 0;
}

int identity_parse(struct identity *out, const char *text)
{
	enum { TRUST_DOMAIN, NS_LITERAL, NS, SA_LITERAL, SA, PARTS };
	const char *start[PARTS], *end[PARTS];

	if (strncmp(text, SCHEME, strlen(SCHEME)) != 0)
		return -EINVAL;
	if (strlen(text) >= IDENTITY_MAX)
		return -ENAMETOOLONG;
	text += strlen(SCHEME);
	for (unsigned i = 0; i < PARTS; i++) {
		start[i] = text;
		end[i] = part_end(text, i == SA);
		if (!end[i])
			return -EINVAL;
		text = end[i] + 1;
	}
	if (end[TRUST_DOMAIN] == start[TRUST_DOMAIN] || !literal(start[NS_LITERAL], end[NS_LITERAL], "ns") ||
	    !literal(start[SA_LITERAL], end[SA_LITERAL], "sa"))
		return -EINVAL;
	*out = (struct identity){
		.trust_domain = start[TRUST_DOMAIN],
		.trust_domain_len = (size_t)(end[TRUST_DOMAIN] - start[TRUST_DOMAIN]),
		.ns = start[NS],
		.ns_len = (size_t)(end[NS] - start[NS]),
		.sa = start[SA],
		.sa_len = (size_t)(end[SA] - start[SA]),
	};
	return 0;
}

static char *append(char *at, const char *text, size_t len)
{
	memcpy(at, text, len);
	return at + len;
}

int identity_format(char buf[IDENTITY_MAX], const char *trust_domain, const char *ns, const char *sa)
{
	size_t td_len = strlen(trust_domain), ns_len = strlen(ns), sa_len = strlen(sa);
	char *at = buf;

	if (!td_len || strchr(trust_domain, '/') || strchr(ns, '/') || strchr(sa, '/'))
		return -EINVAL; /* would read as somebody else */
	if (strlen(SCHEME) + td_len + strlen(NS_PART) + ns_len + strlen(SA_PART) + sa_len >= IDENTITY_MAX)
		return -ENAMETOOLONG;
	at = append(at, SCHEME, strlen(SCHEME));
	at = append(at, trust_domain, td_len);
	at = append(at, NS_PART, strlen(NS_PART));
	at = append(at, ns, ns_len);
	at = append(at, SA_PART, strlen(SA_PART));
	append(at, sa, sa_len + 1);
	return 0;
}
