// SPDX-License-Identifier: Apache-2.0
/* Owns the order in which a name's meanings are tried: the name itself, what it may stand for in Kubernetes, then the
 * same without each search domain. Of each: the service, a pod behind it, and wildcards, the longest first. */
#include "state/dns_name.h"

#include <stdio.h>
#include <string.h>

struct search {
	const struct dns_asker *a;
	bool v6;
	enum dns_verdict verdict;
	struct dns_found *out;
	bool wildcard; /* what was found */
};

/* --- texts ---------------------------------------------------------------------------------------------- */

static unsigned count_labels(const char *name)
{
	unsigned n = *name != '\0';

	for (; *name; name++)
		n += *name == '.';
	return n;
}

bool dns_name_below(const char *name, const char *domain)
{
	size_t n = strlen(name), d = strlen(domain);

	return d && n > d + 1 && name[n - d - 1] == '.' && !strcmp(name + n - d, domain);
}

/* "svc" before the cluster's domain. NULL, or where the label begins in `name`. */
static const char *services_part(const char *name, const char *domain)
{
	size_t n = strlen(name), d = strlen(domain);
	const char *svc = n > d + 5 ? name + n - d - 4 : NULL;

	return svc && svc[-1] == '.' && !strncmp(svc, "svc.", 4) && !strcmp(svc + 4, domain) ? svc : NULL;
}

/* --- addresses ------------------------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *x)
{
	*x += 0x9e3779b97f4a7c15ull;
	uint64_t z = (*x ^ (*x >> 30)) * 0xbf58476d1ce4e5b9ull;

	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return z ^ (z >> 31);
}

/* The `seen`-th of those that there are; beyond the room one takes another's place by chance. */
static void take(struct dns_found *out, const struct addr *ip, unsigned seen, uint64_t *random)
{
	uint64_t at = seen < DNS_ADDRS_MAX ? seen : next_random(random) % (seen + 1);

	if (at >= DNS_ADDRS_MAX)
		return;
	out->at[at] = *ip;
	out->n += seen < DNS_ADDRS_MAX;
}

static void shuffle(struct dns_found *out, uint64_t *random)
{
	for (unsigned i = out->n; i > 1; i--) {
		unsigned k = (unsigned)(next_random(random) % i);
		struct addr other = out->at[k];

		out->at[k] = out->at[i - 1];
		out->at[i - 1] = other;
	}
}

static const struct addr *first_of_family(const struct workload *w, bool v6)
{
	for (unsigned i = 0; i < w->n_ips; i++)
		if (addr_is4(&w->ips[i]) != v6)
			return &w->ips[i];
	return NULL;
}

/* A headless service's endpoints count on whatever network they are. */
static void service_addresses(struct search *s, const struct service *v)
{
	uint64_t random = s->a->random;
	unsigned seen = 0, hosts = 0;

	for (unsigned i = 0; i < v->n_vips; i++) {
		const struct vip *p = &v->vips[i];

		if (!vip_is_host(p))
			continue;
		hosts++;
		if (addr_is4(&p->addr.ip) != s->v6 && !strcmp(p->addr.network, s->a->who->network))
			take(s->out, &p->addr.ip, seen++, &random);
	}
	for (unsigned i = 0; !hosts && i < v->n_endpoints; i++) {
		const struct addr *ip = first_of_family(v->endpoints[i].workload, s->v6);

		if (ip)
			take(s->out, ip, seen++, &random);
	}
	shuffle(s->out, &random);
}

static bool family_allowed(const struct search *s, const struct service *v)
{
	enum ip_families f = v ? v->ip_families : FAMILIES_ANY;

	return f == FAMILIES_ANY || f == FAMILIES_DUAL || (f == FAMILIES_IPV6) == s->v6;
}

/* --- services and pods ---------------------------------------------------------------------------------- */

/* One without an address is the mesh's to answer for only where Kubernetes would list its endpoints. */
static bool answers(const struct service *v, const void *domain)
{
	for (unsigned i = 0; i < v->n_vips; i++)
		if (vip_is_host(&v->vips[i]))
			return true;
	return services_part(v->hostname, domain) != NULL;
}

static bool try_service(struct search *s, const char *name)
{
	const struct dns_zone *z = s->a->zone;
	const struct service *v = store_service_for_name(
		s->a->store, name, &(struct name_choice){s->a->who->ns, z->preferred, answers, z->domain});

	if (!v)
		return false;
	s->verdict = DNS_NO_FAMILY;
	if ((z->ipv6 || !s->v6) && family_allowed(s, v)) {
		service_addresses(s, v);
		s->verdict = s->out->n ? DNS_FOUND : DNS_EMPTY;
	}
	return true;
}

/* Kubernetes writes an address into a label with dashes. */
static bool label_is_address(const char *label, size_t len, struct addr *ip)
{
	char text[ADDR_STRLEN];

	if (len >= sizeof text)
		return false;
	for (unsigned v6 = 0; v6 < 2; v6++) {
		for (size_t i = 0; i < len; i++)
			text[i] = label[i] != '-' ? label[i] : v6 ? ':' : '.';
		text[len] = '\0';
		if (addr_parse(ip, text) == 0)
			return true;
	}
	return false;
}

static bool is_named(const struct workload *w, const char *label, size_t len, const struct addr *ip)
{
	if (strlen(w->name) == len && !strncmp(w->name, label, len))
		return true;
	for (unsigned i = 0; ip && i < w->n_ips; i++)
		if (addr_eq(&w->ips[i], ip))
			return true;
	return false;
}

/* The endpoint of this name on the client's network; where clusters share the name, the client's own. */
static const struct workload *find_endpoint(const struct search *s, const struct service *v, const char *label,
					    size_t len)
{
	const struct workload *best = NULL, *who = s->a->who;
	struct addr ip;
	bool by_address = label_is_address(label, len, &ip);

	for (unsigned i = 0; i < v->n_endpoints; i++) {
		const struct workload *w = v->endpoints[i].workload;

		if (!w->n_ips || strcmp(w->ns, v->ns) != 0 || strcmp(w->network, who->network) != 0 ||
		    !is_named(w, label, len, by_address ? &ip : NULL))
			continue;
		if (!best || !strcmp(w->cluster_id, who->cluster_id))
			best = w;
	}
	return best;
}

static void pod_addresses(struct search *s, const struct service *v, const struct workload *w)
{
	const struct addr *ip = first_of_family(w, s->v6);

	s->verdict = DNS_NO_FAMILY;
	if ((!s->a->zone->ipv6 && s->v6) || !family_allowed(s, v))
		return;
	s->verdict = ip ? DNS_FOUND : DNS_EMPTY;
	s->out->n = ip != NULL;
	if (ip)
		s->out->at[0] = *ip;
}

/* POD.SERVICE.NAMESPACE.svc.DOMAIN */
static bool try_endpoint(struct search *s, const char *name)
{
	const char *svc = services_part(name, s->a->zone->domain), *service = strchr(name, '.'), *ns, *end;
	char ns_text[DNS_NAME_MAX];
	const struct service *v;
	const struct workload *w;

	ns = service ? strchr(service + 1, '.') : NULL;
	end = ns ? strchr(ns + 1, '.') : NULL;
	if (!svc || end != svc - 1)
		return false;
	snprintf(ns_text, sizeof ns_text, "%.*s", (int)(end - ns - 1), ns + 1);
	v = store_service_exact(s->a->store, ns_text, service + 1);
	if (!v || (v->visibility == VISIBLE_NAMESPACE && strcmp(v->ns, s->a->who->ns) != 0))
		return false;
	w = find_endpoint(s, v, name, (size_t)(service - name));
	if (w)
		pod_addresses(s, v, w);
	return w != NULL;
}

/* 10-0-0-1.NAMESPACE.pod.DOMAIN */
static bool try_pod_address(struct search *s, const char *name)
{
	const char *ns = strchr(name, '.'), *pod = ns ? strchr(ns + 1, '.') : NULL;
	const struct workload *w;
	struct addr ip;

	if (!pod || strncmp(pod, ".pod.", 5) != 0 || strcmp(pod + 5, s->a->zone->domain) != 0 ||
	    !label_is_address(name, (size_t)(ns - name), &ip))
		return false;
	w = store_workload_by_addr(s->a->store, s->a->who->network, &ip);
	if (!w || strlen(w->ns) != (size_t)(pod - ns - 1) || strncmp(w->ns, ns + 1, strlen(w->ns)) != 0)
		return false;
	s->verdict = DNS_EMPTY;
	if (addr_is4(&ip) != s->v6 && (s->a->zone->ipv6 || !s->v6)) {
		s->out->at[0] = ip;
		s->out->n = 1;
		s->verdict = DNS_FOUND;
	}
	return true;
}

/* --- what a name may mean ------------------------------------------------------------------------------- */

/* One meaning: the name as it is, then "*" in place of its first labels. */
static bool try_name(struct search *s, const char *name)
{
	char wildcard[DNS_NAME_MAX + 1];

	s->wildcard = *name == '*';
	if (!*name)
		return false;
	if (try_service(s, name) || try_endpoint(s, name))
		return true;
	s->wildcard = true;
	for (const char *rest = strchr(name, '.'); rest; rest = strchr(rest + 1, '.')) {
		snprintf(wildcard, sizeof wildcard, "*%s", rest);
		if (try_service(s, wildcard))
			return true;
	}
	return false;
}

/* A name that would be too long means nothing. */
static bool try_joined(struct search *s, const char *name, const char *middle, const char *end)
{
	char text[DNS_NAME_MAX];

	return snprintf(text, sizeof text, "%s.%s%s", name, middle, end) < (int)sizeof text && try_name(s, text);
}

static bool try_below_namespace(struct search *s, const char *name)
{
	char middle[DNS_NAME_MAX];

	snprintf(middle, sizeof middle, "%s.svc.", s->a->who->ns);
	return try_joined(s, name, middle, s->a->zone->domain);
}

/* The name, and what it may be short for: SERVICE, SERVICE.NAMESPACE, POD.SERVICE, and so on. */
static bool try_expanded(struct search *s, const char *name)
{
	const char *domain = s->a->zone->domain;
	unsigned labels = count_labels(name);
	bool svc = dns_name_below(name, "svc");

	if (try_name(s, name))
		return true;
	switch (labels) {
	case 1:
		return try_below_namespace(s, name);
	case 2:
		return try_joined(s, name, "svc.", domain) || try_below_namespace(s, name);
	case 3:
		return (svc && try_joined(s, name, "", domain)) || try_joined(s, name, "svc.", domain);
	case 4:
		return svc && try_joined(s, name, "", domain);
	default:
		return false;
	}
}

static bool try_without(struct search *s, const char *name, const char *search_domain)
{
	char stripped[DNS_NAME_MAX];

	if (!dns_name_below(name, search_domain))
		return false;
	snprintf(stripped, sizeof stripped, "%.*s", (int)(strlen(name) - strlen(search_domain) - 1), name);
	if (!try_expanded(s, stripped))
		return false;
	if (!s->wildcard)
		memcpy(s->out->alias, stripped, sizeof stripped);
	return true;
}

static bool try_searched(struct search *s, const char *name)
{
	const struct dns_zone *z = s->a->zone;
	char text[DNS_NAME_MAX];

	for (unsigned i = 0; z->dedicated && i < z->n_search; i++)
		if (try_without(s, name, z->search[i]))
			return true;
	if (z->dedicated)
		return false;
	if (snprintf(text, sizeof text, "%s.svc.%s", s->a->who->ns, z->domain) < (int)sizeof text &&
	    try_without(s, name, text))
		return true;
	return (snprintf(text, sizeof text, "svc.%s", z->domain) < (int)sizeof text && try_without(s, name, text)) ||
	       try_without(s, name, z->domain);
}

enum dns_verdict dns_name_find(const struct dns_asker *a, const char *name, bool v6, struct dns_found *out)
{
	struct search s = {.a = a, .v6 = v6, .out = out};

	out->n = 0;
	out->alias[0] = '\0';
	if (try_expanded(&s, name) || try_pod_address(&s, name) || try_searched(&s, name))
		return s.verdict;
	return DNS_UNKNOWN;
}
