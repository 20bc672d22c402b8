// SPDX-License-Identifier: Apache-2.0
/* Values that several kinds of resources have. */
#include "control/xds_parts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int xds_fail(struct xds_part *p, const char *fmt, ...)
{
	va_list ap;

	if (p->error)
		return p->error;
	p->error = -EINVAL;
	va_start(ap, fmt);
	vsnprintf(p->why, sizeof p->why, fmt, ap);
	va_end(ap);
	for (char *c = p->why; *c; c++) /* it goes into a log line, and back to istiod, who wants UTF-8 */
		if (*c < ' ' || *c > '~')
			*c = '?';
	return p->error;
}

int xds_no_memory(struct xds_part *p)
{
	if (!p->error) {
		p->error = -ENOMEM;
		snprintf(p->why, sizeof p->why, "out of memory");
	}
	return p->error;
}

/* --- texts and lists ------------------------------------------------------------------------------------ */

static const char *checked(struct xds_part *p, const char *s)
{
	if (!s)
		xds_no_memory(p);
	return s ? s : "";
}

const char *xds_text(struct xds_part *p, const char *s)
{
	return p->error ? "" : checked(p, arena_str(p->arena, s, strlen(s)));
}

const char *xds_own(struct xds_part *p, const char *s)
{
	return p->error ? "" : checked(p, arena_copy(p->arena, s, strlen(s)));
}

void *xds_array(struct xds_part *p, size_t count, size_t size, unsigned *n)
{
	void *all = NULL;

	*n = 0;
	if (p->error || !count)
		return NULL;
	all = arena_alloc(p->arena, count, size);
	if (all)
		*n = (unsigned)count;
	else
		xds_no_memory(p);
	return all;
}

const char **xds_texts(struct xds_part *p, char *const *v, size_t count, unsigned *n)
{
	const char **all = xds_array(p, count, sizeof *all, n);

	for (unsigned i = 0; i < *n; i++)
		all[i] = xds_text(p, v[i]);
	return all;
}

void xds_split(struct xds_part *p, const char *text, const char **ns, const char **hostname)
{
	const char *slash = strchr(text, '/');

	*ns = *hostname = "";
	if (!slash || !slash[1] || strchr(slash + 1, '/')) {
		xds_fail(p, "\"%.64s\" is not NAMESPACE/HOSTNAME", text);
		return;
	}
	if (p->error)
		return;
	*ns = checked(p, arena_str(p->arena, text, (size_t)(slash - text)));
	*hostname = xds_text(p, slash + 1);
}

/* --- addresses and ports -------------------------------------------------------------------------------- */

uint16_t xds_port(struct xds_part *p, const char *what, uint32_t port)
{
	if (port > UINT16_MAX)
		xds_fail(p, "%s: %u is not a port", what, port);
	return (uint16_t)port;
}

struct addr xds_addr(struct xds_part *p, const char *what, const ProtobufCBinaryData *bytes)
{
	struct addr a = {0};

	if (addr_from_bytes(&a, bytes->data, bytes->len) < 0)
		xds_fail(p, "%s: an address of %zu bytes, 4 or 16 are due", what, bytes->len);
	return a;
}

void xds_gateway(struct xds_part *p, const char *what, const Istio__Workload__GatewayAddress *m, struct gateway *out)
{
	if (!m || p->error)
		return;
	out->hbone_port = xds_port(p, what, m->hbone_mtls_port);
	if (m->destination_case == ISTIO__WORKLOAD__GATEWAY_ADDRESS__DESTINATION_ADDRESS) {
		out->kind = GATEWAY_ADDR;
		out->addr.network = xds_text(p, m->address->network);
		out->addr.ip = xds_addr(p, what, &m->address->address);
	} else if (m->destination_case == ISTIO__WORKLOAD__GATEWAY_ADDRESS__DESTINATION_HOSTNAME) {
		out->kind = GATEWAY_HOST;
		out->ns = xds_text(p, m->hostname->namespace_);
		out->hostname = xds_text(p, m->hostname->hostname);
	} else {
		xds_fail(p, "%s: neither an address nor a host name", what);
	}
}

struct port_map *xds_ports(struct xds_part *p, Istio__Workload__Port *const *v, size_t count, unsigned *n)
{
	struct port_map *all = xds_array(p, count, sizeof *all, n);

	for (unsigned i = 0; i < *n; i++) {
		all[i].service_port = xds_port(p, "service port", v[i]->service_port);
		all[i].target_port = xds_port(p, "target port", v[i]->target_port);
	}
	return all;
}
