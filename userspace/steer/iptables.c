/* SPDX-License-Identifier: Apache-2.0 */
/* istio-cni's rules in a pod: looks what is there, then writes, mends or removes them.
 *
 * A survey reads both families of each back end that may hold something. Legacy tables are asked for only where
 * the kernel lists some, since asking iptables-legacy for a table makes it. */
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

enum backend { LEGACY, NFT, PLAIN, BACKENDS };
enum { V4, V6, FAMILIES };

static const struct {
	const char *name, *save[FAMILIES], *restore[FAMILIES];
} programs[BACKENDS] = {
	[LEGACY] = {"legacy",
		    {"iptables-legacy-save", "ip6tables-legacy-save"},
		    {"iptables-legacy-restore", "ip6tables-legacy-restore"}},
	[NFT] = {"nft", {"iptables-nft-save", "ip6tables-nft-save"}, {"iptables-nft-restore", "ip6tables-nft-restore"}},
	[PLAIN] = {"plain", {"iptables-save", "ip6tables-save"}, {"iptables-restore", "ip6tables-restore"}},
};

struct survey {
	bool family[FAMILIES];
	bool works[BACKENDS]; /* it was asked and answered */
	struct iptables_found found[BACKENDS][FAMILIES];
};

/* --- looking -------------------------------------------------------------------------------------------- */

/* The first byte of a file of /proc; 0 when it is empty, -1 when it is not there. */
static int first_byte(const char *path)
{
	FILE *f = fopen(path, "re");
	int c;

	if (!f)
		return -1;
	c = fgetc(f);
	fclose(f);
	return c == EOF ? 0 : c;
}

static int save(enum backend b, int v, struct iptables_found *f, int64_t deadline, char why[STEER_WHY_MAX])
{
	const char *argv[] = {programs[b].save[v], NULL};

	memset(f, 0, sizeof *f);
	f->table = IPTABLES_TABLES;
	return iptables_run(argv, "", 0, iptables_read_line, f, deadline, why);
}

/* `anyway`: also where the kernel lists no legacy tables, to learn whether the program is there. */
static int look_at(struct survey *s, enum backend b, bool anyway, int64_t deadline, char why[STEER_WHY_MAX])
{
	static const char *const tables[FAMILIES] = {"/proc/thread-self/net/ip_tables_names",
						     "/proc/thread-self/net/ip6_tables_names"};

	for (int v = 0; v < FAMILIES; v++) {
		int e;

		if (!s->family[v] || (b == LEGACY && !anyway && first_byte(tables[v]) <= 0))
			continue;
		e = save(b, v, &s->found[b][v], deadline, why);
		s->works[b] = !e;
		if (e)
			return e == -ENOENT || e == -EPROTO ? 0 : e;
	}
	return 0;
}

/* Fails when it cannot be known what is there: no program works, or there was no time. */
static int look(struct survey *s, bool ipv6, int64_t deadline, char why[STEER_WHY_MAX])
{
	int e;

	memset(s, 0, sizeof *s);
	s->family[V4] = true;
	s->family[V6] = ipv6;
	e = look_at(s, LEGACY, false, deadline, why);
	if (!e)
		e = look_at(s, NFT, false, deadline, why);
	if (!e && !s->works[NFT])
		e = look_at(s, LEGACY, true, deadline, why);
	if (!e && !s->works[NFT] && !s->works[LEGACY])
		e = look_at(s, PLAIN, false, deadline, why);
	return e || s->works[LEGACY] || s->works[NFT] || s->works[PLAIN] ? e : -ENOENT;
}

static bool holds(const struct survey *s, enum backend b)
{
	return iptables_holds_any(&s->found[b][V4]) || iptables_holds_any(&s->found[b][V6]);
}

static bool holds_any(const struct survey *s)
{
	return holds(s, LEGACY) || holds(s, NFT) || holds(s, PLAIN);
}

static enum backend choose(const struct survey *s)
{
	const char *forced = getenv("FORCE_IPTABLES_BINARY");

	for (int b = 0; b < BACKENDS; b++)
		if (holds(s, b))
			return b;
	for (int b = 0; b < PLAIN; b++)
		if (forced && strcmp(forced, programs[b].name) == 0)
			return b;
	if (s->works[LEGACY] && s->found[LEGACY][V4].rules + s->found[LEGACY][V6].rules)
		return LEGACY;
	return s->works[NFT] ? NFT : s->works[LEGACY] ? LEGACY : PLAIN;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static int restore(enum backend b, int v, const struct iptables_text *t, int64_t deadline, char why[STEER_WHY_MAX])
{
	const char *argv[] = {programs[b].restore[v], "--noflush", "--wait=2", NULL};

	if (t->overflow) {
		snprintf(why, STEER_WHY_MAX, "the rules do not fit into %d bytes", IPTABLES_TEXT_MAX);
		return -E2BIG;
	}
	return t->len ? iptables_run(argv, t->s, t->len, NULL, NULL, deadline, why) : 0;
}

static int say(int e, const char *what, char why[STEER_WHY_MAX])
{
	if (e)
		snprintf(why, STEER_WHY_MAX, "cannot %s: %s", what, strerror(-e));
	return e;
}

static int set_routing(int v, bool add, char why[STEER_WHY_MAX])
{
	int family = v == V6 ? AF_INET6 : AF_INET, e;

	e = add ? say(rtnl_local_route(family, IPTABLES_TABLE, true), "add the local route", why) : 0;
	if (!e)
		e = say(rtnl_rule(family, CULVERT_MARK_LOCAL, CULVERT_MARK_MASK, IPTABLES_TABLE, IPTABLES_PRIORITY,
				  add),
			add ? "add the policy rule" : "remove the policy rule", why);
	if (!e && !add)
		e = say(rtnl_local_route(family, IPTABLES_TABLE, false), "remove the local route", why);
	return e;
}

static int remove_rules(const struct survey *s, enum backend b, int v, int64_t deadline, char why[STEER_WHY_MAX])
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

static int apply_family(const struct survey *s, int v, const struct steer_config *c, int64_t deadline,
			char why[STEER_WHY_MAX])
{
	enum backend b = choose(s);
	struct iptables_text t;
	int e = set_routing(v, true, why);

	if (e)
		return e;
	iptables_write_rules(&t, &s->found[b][v], c, v == V6);
	e = restore(b, v, &t, deadline, why);
	for (int other = 0; other < BACKENDS && !e; other++)
		if (other != (int)b && holds(s, other))
			e = remove_rules(s, other, v, deadline, why);
	return e;
}

/* The first error counts, but everything is tried. */
static int remove_all(bool ipv6, int64_t deadline, char why[STEER_WHY_MAX])
{
	struct survey s;
	char other[STEER_WHY_MAX] = "";
	int first = look(&s, ipv6, deadline, why);

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

static int enter(int fd, const struct netns_id *ns, bool *was_there, char why[STEER_WHY_MAX])
{
	int e = netns_init_thread();

	*was_there = netns_inside(ns->inode);
	if (!e)
		e = netns_enter(fd, ns->inode);
	return say(e, "enter the pod's network namespace", why);
}

static void leave(bool was_there)
{
	if (!was_there)
		netns_home();
}

static bool has_ipv6(void)
{
	return access("/proc/sys/net/ipv6/conf/lo", F_OK) == 0;
}

int iptables_apply(int netns_fd, const struct netns_id *ns, const struct steer_config *c, bool ipv6,
		   char why[STEER_WHY_MAX])
{
	int64_t deadline = monotonic_ms() + STEER_DEADLINE_MS - IPTABLES_UNDO_MS;
	struct survey s;
	bool was_there;
	char ignored[STEER_WHY_MAX];
	int e = check_names(c, why);

	if (!e)
		e = enter(netns_fd, ns, &was_there, why);
	if (e)
		return e;
	ipv6 = ipv6 && first_byte("/proc/sys/net/ipv6/conf/lo/disable_ipv6") == '0';
	e = say(rtnl_lo_up(), "bring lo up", why);
	if (!e)
		e = look(&s, ipv6, deadline, why);
	if (!e) {
		for (int v = 0; v < FAMILIES && !e; v++)
			if (s.family[v])
				e = apply_family(&s, v, c, deadline, why);
		if (e && !holds_any(&s))
			(void)remove_all(ipv6, monotonic_ms() + IPTABLES_UNDO_MS, ignored);
	}
	leave(was_there);
	return e;
}

static int stop_all(const struct survey *s, int64_t deadline, char why[STEER_WHY_MAX])
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
	struct survey s;
	bool was_there;
	int e = enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = look(&s, has_ipv6(), deadline, why);
	if (!e)
		e = stop_all(&s, deadline, why);
	leave(was_there);
	return e;
}

int iptables_remove(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX])
{
	bool was_there;
	int e = enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = remove_all(has_ipv6(), monotonic_ms() + STEER_DEADLINE_MS, why);
	leave(was_there);
	return e;
}

int iptables_present(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX])
{
	struct survey s;
	bool was_there;
	int e = enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = look(&s, has_ipv6(), monotonic_ms() + STEER_DEADLINE_MS, why);
	leave(was_there);
	return e ? e : holds_any(&s);
}
