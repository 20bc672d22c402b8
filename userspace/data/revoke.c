/* SPDX-License-Identifier: Apache-2.0 */
/* New lists and the tunnels that exist. Each worker cuts those whose peer is on a list, then ends what they carried: in
 * that order, so that a connection's end says why. A handshake that was verified by the lists before and is done after the
 * worker has looked is asked again when it is done. */
#include "data/revoke.h"

#include <errno.h>

#include "data/accept.h"
#include "data/conn.h"
#include "data/nested.h"
#include "data/plane.h"
#include "data/pool.h"

static struct metric *rejections[2], *unfollowed[2];

void revoke_refused(enum traffic_reporter reporter, const struct tls_handshake *h)
{
	if (tls_verdict(h) >= CRL_REVOKED)
		metric_add(rejections[reporter], 1);
}

bool revoke_follow(enum traffic_reporter reporter, struct tls_handshake *h, struct crl_path **path)
{
	*path = tls_take_path(h);
	if (tls_verdict(h) == CRL_UNFOLLOWED)
		metric_add(unfollowed[reporter], 1);
	return !revoke_due(reporter, *path);
}

bool revoke_due(enum traffic_reporter reporter, struct crl_path *path)
{
	bool due = crl_path_revoked(path);

	if (due)
		metric_add(rejections[reporter], 1);
	return due;
}

static void worker_lists_changed(struct loop *l, struct msg *m)
{
	struct worker *w = container_of(m, struct worker, lists_changed);
	__atomic_store_n(&w->lists_behind, false, __ATOMIC_SEQ_CST); /* first: a change from now on is told anew */
	if (!w->pool)
		return; /* the worker has ended */
	servers_revoke(w);
	pool_revoke(w->pool);
	nested_revoke(w); /* after the tunnels around them */
	conns_kill_revoked(w, REVOKED_TEXT);
}

void data_lists_changed(struct data_plane *d)
{
	for (unsigned i = 0; i < d->o.workers; i++)
		if (!__atomic_exchange_n(&d->worker[i]->lists_behind, true, __ATOMIC_SEQ_CST))
			loop_post(d->worker[i]->loop, &d->worker[i]->lists_changed, worker_lists_changed);
}

int revoke_init(void)
{
	static const char *const labels[] = {"reporter", NULL};
	static const char *const reporters[] = {[REPORT_SOURCE] = "source", [REPORT_DESTINATION] = "destination"};
	struct metric_family *refused =
		metric_family(METRIC_COUNTER, "istio_crl_policy_rejections",
			      "HBONE connections refused or ended by a revocation list (unstable)", labels, NULL);
	struct metric_family *lost =
		metric_family(METRIC_COUNTER, "istio_crl_untracked_connections",
			      "HBONE connections that a new revocation list cannot end (unstable)", labels, NULL);

	for (unsigned i = 0; i < 2; i++) {
		rejections[i] = metric_get(refused, &reporters[i]);
		unfollowed[i] = metric_get(lost, &reporters[i]);
		if (!rejections[i] || !unfollowed[i])
			return -ENOMEM;
	}
	return 0;
}
