/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin's configuration: the JSON that the runtime writes to stdin. Keys are istio-cni's, so that a configuration
 * that Istio's installer wrote works here; our own:
 *   "cni_socket"     the keeper's socket; without it pluginevent.sock in "cni_agent_run_dir", without that our default
 *   "kubeconfig"     for asking the API server when the keeper is away; else istio-cni-kubeconfig in "cni_agent_run_dir"
 *   "strict_status"  STATUS asks the keeper. Off by default: a runtime that hears that the network is not ready starts no
 *                    pod but those of the host's network, so that a keeper in a pod of its own could never come up
 * "wrapped_file" and "copied_file" are the installer's notes to itself (userspace/node/install_list.h). */
#pragma once
#include <jansson.h>

#include "base/span.h"
#include "plugin.h"

enum { CONF_PATH_MAX = 512 };

struct conf {
	char *text; /* as it came */
	json_t *root;
	char version[8], name[CNI_ID_MAX];
	char socket[CONF_PATH_MAX], run_dir[CONF_PATH_MAX], kubeconfig[CONF_PATH_MAX];
	const char *log_level, *pod_namespace; /* in root; "" by default */
	json_t *exclude, *selectors;	       /* in root; arrays or NULL */
	bool ambient, retry, strict_status;
	json_t *prev; /* prevResult, in root; NULL: none */
	struct span prev_text;
};

/* All versions that are spoken, oldest first; ends with NULL. */
extern const char *const conf_versions[];

/* Reads stdin to its end: malloc'ed. */
int conf_stdin(int fd, char **text, size_t *len, struct failure *f);
/* Takes `text` over. `c` needs conf_free() in any case. */
int conf_parse(struct conf *c, char *text, size_t len, struct failure *f);
void conf_free(struct conf *c);
/* Is the configuration's version that one or a later one? */
bool conf_since(const struct conf *c, const char *version);
bool conf_excludes(const struct conf *c, const char *namespace);
