/* SPDX-License-Identifier: Apache-2.0 */
/* Names of pods: what Kubernetes allows, and uids. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <uuid/uuid.h>

#include "node/pods.h"

/* RFC 1123: labels of lower-case letters, digits and "-", which neither begin nor end with it, joined by dots. */
static bool name_valid(const char *s, size_t len, bool dots)
{
	char before = '.';

	for (size_t i = 0; i < len; i++) {
		char c = s[i], after = i + 1 < len ? s[i + 1] : '.';
		bool inner = islower((unsigned char)c) || isdigit((unsigned char)c);

		if (!inner && !(c == '-' && before != '.' && after != '.') &&
		    !(c == '.' && dots && before != '.' && i + 1 < len))
			return false;
		before = c;
	}
	return len > 0;
}

static bool part_take(const char **text, char *out, size_t cap, bool dots, bool last)
{
	size_t len = strcspn(*text, "/");

	if (len >= cap || !name_valid(*text, len, dots) || ((*text)[len] == '/') == last)
		return false;
	memcpy(out, *text, len);
	out[len] = '\0';
	*text += len + !last;
	return true;
}

int pod_identity_parse(struct pod_identity *out, const char *text, char why[POD_WHY_MAX])
{
	struct pod_identity id = {.ns = ""};
	const char *p = text;

	if (!part_take(&p, id.ns, sizeof id.ns, false, false) || !part_take(&p, id.name, sizeof id.name, true, false) ||
	    !part_take(&p, id.sa, sizeof id.sa, true, true)) {
		snprintf(
			why, POD_WHY_MAX,
			"identity \"%.300s\": want NAMESPACE/NAME/SERVICEACCOUNT, each a Kubernetes name (a-z, 0-9, -)",
			text);
		return -EINVAL;
	}
	*out = id;
	return 0;
}

void pod_uid_make(char uid[POD_UID_MAX], uint64_t cookie)
{
	/* The namespace of these UUIDs, a random one of our own. */
	static const uuid_t ours = {0x8c, 0x1d, 0x5e, 0x07, 0x3a, 0x6b, 0x4f, 0x92,
				    0xa4, 0xe0, 0x29, 0xd7, 0x5b, 0x13, 0xc8, 0x6f};
	char text[24];
	uuid_t u;

	snprintf(text, sizeof text, "%llu", (unsigned long long)cookie);
	uuid_generate_sha1(u, ours, text, strlen(text));
	uuid_unparse_lower(u, uid);
}

bool pod_uid_valid(const char *uid)
{
	size_t len = strlen(uid);

	if (!len || len >= POD_UID_MAX || uid[0] == '.')
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)uid[i]) && !strchr("-_.", uid[i]))
			return false;
	return true;
}
