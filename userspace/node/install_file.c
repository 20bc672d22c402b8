/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the replacing of files: written beside the old one under a name that nobody looks for, brought to the disk,
 * renamed. Only one process writes in these folders in our name (see install.c), so a file that a dead one left
 * unfinished is in the way once. */
#include "node/install_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { LABEL_MAX = 256, LOOKED_AT_MAX = 64, COPY_STEP = 1 << 20 };

static const char label_name[] = "security.selinux";

int install_failed(char why[POD_WHY_MAX], int e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, POD_WHY_MAX, fmt, ap);
	va_end(ap);
	return e;
}

/* --- reading -------------------------------------------------------------------------------------------- */

bool install_file_busy(const char *path)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	bool busy = fd >= 0 && fcntl(fd, F_SETLEASE, F_RDLCK) < 0 && errno == EAGAIN;

	if (fd >= 0)
		close(fd); /* and the lease goes */
	return busy;
}

static int all_read(int fd, char *out, size_t cap, size_t *len)
{
	ssize_t n = 1;

	*len = 0;
	while (n && *len < cap) {
		n = read(fd, out + *len, cap - *len);
		if (n < 0 && errno != EINTR)
			return -errno;
		*len += n > 0 ? (size_t)n : 0;
	}
	return *len == cap ? -EFBIG : 0;
}

int install_file_read(const char *path, char **out, size_t *len, size_t max, struct stat *st)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC), e = fd < 0 ? -errno : 0;
	struct stat s = {.st_size = 0};
	char *text = NULL;

	if (!e && fstat(fd, &s) < 0)
		e = -errno;
	if (!e)
		e = !S_ISREG(s.st_mode) ? -EINVAL : (size_t)s.st_size > max ? -EFBIG : 0;
	if (!e) {
		text = malloc((size_t)s.st_size + 2);
		e = text ? all_read(fd, text, (size_t)s.st_size + 1, len) : -ENOMEM;
		e = e == -EFBIG ? -EAGAIN : e; /* it grows */
	}
	if (fd >= 0)
		close(fd);
	if (e) {
		free(text);
		return e;
	}
	text[*len] = '\0';
	*out = text;
	if (st)
		*st = s;
	return 0;
}

static bool same_bytes(int a, int b)
{
	char one[16384], other[sizeof one];
	size_t n, m;

	do {
		int e = all_read(a, one, sizeof one, &n), f = all_read(b, other, sizeof other, &m);

		if ((e && e != -EFBIG) || (f && f != -EFBIG) || n != m || memcmp(one, other, n) != 0)
			return false;
	} while (n);
	return true;
}

int install_file_equal(const char *a, const char *b)
{
	int one = open(a, O_RDONLY | O_CLOEXEC), other;
	struct stat s, t;
	int same = 0;

	if (one < 0)
		return -errno;
	other = open(b, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC);
	if (other >= 0 && fstat(one, &s) == 0 && fstat(other, &t) == 0 && S_ISREG(t.st_mode) && s.st_size == t.st_size)
		same = same_bytes(one, other);
	close(one);
	if (other >= 0)
		close(other);
	return same;
}

bool install_name_unfinished(const char *name)
{
	size_t n = strlen(name), len = sizeof INSTALL_UNFINISHED - 1;

	return n >= len && !strcmp(name + n - len, INSTALL_UNFINISHED);
}

void install_folder_tidy(const char *folder)
{
	DIR *d = opendir(folder);

	for (struct dirent *f = d ? readdir(d) : NULL; f; f = readdir(d))
		if (install_name_unfinished(f->d_name))
			unlinkat(dirfd(d), f->d_name, 0);
	if (d)
		closedir(d);
}

/* --- one that is not finished ----------------------------------------------------------------------------- */

struct unfinished {
	const struct stat *was; /* what it must still be; NULL: anything */
	char folder[PATH_MAX], path[PATH_MAX], temporary[PATH_MAX];
	int fd;
	struct stat old; /* of the file that it replaces; zeroed: none */
};

static int places(struct unfinished *u, const char *path, bool follow, char *why)
{
	char *slash;

	if (!follow) {
		snprintf(u->path, sizeof u->path, "%s", path);
	} else if (!realpath(path, u->path)) {
		if (errno != ENOENT)
			return install_failed(why, -errno, "%.900s: %s", path, strerror(errno));
		if (lstat(path, &u->old) == 0)
			return install_failed(why, -ENOENT, "%.900s is a symbolic link to what is not there", path);
		snprintf(u->path, sizeof u->path, "%s", path);
	}
	snprintf(u->folder, sizeof u->folder, "%s", u->path);
	slash = strrchr(u->folder, '/');
	*slash = '\0';
	if (snprintf(u->temporary, sizeof u->temporary, "%s" INSTALL_UNFINISHED, u->path) >= (int)sizeof u->temporary)
		return install_failed(why, -ENAMETOOLONG, "%.900s: %s", path, strerror(ENAMETOOLONG));
	memset(&u->old, 0, sizeof u->old);
	if (lstat(u->path, &u->old) == 0 && !S_ISREG(u->old.st_mode) && !S_ISLNK(u->old.st_mode))
		return install_failed(why, -EINVAL, "%.900s is not a regular file", path);
	return 0;
}

static int unfinished_open(struct unfinished *u, const char *path, bool follow, mode_t mode, char *why)
{
	int e = places(u, path, follow, why);

	u->fd = -1;
	if (e)
		return e;
	unlink(u->temporary);
	u->fd = open(u->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (u->fd < 0 && errno == EROFS)
		return install_failed(
			why, -EROFS,
			"%.800s: read-only file system: is this the folder of this platform (global.platform in "
			"the chart), and is it mounted for writing?",
			path);
	if (u->fd < 0)
		return install_failed(why, -errno, "cannot write %.900s: %s", path, strerror(errno));
	if (fchmod(u->fd, mode) < 0)
		return install_failed(why, -errno, "%.900s: %s", path, strerror(errno));
	/* Without CAP_CHOWN it becomes root's, as whom runtimes run. */
	if (u->old.st_mode && (u->old.st_uid || u->old.st_gid))
		(void)!fchown(u->fd, u->old.st_uid, u->old.st_gid);
	return 0;
}

static ssize_t label_of(const char *path, char out[LABEL_MAX])
{
	return getxattr(path, label_name, out, LABEL_MAX);
}

/* Of another file of the folder. A label by type transition is what the kernel gives where a policy says so; where it
 * does not, programs of the host could not use what has the label of our container. */
static ssize_t label_of_folder(const char *folder, char out[LABEL_MAX])
{
	DIR *d = opendir(folder);
	ssize_t n = -1;
	unsigned left = LOOKED_AT_MAX;

	for (struct dirent *f = d ? readdir(d) : NULL; f && n < 0 && left--; f = readdir(d)) {
		char path[PATH_MAX];

		if (f->d_type == DT_REG && !install_name_unfinished(f->d_name) &&
		    snprintf(path, sizeof path, "%s/%s", folder, f->d_name) < (int)sizeof path)
			n = label_of(path, out);
	}
	if (d)
		closedir(d);
	return n;
}

/* Best effort: without SELinux there is no label, and where it may not be set the kernel's choice stays. */
static void label_set(const struct unfinished *u)
{
	char label[LABEL_MAX];
	ssize_t n = u->old.st_mode ? label_of(u->path, label) : -1;

	if (n < 0)
		n = label_of_folder(u->folder, label);
	if (n > 0)
		fsetxattr(u->fd, label_name, label, (size_t)n, 0);
}

static void folder_sync(const char *folder)
{
	int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	if (fd >= 0) {
		fsync(fd);
		close(fd);
	}
}

bool install_file_changed(const char *path, const struct stat *was)
{
	struct stat is;

	return install_file_busy(path) || stat(path, &is) < 0 || is.st_ino != was->st_ino || is.st_dev != was->st_dev ||
	       is.st_size != was->st_size || is.st_mtim.tv_sec != was->st_mtim.tv_sec ||
	       is.st_mtim.tv_nsec != was->st_mtim.tv_nsec;
}

/* `e`: whether writing went well. Owed after unfinished_open(), also when that failed. */
static int unfinished_end(struct unfinished *u, int e, const char *path, char *why)
{
	if (!e) {
		label_set(u);
		if (fsync(u->fd) == 0 && u->was && install_file_changed(u->path, u->was))
			e = install_failed(why, -EAGAIN, "%.900s is being written", path);
		else if (fsync(u->fd) < 0 || rename(u->temporary, u->path) < 0)
			e = install_failed(why, -errno, "cannot write %.900s: %s", path, strerror(errno));
	}
	if (u->fd >= 0)
		close(u->fd);
	if (e && u->fd >= 0)
		unlink(u->temporary);
	if (!e)
		folder_sync(u->folder);
	return e;
}

/* --- writing ---------------------------------------------------------------------------------------------- */

static int write_text(const char *path, const struct stat *was, const char *text, size_t len, mode_t mode, char *why)
{
	struct unfinished u = {.was = was, .fd = -1};
	int e = unfinished_open(&u, path, true, mode, why);

	for (size_t done = 0; !e && done < len;) {
		ssize_t n = write(u.fd, text + done, len - done);

		if (n < 0 && errno != EINTR)
			e = install_failed(why, -errno, "cannot write %.900s: %s", path, strerror(errno));
		done += n > 0 ? (size_t)n : 0;
	}
	return unfinished_end(&u, e, path, why);
}

int install_file_write(const char *path, const char *text, size_t len, mode_t mode, char why[POD_WHY_MAX])
{
	return write_text(path, NULL, text, len, mode, why);
}

int install_file_rewrite(const char *path, const struct stat *was, const char *text, size_t len, char why[POD_WHY_MAX])
{
	return write_text(path, was, text, len, was->st_mode & 07777, why);
}

int install_file_copy(const char *from, const char *path, mode_t mode, char why[POD_WHY_MAX])
{
	int in = open(from, O_RDONLY | O_CLOEXEC), e = 0;
	struct unfinished u = {.fd = -1};
	ssize_t n = 1;

	if (in < 0)
		return install_failed(why, -errno, "%.900s: %s", from, strerror(errno));
	e = unfinished_open(&u, path, false, mode, why);
	while (!e && n) {
		n = sendfile(u.fd, in, NULL, COPY_STEP);
		if (n < 0 && errno != EINTR)
			e = install_failed(why, -errno, "cannot copy %.400s to %.400s: %s", from, path,
					   strerror(errno));
	}
	close(in);
	return unfinished_end(&u, e, path, why);
}

int install_file_remove(const char *path, char why[POD_WHY_MAX])
{
	char folder[PATH_MAX], *slash;

	if (unlink(path) < 0)
		return errno == ENOENT ? 0
				       : install_failed(why, -errno, "cannot remove %.900s: %s", path, strerror(errno));
	snprintf(folder, sizeof folder, "%s", path);
	slash = strrchr(folder, '/');
	if (slash)
		*slash = '\0';
	folder_sync(folder);
	return 0;
}
