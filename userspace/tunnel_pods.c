/* SPDX-License-Identifier: Apache-2.0 */
/* Pods: what ZDS tells goes to the data plane, and what is there without it; how many there are is counted, and whether
 * they are complete is the readiness of the whole. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "admin/stats.h"
#include "base/log.h"
#include "data/dns_metrics.h"
#include "data/limits.h"
#include "data/offload.h"
#include "data/revoke.h"
#include "data/traffic.h"
#include "tunnel.h"

static const char target[] = "tunnel";

int metrics_up(struct tunnel *t, char *why)
{
	static const struct {
		enum metric_type type;
		const char *name, *help;
	} described[] = {
		{METRIC_GAUGE, "workload_manager_active_proxy_count", "Pods that are served (unstable)"},
		{METRIC_GAUGE, "workload_manager_pending_proxy_count", "Pods that could not be served yet (unstable)"},
		{METRIC_COUNTER, "workload_manager_proxies_started", "Pods that were taken into service (unstable)"},
		{METRIC_COUNTER, "workload_manager_proxies_stopped", "Pods that were taken out of service (unstable)"},
	};
	struct metric **metrics[] = {&t->active, &t->pending, &t->started, &t->stopped};
	const char *const none[] = {NULL};

	if (stats_init(t->c.istio_version) < 0 || traffic_init() < 0 || dns_metrics_init() < 0 || limits_init() < 0 ||
	    offload_init() < 0 || revoke_init() < 0 || certs_metrics_init(t->certs) < 0 ||
	    (*t->c.xds_address && xds_metrics_init() < 0))
		return tunnel_says(why, "out of memory");
	for (unsigned i = 0; i < sizeof described / sizeof *described; i++) {
		*metrics[i] = metric_get(
			metric_family(described[i].type, described[i].name, described[i].help, NULL, NULL), none);
		if (!*metrics[i])
			return tunnel_says(why, "out of memory");
	}
	return 0;
}

_Static_assert((int)ZDS_SOCKETS == (int)DATA_SOCKETS && (int)ZDS_WHY_MAX == (int)DATA_WHY_MAX, "both are the same");

static void count_pods(struct task *task)
{
	struct tunnel *t = container_of(task, struct tunnel, count);

	metric_set(t->active, data_pods(t->data));
	metric_set(t->pending, t->zds ? zds_pending(t->zds) : 0);
}

/* Of a file it is known at once whether the mesh has the pod; of istiod it may be on its way. */
static void warn_of_stranger(struct tunnel *t, const struct data_pod *p)
{
	bool known;

	store_read_lock();
	known = store_local_workload(t->store, p->ns, p->sa, p->name) != NULL;
	store_read_unlock();
	if (!known && !t->xds)
		log_warn(target,
			 "pod %s/%s: the mesh has no workload of this name with service account %s, its connections "
			 "are refused until %s has",
			 p->ns, p->name, p->sa, *t->c.local_path ? t->c.local_path : "it");
}

static int serve(struct tunnel *t, const struct data_pod *d, char why[DATA_WHY_MAX])
{
	unsigned before = data_pods(t->data);
	int e = data_pod_add(t->data, d, why);

	loop_defer(t->loop, &t->count, count_pods);
	if (e)
		return e;
	if (data_pods(t->data) > before) {
		metric_add(t->started, 1);
		log_info(target, "pod %s/%s is served", d->ns, d->name);
	}
	return 0;
}

static int pod_add(void *arg, struct zds_pod *p, char why[ZDS_WHY_MAX])
{
	struct data_pod d = {p->uid, p->name, p->ns, p->sa, p->netns_fd, .sockets_sent = p->sockets_sent};
	int e;

	memcpy(d.socket, p->socket, sizeof d.socket);
	e = serve(arg, &d, why);
	if (e)
		log_warn(target, "pod %s/%s: %s", p->ns, p->name, why);
	else
		warn_of_stranger(arg, &d);
	return e;
}

/* What is there from the start, in our own namespace: the workload of dedicated mode, or this tunnel, so that the mesh
 * reaches its metrics as it reaches a pod's. */
static int self_add(struct tunnel *t, char *why)
{
	const struct tunnel_self *s = &t->c.self;
	struct data_pod d = {t->c.dedicated ? "dedicated" : "self",
			     s->name,
			     s->ns,
			     s->sa,
			     .kind = t->c.dedicated ? DATA_POD_SOLE : DATA_POD_SELF,
			     .waits = true};

	if (!*s->name)
		return 0;
	for (int i = 0; i < DATA_SOCKETS; i++)
		d.socket[i] = -1;
	d.netns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	return d.netns_fd < 0 ? tunnel_says(why, "cannot open this network namespace") : serve(t, &d, why);
}

static void pod_remove(void *arg, const char *uid)
{
	struct tunnel *t = arg;
	unsigned before = data_pods(t->data);

	data_pod_remove(t->data, uid);
	metric_add(t->stopped, before - data_pods(t->data));
	loop_defer(t->loop, &t->count, count_pods);
}

static void pod_each(void *arg, void (*each)(void *ctx, const char *uid), void *ctx)
{
	data_pod_each(((struct tunnel *)arg)->data, each, ctx);
}

static int pod_sockets(void *arg, const char *uid, int socket[ZDS_SOCKETS])
{
	return data_pod_sockets(((struct tunnel *)arg)->data, uid, socket);
}

static int pods_named(void *arg, char why[ZDS_WHY_MAX])
{
	struct tunnel *t = arg;
	char text[CONFIG_WHY_MAX] = "";
	int e;

	ready_set(&t->ready, zds_pending(t->zds) == 0); /* before the port of it opens, where that is now */
	e = ports_serve(t, text);
	if (e)
		snprintf(why, ZDS_WHY_MAX, "%.*s", ZDS_WHY_MAX - 1, text);
	return e;
}

static void retire(void *arg)
{
	tunnel_retire(arg);
}

static void pods_ready(void *arg, bool ready)
{
	struct tunnel *t = arg;

	if (t->ending)
		return;
	ready_set(&t->ready, ready);
	loop_defer(t->loop, &t->count, count_pods);
	log_info(target, ready ? "ready" : "not ready: pods are not complete");
}

void pods_begin(struct tunnel *t)
{
	const struct zds_handler h = {pod_add, pod_remove, pod_each, pod_sockets, pods_named, retire, pods_ready, t};

	if (t->ending || t->zds)
		return;
	data_pods_go(t->data);
	if (t->c.dedicated)
		return;
	t->zds = zds_new(t->loop, t->c.zds_path, &h);
	if (!t->zds) {
		log_error(target, "out of memory: no pods can be served");
		tunnel_quit(t);
	}
}

int pods_up(struct tunnel *t, char *why)
{
	if (self_add(t, why) < 0)
		return -1;
	if (data_start(t->data) < 0)
		return tunnel_says(why, "cannot start a thread");
	if (t->c.dedicated)
		pods_ready(t, true);
	if (!t->succeeds && ports_serve(t, why) < 0)
		return -1;
	if (!t->xds) /* else when istiod has told the mesh */
		pods_begin(t);
	return 0;
}

void pods_down(struct tunnel *t)
{
	zds_free(t->zds);
	task_cancel(&t->count);
}
