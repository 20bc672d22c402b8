/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the folder of pod records. A record is written to a file of another name, brought to the disk, and renamed: a
 * reader finds the old one or the new one, whole. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "node/pods_internal.h"

enum { FORMAT = 1 };

static const char target[] = "pods", suffix[] = ".json", unfinished[] = ".tmp", set_aside[] = ".bad";

struct pods {
	int dir;
	char boot[POD_BOOT_MAX];
	char path[];
};

/* --- the folder ----------------------------------------------------------------------------------------- */

static int boot_read(char out[POD_BOOT_MAX])
{
	int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, out, POD_BOOT_MAX - 1);
	int e = n < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	if (e)
		return e;
	out[n] = '\0';
	out[strcspn(out, "\n")] = '\0';
	return 0;
}

int pods_open(struct pods **out, const char *run_dir, char why[POD_WHY_MAX])
{
	struct pods *p = calloc(1, sizeof *p + strlen(run_dir) + sizeof "/pods");
	int e = p ? 0 : -ENOMEM;

	if (!e) {
		snprintf(p->path, strlen(run_dir) + sizeof "/pods", "%s/pods", run_dir);
		p->dir = -1;
		e = boot_read(p->boot);
	}
	if (!e && mkdir(p->path, 0700) < 0 && errno != EEXIST)
		e = -errno;
	if (!e) {
		p->dir = open(p->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		e = p->dir < 0 ? -errno : 0;
	}
	if (!e) {
		*out = p;
		return 0;
	}
	snprintf(why, POD_WHY_MAX, "%s: %s", p ? p->path : "pods", strerror(-e));
	pods_close(p);
	return e;
}

void pods_close(struct pods *p)
{
	if (!p)
		return;
	if (p->dir >= 0)
		close(p->dir);
	free(p);
}

const char *pods_boot(const struct pods *p)
{
	return p->boot;
}

/* --- writing -------------------------------------------------------------------------------------------- */

static char *record_text(const struct pod_record *r)
{
	json_t *o = json_pack("{si ss ss ss ss ss sI ss si ss sb}", "version", FORMAT, "uid", r->uid, "namespace",
			      r->identity.ns, "name", r->identity.name, "serviceAccount", r->identity.sa, "netns",
			      r->netns, "netnsCookie", (json_int_t)r->cookie, "bootId", r->boot, "abi", (int)r->abi,
			      "steering", r->mode == STEER_BPF ? "bpf" : "iptables", "foreignTunnel", r->foreign);
	char *text = NULL;

	if (o && record_more_json(o, r) == 0)
		text = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	return text;
}

static int file_write(int dir, const char *name, const char *text)
{
	int fd = openat(dir, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600), e = 0;
	size_t len = strlen(text), done = 0;

	if (fd < 0)
		return -errno;
	while (!e && done < len) {
		ssize_t n = write(fd, text + done, len - done);

		if (n < 0 && errno != EINTR)
			e = -errno;
		done += n > 0 ? (size_t)n : 0;
	}
	if (!e && fsync(fd) < 0)
		e = -errno;
	close(fd);
	return e;
}

int pods_save(struct pods *p, const struct pod_record *r, char why[POD_WHY_MAX])
{
	char name[NAME_MAX], tmp[NAME_MAX], *text = record_text(r);
	int e = text ? 0 : -ENOMEM;

	snprintf(name, sizeof name, "%s%s", r->uid, suffix);
	snprintf(tmp, sizeof tmp, "%s%s", r->uid, unfinished);
	if (!e)
		e = file_write(p->dir, tmp, text);
	if (!e && renameat(p->dir, tmp, p->dir, name) < 0)
		e = -errno;
	if (!e && fsync(p->dir) < 0)
		e = -errno;
	if (e) {
		unlinkat(p->dir, tmp, 0);
		snprintf(why, POD_WHY_MAX, "cannot write %s/%s: %s", p->path, name, strerror(-e));
	}
	free(text);
	return e;
}

static bool is_there(const struct pods *p, const char *uid, const char *end)
{
	char name[NAME_MAX];

	snprintf(name, sizeof name, "%s%s%s", uid, suffix, end);
	return faccessat(p->dir, name, F_OK, AT_SYMLINK_NOFOLLOW) == 0 || errno != ENOENT;
}

bool pods_has(const struct pods *p, const char *uid)
{
	return is_there(p, uid, "") || is_there(p, uid, set_aside);
}

int pods_remove(struct pods *p, const char *uid)
{
	char name[NAME_MAX];

	snprintf(name, sizeof name, "%s%s%s", uid, suffix, set_aside);
	unlinkat(p->dir, name, 0);
	snprintf(name, sizeof name, "%s%s", uid, suffix);
	if (unlinkat(p->dir, name, 0) < 0 && errno != ENOENT)
		return -errno;
	return fsync(p->dir) < 0 ? -errno : 0;
}

/* --- reading -------------------------------------------------------------------------------------------- */

static bool text_take(char *out, size_t cap, const char *in)
{
	return in && *in && snprintf(out, cap, "%s", in) < (int)cap;
}

/* What is wrong with the record, or NULL. */
static const char *record_take(struct pod_record *r, json_t *o, const char *name)
{
	const char *uid = NULL, *ns = NULL, *pod = NULL, *sa = NULL, *netns = NULL, *boot = NULL, *steering = NULL;
	char identity[3 * POD_NAME_MAX], why[POD_WHY_MAX];
	int version = 0, abi = 0, foreign = 0;
	json_int_t cookie = 0;

	if (json_unpack(o, "{s:i}", "version", &version) < 0 || version != FORMAT)
		return "its version is not known here";
	if (json_unpack(o, "{s:s s:s s:s s:s s:s s:I s:s s:i s:s s:b}", "uid", &uid, "namespace", &ns, "name", &pod,
			"serviceAccount", &sa, "netns", &netns, "netnsCookie", &cookie, "bootId", &boot, "abi", &abi,
			"steering", &steering, "foreignTunnel", &foreign) < 0)
		return "fields are missing or of a wrong type";
	if (!text_take(r->uid, sizeof r->uid, uid) || !pod_uid_valid(uid) || strncmp(name, uid, strlen(uid)) != 0 ||
	    strcmp(name + strlen(uid), suffix) != 0)
		return "its uid is not its name";
	snprintf(identity, sizeof identity, "%s/%s/%s", ns, pod, sa);
	if (pod_identity_parse(&r->identity, identity, why) < 0)
		return "bad identity";
	if (!text_take(r->netns, sizeof r->netns, netns) || !text_take(r->boot, sizeof r->boot, boot) || !cookie)
		return "no network namespace";
	if (strcmp(steering, "bpf") != 0 && strcmp(steering, "iptables") != 0)
		return "unknown steering";
	if (record_more_take(r, o) < 0)
		return "bad attachment or overlay";
	r->cookie = (uint64_t)cookie;
	r->abi = (unsigned)abi;
	r->mode = strcmp(steering, "bpf") == 0 ? STEER_BPF : STEER_IPTABLES;
	r->foreign = foreign;
	return NULL;
}

static const char *record_read(struct pods *p, const char *name, struct pod_record *out)
{
	int fd = openat(p->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
	char *text = malloc(POD_RECORD_BYTES);
	struct stat st;
	ssize_t n = -1;
	const char *wrong;
	json_t *o = NULL;

	if (fd >= 0 && text && fstat(fd, &st) == 0 && S_ISREG(st.st_mode))
		n = read(fd, text, POD_RECORD_BYTES);
	if (n > 0 && n < POD_RECORD_BYTES)
		o = json_loadb(text, (size_t)n, JSON_REJECT_DUPLICATES, NULL);
	wrong = !text	? "out of memory"
		: n < 0 ? "it cannot be read"
		: !o	? "it is not JSON"
			: record_take(out, o, name);
	json_decref(o);
	free(text);
	if (fd >= 0)
		close(fd);
	return wrong;
}

static bool ends_in(const char *name, const char *end)
{
	size_t n = strlen(name), len = strlen(end);

	return n > len && strcmp(name + n - len, end) == 0;
}

static void file_load(struct pods *p, const char *name, void (*each)(void *arg, const struct pod_record *r), void *arg)
{
	struct pod_record r = {.uid = ""};
	char bad[NAME_MAX + sizeof set_aside];
	const char *wrong;

	if (ends_in(name, unfinished))
		unlinkat(p->dir, name, 0); /* its writer died, and nothing was attached yet */
	if (!ends_in(name, suffix))
		return;
	wrong = record_read(p, name, &r);
	if (!wrong) {
		each(arg, &r);
		return;
	}
	snprintf(bad, sizeof bad, "%s%s", name, set_aside);
	renameat(p->dir, name, p->dir, bad);
	log_warn(target,
		 "%s/%s: %s; it is %s now; its pod stays steered, without a tunnel, until it is enrolled again, or "
		 "until "
		 "this file is removed and the keeper restarted",
		 p->path, name, wrong, bad);
}

int pods_load(struct pods *p, void (*each)(void *arg, const struct pod_record *r), void *arg, char why[POD_WHY_MAX])
{
	int fd = dup(p->dir), e = 0;
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	unsigned n = 0;

	if (!d) {
		e = -errno;
		if (fd >= 0)
			close(fd);
		snprintf(why, POD_WHY_MAX, "%s: %s", p->path, strerror(-e));
		return e;
	}
	rewinddir(d);
	for (struct dirent *f = readdir(d); f && n < PODS_MAX; f = readdir(d))
		if (f->d_name[0] != '.') {
			file_load(p, f->d_name, each, arg);
			n++;
		}
	closedir(d);
	return 0;
}
