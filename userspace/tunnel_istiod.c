// SPDX-License-Identifier: Apache-2.0
/* How the configuration says where istiod is and who we are to it. What cannot work is said at the start. */
#include "tunnel_istiod.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern char **environ;

int istiod_headers_read(struct istiod_headers *h, const char *prefix, char why[CONFIG_WHY_MAX])
{
	size_t skip = strlen(prefix);

	h->n = 0;
	for (char **e = environ; *e; e++) {
		const char *eq = strchr(*e, '='), *name = *e + skip;
		size_t len;
		char *to;

		if (strncmp(*e, prefix, skip) != 0 || !eq)
			continue;
		len = (size_t)(eq - name);
		if (h->n == ISTIOD_HEADERS_MAX || !len || len >= ISTIOD_HEADER_NAME_MAX) {
			snprintf(why, CONFIG_WHY_MAX, "%.*s: at most %d headers with names of %d bytes are taken",
				 (int)(eq - *e), *e, ISTIOD_HEADERS_MAX, ISTIOD_HEADER_NAME_MAX - 1);
			return -1;
		}
		to = h->names[h->n];
		for (size_t i = 0; i < len; i++)
			to[i] = (char)tolower((unsigned char)name[i]);
		to[len] = '\0';
		h->all[h->n++] = (struct grpc_header){to, eq + 1};
	}
	return 0;
}

/* The default names a file of Kubernetes; without it there is no authentication. */
const char *istiod_token(const struct tunnel_config *c)
{
	bool given = getenv("AUTH_TOKEN");

	return *c->auth_token && (given || access(c->auth_token, F_OK) == 0) ? c->auth_token : NULL;
}

static bool root_is_usable(const char *root)
{
	return !strcmp(root, "SYSTEM") || access(root, R_OK) == 0 || strstr(root, "-----BEGIN CERTIFICATE-----");
}

/* What is said in clear is said on this machine. */
static bool is_secret(const char *address)
{
	static const char *const own[] = {"http://127.", "http://localhost:", "http://[::1]:"};

	if (strncmp(address, "http://", 7) != 0)
		return true;
	for (unsigned i = 0; i < sizeof own / sizeof *own; i++)
		if (!strncmp(address, own[i], strlen(own[i])))
			return true;
	return false;
}

char *istiod_address(const char *variable, const char *address, const char *root_variable, const char *root,
		     char why[CONFIG_WHY_MAX])
{
	char *whole;

	if (!is_secret(address)) {
		snprintf(why, CONFIG_WHY_MAX, "%s: \"%.256s\" would send the token in clear; only https is taken",
			 variable, address);
		return NULL;
	}
	if (strncmp(address, "http://", 7) != 0 && !root_is_usable(root)) {
		snprintf(why, CONFIG_WHY_MAX,
			 "%s: \"%.256s\" is not a readable file, nor SYSTEM, nor a PEM certificate", root_variable,
			 root);
		return NULL;
	}
	if (asprintf(&whole, "%s%s", strstr(address, "://") ? "" : "https://", address) >= 0)
		return whole;
	snprintf(why, CONFIG_WHY_MAX, "out of memory");
	return NULL;
}
