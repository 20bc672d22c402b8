/* SPDX-License-Identifier: Apache-2.0 */
/* istio-cni's rules in a pod: writes, mends or removes them, according to what is there. */
#include "steer/iptables_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "ports.h"
#include "steer/rtnl.h"

static const struct {
	const char *name, *restore[FAMILIES];
} programs[BACKENDS] = {
	[LEGACY] = {"legacy", {"iptables-legacy-restore", "ip6tables-legacy-restore"}},
	[NFT] = {"nft", {"iptables-nft-restore", "ip6tables-nft-restore"}},
	[PLAIN] = {"plain", {"iptables-restore", "ip6tables-restore"}},
};

/* --- writing -------------------------------------------------------------------------------------------- */

static enum iptables_backend choose(const struct iptables_survey *s)
{
	const char *forced = getenv("FORCE_IPTABLES_BINARY");

	for (int b = 0; b < BACKENDS; b++)
		if (iptables_survey_holds(s, b))
			return b;
	for (int b = 0; b < PLAIN; b++)
		if (forced && strcmp(forced, programs[b].name) == 0)
			return b;
	if (s->works[LEGACY] && s->found[LEGACY][V4].rules + s->found[LEGACY][V6].rules)
		return LEGACY;
	return s->works[NFT] ? NFT : s->works[LEGACY] ? LEGACY : PLAIN;
}

static int restore(enum iptables_backend b, int v, const struct iptables_text *t, int64_t deadline,
		   char why[STEER_WHY_MAX])
{
	const char *argv[] = {programs[b].restore[v], "--noflush", "--wait=2", NULL};

	if (t->overflow) {
		snprintf(why, STEER_WHY_MAX, "the rules do not fit into %d bytes", IPTABLES_TEXT_MAX);
		return -E2BIG;
	}
	return t->len ? iptables_run(argv, t->s, t->len, NULL, NULL, deadline, why) : 0;
}

static int set_routing(int v, bool add, char why[STEER_WHY_MAX])
{
	int family = v == V6 ? AF_INET6 : AF_INET, e;

	e = add ? iptables_say(rtnl_local_route(family, IPTABLES_TABLE, true), "add the local route", why) : 0;
	if (!e)
		e = iptables_say(rtnl_rule(family, CULVERT_MARK_LOCAL, CULVERT_MARK_MASK, IPTABLES_TABLE,
					   IPTABLES_PRIORITY, add),
				 add ? "add the policy rule" : "remove the policy rule", why);
	if (!e && !add)
		e = iptables_say(rtnl_local_route(family, IPTABLES_TABLE, false), "remove the local route", why);
	return e;
}

static int remove_rules(const struct iptables_survey *s, enum iptables_backend b, int v, int64_t deadline,
			char why[STEER_WHY_MAX])
{
	struct iptables_text t;
	char ignored[STEER_WHY_MAX];
	int e;

	iptables_write_removal(&t, &s->found[b][v]);
	e = restore(b, v, &t, deadline, why);
	if (!e && b == NFT) {
		iptables_write_tidying(&t, &s->found[b][v]);
		(void)restore(b, v, &t, deadline, ignored); /* others may have rules there since: then they stay */
	}
	return e;
}

static int apply_family(const struct iptables_survey *s, int v, const struct steer_config *c, int64_t deadline,
			char why[STEER_WHY_MAX])
{
	enum iptables_backend b = choose(s);
	struct iptables_text t;
	int e = set_routing(v, true, why);

	if (e)
		return e;
	iptables_write_rules(&t, &s->found[b][v], c, v == V6);
	e = restore(b, v, &t, deadline, why);
	for (int other = 0; other < BACKENDS && !e; other++)
		if (other != (int)b && iptables_survey_holds(s, other))
			e = remove_rules(s, other, v, deadline, why);
	return e;
}

/* The first error counts, but everything is tried. */
static int remove_all(bool ipv6, int64_t deadline, char why[STEER_WHY_MAX])
{
	struct iptables_survey s;
	char other[STEER_WHY_MAX] = "";
	int first = iptables_look(&s, ipv6, deadline, why);

	for (int v = 0; v < (ipv6 ? FAMILIES : 1); v++) {
		for (int b = 0; b < BACKENDS; b++) {
			int e = remove_rules(&s, b, v, deadline, first ? other : why);

			first = first ? first : e;
		}
		int e = set_routing(v, false, first ? other : why);

		first = first ? first : e;
	}
	return first;
}

/* The names come from an annotation and go into a text that iptables-restore parses. */
static int check_names(const struct steer_config *c, char why[STEER_WHY_MAX])
{
	for (int i = 0; i < STEER_IFACES_MAX && c->virtual_ifaces[i][0]; i++) {
		const char *name = c->virtual_ifaces[i];
		size_t len = strnlen(name, IFNAMSIZ);

		for (size_t j = 0; j < len && len < IFNAMSIZ; j++)
			if (!isalnum((unsigned char)name[j]) && (j == 0 || !strchr("._-@", name[j])))
				len = IFNAMSIZ;
		if (len == IFNAMSIZ) {
			snprintf(why, STEER_WHY_MAX, "virtual interface %d: not the name of an interface", i + 1);
			return -EINVAL;
		}
	}
	return 0;
}

/* --- the pod -------------------------------------------------------------------------------------------- */

int iptables_apply(int netns_fd, const struct netns_id *ns, const struct steer_config *c, bool ipv6,
		   char why[STEER_WHY_MAX])
{
	int64_t deadline = monotonic_ms() + STEER_DEADLINE_MS - IPTABLES_UNDO_MS;
	struct iptables_survey s;
	bool was_there;
	char ignored[STEER_WHY_MAX];
	int e = check_names(c, why);

	if (!e)
		e = iptables_enter(netns_fd, ns, &was_there, why);
	if (e)
		return e;
	ipv6 = ipv6 && iptables_wants_ipv6();
	e = iptables_say(rtnl_lo_up(), "bring lo up", why);
	if (!e)
		e = iptables_look(&s, ipv6, deadline, why);
	if (!e) {
		for (int v = 0; v < FAMILIES && !e; v++)
			if (s.family[v])
				e = apply_family(&s, v, c, deadline, why);
		if (e && !iptables_survey_holds_any(&s))
			(void)remove_all(ipv6, monotonic_ms() + IPTABLES_UNDO_MS, ignored);
	}
	iptables_leave(was_there);
	return e;
}

static int stop_all(const struct iptables_survey *s, int64_t deadline, char why[STEER_WHY_MAX])
{
	struct iptables_text t;
	int e = 0;

	for (int b = 0; b < BACKENDS && !e; b++) {
		for (int v = 0; v < FAMILIES && !e; v++) {
			iptables_write_stop(&t, &s->found[b][v]);
			e = restore(b, v, &t, deadline, why);
		}
	}
	return e;
}

int iptables_stop(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX])
{
	int64_t deadline = monotonic_ms() + STEER_DEADLINE_MS;
	struct iptables_survey s;
	bool was_there;
	int e = iptables_enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = iptables_look(&s, iptables_has_ipv6(), deadline, why);
	if (!e)
		e = stop_all(&s, deadline, why);
	iptables_leave(was_there);
	return e;
}

int iptables_remove(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX])
{
	bool was_there;
	int e = iptables_enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = remove_all(iptables_has_ipv6(), monotonic_ms() + STEER_DEADLINE_MS, why);
	iptables_leave(was_there);
	return e;
}
