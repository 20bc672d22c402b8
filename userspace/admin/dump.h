/* SPDX-License-Identifier: Apache-2.0 */
/* /config_dump: the parts and the whole. Private to admin/. */
#pragma once
#include "admin/admin.h"
#include "admin/json.h"
#include "data/dump.h"

/* Not `whole`: of the mesh, which may have 50 MB, only how many objects there are. */
void config_dump(struct admin *a, bool whole, struct http_response *out);

/* Each writes one value. Those of a store: inside a read section's thread (store_thread_register()). */
void dump_workloads(struct json *j, struct store *s);
void dump_services(struct json *j, struct store *s);
void dump_staged(struct json *j, struct store *s); /* endpoints of services that are not known */
void dump_policies(struct json *j, struct store *s);
void dump_lists(struct json *j, struct crl_file *f); /* dump_live.c */
/* dump_live.c; `d` gets sorted. */
void dump_pods(struct json *j, struct tunnel_dump *d, struct store *s);
/* Waits for the control thread. False: it did not answer in time. */
bool dump_certificates(struct json *j, struct loop *control, struct certs *c);
