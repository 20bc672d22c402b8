/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what the control socket tells: status, pods, counters, as JSON and as Prometheus text. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"
#include "node/ctl_internal.h"

enum { COUNTERS_MAX = 128 };

static const char *mode_text(enum steer_mode m)
{
	return m == STEER_BPF ? "bpf" : "iptables";
}

static const char *state_text(enum pod_state s)
{
	static const char *const texts[] = {"joining", "recovering", "enrolled", "leaving"};

	return texts[s];
}

/* --- status --------------------------------------------------------------------------------------------- */

static const char *generation_text(enum generation_state s)
{
	static const char *const texts[] = {"starting", "serving", "draining"};

	return texts[s];
}

static void client_json(void *arg, const struct zds_client *c)
{
	json_array_append_new(arg, json_pack("{si ss sb}", "pid", (int)zds_client_pid(c), "state",
					     zds_client_draining(c) ? "draining"
					     : zds_client_live(c)   ? "serving"
								    : "starting",
					     "connected", true));
}

/* Of a supervised tunnel all processes, else those that are connected. */
static json_t *generations_json(const struct ctl_sources *from, const struct supervise_status *s)
{
	json_t *list = json_array();

	if (list && !from->supervise)
		zds_server_each(from->zds, client_json, list);
	for (unsigned i = 0; list && i < s->n; i++) {
		const struct generation_status *g = &s->generation[i];

		json_array_append_new(list, json_pack("{si ss sb sI sb ss sb}", "pid", (int)g->pid, "state",
						      generation_text(g->state), "connected",
						      zds_server_find(from->zds, g->pid) != NULL, "ageSeconds",
						      (json_int_t)g->age_s, "adopted", g->adopted, "program",
						      g->program, "current", g->current));
	}
	return list;
}

static json_t *tunnel_json(const struct ctl_sources *from)
{
	struct zds_client *c = zds_server_newest(from->zds);
	json_t *o = json_pack("{sb si si sb sb}", "connected", c && zds_client_live(c), "connections",
			      (int)zds_server_clients(from->zds), "pid", c ? (int)zds_client_pid(c) : 0, "ours",
			      c && zds_client_ours(c), "supervised", from->supervise != NULL);
	struct supervise_status s = {.n = 0};

	if (from->supervise)
		supervise_status(from->supervise, &s);
	if (o)
		json_object_set_new(o, "generations", generations_json(from, &s));
	if (!from->supervise || !o)
		return o;
	json_object_set_new(o, "runningPid", json_integer(s.pid));
	json_object_set_new(o, "adopted", json_boolean(s.adopted));
	json_object_set_new(o, "restarts", json_integer(s.restarts));
	json_object_set_new(o, "upgrades",
			    json_pack("{sb si si ss}", "running", s.upgrading, "done", (int)s.upgrades, "failed",
				      (int)s.failures, "trouble", s.trouble));
	return o;
}

static json_t *kube_json(const struct ctl_sources *from)
{
	struct kube_status s;

	if (!from->kube)
		return json_null();
	kube_status(from->kube, &s);
	return json_pack("{sb sb si si si si sI sI sI ss}", "ready", s.ready, "connected", s.connected, "pods",
			 (int)s.pods, "inMesh", (int)s.selected, "notEnrolledYet", (int)s.waiting, "namespaces",
			 (int)s.namespaces, "lists", (json_int_t)s.lists, "failures", (json_int_t)s.failures,
			 "unreadableObjects", (json_int_t)s.bad, "trouble", s.trouble);
}

json_t *ctl_status_json(const struct ctl_sources *from, uint64_t uptime_s)
{
	struct enrol *e = from->enrol;
	struct steer_facts f = {.kubelet_how = ""};

	steer_facts(from->steer, &f);
	return json_pack("{ss si sI ss ss ss s{si si si si si sI} sb sb sb ss so so so}", "version", CULVERT_VERSION,
			 "pid", (int)getpid(), "uptimeSeconds", (json_int_t)uptime_s, "runDir", from->run_dir, "bpfDir",
			 from->bpf_dir, "steering", mode_text(from->mode), "pods", "enrolled",
			 (int)enrol_count(e, POD_ENROLLED), "joining", (int)enrol_count(e, POD_JOINING), "recovering",
			 (int)enrol_count(e, POD_RECOVERING), "leaving", (int)enrol_count(e, POD_LEAVING), "broken",
			 (int)enrol_broken(e), "mended", (json_int_t)enrol_mended(e), "markOnly", f.mark_only, "tcx",
			 f.tcx, "kubeletExempt", f.kubelet_exempt, "kubelet", f.kubelet_how, "tunnel",
			 tunnel_json(from), "kubernetes", kube_json(from), "installation", ctl_install_json(from));
}

/* --- pods ----------------------------------------------------------------------------------------------- */

static json_t *sockets_json(const struct steer_sockets *s)
{
	static const char *const names[] = {"TCP15001", "TCP15006", "TCP15008", "TCP15053", "UDP15053", "RAW4", "RAW6"};
	json_t *list = json_array();

	for (unsigned i = 0; list && i < STEER_SOCKETS; i++)
		if (s->fd[i] >= 0)
			json_array_append_new(list, json_string(names[i]));
	return list;
}

static void steering_json(json_t *o, struct steer_pod *steering)
{
	json_t *devices = json_array(), *addresses = json_array();
	struct steer_pod_status s = {.n_devices = 0};
	char text[ADDR_STRLEN];

	if (steering)
		steer_pod_status(steering, &s);
	for (unsigned i = 0; i < s.n_devices && i < STEER_DEVICES_MAX; i++)
		json_array_append_new(devices, json_pack("{ss si sb sb sb}", "name", s.device[i].name, "ifindex",
							 (int)s.device[i].ifindex, "late", s.device[i].late, "ethernet",
							 s.device[i].ethernet, "attached", s.device[i].attached));
	for (unsigned i = 0; i < s.n_addrs && i < STEER_ADDRS_MAX; i++)
		json_array_append_new(addresses, json_string(addr_str(&s.addr[i], text)));
	json_object_set_new(o, "devices", devices);
	json_object_set_new(o, "addresses", addresses);
	json_object_set_new(o, "existingConnections", json_integer(s.existing));
}

static void mended_json(json_t *o, const struct pod_mended *m)
{
	if (m->times)
		json_object_set_new(o, "mended", json_pack("{si ss}", "times", (int)m->times, "last", m->what));
}

static void pod_json(void *arg, const struct enrol_pod *p)
{
	const struct pod_record *r = enrol_pod_record(p);
	json_t *o = json_pack("{ss ss ss ss ss sI ss ss sb so}", "uid", r->uid, "namespace", r->identity.ns, "name",
			      r->identity.name, "serviceAccount", r->identity.sa, "netns", r->netns, "netnsCookie",
			      (json_int_t)r->cookie, "state", state_text(enrol_pod_state(p)), "steering",
			      mode_text(r->mode), "foreignTunnel", r->foreign, "sockets",
			      sockets_json(enrol_pod_sockets(p)));

	if (!o)
		return;
	if (enrol_pod_trouble(p)[0])
		json_object_set_new(o, "trouble", json_string(enrol_pod_trouble(p)));
	mended_json(o, enrol_pod_mended(p));
	steering_json(o, enrol_pod_steering(p));
	json_array_append_new(arg, o);
}

static json_t *each_json(const struct ctl_sources *from, void (*each)(void *arg, const struct enrol_pod *p))
{
	json_t *list = json_array();

	if (list)
		enrol_each(from->enrol, each, list);
	return list ? json_pack("{so}", "pods", list) : NULL;
}

json_t *ctl_pods_json(const struct ctl_sources *from)
{
	return each_json(from, pod_json);
}

/* --- counters ------------------------------------------------------------------------------------------- */

static unsigned counters(const struct enrol_pod *p, struct steer_counter out[COUNTERS_MAX])
{
	struct steer_pod *steering = enrol_pod_steering(p);
	unsigned n = steering ? steer_counters(steering, out, COUNTERS_MAX) : 0;

	return n < COUNTERS_MAX ? n : COUNTERS_MAX;
}

static void drops_json(void *arg, const struct enrol_pod *p)
{
	const struct pod_record *r = enrol_pod_record(p);
	struct steer_counter c[COUNTERS_MAX];
	unsigned n = counters(p, c);
	json_t *list = json_array();

	for (unsigned i = 0; i < n; i++)
		json_array_append_new(list, json_pack("{ss ss sI ss}", "name", c[i].name, "kind",
						      c[i].kind == STEER_DROP ? "drop" : "decision", "value",
						      (json_int_t)c[i].value, "help", c[i].help));
	json_array_append_new(arg, json_pack("{ss ss ss so}", "uid", r->uid, "namespace", r->identity.ns, "name",
					     r->identity.name, "counters", list));
}

json_t *ctl_drops_json(const struct ctl_sources *from)
{
	return each_json(from, drops_json);
}

struct metrics {
	FILE *out;
	enum steer_counter_kind kind;
	const char *name;
};

/* Names of pods and counters hold nothing that would need escaping. */
static void pod_metrics(void *arg, const struct enrol_pod *p)
{
	const struct pod_record *r = enrol_pod_record(p);
	const struct metrics *m = arg;
	struct steer_counter c[COUNTERS_MAX];
	unsigned n = counters(p, c);

	for (unsigned i = 0; i < n; i++)
		if (c[i].kind == m->kind)
			fprintf(m->out, "%s{pod=\"%s\",namespace=\"%s\",reason=\"%s\"} %llu\n", m->name,
				r->identity.name, r->identity.ns, c[i].name, (unsigned long long)c[i].value);
}

/* The first of these is istio-cni's. */
static void kube_metrics(FILE *out, const struct kube *k)
{
	struct kube_status s;

	kube_status(k, &s);
	fprintf(out,
		"# HELP nodeagent_reconcile_events_total Events about pods and namespaces.\n"
		"# TYPE nodeagent_reconcile_events_total counter\n"
		"nodeagent_reconcile_events_total{type=\"add\"} %llu\n"
		"nodeagent_reconcile_events_total{type=\"update\"} %llu\n"
		"nodeagent_reconcile_events_total{type=\"delete\"} %llu\n",
		(unsigned long long)s.added, (unsigned long long)s.updated, (unsigned long long)s.deleted);
	fprintf(out,
		"# HELP culvert_kube_pods Pods of this node, by whether they are in the mesh.\n"
		"# TYPE culvert_kube_pods gauge\n"
		"culvert_kube_pods{mesh=\"enrolled\"} %u\nculvert_kube_pods{mesh=\"not-enrolled-yet\"} %u\n"
		"culvert_kube_pods{mesh=\"outside\"} %u\n",
		s.selected - s.waiting, s.waiting, s.pods - s.selected);
	fprintf(out,
		"# HELP culvert_kube_connected Whether both watches of the API server are open.\n"
		"# TYPE culvert_kube_connected gauge\nculvert_kube_connected %d\n"
		"# HELP culvert_kube_lists_total Complete lists.\n# TYPE culvert_kube_lists_total counter\n"
		"culvert_kube_lists_total %llu\n"
		"# HELP culvert_kube_failures_total Failed lists and watches.\n"
		"# TYPE culvert_kube_failures_total counter\nculvert_kube_failures_total %llu\n"
		"# HELP culvert_kube_bad_objects_total Objects that could not be read.\n"
		"# TYPE culvert_kube_bad_objects_total counter\nculvert_kube_bad_objects_total %llu\n",
		s.connected, (unsigned long long)s.lists, (unsigned long long)s.failures, (unsigned long long)s.bad);
}

char *ctl_metrics_text(const struct ctl_sources *from)
{
	char *text = NULL;
	size_t len;
	struct metrics m = {open_memstream(&text, &len), STEER_DECISION, "culvert_steering_decisions_total"};

	if (!m.out)
		return NULL;
	fprintf(m.out, "# HELP %s Packets and connections of pods by what steering did with them.\n# TYPE %s counter\n",
		m.name, m.name);
	enrol_each(from->enrol, pod_metrics, &m);
	m.kind = STEER_DROP;
	m.name = "culvert_steering_drops_total";
	fprintf(m.out, "# HELP %s Packets of pods that steering dropped, by reason.\n# TYPE %s counter\n", m.name,
		m.name);
	enrol_each(from->enrol, pod_metrics, &m);
	fprintf(m.out,
		"# HELP ztunnel_connected Tunnels that are connected to the keeper.\n# TYPE ztunnel_connected gauge\n"
		"ztunnel_connected %u\n# HELP culvert_pods Pods by state.\n# TYPE culvert_pods gauge\n",
		zds_server_clients(from->zds));
	for (enum pod_state s = POD_JOINING; s <= POD_LEAVING; s++)
		fprintf(m.out, "culvert_pods{state=\"%s\"} %u\n", state_text(s), enrol_count(from->enrol, s));
	fprintf(m.out,
		"# HELP culvert_steering_mended_total Times that steering which somebody removed was put back.\n"
		"# TYPE culvert_steering_mended_total counter\nculvert_steering_mended_total %llu\n"
		"# HELP culvert_steering_broken Enrolled pods whose steering is not whole.\n"
		"# TYPE culvert_steering_broken gauge\nculvert_steering_broken %u\n",
		(unsigned long long)enrol_mended(from->enrol), enrol_broken(from->enrol));
	if (from->kube)
		kube_metrics(m.out, from->kube);
	ctl_install_metrics(m.out, from);
	fclose(m.out);
	return text;
}
