/* SPDX-License-Identifier: Apache-2.0 */
/* Lines of the CNI plugin's log, which runtimes drop: it hands them to log.sock, as istio-cni's does. */
#pragma once
#include <stddef.h>

#define CNI_LOG_SOCKET "log.sock" /* in the folder of the CNI socket */
#define CNI_LOG_PATH   "/log"

enum { CNI_LOG_LINES_MAX = 64 }; /* of a request; more are dropped */

/* `body`: a JSON array of texts, each a JSON object with "msg", "level" and "time". Those that are not are dropped.
 * Returns how many were logged. */
unsigned cni_log_take(const char *body, size_t len);
