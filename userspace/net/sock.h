/* SPDX-License-Identifier: Apache-2.0 */
/* Sockets as the data plane needs them: listeners, accepted, dialled (with or without the client's address),
 * original destinations. All are non-blocking and close-on-exec. Functions return a descriptor or -errno. */
#pragma once
#include "base/addr.h"

enum {
	SOCK_BACKLOG = 4096,
	SOCK_SPOOF_PORT_MIN = 10240, /* source ports for dialling with a client's address: below what clients use */
	SOCK_SPOOF_PORT_MAX = 32767,
	SOCK_SPOOF_TRIES = 16,
};

struct sock_keepalive { /* seconds; `time` 0 leaves keepalive off */
	unsigned time, interval, retries;
	unsigned user_timeout_ms; /* 0: kernel default */
};

/* A TCP listener on every address ([::] and IPv4), or IPv4 only when IPv6 is not there. Bound, transparent when
 * `transparent` (IP_TRANSPARENT), marked with `mark` (0: none), never SO_REUSEPORT unless `reuseport`. */
struct sock_listen {
	struct endpoint at; /* addr_any6 with fallback to addr_any4, or one address */
	uint32_t mark;
	bool transparent, reuseport;
};
int sock_listen_tcp(const struct sock_listen *how);
int sock_bind_tcp(const struct sock_listen *how); /* without listening yet */
int sock_bind_udp(const struct sock_listen *how);

/* accept4(2); -EAGAIN when there is none. Options are the listener's: see sock_listener_tune(). */
int sock_accept(int listener, struct endpoint *peer);
/* TCP_NODELAY, and keepalive where `k` is given: what is accepted from now on inherits them. */
int sock_listener_tune(int listener, const struct sock_keepalive *k);

struct sock_dial {
	struct endpoint to;
	const struct endpoint *spoof; /* NULL: the kernel's choice; else the source address, port chosen here */
	uint32_t mark;
};
/* Starts a connect in the calling thread's network namespace. -EINPROGRESS is success and not returned.
 * With `spoof` the source port comes from SOCK_SPOOF_PORT_MIN..MAX and never collides with a port for which
 * `port_taken(arg, port)` holds; -EADDRNOTAVAIL after SOCK_SPOOF_TRIES. There is no fallback to another source. */
int sock_dial_tcp(const struct sock_dial *how, bool (*port_taken)(void *arg, uint16_t port), void *arg);
/* How a connect to `to` stands: 0, -EINPROGRESS, or what it failed with. Within a machine the handshake is over before
 * connect(2) has returned, so asking once is cheaper than waiting for an event. */
int sock_connect_poll(int fd, const struct endpoint *to);
/* 0, or -errno of a finished connect. */
int sock_connect_result(int fd);

/* Bytes that wait to be read, also behind an error; 0 when it cannot be told. */
uint32_t sock_unread(int fd);
/* The descriptor is readable from so many bytes on (or at an end or error, or when the kernel has no room for more). 0 or
 * -errno. */
int sock_wake_at(int fd, uint32_t bytes);
/* Bytes that were sent and that the peer's kernel has not acknowledged; the same. */
uint32_t sock_unacked(int fd);

/* What the client dialled: SO_ORIGINAL_DST of either family (iptables), else the local address (BPF, TPROXY). */
int sock_original_dst(int fd, bool nat, struct endpoint *out);
int sock_local(int fd, struct endpoint *out);
/* Whether the calling thread's network namespace has this address. */
bool sock_is_own(const struct addr *ip);

int sock_keepalive(int fd, const struct sock_keepalive *k);
/* Makes the next close(2) send a RST. */
void sock_reset_on_close(int fd);
