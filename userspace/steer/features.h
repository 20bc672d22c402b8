/* SPDX-License-Identifier: Apache-2.0 */
/* What steering needs of a kernel, part by part and without libbpf: before anything of ours runs, and to name what is
 * missing. steer_probe() tries the whole, with the programs themselves. */
#pragma once

enum steer_feature {
	STEER_FEATURE_BPF,	  /* bpf(2): maps and programs may be made */
	STEER_FEATURE_LOOKUP,	  /* sk_lookup programs on a network namespace */
	STEER_FEATURE_STORAGE,	  /* what is remembered in sockets */
	STEER_FEATURE_SOCKMAP,	  /* listeners in a map */
	STEER_FEATURE_TC,	  /* programs for devices */
	STEER_FEATURE_CLSACT,	  /* where they are attached, */
	STEER_FEATURE_TCX,	  /* and the better way */
	STEER_FEATURE_CGROUP,	  /* programs on cgroups: the kubelet's probes */
	STEER_FEATURE_LISTENER,	  /* marked, transparent listeners */
	STEER_FEATURE_DESTROY,	  /* sockets of others are listed and ended */
	STEER_FEATURE_NAMESPACES, /* a network namespace to try all this in; without it nothing else was tried */
	STEER_FEATURES,
};

struct steer_features {
	int err[STEER_FEATURES]; /* 0: it works; -errno */
};
/* In a namespace of its own, which goes with it. -errno: no thread. */
int steer_features_try(struct steer_features *out);
