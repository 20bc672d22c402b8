// SPDX-License-Identifier: Apache-2.0
/* Drives steer.h from a script: commands on standard input, one line of answer each, "ok ..." or "error ...". In each
 * pod it plays a trivial agent: a connection gets the line "agent=PORT local=ADDR:PORT peer=ADDR:PORT", where local is
 * the original destination, then its own bytes back; a DNS datagram gets such a line from the resolver's address.
 *
 *   open PIN_DIR bpf|iptables [hook=tcx|clsact|auto] [cgroup=DIR] [kubelet=DIR]   facts    agent PID    probe    quit
 *   attach UID NETNS [bpf|iptables] [OPTION...]   configure UID [OPTION...]   detach UID MS    forget UID
 *   counters UID    status UID    close UID    reopen UID    collect [UID...]    suspect UID    mend UID [TIMES]    seen UID
 * OPTION: dns bypass reset iface=NAME out=PREFIX out-port=N in-port=N node=ADDR probe=PORT
 * `close` closes the agent's sockets, as a tunnel's end would; `forget` lets go of a pod as a keeper's end does. */
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/list.h"
#include "base/log.h"
#include "net/sock.h"
#include "ports.h"
#include "steer/seen.h"
#include "steer/steer.h"

enum { LINE_BYTES = 4096, WORDS_MAX = 32, COUNTERS_MAX = 128 };

static struct loop *loop;
static struct steer *steer;

struct pod {
	struct list link;
	char uid[STEER_UID_MAX];
	int netns;
	bool iptables, dns;
	struct netns_id ns;
	struct steer_pod *steered;
	struct steer_sockets socks;
	struct io io[STEER_SOCKETS];
};
static struct list pods = {&pods, &pods};

static void __attribute__((format(printf, 1, 2))) say(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

/* --- the agent ------------------------------------------------------------------------------------------ */

struct conn { /* reads only what it has room for: `at`..`len` waits to be sent back */
	struct io io;
	size_t at, len;
	char buf[65536];
};

static void on_conn(struct io *io, uint32_t events)
{
	struct conn *c = container_of(io, struct conn, io);
	ssize_t n;

	for (;;) {
		if (c->at == c->len) {
			n = recv(io->fd, c->buf, sizeof c->buf, MSG_DONTWAIT);
			if (n <= 0)
				break;
			c->at = 0;
			c->len = n;
		}
		n = send(io->fd, c->buf + c->at, c->len - c->at, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0)
			break;
		c->at += n;
	}
	if (n < 0 && errno == EAGAIN) {
		io_want(loop, io, c->at == c->len ? EPOLLIN : EPOLLOUT);
		return;
	}
	io_stop(loop, io);
	close(io->fd);
	free(c);
}

static int describe(char *out, size_t cap, unsigned port, const struct endpoint *local, const struct endpoint *peer)
{
	char l[ENDPOINT_STRLEN], p[ENDPOINT_STRLEN];

	return snprintf(out, cap, "agent=%u local=%s peer=%s\n", port, endpoint_str(local, l), endpoint_str(peer, p));
}

static void serve_tcp(struct pod *p, struct io *io, unsigned port)
{
	struct endpoint local, peer;
	int fd = sock_accept(io->fd, &peer);
	struct conn *c;
	char line[256];

	if (fd < 0)
		return;
	c = calloc(1, sizeof *c);
	if (!c || sock_original_dst(fd, p->iptables, &local) < 0) {
		close(fd);
		free(c);
		return;
	}
	send(fd, line, describe(line, sizeof line, port, &local, &peer), MSG_NOSIGNAL);
	io_init(&c->io, fd, on_conn);
	io_want(loop, &c->io, EPOLLIN);
}

static uint32_t sum(const void *data, size_t n, uint32_t s)
{
	const uint8_t *b = data;

	for (size_t i = 0; i < n; i++)
		s += i & 1 ? b[i] : b[i] << 8;
	return s;
}

/* From the resolver's address and port, through the pod's raw socket. */
static void answer_raw(struct pod *p, const struct endpoint *from, const struct endpoint *to, const char *text,
		       size_t n)
{
	bool v4 = addr_is4(&from->ip);
	struct udphdr u = {.source = htons(from->port), .dest = htons(to->port), .len = htons(sizeof u + n)};
	struct iphdr ip4 = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
	struct ip6_hdr ip6 = {.ip6_nxt = IPPROTO_UDP, .ip6_hlim = 64, .ip6_plen = u.len};
	struct iovec v[3] = {{&ip4, sizeof ip4}, {&u, sizeof u}, {(char *)text, n}};
	struct endpoint plain = {to->ip, 0};
	struct sockaddr_storage ss;
	struct msghdr m = {.msg_name = &ss, .msg_iov = v, .msg_iovlen = 3};
	uint32_t s = IPPROTO_UDP + sizeof u + n;

	ip6.ip6_vfc = 0x60; /* in a union with what was set above */
	memcpy(&ip4.saddr, from->ip.b + 12, 4);
	memcpy(&ip4.daddr, to->ip.b + 12, 4);
	memcpy(&ip6.ip6_src, &from->ip, 16);
	memcpy(&ip6.ip6_dst, &to->ip, 16);
	if (!v4)
		v[0] = (struct iovec){&ip6, sizeof ip6};
	s = sum(text, n,
		sum(&u, sizeof u,
		    sum(to->ip.b + (v4 ? 12 : 0), v4 ? 4 : 16, sum(from->ip.b + (v4 ? 12 : 0), v4 ? 4 : 16, s))));
	while (s >> 16)
		s = (s & 0xffff) + (s >> 16);
	u.check = htons(~s);
	m.msg_namelen = endpoint_to_sockaddr(&plain, &ss);
	if (sendmsg(p->socks.fd[v4 ? STEER_RAW4 : STEER_RAW6], &m, 0) < 0)
		fprintf(stderr, "raw: %s\n", strerror(errno));
}

static void serve_udp(struct pod *p, struct io *io)
{
	struct endpoint local = {addr_any6, 0}, peer;
	struct sockaddr_storage from, to;
	char buf[2048], control[256], line[256];
	struct iovec v = {buf, sizeof buf};
	struct msghdr m = {&from, sizeof from, &v, 1, control, sizeof control, 0};
	size_t len;

	if (recvmsg(io->fd, &m, MSG_DONTWAIT) < 0 || endpoint_from_sockaddr(&peer, &from) < 0)
		return;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
		if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_ORIGDSTADDR) ||
		    (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_ORIGDSTADDR)) {
			memcpy(&to, CMSG_DATA(c), c->cmsg_len - CMSG_LEN(0));
			endpoint_from_sockaddr(&local, &to);
		}
	}
	len = describe(line, sizeof line, PORT_DNS, &local, &peer);
	if (local.port == 53) {
		answer_raw(p, &local, &peer, line, len);
		return;
	}
	/* Behind REDIRECT: from the address that the query came to, which is in the ancillary data as it must go
	 * out. */
	v = (struct iovec){line, len};
	for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c))
		if (c->cmsg_type == (c->cmsg_level == SOL_IP ? IP_PKTINFO : IPV6_PKTINFO)) {
			m.msg_control = c;
			m.msg_controllen = CMSG_ALIGN(c->cmsg_len);
			if (c->cmsg_level == SOL_IP)
				((struct in_pktinfo *)CMSG_DATA(c))->ipi_spec_dst =
					((struct in_pktinfo *)CMSG_DATA(c))->ipi_addr;
			sendmsg(io->fd, &m, 0);
			return;
		}
}

static void on_socket(struct io *io, uint32_t events)
{
	static const unsigned ports[] = {PORT_OUTBOUND, PORT_INBOUND, PORT_HBONE, PORT_DNS};

	list_for_each (l, &pods) {
		struct pod *p = list_entry(l, struct pod, link);

		for (unsigned i = 0; i <= STEER_UDP15053; i++) {
			if (io != &p->io[i])
				continue;
			if (i == STEER_UDP15053)
				serve_udp(p, io);
			else
				serve_tcp(p, io, ports[i]);
		}
	}
}

static int agent_start(struct pod *p, char *why)
{
	int e = steer_sockets_open(&p->socks, &p->ns, p->netns, p->dns, why);

	for (unsigned i = 0; i <= STEER_UDP15053 && !e; i++) {
		if (p->socks.fd[i] < 0 || p->io[i].fd == p->socks.fd[i])
			continue;
		io_init(&p->io[i], p->socks.fd[i], on_socket);
		e = io_want(loop, &p->io[i], EPOLLIN);
	}
	return e;
}

static void agent_stop(struct pod *p)
{
	for (unsigned i = 0; i <= STEER_UDP15053; i++) {
		if (p->io[i].fd >= 0)
			io_stop(loop, &p->io[i]);
		p->io[i].fd = -1;
	}
	steer_sockets_close(&p->socks);
}

/* --- pods ----------------------------------------------------------------------------------------------- */

static struct pod *pod_find(const char *uid)
{
	list_for_each (l, &pods)
		if (!strcmp(list_entry(l, struct pod, link)->uid, uid))
			return list_entry(l, struct pod, link);
	return NULL;
}

static void pod_end(struct pod *p)
{
	agent_stop(p);
	list_del(&p->link);
	if (p->netns >= 0)
		close(p->netns);
	free(p);
}

static bool starts(const char *word, const char *key, const char **value)
{
	size_t n = strlen(key);

	*value = word + n;
	return !strncmp(word, key, n);
}

static void add_port(uint16_t *list, const char *text)
{
	while (*list)
		list++;
	*list = atoi(text);
}

static int parse_options(struct steer_config *c, char **word, unsigned n, bool *iptables)
{
	const char *v;

	memset(c, 0, sizeof *c);
	for (unsigned i = 0; i < n; i++) {
		if (!strcmp(word[i], "dns"))
			c->dns_capture = true;
		else if (!strcmp(word[i], "bypass"))
			c->bypass_inbound = true;
		else if (!strcmp(word[i], "reset"))
			c->reset_existing = true;
		else if (!strcmp(word[i], "bpf") || !strcmp(word[i], "iptables"))
			*iptables = word[i][0] == 'i';
		else if (starts(word[i], "iface=", &v))
			snprintf(c->virtual_ifaces[0], IFNAMSIZ, "%s", v);
		else if (starts(word[i], "out=", &v)) {
			if (prefix_parse(&c->exclude_outbound[c->n_exclude_outbound++], v) < 0)
				return -EINVAL;
		} else if (starts(word[i], "out-port=", &v))
			add_port(c->exclude_outbound_ports, v);
		else if (starts(word[i], "in-port=", &v))
			add_port(c->exclude_inbound_ports, v);
		else if (starts(word[i], "probe=", &v))
			add_port(c->probe_ports, v);
		else if (starts(word[i], "node=", &v)) {
			if (addr_parse(&c->node_addrs[c->n_node_addrs++], v) < 0)
				return -EINVAL;
		} else
			return -EINVAL;
	}
	return 0;
}

static void do_attach(char **word, unsigned n, enum steer_mode mode)
{
	char why[STEER_WHY_MAX] = "wrong option";
	struct steer_config c;
	struct pod *p = calloc(1, sizeof *p);
	int e;

	if (!p)
		exit(3);
	list_init(&p->link);
	for (unsigned i = 0; i < STEER_SOCKETS; i++)
		p->socks.fd[i] = p->io[i].fd = -1;
	p->iptables = mode == STEER_IPTABLES;
	snprintf(p->uid, sizeof p->uid, "%s", word[1]);
	p->netns = netns_open(word[2]);
	e = p->netns < 0 ? p->netns : netns_identify(p->netns, &p->ns);
	if (!e)
		e = parse_options(&c, word + 3, n - 3, &p->iptables);
	p->dns = !e && c.dns_capture;
	if (!e)
		e = agent_start(p, why);
	if (!e)
		e = steer_attach(steer, &p->steered, p->uid, p->iptables ? STEER_IPTABLES : STEER_BPF, p->netns, &p->ns,
				 &c, &p->socks, why);
	if (e) {
		say("error %s (%d)", why, e);
		pod_end(p);
		return;
	}
	list_add_tail(&pods, &p->link);
	say("ok");
}

static void on_detached(void *arg, int err)
{
	pod_end(arg);
	say(err ? "error %d" : "ok", err);
}

static void do_configure(struct pod *p, char **word, unsigned n)
{
	char why[STEER_WHY_MAX] = "wrong option";
	struct steer_config c;
	bool ignored;
	int e = parse_options(&c, word + 2, n - 2, &ignored);

	if (!e && c.dns_capture && !p->dns) {
		p->dns = true;
		e = agent_start(p, why);
		if (!e)
			e = steer_set_sockets(p->steered, &p->socks, why);
	}
	if (!e)
		e = steer_configure(p->steered, &c, why);
	say(e ? "error %s" : "ok%.0s", e ? why : "");
}

static void do_reopen(struct pod *p)
{
	char why[STEER_WHY_MAX];
	int e = agent_start(p, why);

	if (!e)
		e = steer_set_sockets(p->steered, &p->socks, why);
	say(e ? "error %s" : "ok%.0s", e ? why : "");
}

static void do_counters(struct pod *p)
{
	struct steer_counter c[COUNTERS_MAX];
	unsigned n = steer_counters(p->steered, c, COUNTERS_MAX);

	printf("ok");
	for (unsigned i = 0; i < n; i++)
		printf(" %s=%llu", c[i].name, (unsigned long long)c[i].value);
	say("%s", "");
}

static void do_status(struct pod *p)
{
	struct steer_pod_status *s = malloc(sizeof *s);
	char text[ADDR_STRLEN];

	if (!s)
		exit(3);
	steer_pod_status(p->steered, s);
	printf("ok mode=%s adopted=%d existing=%u devices=", s->mode == STEER_BPF ? "bpf" : "iptables", s->adopted,
	       s->existing);
	for (unsigned i = 0; i < s->n_devices; i++)
		printf("%s%s:%u%s%s%s", i ? "," : "", s->device[i].name, s->device[i].ifindex,
		       s->device[i].late ? ":late" : "", s->device[i].ethernet ? "" : ":l3",
		       s->device[i].attached ? ":attached" : "");
	printf(" addrs=");
	for (unsigned i = 0; i < s->n_addrs; i++)
		printf("%s%s", i ? "," : "", addr_str(&s->addr[i], text));
	say("%s", "");
	free(s);
}

/* --- commands ------------------------------------------------------------------------------------------- */

static enum steer_mode mode;

static void do_open(char **word, unsigned n)
{
	struct steer_options o = {.pin_dir = word[1], .kubelet_cgroup = ""};
	char why[STEER_WHY_MAX];
	const char *v;
	int e;

	o.mode = mode = strcmp(word[2], "bpf") ? STEER_IPTABLES : STEER_BPF;
	for (unsigned i = 3; i < n; i++) {
		if (starts(word[i], "hook=", &v))
			o.hook = *v == 't' ? STEER_HOOK_TCX : *v == 'c' ? STEER_HOOK_CLSACT : STEER_HOOK_AUTO;
		else if (starts(word[i], "cgroup=", &v))
			o.cgroup_root = v;
		else if (starts(word[i], "kubelet=", &v))
			o.kubelet_cgroup = strcmp(v, "find") ? v : NULL;
	}
	e = steer_open(&steer, loop, &o, why);
	if (!e)
		e = steer_agent_add(steer, getpid(), why);
	if (e)
		say("error %s", why);
	else
		say("ok");
}

static char **known_words;
static unsigned known_n;
static bool is_known(void *arg, const char *uid)
{
	for (unsigned i = 1; i < known_n; i++)
		if (!strcmp(known_words[i], uid))
			return true;
	return false;
}

static void do_facts(void)
{
	struct steer_facts f;

	steer_facts(steer, &f);
	say("ok mark_only=%d tcx=%d kubelet=%d how=%s", f.mark_only, f.tcx, f.kubelet_exempt, f.kubelet_how);
}

/* What was missing, and the time that it took: of the last of so many. */
static void do_mend(struct pod *p, unsigned times)
{
	char why[STEER_WHY_MAX] = "";
	struct timespec t[2];
	int e = 0;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[0]);
	for (unsigned i = 0; i < times; i++)
		e = steer_mend(p->steered, &p->socks, why);
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t[1]);
	if (e < 0)
		say("error %s", why);
	else
		say("ok mended=%d ns=%lld %s", e,
		    ((t[1].tv_sec - t[0].tv_sec) * 1000000000ll + t[1].tv_nsec - t[0].tv_nsec) / times, e ? why : "");
}

/* As who comes from outside sees it. */
static void do_seen(const struct pod *p)
{
	char why[STEER_WHY_MAX];
	int e = steer_seen(p->netns, &p->ns, p->iptables ? STEER_IPTABLES : STEER_BPF, why);

	say(e ? "error %s" : "ok%.0s", e ? why : "");
}

/* Commands about one pod. */
static bool run_pod(char **word, unsigned n)
{
	struct pod *p = n > 1 ? pod_find(word[1]) : NULL;

	if (!p)
		return false;
	if (!strcmp(word[0], "detach"))
		steer_detach(p->steered, n > 2 ? atoi(word[2]) : 0, on_detached, p);
	else if (!strcmp(word[0], "configure"))
		do_configure(p, word, n);
	else if (!strcmp(word[0], "counters"))
		do_counters(p);
	else if (!strcmp(word[0], "status"))
		do_status(p);
	else if (!strcmp(word[0], "reopen"))
		do_reopen(p);
	else if (!strcmp(word[0], "suspect"))
		say("ok suspect=%d", steer_suspect(p->steered));
	else if (!strcmp(word[0], "mend"))
		do_mend(p, n > 2 ? atoi(word[2]) : 1);
	else if (!strcmp(word[0], "seen"))
		do_seen(p);
	else if (!strcmp(word[0], "close")) {
		agent_stop(p);
		say("ok");
	} else if (!strcmp(word[0], "forget")) {
		steer_pod_free(p->steered);
		pod_end(p);
		say("ok");
	} else
		return false;
	return true;
}

static void run(char **word, unsigned n)
{
	char why[STEER_WHY_MAX];
	int e;

	if (!n)
		return;
	if (!strcmp(word[0], "quit")) {
		loop_stop(loop);
	} else if (!strcmp(word[0], "probe")) {
		e = steer_probe(why);
		say(e ? "error %s" : "ok%.0s", e ? why : "");
	} else if (!strcmp(word[0], "open") && n > 2 && !steer) {
		do_open(word, n);
	} else if (!steer) {
		say("error not open");
	} else if (!strcmp(word[0], "attach") && n > 2) {
		do_attach(word, n, mode);
	} else if (!strcmp(word[0], "agent") && n > 1) {
		e = steer_agent_add(steer, atoi(word[1]), why);
		say(e ? "error %s" : "ok%.0s", e ? why : "");
	} else if (!strcmp(word[0], "facts")) {
		do_facts();
	} else if (!strcmp(word[0], "collect")) {
		known_words = word;
		known_n = n;
		say("ok %d", steer_collect(steer, is_known, NULL, NULL));
	} else if (!run_pod(word, n)) {
		say("error what? %s", word[0]);
	}
}

static void on_stdin(struct io *io, uint32_t events)
{
	static char buf[LINE_BYTES];
	static size_t len;
	ssize_t n = read(0, buf + len, sizeof buf - 1 - len);
	char *end, *word[WORDS_MAX], *save;
	unsigned words;

	if (n <= 0) {
		loop_stop(loop);
		return;
	}
	len += n;
	buf[len] = 0;
	while ((end = strchr(buf, '\n'))) {
		*end = 0;
		words = 0;
		for (char *w = strtok_r(buf, " ", &save); w && words < WORDS_MAX; w = strtok_r(NULL, " ", &save))
			word[words++] = w;
		run(word, words);
		len -= end + 1 - buf;
		memmove(buf, end + 1, len + 1);
	}
}

int main(void)
{
	struct io in;

	loop = loop_new();
	if (!loop)
		return 3;
	io_init(&in, 0, on_stdin);
	io_want(loop, &in, EPOLLIN);
	loop_run(loop);
	list_for_each_safe (l, next, &pods) {
		struct pod *p = list_entry(l, struct pod, link);

		steer_pod_free(p->steered);
		pod_end(p);
	}
	steer_close(steer);
	io_stop(loop, &in);
	loop_free(loop);
	return 0;
}
