/* SPDX-License-Identifier: Apache-2.0 */
/* What pages of the admin interface look at: a control thread, an embedded CA, a mesh from YAML, and a data plane without
 * pods. */
#pragma once
#include <pthread.h>
#include <string.h>

#include "admin/admin.h"
#include "control/ca_embedded.h"
#include "control/local.h"

struct bed {
	struct loop *loop;
	pthread_t thread;
	struct ca *ca;
	struct msg end;
	struct admin admin;
};

static inline void turn(void *arg, bool about_to_sleep)
{
	if (about_to_sleep)
		store_thread_offline();
	else
		store_thread_online();
}

static inline void *control(void *arg)
{
	struct bed *b = arg;

	store_thread_register();
	loop_on_turn(b->loop, turn, b);
	loop_run(b->loop);
	store_thread_online();
	store_thread_unregister();
	return NULL;
}

static inline void bed_open(struct bed *b, const char *mesh)
{
	struct ca_embedded_options o = {.ttl_s = 3600};
	struct data_options data = {.workers = 2, .network = "", .cluster_id = "", .pool_streams = 100};
	char why[LOCAL_REASON_MAX];

	memset(b, 0, sizeof *b);
	b->loop = loop_new();
	b->ca = ca_embedded_new(b->loop, &o, why);
	assert_non_null(b->ca);
	b->admin = (struct admin){.control = b->loop,
				  .store = store_new(""),
				  .config = "{\n  \"a\": 1\n}",
				  .local_path = "/mesh.yaml",
				  .istio_version = "1.99"};
	b->admin.certs = certs_new(b->loop, &(struct certs_options){.ca = b->ca});
	if (local_load_text(b->admin.store, "t", mesh, strlen(mesh), why))
		fail_msg("%s", why);
	data.store = b->admin.store;
	data.certs = b->admin.certs;
	b->admin.data = data_new(b->loop, &data, why);
	assert_non_null(b->admin.data);
	assert_int_equal(data_start(b->admin.data), 0);
	assert_int_equal(pthread_create(&b->thread, NULL, control, b), 0);
}

static inline void bed_close(struct bed *b)
{
	loop_stop(b->loop);
	pthread_join(b->thread, NULL);
	data_free(b->admin.data);
	certs_free(b->admin.certs);
	ca_free(b->ca);
	store_free(b->admin.store);
	loop_free(b->loop);
}
