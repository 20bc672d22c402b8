/* SPDX-License-Identifier: Apache-2.0 */
/* The plugin's environment: CNI_* and what CNI_ARGS says of a pod. */
#pragma once
#include "plugin.h"

enum command { CMD_NONE, CMD_ADD, CMD_DEL, CMD_CHECK, CMD_GC, CMD_STATUS, CMD_VERSION };

enum { ARG_MAX_BYTES = 256 };

struct env {
	enum command command;
	const char *container_id, *netns, *ifname;					    /* "" where it is not set */
	char pod_name[ARG_MAX_BYTES], pod_namespace[ARG_MAX_BYTES], pod_uid[ARG_MAX_BYTES]; /* "": not Kubernetes */
};

/* CNI_COMMAND alone; CMD_NONE when it is not set. */
int env_command(struct env *e, struct failure *f);
/* The rest, as far as the command needs it. DEL takes what it can get. */
int env_read(struct env *e, struct failure *f);
/* Fails if the plugin itself is in the pod's namespace, unless CNI_NETNS_OVERRIDE says that it may be. */
int env_check_netns(const struct env *e, struct failure *f);
/* Letters, digits, "_", ".", "-", and first a letter or digit: names of networks and containers. */
bool name_is_valid(const char *name);
