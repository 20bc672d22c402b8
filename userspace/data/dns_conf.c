// SPDX-License-Identifier: Apache-2.0
/* Owns the reading of /etc/resolv.conf. */
#include "data/dns_conf.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { DNS_PORT = 53, LINE_LEN = 1024 };

static void read_resolver(const char *text, struct dns_resolvers *r)
{
	char ip[64];
	struct endpoint at = {.port = DNS_PORT};

	if (r->n < DNS_RESOLVERS_MAX && sscanf(text, "%63s", ip) == 1 && addr_parse(&at.ip, ip) == 0)
		r->at[r->n++] = at;
}

static void add_search(const char *word, size_t len, struct dns_zone *z)
{
	char *to;

	while (len && word[len - 1] == '.')
		len--;
	if (!len || len >= DNS_NAME_MAX || z->n_search == DNS_SEARCH_MAX)
		return;
	to = z->search[z->n_search++];
	for (size_t i = 0; i < len; i++)
		to[i] = (char)tolower((uint8_t)word[i]);
	to[len] = '\0';
}

/* Of several lines the last one counts. */
static void read_search(const char *text, struct dns_zone *z)
{
	z->n_search = 0;
	for (;;) {
		size_t len;

		text += strspn(text, " \t\r\n");
		len = strcspn(text, " \t\r\n");
		if (!len)
			return;
		add_search(text, len, z);
		text += len;
	}
}

void dns_conf_line(const char *line, struct dns_resolvers *r, struct dns_zone *z)
{
	size_t word = strcspn(line, " \t");

	if (r && word == 10 && !strncmp(line, "nameserver", word))
		read_resolver(line + word, r);
	if (z && word == 6 && (!strncmp(line, "search", word) || !strncmp(line, "domain", word)))
		read_search(line + word, z);
}

static bool read_file(struct dns_resolvers *r, struct dns_zone *z)
{
	FILE *f = fopen("/etc/resolv.conf", "re");
	char line[LINE_LEN];

	if (!f)
		return false;
	while (fgets(line, sizeof line, f))
		dns_conf_line(line, r, z);
	fclose(f);
	return true;
}

const struct dns_resolvers *dns_conf_resolvers(struct dns_conf *c, uint64_t now_ms)
{
	struct dns_resolvers fresh = {.n = 0};

	if (c->read_ms && now_ms - c->read_ms < DNS_CONF_FRESH_MS)
		return &c->resolvers;
	c->read_ms = now_ms;
	if (read_file(&fresh, NULL))
		c->resolvers = fresh;
	return &c->resolvers;
}

void dns_conf_search(struct dns_zone *z)
{
	read_file(NULL, z);
}
