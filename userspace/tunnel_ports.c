/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's own ports: admin 15000 on the loopback, metrics 15020, readiness 15021, and RUN_DIR/tunnel.sock.
 *
 * They are always those of the tunnel that serves. A successor, which the keeper starts with CULVERT_SUCCEEDS, binds the
 * ports beside its predecessor (SO_REUSEPORT), so that what is wrong with them shows at once, but listens, and renames
 * its socket to tunnel.sock, when it has all pods; only then does the keeper tell the predecessor to drain, which closes
 * the ports. Nobody finds them closed in between, and an upgrade that fails has changed nothing. A tunnel that is
 * nobody's successor finds ports that it shares with nobody, or does not start. While it drains it answers culvertctl at
 * RUN_DIR/draining-PID.sock. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "admin/stats.h"
#include "base/log.h"
#include "ctl_abi.h"
#include "net/unix_path.h"
#include "tap_abi.h"
#include "tunnel.h"

static bool ipv6_on_loopback(const struct tunnel_config *c)
{
	int fd = c->ipv6 ? open("/proc/sys/net/ipv6/conf/lo/disable_ipv6", O_RDONLY | O_CLOEXEC) : -1;
	char off = '1';
	bool on = fd >= 0 && read(fd, &off, 1) == 1 && off != '1';

	if (fd >= 0)
		close(fd);
	return on;
}

struct port {
	struct http_server *server;
	http_serve serve;
	void *arg;
	const char *variable; /* that chooses another one */
	unsigned port;
};

static int listen_at(const struct port *p, const struct addr *ip, char *why)
{
	struct endpoint at = {*ip, (uint16_t)p->port};
	char reason[CONFIG_WHY_MAX / 2];

	if (http_listen_tcp(p->server, &at, p->serve, p->arg, reason, sizeof reason) == 0)
		return 0;
	snprintf(why, CONFIG_WHY_MAX, "cannot listen at %s; %s chooses another port", reason, p->variable);
	return -1;
}

static int listen_admin(struct tunnel *t, const struct port *p, char *why)
{
	struct addr ip;

	if (strcmp(t->c.admin_address, "localhost") != 0) {
		if (addr_parse(&ip, t->c.admin_address) == 0)
			return listen_at(p, &ip, why);
		snprintf(why, CONFIG_WHY_MAX, "CULVERT_ADMIN: \"%.64s\" is neither localhost nor an IP address",
			 t->c.admin_address);
		return -1;
	}
	if (listen_at(p, &addr_loopback4, why) < 0)
		return -1;
	return ipv6_on_loopback(&t->c) ? listen_at(p, &addr_loopback6, why) : 0;
}

static const char next_suffix[] = ".next";

/* RUN_DIR, or NULL. */
static const char *run_dir(void)
{
	const char *dir = getenv("CULVERT_RUN_DIR");

	return dir && *dir ? dir : NULL;
}

static bool run_path(char out[PATH_MAX], const char *name, const char *suffix)
{
	return snprintf(out, PATH_MAX, "%s/%s%s", run_dir(), name, suffix) < PATH_MAX;
}

/* Sockets of tunnels that were killed while they drained. */
static void sweep(const char *dir)
{
	DIR *d = opendir(dir);
	char path[PATH_MAX];
	struct dirent *e;
	int n = 0;

	while (d && (e = readdir(d)))
		if (sscanf(e->d_name, "draining-%*d.soc%n", &n) == 0 && n && run_path(path, e->d_name, ""))
			unix_path_clear(path, SOCK_STREAM);
	if (d)
		closedir(d);
}

/* RUN_DIR/tunnel.sock, for culvertctl. The newest tunnel has it: its predecessor may be draining. */
static int listen_run_dir(struct tunnel *t, char *why)
{
	const char *dir = run_dir();
	char path[PATH_MAX], reason[CONFIG_WHY_MAX / 2];

	if (!dir)
		return 0;
	if (!run_path(path, CTL_TUNNEL_SOCKET, t->succeeds ? next_suffix : ""))
		return tunnel_says(why, "CULVERT_RUN_DIR: the path is too long");
	if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
		snprintf(why, CONFIG_WHY_MAX, "CULVERT_RUN_DIR: cannot make %.256s: %s", dir, strerror(errno));
		return -1;
	}
	sweep(dir);
	unix_path_take(path); /* what cannot be taken, the next line reports */
	if (http_listen_unix(t->admin_http, path, 0600, admin_serve, &t->admin, reason, sizeof reason) == 0)
		return 0;
	snprintf(why, CONFIG_WHY_MAX, "CULVERT_RUN_DIR: cannot listen at %s", reason);
	return -1;
}

int ports_up(struct tunnel *t, char *why)
{
	const struct tunnel_config *c = &t->c;
	const struct addr *any = c->ipv6 ? &addr_any6 : &addr_any4;
	struct port admin, stats, ready;

	t->admin = (struct admin){
		.control = t->loop,
		.store = t->store,
		.xds = t->xds,
		.certs = t->certs,
		.crl = t->crl_file,
		.data = t->data,
		.config = c->text,
		.local_path = c->local_path,
		.local = t->watch,
		.log_default = c->log_filter,
		.istio_version = c->istio_version,
		.ktls_mode = c->ktls.mode,
		.ktls = &t->ktls,
		.draining = &t->ending,
		.quit = tunnel_quit,
		.arg = t,
	};
	t->admin_http = http_server_new();
	t->probe_http = http_server_new(); /* apart: a large dump must not delay a probe */
	if (!t->admin_http || !t->probe_http)
		return tunnel_says(why, "out of memory");
	t->succeeds = getenv("CULVERT_SUCCEEDS") != NULL;
	http_share_ports(t->admin_http, t->succeeds);
	http_share_ports(t->probe_http, t->succeeds);
	admin = (struct port){t->admin_http, admin_serve, &t->admin, "CULVERT_ADMIN_PORT", c->admin_port};
	stats = (struct port){t->probe_http, stats_serve, NULL, "CULVERT_STATS_PORT", c->stats_port};
	ready = (struct port){t->probe_http, ready_serve, &t->ready, "CULVERT_READY_PORT", c->ready_port};
	if (listen_admin(t, &admin, why) < 0 || listen_at(&stats, any, why) < 0 || listen_at(&ready, any, why) < 0)
		return -1;
	return listen_run_dir(t, why);
}

/* Whoever serves has the path. It is a tool: without it connections are carried all the same. */
static void serve_taps(struct tunnel *t)
{
	char path[PATH_MAX], why[CONFIG_WHY_MAX] = "CULVERT_RUN_DIR is not set, or too long";

	if (!t->c.tap)
		return;
	if (run_dir() && run_path(path, TAP_SOCKET, ""))
		t->tap = tap_server_new(t->loop, t->data, path, why, sizeof why);
	if (!t->tap)
		log_warn("tap", "there will be no taps: %s", why);
}

int ports_serve(struct tunnel *t, char *why)
{
	char next[PATH_MAX], path[PATH_MAX];
	int e;

	if (t->open)
		return 0;
	e = http_server_start(t->admin_http);
	if (!e)
		e = http_server_start(t->probe_http);
	if (!e && t->succeeds && run_dir() && run_path(next, CTL_TUNNEL_SOCKET, next_suffix) &&
	    run_path(path, CTL_TUNNEL_SOCKET, "") && rename(next, path) < 0)
		e = -errno;
	if (e)
		snprintf(why, CONFIG_WHY_MAX, "cannot serve the admin ports: %s", strerror(-e));
	else
		t->open = true;
	if (!e)
		serve_taps(t);
	return e ? -1 : 0;
}

/* What is missing then is a convenience: connections drain all the same. */
void ports_drain(struct tunnel *t)
{
	enum { TRIES = 16 }; /* tunnels with the same number, of other PID namespaces */
	char name[64], reason[CONFIG_WHY_MAX / 2] = "out of memory";
	int e = -EADDRINUSE;

	tap_server_drain(t->tap);
	t->drain_http = run_dir() ? http_server_new() : NULL;
	for (int i = 0; t->drain_http && e == -EADDRINUSE && i < TRIES; i++) {
		snprintf(name, sizeof name, CTL_DRAINING_SOCKET, (int)getpid() + i);
		if (!run_path(t->drain_path, name, ""))
			break;
		e = http_listen_unix(t->drain_http, t->drain_path, 0600, admin_serve, &t->admin, reason, sizeof reason);
	}
	if (!e)
		e = http_server_start(t->drain_http);
	if (!e)
		return;
	t->drain_path[0] = '\0';
	if (run_dir())
		log_warn("tunnel", "culvertctl will not see the connections that drain: %s", reason);
}

void ports_down(struct tunnel *t)
{
	tap_server_free(t->tap);
	http_server_free(t->drain_http);
	if (t->drain_path[0])
		unlink(t->drain_path);
	if (t->closer_runs)
		pthread_join(t->closer, NULL);
	http_server_free(t->admin_http);
	http_server_free(t->probe_http);
}
