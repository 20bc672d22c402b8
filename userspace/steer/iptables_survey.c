/* SPDX-License-Identifier: Apache-2.0 */
/* What a pod holds of istio-cni's rules: both families of each back end that may hold something are read. Legacy tables
 * are asked for only where the kernel lists some, since asking iptables-legacy for a table makes it. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "steer/iptables_internal.h"
#include "steer/seen.h"

static const char *const programs[BACKENDS][FAMILIES] = {
	[LEGACY] = {"iptables-legacy-save", "ip6tables-legacy-save"},
	[NFT] = {"iptables-nft-save", "ip6tables-nft-save"},
	[PLAIN] = {"iptables-save", "ip6tables-save"},
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

static int save(enum iptables_backend b, int v, struct iptables_found *f, int64_t deadline, char why[STEER_WHY_MAX])
{
	const char *argv[] = {programs[b][v], NULL};

	memset(f, 0, sizeof *f);
	f->table = IPTABLES_TABLES;
	return iptables_run(argv, "", 0, iptables_read_line, f, deadline, why);
}

/* `anyway`: also where the kernel lists no legacy tables, to learn whether the program is there. */
static int look_at(struct iptables_survey *s, enum iptables_backend b, bool anyway, int64_t deadline,
		   char why[STEER_WHY_MAX])
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

int iptables_look(struct iptables_survey *s, bool ipv6, int64_t deadline, char why[STEER_WHY_MAX])
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

bool iptables_survey_holds(const struct iptables_survey *s, enum iptables_backend b)
{
	return iptables_holds_any(&s->found[b][V4]) || iptables_holds_any(&s->found[b][V6]);
}

bool iptables_survey_holds_any(const struct iptables_survey *s)
{
	return iptables_survey_holds(s, LEGACY) || iptables_survey_holds(s, NFT) || iptables_survey_holds(s, PLAIN);
}

/* --- the pod's namespace -------------------------------------------------------------------------------- */

int iptables_say(int e, const char *what, char why[STEER_WHY_MAX])
{
	if (e)
		snprintf(why, STEER_WHY_MAX, "cannot %s: %s", what, strerror(-e));
	return e;
}

int iptables_enter(int fd, const struct netns_id *ns, bool *was_there, char why[STEER_WHY_MAX])
{
	int e = netns_init_thread();

	*was_there = netns_inside(ns->inode);
	if (!e)
		e = netns_enter(fd, ns->inode);
	return iptables_say(e, "enter the pod's network namespace", why);
}

void iptables_leave(bool was_there)
{
	if (!was_there)
		netns_home();
}

bool iptables_has_ipv6(void)
{
	return access("/proc/sys/net/ipv6/conf/lo", F_OK) == 0;
}

bool iptables_wants_ipv6(void)
{
	return first_byte("/proc/sys/net/ipv6/conf/lo/disable_ipv6") == '0';
}

/* --- what is asked -------------------------------------------------------------------------------------- */

static int survey(struct iptables_survey *s, int netns_fd, const struct netns_id *ns, bool (*ipv6)(void),
		  char why[STEER_WHY_MAX])
{
	bool was_there;
	int e = iptables_enter(netns_fd, ns, &was_there, why);

	if (e)
		return e;
	e = iptables_look(s, ipv6(), monotonic_ms() + STEER_DEADLINE_MS, why);
	iptables_leave(was_there);
	return e;
}

int iptables_present(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX])
{
	struct iptables_survey s;
	int e = survey(&s, netns_fd, ns, iptables_has_ipv6, why);

	return e ? e : iptables_survey_holds_any(&s);
}

/* One back end has to have all: the other may hold what istio-cni left. */
static enum iptables_table lacks(const struct iptables_survey *s, const struct steer_config *c)
{
	enum iptables_table first = TABLE_NAT, t;

	for (int b = 0; b < BACKENDS; b++) {
		t = IPTABLES_TABLES;
		for (int v = 0; v < FAMILIES && t == IPTABLES_TABLES; v++)
			if (s->family[v])
				t = iptables_lacks(&s->found[b][v], c, v == V6);
		if (t == IPTABLES_TABLES)
			return t;
		if (iptables_survey_holds(s, b))
			first = t;
	}
	return first;
}

int iptables_whole(int netns_fd, const struct netns_id *ns, const struct steer_config *c, char why[STEER_WHY_MAX])
{
	enum iptables_table t;
	struct iptables_survey s;
	int e = survey(&s, netns_fd, ns, iptables_wants_ipv6, why);

	if (e)
		return e;
	t = lacks(&s, c);
	if (t == IPTABLES_TABLES)
		return 0;
	return iptables_survey_holds_any(&s)
		       ? seen_missing(why, "iptables rules are gone from table %s", iptables_table_name[t])
		       : seen_missing(why, "the iptables rules are gone");
}
