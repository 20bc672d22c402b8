/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's tool: asks the keeper (RUN_DIR/ctl.sock) and the tunnel (RUN_DIR/tunnel.sock). One row of the table of
 * commands is all there is to a command but its function. */
#include "culvertctl.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"
#include "ctl_abi.h"

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct options {
	const char *run_dir;
	bool json, all, wait, verbose, reset;
	const char *peer, *write, *pod, *since; /* NULL: not given */
	const char *argument[3];
	unsigned n;
};

struct command {
	const char *name, *arguments;
	unsigned least, most;
	/* 0; the exit status, where what was printed says why; or -errno with a line in `why` */
	int (*run)(const struct options *o, char why[CALL_WHY_MAX]);
	const char *brief, *help;
};

/* --- commands ------------------------------------------------------------------------------------------- */

/* The keeper must find the same namespace: a path from here, and not "this process". */
static int absolute(const char *path, char out[PATH_MAX])
{
	char cwd[PATH_MAX] = "";
	int n;

	if (!strncmp(path, "/proc/self/", 11))
		n = snprintf(out, PATH_MAX, "/proc/%d/%s", (int)getpid(), path + 11);
	else if (path[0] == '/')
		n = snprintf(out, PATH_MAX, "%s", path);
	else
		n = getcwd(cwd, sizeof cwd) ? snprintf(out, PATH_MAX, "%s/%s", cwd, path) : -1;
	return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static int done_json(const struct options *o, int e)
{
	if (!e && o->json)
		printf("{\"state\": \"done\"}\n");
	return e;
}

static int run_enrol(const struct options *o, char why[CALL_WHY_MAX])
{
	char path[PATH_MAX];

	if (absolute(o->argument[0], path) < 0) {
		snprintf(why, CALL_WHY_MAX, "%.256s: the path is too long", o->argument[0]);
		return -ENAMETOOLONG;
	}
	return done_json(o, call_operation(o->run_dir, CTL_ENROL,
					   json_pack("{ss ss}", "netns", path, "identity", o->argument[1]), NULL, why));
}

static int run_unenrol(const struct options *o, char why[CALL_WHY_MAX])
{
	char path[PATH_MAX];
	const char *pod = o->argument[0];

	/* What is no path from here is perhaps NAMESPACE/NAME. */
	if (strchr(pod, '/') && access(pod, F_OK) == 0) {
		if (absolute(pod, path) < 0) {
			snprintf(why, CALL_WHY_MAX, "%.256s: the path is too long", pod);
			return -ENAMETOOLONG;
		}
		pod = path;
	}
	return done_json(o, call_operation(o->run_dir, CTL_UNENROL, json_pack("{ss}", "pod", pod), NULL, why));
}

/* Prints and frees it, or lets `show` do it. */
static int print(const struct options *o, json_t *answer, void (*show)(json_t *))
{
	if (!answer)
		return -EIO;
	if (o->json) {
		json_dumpf(answer, stdout, JSON_INDENT(2));
		putchar('\n');
	} else {
		show(answer);
	}
	json_decref(answer);
	return 0;
}

static json_t *ask_keeper(const struct options *o, const char *path, char why[CALL_WHY_MAX])
{
	return call_json(o->run_dir, CTL_SOCKET, "GET", path, NULL, why);
}

static json_t *ask_dump(const struct options *o, char why[CALL_WHY_MAX])
{
	return call_json(o->run_dir, CTL_TUNNEL_SOCKET, "GET", "/config_dump", NULL, why);
}

/* The keeper's half must be there, the tunnel's may be missing: that is a state to be shown. */
static json_t *status_make(const struct options *o, char why[CALL_WHY_MAX])
{
	char trouble[CALL_WHY_MAX] = "";
	json_t *status = ask_keeper(o, CTL_STATUS, why), *dump, *pods;

	if (!status)
		return NULL;
	dump = ask_dump(o, trouble);
	pods = dump ? ask_keeper(o, CTL_PODS, trouble) : NULL;
	if (dump)
		json_object_set_new(status, "tunnelState", pick_tunnel(dump));
	else
		json_object_set_new(status, "tunnelTrouble", json_string(trouble));
	if (pods)
		json_object_set_new(status, "podsNotInMesh", strangers_of(pods, dump));
	json_decref(dump);
	json_decref(pods);
	draining_connections(o->run_dir, json_object_get(json_object_get(status, "tunnel"), "generations"));
	return status;
}

static void show_brief(json_t *status)
{
	show_status(status, false);
}

static void show_verbose(json_t *status)
{
	show_status(status, true);
}

static int run_status(const struct options *o, char why[CALL_WHY_MAX])
{
	json_t *status = status_make(o, why);
	bool healthy = status && health_add(status);
	int e = print(o, status, o->verbose ? show_verbose : show_brief);

	return e || healthy ? e : EXIT_FAILED;
}

static int run_upgrade(const struct options *o, char why[CALL_WHY_MAX])
{
	return print(o, upgrade_run(o->run_dir, o->wait, why), show_upgrade);
}

static int run_pods(const struct options *o, char why[CALL_WHY_MAX])
{
	char ignored[CALL_WHY_MAX];
	json_t *pods = ask_keeper(o, CTL_PODS, why);
	json_t *dump = json_array_size(json_object_get(pods, "pods")) ? ask_dump(o, ignored) : NULL;

	if (dump)
		json_decref(strangers_of(pods, dump));
	json_decref(dump);
	return print(o, pods, show_pods);
}

static void show_some(json_t *answer)
{
	show_drops(answer, false);
}

static void show_all(json_t *answer)
{
	show_drops(answer, true);
}

static int run_drops(const struct options *o, char why[CALL_WHY_MAX])
{
	return print(o, ask_keeper(o, CTL_DROPS, why), o->all ? show_all : show_some);
}

static int run_dump(const struct options *o, json_t *(*pick)(json_t *), void (*show)(json_t *), char why[CALL_WHY_MAX])
{
	json_t *dump = ask_dump(o, why), *picked;

	if (!dump || !o->json)
		return print(o, dump, show);
	picked = pick(dump);
	json_decref(dump);
	return print(o, picked, NULL);
}

static int run_workloads(const struct options *o, char why[CALL_WHY_MAX])
{
	return run_dump(o, pick_workloads, show_workloads, why);
}

static void show_draining(void *arg, int process, json_t *dump)
{
	printf("\nprocess %d, which drains:\n", process);
	show_connections(dump);
}

static int run_connections(const struct options *o, char why[CALL_WHY_MAX])
{
	json_t *dump = ask_dump(o, why), *picked;

	if (!dump)
		return -EIO;
	if (!o->json) {
		show_connections(dump);
		json_decref(dump);
		return draining_each(o->run_dir, "/config_dump", show_draining, NULL);
	}
	picked = pick_connections(dump);
	json_decref(dump);
	draining_each(o->run_dir, "/config_dump", pick_draining, json_object_get(picked, "connections"));
	return print(o, picked, NULL);
}

static int run_certificates(const struct options *o, char why[CALL_WHY_MAX])
{
	return run_dump(o, pick_certificates, show_certificates, why);
}

static int run_doctor(const struct options *o, char why[CALL_WHY_MAX])
{
	return doctor(o->run_dir, o->json, why);
}

/* A filter goes into a query: nothing but what filters are made of. */
static bool is_filter(const char *s)
{
	return *s && strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:.,=-") == strlen(s);
}

/* By which lines of keeper and tunnel can be told apart; a row of the tests compares with what is used. */
#define LOG_TARGETS                                                                                    \
	"access ca certs cni crl dns drain enrol http install keeper kube local log pods state steer " \
	"supervise tap tunnel watch worker xds zds"
static const char targets[] = LOG_TARGETS;

static bool is_target(const char *s, size_t len)
{
	for (const char *p = targets; *p; p += strcspn(p, " "), p += *p == ' ')
		if (strcspn(p, " ") == len && !strncmp(p, s, len))
			return true;
	return false;
}

/* A target that is none would change nothing, in silence. */
static int filter_check(const char *filter, char why[CALL_WHY_MAX])
{
	if (!is_filter(filter) || strlen(filter) > 900) {
		snprintf(why, CALL_WHY_MAX, "\"%.256s\" is not LEVEL or TARGET=LEVEL", filter);
		return -EINVAL;
	}
	for (const char *p = filter; *p; p += strcspn(p, ","), p += *p == ',') {
		size_t n = strcspn(p, ","), len = strcspn(p, "=");

		if (len >= n || is_target(p, len))
			continue;
		snprintf(why, CALL_WHY_MAX, "\"%.*s\" is no target; there are: %s", (int)(len < 64 ? len : 64), p,
			 targets);
		return -EINVAL;
	}
	return 0;
}

static void show_log(json_t *o)
{
	printf("keeper  %s\ntunnel  %s\n", json_string_value(json_object_get(o, "keeper")),
	       json_string_value(json_object_get(o, "tunnel")));
}

static int run_log(const struct options *o, char why[CALL_WHY_MAX])
{
	const char *level = o->reset ? "reset" : o->n ? o->argument[0] : "", *filter;
	char keeper_path[1024] = CTL_LOG, tunnel_path[1024] = "/logging";
	struct call_answer a = {.body = NULL};
	json_t *keeper, *both;

	if (o->n && !o->reset && filter_check(level, why) < 0)
		return -EINVAL;
	if (*level) {
		snprintf(keeper_path, sizeof keeper_path, "%s?level=%s", CTL_LOG, level);
		snprintf(tunnel_path, sizeof tunnel_path, o->reset ? "/logging?%s" : "/logging?level=%s", level);
	}
	keeper = call_json(o->run_dir, CTL_SOCKET, *level ? "POST" : "GET", keeper_path, NULL, why);
	if (!keeper)
		return -EIO;
	filter = "?";
	if (call(o->run_dir, CTL_TUNNEL_SOCKET, "POST", tunnel_path, NULL, &a, why) == 0) {
		a.body[strcspn(a.body, "\n")] = '\0';
		filter = strstr(a.body, " is ") ? strstr(a.body, " is ") + 4 : a.body;
	} else {
		filter = why;
	}
	both = json_pack("{sO ss}", "keeper", json_object_get(keeper, "filter"), "tunnel", filter);
	json_decref(keeper);
	free(a.body);
	return print(o, both, show_log);
}

static int run_tap(const struct options *o, char why[CALL_WHY_MAX])
{
	return tap_run(o->run_dir, o->argument[0], o->peer, o->write, o->json, why);
}

static int run_trace(const struct options *o, char why[CALL_WHY_MAX])
{
	return print(o, trace_ask(o->run_dir, o->argument[0], o->argument[1], o->argument[2], why), show_trace);
}

static int run_failures(const struct options *o, char why[CALL_WHY_MAX])
{
	return print(o, failures_ask(o->run_dir, o->pod, o->since, why), show_failures);
}

static const struct command commands[] = {
	{"enrol", "NETNS NAMESPACE/NAME/SERVICEACCOUNT", 2, 2, run_enrol, "brings a pod into the mesh",
	 "NETNS is the path of the pod's network namespace, such as /run/netns/web or /proc/1234/ns/net. The rest is "
	 "its\n"
	 "identity in the mesh: spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT. Connections that the pod has "
	 "already\n"
	 "go on undisturbed and direct; new ones are carried by the tunnel. Nothing is changed when it fails."},
	{"unenrol", "NETNS|UID|NAMESPACE/NAME", 1, 1, run_unenrol, "takes a pod out of the mesh",
	 "New connections are direct at once. Captured ones may finish for a while (culvertd --drain), then they are "
	 "reset,\n"
	 "and every trace is removed from the pod."},
	{"status", "[-v]", 0, 0, run_status, "the agent on this node",
	 "\"healthy\", or what is not and what to do, a line each; then keeper, steering, tunnel and mesh in a few "
	 "lines. -v "
	 "shows\n"
	 "all that the kernel was found to do of TLS. Exit status 1 as well when the node is not healthy; with --json: "
	 "\"healthy\"\n"
	 "and \"problems\"."},
	{"pods", "", 0, 0, run_pods, "pods that are enrolled here",
	 "STATE: enrolled; joining or leaving, while that is under way; recovering: a new keeper has not yet got hold "
	 "of the\n"
	 "pod's sockets. MESH: whether the mesh has a workload of these three names; no: its connections are refused. "
	 "DIRECT counts connections from before the enrolment, which are not carried by the tunnel."},
	{"workloads", "", 0, 0, run_workloads, "workloads that the tunnel knows",
	 "All of the mesh, not of this node alone. PROTOCOL HBONE: connections to it are tunnelled; TCP: they are "
	 "passed\n"
	 "through as they are."},
	{"connections", "", 0, 0, run_connections, "live connections through the tunnel",
	 "CARRIED TO is where the bytes go: a node's port 15008 for tunnelled ones. RECORDS: who seals and opens those "
	 "of the\n"
	 "tunnel, the kernel (tx: only what is sent, rx: only what is received) or the tunnel itself (user). RECORDS\n"
	 "and CIPHER are \"-\" without TLS: the peer is not in the mesh, or it is a pod of this node, whose traffic "
	 "does not leave\n"
	 "the agent (culvertd tunnel --local-hbone). What earlier tunnels still carry, which drain after an upgrade, "
	 "comes after\n"
	 "the rest."},
	{"upgrade", "[--wait]", 0, 0, run_upgrade, "starts the tunnel anew, without losing a connection",
	 "The tunnel's program, as its file is now, is started beside the one that runs and gets its sockets; the "
	 "earlier "
	 "one\n"
	 "finishes the connections that it has (culvertd --drain-limit). Done when the new one serves; when that fails "
	 "the\n"
	 "earlier one goes on and a line says why. --wait waits until the earlier ones have ended. A changed file does "
	 "the\n"
	 "same by itself (culvertd --upgrade-on-change)."},
	{"certificates", "", 0, 0, run_certificates, "certificates of the pods here, and revocation lists",
	 "ROOTS: how many certificates of the CA a peer's may end in. With CRL_PATH, below it the revocation lists in "
	 "force."},
	{"drops", "[--all]", 0, 0, run_drops, "packets that steering dropped, and why",
	 "By pod and reason, with what it means and what to do. --all shows decisions and zeros as well."},
	{"doctor", "", 0, 0, run_doctor, "checks this node, and says what to do",
	 "Kernel, rights, settings and clock, also before anything runs; then keeper, tunnel, CNI configuration, pods "
	 "(each "
	 "from\n"
	 "inside, with or without a keeper), drops, certificates, istiod and mesh. The worst comes first, each with "
	 "what to "
	 "do.\n"
	 "Changes nothing. As root, on the node or in the keeper's container. Exit status: 1 if there is a problem."},
	{"failures", "[--pod POD] [--since TIME]", 0, 0, run_failures, "the last connections that failed, and why",
	 "Of the pods here, oldest first; the tunnel keeps the last 1,024 or so. POD: NAME or NAMESPACE/NAME. TIME: "
	 "90s, "
	 "10m,\n"
	 "2h. PEER is the other side's identity. FLAG as in the metrics: DENY is a policy's, CONNECT what could not be "
	 "reached."},
	{"trace", "SRC DST PORT", 3, 3, run_trace, "what a connection would get, and why",
	 "Sends nothing: the tunnel decides as it would on a connection now, and says each step: service and endpoint, "
	 "waypoint,\n"
	 "HBONE or plain TCP, certificate, and the policies of the destination one by one. SRC: NAME, NAMESPACE/NAME, "
	 "address or\n"
	 "uid; of a pod elsewhere it says what that node would decide. DST: an address, a service's name as the pod "
	 "would "
	 "write\n"
	 "it, or NAMESPACE/NAME."},
	{"tap", "POD [--peer PEER] [--write FILE]", 1, 1, run_tap, "what a pod's connections carry, in plaintext",
	 "For root alone, and only where the tunnel runs with CULVERT_TAP=true; begin and end of each tap are in its "
	 "log. "
	 "POD:\n"
	 "NAME, NAMESPACE/NAME or uid of a pod here. PEER: an address, NAME, NAMESPACE/NAME, a service's host name or "
	 "a "
	 "SPIFFE ID.\n"
	 "Each piece is shown with time, connection, direction and both identities. --write FILE: as pcapng, with TCP "
	 "headers made\n"
	 "up around it, for Wireshark (- is standard output). Who reads too slowly gets less, and is told how much; "
	 "the "
	 "connections\n"
	 "never wait. After an upgrade connections of the new tunnel need a new tap."},
	{"log", "[[TARGET=]LEVEL[,...]|--reset]", 0, 1, run_log, "shows or changes what is logged",
	 "Of keeper and tunnel both. LEVEL: off, error, warn, info, debug, trace. Without it: what is set now. A LEVEL "
	 "alone leaves\n"
	 "what was said of targets; --reset goes back to what the start had. TARGET is one of\n" LOG_TARGETS "."},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

/* --- command line --------------------------------------------------------------------------------------- */

static void usage(void)
{
	printf("culvertctl - looks into and directs the Culvert agent of this node\n\n");
	for (unsigned i = 0; i < COMMANDS; i++)
		printf("  culvertctl %-12s %-36s %s\n", commands[i].name, commands[i].arguments, commands[i].brief);
	printf("\n  --run-dir DIR   the agent's run directory [CULVERT_RUN_DIR, else " CTL_RUN_DIR "]\n"
	       "  --json          for programs; field names are stable\n"
	       "  --help          also after a command\n"
	       "  --version\n\nExit status: 0 done, 1 failed (one line says why), 2 wrong usage.\n");
}

static void usage_command(const struct command *c)
{
	printf("culvertctl %s - %s\n\n  culvertctl %s %s\n\n%s\n", c->name, c->brief, c->name, c->arguments, c->help);
}

static int wrong(const char *fmt, const char *what, const char *more)
{
	fprintf(stderr, "culvertctl: ");
	fprintf(stderr, fmt, what, more);
	fprintf(stderr, "; see culvertctl --help\n");
	return EXIT_USAGE;
}

static const struct command *command_find(const char *name)
{
	for (unsigned i = 0; name && i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

struct line {
	struct options o;
	const char *command;
	bool help;
};

static const struct {
	const char *name;
	size_t at;
} valued[] = {
	{"--run-dir", offsetof(struct options, run_dir)}, {"--peer", offsetof(struct options, peer)},
	{"--write", offsetof(struct options, write)},	  {"--pod", offsetof(struct options, pod)},
	{"--since", offsetof(struct options, since)},
};
enum { VALUED = sizeof valued / sizeof *valued };

static bool option_named(const char *a)
{
	for (unsigned k = 0; k < VALUED; k++)
		if (!strcmp(a, valued[k].name))
			return true;
	return false;
}

/* --OPTION VALUE or --OPTION=VALUE. */
static bool option_value(struct options *o, int argc, char **argv, int *i)
{
	const char *a = argv[*i];

	for (unsigned k = 0; k < VALUED; k++) {
		const char **to = (const char **)((char *)o + valued[k].at);
		size_t n = strlen(valued[k].name);

		if (strncmp(a, valued[k].name, n) != 0 || (a[n] && a[n] != '=') || (!a[n] && *i + 1 == argc))
			continue;
		*to = a[n] ? a + n + 1 : argv[++*i];
		return true;
	}
	return false;
}

/* 0, or an exit status after saying what is wrong. */
static int line_read(struct line *l, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (option_value(&l->o, argc, argv, &i))
			continue;
		if (!strcmp(a, "--help") || !strcmp(a, "-h"))
			l->help = true;
		else if (!strcmp(a, "--json"))
			l->o.json = true;
		else if (!strcmp(a, "--all"))
			l->o.all = true;
		else if (!strcmp(a, "--wait"))
			l->o.wait = true;
		else if (!strcmp(a, "--verbose") || !strcmp(a, "-v"))
			l->o.verbose = true;
		else if (!strcmp(a, "--reset"))
			l->o.reset = true;
		else if (option_named(a))
			return wrong("%s needs a value%s", a, "");
		else if (a[0] == '-')
			return wrong("unknown argument \"%s\"%s", a, "");
		else if (!l->command)
			l->command = a;
		else if (l->o.n < 3)
			l->o.argument[l->o.n++] = a;
		else
			return wrong("too many arguments: \"%s\"%s", a, "");
	}
	return 0;
}

int main(int argc, char **argv)
{
	const char *env = getenv("CULVERT_RUN_DIR");
	struct line l = {.o.run_dir = env && *env ? env : CTL_RUN_DIR};
	char why[CALL_WHY_MAX] = "";
	const struct command *c;
	int status;

	if (argc == 2 && !strcmp(argv[1], "--version")) {
		printf("culvert %s\n", CULVERT_VERSION);
		return 0;
	}
	status = line_read(&l, argc, argv);
	if (status)
		return status;
	c = command_find(l.command);
	if (l.help || !l.command) {
		if (c)
			usage_command(c);
		else
			usage();
		return l.help ? 0 : EXIT_USAGE;
	}
	if (!c)
		return wrong("unknown command \"%s\"%s", l.command, "");
	if (l.o.n < c->least || l.o.n > c->most)
		return wrong("usage: culvertctl %s %s", c->name, c->arguments);
	status = c->run(&l.o, why);
	if (status >= 0)
		return status;
	fprintf(stderr, "culvertctl: %s\n", why[0] ? why : "out of memory");
	return EXIT_FAILED;
}
