/* SPDX-License-Identifier: Apache-2.0 */
/* culvertctl doctor: what is looked at, by which checks, and what was found. A check looks at facts that were gathered
 * before, so that it can be tried on any; those that only a look at the node itself can tell it gathers on its own, in
 * places that are facts as well. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "steer/features.h"

enum {
	DOCTOR_FINDINGS_MAX = 256, /* more are counted, not kept */
	DOCTOR_TEXT_MAX = 768,
	DOCTOR_PODS_MAX = 4096, /* whose namespaces are entered */
	DOCTOR_WAIT_MS = 1000,	/* between the two looks at what counts */
};

enum finding_level { FINDING_OK, FINDING_NOTE, FINDING_WARNING, FINDING_PROBLEM, FINDING_LEVELS };
struct finding {
	enum finding_level level;
	const char *check;	      /* its row's name */
	char what[DOCTOR_TEXT_MAX];   /* what is the case, */
	char advice[DOCTOR_TEXT_MAX]; /* and what to do about it; "" for FINDING_OK */
};
struct findings {
	unsigned n, left_out;
	unsigned count[FINDING_LEVELS];
	struct finding *at; /* DOCTOR_FINDINGS_MAX */
};

/* What only the kernel can tell. */
struct doctor_kernel {
	char release[64];
	int tried; /* 0: `features` says what was found */
	struct steer_features features;
	bool root, bpffs, cgroup2, tls_module;
	int jit;		 /* net.core.bpf_jit_enable; -1: not visible here */
	unsigned long long caps; /* effective, of the keeper where there is one */
	int inotify;		 /* 0, or why no instance can be had */
	bool clock_synchronized;
};

/* A process of ours, by number. */
struct doctor_process {
	const char *name;
	int pid; /* 0: none */
	unsigned long long files, files_max;
};

/* A pod's namespace, looked at from inside. */
struct doctor_pod {
	const char *ns, *name; /* borrowed from `pods` */
	int err;	       /* the namespace cannot be entered */
	char unsteered[256];   /* what is missing of its steering; "" */
	bool iptables;	       /* and not BPF */
	bool istio_chains;     /* beside BPF steering */
	int backlog;	       /* net.core.somaxconn; -1: cannot be read */
	unsigned port_min, port_max;
};

struct doctor {
	const char *run_dir, *bpf_dir, *conf_dir, *bin_dir; /* conf_dir: ""; there is none to look at */
	bool conf_wanted;				    /* the keeper is to install there */
	time_t now;
	struct doctor_kernel kernel;
	json_t *status, *pods, *drops, *drops_later, *dump; /* the keeper's and the tunnel's answers; NULL: none */
	bool records;	/* `pods` are the keeper's records: it was not there to ask */
	bool installed; /* something of ours was here before */
	const char *keeper_why, *tunnel_why;
	struct doctor_process keeper, tunnel;
	struct doctor_pod *pod;
	unsigned n_pods;
	char foreign[256]; /* processes of other data planes, for people; "" */
	struct findings found;
	const char *check; /* the row that runs */
};

enum doctor_needs { NEEDS_NODE, NEEDS_KEEPER, NEEDS_TUNNEL, NEEDS_PODS };
struct doctor_check {
	const char *name, *looks_at; /* which is what is said when nothing else is */
	enum doctor_needs needs;     /* else the row is passed over */
	void (*run)(struct doctor *d);
};

/* culvertctl_doctor.c: */
void finding(struct doctor *d, enum finding_level level, const char *advice, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));
/* Runs those whose needs are met; what was found is sorted, the worst first. */
void doctor_run(struct doctor *d, const struct doctor_check *checks, unsigned n);

/* doctor_kernel.c, doctor_node.c, doctor_keeper.c, doctor_mesh.c: each row of the table in culvertctl_doctor.c */
void doctor_kernel_gather(struct doctor *d);
void check_kernel(struct doctor *d);
void check_rights(struct doctor *d);
void check_settings(struct doctor *d);
void check_clock(struct doctor *d);

void doctor_node_gather(struct doctor *d);
void doctor_node_free(struct doctor *d);
void check_limits(struct doctor *d);
void check_cni(struct doctor *d);
void check_planes(struct doctor *d);
void check_steering(struct doctor *d);

void check_keeper(struct doctor *d);
void check_tunnel(struct doctor *d);
void check_kubernetes(struct doctor *d);
void check_pods(struct doctor *d);
void check_drops(struct doctor *d);

void check_certificates(struct doctor *d);
void check_istiod(struct doctor *d);
void check_mesh(struct doctor *d);
