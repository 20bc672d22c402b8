/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the one place where HBONE connections, of clients and servers alike, change from OpenSSL to records. */
#include "data/offload.h"

#include <errno.h>

#include "base/metrics.h"
#include "net/ktls.h"

static struct metric_family *connections;

int offload_init(void)
{
	static const char *const labels[] = {"direction", "result", "reason", NULL};

	connections = metric_family(METRIC_COUNTER, "culvert_ktls_connections",
				    "HBONE connections by who carries their records, and why not the kernel (unstable)",
				    labels, NULL);
	return connections ? 0 : -ENOMEM;
}

/* Label sets are few: each family member stays once it was there. */
static void count(const char *direction, bool kernel, const char *why)
{
	struct metric *m = metric_get(
		connections, (const char *const[]){direction, kernel ? "kernel" : "user", kernel ? NULL : why});

	metric_add(m, 1);
	metric_put(m);
}

struct record *offload_finish(struct worker *w, struct tls_handshake *h)
{
	struct record *r = tls_handshake_finish(h, w->records);
	struct record_offload o;

	if (!r)
		return NULL;
	if (w->o->ktls)
		record_offload(r, w->o->ktls);
	record_offload_of(r, &o);
	count("tx", o.tx, o.tx_why);
	count("rx", o.rx, o.rx_why);
	return r;
}
