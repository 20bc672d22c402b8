/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's parts and the rungs of its ladder (tunnel.c). Each `up` returns 0, or another value with one line in `why`
 * (CONFIG_WHY_MAX); `down` follows a failed `up` as well. */
#pragma once
#include <limits.h>
#include <pthread.h>

#include "admin/admin.h"
#include "admin/ready.h"
#include "admin/tap.h"
#include "base/metrics.h"
#include "control/ca.h"
#include "control/certs.h"
#include "control/crl_file.h"
#include "control/local.h"
#include "control/xds.h"
#include "control/zds.h"
#include "data/data.h"
#include "tunnel_config.h"

struct tunnel {
	struct tunnel_config c;
	struct loop *loop;
	struct io signals; /* fd -1: none */
	struct store *store;
	struct local_watch *watch;
	struct xds *xds; /* NULL: the file has the mesh */
	struct ca *ca;
	struct crls *lists; /* NULL: CRL_PATH is not set */
	struct crl_file *crl_file;
	struct certs *certs;
	struct data_plane *data;
	struct ktls_features ktls;
	struct dns_zone zone;
	bool answers; /* DNS, from the mesh */
	struct admin admin;
	struct ready ready;
	struct http_server *admin_http, *probe_http;
	struct http_server *drain_http; /* in place of both, while it drains */
	char drain_path[PATH_MAX];	/* its socket; "" */
	struct tap_server *tap;		/* NULL: there are no taps */
	bool succeeds, open;		/* its ports are a predecessor's until it serves; they are its own */
	struct zds *zds;
	struct task count; /* the pods, at the end of the turn */
	struct metric *active, *pending, *started, *stopped;
	bool ending, interrupted; /* a drain has begun (atomic); SIGINT came */
	unsigned draining;	  /* parts that are not done yet */
	pthread_t closer;
	bool closer_runs;
	struct msg closed;
};

/* Writes `what` into `why`; -1. */
int tunnel_says(char *why, const char *what);

/* tunnel_drain.c: signals that end a drain are taken by the loop; threads inherit that they are blocked. */
void tunnel_signals_block(void);
/* 0 or -errno. */
int tunnel_signals_open(struct tunnel *t);
void tunnel_signals_close(struct tunnel *t);
/* As SIGTERM does. Any thread. */
void tunnel_quit(void *arg);
/* A successor serves: drains for as long as the configuration allows. */
void tunnel_retire(struct tunnel *t);

/* tunnel_shell.c: what it gives up before it hears from anybody; and then the system calls that it does without. */
int rights_up(struct tunnel *t, char *why);
int seccomp_up(struct tunnel *t, char *why);

/* tunnel_pods.c: what ZDS tells goes to the data plane, and is counted. */
int metrics_up(struct tunnel *t, char *why);
int pods_up(struct tunnel *t, char *why);
/* The mesh is complete: asks for pods, and serves what has waited. */
void pods_begin(struct tunnel *t);
void pods_down(struct tunnel *t);

/* tunnel_xds.c: the mesh from istiod, where the configuration names one. */
int xds_up(struct tunnel *t, char *why);
void xds_down(struct tunnel *t);

/* tunnel_dns.c: what the DNS proxy answers. */
int dns_up(struct tunnel *t, char *why);

/* tunnel_crl.c: revocation lists. */
int crl_up(struct tunnel *t, char *why);
void crl_down(struct tunnel *t);

/* tunnel_ports.c: admin, metrics, readiness, and the socket of culvertctl. */
int ports_up(struct tunnel *t, char *why);
/* Answers there; with a predecessor when this tunnel has all pods. May be called again. */
int ports_serve(struct tunnel *t, char *why);
/* A socket of its own for culvertctl, now that tunnel.sock is the successor's. */
void ports_drain(struct tunnel *t);
void ports_down(struct tunnel *t);
