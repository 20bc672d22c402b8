/* SPDX-License-Identifier: Apache-2.0 */
/* The admin interface (port 15000, and a socket for culvertctl): /config_dump, /logging,
 * /quitquitquit, /generation. Handlers run on the HTTP server's thread. */
#pragma once
#include "control/certs.h"
#include "control/crl_file.h"
#include "control/xds.h"
#include "data/data.h"
#include "net/http.h"
#include "state/store.h"

struct admin {
	struct loop *control;
	struct store *store;
	struct xds *xds; /* or NULL: not shown */
	struct certs *certs;
	struct crl_file *crl; /* or NULL: no revocation lists are in use */
	struct data_plane *data;
	const char *config;	   /* JSON */
	const char *local_path;	   /* of the mesh file; "" if none */
	struct local_watch *local; /* who follows it, or NULL */
	const char *log_default;   /* filter that ?reset goes back to */
	const char *istio_version; /* for /config_dump */
	enum ktls_mode ktls_mode;
	const struct ktls_features *ktls; /* or NULL: not shown */
	const bool *draining;		  /* atomic */
	void (*quit)(void *arg);	  /* any thread; must not wait */
	void *arg;
};

/* For http_listen_tcp() and http_listen_unix(): `arg` is the struct admin. */
void admin_serve(void *arg, const struct http_request *rq, struct http_response *out);
