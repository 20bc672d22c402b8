/* SPDX-License-Identifier: Apache-2.0 */
/* Puts the CNI plugin on the node and keeps it there, as istio-cni's installer does: the programs, a kubeconfig for the
 * plugin, and our entry in the configuration that the container runtime takes. Whatever is changed there by others is
 * looked at anew and repaired. On the keeper's loop.
 *
 *   WAITING   until the keeper can serve pods: an entry must not lead to a socket where nobody is
 *   WORKING   a pass after each change of the folders, and every INSTALL_POLL_MS: what is as it should be is not written
 *   ENDED     what happens to it is decided, see install_end()
 *
 * One keeper installs into a folder: it holds a lock on the folder itself. */
#pragma once
#include "loop/loop.h"
#include "node/install_entry.h"
#include "node/kube_config.h"

enum {
	INSTALL_BEGIN_MS = 100,	    /* between two looks whether the keeper can serve */
	INSTALL_SETTLE_MS = 20,	    /* after a change, for those who write in steps */
	INSTALL_POLL_MS = 30000,    /* also without a change that was seen */
	INSTALL_LOCK_MS = 1000,	    /* between two looks whether another keeper has gone */
	INSTALL_CALM_MS = 5000,	    /* a repair this soon after the last one is one of a fight: pauses double, */
	INSTALL_PAUSE_MS = 1000,    /* up to this: pods would start without the mesh meanwhile */
	INSTALL_FIGHT = 5,	    /* repairs of a fight until the log says so */
	INSTALL_NAME_MAX = 200,	    /* of a configuration that we write */
	INSTALL_RETRY_MIN_MS = 250, /* what failed is tried again, with growing pauses */
	INSTALL_RETRY_MAX_MS = 10000,
	INSTALL_ASK_MS = 2000, /* for an answer of the API server, at the end */
	INSTALL_ASKS_MAX = 3,  /* questions, as long as there is no clear answer, */
	INSTALL_ASK_GAP_MS = 1000,
	INSTALL_ANSWER_MAX = 1024 * 1024, /* bytes of an answer */
};

struct install_options { /* texts live as long as the installer */
	const char *conf_dir, *bin_dir;
	const char *from_dir;  /* where the programs are that are copied */
	const char *run_dir;   /* of the kubeconfig; it is the same path on the node */
	const char *conf_name; /* the configuration to take; NULL: the first, as the runtime does */
	bool chained;	       /* else a file of its own, whose name is conf_name */
	const char *owned;     /* instead of changing the first list, a copy of it in a file of this name; NULL */
	mode_t conf_mode, kubeconfig_mode;     /* of files that are new */
	const struct kube_config *api;	       /* NULL: without Kubernetes, and without a kubeconfig */
	const char *node_name, *pod_namespace; /* ours; NULL: not known */
	bool remove_at_end;
	struct install_entry entry;
	bool (*can_serve)(void *arg); /* may pods be added? */
	void *arg;
};

struct install;
/* Begins at once with waiting. 0, or -errno and a line in `why`. */
int install_open(struct install **out, struct loop *l, const struct install_options *o, char why[POD_WHY_MAX]);
/* The keeper ends. The installation stays when another keeper follows, so that no pod starts without the mesh: without
 * Kubernetes always, else unless the DaemonSet is gone or keeps away from this node. `done` may be called before this
 * returns; an installer that is NULL is done at once. */
void install_end(struct install *in, void (*done)(void *arg), void *arg);
void install_free(struct install *in); /* takes NULL */

enum install_result { /* of a pass, as istio-cni counts them */
		      INSTALL_SUCCESS,
		      INSTALL_COPY_FAILED,
		      INSTALL_KUBECONFIG_FAILED,
		      INSTALL_CONFIG_FAILED,
		      INSTALL_RESULTS,
};
const char *install_result_text(enum install_result r);

struct install_status {
	bool ready;		   /* it is there, and as it should be */
	char path[PATH_MAX];	   /* the runtime's configuration with our entry; "" */
	char trouble[POD_WHY_MAX]; /* why it is not ready, or what else is wrong; "" */
	uint64_t results[INSTALL_RESULTS];
};
void install_status(const struct install *in, struct install_status *out);
