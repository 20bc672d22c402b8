/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the installer's life: when it looks, how soon it repairs, and what it says about that. */
#include "node/install.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "base/log.h"
#include "node/install_internal.h"
#include "node/kube_watch.h"

static const char target[] = "install";

const char *install_result_text(enum install_result r)
{
	static const char *const texts[] = {"SUCCESS", "COPY_BINARIES_FAILURE", "CREATE_KUBECONFIG_FAILURE",
					    "CREATE_CNI_CONFIG_FAILURE"};

	return texts[r];
}

/* --- one keeper a folder ---------------------------------------------------------------------------------- */

int install_lock(struct install *in, char why[POD_WHY_MAX])
{
	const char *folder = in->o.conf_dir;
	struct stat st;

	if (stat(folder, &st) < 0) {
		snprintf(why, POD_WHY_MAX, "%.900s: %s", folder, strerror(errno));
		return errno == ENOENT ? -EAGAIN : -errno;
	}
	if (in->lock >= 0 && in->locked.st_ino == st.st_ino && in->locked.st_dev == st.st_dev)
		return 0;
	if (in->lock >= 0)
		close(in->lock);
	in->lock = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (in->lock >= 0 && flock(in->lock, LOCK_EX | LOCK_NB) == 0 && fstat(in->lock, &in->locked) == 0) {
		install_folder_tidy(folder);
		install_folder_tidy(in->o.bin_dir);
		install_folder_tidy(in->o.run_dir);
		return 0;
	}
	if (errno == EWOULDBLOCK)
		snprintf(why, POD_WHY_MAX, "another keeper installs into %.900s; waiting for its end", folder);
	else
		snprintf(why, POD_WHY_MAX, "%.900s: %s", folder, strerror(errno));
	if (in->lock >= 0)
		close(in->lock);
	in->lock = -1;
	return -EAGAIN;
}

/* --- a pass ------------------------------------------------------------------------------------------------- */

static const struct step {
	int (*run)(struct install *in, bool *changed, char why[POD_WHY_MAX]);
	enum install_result failure;
} steps[] = {{install_programs, INSTALL_COPY_FAILED},
	     {install_kubeconfig, INSTALL_KUBECONFIG_FAILED},
	     {install_chain, INSTALL_CONFIG_FAILED}};

/* Where a change would concern us. What a symbolic link leads to is in its own folder. */
static void watch_again(struct install *in)
{
	char token[PATH_MAX], linked[PATH_MAX] = "";
	const char *folders[FOLDER_WATCH_MAX] = {in->o.conf_dir, in->o.bin_dir, in->o.from_dir, in->o.run_dir};
	unsigned n = 4;

	if (in->o.api && in->o.api->token_file[0]) {
		snprintf(token, sizeof token, "%s", in->o.api->token_file);
		folders[n++] = dirname(token);
	}
	if (in->status.path[0] && realpath(in->status.path, linked))
		folders[n++] = dirname(linked);
	if (in->watch)
		folder_watch_set(in->watch, folders, n);
}

static int pass_run(struct install *in, bool *changed, char *why)
{
	int e = install_lock(in, why);

	for (unsigned i = 0; i < sizeof steps / sizeof *steps && !e; i++) {
		why[0] = '\0';
		e = steps[i].run(in, changed, why);
		if (e && e != -EAGAIN)
			in->status.results[steps[i].failure]++;
	}
	return e;
}

/* Each trouble once. */
static void say(struct install *in, int e, const char *why)
{
	enum log_level level = e == -EAGAIN ? LOG_INFO : e ? LOG_ERROR : LOG_WARN;

	if (!e && !in->status.ready)
		log_info(target, "the plugin is installed: %s", in->status.path);
	if (why[0] && strcmp(in->said, why) != 0)
		log_at(level, target, "%s%s", why, level == LOG_ERROR ? "; trying again" : "");
	snprintf(in->said, sizeof in->said, "%s", why);
}

/* Somebody else writes the same, again and again. */
static void fight_count(struct install *in, bool changed)
{
	uint64_t now = loop_now(in->loop);

	if (!changed)
		return;
	in->fight = in->repaired_ms && now - in->repaired_ms < INSTALL_CALM_MS ? in->fight + 1 : 0;
	in->repaired_ms = now;
	if (in->fight == INSTALL_FIGHT)
		log_warn(target, "%d repairs in a row: another program changes the same files in %s or %s%s",
			 INSTALL_FIGHT, in->o.conf_dir, in->o.bin_dir,
			 strstr(in->status.path, "cilium") ? "; Cilium needs cni.exclusive=false" : "");
}

static void pass(struct timer *t);

static void next_pass(struct install *in, uint64_t after_ms)
{
	timer_set(in->loop, &in->next, after_ms, pass);
}

static void pass(struct timer *t)
{
	struct install *in = container_of(t, struct install, next);
	char why[POD_WHY_MAX] = "";
	bool changed = false;
	int e;

	in->next_is_soon = false;
	watch_again(in); /* before it is looked: what changes meanwhile is seen */
	e = pass_run(in, &changed, why);
	say(in, e, why);
	if (!e && (changed || !in->status.ready))
		in->status.results[INSTALL_SUCCESS]++;
	fight_count(in, changed);
	in->status.ready = !e;
	snprintf(in->status.trouble, sizeof in->status.trouble, "%s", why);
	in->failed = e && e != -EAGAIN ? in->failed + 1 : 0;
	if (in->failed)
		next_pass(in, kube_pause_ms(in->failed, INSTALL_RETRY_MIN_MS, INSTALL_RETRY_MAX_MS));
	else
		next_pass(in, in->lock < 0 ? INSTALL_LOCK_MS : INSTALL_POLL_MS);
}

/* A repair of a fight waits longer, yet not so long that many pods start meanwhile. */
static void changed(void *arg)
{
	struct install *in = arg;
	uint64_t ms = INSTALL_SETTLE_MS;

	if (!in->begun || in->ending)
		return;
	if (loop_now(in->loop) - in->repaired_ms < INSTALL_CALM_MS)
		for (unsigned i = 0; i < in->fight && ms < INSTALL_PAUSE_MS; i++)
			ms *= 2;
	ms = ms < INSTALL_PAUSE_MS ? ms : INSTALL_PAUSE_MS;
	if (!in->next_is_soon || !timer_armed(&in->next))
		next_pass(in, ms);
	in->next_is_soon = true;
}

/* Our own files on their way concern nobody. */
static bool concerns(void *arg, const char *name)
{
	return !install_name_unfinished(name);
}

static void begin(struct timer *t)
{
	struct install *in = container_of(t, struct install, next);

	if (!in->o.can_serve(in->o.arg)) {
		timer_set(in->loop, t, INSTALL_BEGIN_MS, begin);
		return;
	}
	in->begun = true;
	pass(t);
}

/* --- begin and end ------------------------------------------------------------------------------------------ */

static bool name_is_good(const char *name)
{
	return !name ||
	       (name[0] && strlen(name) <= INSTALL_NAME_MAX && !strchr(name, '/') && install_name_counts(name));
}

static int names_check(const struct install_options *o, char *why)
{
	const char *wrong = !name_is_good(o->conf_name) ? o->conf_name : o->owned;

	if (name_is_good(o->conf_name) && (!o->owned || (name_is_good(o->owned) && strstr(o->owned, ".conflist"))))
		return 0;
	snprintf(why, POD_WHY_MAX,
		 "\"%.200s\" is not the name of a CNI configuration: CNI_CONF_NAME ends in .conflist, .conf or .json, "
		 "ISTIO_OWNED_CNI_CONFIG_FILENAME in .conflist, and neither has a folder",
		 wrong);
	return -EINVAL;
}

int install_open(struct install **out, struct loop *l, const struct install_options *o, char why[POD_WHY_MAX])
{
	struct install *in = calloc(1, sizeof *in);
	const struct folder_watch_handler watch = {concerns, changed, in};

	if (!in) {
		snprintf(why, POD_WHY_MAX, "out of memory");
		return -ENOMEM;
	}
	in->loop = l;
	in->o = *o;
	in->lock = -1;
	if (names_check(o, why) < 0 || !(in->entry = install_entry_json(&o->entry, why))) {
		install_free(in);
		return -EINVAL;
	}
	snprintf(in->status.trouble, sizeof in->status.trouble, "the keeper cannot serve pods yet");
	signal(SIGIO, SIG_IGN); /* see install_file_busy() */
	in->watch = folder_watch_new(
		l, IN_CREATE | IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_ATTRIB, &watch);
	if (!in->watch)
		log_warn(target, "folders cannot be watched (%s): changes are seen every %d s", strerror(errno),
			 INSTALL_POLL_MS / 1000);
	timer_set(l, &in->next, 0, begin);
	*out = in;
	return 0;
}

void install_free(struct install *in)
{
	if (!in)
		return;
	timer_cancel(&in->next);
	folder_watch_free(in->watch);
	kube_api_close(in->api);
	json_decref(in->daemonset);
	json_decref(in->entry);
	if (in->lock >= 0)
		close(in->lock);
	free(in);
}

/* Names of files may be anything; what is told of them is UTF-8. */
static void make_plain(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || (unsigned char)*text > '~')
			*text = '?';
}

void install_status(const struct install *in, struct install_status *out)
{
	*out = in->status;
	make_plain(out->path);
	make_plain(out->trouble);
}
