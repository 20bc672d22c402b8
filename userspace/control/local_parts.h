/* SPDX-License-Identifier: Apache-2.0 */
/* What local_workload.c, local_service.c and local_policy.c have in common: readers for tables of keys, lists that end
 * up in an arena, and the collection of what was read. Private to control/local*.c. */
#pragma once
#include "control/local_value.h"
#include "state/store.h"

/* A growing list, on the stack while it is short. */
struct local_list {
	size_t n, cap, size;
	char *p;
	_Alignas(8) char first[256];
};
void local_list_init(struct local_list *l, size_t size);
/* One more, zeroed; NULL after an error. Pointers to earlier ones are void. */
void *local_list_add(struct doc *d, struct local_list *l);
/* Copies it into the arena (NULL for none) and frees it. */
void *local_list_end(struct doc *d, struct local_list *l, struct arena *a, unsigned *n);

/* An endpoint as /config_dump tells it: in the service, apart from its workload. */
struct local_endpoint {
	const char *uid;
	struct service *service;
	struct port_map *ports;
	unsigned n_ports;
};

/* Where a workload names its policies, which may come later in the file. */
struct local_mention {
	const struct workload *workload;
	size_t line;
};

/* Places of objects (local_unique.c), by what they must not have in common. */
struct local_set {
	struct local_slot {
		uint32_t hash, place; /* 0: free */
	} * slot;
	uint32_t n, room;
};

/* Everything read so far; nothing is in the store yet. */
struct local_state {
	struct local_list workloads, services, policies; /* of pointers */
	struct local_list endpoints;			 /* struct local_endpoint */
	struct local_list mentions;			 /* struct local_mention */
	struct local_set uids, addrs, service_names, policy_names;
};

/* `object` of the tables: what is being filled, and where its texts live. */
struct local_part {
	void *object;
	struct arena *arena;
	struct local_state *state;
};

/* Each reads one object under the cursor and adds it to the collection. */
void local_workload(struct doc *d, struct local_state *s);
void local_service(struct doc *d, struct local_state *s);
void local_policy(struct doc *d, struct local_state *s);
/* The one that was read last, at this line, must not be one that is there. */
void local_unique_workload(struct doc *d, struct local_state *s, size_t line);
void local_unique_service(struct doc *d, struct local_state *s, size_t line);
void local_unique_policy(struct doc *d, struct local_state *s, size_t line);
/* Gives each workload the ports that services told for it. */
void local_join(struct doc *d, struct local_state *s);
/* Every policy that a workload names must be there: else what it was to deny would pass. */
void local_check_policies(struct doc *d, struct local_state *s);

/* --- readers for struct doc_field: the result goes to `at` of the part's object ------------------------- */

void local_text(struct doc *d, const struct doc_field *f, void *part); /* const char *, shared with other objects */
void local_own(struct doc *d, const struct doc_field *f, void *part);  /* const char *, hardly shared */
void local_word(struct doc *d, const struct doc_field *f, void *part); /* an enum, by `words` */
void local_bool(struct doc *d, const struct doc_field *f, void *part);
void local_port(struct doc *d, const struct doc_field *f, void *part);	  /* uint16_t */
void local_u32(struct doc *d, const struct doc_field *f, void *part);	  /* uint32_t */
void local_gateway(struct doc *d, const struct doc_field *f, void *part); /* struct gateway */

/* Values under the cursor. */
const char *local_str(struct doc *d, struct arena *a, const char *what);
struct addr local_addr(struct doc *d, const char *what);
/* "network/ip" */
struct net_addr local_net_addr(struct doc *d, struct arena *a, const char *what);
/* "namespace/hostname" of a text; false if there is no slash in it. */
bool local_split(struct doc *d, struct arena *a, const char *text, const char **ns, const char **hostname);
/* {service port: target port} */
struct port_map *local_ports(struct doc *d, struct arena *a, unsigned *n);
/* A list of texts. */
const char **local_texts(struct doc *d, struct arena *a, const char *what, unsigned *n);
