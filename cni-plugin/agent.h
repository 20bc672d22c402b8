/* SPDX-License-Identifier: Apache-2.0 */
/* The keeper, or Istio's node agent, over its socket (headers/cni_abi.h). */
#pragma once
#include <jansson.h>

#include "conf.h"
#include "env.h"

enum { AGENT_ANSWER_MAX = 65536, AGENT_TEXT_MAX = 1024 };

struct agent_answer {
	int status;		   /* of HTTP */
	char text[AGENT_TEXT_MAX]; /* one line, for people */
};

/* 0, or -errno with one line in `out->text`: nobody answered before `deadline`, or somebody who is not root listens. */
int agent_call(const char *socket, const char *path, const char *body, uint64_t deadline, struct agent_answer *out);

/* Bodies of requests; malloc'ed, NULL without memory. `ips` is taken over; NULL but for ADD. */
char *agent_pod_body(const struct conf *c, const struct env *e, json_t *ips);
/* What follows the status line and the headers: reads an answer as it came. -EPROTO. */
int agent_parse(const char *data, size_t len, struct agent_answer *out);
