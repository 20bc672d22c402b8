/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the tunnel's connection to the keeper (or to istio-cni): what pods there are, and their sockets.
 *
 * A connection begins with our hello; the server then sends one request at a time and gets one answer each. Until
 * SnapshotSent the uids that it names are collected; what runs but was not named is removed then. A pod that
 * cannot be started is answered with an error and kept as pending, with descriptors of our own, to be tried again.
 * Running pods do not notice when the connection breaks. */
#include "control/zds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "control/zds_msg.h"
#include "net/seqpacket.h"

enum { BACKOFF_MIN_MS = 20 };

static const char target[] = "zds";

typedef char uid_text[ZDS_UID_MAX];
struct uids {
	uid_text *v;
	unsigned n, cap;
};

struct pending {
	struct list link;
	struct zds_pod pod;
};

struct zds {
	struct loop *loop;
	struct zds_handler h;
	struct io io; /* fd -1: not connected */
	struct timer again, retry;
	uint64_t backoff_ms;
	bool snapshot, ready, draining;
	bool ours;	   /* the server speaks the extension */
	bool retiring;	   /* Retire is being served */
	struct uids named; /* since the connection began, until the snapshot is complete */
	struct list pending;
	unsigned n_pending;
	char path[];
};

/* --- sets of uids --------------------------------------------------------------------------------------- */

static bool uids_add(struct uids *u, const char *uid)
{
	if (u->n == u->cap) {
		unsigned cap = u->cap ? 2 * u->cap : 32;
		uid_text *v = realloc(u->v, cap * sizeof *v);

		if (!v)
			return false;
		u->v = v;
		u->cap = cap;
	}
	snprintf(u->v[u->n++], sizeof *u->v, "%s", uid);
	return true;
}

static void uids_remove(struct uids *u, const char *uid)
{
	for (unsigned i = 0; i < u->n;)
		if (!strcmp(u->v[i], uid))
			memcpy(u->v[i], u->v[--u->n], sizeof *u->v);
		else
			i++;
}

static void uids_clear(struct uids *u)
{
	free(u->v);
	memset(u, 0, sizeof *u);
}

static int uid_compare(const void *a, const void *b)
{
	return strcmp(a, b);
}

/* --- pods ----------------------------------------------------------------------------------------------- */

static void pod_close(struct zds_pod *p)
{
	if (p->netns_fd >= 0)
		close(p->netns_fd);
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		if (p->socket[i] >= 0)
			close(p->socket[i]);
}

static int fd_copy(int fd, int *err)
{
	int copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 3);

	if (fd >= 0 && copy < 0)
		*err = -errno;
	return copy;
}

static int pod_copy(struct zds_pod *out, const struct zds_pod *p)
{
	int err = 0;

	*out = *p;
	out->netns_fd = fd_copy(p->netns_fd, &err);
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		out->socket[i] = fd_copy(p->socket[i], &err);
	if (err)
		pod_close(out);
	return err;
}

/* The handler owns the descriptors that it is given, so it is given copies: these are needed for the next try. */
static int pod_start(struct zds *z, const struct zds_pod *p, char *why)
{
	struct zds_pod copy;
	int err = pod_copy(&copy, p);

	if (err) {
		snprintf(why, ZDS_WHY_MAX, "descriptors: %s", strerror(-err));
		return err;
	}
	return z->h.add(z->h.arg, &copy, why);
}

static void pending_drop(struct zds *z, struct pending *e)
{
	list_del(&e->link);
	z->n_pending--;
	pod_close(&e->pod);
	free(e);
}

static void pending_forget(struct zds *z, const char *uid)
{
	list_for_each_safe (p, tmp, &z->pending) {
		struct pending *e = list_entry(p, struct pending, link);
		if (!uid || !strcmp(e->pod.uid, uid))
			pending_drop(z, e);
	}
}

static void ready_update(struct zds *z)
{
	bool now = z->io.fd >= 0 && z->snapshot && z->n_pending == 0;

	if (now == z->ready)
		return;
	z->ready = now;
	z->h.ready(z->h.arg, now);
}

static void pending_retry(struct timer *t)
{
	struct zds *z = container_of(t, struct zds, retry);
	char why[ZDS_WHY_MAX];

	list_for_each_safe (p, tmp, &z->pending) {
		struct pending *e = list_entry(p, struct pending, link);

		if (pod_start(z, &e->pod, why) == 0)
			pending_drop(z, e);
		else
			log_warn(target, "pod %s/%s still cannot be started: %s", e->pod.ns, e->pod.name, why);
	}
	if (z->n_pending)
		timer_set(z->loop, &z->retry, ZDS_RETRY_MS, pending_retry);
	ready_update(z);
}

/* Takes the pod over. */
static int pending_add(struct zds *z, struct zds_pod *p)
{
	struct pending *e = z->n_pending < ZDS_PODS_MAX ? malloc(sizeof *e) : NULL;

	if (!e) {
		pod_close(p);
		return -ENOMEM;
	}
	e->pod = *p;
	list_init(&e->link);
	list_add_tail(&z->pending, &e->link);
	z->n_pending++;
	if (!timer_armed(&z->retry))
		timer_set(z->loop, &z->retry, ZDS_RETRY_MS, pending_retry);
	return 0;
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
		pod_close(p);
		return err;
	}
	memcpy(p->uid, r->uid, sizeof p->uid);
	memcpy(p->name, r->name, sizeof p->name);
	memcpy(p->ns, r->ns, sizeof p->ns);
	memcpy(p->sa, r->sa, sizeof p->sa);
	pending_forget(z, r->uid);
	err = pod_start(z, p, why);
	if (!err) {
		pod_close(p);
		return 0;
	}
	log_warn(target, "pod %s/%s cannot be started: %s", p->ns, p->name, why);
	pending_add(z, p);
	return err;
}

static int request_del(struct zds *z, const struct zds_request *r)
{
	pending_forget(z, r->uid);
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
	const struct uids *named;
	struct uids gone;
};

static void reconcile_one(void *ctx, const char *uid)
{
	struct reconciliation *r = ctx;
	const struct uids *u = r->named;

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
	z->backoff_ms = BACKOFF_MIN_MS;
	log_info(target, "snapshot of %u pods received, %u cannot be started yet", z->named.n, z->n_pending);
	if (z->named.n)
		qsort(z->named.v, z->named.n, sizeof *z->named.v, uid_compare);
	z->h.each(z->h.arg, reconcile_one, &r);
	for (unsigned i = 0; i < r.gone.n; i++)
		z->h.remove(z->h.arg, r.gone.v[i]);
	uids_clear(&r.gone);
	uids_clear(&z->named);
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

/* --- connection ----------------------------------------------------------------------------------------- */

static void connect_now(struct timer *t);

static void disconnect(struct zds *z)
{
	io_close(z->loop, &z->io);
	z->snapshot = false;
	uids_clear(&z->named);
	pending_forget(z, NULL);
	timer_cancel(&z->retry);
	ready_update(z);
}

static void connect_later(struct zds *z)
{
	timer_set(z->loop, &z->again, z->backoff_ms, connect_now);
	z->backoff_ms = 2 * z->backoff_ms < ZDS_BACKOFF_MAX_MS ? 2 * z->backoff_ms : ZDS_BACKOFF_MAX_MS;
}

static int answer(struct zds *z, int err, const char *why, const int socket[ZDS_SOCKETS])
{
	uint8_t buf[ZDS_ACK_BYTES], list[ZDS_SOCKETS];
	int fds[ZDS_SOCKETS];
	unsigned n = 0;

	for (unsigned i = 0; !err && i < ZDS_SOCKETS; i++)
		if (socket[i] >= 0) {
			fds[n] = socket[i];
			list[n++] = (uint8_t)i;
		}
	return seqpacket_send(z->io.fd, buf, zds_ack_encode(buf, err ? why : "", list, n), fds, n);
}

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

/* -EBADMSG and -EPROTO end the connection, once they have been answered. */
static int request_serve(struct zds *z, const void *buf, size_t len, const int *fds, size_t n_fds, char *why,
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

static void packet_ready(struct io *io, uint32_t events)
{
	struct zds *z = container_of(io, struct zds, io);
	uint8_t buf[SEQPACKET_BYTES];
	int fds[SEQPACKET_FDS], socket[ZDS_SOCKETS], err, sent;
	char why[ZDS_WHY_MAX] = "";
	size_t n_fds = 0;
	ssize_t n = seqpacket_recv(io->fd, buf, sizeof buf, fds, &n_fds);

	if (n == -EAGAIN)
		return;
	for (unsigned i = 0; i < ZDS_SOCKETS; i++)
		socket[i] = -1;
	if (n > 0) {
		err = request_serve(z, buf, (size_t)n, fds, n_fds, why, socket);
	} else {
		err = n == -EMSGSIZE ? -EBADMSG : n ? (int)n : -ECONNRESET;
		snprintf(why, sizeof why, "%s", n ? strerror((int)-n) : "closed by the server");
	}
	sent = n > 0 || err == -EBADMSG ? answer(z, err, why, socket) : 0;
	if (n > 0 && !sent && err != -EBADMSG && err != -EPROTO) {
		ready_update(z);
		return;
	}
	log_warn(target, "connection to %s ends: %s", z->path, why[0] ? why : strerror(-sent));
	disconnect(z);
	connect_later(z);
}

static void connect_now(struct timer *t)
{
	struct zds *z = container_of(t, struct zds, again);
	uint8_t hello[ZDS_HELLO_BYTES];
	int fd = seqpacket_connect(z->path), err = fd < 0 ? fd : 0;

	if (!err && fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) < 0)
		err = -errno;
	if (!err)
		err = seqpacket_send(fd, hello, zds_hello_encode(hello, z->draining), NULL, 0);
	if (!err) {
		io_init(&z->io, fd, packet_ready);
		err = io_want(z->loop, &z->io, EPOLLIN);
	}
	if (!err) {
		log_info(target, "connected to %s", z->path);
		return;
	}
	z->io.fd = -1;
	if (fd >= 0)
		close(fd);
	log_warn(target, "cannot connect to %s: %s; next attempt in %llu ms", z->path, strerror(-err),
		 (unsigned long long)z->backoff_ms);
	connect_later(z);
}

struct zds *zds_new(struct loop *l, const char *path, const struct zds_handler *h)
{
	struct zds *z = calloc(1, sizeof *z + strlen(path) + 1);

	if (!z)
		return NULL;
	z->loop = l;
	z->h = *h;
	z->io.fd = -1;
	z->backoff_ms = BACKOFF_MIN_MS;
	list_init(&z->pending);
	strcpy(z->path, path);
	timer_set(l, &z->again, 0, connect_now);
	return z;
}

void zds_free(struct zds *z)
{
	if (!z)
		return;
	timer_cancel(&z->again);
	timer_cancel(&z->retry);
	if (z->io.fd >= 0)
		io_close(z->loop, &z->io);
	uids_clear(&z->named);
	pending_forget(z, NULL);
	free(z);
}

void zds_drain(struct zds *z)
{
	if (z->draining)
		return;
	z->draining = true;
	if (z->retiring) {
		pending_forget(z, NULL);
		timer_cancel(&z->retry);
		return;
	}
	if (z->io.fd >= 0)
		disconnect(z);
	if (z->ours)
		timer_set(z->loop, &z->again, 0, connect_now);
	else
		timer_cancel(&z->again);
}

unsigned zds_pending(const struct zds *z)
{
	return z->n_pending;
}
