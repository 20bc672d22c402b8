/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what only some pods have: the attachment of those that came by CNI, and the overlay that annotations ask for, as
 * a record holds them and as steering takes them. What says nothing is not written. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "node/pods_internal.h"

void pod_overlay_apply(struct steer_config *c, const struct pod_overlay *o)
{
	if (o->dns_capture != POD_AS_NODE)
		c->dns_capture = o->dns_capture == POD_YES;
	c->bypass_inbound = c->bypass_inbound || o->bypass_inbound;
	memcpy(c->virtual_ifaces, o->virtual_ifaces, sizeof c->virtual_ifaces);
	memcpy(c->exclude_outbound, o->exclude_outbound, sizeof c->exclude_outbound);
	c->n_exclude_outbound = o->n_exclude_outbound;
	memcpy(c->exclude_outbound_ports, o->exclude_outbound_ports, sizeof c->exclude_outbound_ports);
	memcpy(c->exclude_inbound_ports, o->exclude_inbound_ports, sizeof c->exclude_inbound_ports);
	memcpy(c->probe_ports, o->probe_ports, sizeof c->probe_ports);
}

/* --- writing -------------------------------------------------------------------------------------------- */

static void set_text(json_t *o, const char *key, const char *text)
{
	if (text[0])
		json_object_set_new(o, key, json_string(text));
}

/* Takes `list`, which may be NULL. */
static void set_list(json_t *o, const char *key, json_t *list)
{
	if (json_array_size(list))
		json_object_set(o, key, list);
	json_decref(list);
}

static json_t *ports_json(const uint16_t *port, unsigned max)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < max && port[i]; i++)
		json_array_append_new(list, json_integer(port[i]));
	return list;
}

static json_t *overlay_json(const struct pod_overlay *v)
{
	json_t *o = json_object(), *ifaces = json_array(), *prefixes = json_array();
	char text[ADDR_STRLEN + 4];

	if (v->dns_capture != POD_AS_NODE)
		json_object_set_new(o, "dnsCapture", json_boolean(v->dns_capture == POD_YES));
	if (v->bypass_inbound)
		json_object_set_new(o, "bypassInbound", json_true());
	for (unsigned i = 0; i < STEER_IFACES_MAX; i++)
		if (v->virtual_ifaces[i][0])
			json_array_append_new(ifaces, json_string(v->virtual_ifaces[i]));
	for (unsigned i = 0; i < v->n_exclude_outbound && i < STEER_EXCLUDES_MAX; i++)
		json_array_append_new(prefixes, json_string(prefix_str(&v->exclude_outbound[i], text)));
	set_list(o, "virtualInterfaces", ifaces);
	set_list(o, "excludeOutbound", prefixes);
	set_list(o, "excludeOutboundPorts", ports_json(v->exclude_outbound_ports, STEER_EXCLUDES_MAX));
	set_list(o, "excludeInboundPorts", ports_json(v->exclude_inbound_ports, STEER_EXCLUDES_MAX));
	set_list(o, "probePorts", ports_json(v->probe_ports, STEER_PORTS_MAX));
	return o;
}

int record_more_json(json_t *o, const struct pod_record *r)
{
	json_t *overlay = overlay_json(&r->overlay);

	set_text(o, "containerId", r->attachment.container_id);
	set_text(o, "interface", r->attachment.ifname);
	set_text(o, "network", r->attachment.network);
	if (json_object_size(overlay))
		json_object_set(o, "overlay", overlay);
	json_decref(overlay);
	return overlay ? 0 : -ENOMEM;
}

/* --- reading -------------------------------------------------------------------------------------------- */

/* A text that may be missing. */
static bool text_take(char *out, size_t cap, const json_t *v)
{
	const char *text = json_string_value(v);

	return !v || (text && snprintf(out, cap, "%s", text) < (int)cap);
}

static bool ports_take(uint16_t *out, unsigned max, const json_t *list)
{
	if (list && (!json_is_array(list) || json_array_size(list) > max))
		return false;
	for (unsigned i = 0; i < json_array_size(list); i++) {
		json_int_t port = json_integer_value(json_array_get(list, i));

		if (port < 1 || port > UINT16_MAX)
			return false;
		out[i] = (uint16_t)port;
	}
	return true;
}

static bool prefixes_take(struct pod_overlay *v, const json_t *list)
{
	if (list && (!json_is_array(list) || json_array_size(list) > STEER_EXCLUDES_MAX))
		return false;
	for (unsigned i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!text || prefix_parse(&v->exclude_outbound[i], text) < 0)
			return false;
		v->n_exclude_outbound++;
	}
	return true;
}

static bool ifaces_take(struct pod_overlay *v, const json_t *list)
{
	if (list && (!json_is_array(list) || json_array_size(list) > STEER_IFACES_MAX))
		return false;
	for (unsigned i = 0; i < json_array_size(list); i++) {
		const char *text = json_string_value(json_array_get(list, i));

		if (!text || snprintf(v->virtual_ifaces[i], IFNAMSIZ, "%s", text) >= IFNAMSIZ)
			return false;
	}
	return true;
}

static bool overlay_take(struct pod_overlay *v, const json_t *o)
{
	const json_t *dns = json_object_get(o, "dnsCapture"), *bypass = json_object_get(o, "bypassInbound");

	if (!o)
		return true;
	if (!json_is_object(o) || (dns && !json_is_boolean(dns)) || (bypass && !json_is_boolean(bypass)))
		return false;
	v->dns_capture = !dns ? POD_AS_NODE : json_is_true(dns) ? POD_YES : POD_NO;
	v->bypass_inbound = json_is_true(bypass);
	return ifaces_take(v, json_object_get(o, "virtualInterfaces")) &&
	       prefixes_take(v, json_object_get(o, "excludeOutbound")) &&
	       ports_take(v->exclude_outbound_ports, STEER_EXCLUDES_MAX, json_object_get(o, "excludeOutboundPorts")) &&
	       ports_take(v->exclude_inbound_ports, STEER_EXCLUDES_MAX, json_object_get(o, "excludeInboundPorts")) &&
	       ports_take(v->probe_ports, STEER_PORTS_MAX, json_object_get(o, "probePorts"));
}

int record_more_take(struct pod_record *r, const json_t *o)
{
	struct pod_attachment *a = &r->attachment;

	memset(a, 0, sizeof *a);
	memset(&r->overlay, 0, sizeof r->overlay);
	return text_take(a->container_id, sizeof a->container_id, json_object_get(o, "containerId")) &&
			       text_take(a->ifname, sizeof a->ifname, json_object_get(o, "interface")) &&
			       text_take(a->network, sizeof a->network, json_object_get(o, "network")) &&
			       overlay_take(&r->overlay, json_object_get(o, "overlay"))
		       ? 0
		       : -EINVAL;
}
