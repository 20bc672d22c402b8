/* SPDX-License-Identifier: Apache-2.0 */
/* A pod's annotations that change how it is steered. Three are Istio's. The exclusions are ours: those that sidecars
 * have (traffic.sidecar.istio.io/...) are not followed, as in Istio's ambient mode, since a pod that moves over from a
 * sidecar still carries them, and its traffic would leave in plaintext. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "node/kube_object.h"

enum { TEXT_MAX = 1024 };

static void __attribute__((format(printf, 2, 3))) note(char *notes, const char *fmt, ...)
{
	size_t len = strlen(notes);
	va_list ap;

	len += (size_t)snprintf(notes + len, POD_WHY_MAX - len, "%s", len ? "; " : "");
	if (len >= POD_WHY_MAX)
		return;
	va_start(ap, fmt);
	vsnprintf(notes + len, POD_WHY_MAX - len, fmt, ap);
	va_end(ap);
}

/* As Go's strconv.ParseBool. */
static int bool_parse(const char *text, bool *out)
{
	static const char *const yes[] = {"1", "t", "T", "TRUE", "true", "True"};
	static const char *const no[] = {"0", "f", "F", "FALSE", "false", "False"};

	for (unsigned i = 0; i < sizeof yes / sizeof *yes; i++) {
		*out = !strcmp(text, yes[i]);
		if (*out || !strcmp(text, no[i]))
			return 0;
	}
	return -EINVAL;
}

/* With or without a length. */
static int range_parse(const char *text, struct prefix *out)
{
	struct addr a;

	if (strchr(text, '/'))
		return prefix_parse(out, text);
	if (addr_parse(&a, text) < 0)
		return -EINVAL;
	*out = (struct prefix){a, addr_is4(&a) ? 32 : 128};
	return 0;
}

static int iface_parse(const char *text, char *out)
{
	if (strlen(text) >= IFNAMSIZ || strpbrk(text, "/ \t\n") || !strcmp(text, ".") || !strcmp(text, ".."))
		return -EINVAL;
	snprintf(out, IFNAMSIZ, "%s", text);
	return 0;
}

enum kind { PORTS, RANGES, IFACES };

static int item_parse(enum kind kind, const char *text, void *list, unsigned n)
{
	if (kind == PORTS)
		return port_parse((uint16_t *)list + n, text) < 0 || !((uint16_t *)list)[n] ? -EINVAL : 0;
	if (kind == RANGES)
		return range_parse(text, (struct prefix *)list + n);
	return iface_parse(text, (char *)list + n * IFNAMSIZ);
}

/* A list with commas. It is taken whole or not at all. The number of items. */
static unsigned list_read(const json_t *annotations, const char *name, enum kind kind, void *list, size_t bytes,
			  unsigned max, char *notes)
{
	static const char *const what[] = {"a port", "an address or prefix", "the name of an interface"};
	const char *all = json_string_value(json_object_get(annotations, name));
	char text[TEXT_MAX], *save = NULL;
	unsigned n = 0;
	bool ok;

	if (!all)
		return 0;
	ok = snprintf(text, sizeof text, "%s", all) < (int)sizeof text;
	for (char *p = strtok_r(text, ",", &save); ok && p; p = strtok_r(NULL, ",", &save)) {
		p += strspn(p, " \t");
		for (size_t len = strlen(p); len && strchr(" \t", p[len - 1]); len--)
			p[len - 1] = '\0';
		if (!*p)
			continue;
		if (n == max) {
			ok = false;
		} else if (item_parse(kind, p, list, n) < 0) {
			note(notes, "annotation %s is not followed: \"%.64s\" is not %s", name, p, what[kind]);
			memset(list, 0, bytes);
			return 0;
		} else {
			n++;
		}
	}
	if (ok)
		return n;
	note(notes, "annotation %s is not followed: more than %u items, or %d bytes", name, max, TEXT_MAX - 1);
	memset(list, 0, bytes);
	return 0;
}

static enum pod_choice choice_read(const json_t *annotations, const char *name, char *notes)
{
	const char *text = json_string_value(json_object_get(annotations, name));
	bool yes;

	if (!text)
		return POD_AS_NODE;
	if (bool_parse(text, &yes) == 0)
		return yes ? POD_YES : POD_NO;
	note(notes, "annotation %s is not followed: \"%.64s\" is neither true nor false", name, text);
	return POD_AS_NODE;
}

void kube_overlay_read(struct pod_overlay *out, const json_t *annotations, char notes[POD_WHY_MAX])
{
	notes[0] = '\0';
	out->bypass_inbound = choice_read(annotations, "ambient.istio.io/bypass-inbound-capture", notes) == POD_YES;
	out->dns_capture = choice_read(annotations, "ambient.istio.io/dns-capture", notes);
	list_read(annotations, "istio.io/reroute-virtual-interfaces", IFACES, out->virtual_ifaces,
		  sizeof out->virtual_ifaces, STEER_IFACES_MAX, notes);
	out->n_exclude_outbound =
		list_read(annotations, "culvert/exclude-outbound-ip-ranges", RANGES, out->exclude_outbound,
			  sizeof out->exclude_outbound, STEER_EXCLUDES_MAX, notes);
	list_read(annotations, "culvert/exclude-outbound-ports", PORTS, out->exclude_outbound_ports,
		  sizeof out->exclude_outbound_ports, STEER_EXCLUDES_MAX, notes);
	list_read(annotations, "culvert/exclude-inbound-ports", PORTS, out->exclude_inbound_ports,
		  sizeof out->exclude_inbound_ports, STEER_EXCLUDES_MAX, notes);
}
