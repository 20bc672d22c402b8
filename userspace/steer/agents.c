// SPDX-License-Identifier: Apache-2.0
/* Whose packets are the agent's: cgroups of its processes. A socket belongs for ever to the cgroup of the process
 * that made it, and accepted ones to their listener's, so the keeper's counts too. Ids of cgroups are never used
 * again. */
#include <bpf/bpf.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/steer_internal.h"

enum { CGROUP_ROOT_ID = 1 };

/* Beside the process id in the map: it was a keeper, whose listening sockets a tunnel may have handed to the next one. */
static const uint32_t was_keeper = 1u << 31;

/* In a container the cgroups of others have no path, unless they are seen from the node's namespace. */
void agents_see_node(void)
{
	int fd = open("/proc/1/ns/cgroup", O_RDONLY | O_CLOEXEC);

	if (fd >= 0 && setns(fd, CLONE_NEWCGROUP) < 0)
		log_warn(STEER_LOG, "cannot enter the node's cgroup namespace: %s", strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* Where cgroup2 is mounted, and which part of the tree: "MOUNT ROOT POINT OPTIONS - cgroup2 ...". */
static int find_root(char point[PATH_MAX])
{
	FILE *f = fopen("/proc/self/mountinfo", "re");
	char line[2 * PATH_MAX + 256], root[PATH_MAX];
	int e = f ? -ENOENT : -errno;

	while (f && e && fgets(line, sizeof line, f))
		if (strstr(line, " - cgroup2 ") && sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2 &&
		    !strcmp(root, "/"))
			e = 0;
	if (f)
		fclose(f);
	return e;
}

int cgroup_id(const char *path, uint64_t *id)
{
	struct statfs fs;
	struct stat st;

	if (statfs(path, &fs) < 0 || stat(path, &st) < 0)
		return -errno;
	if (fs.f_type != CGROUP2_SUPER_MAGIC)
		return -ENOENT;
	*id = st.st_ino; /* the inode is the id, on 64-bit kernels */
	return 0;
}

/* "0::/PATH" is the line of cgroup2. */
static int read_path(int pid, char path[PATH_MAX])
{
	char name[64], line[PATH_MAX + 64];
	int e = -ENOENT;
	FILE *f;

	snprintf(name, sizeof name, "/proc/%d/cgroup", pid);
	f = fopen(name, "re");
	if (!f)
		return -errno;
	while (e && fgets(line, sizeof line, f)) {
		line[strcspn(line, "\n")] = 0;
		if (!strncmp(line, "0::", 3)) {
			snprintf(path, PATH_MAX, "%.*s", PATH_MAX - 1, line + 3);
			e = 0;
		}
	}
	fclose(f);
	return e;
}

int cgroup_of(const struct steer *s, int pid, char path[PATH_MAX], uint64_t *id)
{
	char root[PATH_MAX], below[PATH_MAX];
	int e = 0;

	if (s->cgroup_root)
		snprintf(root, sizeof root, "%s", s->cgroup_root);
	else
		e = find_root(root);
	if (!e)
		e = read_path(pid, below);
	if (e)
		return e;
	if (strstr(below, " (deleted)")) /* a process that has ended and was not waited for */
		return -ESRCH;
	if ((size_t)snprintf(path, PATH_MAX, "%s%s", root, below) >= PATH_MAX)
		return -ENAMETOOLONG;
	return cgroup_id(path, id);
}

/* --- the map -------------------------------------------------------------------------------------------- */

/* Until it is known how agents are told apart, what an earlier keeper wrote stays: its pods' programs follow it, and to
 * them a living tunnel would be a stranger for a moment. */
int node_write(struct steer *s, char why[STEER_WHY_MAX])
{
	struct steer_node node = {0};
	uint32_t first = 0;
	int e;

	if (!s->agents_known && bpf_map_lookup_elem(s->shared.map[MAP_NODE], &first, &node) == 0 &&
	    node.abi == STEER_ABI_VERSION)
		return 0;
	node = (struct steer_node){STEER_ABI_VERSION, s->mark_only, s->kubelet.cgroup};
	e = bpf_map_update_elem(s->shared.map[MAP_NODE], &first, &node, BPF_ANY);
	return e ? failed(why, e, "cannot write the node's configuration") : 0;
}

static bool is_alive(int pid)
{
	return kill(pid, 0) == 0 || errno != ESRCH;
}

/* Several processes may share a cgroup, of which the map names one. */
static bool has_living(const struct steer *s, uint64_t cgroup)
{
	for (unsigned i = 0; i < s->n_agents; i++)
		if (s->agent[i].cgroup == cgroup && is_alive(s->agent[i].pid))
			return true;
	return false;
}

static void forget_dead(struct steer *s)
{
	for (unsigned i = s->n_agents; i-- > 0;)
		if (!is_alive(s->agent[i].pid))
			s->agent[i] = s->agent[--s->n_agents];
}

/* Cgroups whose processes have ended; those of keepers only when `all` of them are to go. One that lives on under a
 * number that was used again only stays longer. */
static void prune(struct steer *s, bool all)
{
	uint64_t key, stale[STEER_ABI_AGENTS];
	void *at = NULL;
	unsigned n = 0;

	forget_dead(s);
	while (n < STEER_ABI_AGENTS && bpf_map_get_next_key(s->shared.map[MAP_AGENTS], at, &key) == 0) {
		uint32_t pid;

		if (bpf_map_lookup_elem(s->shared.map[MAP_AGENTS], &key, &pid) == 0 && (all || !(pid & was_keeper)) &&
		    !is_alive(pid & ~was_keeper) && !has_living(s, key))
			stale[n++] = key;
		at = &key;
	}
	while (n)
		bpf_map_delete_elem(s->shared.map[MAP_AGENTS], &stale[--n]);
}

void agents_prune(struct steer *s)
{
	prune(s, false);
}

/* The new one is in before anything goes, so no living agent is unknown for a moment. */
static int enter(struct steer *s, int pid, uint64_t cgroup)
{
	uint32_t value = pid | (pid == getpid() ? was_keeper : 0), old;
	int e;

	if (bpf_map_lookup_elem(s->shared.map[MAP_AGENTS], &cgroup, &old) == 0)
		value |= old & was_keeper;
	e = bpf_map_update_elem(s->shared.map[MAP_AGENTS], &cgroup, &value, BPF_ANY);
	if (s->n_agents < STEER_ABI_AGENTS)
		s->agent[s->n_agents++] = (struct steer_agent){pid, cgroup};
	prune(s, e == -E2BIG);
	return e == -E2BIG ? bpf_map_update_elem(s->shared.map[MAP_AGENTS], &cgroup, &value, BPF_ANY) : e;
}

static int fall_back(struct steer *s, const char *reason, char why[STEER_WHY_MAX])
{
	if (!s->mark_only)
		log_warn(STEER_LOG,
			 "%s: the agent's packets are known by their mark alone, which any process with CAP_NET_RAW or "
			 "CAP_NET_ADMIN in a pod can set to leave in plaintext",
			 reason);
	s->mark_only = s->agents_known = true;
	return node_write(s, why);
}

int steer_agent_add(struct steer *s, int pid, char why[STEER_WHY_MAX])
{
	char path[PATH_MAX], reason[128];
	uint64_t id;
	int e;

	if (s->shared.map[MAP_AGENTS] < 0)
		return 0; /* no BPF on this node */
	e = cgroup_of(s, pid, path, &id);
	if ((e == -ENOENT && kill(pid, 0) < 0) || e == -ESRCH)
		return failed(why, -ESRCH, "process %d", pid);
	/* A shortage of ours says nothing about the node, and what follows would hold until we end. */
	if (e == -EMFILE || e == -ENFILE || e == -ENOMEM)
		return failed(why, e, "cannot look for the cgroup of process %d", pid);
	if (e) {
		snprintf(reason, sizeof reason, "the cgroup of process %d cannot be found (%s)", pid, strerror(-e));
		return fall_back(s, reason, why);
	}
	if (id == CGROUP_ROOT_ID) {
		snprintf(reason, sizeof reason, "process %d is in the root cgroup", pid);
		return fall_back(s, reason, why);
	}
	e = enter(s, pid, id);
	if (e)
		return failed(why, e, "cannot enter the cgroup of process %d", pid);
	s->agents_known = true;
	return node_write(s, why);
}
