/* SPDX-License-Identifier: Apache-2.0 */
/* Brings revocation lists from their file to those who must know of them: connections, our own certificates, and the
 * readiness probe. */
#include "tunnel.h"

static void lists_changed(void *arg)
{
	struct tunnel *t = arg;

	ready_set_lists(&t->ready, crl_file_usable(t->crl_file));
	data_lists_changed(t->data);
	certs_lists_changed(t->certs);
}

/* Before the loop runs; handshakes look at the lists from the first one on. */
int crl_up(struct tunnel *t, char *why)
{
	if (!t->lists)
		return 0;
	t->crl_file = crl_file_new(t->loop, t->lists, t->c.crl_path, lists_changed, t);
	if (!t->crl_file)
		return tunnel_says(why, "out of memory");
	ready_set_lists(&t->ready, crl_file_usable(t->crl_file));
	return 0;
}

void crl_down(struct tunnel *t)
{
	crl_file_free(t->crl_file);
}
