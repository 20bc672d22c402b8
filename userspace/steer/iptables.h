/* SPDX-License-Identifier: Apache-2.0 */
/* Steering by istio-cni's in-pod rules: for kernels without the hooks, for tunnels that are not ours, and as the
 * baseline of the benchmarks. iptables-restore writes the rules, rtnetlink the policy rule and the route.
 *
 * Chains ISTIO_PRERT and ISTIO_OUTPUT in raw (with DNS capture), mangle and nat, one jump to each; rule fwmark
 * 0x111/0xfff to table 100 at priority 32764. Our chains are always written whole, table by table and each table
 * at once, so applying again mends whatever was changed and never leaves a gap; rules of others are not touched.
 *
 * Which iptables: the one that already holds our chains in this pod; else FORCE_IPTABLES_BINARY (legacy, nft); else
 * legacy where the pod has legacy rules; else nft; else legacy; else plain iptables. It is asked pod by pod and the
 * asking makes no tables, so the answer does not change by itself. */
#pragma once
#include "steer/steer.h"

enum {
	IPTABLES_TABLE = 100, /* route table and priority are istio-cni's: pods of mixed nodes look alike */
	IPTABLES_PRIORITY = 32764,
	IPTABLES_UNDO_MS = 1500, /* of STEER_DEADLINE_MS, kept to undo what failed */
};

/* Applies `c`, also to a pod that has rules already: they are brought to `c`. `ipv6` false leaves IPv6 alone; true
 * takes it where the pod's lo has it. A pod that had no rules has none after a failure; one that had stays captured. */
int iptables_apply(int netns_fd, const struct netns_id *ns, const struct steer_config *c, bool ipv6,
		   char why[STEER_WHY_MAX]);
/* No new captures from now on; connections that are captured keep working until iptables_remove(). Those must have
 * ended by then: without the rules their sockets would send to the wire. */
int iptables_stop(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX]);
/* Removes what iptables_apply() makes, of every back end and family, and what istio-cni made in its place. */
int iptables_remove(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX]);
/* Is any of our chains, or istio-cni's, in the namespace? 1, 0 or -errno. */
int iptables_present(int netns_fd, const struct netns_id *ns, char why[STEER_WHY_MAX]);
/* Is in each of our chains at least what `c` needs, and a jump to it? 0, or -ENOENT and what is not, or another -errno. */
int iptables_whole(int netns_fd, const struct netns_id *ns, const struct steer_config *c, char why[STEER_WHY_MAX]);
