/* SPDX-License-Identifier: Apache-2.0 */
/* The Prometheus endpoint (port 15020), and the metrics of the process itself. */
#pragma once
#include "net/http.h"

/* Registers the metrics of the process and of the build; once, before other families. 0 or -ENOMEM. */
int stats_init(const char *istio_version);
/* For http_listen_tcp(). */
void stats_serve(void *arg, const struct http_request *rq, struct http_response *out);
