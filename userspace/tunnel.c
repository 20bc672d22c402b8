/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's main program, and its control thread: the mesh's file, certificates, ZDS. Carrying traffic is data/'s.
 *
 * The start is a ladder: each rung needs those before it, and the end goes down the same way. What can be wrong with
 * the configuration is found before the first rung that others can see (`pods`); whatever fails is one line and a
 * status other than 0. A drain (tunnel_drain.c) ends the loop. */
#include "tunnel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <malloc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/log.h"
#include "net/netns.h"
#include "tunnel_ca.h"

static const char target[] = "tunnel";

int tunnel_says(char *why, const char *what)
{
	snprintf(why, CONFIG_WHY_MAX, "%s", what);
	return -1;
}

static int log_up(struct tunnel *t, char *why)
{
	if (log_set_filter(t->c.log_filter) < 0) {
		snprintf(why, CONFIG_WHY_MAX, "RUST_LOG: \"%.256s\" is no log filter", t->c.log_filter);
		return -1;
	}
	return log_start(t->c.log_json) < 0 ? tunnel_says(why, "cannot start a thread") : 0;
}

static void log_down(struct tunnel *t)
{
	log_stop();
}

/* As many descriptors as the system allows: a connection needs two. */
static void raise_limits(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &r) < 0)
			log_warn(target, "cannot raise the limit of open files: %s", strerror(errno));
	}
}

/* Entering a pod's namespace and marking a socket are what no pod can be served without. In dedicated mode the namespace is
 * ours, and there may be no mark. */
static int check_rights(const struct tunnel_config *c, char *why)
{
	int ns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC),
	    s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	int e = 0;

	if (ns < 0 || netns_init_thread() < 0 || (!c->dedicated && setns(ns, CLONE_NEWNET) < 0))
		e = tunnel_says(why, "cannot enter network namespaces: needs root, or CAP_SYS_ADMIN");
	else if (s < 0 || (c->mark && setsockopt(s, SOL_SOCKET, SO_MARK, &c->mark, sizeof c->mark) < 0))
		e = tunnel_says(why, "cannot mark sockets: needs root, or CAP_NET_ADMIN");
	if (ns >= 0)
		close(ns);
	if (s >= 0)
		close(s);
	return e;
}

static void turn(void *arg, bool about_to_sleep)
{
	if (about_to_sleep)
		store_thread_offline();
	else
		store_thread_online();
}

static int loop_up(struct tunnel *t, char *why)
{
	int e;

	raise_limits();
	if (check_rights(&t->c, why) < 0)
		return -1;
	t->loop = loop_new();
	if (!t->loop)
		return tunnel_says(why, strerror(errno));
	e = tunnel_signals_open(t);
	if (e < 0)
		return tunnel_says(why, strerror(-e));
	store_thread_register();
	loop_on_turn(t->loop, turn, t);
	return 0;
}

static void loop_down(struct tunnel *t)
{
	if (t->signals.fd >= 0) {
		tunnel_signals_close(t);
		store_thread_online();
		store_thread_unregister();
	}
	loop_free(t->loop);
}

static int mesh_up(struct tunnel *t, char *why)
{
	const struct tunnel_config *c = &t->c;
	struct store_counts n;
	int e;

	t->store = store_new(c->node_name);
	if (!t->store)
		return tunnel_says(why, "out of memory");
	if (*c->local_path) { /* watched first: no change falls between */
		t->watch = local_watch_new(t->loop, t->store, c->local_path);
		e = t->watch ? local_load_file(t->store, c->local_path, why) : tunnel_says(why, "out of memory");
	} else {
		e = *c->local_text ? local_load_text(t->store, "LOCAL_XDS", c->local_text, strlen(c->local_text), why)
				   : 0; /* all of it comes from istiod */
	}
	if (e)
		return -1;
	store_count(t->store, &n);
	log_info(target, "mesh: %u workloads, %u services, %u policies", n.workloads, n.services, n.policies);
	return 0;
}

static void mesh_down(struct tunnel *t)
{
	local_watch_free(t->watch);
	store_free(t->store);
}

static int certs_up(struct tunnel *t, char *why)
{
	t->ca = tunnel_ca_new(t->loop, &t->c, why);
	if (!t->ca)
		return -1;
	if (*t->c.crl_path && !(t->lists = crls_new()))
		return tunnel_says(why, "out of memory");
	t->certs = certs_new(t->loop, &(struct certs_options){
					      .ca = t->ca, .pqc = !strcmp(t->c.compliance, "pqc"), .lists = t->lists});
	return t->certs ? 0 : tunnel_says(why, "out of memory");
}

static void certs_down(struct tunnel *t)
{
	certs_free(t->certs);
	ca_free(t->ca);
	crls_free(t->lists);
}

/* What is the same for all is one line. */
static int ktls_up(struct tunnel *t, char *why)
{
	const struct ktls_features *f = &t->ktls;

	ktls_probe(&t->c.ktls, &t->ktls);
	if (!f->has[KTLS_FEATURE_TX] && !f->has[KTLS_FEATURE_RX] &&
	    (t->c.ktls.mode == KTLS_OFF || t->c.ktls.mode == KTLS_AUTO || !f->off[KTLS_FEATURE_TX])) {
		log_info(target, "kTLS %s: not used: %s", ktls_mode_name(t->c.ktls.mode), f->why[KTLS_FEATURE_TX]);
		return 0;
	}
	for (unsigned i = 0; i < KTLS_FEATURES; i++)
		log_info(target, "kTLS %s: %s: %s%s", ktls_mode_name(t->c.ktls.mode), ktls_feature_name(i),
			 f->has[i] ? "available" : "not used: ", f->why[i]);
	return 0;
}

/* The kernel takes an int. */
static unsigned user_timeout_ms(const struct tunnel_config *c)
{
	uint64_t ms = 1000 * (c->keepalive_time_s + (uint64_t)c->keepalive_interval_s * c->keepalive_retries);

	return ms < INT_MAX ? (unsigned)ms : INT_MAX;
}

static int data_up(struct tunnel *t, char *why)
{
	const struct tunnel_config *c = &t->c;
	struct data_options o = {
		.store = t->store,
		.certs = t->certs,
		.demand = t->xds ? xds_demand(t->xds) : NULL,
		.workers = c->workers,
		.network = c->network,
		.cluster_id = c->cluster_id,
		.mark = c->mark,
		.spoof = c->spoof_mode,
		.port_reuse = c->port_reuse,
		.dns = c->dns,
		.dns_zone = t->answers ? &t->zone : NULL,
		.lists = t->lists,
		.socks = c->socks,
		.ipv4_only = !c->ipv6,
		.local_hbone = c->local_hbone,
		.openssl_only = c->openssl_only,
		.app_tunnel_loopback = c->app_tunnel_loopback,
		.response_baggage = c->response_baggage,
		.authz_info = c->authz_info,
		.pool_streams = c->pool_streams,
		.pool_idle_ms = c->pool_idle_ms,
		.ktls = &t->ktls,
	};

	if (c->keepalive)
		o.keepalive = (struct sock_keepalive){c->keepalive_time_s, c->keepalive_interval_s,
						      c->keepalive_retries, .user_timeout_ms = 0};
	if (c->user_timeout)
		o.keepalive.user_timeout_ms = user_timeout_ms(c);
	t->data = data_new(t->loop, &o, why);
	return t->data ? 0 : -1;
}

/* The workers ask for certificates, and for names, until they end, and are answered until their loops do. */
static void data_down(struct tunnel *t)
{
	data_stop(t->data);
	certs_free(t->certs);
	t->certs = NULL;
	xds_down(t);
	data_free(t->data);
}

static const struct rung {
	int (*up)(struct tunnel *t, char *why);
	void (*down)(struct tunnel *t); /* also after a failed `up`; or NULL */
} ladder[] = {
	{rights_up, NULL},  {log_up, log_down},	    {seccomp_up, NULL},	    {loop_up, loop_down}, {mesh_up, mesh_down},
	{xds_up, xds_down}, {certs_up, certs_down}, {metrics_up, NULL},	    {crl_up, crl_down},	  {ktls_up, NULL},
	{dns_up, NULL},	    {data_up, data_down},   {ports_up, ports_down}, {pods_up, pods_down},
};
enum { RUNGS = sizeof ladder / sizeof *ladder };

/* Reading a large mesh makes and drops millions of short texts between objects that stay: holes are closed at once, and
 * the heap grows by large steps. */
static void prepare_memory(void)
{
	mallopt(M_MXFAST, 0);
	mallopt(M_TOP_PAD, 1 << 20);
}

int main(int argc, char **argv)
{
	static struct tunnel t = {.signals = {.fd = -1}};
	char why[CONFIG_WHY_MAX] = "";
	int e = tunnel_config_read(&t.c, argc, argv, why);
	unsigned rung = 0;

	if (e == 1)
		return 0;
	prepare_memory();
	tunnel_signals_block();
	for (; !e && rung < RUNGS; rung++)
		e = ladder[rung].up(&t, why);
	if (!e) {
		malloc_trim(0); /* what reading the mesh needed */
		if (t.c.dedicated)
			log_info(target, "started: %u workers, for %s/%s alone", t.c.workers, t.c.self.ns,
				 t.c.self.name);
		else
			log_info(target, "started: %u workers, pods from %s", t.c.workers, t.c.zds_path);
		loop_run(t.loop);
		log_info(target, "ended");
	}
	while (rung--)
		if (ladder[rung].down)
			ladder[rung].down(&t);
	if (e)
		fprintf(stderr, "culvert-tunnel: %s\n", why);
	tunnel_config_free(&t.c);
	return e ? 1 : 0;
}
