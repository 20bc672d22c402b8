/* SPDX-License-Identifier: Apache-2.0 */
/* Fuzzes ZDS messages as the tunnel reads them, and its answer to what the keeper might have meant. */
#include <stdlib.h>
#include <string.h>

#include "control/zds_msg.h"

static void check_text(const char *s, size_t cap)
{
	if (!memchr(s, 0, cap))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t len)
{
	struct zds_request r;
	char why[ZDS_WHY_MAX] = "";
	uint8_t ack[ZDS_ACK_BYTES];
	int e = zds_request_decode(&r, p, len, why);

	check_text(why, sizeof why);
	if ((e == 0) == (*why != 0))
		abort();
	if (e == 0) {
		check_text(r.uid, sizeof r.uid);
		check_text(r.name, sizeof r.name);
		check_text(r.ns, sizeof r.ns);
		check_text(r.sa, sizeof r.sa);
		if (r.n_sockets > ZDS_SOCKETS)
			abort();
	}
	if (zds_ack_encode(ack, e ? why : "", r.socket, e ? 0 : r.n_sockets) > sizeof ack)
		abort();
	return 0;
}
