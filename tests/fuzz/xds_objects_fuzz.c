/* SPDX-License-Identifier: Apache-2.0 */
/* Single resources of istiod, without a store, which is what takes time: bytes become an object or one line that says why
 * not; a policy becomes an object in any case. The fields of a message lie inside it. The first byte says what it is. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control/xds_fields.h"
#include "control/xds_parts.h"
#include "control/xds_scratch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void check_why(int e, const char *why)
{
	require(!e == !why[0] && strlen(why) < XDS_REASON_MAX);
	for (; *why; why++)
		require(*why >= ' ' && *why <= '~');
}

static void fields(const uint8_t *data, size_t size)
{
	struct xds_fields f = xds_fields(data, size);

	while (xds_field_next(&f))
		require(f.number && (!f.bytes || (f.bytes >= data && f.bytes + f.len <= data + size)));
	require(f.bad || f.at == f.end);
}

static void address(struct xds_scratch *s, const uint8_t *data, size_t size)
{
	Istio__Workload__Address *m = istio__workload__address__unpack(&s->allocator, size, data);
	char why[XDS_REASON_MAX] = "";
	struct workload *w;
	struct service *v;
	int e;

	if (m && m->type_case == ISTIO__WORKLOAD__ADDRESS__TYPE_WORKLOAD) {
		e = xds_workload(m->workload, &w, why);
		check_why(e, why);
		if (!e) {
			require(*w->uid && *w->trust_domain && *w->service_account && w->workload_type[0]);
			workload_unref(w);
		}
	} else if (m && m->type_case == ISTIO__WORKLOAD__ADDRESS__TYPE_SERVICE) {
		e = xds_service(m->service, &v, why);
		check_why(e, why);
		if (!e) {
			require(*v->hostname && v->n_lb_scopes <= LB_SCOPES_MAX);
			service_unref(v);
		}
	}
}

static void policy(struct xds_scratch *s, const uint8_t *data, size_t size)
{
	Istio__Security__Authorization *m = istio__security__authorization__unpack(&s->allocator, size, data);
	char why[XDS_REASON_MAX] = "";
	struct policy *p = NULL;
	int e;

	if (!m)
		return;
	e = xds_policy(m, &p, why);
	check_why(e, why);
	require(p && p->unparseable == (e == -EINVAL) && (!e || !p->n_rules));
	policy_unref(p);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct xds_scratch s;

	if (!size)
		return 0;
	if (!s.max)
		xds_scratch_init(&s, 16 << 20);
	xds_scratch_reset(&s);
	fields(data + 1, size - 1);
	if (data[0] & 1)
		policy(&s, data + 1, size - 1);
	else
		address(&s, data + 1, size - 1);
	return 0;
}
