/* SPDX-License-Identifier: Apache-2.0 */
/* A byte stream to a server of the control plane: name lookup, TCP, and TLS with standard verification of the server's
 * name (no client certificate, ALPN h2) or none at all. Non-blocking, on one loop.
 *
 * Events come from the loop, never from inside a call. After `down` nothing more comes; the owner still has to free
 * the wire, and may do so only at the end of a turn (loop_defer) when it is inside an event.
 * The process must ignore SIGPIPE. */
#pragma once
#include <stddef.h>
#include <sys/types.h>

#include "loop/loop.h"

enum {
	WIRE_CONNECT_MS = 5000, /* per address: TCP and TLS together */
	WIRE_HOST_MAX = 256,
	WIRE_WHY_MAX = 256,
	WIRE_READ_MAX = 256 * 1024, /* bytes a turn */
};

struct wire_options {
	const char *host;
	uint16_t port;
	bool tls, tls12;      /* tls12: TLS 1.2 as well */
	bool pqc;	      /* X25519MLKEM768 only */
	const char *root;     /* a file, "SYSTEM", or PEM text; read for every connection */
	const char *alt_host; /* one more name that the server may prove; or NULL */
};
struct wire_events {
	void (*up)(void *arg);
	void (*data)(void *arg, const uint8_t *data, size_t len);
	void (*turn)(void *arg); /* bytes were read, or there is room again: time to write */
	void (*down)(void *arg, const char *why);
};

/* Whether there is at least one root by now. */
bool wire_root_usable(const char *root);

struct wire;
/* Options are copied. NULL: no memory. */
struct wire *wire_new(struct loop *l, const struct wire_options *o, const struct wire_events *ev, void *arg);
void wire_free(struct wire *w);
/* Bytes taken, or -EAGAIN (an event `turn` follows) or -errno. */
ssize_t wire_write(struct wire *w, const void *buf, size_t len);
