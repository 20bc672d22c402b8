/* SPDX-License-Identifier: Apache-2.0 */
/* What the API server may send, by the first byte: a watch in pieces whose objects are read as pods and as namespaces, a
 * page of a list, the selectors, or a cgroup's lines. What is accepted must be in bounds. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/kube_netns.h"
#include "node/kube_rule.h"
#include "node/kube_stream.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const struct kube_rule *rule(void)
{
	static struct kube_rule *r;
	const struct kube_rule_settings s = {NULL, "kube-system", "istio-system"};
	char why[POD_WHY_MAX];

	if (!r && kube_rule_new(&r, &s, why) < 0)
		abort();
	return r;
}

static void object_read(const json_t *o)
{
	char notes[POD_WHY_MAX], why[POD_WHY_MAX];
	struct kube_namespace_facts n;
	struct kube_pod_facts p;

	if (kube_pod_read(&p, o, rule(), notes, why) == 0 &&
	    (!p.uid[0] || !p.identity.ns[0] || strchr(p.identity.name, '/') || p.n_ips > KUBE_IPS_MAX ||
	     p.overlay.n_exclude_outbound > STEER_EXCLUDES_MAX || strchr(notes, '\n')))
		abort();
	kube_namespace_read(&n, o, rule(), why);
}

static void on_line(void *arg, const char *p, size_t n)
{
	char why[POD_WHY_MAX];
	struct kube_event ev;

	if (kube_event_read(&ev, p, n, why) < 0)
		return;
	if (strlen(ev.version) >= KUBE_VERSION_MAX || (ev.type != KUBE_ERROR && !ev.version[0]))
		abort();
	object_read(ev.object);
	json_decref(ev.object);
}

static void watch(const uint8_t *data, size_t len)
{
	struct kube_lines l = {.buf = NULL};
	size_t piece = len ? data[0] + 1u : 1;

	for (size_t at = 1; at < len; at += piece)
		kube_lines_feed(&l, (const char *)data + at, len - at < piece ? len - at : piece, on_line, NULL);
	kube_lines_free(&l);
}

static void page(const uint8_t *data, size_t len)
{
	char why[POD_WHY_MAX];
	struct kube_page p;
	json_t *o;
	size_t i;

	if (kube_page_read(&p, (const char *)data, len, why) < 0)
		return;
	json_array_foreach(p.items, i, o) object_read(o);
	json_decref(p.document);
}

static void text(const uint8_t *data, size_t len, bool selectors)
{
	char *t = malloc(len + 1), why[POD_WHY_MAX] = "", uid[POD_UID_MAX] = "";
	struct kube_rule_settings s = {.selectors = t};
	struct kube_rule *r = NULL;

	if (!t)
		return;
	memcpy(t, data, len);
	t[len] = '\0';
	if (selectors) {
		if (kube_rule_new(&r, &s, why) < 0 && !why[0])
			abort();
		kube_rule_free(r);
	} else if (kube_cgroup_uid(uid, t) == 0 && !pod_uid_valid(uid)) {
		abort();
	}
	free(t);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	if (!len)
		return 0;
	switch (data[0] % 4) {
	case 0:
		watch(data + 1, len - 1);
		break;
	case 1:
		page(data + 1, len - 1);
		break;
	default:
		text(data + 1, len - 1, data[0] % 4 == 2);
	}
	return 0;
}
