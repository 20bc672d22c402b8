/* SPDX-License-Identifier: Apache-2.0 */
/* What is to be seen on the node beside the agent's own answers: the pods' namespaces from inside, processes of ours and
 * of other data planes. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "culvertctl.h"
#include "doctor.h"
#include "net/netns.h"
#include "net/sock.h"
#include "node/enrol.h"
#include "steer/iptables.h"
#include "steer/seen.h"

enum { FILES_LEAST = 16384 /* of a process, on a node with some hundred pods */, LINE_MAX_ = 256 };

/* --- processes ------------------------------------------------------------------------------------------ */

/* The first line that begins so, without its end. */
static bool line_of(const char *path, const char *begin, char line[LINE_MAX_])
{
	bool found = false;
	FILE *f = fopen(path, "re");

	while (f && !found && fgets(line, LINE_MAX_, f))
		found = !strncmp(line, begin, strlen(begin));
	if (f)
		fclose(f);
	line[found ? strcspn(line, "\n") : 0] = '\0';
	return found;
}

static void process_look(struct doctor_process *p)
{
	char path[64], line[LINE_MAX_];
	DIR *d;

	snprintf(path, sizeof path, "/proc/%d/fd", p->pid);
	d = p->pid ? opendir(path) : NULL;
	snprintf(path, sizeof path, "/proc/%d/limits", p->pid);
	if (!d || !line_of(path, "Max open files", line) || sscanf(line, "Max open files %llu", &p->files_max) != 1)
		p->files_max = 0;
	while (d && readdir(d))
		p->files++;
	if (d)
		closedir(d);
}

/* Names of Istio's own: its node agent, and a ztunnel that is not the one that is connected to our keeper. */
static bool is_foreign(const struct doctor *d, int pid, const char *comm)
{
	return !strcmp(comm, "install-cni") || (!strcmp(comm, "ztunnel") && pid != d->tunnel.pid);
}

static void foreign_look(struct doctor *d)
{
	DIR *proc = opendir("/proc");
	size_t len = 0;

	for (struct dirent *f = proc ? readdir(proc) : NULL; f; f = readdir(proc)) {
		int pid = isdigit((unsigned char)f->d_name[0]) ? atoi(f->d_name) : 0;
		char path[64], comm[LINE_MAX_];

		snprintf(path, sizeof path, "/proc/%d/comm", pid);
		if (pid && line_of(path, "", comm) && is_foreign(d, pid, comm) && len < sizeof d->foreign)
			len += (size_t)snprintf(d->foreign + len, sizeof d->foreign - len, "%s%s (process %d)",
						len ? ", " : "", comm, pid);
	}
	if (proc)
		closedir(proc);
}

/* --- pods from inside ----------------------------------------------------------------------------------- */

static int pod_open(json_t *pod, struct netns_id *ns)
{
	uint64_t cookie = (uint64_t)number_of(pod, "netnsCookie");
	int fd = netns_open(text_of(pod, "netns")), e;

	e = fd < 0 ? fd : netns_identify(fd, ns);
	if (!e && (!cookie || ns->cookie == cookie))
		return fd;
	if (fd >= 0)
		close(fd);
	/* By another name: the keeper may be in a container, or the name was used again. */
	fd = cookie ? netns_find(0, cookie) : e;
	e = fd < 0 ? fd : netns_identify(fd, ns);
	if (e && fd >= 0)
		close(fd);
	return e ? e : fd;
}

static void settings_look(struct doctor_pod *p, int fd, const struct netns_id *ns)
{
	char line[LINE_MAX_];

	if (netns_enter(fd, ns->inode) < 0)
		return;
	if (!line_of("/proc/sys/net/core/somaxconn", "", line) || sscanf(line, "%d", &p->backlog) != 1)
		p->backlog = -1;
	if (!line_of("/proc/sys/net/ipv4/ip_local_port_range", "", line) ||
	    sscanf(line, "%u %u", &p->port_min, &p->port_max) != 2)
		p->port_min = p->port_max = 0;
	netns_home();
}

static void pod_look(struct doctor_pod *p, json_t *pod)
{
	bool bpf = !strcmp(text_of(pod, "steering"), "bpf");
	const char *state = text_of(pod, "state");
	struct netns_id ns;
	char why[STEER_WHY_MAX];
	int fd = pod_open(pod, &ns), e;

	*p = (struct doctor_pod){.ns = text_of(pod, "namespace"),
				 .name = text_of(pod, "name"),
				 .err = fd < 0 ? fd : 0,
				 .iptables = !bpf,
				 .backlog = -1};
	if (fd < 0)
		return;
	e = steer_seen(fd, &ns, bpf ? STEER_BPF : STEER_IPTABLES, why);
	if (e && (!*state || !strcmp(state, "enrolled")))
		snprintf(p->unsteered, sizeof p->unsteered, "%s", why);
	p->istio_chains = bpf && iptables_present(fd, &ns, why) > 0;
	settings_look(p, fd, &ns);
	close(fd);
}

static void pods_look(struct doctor *d)
{
	json_t *list = json_object_get(d->pods, "pods");
	size_t n = json_array_size(list) < DOCTOR_PODS_MAX ? json_array_size(list) : DOCTOR_PODS_MAX;

	d->pod = n ? calloc(n, sizeof *d->pod) : NULL;
	if (!d->pod || !d->kernel.root || netns_init_thread() < 0)
		return;
	while (d->n_pods < n) {
		pod_look(&d->pod[d->n_pods], json_array_get(list, d->n_pods));
		d->n_pods++;
	}
}

void doctor_node_gather(struct doctor *d)
{
	process_look(&d->keeper);
	process_look(&d->tunnel);
	foreign_look(d);
	pods_look(d);
}

void doctor_node_free(struct doctor *d)
{
	free(d->pod);
}

/* --- checks --------------------------------------------------------------------------------------------- */

static void check_process(struct doctor *d, const struct doctor_process *p)
{
	static const char advice[] =
		"raise LimitNOFILE (systemd), or the container runtime's limit; each pod takes some ten, "
		"each connection two";

	if (p->files_max && p->files * 5 > p->files_max * 4)
		finding(d, FINDING_PROBLEM, advice, "the %s, process %d, has %llu of %llu descriptors open", p->name,
			p->pid, p->files, p->files_max);
	else if (p->files_max && p->files_max < FILES_LEAST)
		finding(d, FINDING_WARNING, advice, "the %s, process %d, may open %llu descriptors only", p->name,
			p->pid, p->files_max);
}

void check_limits(struct doctor *d)
{
	check_process(d, &d->keeper);
	check_process(d, &d->tunnel);
}

void check_planes(struct doctor *d)
{
	unsigned n = 0;
	const struct doctor_pod *first = NULL;

	if (*d->foreign)
		finding(d, FINDING_WARNING,
			"keep Istio's DaemonSets off this node (deploy/README.md, \"One node at a time\"): two agents "
			"undo each other's work",
			"another data plane is on this node: %s", d->foreign);
	for (unsigned i = 0; i < d->n_pods; i++)
		if (d->pod[i].istio_chains && !n++)
			first = &d->pod[i];
	if (n)
		finding(d, FINDING_WARNING, "restart the pods: their namespaces come without the rules then",
			"istio-cni's iptables rules are still in %u pod%s (%s/%s), beside the programs that steer them",
			n, n > 1 ? "s" : "", first->ns, first->name);
}

/* Pods that share a defect are one line. */
static void check_shared(struct doctor *d)
{
	const struct doctor_pod *backlog = NULL, *ports = NULL;
	unsigned n_backlog = 0, n_ports = 0;

	for (unsigned i = 0; i < d->n_pods; i++) {
		const struct doctor_pod *p = &d->pod[i];

		if (p->backlog >= 0 && p->backlog < SOCK_BACKLOG && !n_backlog++)
			backlog = p;
		if (p->port_max && p->port_min <= SOCK_SPOOF_PORT_MAX && p->port_max >= SOCK_SPOOF_PORT_MIN &&
		    !n_ports++)
			ports = p;
	}
	if (n_backlog)
		finding(d, FINDING_WARNING,
			"leave net.core.somaxconn at 4096 or more: look for a sysctl in the pod's specification",
			"net.core.somaxconn is %d in %u pod%s (%s/%s): so few connections wait while the tunnel starts "
			"anew, "
			"the rest are tried again later",
			backlog->backlog, n_backlog, n_backlog > 1 ? "s" : "", backlog->ns, backlog->name);
	if (n_ports)
		finding(d, FINDING_NOTE,
			"leave net.ipv4.ip_local_port_range at 32768 and above where many connections meet: look for a "
			"sysctl in the pod's specification",
			"net.ipv4.ip_local_port_range is %u-%u in %u pod%s (%s/%s): ports %d to %d are those from "
			"which "
			"the tunnel calls applications with the client's address, and it avoids those in use",
			ports->port_min, ports->port_max, n_ports, n_ports > 1 ? "s" : "", ports->ns, ports->name,
			SOCK_SPOOF_PORT_MIN, SOCK_SPOOF_PORT_MAX);
}

#define WHO    "find out who did it: another agent, or somebody's ip, tc or iptables command"
#define UNLESS "if it stays so, `culvertctl pods` says why, and the pod has to be restarted. If it comes again, " WHO

/* The keeper does it by itself, each pod in its turn. */
static const char *steering_advice(const struct doctor *d, const struct doctor_pod *p)
{
	_Static_assert(ENROL_MEND_MS * ENROL_MEND_TURNS == 10000 && ENROL_MEND_MS * ENROL_MEND_TURNS_IPTABLES == 60000,
		       "as the advice says");
	if (!d->status)
		return "start culvertd, which puts it back as soon as it has the pod again; until then stop the pod, "
		       "if its "
		       "traffic must not be plaintext; and " WHO;
	return p->iptables ? "ask again in a minute: until then the keeper has put it back; " UNLESS
			   : "ask again in ten seconds: until then the keeper has put it back; " UNLESS;
}

void check_steering(struct doctor *d)
{
	for (unsigned i = 0; i < d->n_pods; i++) {
		const struct doctor_pod *p = &d->pod[i];

		if (p->err == -ENOENT)
			finding(d, FINDING_NOTE, "nothing, if the pod has ended: the keeper forgets it within minutes",
				"%s/%s: its network namespace is gone", p->ns, p->name);
		else if (p->err)
			finding(d, FINDING_WARNING, "run it on the node, as root",
				"%s/%s: its network namespace cannot be entered: %s", p->ns, p->name,
				strerror(-p->err));
		else if (*p->unsteered)
			finding(d, FINDING_PROBLEM, steering_advice(d, p),
				"%s/%s is not steered as a whole, its traffic may be plaintext: %s", p->ns, p->name,
				p->unsteered);
	}
	check_shared(d);
}
