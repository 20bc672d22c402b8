/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that show what happens to connections. Private to admin/. */
#pragma once
#include "admin/admin.h"

/* GET /failures: {"failures": [...], "kept": number, "seen": number}, oldest first. */
void failures_serve(struct admin *a, const struct http_request *rq, struct http_response *out);
