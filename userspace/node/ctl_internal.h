/* SPDX-License-Identifier: Apache-2.0 */
/* Answers of the control socket, made on the keeper's loop from what is there. */
#pragma once
#include <jansson.h>
#include <stdio.h>

#include "node/ctl.h"

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
