/* SPDX-License-Identifier: Apache-2.0 */
/* Tunnels whose peer's certificate, or one above it, is on a revocation list: refused, or ended when a new list says so.
 * Private to data/, but for revoke_init(). */
#pragma once
#include "data/traffic.h"
#include "net/tls.h"

#define REVOKED_TEXT "connection closed: peer certificate revoked by CRL"

/* Registers the families; once, before threads start. 0 or -ENOMEM. */
int revoke_init(void);
/* A handshake has failed: counted, if that was because of a list. */
void revoke_refused(enum traffic_reporter reporter, const struct tls_handshake *h);
/* A handshake is done: `*path` is what to keep. False: other lists came meanwhile, and it is revoked; counted. The tunnel
 * must be in its worker's reach before the turn ends: who asks later asks there. */
bool revoke_follow(enum traffic_reporter reporter, struct tls_handshake *h, struct crl_path **path);
/* Whether a tunnel that exists must end now; counted. */
bool revoke_due(enum traffic_reporter reporter, struct crl_path *path);
