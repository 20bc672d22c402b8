// SPDX-License-Identifier: Apache-2.0
/* The cache: a table, and two lists from the least recently used to the latest, the worker's and the pod's. */
#include "data/dns_cache.h"

#include <stdlib.h>
#include <string.h>

#include "state/hash.h"

enum { BUCKETS = 1024 };

/* What an answer depends on: EDNS and DNSSEC's bits change what a resolver tells. */
struct key {
	const struct dns_share *pod;
	const struct endpoint *resolver;
	const char *name;
	uint16_t type;
	uint8_t bits;
};

struct entry {
	struct list bucket, used, of_pod;
	struct dns_share *pod;
	struct endpoint resolver;
	uint64_t since_ms, until_ms;
	size_t size;
	uint32_t hash;
	uint16_t type, len, n_ttls;
	uint8_t bits;
	uint8_t *msg; /* behind the lifetimes */
	char *name;   /* and behind the message */
	uint16_t ttl_at[];
};

struct dns_cache {
	struct list bucket[BUCKETS], used;
	size_t bytes;
};

void dns_share_init(struct dns_share *s)
{
	list_init(&s->entries);
	s->bytes = 0;
}

struct dns_cache *dns_cache_new(void)
{
	struct dns_cache *c = calloc(1, sizeof *c);

	for (unsigned i = 0; c && i < BUCKETS; i++)
		list_init(&c->bucket[i]);
	if (c)
		list_init(&c->used);
	return c;
}

static void forget(struct dns_cache *c, struct entry *e)
{
	list_del(&e->bucket);
	list_del(&e->used);
	list_del(&e->of_pod);
	c->bytes -= e->size;
	e->pod->bytes -= e->size;
	free(e);
}

void dns_cache_free(struct dns_cache *c)
{
	while (c && !list_empty(&c->used))
		forget(c, list_entry(c->used.next, struct entry, used));
	free(c);
}

void dns_cache_drop(struct dns_cache *c, struct dns_share *pod)
{
	while (!list_empty(&pod->entries))
		forget(c, list_entry(pod->entries.next, struct entry, of_pod));
}

size_t dns_cache_bytes(const struct dns_cache *c)
{
	return c->bytes;
}

static struct key key_of(const struct dns_share *pod, const struct endpoint *resolver, const struct dns_question *q)
{
	uint8_t bits = (uint8_t)(q->edns | q->dnssec_ok << 1 | q->rd << 2 | q->ad << 3 | q->cd << 4);

	return (struct key){pod, resolver, q->text, q->type, bits};
}

static uint32_t key_hash(const struct key *k)
{
	uint32_t h = hash_text((uint32_t)addr_hash(&k->resolver->ip) ^ k->bits, k->name);

	return hash_bytes(h ^ k->type, (const char *)&k->pod, sizeof k->pod);
}

static struct entry *find(struct dns_cache *c, const struct key *k, uint32_t hash)
{
	list_for_each (pos, &c->bucket[hash % BUCKETS]) {
		struct entry *e = list_entry(pos, struct entry, bucket);

		if (e->hash == hash && e->pod == k->pod && e->type == k->type && e->bits == k->bits &&
		    endpoint_eq(&e->resolver, k->resolver) && !strcmp(e->name, k->name))
			return e;
	}
	return NULL;
}

static void age(const struct entry *e, uint64_t now_ms, uint8_t *out)
{
	uint32_t old = (uint32_t)((now_ms - e->since_ms) / 1000);

	for (unsigned i = 0; i < e->n_ttls; i++) {
		uint8_t *p = out + e->ttl_at[i];
		uint32_t ttl = (uint32_t)dns_get16(p) << 16 | dns_get16(p + 2);

		ttl = ttl > old ? ttl - old : 0;
		dns_put16(p, ttl >> 16);
		dns_put16(p + 2, ttl & 0xffff);
	}
}

/* Only what is asked without conditions, by a name that has a text, is kept. */
static bool is_kept(const struct dns_question *q)
{
	return q->spoken && q->plain && !q->edns_version;
}

size_t dns_cache_get(struct dns_cache *c, struct dns_share *pod, const struct endpoint *resolver,
		     const struct dns_question *q, uint64_t now_ms, size_t cap, uint8_t *out)
{
	struct key k = key_of(pod, resolver, q);
	struct entry *e = is_kept(q) ? find(c, &k, key_hash(&k)) : NULL;

	if (!e)
		return 0;
	if (now_ms >= e->until_ms) {
		forget(c, e);
		return 0;
	}
	if (e->len > cap)
		return 0;
	list_del(&e->used);
	list_add_tail(&c->used, &e->used);
	list_del(&e->of_pod);
	list_add_tail(&pod->entries, &e->of_pod);
	memcpy(out, e->msg, e->len);
	age(e, now_ms, out);
	dns_reply_readdress(out, q);
	return e->len;
}

static void make_room(struct dns_cache *c, struct dns_share *pod, size_t size)
{
	while (pod->bytes + size > DNS_CACHE_POD_BYTES)
		forget(c, list_entry(pod->entries.next, struct entry, of_pod));
	while (c->bytes + size > DNS_CACHE_BYTES)
		forget(c, list_entry(c->used.next, struct entry, used));
}

void dns_cache_put(struct dns_cache *c, struct dns_share *pod, const struct endpoint *resolver,
		   const struct dns_question *q, const struct dns_reply *r, uint64_t now_ms, const uint8_t *msg,
		   size_t len)
{
	struct key k = key_of(pod, resolver, q);
	uint32_t hash = key_hash(&k), ttl = r->ttl_s < DNS_CACHE_TTL_MAX_S ? r->ttl_s : DNS_CACHE_TTL_MAX_S;
	size_t ttls = r->n_ttls * sizeof *r->ttl_at, name = strlen(q->text) + 1;
	struct entry *e;

	if (!is_kept(q) || !ttl || len > DNS_REPLY_READ_MAX)
		return;
	e = find(c, &k, hash);
	if (e)
		forget(c, e);
	e = calloc(1, sizeof *e + ttls + len + name);
	if (!e)
		return;
	*e = (struct entry){.pod = pod,
			    .resolver = *resolver,
			    .since_ms = now_ms,
			    .until_ms = now_ms + ttl * 1000ull,
			    .size = sizeof *e + ttls + len + name,
			    .hash = hash,
			    .type = k.type,
			    .bits = k.bits,
			    .len = (uint16_t)len,
			    .n_ttls = (uint16_t)r->n_ttls,
			    .msg = (uint8_t *)e->ttl_at + ttls,
			    .name = (char *)e->ttl_at + ttls + len};
	memcpy(e->ttl_at, r->ttl_at, ttls);
	memcpy(e->msg, msg, len);
	memcpy(e->name, q->text, name);
	make_room(c, pod, e->size);
	list_add(&c->bucket[hash % BUCKETS], &e->bucket);
	list_add_tail(&c->used, &e->used);
	list_add_tail(&pod->entries, &e->of_pod);
	c->bytes += e->size;
	pod->bytes += e->size;
}
