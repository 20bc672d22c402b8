/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper, as keeper.c (its beginning and end) and keeper_tunnel.c (tunnels that come and go) share it. */
#pragma once
#include "keeper_config.h"
#include "keeper_install.h"
#include "keeper_kube.h"
#include "node/cni_plain.h"
#include "node/ctl.h"
#include "node/enrol.h"
#include "node/supervise.h"
#include "node/zds_server.h"

struct keeper {
	struct keeper_config config;
	struct loop *loop;
	struct pods *pods;
	struct zds_server *zds;
	struct steer *steer;
	struct enrol *enrol;
	struct supervise *supervise; /* NULL: culvertd node */
	struct ctl *ctl;
	struct keeper_kube kube;
	struct cni_plain plain;
	struct cni *cni;
	struct keeper_install install;
	struct io signals;
	struct timer wait; /* for a tunnel that lives on; at the end, before ours is to end */
	struct timer regain;
	pid_t regain_for; /* the tunnel that waits for pods to be regained, and how long at most */
	uint64_t regain_until;
	char tunnel[PATH_MAX];
	bool holding, ending;
	int status;
};

void keeper_end(struct keeper *k, int status);

/* keeper_tunnel.c: what the ZDS server asks and tells. */
struct zds_server_handler keeper_zds_handler(struct keeper *k);
/* Prepares a tunnel of our own: culvert-tunnel, beside this program. 0, or -errno and a line in `why`. */
int keeper_tunnel_open(struct keeper *k, char why[POD_WHY_MAX]);
/* Waits KEEPER_WAIT_MS for one that may live from an earlier keeper's time, then starts ours. */
void keeper_tunnel_await(struct keeper *k);
