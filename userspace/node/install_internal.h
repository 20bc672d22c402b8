/* SPDX-License-Identifier: Apache-2.0 */
/* The installer, as install*.c share it.
 *
 * install.c             its life: when there is a pass, what came of it
 * install_programs.c    the programs
 * install_kubeconfig.c  the plugin's way to the API server
 * install_find.c        the runtime's configuration: which file it takes
 * install_chain.c       and what is to be in it
 * install_end.c         stay or go, and the going
 * install_daemonset.c   what the DaemonSet and the node say about that
 * install_entry.c, install_list*.c, install_file.c: what these are made of */
#pragma once
#include "loop/folder_watch.h"
#include "node/install.h"
#include "node/install_file.h"
#include "node/install_list.h"
#include "node/kube_api.h"

#define INSTALL_KUBECONFIG "istio-cni-kubeconfig"

enum { INSTALL_PROGRAMS = 2, INSTALL_FILES_MAX = 256 /* of the configuration's folder that count */ };

struct install {
	struct loop *loop;
	struct install_options o;
	json_t *entry;
	int lock; /* on the configuration's folder; -1 */
	struct stat locked;
	struct folder_watch *watch;
	struct timer next;
	uint64_t repaired_ms;
	unsigned fight, failed; /* in a row */
	struct program_seen {	/* when the two files were last found to be equal */
		struct stat from, to;
	} program[INSTALL_PROGRAMS];
	struct install_status status;
	char said[POD_WHY_MAX]; /* the last trouble in the log */
	bool begun, ending;
	bool next_is_soon; /* `next` is there because of a change */
	/* The end: */
	struct kube_api *api;
	struct kube_call *call;
	json_t *daemonset;
	unsigned asks;
	void (*done)(void *arg);
	void *arg;
};

/* -EAGAIN, with a line in `why`: another keeper has the folder, or it is not there. */
int install_lock(struct install *in, char why[POD_WHY_MAX]);
/* Each brings its part to what it should be. 0, and `changed` is set when something was written; -errno and a line in
 * `why`. -EAGAIN: others have to do something first, which is no failure. */
int install_programs(struct install *in, bool *changed, char why[POD_WHY_MAX]);
int install_kubeconfig(struct install *in, bool *changed, char why[POD_WHY_MAX]);
/* Sets status.path; a line in `why` with 0 is a warning. */
int install_chain(struct install *in, bool *changed, char why[POD_WHY_MAX]);

/* Is the plugin on the node ours, of whatever version, or not there? Else somebody else has installed his, and the rest
 * is his as well. */
bool install_programs_ours(const struct install *in);
/* The kubeconfig's text, malloc'ed and with the token in it. */
int install_kubeconfig_text(const struct kube_config *api, char **out, char why[POD_WHY_MAX]);
/* Each removes its part as far as it can, with a line in the log for what it cannot. */
void install_chain_remove(struct install *in);
void install_kubeconfig_remove(struct install *in);
void install_programs_remove(struct install *in);

/* FOLDER/NAME. -ENAMETOOLONG and a line in `why`. */
int install_path(char out[PATH_MAX], const char *folder, const char *name, char why[POD_WHY_MAX]);

/* --- install_find.c --- */
struct install_names { /* of files in a folder that runtimes look at, in their order */
	unsigned n;
	char *name[INSTALL_FILES_MAX];
};
struct install_conf { /* one of them */
	char name[NAME_MAX + 1];
	struct install_list list;
	struct stat st;
};
/* -errno and a line in `why`. install_names_free() is owed in any case. */
int install_names_read(struct install_names *all, const char *folder, char why[POD_WHY_MAX]);
bool install_names_have(const struct install_names *all, const char *name);
void install_names_free(struct install_names *all);
/* -EBADMSG: no runtime would take it; -EAGAIN: it is being written; both and others with a line in `why`.
 * install_conf_free() is owed in any case. */
int install_conf_read(const struct install *in, const char *name, struct install_conf *out, char why[POD_WHY_MAX]);
void install_conf_free(struct install_conf *f);
/* Has it plugins of others that are not a copy? A configuration of ours alone is nobody's network. */
bool install_conf_is_other(const struct install_conf *f);
/* The first that a runtime takes; with `others`, but for ours. -ENOENT: none. With 0 and -ENOENT `why` says what was
 * passed over, or "". */
int install_conf_first(const struct install *in, const struct install_names *all, bool others, struct install_conf *out,
		       char why[POD_WHY_MAX]);
/* The one that is to have our entry. -EAGAIN, with a line in `why`: there is none yet. */
int install_conf_find(const struct install *in, const struct install_names *all, struct install_conf *out,
		      char why[POD_WHY_MAX]);
