// SPDX-License-Identifier: Apache-2.0
/* Pinned maps, links and programs in bpffs. */
#include "steer/pins.h"

#include <bpf/bpf.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "steer/steer_internal.h"

enum { PINS_MAX = 4 * STEER_DEVICES_MAX + 32 };

/* What we pin: names begin so, and are of one of these kinds. */
static const struct {
	const char *name;
	unsigned kinds; /* bits of enum pin_kind */
} ours[] = {
	{"map-", 1u << PIN_MAP},
	{PIN_LOOKUP, 1u << PIN_LINK},
	{"ingress-", 1u << PIN_LINK | 1u << PIN_PROG},
	{"egress-", 1u << PIN_LINK | 1u << PIN_PROG},
	{"qdisc-", 1u << PIN_PROG},
};

static bool is_bpffs(const char *path)
{
	struct statfs st;

	return statfs(path, &st) == 0 && st.f_type == BPF_FS_MAGIC;
}

static int make_path(const char *path)
{
	char part[PIN_PATH_MAX];
	size_t n = strlen(path);

	if (n >= sizeof part)
		return -ENAMETOOLONG;
	for (size_t i = 1; i <= n; i++) {
		if (path[i] != '/' && path[i])
			continue;
		memcpy(part, path, i);
		part[i] = 0;
		if (mkdir(part, 0700) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

/* Its root is another than the node's. */
static bool is_in_container(void)
{
	struct stat here, there;

	return stat("/", &here) == 0 && stat("/proc/1/root/", &there) == 0 &&
	       (here.st_dev != there.st_dev || here.st_ino != there.st_ino);
}

/* What a container mounts goes with it, and the pins that keep pods steered would go as well. */
static int mount_bpffs(const char *path, char why[STEER_WHY_MAX])
{
	if (is_bpffs(path))
		return 0;
	if (is_in_container())
		return failed(why, -ENOENT, "%s is no bpffs of the node's (there: mount -t bpf bpf /sys/fs/bpf)", path);
	if (mount("bpf", path, "bpf", MS_NOSUID | MS_NODEV | MS_NOEXEC, "mode=0700") < 0)
		return failed(why, -errno, "cannot mount bpffs on %s", path);
	return 0;
}

int pins_mount(const char *pin_dir, char why[STEER_WHY_MAX])
{
	static const char usual[] = "/sys/fs/bpf";
	size_t len = sizeof usual - 1;
	bool below = !strncmp(pin_dir, usual, len) && (!pin_dir[len] || pin_dir[len] == '/');
	char path[PIN_PATH_MAX];
	int e = below ? mount_bpffs(usual, why) : 0;

	if (e)
		return e;
	e = make_path(pin_dir);
	if (e < 0)
		return failed(why, e, "cannot make %s", pin_dir);
	e = mount_bpffs(pin_dir, why);
	if (e)
		return e;
	snprintf(path, sizeof path, "%s/v1", pin_dir);
	e = make_path(path);
	return e < 0 ? failed(why, e, "cannot make %s", path) : 0;
}

static const char *pin_path(const struct pins *p, const char *name, char path[PIN_PATH_MAX])
{
	snprintf(path, PIN_PATH_MAX, "%.*s/%.*s", PIN_PATH_MAX - PIN_NAME_MAX - 1, p->path, PIN_NAME_MAX - 1, name);
	return path;
}

/* --- the folder ----------------------------------------------------------------------------------------- */

/* A UID becomes a file name. bpffs takes no dots. */
static bool uid_fits(const char *uid)
{
	size_t n = strnlen(uid, STEER_UID_MAX);

	return n && n < STEER_UID_MAX &&
	       strspn(uid, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-") == n;
}

struct foreign {
	const struct pins *p;
	char name[PIN_NAME_MAX];
};

static bool is_ours(const struct pins *p, const char *name)
{
	char path[PIN_PATH_MAX];
	enum pin_kind kind;
	struct stat st;
	int fd, e;

	if (fstatat(p->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0 || st.st_uid != geteuid() || !S_ISREG(st.st_mode))
		return false;
	fd = bpf_obj_get(pin_path(p, name, path));
	if (fd < 0)
		return false;
	e = pin_kind_of(fd, &kind);
	close(fd);
	for (size_t i = 0; i < sizeof ours / sizeof *ours && !e; i++)
		if (!strncmp(name, ours[i].name, strlen(ours[i].name)))
			return ours[i].kinds & 1u << kind;
	return false;
}

static void find_foreign(void *arg, const char *name)
{
	struct foreign *f = arg;

	if (!is_ours(f->p, name))
		snprintf(f->name, sizeof f->name, "%.*s", PIN_NAME_MAX - 1, name);
}

static int pins_check(struct pins *p, char why[STEER_WHY_MAX])
{
	struct foreign f = {.p = p};
	struct stat st;

	if (fstat(p->dir, &st) < 0)
		return failed(why, -errno, "%s", p->path);
	if (st.st_uid != geteuid() || (st.st_mode & 022))
		return failed(why, -EEXIST, "%s is not ours: owner %u, mode %o; remove it", p->path, st.st_uid,
			      st.st_mode & 07777);
	pins_each(p, find_foreign, &f);
	return f.name[0] ? failed(why, -EEXIST, "%s/%s is not ours (owner, name or kind); remove it", p->path, f.name)
			 : 0;
}

int pins_open(struct pins *p, const char *pin_dir, const char *uid, char why[STEER_WHY_MAX])
{
	int e;

	p->dir = -1;
	if (!uid_fits(uid))
		return failed(why, -EINVAL, "uid \"%.*s\" cannot be the name of a folder", STEER_UID_MAX, uid);
	if ((size_t)snprintf(p->path, sizeof p->path, "%s/v1/%s", pin_dir, uid) >= sizeof p->path - PIN_NAME_MAX)
		return failed(why, -ENAMETOOLONG, "%s", pin_dir);
	p->existed = mkdir(p->path, 0700) < 0;
	if (p->existed && errno != EEXIST)
		return failed(why, -errno, "cannot make %s", p->path);
	p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (p->dir < 0)
		return failed(why, -errno, "cannot open %s", p->path);
	if (flock(p->dir, LOCK_EX | LOCK_NB) < 0)
		e = failed(why, errno == EWOULDBLOCK ? -EBUSY : -errno, "%s: another process steers this pod", p->path);
	else
		e = pins_check(p, why);
	if (e < 0)
		pins_close(p);
	return e;
}

void pins_close(struct pins *p)
{
	if (p->dir >= 0)
		close(p->dir);
	p->dir = -1;
}

bool pins_hold(const struct pins *p)
{
	struct stat here, named;

	return p->dir >= 0 && fstat(p->dir, &here) == 0 && stat(p->path, &named) == 0 && here.st_ino == named.st_ino &&
	       here.st_dev == named.st_dev;
}

int pins_set_aside(struct pins *p, const char *pin_dir, const char *uid, uint64_t inode, char why[STEER_WHY_MAX])
{
	char name[2 * STEER_UID_MAX], path[PIN_PATH_MAX];

	snprintf(name, sizeof name, "%s_%llu", uid, (unsigned long long)inode);
	if (!uid_fits(name) || (size_t)snprintf(path, sizeof path, "%s/v1/%s", pin_dir, name) >= sizeof path)
		return failed(why, -ENAMETOOLONG, "%s", name);
	if (rename(p->path, path) < 0)
		return failed(why, -errno, "cannot set aside %s as %s", p->path, name);
	pins_close(p);
	return 0;
}

void pins_drop_one(void *arg, const char *name)
{
	pin_drop(arg, name);
}

void pins_remove(struct pins *p)
{
	if (p->dir < 0)
		return;
	pins_each(p, pins_drop_one, p);
	rmdir(p->path);
	pins_close(p);
}

/* Names are taken first, so that `each` may change the folder. */
void pins_each(const struct pins *p, void (*each)(void *arg, const char *name), void *arg)
{
	char found[PINS_MAX][PIN_NAME_MAX];
	int fd = openat(p->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	unsigned n = 0;

	if (!d) {
		if (fd >= 0)
			close(fd);
		return;
	}
	while (n < PINS_MAX && (entry = readdir(d)))
		if (entry->d_name[0] != '.')
			snprintf(found[n++], PIN_NAME_MAX, "%.*s", PIN_NAME_MAX - 1, entry->d_name);
	closedir(d);
	for (unsigned i = 0; i < n; i++)
		each(arg, found[i]);
}

/* --- one pin -------------------------------------------------------------------------------------------- */

int pin_kind_of(int fd, enum pin_kind *kind)
{
	static const char *const words[] = {[PIN_MAP] = "map", [PIN_PROG] = "prog", [PIN_LINK] = "link"};
	char path[64], text[64] = "";

	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	if (readlink(path, text, sizeof text - 1) < 0)
		return -errno;
	for (unsigned i = 0; i < sizeof words / sizeof *words; i++) {
		if (strstr(text, words[i])) {
			*kind = i;
			return 0;
		}
	}
	return -EINVAL;
}

int pin_get_path(const char *path, enum pin_kind kind, char why[STEER_WHY_MAX])
{
	enum pin_kind is;
	int fd = bpf_obj_get(path);

	if (fd < 0)
		return failed(why, -errno, "cannot open %s", path);
	if (pin_kind_of(fd, &is) < 0 || is != kind) {
		close(fd);
		return failed(why, -EEXIST, "%s is not ours: another kind of object; remove it", path);
	}
	return fd;
}

int pin_put_path(const char *path, int fd, char why[STEER_WHY_MAX])
{
	char fresh[PIN_PATH_MAX + 8];

	if (bpf_obj_pin(fd, path) == 0)
		return 0;
	if (errno != EEXIST)
		return failed(why, -errno, "cannot pin %s", path);
	snprintf(fresh, sizeof fresh, "%s-new", path);
	unlink(fresh);
	if (bpf_obj_pin(fd, fresh) < 0)
		return failed(why, -errno, "cannot pin %s", fresh);
	if (rename(fresh, path) < 0) {
		int e = -errno;

		unlink(fresh);
		return failed(why, e, "cannot replace %s", path);
	}
	return 0;
}

int pin_get(const struct pins *p, const char *name, enum pin_kind kind, char why[STEER_WHY_MAX])
{
	char path[PIN_PATH_MAX];

	return pin_get_path(pin_path(p, name, path), kind, why);
}

int pin_put(const struct pins *p, const char *name, int fd, char why[STEER_WHY_MAX])
{
	char path[PIN_PATH_MAX];

	return pin_put_path(pin_path(p, name, path), fd, why);
}

bool pin_there(const struct pins *p, const char *name)
{
	return faccessat(p->dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
}

void pin_drop(const struct pins *p, const char *name)
{
	unlinkat(p->dir, name, 0);
}
