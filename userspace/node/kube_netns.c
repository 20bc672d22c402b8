/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the look through /proc. Whatever cannot be read of a process only means that this process proves nothing; one whose
 * cgroup cannot be read may be of any pod, so that none is known to have ended. */
#include "node/kube_netns.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <linux/nsfs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "net/netns.h"

enum { PATH_BYTES = 300 };

/* --- cgroups -------------------------------------------------------------------------------------------- */

static bool is_separator(char c)
{
	return ispunct((unsigned char)c) && c != '/';
}

/* A UUID whose groups may be parted by any one character, or by nothing. Its length in `text`, or 0. */
static size_t uuid_read(char out[POD_UID_MAX], const char *text)
{
	static const unsigned groups[] = {8, 4, 4, 4, 12};
	const char *p = text;
	bool parted = is_separator(text[0]) ? false : strlen(text) > 8 && is_separator(text[8]);
	size_t n = 0;

	for (unsigned g = 0; g < 5; g++) {
		if (g && parted && !is_separator(*p++))
			return 0;
		if (g && parted)
			out[n++] = '-';
		for (unsigned i = 0; i < groups[g]; i++, p++) {
			if (!isxdigit((unsigned char)*p))
				return 0;
			out[n++] = (char)tolower((unsigned char)*p);
		}
	}
	out[n] = '\0';
	return (size_t)(p - text);
}

/* The first counts: what comes after it the pod itself may have named.
 * ".../kubepods-burstable-pod0123_..._cdef.slice/cri-containerd-CONTAINER.scope": after "pod" the uid, then a boundary,
 * and at the end a container that has a name of its own. */
static bool path_uid(char out[POD_UID_MAX], const char *path)
{
	for (const char *p = path; (p = strstr(p, "pod")); p += 3) {
		size_t len;

		if (p == path || !ispunct((unsigned char)p[-1]))
			continue;
		len = uuid_read(out, p + 3);
		if (len && ispunct((unsigned char)p[3 + len]) && strchr(p + 3 + len, '/'))
			return true;
	}
	return false;
}

int kube_cgroup_uid(char uid[POD_UID_MAX], const char *text)
{
	char line[PATH_MAX], found[POD_UID_MAX];
	int e = -ENOENT;

	while (*text) {
		size_t n = strcspn(text, "\n");
		const char *path = memchr(text, ':', n);

		path = path ? memchr(path + 1, ':', n - (size_t)(path + 1 - text)) : NULL;
		if (path && (size_t)(text + n - path) < sizeof line) {
			snprintf(line, sizeof line, "%.*s", (int)(text + n - path - 1), path + 1);
			if (path_uid(found, line)) {
				if (e == 0 && strcmp(found, uid) != 0)
					return -EINVAL;
				snprintf(uid, POD_UID_MAX, "%s", found);
				e = 0;
			}
		}
		text += n + (text[n] == '\n');
	}
	return e;
}

/* --- one process ---------------------------------------------------------------------------------------- */

static int proc_read(const char *proc, const char *pid, const char *what, char *buf, size_t cap)
{
	char path[PATH_BYTES];
	ssize_t n;
	int fd, e;

	if (snprintf(path, sizeof path, "%s/%s/%s", proc, pid, what) >= (int)sizeof path)
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = read(fd, buf, cap - 1);
	e = n < 0 ? -errno : (size_t)n == cap - 1 ? -EFBIG : 0;
	close(fd);
	if (!e)
		buf[n] = '\0';
	return e;
}

/* Field 22 of stat, counted after the name, which may hold anything. 0: unknown. */
static uint64_t started(const char *proc, const char *pid)
{
	char buf[1024], *p;

	if (proc_read(proc, pid, "stat", buf, sizeof buf) < 0)
		return 0;
	p = strrchr(buf, ')');
	for (unsigned field = 2; p && field < 22; field++)
		p = strchr(p + 1, ' ');
	return p ? strtoull(p, NULL, 10) : 0;
}

/* Is any of the pod's addresses in the namespace that this thread is in? */
static bool addresses_here(const struct kube_sought *s)
{
	struct ifaddrs *all, *i;
	bool found = false;

	if (getifaddrs(&all) < 0)
		return false;
	for (i = all; i && !found; i = i->ifa_next) {
		struct sockaddr_storage ss = {.ss_family = AF_UNSPEC};
		struct endpoint at;

		if (!i->ifa_addr || (i->ifa_addr->sa_family != AF_INET && i->ifa_addr->sa_family != AF_INET6))
			continue;
		memcpy(&ss, i->ifa_addr,
		       i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
		for (unsigned k = 0; endpoint_from_sockaddr(&at, &ss) == 0 && k < s->n_ips; k++)
			found |= addr_eq(&at.ip, &s->ip[k]);
	}
	freeifaddrs(all);
	return found;
}

static bool is_our_userns(int fd)
{
	struct stat own, st;

	return fd >= 0 && fstat(fd, &st) == 0 && stat("/proc/self/ns/user", &own) == 0 && st.st_ino == own.st_ino &&
	       st.st_dev == own.st_dev;
}

/* Made by the runtime, not by a process of the pod in a user namespace that it made itself: the namespace belongs to our
 * user namespace, or to root's child of it where the pod was given one. In that the pod's processes are, so what they make
 * is a grandchild. */
static bool is_runtimes(int netns, bool own_users)
{
	int users = ioctl(netns, NS_GET_USERNS), parent = -1;
	bool ok = is_our_userns(users);
	uid_t owner;

	if (!ok && users >= 0 && own_users && ioctl(users, NS_GET_OWNER_UID, &owner) == 0 && owner == 0) {
		parent = ioctl(users, NS_GET_PARENT);
		ok = is_our_userns(parent);
	}
	if (users >= 0)
		close(users);
	if (parent >= 0)
		close(parent);
	return ok;
}

/* The namespace is the pod's: remembered, if the process is older than the one that was found before. */
static void prove(const char *proc, const char *pid, struct kube_sought *s)
{
	uint64_t since = started(proc, pid);
	char path[sizeof s->netns];
	struct netns_id id;
	bool ok;
	int fd;

	if (!since || (s->cookie && s->started <= since) || !s->n_ips ||
	    snprintf(path, sizeof path, "%s/%s/ns/net", proc, pid) >= (int)sizeof path)
		return;
	fd = netns_open(path);
	if (fd < 0)
		return;
	ok = is_runtimes(fd, s->own_users) && netns_identify(fd, &id) == 0 && id.cookie &&
	     netns_enter(fd, id.inode) == 0;
	ok = ok && addresses_here(s);
	netns_home();
	close(fd);
	if (!ok)
		return;
	s->cookie = id.cookie;
	s->started = since;
	snprintf(s->netns, sizeof s->netns, "%s", path);
}

/* --- all of them ---------------------------------------------------------------------------------------- */

/* False: it is there, and cannot be told whose it is. One whose namespace cannot even be looked at counts as nobody's: some
 * hosts always have such. */
static bool process_look(const char *proc, const char *pid, const struct stat *host, struct kube_sought *pods,
			 unsigned n)
{
	char path[PATH_BYTES], uid[POD_UID_MAX];
	char cgroup[KUBE_CGROUP_BYTES];
	struct stat st;
	int e;

	if (snprintf(path, sizeof path, "%s/%s/ns/net", proc, pid) >= (int)sizeof path || stat(path, &st) < 0 ||
	    (st.st_ino == host->st_ino && st.st_dev == host->st_dev))
		return true;
	e = proc_read(proc, pid, "cgroup", cgroup, sizeof cgroup);
	if (e)
		return e == -ENOENT || e == -ESRCH;
	if (kube_cgroup_uid(uid, cgroup) < 0)
		return true;
	for (unsigned i = 0; i < n; i++)
		if (!strcasecmp(pods[i].uid, uid)) {
			pods[i].lives = true;
			prove(proc, pid, &pods[i]);
		}
	return true;
}

int kube_netns_find(const char *proc, struct kube_sought *pods, unsigned n)
{
	char path[PATH_BYTES];
	struct dirent *entry;
	struct stat host = {.st_ino = 0};
	bool sure = true;
	DIR *d;
	int e;

	for (unsigned i = 0; i < n; i++) {
		pods[i].lives = false;
		pods[i].cookie = pods[i].started = 0;
		pods[i].netns[0] = '\0';
	}
	snprintf(path, sizeof path, "%s/1/ns/net", proc);
	e = netns_init_thread();
	if (e)
		return e;
	/* Who may not look at process 1 finds nothing in the host's namespace that would have to be told apart by
	 * this: the addresses still have to fit, and enrolment refuses our own namespace. */
	if (stat(path, &host) < 0)
		host.st_ino = 0;
	d = opendir(proc);
	if (!d)
		return -errno;
	while ((entry = readdir(d)))
		if (isdigit((unsigned char)entry->d_name[0]) && strlen(entry->d_name) < 16)
			sure &= process_look(proc, entry->d_name, &host, pods, n);
	closedir(d);
	for (unsigned i = 0; i < n; i++)
		pods[i].unsure = !sure;
	return 0;
}
