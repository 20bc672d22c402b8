/* SPDX-License-Identifier: Apache-2.0 */
/* culvertctl doctor: gathers what there is to look at, runs the checks of the table below and shows what they found, the
 * worst first. A new check: its function in one of the doctor_*.c, and a row here. */
#include <errno.h>
#include <glob.h>
#include <libgen.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/monotonic.h"
#include "base/version.h"
#include "ctl_abi.h"
#include "culvertctl.h"
#include "doctor.h"
#include "node/pods.h"

static const struct doctor_check checks[] = {
	{"kernel", "the kernel has what steering needs", NEEDS_NODE, check_kernel},
	{"rights", "the capabilities are there", NEEDS_NODE, check_rights},
	{"settings", "no sysctl of the node is in the way", NEEDS_NODE, check_settings},
	{"clock", "the clock is kept", NEEDS_NODE, check_clock},
	{"keeper", "the keeper answers", NEEDS_NODE, check_keeper},
	{"cni", "the way by which a runtime's pods come into the mesh", NEEDS_NODE, check_cni},
	{"steering", "each enrolled pod is steered, seen from inside", NEEDS_PODS, check_steering},
	{"tunnel", "a tunnel is there and has all pods", NEEDS_KEEPER, check_tunnel},
	{"limits", "keeper and tunnel may open enough descriptors", NEEDS_KEEPER, check_limits},
	{"kubernetes", "pods that are labelled are enrolled", NEEDS_KEEPER, check_kubernetes},
	{"pods", "sockets and devices of each pod", NEEDS_KEEPER, check_pods},
	{"drops", "steering drops no packets", NEEDS_KEEPER, check_drops},
	{"planes", "no other data plane is on this node", NEEDS_KEEPER, check_planes},
	{"certificates", "certificates are valid, and renewed in time", NEEDS_TUNNEL, check_certificates},
	{"istiod", "istiod is connected, where there is one", NEEDS_TUNNEL, check_istiod},
	{"mesh", "the mesh knows the pods of this node", NEEDS_TUNNEL, check_mesh},
};
enum { CHECKS = sizeof checks / sizeof *checks };

static const char *const levels[FINDING_LEVELS] = {"ok", "note", "warning", "problem"};

/* --- findings ------------------------------------------------------------------------------------------- */

void finding(struct doctor *d, enum finding_level level, const char *advice, const char *fmt, ...)
{
	struct findings *all = &d->found;
	struct finding *f;
	va_list ap;

	all->count[level]++;
	if (all->n == DOCTOR_FINDINGS_MAX) {
		all->left_out++;
		return;
	}
	f = &all->at[all->n++];
	f->level = level;
	f->check = d->check;
	snprintf(f->advice, sizeof f->advice, "%s", advice);
	va_start(ap, fmt);
	vsnprintf(f->what, sizeof f->what, fmt, ap);
	va_end(ap);
}

static bool is_met(const struct doctor *d, enum doctor_needs needs)
{
	return needs == NEEDS_NODE || (needs == NEEDS_KEEPER && d->status) || (needs == NEEDS_TUNNEL && d->dump) ||
	       (needs == NEEDS_PODS && d->pods);
}

/* Those of a level stay in the order of the checks. */
static void sort(struct findings *all)
{
	struct finding *sorted = calloc(DOCTOR_FINDINGS_MAX, sizeof *sorted);
	unsigned n = 0;

	if (!sorted)
		return;
	for (int level = FINDING_PROBLEM; level >= FINDING_OK; level--)
		for (unsigned i = 0; i < all->n; i++)
			if (all->at[i].level == (enum finding_level)level)
				sorted[n++] = all->at[i];
	free(all->at);
	all->at = sorted;
}

void doctor_run(struct doctor *d, const struct doctor_check *rows, unsigned n)
{
	d->found.at = calloc(DOCTOR_FINDINGS_MAX, sizeof *d->found.at);
	for (unsigned i = 0; i < n && d->found.at; i++) {
		unsigned before = d->found.n + d->found.left_out;

		d->check = rows[i].name;
		if (!is_met(d, rows[i].needs))
			continue;
		rows[i].run(d);
		if (d->found.n + d->found.left_out == before)
			finding(d, FINDING_OK, "", "%s", rows[i].looks_at);
	}
	if (d->found.at)
		sort(&d->found);
}

/* --- gathering ------------------------------------------------------------------------------------------ */

struct places {
	char conf_dir[PATH_MAX], bin_dir[PATH_MAX];
	char keeper_why[CALL_WHY_MAX], tunnel_why[CALL_WHY_MAX];
};

static json_t *ask(const struct doctor *d, const char *socket, const char *path, char why[CALL_WHY_MAX])
{
	return call_json(d->run_dir, socket, "GET", path, NULL, why);
}

static bool is_this_run(json_t *record)
{
	char boot[POD_BOOT_MAX] = "";
	FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");

	if (f && fscanf(f, "%39s", boot) != 1)
		boot[0] = '\0';
	if (f)
		fclose(f);
	return !strcmp(boot, text_of(record, "bootId"));
}

/* What a keeper that is not there left written of its pods: they are steered all the same. */
static json_t *records_read(const char *run_dir)
{
	char pattern[PATH_MAX];
	json_t *list = json_array();
	glob_t found = {.gl_pathc = 0};

	snprintf(pattern, sizeof pattern, "%s/pods/*.json", run_dir);
	if (glob(pattern, 0, NULL, &found) == 0) {
		for (size_t i = 0; i < found.gl_pathc && i < PODS_MAX; i++) {
			json_t *o = json_load_file(found.gl_pathv[i], 0, NULL);

			if (o && is_this_run(o))
				json_array_append(list, o);
			json_decref(o);
		}
		globfree(&found);
	}
	return json_pack("{so}", "pods", list);
}

static void ask_keeper(struct doctor *d, struct places *p)
{
	char socket[PATH_MAX], why[CALL_WHY_MAX];

	d->status = ask(d, CTL_SOCKET, CTL_STATUS, p->keeper_why);
	if (d->status) {
		d->pods = ask(d, CTL_SOCKET, CTL_PODS, why);
		d->drops = ask(d, CTL_SOCKET, CTL_DROPS, why);
		draining_connections(d->run_dir, json_object_get(json_object_get(d->status, "tunnel"), "generations"));
		d->keeper.pid = (int)number_of(d->status, "pid");
		d->tunnel.pid = (int)number_of(json_object_get(d->status, "tunnel"), "pid");
		d->bpf_dir = text_of(d->status, "bpfDir");
		return;
	}
	snprintf(socket, sizeof socket, "%s/%s", d->run_dir, CTL_SOCKET);
	d->pods = records_read(d->run_dir);
	d->installed = access(socket, F_OK) == 0 || json_array_size(json_object_get(d->pods, "pods"));
}

static const char *first_set(const char *a, const char *b)
{
	const char *text = getenv(a);

	if (!(text && *text))
		text = b ? getenv(b) : NULL;
	return text && *text ? text : NULL;
}

/* As the keeper has them, by its variables or by what it says; its container sees the node's folders below /host. */
static void find_folders(struct doctor *d, struct places *p)
{
	static const char *const usual[] = {"/host/etc/cni/net.d", "/etc/cni/net.d"};
	json_t *installation = json_object_get(d->status, "installation");
	const char *conf = first_set("CULVERT_CNI_CONF_DIR", "MOUNTED_CNI_NET_DIR");
	const char *bin = first_set("CULVERT_CNI_BIN_DIR", NULL), *said = text_of(installation, "path");

	d->conf_wanted = conf || json_is_object(installation);
	if (conf || *said) {
		snprintf(p->conf_dir, sizeof p->conf_dir, "%s", conf ? conf : said);
		if (!conf)
			dirname(p->conf_dir);
		if (access(p->conf_dir, F_OK) < 0 && !strncmp(p->conf_dir, "/host/", 6))
			memmove(p->conf_dir, p->conf_dir + 5, strlen(p->conf_dir + 5) + 1);
	}
	for (unsigned i = 0; i < 2 && !p->conf_dir[0]; i++)
		if (access(usual[i], F_OK) == 0)
			snprintf(p->conf_dir, sizeof p->conf_dir, "%s", usual[i]);
	snprintf(p->bin_dir, sizeof p->bin_dir, "%s",
		 bin				      ? bin
		 : !strncmp(p->conf_dir, "/host/", 6) ? "/host/opt/cni/bin"
						      : "/opt/cni/bin");
	d->conf_dir = p->conf_dir;
	d->bin_dir = p->bin_dir;
}

static void gather(struct doctor *d, struct places *p)
{
	const char *bpf_dir = first_set("CULVERT_BPF_DIR", NULL);
	char why[CALL_WHY_MAX];
	long long begin, left;

	d->bpf_dir = bpf_dir ? bpf_dir : "/sys/fs/bpf/culvert";
	ask_keeper(d, p);
	begin = monotonic_ms();
	d->dump = ask(d, CTL_TUNNEL_SOCKET, DUMP_BRIEF, p->tunnel_why);
	d->keeper_why = p->keeper_why;
	d->tunnel_why = p->tunnel_why;
	find_folders(d, p);
	doctor_kernel_gather(d);
	doctor_node_gather(d);
	left = begin + DOCTOR_WAIT_MS - monotonic_ms();
	if (d->drops && left > 0)
		nanosleep(&(struct timespec){left / 1000, left % 1000 * 1000000}, NULL);
	if (d->drops)
		d->drops_later = ask(d, CTL_SOCKET, CTL_DROPS, why);
	d->now = time(NULL);
}

static void let_go(struct doctor *d)
{
	doctor_node_free(d);
	json_decref(d->status);
	json_decref(d->pods);
	json_decref(d->drops);
	json_decref(d->drops_later);
	json_decref(d->dump);
	free(d->found.at);
}

/* --- showing -------------------------------------------------------------------------------------------- */

static json_t *passed_over(const struct doctor *d)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < CHECKS; i++)
		if (!is_met(d, checks[i].needs))
			json_array_append_new(list, json_string(checks[i].name));
	return list;
}

static void show_json(const struct doctor *d)
{
	json_t *list = json_array(), *o;

	for (unsigned i = 0; i < d->found.n; i++) {
		const struct finding *f = &d->found.at[i];

		o = json_pack("{ss ss ss}", "level", levels[f->level], "check", f->check, "finding", f->what);
		if (o && f->advice[0])
			json_object_set_new(o, "advice", json_string(f->advice));
		json_array_append_new(list, o);
	}
	o = json_pack("{ss si si si so so si}", "version", CULVERT_VERSION, "problems",
		      (int)d->found.count[FINDING_PROBLEM], "warnings", (int)d->found.count[FINDING_WARNING], "notes",
		      (int)d->found.count[FINDING_NOTE], "findings", list, "notLookedAt", passed_over(d), "leftOut",
		      (int)d->found.left_out);
	json_dumpf(o, stdout, JSON_INDENT(2));
	putchar('\n');
	json_decref(o);
}

static void show_finding(const struct finding *f, bool colours)
{
	static const char *const words[] = {"ok", "note", "WARNING", "PROBLEM"};
	static const char *const colour[] = {"\033[32m", "", "\033[33m", "\033[1;31m"};

	printf("%s%-8s%s %-13s %s\n", colours ? colour[f->level] : "", words[f->level], colours ? "\033[0m" : "",
	       f->check, f->what);
	if (f->advice[0])
		printf("%-22s -> %s\n", "", f->advice);
}

static void show(const struct doctor *d)
{
	bool colours = isatty(STDOUT_FILENO);
	json_t *left = passed_over(d), *name;
	size_t i;

	for (unsigned j = 0; j < d->found.n; j++)
		show_finding(&d->found.at[j], colours);
	if (json_array_size(left)) {
		printf("\nnot looked at, since %s does not answer:", d->status ? "the tunnel" : "the keeper");
		json_array_foreach(left, i, name) printf("%s %s", i ? "," : "", json_string_value(name));
		putchar('\n');
	}
	if (d->found.left_out)
		printf("\n%u more findings were left out\n", d->found.left_out);
	printf("\n%u problems, %u warnings, %u notes\n", d->found.count[FINDING_PROBLEM],
	       d->found.count[FINDING_WARNING], d->found.count[FINDING_NOTE]);
	json_decref(left);
}

int doctor(const char *run_dir, bool json, char why[CALL_WHY_MAX])
{
	struct doctor d = {.run_dir = run_dir, .keeper = {.name = "keeper"}, .tunnel = {.name = "tunnel"}};
	struct places *p = calloc(1, sizeof *p);
	bool problems;

	if (!p)
		return -ENOMEM;
	gather(&d, p);
	doctor_run(&d, checks, CHECKS);
	problems = d.found.count[FINDING_PROBLEM] > 0;
	if (json)
		show_json(&d);
	else
		show(&d);
	let_go(&d);
	free(p);
	return problems;
}
