/* SPDX-License-Identifier: Apache-2.0 */
/* What is known of a pod, and its record RUN_DIR/pods/UID.json, which is there before anything is attached to the pod
 * and until nothing is any more: a keeper that starts finds in the records what its predecessor did. */
#pragma once
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "cni_abi.h"
#include "steer/steer.h"

enum {
	POD_UID_MAX = STEER_UID_MAX,
	POD_LABEL_MAX = 64,  /* a Kubernetes label (RFC 1123), with the terminator */
	POD_NAME_MAX = 254,  /* a Kubernetes subdomain name, likewise */
	POD_NETNS_MAX = 512, /* path */
	POD_BOOT_MAX = 40,
	POD_WHY_MAX = 1024, /* a path, and what is wrong with it */
	POD_RECORD_BYTES = 16384,
	PODS_MAX = 4096,
};

struct pod_identity {
	char ns[POD_LABEL_MAX], name[POD_NAME_MAX], sa[POD_NAME_MAX];
};
/* NAMESPACE/NAME/SERVICEACCOUNT by the rules of Kubernetes for names. -EINVAL and a line in `why`. */
int pod_identity_parse(struct pod_identity *out, const char *text, char why[POD_WHY_MAX]);
/* UUIDv5 of the namespace's cookie: the uid of pods that are enrolled by hand. */
void pod_uid_make(char uid[POD_UID_MAX], uint64_t cookie);
/* May it be a file's name? Kubernetes' uids are. */
bool pod_uid_valid(const char *uid);

struct pod_attachment { /* what CNI calls the pod's place in a network; all "" for pods that came another way */
	char container_id[CNI_ID_MAX], ifname[IFNAMSIZ], network[CNI_ID_MAX];
};

enum pod_choice { POD_AS_NODE, POD_YES, POD_NO };
struct pod_overlay { /* what a pod's annotations change in the node's configuration; zeroed: nothing */
	enum pod_choice dns_capture;
	bool bypass_inbound;
	unsigned n_exclude_outbound;
	char virtual_ifaces[STEER_IFACES_MAX][IFNAMSIZ];
	struct prefix exclude_outbound[STEER_EXCLUDES_MAX];
	uint16_t exclude_outbound_ports[STEER_EXCLUDES_MAX], exclude_inbound_ports[STEER_EXCLUDES_MAX]; /* 0 ends */
	uint16_t probe_ports[STEER_PORTS_MAX];								/* 0 ends */
};
void pod_overlay_apply(struct steer_config *c, const struct pod_overlay *o);

struct pod_record {
	char uid[POD_UID_MAX];
	struct pod_identity identity;
	char netns[POD_NETNS_MAX];
	uint64_t cookie;	 /* SO_NETNS_COOKIE: never reused while the machine runs, */
	char boot[POD_BOOT_MAX]; /* and this is which run it was */
	unsigned abi;		 /* STEER_ABI_VERSION of what was attached */
	enum steer_mode mode;
	bool foreign; /* served by a tunnel that opens its own sockets */
	struct pod_attachment attachment;
	struct pod_overlay overlay;
};

struct pods; /* the folder */
int pods_open(struct pods **out, const char *run_dir, char why[POD_WHY_MAX]);
void pods_close(struct pods *p);
/* This run of the machine, for new records. */
const char *pods_boot(const struct pods *p);

/* Replaces the record atomically; it is on the disk when this returns. -errno and a line in `why`. */
int pods_save(struct pods *p, const struct pod_record *r, char why[POD_WHY_MAX]);
int pods_remove(struct pods *p, const char *uid);
/* Is there a record for this uid, good or bad? As long as there is, its steering stays. */
bool pods_has(const struct pods *p, const char *uid);
/* Calls `each` for each good record. A file that is none is reported in one line and renamed to NAME.bad. */
int pods_load(struct pods *p, void (*each)(void *arg, const struct pod_record *r), void *arg, char why[POD_WHY_MAX]);
