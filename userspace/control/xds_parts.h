/* SPDX-License-Identifier: Apache-2.0 */
/* From istiod's messages to the mesh's objects: what the conversions of workloads, services and policies have in common.
 * Whatever is wrong with a resource is one line, and the resource as a whole is refused. Private to control/xds*.c. */
#pragma once
#include "proto/authorization.pb-c.h"
#include "proto/workload.pb-c.h"
#include "state/arena.h"
#include "state/store.h"

/* Of one workload or service: with more it is refused. Each is compared with the others, here or in the store. */
enum { XDS_ADDRESSES_MAX = 1024, XDS_SERVICES_MAX = 1024 };

enum { XDS_REASON_MAX = 192 };

/* One object under construction. The first error counts: then every function does nothing. */
struct xds_part {
	struct arena *arena;
	int error;		  /* 0, -EINVAL or -ENOMEM */
	char why[XDS_REASON_MAX]; /* printable ASCII */
};
int xds_fail(struct xds_part *p, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int xds_no_memory(struct xds_part *p);

/* Shared with other objects, or hardly (mesh.h). "" after an error. */
const char *xds_text(struct xds_part *p, const char *s);
const char *xds_own(struct xds_part *p, const char *s);
/* Zeroed, NULL for none. After an error `*n` is 0. */
void *xds_array(struct xds_part *p, size_t count, size_t size, unsigned *n);
const char **xds_texts(struct xds_part *p, char *const *v, size_t count, unsigned *n);

uint16_t xds_port(struct xds_part *p, const char *what, uint32_t port);
struct addr xds_addr(struct xds_part *p, const char *what, const ProtobufCBinaryData *bytes);
/* NULL: there is none, and `out` stays as it is. */
void xds_gateway(struct xds_part *p, const char *what, const Istio__Workload__GatewayAddress *m, struct gateway *out);
struct port_map *xds_ports(struct xds_part *p, Istio__Workload__Port *const *v, size_t count, unsigned *n);
/* "NAMESPACE/HOSTNAME" */
void xds_split(struct xds_part *p, const char *text, const char **ns, const char **hostname);

/* The whole. 0 with an object for the caller, or -errno with one line in `why`. */
int xds_workload(const Istio__Workload__Workload *m, struct workload **out, char why[XDS_REASON_MAX]);
int xds_service(const Istio__Workload__Service *m, struct service **out, char why[XDS_REASON_MAX]);
/* -EINVAL comes with an object as well, which fails closed (mesh.h: `unparseable`). */
int xds_policy(const Istio__Security__Authorization *m, struct policy **out, char why[XDS_REASON_MAX]);
/* For a policy of which nothing is known but its name, and perhaps its scope: nobody passes there. 0, or -EINVAL when the name is not
 * NAMESPACE/NAME, or -ENOMEM. */
int xds_policy_closed(const char *name, enum policy_scope scope, struct policy **out);
