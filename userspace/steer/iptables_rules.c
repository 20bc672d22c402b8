// SPDX-License-Identifier: Apache-2.0
/* The texts: istio-cni's rules as input of iptables-restore --noflush, and what iptables-save tells about them.
 * A chain that is declared is emptied first, so each table comes out whole whatever was there before. */
#include "steer/iptables_internal.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "ports.h"

const char *const iptables_hook_name[IPTABLES_HOOKS] = {"PREROUTING", "OUTPUT"};
const char *const iptables_chain_name[IPTABLES_HOOKS] = {"ISTIO_PRERT", "ISTIO_OUTPUT"};
const char *const iptables_table_name[IPTABLES_TABLES] = {"raw", "mangle", "nat"};

struct family {
	const char *loopback, *probe; /* where the kubelet's probes come from on a node of istio-cni's */
};
static const struct family family4 = {"127.0.0.1/32", "169.254.7.127"};
static const struct family family6 = {"::1/128", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"};

/* --- reading -------------------------------------------------------------------------------------------- */

static bool split(const char *line, const char *before, const char *after, const char **rest)
{
	size_t n = strlen(before), m = strlen(after);

	if (strncmp(line, before, n) != 0 || strncmp(line + n, after, m) != 0)
		return false;
	*rest = line + n + m;
	return **rest == ' ' || **rest == 0;
}

static void read_table(struct iptables_found *f, const char *name)
{
	f->table = IPTABLES_TABLES;
	for (int t = 0; t < IPTABLES_TABLES; t++)
		if (strcmp(name, iptables_table_name[t]) == 0)
			f->table = t;
}

void iptables_read_line(void *arg, const char *line)
{
	struct iptables_found *f = arg;
	const char *rest;

	if (*line == '*') {
		read_table(f, line + 1);
		return;
	}
	if (strncmp(line, "-A ", 3) == 0)
		f->rules++;
	if (f->table == IPTABLES_TABLES)
		return;
	for (int h = 0; h < IPTABLES_HOOKS; h++) {
		if (split(line, ":", iptables_chain_name[h], &rest)) {
			f->at[f->table][h].ours = true;
		} else if (split(line, "-A ", iptables_chain_name[h], &rest)) {
			f->at[f->table][h].rules++;
		} else if (split(line, ":", iptables_hook_name[h], &rest)) {
			if (strncmp(rest, " ACCEPT", 7) != 0)
				f->at[f->table][h].others = true;
		} else if (split(line, "-A ", iptables_hook_name[h], &rest)) {
			if (strncmp(rest, " -j ", 4) == 0 && strcmp(rest + 4, iptables_chain_name[h]) == 0)
				f->at[f->table][h].jumps++;
			else
				f->at[f->table][h].others = true;
		}
	}
}

bool iptables_holds(const struct iptables_found *f, enum iptables_table t)
{
	for (int h = 0; h < IPTABLES_HOOKS; h++)
		if (f->at[t][h].ours)
			return true;
	return false;
}

bool iptables_holds_any(const struct iptables_found *f)
{
	for (int t = 0; t < IPTABLES_TABLES; t++)
		if (iptables_holds(f, t))
			return true;
	return false;
}

/* --- writing -------------------------------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static void put(struct iptables_text *t, const char *fmt, ...)
{
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(t->s + t->len, sizeof t->s - t->len, fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof t->s - t->len)
		t->overflow = true;
	else
		t->len += (size_t)n;
}

static void put_table(struct iptables_text *t, const struct iptables_found *f, enum iptables_table table)
{
	put(t, "*%s\n", iptables_table_name[table]);
	for (int h = 0; h < IPTABLES_HOOKS; h++)
		put(t, ":%s - [0:0]\n", iptables_chain_name[h]);
	for (int h = 0; h < IPTABLES_HOOKS; h++) {
		if (!f->at[table][h].jumps)
			put(t, "-A %s -j %s\n", iptables_hook_name[h], iptables_chain_name[h]);
		for (unsigned i = 1; i < f->at[table][h].jumps; i++)
			put(t, "-D %s -j %s\n", iptables_hook_name[h], iptables_chain_name[h]);
	}
}

static void put_raw(struct iptables_text *t, const struct iptables_found *f)
{
	put_table(t, f, TABLE_RAW);
	put(t, "-A ISTIO_OUTPUT -p udp --dport 53 -m mark --mark %#x/%#x -j CT --zone 1\n", CULVERT_MARK_AGENT,
	    CULVERT_MARK_MASK);
	put(t, "-A ISTIO_PRERT -p udp --sport 53 -m mark ! --mark %#x/%#x -j CT --zone 1\n", CULVERT_MARK_AGENT,
	    CULVERT_MARK_MASK);
	put(t, "COMMIT\n");
}

static void put_mangle(struct iptables_text *t, const struct iptables_found *f)
{
	put_table(t, f, TABLE_MANGLE);
	put(t, "-A ISTIO_PRERT -m mark --mark %#x/%#x -j CONNMARK --set-xmark %#x/%#x\n", CULVERT_MARK_AGENT,
	    CULVERT_MARK_MASK, CULVERT_MARK_LOCAL, CULVERT_MARK_MASK);
	put(t, "-A ISTIO_OUTPUT -m connmark --mark %#x/%#x -j CONNMARK --restore-mark\n", CULVERT_MARK_LOCAL,
	    CULVERT_MARK_MASK);
	put(t, "COMMIT\n");
}

static void put_inbound(struct iptables_text *t, const struct steer_config *c, const struct family *fam)
{
	for (int i = 0; i < STEER_IFACES_MAX && c->virtual_ifaces[i][0]; i++) {
		put(t, "-A ISTIO_PRERT -i %s -p tcp -j REDIRECT --to-ports %d\n", c->virtual_ifaces[i], PORT_OUTBOUND);
		put(t, "-A ISTIO_PRERT -i %s -p tcp -j RETURN\n", c->virtual_ifaces[i]);
	}
	if (c->bypass_inbound)
		return;
	put(t, "-A ISTIO_PRERT -s %s -p tcp -j ACCEPT\n", fam->probe);
	for (int i = 0; i < STEER_EXCLUDES_MAX && c->exclude_inbound_ports[i]; i++)
		put(t, "-A ISTIO_PRERT -p tcp --dport %u -j RETURN\n", c->exclude_inbound_ports[i]);
	put(t, "-A ISTIO_PRERT ! -d %s -p tcp ! --dport %d -m mark ! --mark %#x/%#x -j REDIRECT --to-ports %d\n",
	    fam->loopback, PORT_HBONE, CULVERT_MARK_AGENT, CULVERT_MARK_MASK, PORT_INBOUND);
}

/* Ours, not istio-cni's: as the BPF programs do it. */
static void put_exclusions(struct iptables_text *t, const struct steer_config *c, bool v6)
{
	char net[ADDR_STRLEN + 4];

	for (unsigned i = 0; i < c->n_exclude_outbound && i < STEER_EXCLUDES_MAX; i++)
		if (addr_is4(&c->exclude_outbound[i].ip) != v6)
			put(t, "-A ISTIO_OUTPUT -d %s -j RETURN\n", prefix_str(&c->exclude_outbound[i], net));
	for (int i = 0; i < STEER_EXCLUDES_MAX && c->exclude_outbound_ports[i]; i++) {
		put(t, "-A ISTIO_OUTPUT -p tcp --dport %u -j RETURN\n", c->exclude_outbound_ports[i]);
		if (c->exclude_outbound_ports[i] == 53)
			put(t, "-A ISTIO_OUTPUT -p udp --dport 53 -j RETURN\n");
	}
}

static void put_outbound(struct iptables_text *t, const struct steer_config *c, const struct family *fam, bool v6)
{
	put(t, "-A ISTIO_OUTPUT -d %s -p tcp -j ACCEPT\n", fam->probe);
	put_exclusions(t, c, v6);
	if (c->dns_capture) {
		put(t, "-A ISTIO_OUTPUT ! -o lo -p udp --dport 53 -m mark ! --mark %#x/%#x -j REDIRECT --to-ports %d\n",
		    CULVERT_MARK_AGENT, CULVERT_MARK_MASK, PORT_DNS);
		put(t, "-A ISTIO_OUTPUT ! -d %s -p tcp --dport 53 -m mark ! --mark %#x/%#x -j REDIRECT --to-ports %d\n",
		    fam->loopback, CULVERT_MARK_AGENT, CULVERT_MARK_MASK, PORT_DNS);
	}
	put(t, "-A ISTIO_OUTPUT -p tcp -m mark --mark %#x/%#x -j ACCEPT\n", CULVERT_MARK_LOCAL, CULVERT_MARK_MASK);
	put(t, "-A ISTIO_OUTPUT ! -d %s -o lo -j ACCEPT\n", fam->loopback);
	put(t, "-A ISTIO_OUTPUT ! -d %s -p tcp -m mark ! --mark %#x/%#x -j REDIRECT --to-ports %d\n", fam->loopback,
	    CULVERT_MARK_AGENT, CULVERT_MARK_MASK, PORT_OUTBOUND);
}

static void put_removal(struct iptables_text *t, const struct iptables_found *f, enum iptables_table table)
{
	if (!iptables_holds(f, table))
		return;
	put(t, "*%s\n", iptables_table_name[table]);
	for (int h = 0; h < IPTABLES_HOOKS; h++) {
		for (unsigned i = 0; i < f->at[table][h].jumps; i++)
			put(t, "-D %s -j %s\n", iptables_hook_name[h], iptables_chain_name[h]);
		if (f->at[table][h].ours)
			put(t, "-F %s\n-X %s\n", iptables_chain_name[h], iptables_chain_name[h]);
	}
	put(t, "COMMIT\n");
}

/* nat comes last, since it is what captures; removal goes the other way. */
void iptables_write_rules(struct iptables_text *t, const struct iptables_found *f, const struct steer_config *c,
			  bool v6)
{
	const struct family *fam = v6 ? &family6 : &family4;

	t->len = 0;
	t->overflow = false;
	if (c->dns_capture)
		put_raw(t, f);
	put_mangle(t, f);
	put_table(t, f, TABLE_NAT);
	put_inbound(t, c, fam);
	put_outbound(t, c, fam, v6);
	put(t, "COMMIT\n");
	if (!c->dns_capture)
		put_removal(t, f, TABLE_RAW);
}

/* The rules stay below, since conntrack and NAT serve the namespace only as long as some rule needs them. */
void iptables_write_stop(struct iptables_text *t, const struct iptables_found *f)
{
	t->len = 0;
	t->overflow = false;
	if (!iptables_holds(f, TABLE_NAT))
		return;
	put(t, "*%s\n", iptables_table_name[TABLE_NAT]);
	for (int h = 0; h < IPTABLES_HOOKS; h++)
		if (f->at[TABLE_NAT][h].ours)
			put(t, "-I %s 1 -j RETURN\n", iptables_chain_name[h]);
	put(t, "COMMIT\n");
}

void iptables_write_removal(struct iptables_text *t, const struct iptables_found *f)
{
	t->len = 0;
	t->overflow = false;
	for (int table = IPTABLES_TABLES - 1; table >= 0; table--)
		put_removal(t, f, table);
}

void iptables_write_tidying(struct iptables_text *t, const struct iptables_found *f)
{
	t->len = 0;
	t->overflow = false;
	for (int table = 0; table < IPTABLES_TABLES; table++) {
		if (!iptables_holds(f, table))
			continue;
		put(t, "*%s\n", iptables_table_name[table]);
		for (int h = 0; h < IPTABLES_HOOKS; h++)
			if (!f->at[table][h].others)
				put(t, "-X %s\n", iptables_hook_name[h]);
		put(t, "COMMIT\n");
	}
}

/* --- comparing ------------------------------------------------------------------------------------------ */

/* The text is read as if it had been saved. */
enum iptables_table iptables_lacks(const struct iptables_found *f, const struct steer_config *c, bool v6)
{
	struct iptables_found want = {.table = IPTABLES_TABLES};
	struct iptables_text t;
	char *save = NULL;

	iptables_write_rules(&t, &want, c, v6);
	t.s[t.len] = 0;
	for (char *line = strtok_r(t.s, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		iptables_read_line(&want, line);
	for (int table = 0; table < IPTABLES_TABLES; table++)
		for (int h = 0; h < IPTABLES_HOOKS; h++)
			if (f->at[table][h].jumps < want.at[table][h].jumps ||
			    f->at[table][h].rules < want.at[table][h].rules)
				return table;
	return IPTABLES_TABLES;
}
