/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper's control socket (headers/ctl_abi.h): an HTTP server whose requests are served on the keeper's loop. */
#pragma once
#include "node/enrol.h"
#include "node/install.h"
#include "node/kube.h"
#include "node/supervise.h"

enum { CTL_HEALTH_PORT = 8000 };   /* as istio-cni's agent */
enum { CTL_OPERATION_MS = 60000 }; /* an operation that has ended is remembered so long */

struct ctl_sources { /* what it tells of; they outlive it */
	struct loop *loop;
	struct steer *steer;
	struct enrol *enrol;
	struct zds_server *zds;
	struct supervise *supervise; /* NULL: somebody else runs the tunnel */
	const char *run_dir, *bpf_dir;
	enum steer_mode mode;
	const char *log_default; /* the filter of the start */
	struct kube *kube;	 /* NULL: without Kubernetes; with it these are served too: CTL_HEALTH_PORT, and */
	uint16_t metrics_port;
	const struct cni *cni;
	const struct install *install; /* NULL: nothing is installed */
};

struct ctl;
/* Serves RUN_DIR/ctl.sock from now on. 0, or -errno and a line in `why`. */
int ctl_open(struct ctl **out, const struct ctl_sources *from, char why[POD_WHY_MAX]);
/* Stops serving, while the loop goes on: a request may be on its way through it. `done` is called on the loop when
 * nobody is served any more. */
void ctl_close(struct ctl *c, void (*done)(void *arg), void *arg);
/* After ctl_close() is done and enrol_free(): operations that were under way end in it until then. Takes NULL. */
void ctl_free(struct ctl *c);
