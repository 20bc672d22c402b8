/* SPDX-License-Identifier: Apache-2.0 */
/* The way by which pods of a container runtime come into the mesh: the configuration that it takes, our entry in it, the
 * program, and the keeper's socket behind that. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "cni_abi.h"
#include "culvertctl.h"
#include "doctor.h"
#include "node/install_internal.h"

/* 0 when somebody listens there. */
static int socket_try(const char *path)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd, e;

	if (snprintf(at.sun_path, sizeof at.sun_path, "%s", path) >= (int)sizeof at.sun_path)
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	e = connect(fd, (struct sockaddr *)&at, sizeof at) < 0 && errno != EAGAIN ? -errno : 0;
	close(fd);
	return e;
}

static void check_entry(struct doctor *d, const struct install_conf *f)
{
	json_t *own = (json_t *)f->list.own;
	const char *socket = text_of(own, "cni_socket"), *dir = text_of(own, "cni_agent_run_dir");
	char path[PATH_MAX];
	int e;

	if (*socket)
		snprintf(path, sizeof path, "%s", socket);
	else
		snprintf(path, sizeof path, "%s/%s", *dir ? dir : CNI_RUN_DIR_ISTIO, CNI_SOCKET_ISTIO);
	e = socket_try(path);
	if (e)
		finding(d, FINDING_PROBLEM,
			"start the keeper; if Culvert, or Istio, has left this node for good, take the entry out of "
			"the "
			"file",
			"%s/%s: its entry \"%s\" leads to %s, where nobody listens (%s): pods of the mesh do not start",
			d->conf_dir, f->name, INSTALL_TYPE, path, strerror(-e));
	if (f->list.ours > 1)
		finding(d, FINDING_WARNING, "remove all but the last \"" INSTALL_TYPE "\" of the list",
			"%s/%s has %u entries \"%s\": a pod is enrolled by each", d->conf_dir, f->name, f->list.ours,
			INSTALL_TYPE);
}

static void check_program(struct doctor *d, const struct install *in)
{
	char path[PATH_MAX], why[POD_WHY_MAX];

	if (install_path(path, d->bin_dir, INSTALL_TYPE, why) < 0)
		return;
	if (access(path, X_OK) < 0)
		finding(d, FINDING_PROBLEM,
			"start the keeper, which installs it; is this the folder that the runtime takes plugins from "
			"(culvertd --cni-bin-dir)?",
			"%s: %s: no pod can start with it missing", path, strerror(errno));
	else if (!install_programs_ours(in))
		finding(d, FINDING_WARNING, "keep Istio's node agent off this node: it writes its own program there",
			"%s is not Culvert's: istio-cni's own was put in its place", path);
}

/* Has another file than the one that is taken an entry of ours? */
static bool is_elsewhere(const struct install *in, const struct install_names *all, const char *first,
			 char name[NAME_MAX + 1])
{
	char why[POD_WHY_MAX];
	bool found = false;

	for (unsigned i = 0; i < all->n && !found; i++) {
		struct install_conf f;

		if (install_conf_read(in, all->name[i], &f, why) == 0 && strcmp(all->name[i], first) != 0 &&
		    f.list.ours) {
			snprintf(name, NAME_MAX + 1, "%s", all->name[i]);
			found = true;
		}
		install_conf_free(&f);
	}
	return found;
}

static void check_absent(struct doctor *d, const struct install *in, const struct install_names *all, const char *first)
{
	char other[NAME_MAX + 1];

	if (is_elsewhere(in, all, first, other))
		finding(d, FINDING_WARNING,
			"remove the file that comes first, or rename it, unless the runtime is told to take another "
			"one, or "
			"multus calls ours (--cni-chained=false)",
			"%s/%s is what a runtime takes first, and the plugin's entry is in %s: pods may start "
			"unsteered",
			d->conf_dir, first, other);
	else if (d->conf_wanted)
		finding(d, FINDING_PROBLEM,
			"start the keeper, which writes it at once; pods that began without it are steered when it "
			"sees "
			"them, but after their first connections",
			"%s/%s, which the runtime takes, has no entry \"%s\": pods of the mesh start unsteered",
			d->conf_dir, first, INSTALL_TYPE);
	else
		finding(d, FINDING_NOTE,
			"nothing, if pods are enrolled by hand; else culvertd --cni-conf-dir installs the plugin",
			"%s/%s, which the runtime takes, does not call culvert-cni", d->conf_dir, first);
}

static void check_folder(struct doctor *d, const struct install *in, const struct install_names *all)
{
	char why[POD_WHY_MAX];
	struct install_conf f;
	int e = install_conf_first(in, all, false, &f, why);

	if (e == -ENOENT && d->conf_wanted)
		finding(d, FINDING_PROBLEM, "install the cluster's network: its CNI writes one; no pod starts before",
			"%s: there is no CNI configuration that a runtime would take; %s", d->conf_dir, why);
	else if (e && e != -ENOENT)
		finding(d, FINDING_PROBLEM, "mend the file: runtimes take it, and cannot read it", "%s", why);
	else if (!e && *why)
		finding(d, FINDING_NOTE, "mend or remove the file", "%s", why);
	if (!e && !f.list.ours)
		check_absent(d, in, all, f.name);
	if (!e && f.list.ours) {
		check_entry(d, &f);
		check_program(d, in);
	}
	install_conf_free(&f);
}

void check_cni(struct doctor *d)
{
	struct install in = {.o = {.conf_dir = d->conf_dir, .bin_dir = d->bin_dir}};
	struct install_names all;
	char why[POD_WHY_MAX];

	if (!*d->conf_dir)
		return;
	if (install_names_read(&all, d->conf_dir, why) < 0)
		finding(d, d->conf_wanted ? FINDING_PROBLEM : FINDING_NOTE,
			"is it the runtime's folder (culvertd --cni-conf-dir), and visible here?",
			"the CNI configuration cannot be read: %s", why);
	else
		check_folder(d, &in, &all);
	install_names_free(&all);
}
