/* SPDX-License-Identifier: Apache-2.0 */
/* The question of a tap. What is taken is text that ends within its place, and is taken again from a question made of it. */
#include <jansson.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "admin/tap_line.h"
#include "tap_abi.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char text[TAP_REQUEST_MAX];
	struct tap_question q, again;
	json_t *o;
	char *made;

	size = size < sizeof text - 1 ? size : sizeof text - 1;
	memcpy(text, data, size);
	text[size] = '\0';
	if (tap_question(text, &q))
		return 0;
	if (strlen(q.pod) >= sizeof q.pod || strlen(q.peer) >= sizeof q.peer)
		abort();
	o = json_pack("{ss ss}", "pod", q.pod, "peer", q.peer);
	made = json_dumps(o, JSON_COMPACT);
	if (!made || tap_question(made, &again) || strcmp(q.pod, again.pod) || strcmp(q.peer, again.peer))
		abort();
	free(made);
	json_decref(o);
	return 0;
}
