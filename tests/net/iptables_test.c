/* SPDX-License-Identifier: Apache-2.0 */
/* The iptables back end in a namespace of its own: what it writes, that it mends, what it leaves to others, and that
 * half a failure is undone. What the rules do to packets is in class_test.py. Programs that fail or hang stand in for
 * iptables in a mount namespace of this process. */
#include <errno.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <libmnl/libmnl.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <cmocka.h>

#include "steer/iptables.h"
#include "steer/seen.h"

enum { TEXT_MAX = 1 << 16 };

static char name[64], dir[] = "/tmp/iptables_test.XXXXXX";
static int netns = -1;
static struct netns_id ns;
static char why[STEER_WHY_MAX];

/* Runs a command line in the namespace; what it prints, without comments and counters, goes to `out`. */
static int in_pod(char out[TEXT_MAX], const char *fmt, ...)
{
	char command[1024], line[1024];
	size_t len = 0;
	va_list ap;
	int n = snprintf(command, sizeof command, "ip netns exec %s ", name);
	FILE *f;

	va_start(ap, fmt);
	vsnprintf(command + n, sizeof command - n, fmt, ap);
	va_end(ap);
	f = popen(command, "re");
	assert_non_null(f);
	if (out)
		*out = 0;
	while (fgets(line, sizeof line, f))
		if (out && *line != '#' && len + strlen(line) < TEXT_MAX) {
			strcpy(out + len, line);
			len += strlen(line);
		}
	return pclose(f);
}

/* Everything that the namespace holds, as text. */
static void snapshot(char out[TEXT_MAX])
{
	assert_int_equal(
		in_pod(out, "sh -c 'for t in iptables-nft ip6tables-nft iptables-legacy ip6tables-legacy; do $t-save "
			    "2>/dev/null; done; for v in -4 -6; do ip $v rule; ip $v route show table 100 2>/dev/null; "
			    "done; true'"),
		0);
}

static unsigned count(const char *text, const char *what)
{
	unsigned n = 0;

	while ((text = strstr(text, what))) {
		text += strlen(what);
		n++;
	}
	return n;
}

static int count_chain(const struct nlmsghdr *h, void *arg)
{
	if (h->nlmsg_type == (NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_NEWCHAIN))
		++*(unsigned *)arg;
	return MNL_CB_OK;
}

/* Chains of nf_tables: an empty hook costs every packet, and keeps conntrack on. */
static unsigned nft_chains(void)
{
	char buf[256];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct nfgenmsg *g = mnl_nlmsg_put_extra_header(h, sizeof *g);
	struct mnl_socket *s;
	unsigned n = 0;
	int e = 1;

	h->nlmsg_type = NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
	g->nfgen_family = AF_UNSPEC;
	g->version = NFNETLINK_V0;
	assert_int_equal(netns_enter(netns, ns.inode), 0);
	s = mnl_socket_open(NETLINK_NETFILTER);
	netns_home();
	assert_non_null(s);
	assert_int_equal(mnl_socket_bind(s, 0, MNL_SOCKET_AUTOPID), 0);
	assert_true(mnl_socket_sendto(s, h, h->nlmsg_len) > 0);
	while (e > 0) {
		char answer[32768];
		ssize_t got = mnl_socket_recvfrom(s, answer, sizeof answer);

		e = got > 0 ? mnl_cb_run(answer, got, 0, 0, count_chain, &n) : -1;
	}
	mnl_socket_close(s);
	assert_int_equal(e, 0);
	return n;
}

static int make_pod(void **state)
{
	char command[256], path[96];

	snprintf(name, sizeof name, "iptables-%d-0-pod", (int)getpid());
	snprintf(command, sizeof command, "ip netns add %s && ip -n %s link set lo up", name, name);
	if (system(command))
		return -1;
	snprintf(path, sizeof path, "/run/netns/%s", name);
	netns = netns_open(path);
	unsetenv("FORCE_IPTABLES_BINARY");
	return netns < 0 ? -1 : netns_identify(netns, &ns);
}

static int drop_pod(void **state)
{
	char command[256];

	close(netns);
	snprintf(command, sizeof command, "ip netns del %s", name);
	return system(command);
}

/* --- what is written ------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	struct steer_config config;
	unsigned raw, mangle, prert, output; /* rules per chain and family */
} configs[] = {
	{"plain", {0}, 0, 2, 2, 4},
	{"dns", {.dns_capture = true}, 2, 2, 2, 6},
	{"bypass", {.bypass_inbound = true}, 0, 2, 0, 4},
	{"virtual interface", {.virtual_ifaces = {"vif0"}}, 0, 2, 4, 4},
	{"two virtual interfaces, bypass", {.bypass_inbound = true, .virtual_ifaces = {"vif0", "br-1.2"}}, 0, 2, 4, 4},
	{"excluded ports", {.exclude_outbound_ports = {80, 53}, .exclude_inbound_ports = {9, 10}}, 0, 2, 4, 7},
};

static void check_family(const char *row, int i, const char *tool)
{
	char text[TEXT_MAX];

	in_pod(text, "%s -w -t mangle -S 2>/dev/null", tool);
	if (count(text, "-A ISTIO_") != configs[i].mangle || count(text, "-j ISTIO_") != 2)
		fail_msg("%s: mangle of %s:\n%s", row, tool, text);
	in_pod(text, "%s -w -t nat -S 2>/dev/null", tool);
	if (count(text, "-A ISTIO_PRERT") != configs[i].prert || count(text, "-A ISTIO_OUTPUT") != configs[i].output ||
	    count(text, "-j ISTIO_") != 2)
		fail_msg("%s: nat of %s:\n%s", row, tool, text);
	in_pod(text, "%s -w -t raw -S 2>/dev/null", tool);
	if (count(text, "-A ISTIO_") != configs[i].raw || count(text, "-j ISTIO_") != (configs[i].raw ? 2 : 0))
		fail_msg("%s: raw of %s:\n%s", row, tool, text);
}

/* Each row is applied over the one before, so this is also how annotations change. */
static void test_configs(void **state)
{
	for (size_t i = 0; i < sizeof configs / sizeof *configs; i++) {
		char once[TEXT_MAX], twice[TEXT_MAX];

		if (iptables_apply(netns, &ns, &configs[i].config, true, why))
			fail_msg("%s: %s", configs[i].name, why);
		check_family(configs[i].name, i, "iptables-nft");
		check_family(configs[i].name, i, "ip6tables-nft");
		snapshot(once);
		if (iptables_whole(netns, &ns, &configs[i].config, why))
			fail_msg("%s: is not whole: %s", configs[i].name, why);
		assert_int_equal(iptables_apply(netns, &ns, &configs[i].config, true, why), 0);
		snapshot(twice);
		if (strcmp(once, twice))
			fail_msg("%s: changes when applied again:\n%s\n%s", configs[i].name, once, twice);
		if (count(once, "fwmark 0x111/0xfff lookup 100") != 2 || count(once, "local default dev lo") != 2)
			fail_msg("%s: rule or route:\n%s", configs[i].name, once);
	}
}

static const struct steer_config dns = {.dns_capture = true};

static void test_ipv6(void **state)
{
	char text[TEXT_MAX];

	assert_int_equal(iptables_apply(netns, &ns, &dns, false, why), 0);
	in_pod(text, "ip6tables-nft-save");
	assert_int_equal(count(text, "ISTIO"), 0);
	in_pod(NULL, "sh -c 'echo 1 >/proc/sys/net/ipv6/conf/lo/disable_ipv6'");
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	in_pod(text, "ip6tables-nft-save");
	assert_int_equal(count(text, "ISTIO"), 0);
	in_pod(text, "ip -6 rule");
	assert_int_equal(count(text, "lookup 100"), 0);
	in_pod(NULL, "sh -c 'echo 0 >/proc/sys/net/ipv6/conf/lo/disable_ipv6'");
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why),
			 0); /* the IPv4 rule that exists does not matter */
	in_pod(text, "ip -6 rule");
	assert_int_equal(count(text, "lookup 100"), 1);
}

static const struct {
	const char *name, *command;
	const char *gone; /* the table that is not whole; NULL: none */
	bool seen;	  /* also by who does not know the configuration */
} damages[] = {
	{"chain emptied", "iptables-nft -t nat -F ISTIO_OUTPUT", "nat", true},
	{"jump removed", "ip6tables-nft -t nat -D OUTPUT -j ISTIO_OUTPUT", "nat", true},
	{"jump doubled", "iptables-nft -t mangle -A PREROUTING -j ISTIO_PRERT", NULL, false},
	{"rule removed", "ip6tables-nft -t nat -D ISTIO_OUTPUT 1", "nat", false},
	{"rule added", "iptables-nft -t nat -I ISTIO_OUTPUT -j RETURN", NULL, false},
	{"flushed, chains stay", "iptables-nft -t nat -F", "nat", true},
	{"flushed, chains stay, DNS only", "ip6tables-nft -t raw -F", "raw", false},
	{"all flushed", "sh -c 'iptables-nft -t nat -F; iptables-nft -t nat -X'", "nat", true},
	{"policy rule removed", "ip -6 rule del pref 32764", NULL, false},
	{"route removed", "ip route del local default dev lo table 100", NULL, true},
};

static void check_whole(size_t i)
{
	char gone[64] = "";
	int e = iptables_whole(netns, &ns, &dns, why);

	if (damages[i].gone)
		snprintf(gone, sizeof gone, "iptables rules are gone from table %s", damages[i].gone);
	if (e != (damages[i].gone ? -ENOENT : 0) || (e && strcmp(why, gone) != 0))
		fail_msg("%s: %d, %s", damages[i].name, e, why);
	e = steer_seen(netns, &ns, STEER_IPTABLES, why);
	if (e != (damages[i].seen ? -ENOENT : 0))
		fail_msg("%s: seen from outside: %d, %s", damages[i].name, e, why);
}

static void test_mending(void **state)
{
	char fresh[TEXT_MAX], mended[TEXT_MAX];

	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	snapshot(fresh);
	for (size_t i = 0; i < sizeof damages / sizeof *damages; i++) {
		assert_int_equal(iptables_whole(netns, &ns, &dns, why), 0);
		assert_int_equal(in_pod(NULL, "%s", damages[i].command), 0);
		snapshot(mended);
		if (!strcmp(fresh, mended))
			fail_msg("%s: no damage done", damages[i].name);
		check_whole(i);
		assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
		snapshot(mended);
		if (strcmp(fresh, mended))
			fail_msg("%s: not mended:\n%s", damages[i].name, mended);
	}
	assert_int_equal(iptables_stop(netns, &ns, why), 0);
	in_pod(mended, "iptables-nft -t nat -S ISTIO_OUTPUT 1");
	assert_string_equal(mended, "-A ISTIO_OUTPUT -j RETURN\n");
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	snapshot(mended);
	assert_string_equal(fresh, mended);
}

/* --- what is left --------------------------------------------------------------------------------------- */

static void test_no_trace(void **state)
{
	char before[TEXT_MAX], after[TEXT_MAX];

	snapshot(before);
	assert_int_equal(iptables_present(netns, &ns, why), 0);
	assert_int_equal(iptables_remove(netns, &ns, why), 0);
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	assert_int_equal(iptables_present(netns, &ns, why), 1);
	assert_true(nft_chains() > 0);
	assert_int_equal(iptables_remove(netns, &ns, why), 0);
	assert_int_equal(iptables_present(netns, &ns, why), 0);
	assert_int_equal(nft_chains(), 0);
	in_pod(after, "sh -c 'iptables-nft-save; ip6tables-nft-save; ip rule; ip -6 rule; ip route show table 100 "
		      "2>/dev/null'");
	assert_int_equal(count(after, "-A ") + count(after, "lookup 100") + count(after, "local default"), 0);
}

static void test_rules_of_others(void **state)
{
	static const char *const theirs[] = {
		"iptables-nft -t nat -A OUTPUT -p tcp --dport 9999 -j REDIRECT --to-ports 1",
		"iptables-nft -t mangle -P OUTPUT DROP",
		"iptables-nft -t nat -N OTHERS",
		"iptables-nft -t nat -A PREROUTING -j OTHERS",
		"ip6tables-nft -t raw -A PREROUTING -j ACCEPT",
		"ip6tables-nft -t nat -A POSTROUTING -j ACCEPT",
		"ip rule add fwmark 0x111 lookup 7 pref 77",
	};
	char before[TEXT_MAX], after[TEXT_MAX];

	for (size_t i = 0; i < sizeof theirs / sizeof *theirs; i++)
		assert_int_equal(in_pod(NULL, "%s", theirs[i]), 0);
	in_pod(before,
	       "sh -c 'iptables-nft-save; ip6tables-nft-save; ip rule; ip -6 rule' | grep -E '^-A|OTHERS|DROP|^[0-9]'");
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	assert_int_equal(iptables_remove(netns, &ns, why), 0);
	in_pod(after,
	       "sh -c 'iptables-nft-save; ip6tables-nft-save; ip rule; ip -6 rule' | grep -E '^-A|OTHERS|DROP|^[0-9]'");
	assert_string_equal(before, after);
}

static void test_back_ends(void **state)
{
	char text[TEXT_MAX];

	setenv("FORCE_IPTABLES_BINARY", "legacy", 1);
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	in_pod(text, "iptables-legacy-save");
	assert_int_equal(count(text, "-j ISTIO_"), 6);
	assert_int_equal(iptables_present(netns, &ns, why), 1);
	setenv("FORCE_IPTABLES_BINARY", "nft", 1); /* does not double them */
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	in_pod(text, "iptables-nft-save");
	assert_int_equal(count(text, "ISTIO_"), 0);
	/* istio-cni, having changed its mind, has doubled them: one set goes. */
	assert_int_equal(in_pod(NULL, "sh -c 'iptables-legacy-save | iptables-nft-restore'"), 0);
	in_pod(text, "iptables-nft-save");
	assert_int_equal(count(text, "-j ISTIO_"), 6);
	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	in_pod(text, "sh -c 'iptables-nft-save; iptables-legacy-save'");
	assert_int_equal(count(text, "-j ISTIO_"), 6);
	unsetenv("FORCE_IPTABLES_BINARY");
	assert_int_equal(iptables_remove(netns, &ns, why), 0);
	snapshot(text);
	assert_int_equal(count(text, "ISTIO_"), 0);
}

/* --- what fails ----------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *iface;
} bad_names[] = {
	{"space", "eth 0"}, {"new line", "eth0\n-A X"}, {"quote", "eth0\""},
	{"option", "-j"},   {"every interface", "+"},	{"wildcard", "eth+"},
	{"negation", "!"},  {"slash", "a/b"},		{"longest and no end", "0123456789abcdef"},
};

static void test_bad_names(void **state)
{
	for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
		struct steer_config c = {0};

		memcpy(c.virtual_ifaces[1], bad_names[i].iface, strnlen(bad_names[i].iface, IFNAMSIZ));
		strcpy(c.virtual_ifaces[0], "fine");
		if (iptables_apply(netns, &ns, &c, true, why) != -EINVAL || !strstr(why, "virtual interface 2"))
			fail_msg("%s: %s", bad_names[i].name, why);
	}
	assert_int_equal(iptables_present(netns, &ns, why), 0);
}

/* /usr/sbin holds what of iptables is wanted, and `script` under the name `bad`. */
static void stand_in(const char *bad, const char *script)
{
	static const char *const programs[] = {"iptables-nft-save", "ip6tables-nft-save", "iptables-nft-restore",
					       "ip6tables-nft-restore"};
	char path[128], target[128];
	FILE *f;

	assert_int_equal(mount("none", "/usr/sbin", "tmpfs", 0, NULL), 0);
	snprintf(target, sizeof target, "%s/xtables-nft-multi", dir);
	for (int i = 0; i < 4; i++) {
		snprintf(path, sizeof path, "/usr/sbin/%s", programs[i]);
		if (strcmp(programs[i], bad))
			assert_int_equal(symlink(target, path), 0);
	}
	if (!script)
		return;
	snprintf(path, sizeof path, "/usr/sbin/%s", bad);
	f = fopen(path, "w");
	assert_non_null(f);
	fprintf(f, "#!/bin/sh\n%s\n", script);
	fclose(f);
	assert_int_equal(chmod(path, 0755), 0);
}

static const struct {
	const char *name, *program, *script;
	int want;
	const char *said;
} failures[] = {
	{"the last of the two fails", "ip6tables-nft-restore", "echo 'line 7: no such target' >&2; exit 1", -EPROTO,
	 "ip6tables-nft-restore failed: line 7: no such target"},
	{"says nothing", "ip6tables-nft-restore", "exit 3", -EPROTO, "no reason given"},
	{"says too much", "iptables-nft-restore", "head -c 1000000 /dev/zero | tr '\\0' 'x' >&2; exit 1", -EPROTO,
	 "xxxx"},
	{"killed by a signal", "iptables-nft-restore", "kill -9 $$", -EPROTO, "failed"},
	{"hangs", "ip6tables-nft-restore", "exec sleep 60", -ETIMEDOUT, "did not end in time"},
	{"hangs, with a child that holds its output", "iptables-nft-restore", "sleep 60 & wait", -ETIMEDOUT, "in time"},
	{"is not there", "ip6tables-nft-restore", NULL, -ENOENT, "not installed"},
};

static void test_failures(void **state)
{
	char before[TEXT_MAX], after[TEXT_MAX];

	for (size_t i = 0; i < sizeof failures / sizeof *failures; i++) {
		int64_t start = time(NULL);
		int e;

		in_pod(before, "sh -c 'iptables-nft-save; ip6tables-nft-save; ip rule; ip -6 rule' | grep -E "
			       "'^-A|ISTIO|^[0-9]'");
		stand_in(failures[i].program, failures[i].script);
		e = iptables_apply(netns, &ns, &dns, true, why);
		assert_int_equal(umount2("/usr/sbin", MNT_DETACH), 0);
		if (e != failures[i].want || !strstr(why, failures[i].said))
			fail_msg("%s: %d %s", failures[i].name, e, why);
		if (time(NULL) - start > STEER_DEADLINE_MS / 1000)
			fail_msg("%s: took %ld s", failures[i].name, (long)(time(NULL) - start));
		in_pod(after, "sh -c 'iptables-nft-save; ip6tables-nft-save; ip rule; ip -6 rule' | grep -E "
			      "'^-A|ISTIO|^[0-9]'");
		if (strcmp(before, after))
			fail_msg("%s: half is left:\n%s", failures[i].name, after);
	}
}

/* A pod that is captured stays so when a change of its rules fails. */
static void test_failure_keeps_capture(void **state)
{
	static const struct steer_config bypass = {.dns_capture = true, .bypass_inbound = true};
	char text[TEXT_MAX];

	assert_int_equal(iptables_apply(netns, &ns, &dns, true, why), 0);
	stand_in("ip6tables-nft-restore", "exit 1");
	assert_int_equal(iptables_apply(netns, &ns, &bypass, true, why), -EPROTO);
	assert_int_equal(umount2("/usr/sbin", MNT_DETACH), 0);
	in_pod(text, "sh -c 'iptables-nft-save -t nat; ip6tables-nft-save -t nat'");
	assert_int_equal(count(text, "-A ISTIO_OUTPUT"), 12);
	in_pod(text, "ip rule");
	assert_int_equal(count(text, "lookup 100"), 1);
}

static int make_room(void **state)
{
	if (unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) || !mkdtemp(dir) ||
	    mount("/usr/sbin", dir, NULL, MS_BIND, NULL))
		return -1;
	return netns_init_thread();
}

static int drop_room(void **state)
{
	umount2(dir, MNT_DETACH);
	return rmdir(dir);
}

int main(void)
{
#define IN_POD(test) cmocka_unit_test_setup_teardown(test, make_pod, drop_pod)
	const struct CMUnitTest tests[] = {
		IN_POD(test_configs),
		IN_POD(test_ipv6),
		IN_POD(test_mending),
		IN_POD(test_no_trace),
		IN_POD(test_rules_of_others),
		IN_POD(test_back_ends),
		IN_POD(test_bad_names),
		IN_POD(test_failures),
		IN_POD(test_failure_keeps_capture),
	};

	if (geteuid() || access("/usr/sbin/iptables-nft-restore", X_OK)) {
		puts("skip iptables: needs root and iptables in /usr/sbin");
		return 0;
	}
	return cmocka_run_group_tests(tests, make_room, drop_room);
}
