// SPDX-License-Identifier: Apache-2.0
/* Sockets. The one file above which IPv4 and IPv6 look alike: addresses choose the family, options are set on both
 * levels where both have them. */
#include "net/sock.h"

#include <errno.h>
#include <linux/netfilter_ipv4.h>
#include <linux/sockios.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef IP6T_SO_ORIGINAL_DST
#define IP6T_SO_ORIGINAL_DST 80
#endif

enum { FLAGS = SOCK_NONBLOCK | SOCK_CLOEXEC };

static int on(int fd, int level, int name, int value)
{
	return setsockopt(fd, level, name, &value, sizeof value) < 0 ? -errno : 0;
}

static int fail(int fd, int e)
{
	close(fd);
	return e;
}

/* --- listening ------------------------------------------------------------------------------------------ */

/* IP_TRANSPARENT is one flag of the socket: setting it on the IPv4 level covers a dual-stack one. The ancillary data
 * that tell a datagram's destination are per family. */
static int prepare(int fd, const struct sock_listen *how, int family, int type)
{
	int e = 0;

	if (how->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &how->mark, sizeof how->mark) < 0)
		return -errno;
	if (how->reuseport)
		on(fd, SOL_SOCKET, SO_REUSEPORT, 1);
	if (type == SOCK_STREAM) /* else what is in TIME_WAIT keeps a later socket off that does not reuse ports */
		on(fd, SOL_SOCKET, SO_REUSEADDR, 1);
	if (family == AF_INET6)
		e = on(fd, SOL_IPV6, IPV6_V6ONLY, addr_eq(&how->at.ip, &addr_any6) ? 0 : 1);
	if (!e && how->transparent)
		e = on(fd, SOL_IP, IP_TRANSPARENT, 1);
	if (e || type == SOCK_STREAM)
		return e;
	on(fd, SOL_IP, IP_PKTINFO, 1);
	on(fd, SOL_IP, IP_RECVORIGDSTADDR, 1);
	if (family == AF_INET6) {
		on(fd, SOL_IPV6, IPV6_RECVPKTINFO, 1);
		on(fd, SOL_IPV6, IPV6_RECVORIGDSTADDR, 1);
	}
	return 0;
}

static int open_bound(const struct sock_listen *how, int type)
{
	struct sockaddr_storage ss;
	struct endpoint at = how->at;
	socklen_t len = endpoint_to_sockaddr(&at, &ss);
	int fd = socket(ss.ss_family, type | FLAGS, 0), e;

	/* IPv6 may be compiled out or switched off in this namespace. */
	if (fd < 0 && errno == EAFNOSUPPORT && addr_eq(&at.ip, &addr_any6)) {
		at.ip = addr_any4;
		len = endpoint_to_sockaddr(&at, &ss);
		fd = socket(ss.ss_family, type | FLAGS, 0);
	}
	if (fd < 0)
		return -errno;
	e = prepare(fd, how, ss.ss_family, type);
	if (!e && bind(fd, (struct sockaddr *)&ss, len) < 0)
		e = -errno;
	if (e == -EADDRNOTAVAIL && addr_eq(&at.ip, &addr_any6)) {
		struct sock_listen four = *how;

		close(fd);
		four.at.ip = addr_any4;
		return open_bound(&four, type);
	}
	return e ? fail(fd, e) : fd;
}

int sock_listen_tcp(const struct sock_listen *how)
{
	int fd = open_bound(how, SOCK_STREAM);

	if (fd >= 0 && listen(fd, SOCK_BACKLOG) < 0)
		return fail(fd, -errno);
	return fd;
}

int sock_bind_tcp(const struct sock_listen *how)
{
	return open_bound(how, SOCK_STREAM);
}

int sock_bind_udp(const struct sock_listen *how)
{
	return open_bound(how, SOCK_DGRAM);
}

int sock_accept(int listener, struct endpoint *peer)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;
	int fd = accept4(listener, (struct sockaddr *)&ss, &len, FLAGS), e;

	if (fd < 0)
		return errno == EWOULDBLOCK ? -EAGAIN : -errno;
	e = endpoint_from_sockaddr(peer, &ss);
	return e < 0 ? fail(fd, e) : fd;
}

int sock_listener_tune(int listener, const struct sock_keepalive *k)
{
	int e = on(listener, IPPROTO_TCP, TCP_NODELAY, 1);

	return e || !k ? e : sock_keepalive(listener, k);
}

/* --- dialling ------------------------------------------------------------------------------------------- */

static uint16_t random_port(void)
{
	static __thread uint32_t state;

	if (!state && getrandom(&state, sizeof state, GRND_NONBLOCK) != sizeof state)
		state = (uint32_t)(uintptr_t)&state;
	state = state * 1664525u + 1013904223u;
	return (uint16_t)(SOCK_SPOOF_PORT_MIN + (state >> 8) % (SOCK_SPOOF_PORT_MAX - SOCK_SPOOF_PORT_MIN + 1));
}

static int make_spoofable(int fd, int family)
{
	int e = family == AF_INET6 ? on(fd, SOL_IPV6, IPV6_TRANSPARENT, 1) : on(fd, SOL_IP, IP_TRANSPARENT, 1);

	/* SO_REUSEADDR: two connections to different targets may share a port. */
	return e ? e : on(fd, SOL_SOCKET, SO_REUSEADDR, 1);
}

static int connect_from(int fd, const struct sock_dial *how, uint16_t port)
{
	struct sockaddr_storage ss;
	struct endpoint from = {how->spoof ? how->spoof->ip : addr_any6, port};
	socklen_t len;

	if (how->spoof) {
		len = endpoint_to_sockaddr(&from, &ss);
		if (bind(fd, (struct sockaddr *)&ss, len) < 0)
			return -errno;
	}
	len = endpoint_to_sockaddr(&how->to, &ss);
	return connect(fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS ? -errno : 0;
}

static int dial_once(const struct sock_dial *how, uint16_t port)
{
	struct sockaddr_storage ss;
	int fd, e;

	endpoint_to_sockaddr(&how->to, &ss);
	fd = socket(ss.ss_family, SOCK_STREAM | FLAGS, 0);
	if (fd < 0)
		return -errno;
	on(fd, IPPROTO_TCP, TCP_NODELAY, 1);
	if (how->mark && setsockopt(fd, SOL_SOCKET, SO_MARK, &how->mark, sizeof how->mark) < 0)
		return fail(fd, -errno);
	e = how->spoof ? make_spoofable(fd, ss.ss_family) : 0;
	if (!e)
		e = connect_from(fd, how, port);
	return e ? fail(fd, e) : fd;
}

int sock_dial_tcp(const struct sock_dial *how, bool (*port_taken)(void *arg, uint16_t port), void *arg)
{
	if (!how->spoof)
		return dial_once(how, 0);
	for (int i = 0; i < SOCK_SPOOF_TRIES; i++) {
		uint16_t port = random_port();
		int fd;

		if (port_taken && port_taken(arg, port))
			continue;
		fd = dial_once(how, port);
		if (fd != -EADDRINUSE && fd != -EADDRNOTAVAIL)
			return fd;
	}
	return -EADDRNOTAVAIL;
}

int sock_connect_poll(int fd, const struct endpoint *to)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(to, &ss);

	if (connect(fd, (struct sockaddr *)&ss, len) == 0 || errno == EISCONN)
		return 0;
	return errno == EALREADY ? -EINPROGRESS : -errno;
}

int sock_connect_result(int fd)
{
	int e = 0;
	socklen_t len = sizeof e;

	return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 ? -errno : -e;
}

/* --- what is under way ---------------------------------------------------------------------------------- */

static uint32_t queued(int fd, unsigned long queue)
{
	int n = 0;

	return ioctl(fd, queue, &n) < 0 || n < 0 ? 0 : (uint32_t)n;
}

uint32_t sock_unread(int fd)
{
	return queued(fd, SIOCINQ);
}

int sock_wake_at(int fd, uint32_t bytes)
{
	int n = (int)bytes;

	return setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &n, sizeof n) < 0 ? -errno : 0;
}

uint32_t sock_unacked(int fd)
{
	return queued(fd, SIOCOUTQ);
}

/* --- addresses and options ------------------------------------------------------------------------------ */

int sock_local(int fd, struct endpoint *out)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;

	return getsockname(fd, (struct sockaddr *)&ss, &len) < 0 ? -errno : endpoint_from_sockaddr(out, &ss);
}

bool sock_is_own(const struct addr *ip)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(&(struct endpoint){.ip = *ip}, &ss);
	int fd = socket(ss.ss_family, SOCK_DGRAM | FLAGS, 0);
	bool own = fd >= 0 && bind(fd, (struct sockaddr *)&ss, len) == 0;

	if (fd >= 0)
		close(fd);
	return own;
}

int sock_original_dst(int fd, bool nat, struct endpoint *out)
{
	struct sockaddr_storage ss;
	socklen_t len = sizeof ss;

	if (!nat)
		return sock_local(fd, out);
	memset(&ss, 0, sizeof ss);
	if (getsockopt(fd, SOL_IP, SO_ORIGINAL_DST, &ss, &len) == 0)
		return endpoint_from_sockaddr(out, &ss);
	len = sizeof ss;
	if (getsockopt(fd, SOL_IPV6, IP6T_SO_ORIGINAL_DST, &ss, &len) == 0)
		return endpoint_from_sockaddr(out, &ss);
	return -errno;
}

int sock_keepalive(int fd, const struct sock_keepalive *k)
{
	int e = 0;

	if (k->time) {
		e = on(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
		e = e ? e : on(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)k->time);
		e = e ? e : on(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)k->interval);
		e = e ? e : on(fd, IPPROTO_TCP, TCP_KEEPCNT, (int)k->retries);
	}
	if (!e && k->user_timeout_ms)
		e = on(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, (int)k->user_timeout_ms);
	return e;
}

void sock_reset_on_close(int fd)
{
	struct linger l = {.l_onoff = 1, .l_linger = 0};

	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
}
