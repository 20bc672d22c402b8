/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's tool: asks the keeper (RUN_DIR/ctl.sock) and the tunnel (RUN_DIR/tunnel.sock). One row of the table of
 * commands is all there is to a command but its function. */
#include "culvertctl_line.h"

#include <errno.h>
#include <stdio.h>

#include "ctl_abi.h"

static int done_json(const struct options *o, int e)
{
	if (!e && o->json)
		printf("{\"state\": \"done\"}\n");
	return e;
}

static int run_enrol(const struct options *o, char why[CALL_WHY_MAX])
{
	return done_json(o, enrol_run(o->run_dir, o->argument[0], o->argument[1], why));
}

static int run_unenrol(const struct options *o, char why[CALL_WHY_MAX])
{
	return done_json(o, unenrol_run(o->run_dir, o->argument[0], why));
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

static json_t *ask_tunnel(const struct options *o, const char *path, char why[CALL_WHY_MAX])
{
	return call_json(o->run_dir, CTL_TUNNEL_SOCKET, "GET", path, NULL, why);
}

/* The keeper's half must be there, the tunnel's may be missing: that is a state to be shown. */
static json_t *status_make(const struct options *o, char why[CALL_WHY_MAX])
{
	char trouble[CALL_WHY_MAX] = "";
	json_t *status = ask_keeper(o, CTL_STATUS, why), *dump, *pods;

	if (!status)
		return NULL;
	dump = ask_tunnel(o, DUMP_BRIEF, trouble);
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
	bool any = json_array_size(json_object_get(pods, "pods")) > 0;
	json_t *dump = any ? ask_tunnel(o, DUMP_BRIEF, ignored) : NULL;

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

static int run_dump(const struct options *o, const char *path, json_t *(*pick)(json_t *), void (*show)(json_t *),
		    char why[CALL_WHY_MAX])
{
	json_t *dump = ask_tunnel(o, path, why), *picked;

	if (!dump || !o->json)
		return print(o, dump, show);
	picked = pick(dump);
	json_decref(dump);
	return print(o, picked, NULL);
}

static int run_workloads(const struct options *o, char why[CALL_WHY_MAX])
{
	return run_dump(o, DUMP_WHOLE, pick_workloads, show_workloads, why);
}

static void show_draining(void *arg, int process, json_t *dump)
{
	printf("\nprocess %d, which drains:\n", process);
	show_connections(dump);
}

static int run_connections(const struct options *o, char why[CALL_WHY_MAX])
{
	json_t *dump = ask_tunnel(o, DUMP_BRIEF, why), *picked;

	if (!dump)
		return -EIO;
	if (!o->json) {
		show_connections(dump);
		json_decref(dump);
		return draining_each(o->run_dir, DUMP_BRIEF, show_draining, NULL);
	}
	picked = pick_connections(dump);
	json_decref(dump);
	draining_each(o->run_dir, DUMP_BRIEF, pick_draining, json_object_get(picked, "connections"));
	return print(o, picked, NULL);
}

static int run_certificates(const struct options *o, char why[CALL_WHY_MAX])
{
	return run_dump(o, DUMP_BRIEF, pick_certificates, show_certificates, why);
}

static int run_doctor(const struct options *o, char why[CALL_WHY_MAX])
{
	return doctor(o->run_dir, o->json, why);
}

static int run_log(const struct options *o, char why[CALL_WHY_MAX])
{
	return print(o, log_ask(o->run_dir, o->n ? o->argument[0] : NULL, o->reset, why), show_log);
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

int main(int argc, char **argv)
{
	char why[CALL_WHY_MAX] = "";
	struct options o;
	int status;
	const struct command *c = line_read(&o, commands, COMMANDS, argc, argv, &status);

	if (!c)
		return status;
	status = c->run(&o, why);
	if (status >= 0)
		return status;
	fprintf(stderr, "culvertctl: %s\n", why[0] ? why : "out of memory");
	return EXIT_FAILED;
}
