/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh state: every index that a lookup needs. Writers (the control thread) never delay readers: lookups run
 * inside a read section (RCU) and see each object whole, old or new. A reader that keeps an object beyond its read
 * section takes a reference (mesh.h). */
#pragma once
#include "state/mesh.h"

struct store;

struct store *store_new(const char *local_node); /* "" : every workload counts as local */
void store_free(struct store *s);

/* Read sections, per thread; they nest. A thread registers once before its first and unregisters at its end. While
 * a thread sleeps in its loop it must be offline, or writers' memory waits for it; calling store_thread_online() once a
 * turn, also without having slept, does the same for a busy one. */
void store_thread_register(void);
void store_thread_unregister(void);
void store_read_lock(void);
void store_read_unlock(void);
void store_thread_offline(void);
void store_thread_online(void);

/* --- writer side: one thread ---------------------------------------------------------------------------- */

/* A batch becomes visible object by object, what it takes away only with the commit: no address and no VIP that is
 * known before and after it is unknown in between. The change callback fires once, at store_commit(). Insert functions
 * take the caller's reference over, also on failure (-ENOMEM). An object of the same key is replaced. */
void store_begin(struct store *s);
int store_insert_workload(struct store *s, struct workload *w);
int store_insert_service(struct store *s, struct service *v);
int store_insert_policy(struct store *s, struct policy *p);
/* By xDS resource name: a workload's uid, a service's "ns/hostname"; unknown names are ignored. */
void store_remove_address(struct store *s, const char *name);
void store_remove_policy(struct store *s, const char *name);
/* What is not inserted between these two is removed at the commit: a full resync, or a reloaded file. */
void store_begin_full(struct store *s);
/* A batch of what istiod tells. Each object belongs to whoever inserted it last, the file or istiod, and a full batch
 * removes only its own: here of those parts that come `whole`, a mask. */
enum { STORE_ADDRESSES = 1, STORE_POLICIES = 2 };
void store_begin_xds(struct store *s, unsigned whole);
/* Of a batch that comes whole: what istiod gave under this name and version before is there, and stays. False: it has to be
 * inserted, as what the batch itself has brought under this name. */
bool store_keep_address(struct store *s, const char *name, uint64_t version);
/* After all, this batch has not everything: what it did not bring stays. */
void store_keep_rest(struct store *s);
void store_commit(struct store *s);

/* Called on the writer's thread after each commit that changed anything; for re-evaluating live connections and
 * waking those who wait for a workload. Up to STORE_WATCHERS_MAX. */
enum { STORE_WATCHERS_MAX = 8 };
int store_watch(struct store *s, void (*changed)(void *arg), void *arg);
/* Grows by one with each commit that changed anything. Any thread. */
uint64_t store_version(const struct store *s);

/* --- lookups: inside a read section; results are valid until it ends ------------------------------------ */

struct workload *store_workload_by_uid(struct store *s, const char *uid);
/* Conflicts on one address: Pod and HBONE first. Host-network workloads are not found by address. */
struct workload *store_workload_by_addr(struct store *s, const char *network, const struct addr *ip);
/* A local workload by namespace, service account and pod name (what ZDS tells). */
struct workload *store_local_workload(struct store *s, const char *ns, const char *sa, const char *name);
/* First workload with this hostname in this namespace. */
struct workload *store_workload_by_host(struct store *s, const char *ns, const char *hostname);
/* Best service for a VIP, then the longest CIDR VIP, visible to `client_ns` (NULL: all). Ranked as ztunnel does. */
struct service *store_service_by_vip(struct store *s, const char *network, const struct addr *ip,
				     const char *client_ns);
/* Best by hostname alone, and the exact one. */
struct service *store_service_by_host(struct store *s, const char *hostname, const char *client_ns);
struct service *store_service_exact(struct store *s, const char *ns, const char *hostname);
/* Of the services with a hostname that `fits` and that `client_ns` may see: the client's namespace, canonical, of the
 * preferred namespace, the oldest. */
struct name_choice {
	const char *client_ns, *preferred_ns; /* preferred "": none */
	bool (*fits)(const struct service *v, const void *arg);
	const void *arg;
};
struct service *store_service_for_name(struct store *s, const char *hostname, const struct name_choice *c);
struct policy *store_policy(struct store *s, const char *name);

/* Policies that apply to a workload: global, its namespace's, and those it names, each once. Names that
 * are unknown are counted in `missing`. Fills up to `max`, returns how many there are. */
unsigned store_policies_for(struct store *s, const struct workload *w, struct policy **out, unsigned max,
			    unsigned *missing);

/* Has it come from istiod? */
bool store_workload_is_xds(const struct workload *w);
bool store_service_is_xds(struct service *v);
bool store_policy_is_xds(const struct policy *p);

/* Iteration for dumps, sorted by key: calls `each` under a read section; stops when it returns non-zero. */
int store_each_workload(struct store *s, int (*each)(void *arg, struct workload *w), void *arg);
int store_each_service(struct store *s, int (*each)(void *arg, struct service *v), void *arg);
int store_each_policy(struct store *s, int (*each)(void *arg, struct policy *p), void *arg);

struct store_counts {
	unsigned workloads, services, policies, staged_endpoints;
};
void store_count(struct store *s, struct store_counts *out);
