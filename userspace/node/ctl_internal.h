/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket, as its files share it: ctl.c takes requests apart, ctl_serve.c serves them on the keeper's loop, the
 * others make the answers from what is there. */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "node/ctl.h"

enum { CTL_ARGUMENT_MAX = 1024 };

struct ctl {
	struct ctl_sources from;
	struct http_server *server;
	struct http_server *ports; /* or NULL: anybody may come there, and takes no place from the operator */
	struct list operations;	   /* ctl_serve.c */
	unsigned n_operations;
	uint64_t last_id, started_ms;
	struct msg closed;
	void (*done)(void *arg);
	void *arg;
};

struct ctl_call;
struct ctl_route {
	const char *method, *path;
	void (*serve)(struct ctl_call *c);
	const char *field[2]; /* of the body, both needed: one goes to each argument */
	const char *query;    /* without fields: what goes to the first */
};

struct ctl_call { /* one request on its way through the loop */
	struct ctl *ctl;
	const struct ctl_route *route;
	char argument[2][CTL_ARGUMENT_MAX];
	int status;
	const char *content_type;
	char *text;
};

/* Of a request; else NULL, and in `status` why. Any thread. */
const struct ctl_route *ctl_route_find(const char *method, const char *path, int *status);
json_t *ctl_error_json(const char *why);
void ctl_operations_free(struct ctl *c);

/* A new reference, or NULL without memory. */
json_t *ctl_status_json(const struct ctl_sources *from, uint64_t uptime_s);
json_t *ctl_pods_json(const struct ctl_sources *from);
json_t *ctl_drops_json(const struct ctl_sources *from);
/* What is installed on the node; null where nothing is to be. */
json_t *ctl_install_json(const struct ctl_sources *from);
/* Of the installer, and of the plugin's requests. */
void ctl_install_metrics(FILE *out, const struct ctl_sources *from);
#define CTL_METRICS_TYPE "text/plain; version=0.0.4; charset=utf-8"
struct http_server;
/* Adds the ports for probes and scrapers. `from` must live as long. 0, or -errno and a line in `why`. */
int ctl_ports_listen(struct http_server *s, const struct ctl_sources *from, char why[POD_WHY_MAX]);
/* malloc'ed Prometheus text, or NULL. */
char *ctl_metrics_text(const struct ctl_sources *from);
