/* SPDX-License-Identifier: Apache-2.0 */
/* Finds the network namespaces of pods that run, through the host's /proc: one look for many pods. A process proves
 * whose it is by its cgroup, which names the pod's uid, and its namespace by one of the pod's addresses in it:
 * processes of others may pass through a pod's namespace. And the namespace is one that the runtime made: any process can
 * make one in a user namespace of its own, with whatever addresses, and so lead us away from the pod's. */
#pragma once
#include "node/pods.h"

enum { KUBE_CGROUP_BYTES = 16384 };

struct kube_sought {
	const char *uid; /* as the kubelet knows it */
	const struct addr *ip;
	unsigned n_ips;
	bool own_users; /* it has a user namespace, made by the runtime */
	/* What was found: */
	bool lives;		  /* a process of the pod, wherever it is */
	bool unsure;		  /* of some process it cannot be told whose it is: more may live than was found */
	uint64_t cookie, started; /* 0: nothing */
	char netns[64];		  /* path */
};

/* 0, or -errno when /proc cannot be read. `proc`: where the host's is. */
int kube_netns_find(const char *proc, struct kube_sought *pods, unsigned n);

/* The pod's uid, in lower case and with dashes as Kubernetes writes it (without, if it had none), that a cgroup file's
 * lines agree on. -ENOENT: none; -EINVAL: several. */
int kube_cgroup_uid(char uid[POD_UID_MAX], const char *text);
