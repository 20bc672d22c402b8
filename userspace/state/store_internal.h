/* SPDX-License-Identifier: Apache-2.0 */
/* The store's insides, shared by store*.c. Readers use the indexes only; all the rest is the writer's. */
#pragma once
#include "state/arena.h"
#include "state/hash.h"
#include "state/index.h"
#include "state/store.h"

/* Everything that refers to one service, whether the service is known yet or not. */
struct group {
	struct service *description; /* as inserted; NULL: not known */
	struct service *current;     /* the version that readers see; NULL: none */
	struct workload **member;    /* healthy or not; their references are the store's */
	struct service *replaced;    /* while a commit is under way */
	struct group *next_dirty;
	const char *ns, *hostname;
	uint32_t ns_id, hostname_id; /* of the shared texts */
	unsigned n_members, size;
	uint32_t order;
	bool dirty; /* in the store's list of groups to rebuild */
};

enum { ADDR_BITS = 128 };

/* What a batch takes away, until its commit. */
struct retired {
	void **p;
	unsigned n, size;
};

struct store {
	/* Read by everyone. */
	struct index workloads;		  /* by uid */
	struct index workload_addrs;	  /* by network and address */
	struct index workload_hosts;	  /* by namespace and hostname, those that have one */
	struct index local_workloads;	  /* by namespace, service account and name */
	struct index services;		  /* by namespace and hostname */
	struct index service_hosts;	  /* by hostname */
	struct index service_vips;	  /* by network, address and prefix length */
	struct index policies;		  /* by "ns/name" */
	struct index policy_scopes;	  /* by namespace; "" for the global ones */
	unsigned cidrs[2][ADDR_BITS + 1]; /* VIPs of a family with this length, except full ones */
	uint64_t version;
	unsigned takings; /* grows before anything that a commit takes away */
	unsigned staged;  /* endpoints of unknown services */

	/* The writer's. */
	const char *local_node;
	struct index groups;
	struct group *dirty;
	struct retired retired_workloads, retired_policies; /* replaced or removed in this batch */
	struct garbage garbage;
	uint32_t order;
	uint32_t generations[2]; /* of the file's and of istiod's objects; the lowest bit says whose */
	uint32_t generation;	 /* of the batch */
	unsigned whole;		 /* parts of which it has everything */
	bool changed;
	unsigned n_watchers;
	struct {
		void (*changed)(void *arg);
		void *arg;
	} watcher[STORE_WATCHERS_MAX];
};

static inline uint32_t key_addr(const char *network, const struct addr *ip)
{
	return hash_text((uint32_t)addr_hash(ip), network);
}
static inline uint32_t key_vip(const char *network, const struct addr *ip, unsigned len)
{
	return key_addr(network, ip) + len;
}
static inline uint32_t key_two(const char *a, const char *b)
{
	return hash_text(hash_text(1, a), b);
}
static inline uint32_t key_local(const char *ns, const char *sa, const char *name)
{
	return hash_text(key_two(ns, sa), name);
}

static inline unsigned vip_full_length(const struct addr *ip)
{
	return addr_is4(ip) ? 32 : 128;
}
/* What is longer than the family has counts as a plain VIP. */
static inline unsigned vip_length(const struct vip *v)
{
	unsigned full = vip_full_length(&v->addr.ip);

	return v->len < full ? v->len : full;
}
/* The network's address of a prefix: host bits cleared. */
struct addr addr_masked(const struct addr *ip, unsigned len);

/* store_service.c: membership and versions of services. */
struct group *group_find(struct store *s, const char *ns, const char *hostname);
int group_get(struct store *s, const char *ns, const char *hostname, struct group **out);
int group_reserve(struct group *g, unsigned n);
void group_touch(struct store *s, struct group *g);
/* `m`: the workload's part in it. */
void group_join(struct store *s, struct group *g, struct workload *w, struct membership *m);
void group_leave(struct store *s, const struct membership *m);
/* The service is gone; its members stay staged. */
void group_forget(struct store *s, struct group *g);
/* Makes what changed visible: new versions of the services, gone ones out. */
void groups_commit(struct store *s);
void group_free(struct group *g);

/* Everything new is in the indexes, now old things go. See store_lookup.c. */
static inline void store_taking(struct store *s)
{
	__atomic_fetch_add(&s->takings, 1, __ATOMIC_SEQ_CST);
}

/* Whose an object is: the lowest bit of its generation. */
enum source { FROM_FILE, FROM_XDS };
static inline bool from_xds(const struct arena *a)
{
	return (a->generation & 1) == FROM_XDS;
}

/* store_objects.c */
void store_drop_workload(struct store *s, struct workload *w);
void store_drop_retired(struct store *s);
struct policy *store_policy_exact(struct store *s, const char *ns, const char *name);
void store_drop_policy(struct store *s, struct policy *p);
