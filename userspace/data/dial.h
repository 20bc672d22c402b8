/* SPDX-License-Identifier: Apache-2.0 */
/* A TCP connect from inside a pod's namespace, with its deadline (DATA_CONNECT_MS). Private to data/. */
#pragma once
#include "data/pod.h"

struct dial {
	struct io io;
	struct timer timer;
	struct task at_once; /* the connect was over when it began: within the machine */
	int result;
	struct worker *w;
	/* `fd` is the callee's, or `err` (< 0) says why there is none. Called once, never from dial_start(). */
	void (*done)(struct dial *d, int fd, int err);
};

/* To another machine. 0: `done` will be called. -errno: it will not. */
int dial_start(struct dial *d, struct worker *w, struct pod *p, const struct endpoint *to,
	       void (*done)(struct dial *d, int fd, int err));
/* Closes a connect that is under way. Takes one that never began or is over. */
void dial_cancel(struct dial *d);

/* The application of the pod, seen from where the client is: spoofed unless configuration says no. */
int dial_application(struct dial *d, struct worker *w, struct pod *p, const struct endpoint *to,
		     const struct endpoint *client, void (*done)(struct dial *d, int fd, int err));
/* A live inbound connection's client port: dial_application() keeps clear of it. False: nothing to release. */
bool dial_port_hold(struct pod *p, uint16_t port);
void dial_port_release(struct pod *p, uint16_t port);
