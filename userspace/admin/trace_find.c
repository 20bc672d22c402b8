// SPDX-License-Identifier: Apache-2.0
/* From the words of a trace's question to a workload and an address. */
#include <stdio.h>
#include <string.h>

#include "admin/trace.h"

static int no(char why[TRACE_WHY_MAX], const char *fmt, const char *text)
{
	snprintf(why, TRACE_WHY_MAX, fmt, text);
	return -1;
}

/* "NAMESPACE/NAME", or NAME alone. */
static bool names(const char *text, const char *ns, const char *name)
{
	const char *slash = strchr(text, '/');

	if (!slash)
		return strcmp(text, name) == 0;
	return strlen(ns) == (size_t)(slash - text) && strncmp(text, ns, strlen(ns)) == 0 && !strcmp(slash + 1, name);
}

const struct addr *trace_addr(const struct workload *w, const struct addr *like)
{
	for (unsigned i = 0; i < w->n_ips; i++)
		if (addr_is4(&w->ips[i]) == addr_is4(like))
			return &w->ips[i];
	return w->n_ips ? &w->ips[0] : NULL;
}

/* --- the source ----------------------------------------------------------------------------------------- */

enum { NONE, ONE, SEVERAL };

static int find_pod(const struct tunnel_dump *pods, const char *text, const struct dump_pod **out)
{
	int n = 0;

	for (unsigned i = 0; i < pods->n_pods; i++) {
		const struct dump_pod *p = &pods->pods[i];

		if (strcmp(p->uid, text) != 0 && !names(text, p->ns, p->name))
			continue;
		*out = p;
		n++;
	}
	return n > 1 ? SEVERAL : n;
}

struct search {
	const char *text;
	struct workload *found;
	unsigned n;
};

static int look_at(void *arg, struct workload *w)
{
	struct search *s = arg;

	if (names(s->text, w->ns, w->name)) {
		s->found = w;
		s->n++;
	}
	return s->n > 1;
}

static int find_workload(struct store *s, const char *text, struct workload **out, char why[TRACE_WHY_MAX])
{
	struct search q = {.text = text};

	*out = store_workload_by_uid(s, text);
	if (*out)
		return ONE;
	store_each_workload(s, look_at, &q);
	*out = q.found;
	if (q.n > 1)
		no(why, "several workloads are called %.256s; say NAMESPACE/NAME, an address or a uid", text);
	return q.n > 1 ? SEVERAL : (int)q.n;
}

int trace_find_source(struct store *s, const char *network, const struct tunnel_dump *pods, const char *text,
		      struct trace_ends *out, char why[TRACE_WHY_MAX])
{
	const struct dump_pod *p = NULL;
	struct addr ip;
	int n;

	if (addr_parse(&ip, text) == 0) {
		out->source = store_workload_by_addr(s, network, &ip);
		if (!out->source)
			return no(why, "no workload has the address %.256s", text);
	} else {
		n = find_pod(pods, text, &p);
		if (n == SEVERAL)
			return no(why, "several pods of this node are called %.256s; say NAMESPACE/NAME or a uid",
				  text);
		if (n == ONE) {
			out->source = store_local_workload(s, p->ns, p->sa, p->name);
			if (!out->source)
				return no(why,
					  "%.256s is a pod of this node, but the mesh does not know it yet: its "
					  "connections wait",
					  text);
		} else {
			n = find_workload(s, text, &out->source, why);
			if (n != ONE)
				return n == SEVERAL ? -1 : no(why, "no pod, no workload is called %.256s", text);
		}
	}
	for (unsigned i = 0; i < pods->n_pods; i++)
		out->local |=
			!strcmp(pods->pods[i].ns, out->source->ns) && !strcmp(pods->pods[i].name, out->source->name);
	return 0;
}

/* --- the target ----------------------------------------------------------------------------------------- */

struct service_search {
	const char *text, *ns;
	struct service *found;
};

/* As the pod's resolver would complete it: NAME in its own namespace, NAME.NAMESPACE, the whole; or NAMESPACE/NAME. */
static int look_at_service(void *arg, struct service *v)
{
	struct service_search *q = arg;
	size_t n = strlen(q->text);
	bool begins = strncmp(v->hostname, q->text, n) == 0;
	bool meant = begins &&
		     (!v->hostname[n] || (v->hostname[n] == '.' && (strchr(q->text, '.') || !strcmp(v->ns, q->ns))));

	if (strchr(q->text, '/'))
		meant = names(q->text, v->ns, v->name) || names(q->text, v->ns, v->hostname);
	if (meant)
		q->found = v;
	return meant;
}

static const struct addr *service_addr(const struct service *v, const char *network, const struct workload *source)
{
	const struct addr *any = NULL, *like = source->n_ips ? &source->ips[0] : &addr_any4;

	for (unsigned i = 0; i < v->n_vips; i++) {
		const struct vip *p = &v->vips[i];

		if (strcmp(p->addr.network, network) != 0 || p->len != (addr_is4(&p->addr.ip) ? 32 : 128))
			continue;
		if (addr_is4(&p->addr.ip) == addr_is4(like))
			return &p->addr.ip;
		any = any ? any : &p->addr.ip;
	}
	return any;
}

static int by_service(struct service *v, const char *network, const char *text, struct trace_ends *out,
		      char why[TRACE_WHY_MAX])
{
	const struct addr *ip = service_addr(v, network, out->source);
	char buf[ADDR_STRLEN];

	if (!ip)
		return no(why, "service %.256s has no address of its own; say the address that DNS gives the pod",
			  text);
	out->target.ip = *ip;
	snprintf(out->named, sizeof out->named, "%.256s is service %s/%s, at %s", text, v->ns, v->hostname,
		 addr_str(ip, buf));
	return 0;
}

int trace_find_target(struct store *s, const char *network, const char *text, struct trace_ends *out,
		      char why[TRACE_WHY_MAX])
{
	struct service_search q = {text, out->source->ns, store_service_by_host(s, text, out->source->ns)};
	const struct addr *ip;
	struct workload *w;
	char buf[ADDR_STRLEN];
	int n;

	if (addr_parse(&out->target.ip, text) == 0)
		return 0;
	if (!q.found)
		store_each_service(s, look_at_service, &q);
	if (q.found)
		return by_service(q.found, network, text, out, why);
	n = find_workload(s, text, &w, why);
	if (n == SEVERAL)
		return -1;
	if (n == NONE)
		return no(why, "nothing in the mesh is called %.256s; an address would be dialled as it is", text);
	ip = trace_addr(w, out->source->n_ips ? &out->source->ips[0] : &addr_any4);
	if (!ip)
		return no(why, "workload %.256s has no address", text);
	out->target.ip = *ip;
	snprintf(out->named, sizeof out->named, "%.256s is workload %s/%s, at %s", text, w->ns, w->name,
		 addr_str(ip, buf));
	return 0;
}
