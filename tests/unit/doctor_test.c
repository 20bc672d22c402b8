/* SPDX-License-Identifier: Apache-2.0 */
/* What culvertctl doctor finds in facts that are made up: each row has one thing wrong, or nothing, and says which finding is
 * wanted. That the facts are gathered is tested on a node (tests/e2e/doctor_test.py). */
#include <errno.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "doctor.h"

enum { ALL_CAPS = 1 << CAP_NET_ADMIN | 1 << CAP_NET_RAW | 1 << CAP_SYS_ADMIN | 1 << CAP_SYS_PTRACE };

/* A node on which nothing is wrong; 2027-01-15T08:00:00Z. */
static struct doctor healthy(void)
{
	return (struct doctor){
		.run_dir = "/run/none",
		.bpf_dir = "/sys/fs/bpf/culvert",
		.conf_dir = "",
		.bin_dir = "/none",
		.now = 1800000000,
		.kernel = {.release = "6.12.1",
			   .root = true,
			   .bpffs = true,
			   .cgroup2 = true,
			   .jit = 1,
			   .caps = ALL_CAPS,
			   .clock_synchronized = true},
		.keeper_why = "no keeper listens there",
		.tunnel_why = "no tunnel listens there",
		.keeper = {.name = "keeper", .pid = 10, .files = 20, .files_max = 1000000},
		.tunnel = {.name = "tunnel", .pid = 11, .files = 20, .files_max = 1000000},
	};
}

/* Runs one check. `what`: NULL: nothing but ok; else part of the first finding. Beside one that is not ok, which has an advice,
 * there is nothing but ok. */
static void judge(const char *row, struct doctor *d, void (*check)(struct doctor *d), enum finding_level level,
		  const char *what)
{
	const struct doctor_check rows[] = {{"it", "all is well", NEEDS_NODE, check}};
	const struct finding *f;

	doctor_run(d, rows, 1);
	f = &d->found.at[0];
	if (d->found.n - d->found.count[FINDING_OK] > 1)
		fail_msg("%s: %u findings, the first: %s", row, d->found.n, f->what);
	if (f->level != level)
		fail_msg("%s: level %d: %s", row, f->level, f->what);
	if (what && !strstr(f->what, what))
		fail_msg("%s: said: %s", row, f->what);
	if (!f->advice[0] != (level == FINDING_OK))
		fail_msg("%s: advice \"%s\"", row, f->advice);
	assert_string_equal(f->check, "it");
	assert_int_equal(d->found.count[level], 1);
	free(d->found.at);
	memset(&d->found, 0, sizeof d->found);
}

/* --- the node ----------------------------------------------------------------------------------------------- */

#define BROKEN(name, statement)                       \
	static void name(struct doctor *d)            \
	{                                             \
		struct doctor_kernel *k = &d->kernel; \
		(void)k;                              \
		statement;                            \
	}
BROKEN(nothing, )
BROKEN(old, strcpy(k->release, "5.4.0-generic"))
BROKEN(untested, strcpy(k->release, "5.15.0-91-generic"))
BROKEN(no_lookup, k->features.err[STEER_FEATURE_LOOKUP] = -EINVAL)
BROKEN(no_storage, k->features.err[STEER_FEATURE_STORAGE] = -EINVAL)
BROKEN(no_bpf, k->features.err[STEER_FEATURE_BPF] = -EPERM)
BROKEN(no_cgroup_programs, k->features.err[STEER_FEATURE_CGROUP] = -EINVAL)
BROKEN(no_destroy, k->features.err[STEER_FEATURE_DESTROY] = -EOPNOTSUPP)
BROKEN(no_namespaces, k->features.err[STEER_FEATURE_NAMESPACES] = -EPERM; k->features.err[STEER_FEATURE_TCX] = -EPERM)
BROKEN(clsact_only, k->features.err[STEER_FEATURE_TCX] = -EINVAL)
BROKEN(no_hook, k->features.err[STEER_FEATURE_TCX] = -EINVAL; k->features.err[STEER_FEATURE_CLSACT] = -ENOENT)
BROKEN(no_bpffs, k->bpffs = false; d->status = json_object())
BROKEN(no_bpffs_yet, k->bpffs = false)
BROKEN(no_cgroup2, k->cgroup2 = false)
BROKEN(not_tried, k->tried = -EPERM; k->features.err[STEER_FEATURE_BPF] = -EPERM)
BROKEN(no_root, k->root = false)
BROKEN(no_cap, k->caps &= ~(1ull << CAP_SYS_PTRACE))
BROKEN(interpreted, k->jit = 0)
BROKEN(jit_unseen, k->jit = -1)
BROKEN(no_inotify, k->inotify = -EMFILE)
BROKEN(unsynchronised, k->clock_synchronized = false)
BROKEN(long_ago, d->now = 86400)
BROKEN(files_gone, d->tunnel.files = 900; d->tunnel.files_max = 1000)
BROKEN(files_few, d->keeper.files_max = 1024)
BROKEN(files_unseen, d->keeper.files_max = 0)
BROKEN(foreign, strcpy(d->foreign, "ztunnel (process 77)"))

/* One pod, with which nothing is wrong. */
static struct doctor_pod *pod_of(struct doctor *d)
{
	static struct doctor_pod pod;

	pod = (struct doctor_pod){.ns = "shop", .name = "web", .backlog = 4096, .port_min = 32768, .port_max = 60999};
	d->pod = &pod;
	d->n_pods = 1;
	return &pod;
}

BROKEN(pod_well, pod_of(d))
BROKEN(pod_gone, pod_of(d)->err = -ENOENT)
BROKEN(pod_shut, pod_of(d)->err = -EPERM)
BROKEN(pod_bare, strcpy(pod_of(d)->unsteered, "the lookup program is gone"))
BROKEN(pod_chains, pod_of(d)->istio_chains = true)
BROKEN(pod_backlog, pod_of(d)->backlog = 128)
BROKEN(pod_backlog_unread, pod_of(d)->backlog = -1)
BROKEN(pod_ports, pod_of(d)->port_min = 15000)
BROKEN(pod_ports_below, pod_of(d)->port_min = 1024; d->pod->port_max = 9999)

static const struct {
	const char *name;
	void (*break_it)(struct doctor *d);
	void (*check)(struct doctor *d);
	enum finding_level level;
	const char *what;
} nodes[] = {
	{"a good kernel", nothing, check_kernel, FINDING_OK, "6.12.1"},
	{"too old", old, check_kernel, FINDING_PROBLEM, "5.4.0-generic is too old"},
	{"older than tested", untested, check_kernel, FINDING_WARNING, "5.15.0-91-generic is older"},
	{"no sk_lookup", no_lookup, check_kernel, FINDING_PROBLEM,
	 "no sk_lookup programs (Linux 5.9): Invalid argument"},
	{"no storage in sockets", no_storage, check_kernel, FINDING_PROBLEM, "nothing can be stored in sockets"},
	{"bpf(2) refused", no_bpf, check_kernel, FINDING_PROBLEM, "bpf(2) is refused: Operation not permitted"},
	{"no cgroup programs", no_cgroup_programs, check_kernel, FINDING_WARNING, "CONFIG_CGROUP_BPF"},
	{"no ending of sockets", no_destroy, check_kernel, FINDING_WARNING, "CONFIG_INET_DIAG_DESTROY"},
	{"nowhere to try it: the rest is not blamed", no_namespaces, check_kernel, FINDING_PROBLEM,
	 "no network namespace can be made"},
	{"clsact without tcx", clsact_only, check_kernel, FINDING_NOTE, "by clsact, not by tcx"},
	{"neither hook", no_hook, check_kernel, FINDING_PROBLEM, "neither tcx"},
	{"no bpffs", no_bpffs, check_kernel, FINDING_WARNING, "/sys/fs/bpf/culvert is not on a bpffs"},
	{"no bpffs, and nobody yet who would need it", no_bpffs_yet, check_kernel, FINDING_NOTE, "is not on a bpffs"},
	{"no cgroup2", no_cgroup2, check_kernel, FINDING_WARNING, "cgroup2 is not mounted"},
	{"what was not tried is not blamed", not_tried, check_kernel, FINDING_OK, "was not tried"},
	{"all rights", nothing, check_rights, FINDING_OK, NULL},
	{"not root", no_root, check_rights, FINDING_PROBLEM, "not run as root"},
	{"a capability is missing", no_cap, check_rights, FINDING_PROBLEM, "CAP_SYS_PTRACE is missing"},
	{"settings", nothing, check_settings, FINDING_OK, NULL},
	{"no JIT", interpreted, check_settings, FINDING_WARNING, "bpf_jit_enable is 0"},
	{"the JIT's switch is not to be seen", jit_unseen, check_settings, FINDING_OK, NULL},
	{"no inotify", no_inotify, check_settings, FINDING_PROBLEM, "no inotify instance"},
	{"a clock", nothing, check_clock, FINDING_OK, NULL},
	{"a clock that nobody keeps", unsynchronised, check_clock, FINDING_NOTE, "synchronised"},
	{"a clock that starts at 1970", long_ago, check_clock, FINDING_PROBLEM, "before 2025"},
	{"descriptors", nothing, check_limits, FINDING_OK, NULL},
	{"descriptors run out", files_gone, check_limits, FINDING_PROBLEM, "tunnel, process 11, has 900 of 1000"},
	{"few descriptors", files_few, check_limits, FINDING_WARNING, "keeper, process 10, may open 1024"},
	{"a process that cannot be seen", files_unseen, check_limits, FINDING_OK, NULL},
	{"alone", nothing, check_planes, FINDING_OK, NULL},
	{"another data plane", foreign, check_planes, FINDING_WARNING, "ztunnel (process 77)"},
	{"istio-cni's rules in a pod", pod_chains, check_planes, FINDING_WARNING, "in 1 pod (shop/web)"},
	{"a pod", pod_well, check_steering, FINDING_OK, NULL},
	{"a pod that has gone", pod_gone, check_steering, FINDING_NOTE, "shop/web: its network namespace is gone"},
	{"a pod that cannot be entered", pod_shut, check_steering, FINDING_WARNING, "Operation not permitted"},
	{"a pod that is not steered", pod_bare, check_steering, FINDING_PROBLEM,
	 "shop/web is not steered as a whole, its traffic may be plaintext: the lookup program is gone"},
	{"a short backlog", pod_backlog, check_steering, FINDING_WARNING, "somaxconn is 128 in 1 pod (shop/web)"},
	{"a backlog that cannot be read", pod_backlog_unread, check_steering, FINDING_OK, NULL},
	{"ports of clients among the tunnel's", pod_ports, check_steering, FINDING_NOTE, "is 15000-60999 in 1 pod"},
	{"ports of clients below the tunnel's", pod_ports_below, check_steering, FINDING_OK, NULL},
};

static void test_node(void **state)
{
	for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		struct doctor d = healthy();

		nodes[i].break_it(&d);
		judge(nodes[i].name, &d, nodes[i].check, nodes[i].level, nodes[i].what);
		json_decref(d.status);
	}
}

/* --- the agent's answers ------------------------------------------------------------------------------------- */

#define UP	     "'uptimeSeconds': 900"
#define TUNNEL(more) "{" UP ", 'tunnel': {'connected': true, 'pid': 11, 'ours': true " more "}}"
#define KUBE(more)   "{" UP ", 'kubernetes': {" more "}}"
#define WHOLE	     "'ready': true, 'connected': true"
#define SOCKETS	     "'sockets': ['TCP15001', 'TCP15006', 'TCP15008']"
#define POD(more)    "{'pods': [{'uid': 'u', 'namespace': 'shop', 'name': 'web', 'steering': 'bpf' " more "}]}"
#define ENROLLED     ", 'state': 'enrolled', " SOCKETS
#define DROPS(n)                                                                                             \
	"{'pods': [{'uid': 'u', 'name': 'web', 'counters': [{'name': 'drop_x', 'kind': 'drop', 'value': " #n \
	", 'help': 'meaning'}, {'name': 'out', 'kind': 'decision', 'value': 9}]}]}"
#define CERT(state, from, to)                                                                                   \
	"{'certificates': [{'identity': 'spiffe://x', 'state': '" state "', 'certChain': [{'validFrom': '" from \
	"', 'expirationTime': '" to "'}]}]}"
#define XDS(more)   "{'xds': {'address': 'istiod:15012', 'since': '2027-01-15T07:00:00Z', " more "}}"
#define IN_MESH(is) "{'workloadState': {'u': {'state': 'Up', 'inMesh': " is "}}"

static const struct {
	const char *name;
	void (*check)(struct doctor *d);
	const char *status, *pods, *drops, *later, *dump; /* with ' for quotes; NULL: no answer */
	enum finding_level level;
	const char *what;
} answers[] = {
	{"a keeper", check_keeper, "{" UP "}", NULL, NULL, NULL, NULL, FINDING_OK, NULL},
	{"no keeper, and nothing of ours", check_keeper, NULL, NULL, NULL, NULL, NULL, FINDING_NOTE,
	 "does not run here: only the node was looked at (no keeper"},
	{"agents by their mark alone", check_keeper, "{'markOnly': true}", NULL, NULL, NULL, NULL, FINDING_WARNING,
	 "cannot be told apart by cgroup"},
	{"the kubelet is not known", check_keeper,
	 "{'kubernetes': {}, 'kubeletExempt': false, 'kubelet': 'no kubelet in /proc'}", NULL, NULL, NULL, NULL,
	 FINDING_WARNING, "(no kubelet in /proc)"},
	{"the kubelet is of no interest without Kubernetes", check_keeper,
	 "{'kubernetes': null, 'kubeletExempt': false}", NULL, NULL, NULL, NULL, FINDING_OK, NULL},
	{"iptables, though BPF works", check_keeper, "{'steering': 'iptables'}", NULL, NULL, NULL, NULL, FINDING_NOTE,
	 "by iptables, though"},
	{"an installation", check_keeper, "{'installation': {'ready': true, 'trouble': ''}}", NULL, NULL, NULL, NULL,
	 FINDING_OK, NULL},
	{"an installation that is not valid", check_keeper, "{'installation': {'ready': false, 'trouble': 'no space'}}",
	 NULL, NULL, NULL, NULL, FINDING_PROBLEM, "is not valid: no space"},
	{"an installation with a warning", check_keeper, "{'installation': {'ready': true, 'trouble': 'passed by'}}",
	 NULL, NULL, NULL, NULL, FINDING_WARNING, "passed by"},

	{"a tunnel", check_tunnel, TUNNEL(""), NULL, NULL, NULL, "{}", FINDING_OK, NULL},
	{"no tunnel", check_tunnel, "{'tunnel': {'pid': 0}}", NULL, NULL, NULL, NULL, FINDING_PROBLEM,
	 "no tunnel is there"},
	{"a tunnel that does not take the pods", check_tunnel, "{" UP ", 'tunnel': {'pid': 11, 'connected': false}}",
	 NULL, NULL, NULL, NULL, FINDING_PROBLEM, "process 11, the tunnel, has not taken all pods"},
	{"a tunnel beside a keeper that is young", check_tunnel,
	 "{'uptimeSeconds': 3, 'tunnel': {'pid': 11, 'connected': false}}", NULL, NULL, NULL, NULL, FINDING_WARNING,
	 "has not taken all pods"},
	{"Istio's tunnel", check_tunnel, "{'tunnel': {'pid': 11, 'connected': true, 'ours': false}}", NULL, NULL, NULL,
	 NULL, FINDING_NOTE, "opens its own sockets"},
	{"a tunnel whose socket is elsewhere", check_tunnel, TUNNEL(""), NULL, NULL, NULL, NULL, FINDING_WARNING,
	 "no tunnel listens there"},
	{"a tunnel that restarts", check_tunnel,
	 TUNNEL(", 'restarts': 7, 'generations': [{'pid': 11, 'state': 'serving', 'ageSeconds': 4, 'current': true}]"),
	 NULL, NULL, NULL, "{}", FINDING_WARNING, "started again, 7 times"},
	{"a tunnel that restarted long ago", check_tunnel,
	 TUNNEL(", 'restarts': 1, 'generations': [{'pid': 11, 'state': 'serving', 'ageSeconds': 4000, 'current': "
		"true}]"),
	 NULL, NULL, NULL, "{}", FINDING_NOTE, "4000 s old"},
	{"a tunnel's file was replaced", check_tunnel,
	 TUNNEL(", 'generations': [{'pid': 11, 'state': 'serving', 'program': '/x', 'current': false}]"), NULL, NULL,
	 NULL, "{}", FINDING_NOTE, "its file /x was replaced"},
	{"tunnels that do not end", check_tunnel,
	 TUNNEL(", 'generations': [{'state': 'draining', 'connections': 2}, {'state': 'draining', 'connections': 3}]"),
	 NULL, NULL, NULL, "{}", FINDING_WARNING, "2 earlier tunnels still drain, with 5 connections"},
	{"an upgrade that failed", check_tunnel, TUNNEL(", 'upgrades': {'trouble': 'exec format'}"), NULL, NULL, NULL,
	 "{}", FINDING_WARNING, "exec format"},

	{"no Kubernetes", check_kubernetes, "{'kubernetes': null}", NULL, NULL, NULL, NULL, FINDING_OK, NULL},
	{"Kubernetes", check_kubernetes, KUBE(WHOLE), NULL, NULL, NULL, NULL, FINDING_OK, NULL},
	{"the API server is away", check_kubernetes, KUBE("'ready': true, 'connected': false, 'trouble': 'refused'"),
	 NULL, NULL, NULL, NULL, FINDING_PROBLEM, "no watch of the API server is open"},
	{"not all have been looked at", check_kubernetes, KUBE("'ready': false, 'connected': true"), NULL, NULL, NULL,
	 NULL, FINDING_WARNING, "not all pods have been looked at"},
	{"labelled and not steered", check_kubernetes,
	 KUBE(WHOLE ", 'notEnrolledYet': 2, 'trouble': 'pod x: no netns'"), NULL, NULL, NULL, NULL, FINDING_PROBLEM,
	 "2 pods of this node are labelled to be in the mesh and are not steered: pod x"},
	{"other trouble", check_kubernetes, KUBE(WHOLE ", 'trouble': 'too many pods'"), NULL, NULL, NULL, NULL,
	 FINDING_WARNING, "too many pods"},
	{"unreadable objects", check_kubernetes, KUBE(WHOLE ", 'unreadableObjects': 3"), NULL, NULL, NULL, NULL,
	 FINDING_WARNING, "3 pods or namespaces"},

	{"pods", check_pods, "{" UP "}", POD(ENROLLED), NULL, NULL, NULL, FINDING_OK, NULL},
	{"a pod in trouble", check_pods, "{" UP "}", POD(ENROLLED ", 'trouble': 'no netns'"), NULL, NULL, NULL,
	 FINDING_PROBLEM, "shop/web: no netns"},
	{"a pod that does not join", check_pods, "{" UP "}", POD(", 'state': 'joining'"), NULL, NULL, NULL,
	 FINDING_WARNING, "shop/web is joining"},
	{"a pod that joins a young keeper", check_pods, "{'uptimeSeconds': 2}", POD(", 'state': 'recovering'"), NULL,
	 NULL, NULL, FINDING_OK, NULL},
	{"a pod without a listener", check_pods, "{" UP "}",
	 POD(", 'state': 'enrolled', 'sockets': ['TCP15001', 'TCP15008']"), NULL, NULL, NULL, FINDING_PROBLEM,
	 "no listening socket TCP15006"},
	{"Istio's tunnel opens its own", check_pods, "{" UP "}", POD(", 'state': 'enrolled', 'foreignTunnel': true"),
	 NULL, NULL, NULL, FINDING_OK, NULL},
	{"a device without programs", check_pods, "{" UP "}",
	 POD(ENROLLED ", 'devices': [{'name': 'net1', 'attached': false}]"), NULL, NULL, NULL, FINDING_PROBLEM,
	 "device net1 is not steered"},
	{"a pod with other steering", check_pods, "{" UP ", 'steering': 'bpf'}",
	 "{'pods': [{'namespace': 'shop', 'name': 'web', 'steering': 'iptables', 'state': 'enrolled'}]}", NULL, NULL,
	 NULL, FINDING_NOTE, "by iptables, unlike the others"},
	{"connections from before", check_pods, "{" UP "}", POD(ENROLLED ", 'existingConnections': 4"), NULL, NULL,
	 NULL, FINDING_NOTE, "4 connections of 1 pods are older"},

	{"no drops", check_drops, "{}", NULL, DROPS(0), DROPS(0), NULL, FINDING_OK, NULL},
	{"drops of another time", check_drops, "{}", NULL, DROPS(5), DROPS(5), NULL, FINDING_NOTE,
	 "drop_x: 5 packets dropped in 1 pods (web); meaning"},
	{"drops that grow", check_drops, "{}", NULL, DROPS(5), DROPS(8), NULL, FINDING_WARNING,
	 "and it grows; meaning"},
	{"a counter of a pod that is new", check_drops, "{}", NULL, "{'pods': []}", DROPS(8), NULL, FINDING_WARNING,
	 "grows"},

	{"a certificate", check_certificates, NULL, NULL, NULL, NULL,
	 CERT("Available", "2027-01-15T00:00:00Z", "2027-01-16T00:00:00Z"), FINDING_OK, NULL},
	{"a certificate at its half-life", check_certificates, NULL, NULL, NULL, NULL,
	 CERT("Available", "2027-01-14T20:00:00Z", "2027-01-15T20:00:00Z"), FINDING_OK, NULL},
	{"a certificate that was not renewed", check_certificates, NULL, NULL, NULL, NULL,
	 CERT("Available", "2027-01-14T10:00:00Z", "2027-01-15T10:00:00Z"), FINDING_WARNING,
	 "past its half-life and was not renewed; it ends in 2 h"},
	{"a certificate that has ended", check_certificates, NULL, NULL, NULL, NULL,
	 CERT("Available", "2027-01-14T07:59:00Z", "2027-01-15T07:59:00Z"), FINDING_PROBLEM,
	 "spiffe://x: the certificate ended 60 s ago"},
	{"a certificate of a CA whose clock is ahead", check_certificates, NULL, NULL, NULL, NULL,
	 CERT("Available", "2027-01-15T08:01:00Z", "2027-01-16T08:00:00Z"), FINDING_PROBLEM,
	 "begins in 60 s: our clock"},
	{"the CA gives none", check_certificates, NULL, NULL, NULL, NULL, CERT("Unavailable: refused", "", ""),
	 FINDING_PROBLEM, "no certificate (Unavailable: refused)"},
	{"one that nobody needed yet", check_certificates, NULL, NULL, NULL, NULL, CERT("Initializing", "", ""),
	 FINDING_OK, NULL},
	{"revocation lists in trouble", check_certificates, NULL, NULL, NULL, NULL, "{'crl': {'trouble': 'no PEM'}}",
	 FINDING_WARNING, "no PEM"},

	{"no istiod", check_istiod, NULL, NULL, NULL, NULL, "{}", FINDING_OK, NULL},
	{"istiod", check_istiod, NULL, NULL, NULL, NULL, XDS("'connected': true, 'complete': true"), FINDING_OK, NULL},
	{"istiod is away", check_istiod, NULL, NULL, NULL, NULL, XDS("'connected': false, 'lastError': 'refused'"),
	 FINDING_PROBLEM, "istiod (istiod:15012) has been away for 60 min: refused"},
	{"istiod has not told all", check_istiod, NULL, NULL, NULL, NULL, XDS("'connected': true, 'complete': false"),
	 FINDING_WARNING, "has not told all"},
	{"istiod's objects are refused", check_istiod, NULL, NULL, NULL, NULL,
	 XDS("'connected': true, 'complete': true, 'refused': 'bad port'"), FINDING_WARNING, "bad port"},

	{"a mesh", check_mesh, NULL, POD(ENROLLED), NULL, NULL, IN_MESH("true") "}", FINDING_OK, NULL},
	{"a tunnel that does not say what the mesh knows", check_mesh, NULL, POD(ENROLLED), NULL, NULL,
	 "{'workloadState': {'u': {'state': 'Up'}}}", FINDING_OK, NULL},
	{"a pod that the mesh does not know", check_mesh, NULL, POD(ENROLLED), NULL, NULL, IN_MESH("false") "}",
	 FINDING_PROBLEM, "shop/web is steered, but the mesh does not know it"},
	{"on demand nobody knows all", check_mesh, NULL, POD(ENROLLED), NULL, NULL,
	 IN_MESH("false") ", 'config': {'xdsOnDemand': true}}", FINDING_OK, NULL},
	{"a pod that waits", check_mesh, NULL, NULL, NULL, NULL,
	 "{'workloadState': {'u': {'state': 'Pending', 'info': {'namespace': 'shop', 'name': 'web'}}}}",
	 FINDING_WARNING, "shop/web is not served by the tunnel yet (Pending)"},
	{"kTLS is off, as it is by default", check_mesh, NULL, NULL, NULL, NULL,
	 "{'ktls': {'mode': 'auto', 'features': [{'name': 'tx', 'available': false}]}}", FINDING_OK, NULL},
	{"kTLS is wanted and not there", check_mesh, NULL, NULL, NULL, NULL,
	 "{'ktls': {'mode': 'tx', 'features': [{'name': 'tx', 'available': false, 'reason': 'no module'}, {'name': "
	 "'rx', "
	 "'available': false}]}}",
	 FINDING_NOTE, "kTLS is tx, but tx is not used: no module"},
};

static json_t *read_json(const char *row, const char *text)
{
	char *copy = text ? strdup(text) : NULL;
	json_error_t at;
	json_t *o;

	for (char *p = copy; p && *p; p++)
		*p = *p == '\'' ? '"' : *p;
	o = copy ? json_loads(copy, 0, &at) : NULL;
	if (copy && !o)
		fail_msg("%s: column %d: %s", row, at.column, at.text);
	free(copy);
	return o;
}

static void test_answers(void **state)
{
	for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
		const char *row = answers[i].name;
		struct doctor d = healthy();

		d.status = read_json(row, answers[i].status);
		d.pods = read_json(row, answers[i].pods);
		d.drops = read_json(row, answers[i].drops);
		d.drops_later = read_json(row, answers[i].later);
		d.dump = read_json(row, answers[i].dump);
		judge(row, &d, answers[i].check, answers[i].level, answers[i].what);
		json_decref(d.status);
		json_decref(d.pods);
		json_decref(d.drops);
		json_decref(d.drops_later);
		json_decref(d.dump);
	}
}

static const struct {
	const char *name;
	void (*check)(struct doctor *d);
	const char *status, *pods;
	bool iptables;
	const char *advice;
} removed[] = {
	{"programs", check_steering, "{" UP "}", NULL, false,
	 "ask again in ten seconds: until then the keeper has put it back"},
	{"iptables rules", check_steering, "{" UP "}", NULL, true,
	 "ask again in a minute: until then the keeper has put it back"},
	{"while there is no keeper", check_steering, NULL, NULL, false, "start culvertd, which puts it back"},
	{"a listener that the keeper does not have", check_pods, "{" UP "}",
	 POD(", 'state': 'enrolled', 'sockets': ['TCP15001', 'TCP15008']"), false, "restart the keeper, which opens"},
};

/* What is said to be done is what the keeper does not do by itself. */
static void test_removed_steering(void **state)
{
	for (size_t i = 0; i < sizeof removed / sizeof *removed; i++) {
		const struct doctor_check rows[] = {{"it", "all is well", NEEDS_NODE, removed[i].check}};
		struct doctor d = healthy();

		d.status = read_json(removed[i].name, removed[i].status);
		d.pods = read_json(removed[i].name, removed[i].pods);
		pod_bare(&d);
		d.pod->iptables = removed[i].iptables;
		doctor_run(&d, rows, 1);
		if (!strstr(d.found.at[0].advice, removed[i].advice) || strstr(d.found.at[0].advice, "enrol"))
			fail_msg("%s: said: %s", removed[i].name, d.found.at[0].advice);
		free(d.found.at);
		json_decref(d.status);
		json_decref(d.pods);
	}
}

static const struct {
	const char *name, *dump, *advice;
} refusals[] = {
	{"a workload", XDS("'connected': true, 'complete': true, 'refused': 'bad port', 'closed': 0"),
	 "until then its last good version is in force, if there was one"},
	{"a policy", XDS("'connected': true, 'complete': true, 'refused': 'bad rule', 'closed': 1"),
	 "until then a policy in it denies everything, or allows nothing"},
};

/* What is in force meanwhile. */
static void test_refusals(void **state)
{
	static const struct doctor_check rows[] = {{"it", "all is well", NEEDS_NODE, check_istiod}};

	for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
		struct doctor d = healthy();

		d.dump = read_json(refusals[i].name, refusals[i].dump);
		doctor_run(&d, rows, 1);
		if (!strstr(d.found.at[0].advice, refusals[i].advice))
			fail_msg("%s: said: %s", refusals[i].name, d.found.at[0].advice);
		free(d.found.at);
		json_decref(d.dump);
	}
}

static void test_keeper_died(void **state)
{
	struct doctor d = healthy();

	d.installed = true;
	judge("a keeper that was here", &d, check_keeper, FINDING_PROBLEM, "no keeper listens there");
}

/* --- the CNI configuration ----------------------------------------------------------------------------------- */

static char folder[] = "/tmp/doctor_test.XXXXXX";

#define LIST(plugins) "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", \"plugins\": [" plugins "]}"
#define NET	      "{\"type\": \"bridge\"}"
#define OURS	      "{\"type\": \"istio-cni\", \"cni_socket\": \"@/listens\"}" /* @: the folder */
#define LEFT	      "{\"type\": \"istio-cni\", \"cni_agent_run_dir\": \"@/gone\"}"

enum program { OWN, NONE, ISTIOS };
static const struct {
	const char *name, *file[2][2]; /* name, text */
	bool wanted;
	enum program program;
	enum finding_level level;
	const char *what;
} chains[] = {
	{"our entry", {{"10-a.conflist", LIST(NET "," OURS)}}, true, OWN, FINDING_OK, NULL},
	{"our entry was removed",
	 {{"10-a.conflist", LIST(NET)}},
	 true,
	 OWN,
	 FINDING_PROBLEM,
	 "10-a.conflist, which the runtime takes, has no entry \"istio-cni\""},
	{"no entry, and none is wanted",
	 {{"10-a.conflist", LIST(NET)}},
	 false,
	 OWN,
	 FINDING_NOTE,
	 "does not call culvert-cni"},
	{"another file comes first",
	 {{"05-b.conflist", LIST(NET)}, {"10-a.conflist", LIST(NET "," OURS)}},
	 true,
	 OWN,
	 FINDING_WARNING,
	 "05-b.conflist is what a runtime takes first, and the plugin's entry is in 10-a.conflist"},
	{"no configuration", {{NULL}}, true, OWN, FINDING_PROBLEM, "no CNI configuration that a runtime would take"},
	{"no configuration, and none is wanted", {{NULL}}, false, OWN, FINDING_OK, NULL},
	{"a file that runtimes pass over",
	 {{"05-b.conflist", "{"}, {"10-a.conflist", LIST(NET "," OURS)}},
	 true,
	 OWN,
	 FINDING_NOTE,
	 "05-b.conflist: not JSON"},
	{"an entry that leads nowhere",
	 {{"10-a.conflist", LIST(NET "," LEFT)}},
	 true,
	 OWN,
	 FINDING_PROBLEM,
	 "/gone/pluginevent.sock, where nobody listens"},
	{"an entry that was left where nobody installs",
	 {{"10-a.conflist", LIST(NET "," LEFT)}},
	 false,
	 OWN,
	 FINDING_PROBLEM,
	 "leads to"},
	{"our entry twice",
	 {{"10-a.conflist", LIST(NET "," OURS "," OURS)}},
	 true,
	 OWN,
	 FINDING_WARNING,
	 "has 2 entries"},
	{"no program", {{"10-a.conflist", LIST(NET "," OURS)}}, true, NONE, FINDING_PROBLEM, "no pod can start"},
	{"Istio's program", {{"10-a.conflist", LIST(NET "," OURS)}}, true, ISTIOS, FINDING_WARNING, "is not Culvert's"},
};

static void put(const char *name, const char *text, mode_t mode)
{
	char path[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", folder, name);
	f = fopen(path, "w");
	assert_non_null(f);
	for (; *text; text++)
		if (*text == '@')
			fputs(folder, f);
		else
			fputc(*text, f);
	fclose(f);
	chmod(path, mode);
}

static void drop(const char *name)
{
	char path[256];

	snprintf(path, sizeof path, "%s/%s", folder, name);
	unlink(path);
}

static void test_chains(void **state)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int listener = socket(AF_UNIX, SOCK_STREAM, 0);

	assert_non_null(mkdtemp(folder));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/listens", folder);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(listener, 1024), 0);
	for (size_t i = 0; i < sizeof chains / sizeof *chains; i++) {
		struct doctor d = healthy();

		d.conf_dir = d.bin_dir = folder;
		d.conf_wanted = chains[i].wanted;
		for (unsigned f = 0; f < 2 && chains[i].file[f][0]; f++)
			put(chains[i].file[f][0], chains[i].file[f][1], 0600);
		if (chains[i].program != NONE)
			put("istio-cni", chains[i].program == OWN ? "I am culvert-cni" : "I am Istio's", 0755);
		judge(chains[i].name, &d, check_cni, chains[i].level, chains[i].what);
		for (unsigned f = 0; f < 2 && chains[i].file[f][0]; f++)
			drop(chains[i].file[f][0]);
		drop("istio-cni");
	}
	close(listener);
	drop("listens");
	rmdir(folder);
}

static void test_no_folder(void **state)
{
	struct doctor d = healthy();

	judge("no folder to look at", &d, check_cni, FINDING_OK, NULL);
	d.conf_dir = "/nonexistent/net.d";
	judge("a folder that is not there", &d, check_cni, FINDING_NOTE, "cannot be read");
	d.conf_wanted = true;
	judge("a folder that is wanted and not there", &d, check_cni, FINDING_PROBLEM, "cannot be read");
}

/* --- all of them ----------------------------------------------------------------------------------------------- */

static void say_note(struct doctor *d)
{
	finding(d, FINDING_NOTE, "do", "a note");
}

static void say_problem(struct doctor *d)
{
	finding(d, FINDING_PROBLEM, "do", "a problem");
}

static void say_much(struct doctor *d)
{
	for (int i = 0; i < DOCTOR_FINDINGS_MAX + 10; i++)
		finding(d, FINDING_WARNING, "do", "warning %d", i);
}

static void say_nothing(struct doctor *d)
{
}

static void test_order(void **state)
{
	static const struct doctor_check rows[] = {
		{"quiet", "all is well", NEEDS_NODE, say_nothing},
		{"first", "", NEEDS_NODE, say_note},
		{"second", "", NEEDS_NODE, say_problem},
		{"third", "", NEEDS_NODE, say_note},
		{"keeper's", "", NEEDS_KEEPER, say_problem},
		{"tunnel's", "", NEEDS_TUNNEL, say_problem},
		{"pods'", "", NEEDS_PODS, say_problem},
	};
	static const char *const want[] = {"second", "first", "third", "quiet"};
	struct doctor d = healthy();

	doctor_run(&d, rows, sizeof rows / sizeof *rows);
	assert_int_equal(d.found.n, 4);
	for (unsigned i = 0; i < 4; i++)
		assert_string_equal(d.found.at[i].check, want[i]);
	free(d.found.at);
}

static void test_limit(void **state)
{
	static const struct doctor_check rows[] = {{"much", "", NEEDS_NODE, say_much}};
	struct doctor d = healthy();

	doctor_run(&d, rows, 1);
	assert_int_equal(d.found.n, DOCTOR_FINDINGS_MAX);
	assert_int_equal(d.found.left_out, 10);
	assert_int_equal(d.found.count[FINDING_WARNING], DOCTOR_FINDINGS_MAX + 10);
	free(d.found.at);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_node),	    cmocka_unit_test(test_answers),
		cmocka_unit_test(test_keeper_died), cmocka_unit_test(test_chains),
		cmocka_unit_test(test_no_folder),   cmocka_unit_test(test_order),
		cmocka_unit_test(test_limit),	    cmocka_unit_test(test_removed_steering),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests_name("doctor", tests, NULL, NULL);
}
