// SPDX-License-Identifier: Apache-2.0
/* Owns what becomes of the server's requests. Until SnapshotSent the uids that it names are collected; what runs but was
 * not named is removed then. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/zds_internal.h"
#include "control/zds_msg.h"

static const char target[] = "zds";

/* --- sets of uids --------------------------------------------------------------------------------------- */

static bool uids_add(struct zds_uids *u, const char *uid)
{
	if (u->n == u->cap) {
		unsigned cap = u->cap ? 2 * u->cap : 32;
		zds_uid *v = realloc(u->v, cap * sizeof *v);

		if (!v)
			return false;
		u->v = v;
		u->cap = cap;
	}
	snprintf(u->v[u->n++], sizeof *u->v, "%s", uid);
	return true;
}

static void uids_remove(struct zds_uids *u, const char *uid)
{
	for (unsigned i = 0; i < u->n;)
		if (!strcmp(u->v[i], uid))
			memcpy(u->v[i], u->v[--u->n], sizeof *u->v);
		else
			i++;
}

static void uids_clear(struct zds_uids *u)
{
	free(u->v);
	memset(u, 0, sizeof *u);
}

void zds_named_clear(struct zds *z)
{
	uids_clear(&z->named);
}

static int uid_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* --- requests: each returns 0 or -errno with `why`; -EPROTO ends the connection ------------------------- */

static int name_uid(struct zds *z, const char *uid, char *why)
{
	if (z->snapshot)
		return 0;
	if (z->named.n < ZDS_PODS_MAX && uids_add(&z->named, uid))
		return 0;
	snprintf(why, ZDS_WHY_MAX, "too many pods (%u)", z->named.n);
	return -ENOSPC;
}

static int request_add(struct zds *z, const struct zds_request *r, struct zds_pod *p, char *why)
{
	int err = name_uid(z, r->uid, why);

	if (!err && z->draining) {
		snprintf(why, ZDS_WHY_MAX, "this tunnel drains and takes no pods");
		err = -ESHUTDOWN;
	}
	if (err) {
		zds_pod_close(p);
		return err;
	}
	memcpy(p->uid, r->uid, sizeof p->uid);
	memcpy(p->name, r->name, sizeof p->name);
	memcpy(p->ns, r->ns, sizeof p->ns);
	memcpy(p->sa, r->sa, sizeof p->sa);
	return zds_pod_start(z, p, why);
}

static int request_del(struct zds *z, const struct zds_request *r)
{
	zds_pending_forget(z, r->uid);
	if (z->snapshot)
		z->h.remove(z->h.arg, r->uid);
	else
		uids_remove(&z->named, r->uid); /* removed by the reconciliation */
	return 0;
}

static int request_keep(struct zds *z, const struct zds_request *r, int socket[ZDS_SOCKETS], char *why)
{
	int err;

	if (z->snapshot) {
		snprintf(why, ZDS_WHY_MAX, "keep after the snapshot");
		return -EPROTO;
	}
	err = name_uid(z, r->uid, why);
	if (err || !r->return_sockets)
		return err;
	err = z->draining ? -ESHUTDOWN : z->h.sockets(z->h.arg, r->uid, socket);
	if (err)
		snprintf(why, ZDS_WHY_MAX, "no sockets of %s: %s", r->uid, strerror(-err));
	return err;
}

struct reconciliation {
	const struct zds_uids *named;
	struct zds_uids gone;
};

static void reconcile_one(void *ctx, const char *uid)
{
	struct reconciliation *r = ctx;
	const struct zds_uids *u = r->named;

	if (!u->n || !bsearch(uid, u->v, u->n, sizeof *u->v, uid_compare))
		if (!uids_add(&r->gone, uid))
			log_error(target, "out of memory: pod %s stays though it is gone", uid);
}

static int request_snapshot(struct zds *z, char *why)
{
	struct reconciliation r = {.named = &z->named};

	if (z->snapshot) {
		snprintf(why, ZDS_WHY_MAX, "second snapshot");
		return -EPROTO;
	}
	if (!z->draining && z->h.snapshot(z->h.arg, why) < 0)
		return -EPROTO;
	z->snapshot = true;
	z->backoff_ms = ZDS_BACKOFF_MIN_MS;
	log_info(target, "snapshot of %u pods received, %u cannot be started yet", z->named.n, z->n_pending);
	if (z->named.n)
		qsort(z->named.v, z->named.n, sizeof *z->named.v, uid_compare);
	z->h.each(z->h.arg, reconcile_one, &r);
	for (unsigned i = 0; i < r.gone.n; i++)
		z->h.remove(z->h.arg, r.gone.v[i]);
	uids_clear(&r.gone);
	zds_named_clear(z);
	return 0;
}

static int request_retire(struct zds *z, char *why)
{
	if (!z->snapshot) {
		snprintf(why, ZDS_WHY_MAX, "retire before the snapshot");
		return -EPROTO;
	}
	z->retiring = true;
	if (!z->draining)
		z->h.retire(z->h.arg);
	z->retiring = false;
	return 0;
}

/* --- one request ---------------------------------------------------------------------------------------- */

/* Gives each descriptor its place in the pod: the netns first, then the sockets that the message names. */
static int fds_take(struct zds_pod *p, const struct zds_request *r, const int *fds, size_t n, char *why)
{
	size_t want = r->kind == ZDS_ADD ? 1 + r->n_sockets : 0;

	if (n != want) {
		snprintf(why, ZDS_WHY_MAX, "%zu descriptors where %zu were due", n, want);
		for (size_t i = 0; i < n; i++)
			close(fds[i]);
		return -EBADMSG;
	}
	if (!want)
		return 0;
	p->netns_fd = fds[0];
	for (unsigned i = 0; i < r->n_sockets; i++)
		p->socket[r->socket[i]] = fds[1 + i];
	p->sockets_sent = r->n_sockets > 0;
	return 0;
}

int zds_serve(struct zds *z, const void *buf, size_t len, const int *fds, size_t n_fds, char *why,
	      int socket[ZDS_SOCKETS])
{
	struct zds_request r = {.kind = ZDS_SNAPSHOT};
	struct zds_pod pod = {.netns_fd = -1};
	int err = zds_request_decode(&r, buf, len, why), taken;

	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		pod.socket[i] = -1;
	if (err) {
		for (size_t i = 0; i < n_fds; i++)
			close(fds[i]);
		return err;
	}
	taken = fds_take(&pod, &r, fds, n_fds, why);
	if (taken)
		return taken;
	z->ours |= pod.sockets_sent || r.return_sockets || r.kind == ZDS_RETIRE;
	switch (r.kind) {
	case ZDS_ADD:
		return request_add(z, &r, &pod, why);
	case ZDS_DEL:
		return request_del(z, &r);
	case ZDS_KEEP:
		return request_keep(z, &r, socket, why);
	case ZDS_SNAPSHOT:
		return request_snapshot(z, why);
	case ZDS_RETIRE:
		return request_retire(z, why);
	}
	return -EPROTO;
}
