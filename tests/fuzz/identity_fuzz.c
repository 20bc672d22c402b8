/* SPDX-License-Identifier: Apache-2.0 */
/* Identities as certificates carry them: what reads as one has exactly its five parts, and is written back as the same
 * text; what a name would turn into somebody else's identity is not written at all. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "state/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = strndup((const char *)data, size), again[IDENTITY_MAX];
	struct identity id, read;

	if (identity_parse(&id, text) == 0) {
		char *td = strndup(id.trust_domain, id.trust_domain_len);
		char *ns = strndup(id.ns, id.ns_len), *sa = strndup(id.sa, id.sa_len);

		require(identity_format(again, td, ns, sa) == 0 && strcmp(again, text) == 0);
		free(td);
		free(ns);
		free(sa);
	}
	if (identity_format(again, "td", text, "sa") == 0) {
		require(identity_parse(&read, again) == 0);
		require(read.ns_len == strlen(text) && memcmp(read.ns, text, read.ns_len) == 0 && read.sa_len == 2);
	}
	free(text);
	return 0;
}
