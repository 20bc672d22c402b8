/* SPDX-License-Identifier: Apache-2.0 */
/* Readiness (port 15021). What may be pending: the mesh, until istiod has told all of it (a file is loaded before the port
 * opens); the pods, until ZDS has told all of them and each is served, and again whenever that is not so; and revocation
 * lists of which none could be read yet. Thread-safe. */
#pragma once
#include "net/http.h"

struct ready {
	bool pods;
	bool awaits_mesh;
	bool no_lists;
};

void ready_set(struct ready *r, bool pods);
void ready_await_mesh(struct ready *r, bool awaits);
void ready_set_lists(struct ready *r, bool usable); /* usable until said otherwise */
/* For http_listen_tcp(): `arg` is the struct ready. */
void ready_serve(void *arg, const struct http_request *rq, struct http_response *out);
