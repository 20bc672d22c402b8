/* SPDX-License-Identifier: Apache-2.0 */
/* Responses of istiod, whatever they are: taken, or refused with a text that can go back; what was taken can be dumped, and
 * is the same when it comes again. The first byte says what of it is a full resync, and whether it comes again. One
 * store serves all inputs, emptied between them: to free one takes a grace period. */
#include <errno.h>
#include <stdlib.h>

#include "base/log.h"
#include "state/arena.h"
#include "xds_rig.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check(const struct xds_result *r)
{
	size_t len = strlen(r->why);

	require(len < XDS_NACK_MAX && strlen(r->nonce) <= XDS_NONCE_MAX && strlen(r->type_url) <= XDS_TYPE_MAX);
	require(r->rejected + r->closed <= r->resources);
	require(!len == !(r->rejected + r->closed));
	for (size_t i = 0; i < len; i++)
		require(r->why[i] >= ' ' && r->why[i] <= '~');
}

/* A policy that was closed has nothing to match by. */
static int each_policy(void *arg, struct policy *p)
{
	require(!p->unparseable || !p->n_rules);
	return 0;
}

static void again(struct store *s, const uint8_t *data, size_t size, unsigned whole)
{
	char *first = rig_dump(s), *second;
	struct xds_result r;

	require(xds_apply(s, data, size, whole, NULL, &r) == 0);
	check(&r);
	second = rig_dump(s);
	require(strcmp(first, second) == 0);
	free(first);
	free(second);
}

static void hear(void *arg, const char *name, bool removed)
{
	*(size_t *)arg += strlen(name);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct store *s;
	size_t heard = 0;
	const struct xds_listener listener = {.named = hear, .arg = &heard};
	struct xds_result r;

	if (!size)
		return 0;
	if (!s) {
		log_set_filter("off");
		store_thread_register();
		s = store_new("node");
	}
	store_begin_xds(s, STORE_ADDRESSES | STORE_POLICIES);
	store_commit(s);
	store_thread_online();
	if (xds_apply(s, data + 1, size - 1, data[0] & 3, &listener, &r) == 0) {
		check(&r);
		store_each_policy(s, each_policy, NULL);
		if (data[0] & 0x80)
			again(s, data + 1, size - 1, data[0] >> 2 & 3);
		else
			free(rig_dump(s));
	}
	return 0;
}
