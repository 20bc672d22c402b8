/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of CRL_PATH: once at the start, and whenever the file has become another one. */
#include "control/crl_file.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "base/metrics.h"
#include "control/file_watch.h"

static const char target[] = "crl";

struct crl_file {
	struct crls *lists;
	struct file_watch *watch;
	void (*changed)(void *arg);
	void *arg;
	struct metric *entries, *failures;
	bool loaded, wrong; /* once; the last time */
	pthread_mutex_t lock;
	char trouble[CRL_FILE_WHY_MAX]; /* under the lock */
	char path[];
};

/* --- reading ---------------------------------------------------------------------------------------------- */

/* The whole file, malloc'ed. */
static int read_all(int fd, char **out, size_t *len)
{
	struct stat st;
	size_t n = 0;
	char *text;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_size > CRL_TEXT_MAX)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	while (n < (size_t)st.st_size) {
		ssize_t k = read(fd, text + n, (size_t)st.st_size - n);

		if (k < 0) {
			int e = -errno;

			free(text);
			return e;
		}
		if (!k)
			break;
		n += (size_t)k;
	}
	*out = text;
	*len = n;
	return 0;
}

static int load(struct crl_file *f, char why[CRL_FILE_WHY_MAX])
{
	int fd = open(f->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), e;
	char reason[CRL_WHY_MAX], *text = NULL;
	size_t len = 0;

	e = fd < 0 ? -errno : read_all(fd, &text, &len);
	if (fd >= 0)
		close(fd);
	if (e) {
		snprintf(why, CRL_FILE_WHY_MAX, "CRL_PATH: %s: cannot be read: %s", f->path,
			 e == -EINVAL ? "not a regular file" : strerror(-e));
		return e;
	}
	e = crls_load(f->lists, text, len, reason);
	free(text);
	if (e)
		snprintf(why, CRL_FILE_WHY_MAX, "CRL_PATH: %s: %s", f->path, reason);
	return e;
}

/* --- what is told ------------------------------------------------------------------------------------------ */

struct sum {
	unsigned lists, entries;
	time_t now;
};

static void add(void *arg, const struct crl_info *i)
{
	struct sum *s = arg;

	s->lists++;
	s->entries += i->entries;
	if (i->next_update && i->next_update < s->now)
		log_warn(target, "the list of %s was to be replaced %lld s ago; it stays in force", i->issuer,
			 (long long)(s->now - i->next_update));
}

static void tell_loaded(struct crl_file *f)
{
	struct sum s = {.now = time(NULL)};

	crls_each(f->lists, add, &s);
	metric_set(f->entries, s.entries);
	log_info(target, "%s: %u lists, %u revoked certificates", f->path, s.lists, s.entries);
}

static void tell_failed(struct crl_file *f, int e, const char *why)
{
	if (e == -ENOENT) {
		log_warn(target, "%s; %s", why,
			 f->loaded ? "the lists before stay in force" : "nothing is revoked yet");
		return;
	}
	metric_add(f->failures, 1);
	log_error(target, "%s; %s", why,
		  f->loaded ? "the lists before stay in force" : "nothing is revoked, and the tunnel is not ready");
}

static void reload(struct crl_file *f)
{
	char why[CRL_FILE_WHY_MAX] = "";
	int e = load(f, why);

	f->loaded |= !e;
	f->wrong = e && e != -ENOENT;
	pthread_mutex_lock(&f->lock);
	memcpy(f->trouble, why, sizeof why);
	pthread_mutex_unlock(&f->lock);
	if (e)
		tell_failed(f, e, why);
	else
		tell_loaded(f);
}

static void file_changed(void *arg)
{
	struct crl_file *f = arg;

	reload(f);
	f->changed(f->arg);
}

/* --- interface -------------------------------------------------------------------------------------------- */

bool crl_file_usable(const struct crl_file *f)
{
	return f->loaded || !f->wrong;
}

void crl_file_trouble(struct crl_file *f, char out[CRL_FILE_WHY_MAX])
{
	pthread_mutex_lock(&f->lock);
	memcpy(out, f->trouble, CRL_FILE_WHY_MAX);
	pthread_mutex_unlock(&f->lock);
}

const char *crl_file_path(const struct crl_file *f)
{
	return f->path;
}

struct crls *crl_file_lists(const struct crl_file *f)
{
	return f->lists;
}

struct crl_file *crl_file_new(struct loop *l, struct crls *lists, const char *path, void (*changed)(void *arg),
			      void *arg)
{
	static const char *const none[] = {NULL};
	struct crl_file *f = calloc(1, sizeof *f + strlen(path) + 1);

	if (!f)
		return NULL;
	f->lists = lists;
	f->changed = changed;
	f->arg = arg;
	memcpy(f->path, path, strlen(path) + 1);
	pthread_mutex_init(&f->lock, NULL);
	f->entries = metric_get(metric_family(METRIC_GAUGE, "culvert_crl_entries",
					      "Certificates on the revocation lists in force (unstable)", NULL, NULL),
				none);
	f->failures = metric_get(metric_family(METRIC_COUNTER, "culvert_crl_load_failures",
					       "Revocation lists that could not be read (unstable)", NULL, NULL),
				 none);
	f->watch = file_watch_new(l, path, CRL_FILE_SETTLE_MS, file_changed, f);
	if (!f->entries || !f->failures || !f->watch) {
		crl_file_free(f);
		return NULL;
	}
	reload(f);
	return f;
}

void crl_file_free(struct crl_file *f)
{
	if (!f)
		return;
	file_watch_free(f->watch);
	metric_put(f->entries);
	metric_put(f->failures);
	pthread_mutex_destroy(&f->lock);
	free(f);
}
