/* SPDX-License-Identifier: Apache-2.0 */
/* The inbound side's decision, shared by CONNECT streams and connections within the node. Private to data/. */
#pragma once
#include "data/conn.h"

/* Finds the application that `in->authority` (or `host`) means, for the pod of `in` at its address `pod_ip`: fills in
 * `original`, and `destination` and `service` where they are not known. 200, or the status of a refusal with a line in
 * `why`. */
struct inbound_target {
	bool proxy_header;	    /* the application wants one, */
	struct endpoint advertised; /* with this destination in it */
};
int inbound_target(struct conn *in, struct worker *w, struct addr pod_ip, const char *host, struct inbound_target *out,
		   char *why, size_t len);
