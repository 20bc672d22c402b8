/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of who is in the mesh: selectors, exclusions, and the annotations that change a pod's steering. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "node/kube_rule.h"

static json_t *parse(const char *text)
{
	json_t *o = json_loads(text, 0, NULL);

	if (!o)
		fail_msg("the test's own JSON is wrong: %s", text);
	return o;
}

static struct kube_rule *rule_make(const char *selectors, const char *excluded)
{
	const struct kube_rule_settings s = {selectors, excluded, "istio-system"};
	char why[POD_WHY_MAX] = "";
	struct kube_rule *r = NULL;

	if (kube_rule_new(&r, &s, why) < 0)
		fail_msg("%s", why);
	return r;
}

#define AMBIENT "{\"istio.io/dataplane-mode\":\"ambient\"}"
#define NONE	"{\"istio.io/dataplane-mode\":\"none\"}"

static const struct {
	const char *name, *selectors, *excluded;
	const char *pod, *ns; /* labels */
	const char *annotations, *spec;
	const char *namespace;
	enum kube_reason want;
} rows[] = {
	{"neither labelled", NULL, NULL, "{}", "{}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"the namespace is", NULL, NULL, "{}", AMBIENT, "{}", "{}", "shop", KUBE_SELECTED},
	{"the pod is", NULL, NULL, AMBIENT, "{}", "{}", "{}", "shop", KUBE_SELECTED},
	{"the pod opts out", NULL, NULL, NONE, AMBIENT, "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"the pod is, its namespace opts out", NULL, NULL, AMBIENT, NONE, "{}", "{}", "shop", KUBE_SELECTED},
	{"another value on the pod", NULL, NULL, "{\"istio.io/dataplane-mode\":\"sidecar\"}", AMBIENT, "{}", "{}",
	 "shop", KUBE_SELECTED},
	{"another value on the namespace", NULL, NULL, "{}", "{\"istio.io/dataplane-mode\":\"Ambient\"}", "{}", "{}",
	 "shop", KUBE_NOT_SELECTED},
	{"the node's network", NULL, NULL, AMBIENT, AMBIENT, "{}", "{\"hostNetwork\":true}", "shop", KUBE_HOST_NETWORK},
	{"not the node's network", NULL, NULL, AMBIENT, AMBIENT, "{}", "{\"hostNetwork\":false}", "shop",
	 KUBE_SELECTED},
	{"a sidecar", NULL, NULL, AMBIENT, AMBIENT, "{\"sidecar.istio.io/status\":\"\"}", "{}", "shop", KUBE_SIDECAR},
	{"a container that is only named like one", NULL, NULL, AMBIENT, "{}", "{}",
	 "{\"containers\":[{\"name\":\"istio-proxy\"}]}", "shop", KUBE_SELECTED},
	{"status that somebody set", NULL, NULL, "{}", AMBIENT, "{\"ambient.istio.io/redirection\":\"disabled\"}", "{}",
	 "shop", KUBE_SELECTED},
	{"an excluded namespace", NULL, "kube-system", AMBIENT, AMBIENT, "{}", "{}", "kube-system", KUBE_EXCLUDED},
	{"blanks and empty names in the exclusions", NULL, " , a ,kube-system ,", AMBIENT, AMBIENT, "{}", "{}",
	 "kube-system", KUBE_EXCLUDED},
	{"exclusions are exact", NULL, "kube", AMBIENT, AMBIENT, "{}", "{}", "kube-system", KUBE_SELECTED},
	{"the tunnel itself", NULL, NULL, "{\"app\":\"ztunnel\",\"istio.io/dataplane-mode\":\"ambient\"}", "{}", "{}",
	 "{}", "istio-system", KUBE_TUNNEL_POD},
	{"an app of that name elsewhere", NULL, NULL, "{\"app\":\"ztunnel\"}", AMBIENT, "{}", "{}", "shop",
	 KUBE_SELECTED},

	{"an empty list selects nobody", "[]", NULL, AMBIENT, AMBIENT, "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"no document selects nobody", "", NULL, AMBIENT, AMBIENT, "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"empty selectors select all", "[{\"podSelector\":{},\"namespaceSelector\":{}}]", NULL, "{}", "{}", "{}", "{}",
	 "shop", KUBE_SELECTED},
	{"both selectors of a pair must hold",
	 "- podSelector: {matchLabels: {a: b}}\n  namespaceSelector: {matchLabels: {c: d}}", NULL, "{\"a\":\"b\"}",
	 "{}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"halves of two pairs make none",
	 "- {podSelector: {matchLabels: {a: b}}, namespaceSelector: {matchLabels: {c: d}}}\n"
	 "- {podSelector: {matchLabels: {e: f}}, namespaceSelector: {matchLabels: {g: h}}}",
	 NULL, "{\"a\":\"b\"}", "{\"g\":\"h\"}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"as the chart writes it",
	 "- podSelector:\n    matchLabels:\n      istio.io/dataplane-mode: ambient\n"
	 "- podSelector:\n    matchExpressions:\n    - key: istio.io/dataplane-mode\n      operator: NotIn\n"
	 "      values:\n      - none\n  namespaceSelector:\n    matchLabels:\n      istio.io/dataplane-mode: "
	 "ambient\n",
	 NULL, "{}", AMBIENT, "{}", "{}", "shop", KUBE_SELECTED},
	{"as JSON", "[{\"podSelector\":{\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}}]", NULL,
	 "{\"a\":\"b\",\"c\":\"d\"}", "{}", "{}", "{}", "shop", KUBE_SELECTED},
	{"every label must match", "[{\"podSelector\":{\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}}]", NULL,
	 "{\"a\":\"b\",\"c\":\"x\"}", "{}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"numbers are texts", "[{podSelector: {matchLabels: {a: 1}}}]", NULL, "{\"a\":\"1\"}", "{}", "{}", "{}", "shop",
	 KUBE_SELECTED},
	{"In", "[{podSelector: {matchExpressions: [{key: a, operator: In, values: [x, y]}]}}]", NULL, "{\"a\":\"y\"}",
	 "{}", "{}", "{}", "shop", KUBE_SELECTED},
	{"In without the label", "[{podSelector: {matchExpressions: [{key: a, operator: In, values: [x, y]}]}}]", NULL,
	 "{}", "{}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"NotIn without the label", "[{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [x]}]}}]",
	 NULL, "{}", "{}", "{}", "{}", "shop", KUBE_SELECTED},
	{"NotIn", "[{podSelector: {matchExpressions: [{key: a, operator: NotIn, values: [x]}]}}]", NULL,
	 "{\"a\":\"x\"}", "{}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
	{"Exists", "[{podSelector: {matchExpressions: [{key: a, operator: Exists}]}}]", NULL, "{\"a\":\"\"}", "{}",
	 "{}", "{}", "shop", KUBE_SELECTED},
	{"DoesNotExist", "[{namespaceSelector: {matchExpressions: [{key: a, operator: DoesNotExist}]}}]", NULL, "{}",
	 "{\"a\":\"\"}", "{}", "{}", "shop", KUBE_NOT_SELECTED},
};

static void test_decisions(void **state)
{
	for (unsigned i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct kube_rule *r = rule_make(rows[i].selectors, rows[i].excluded);
		json_t *pod = json_pack("{s{ss ss ss so so} so}", "metadata", "namespace", rows[i].namespace, "name",
					"web-0", "uid", "0123", "labels", parse(rows[i].pod), "annotations",
					parse(rows[i].annotations), "spec", parse(rows[i].spec));
		json_t *ns =
			json_pack("{s{ss so}}", "metadata", "name", rows[i].namespace, "labels", parse(rows[i].ns));
		char notes[POD_WHY_MAX], why[POD_WHY_MAX];
		struct kube_namespace_facts nf;
		struct kube_pod_facts pf;

		print_message("row: %s\n", rows[i].name);
		assert_int_equal(kube_pod_read(&pf, pod, r, notes, why), 0);
		assert_int_equal(kube_namespace_read(&nf, ns, r, why), 0);
		assert_int_equal(kube_rule_decide(r, &pf, nf.selected), rows[i].want);
		assert_string_equal(notes, "");
		json_decref(pod);
		json_decref(ns);
		kube_rule_free(r);
	}
}

/* --- selectors that are refused ------------------------------------------------------------------------- */

static const struct {
	const char *name, *selectors, *wrong;
} bad[] = {
	{"not a list", "podSelector: {}", "want a list"},
	{"a text", "everything", "want a list"},
	{"unknown member", "[{podSelectors: {}}]", "selector 1: \"podSelectors\" is not known"},
	{"an item that is no map", "[{podSelector: {}}, x]", "selector 2: want podSelector"},
	{"unknown operator", "[{podSelector: {matchExpressions: [{key: a, operator: in, values: [b]}]}}]",
	 "operator In,"},
	{"no key", "[{podSelector: {matchExpressions: [{operator: Exists}]}}]", "want key"},
	{"In without values", "[{podSelector: {matchExpressions: [{key: a, operator: In}]}}]", "needs values"},
	{"Exists with values", "[{podSelector: {matchExpressions: [{key: a, operator: Exists, values: [b]}]}}]",
	 "takes no values"},
	{"a value that is a list", "[{podSelector: {matchLabels: {a: [b]}}}]", "must be a text"},
	{"matchLabels that are a list", "[{podSelector: {matchLabels: [a]}}]", "must be a map"},
	{"matchLabel", "[{podSelector: {matchLabel: {a: b}}}]", "\"matchLabel\" is not known"},
	{"no YAML", "[{podSelector: {", "line "},
	{"a key twice", "[{podSelector: {}, podSelector: {}}]", "twice"},
	{"an alias", "[{podSelector: &a {}}, {podSelector: *a}]", "aliases are not taken"},
	{"too deep", "[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]", "nested too deep"},
};

static void test_bad_selectors(void **state)
{
	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		const struct kube_rule_settings s = {bad[i].selectors, NULL, NULL};
		char why[POD_WHY_MAX] = "";
		struct kube_rule *r = NULL;

		print_message("row: %s\n", bad[i].name);
		assert_int_equal(kube_rule_new(&r, &s, why), -EINVAL);
		assert_non_null(strstr(why, bad[i].wrong));
		assert_null(strchr(why, '\n'));
		assert_null(r);
	}
}

static void test_limits(void **state)
{
	char text[KUBE_SELECTORS_MAX * 24 + 64] = "[", why[POD_WHY_MAX] = "";
	const struct kube_rule_settings s = {text, NULL, NULL};
	struct kube_rule *r = NULL;

	for (unsigned i = 0; i <= KUBE_SELECTORS_MAX; i++)
		snprintf(text + strlen(text), sizeof text - strlen(text), "{podSelector: {}},");
	snprintf(text + strlen(text), sizeof text - strlen(text), "]");
	assert_int_equal(kube_rule_new(&r, &s, why), -EINVAL);
	assert_non_null(strstr(why, "more than 32 selectors"));
}

/* --- annotations ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *annotations;
	const char *want; /* what they make of it */
	const char *note; /* part of the line; NULL: none */
} overlays[] = {
	{"none", "{}", "", NULL},
	{"bypass", "{\"ambient.istio.io/bypass-inbound-capture\":\"true\"}", "bypass", NULL},
	{"bypass as Go writes it", "{\"ambient.istio.io/bypass-inbound-capture\":\"T\"}", "bypass", NULL},
	{"no bypass", "{\"ambient.istio.io/bypass-inbound-capture\":\"0\"}", "", NULL},
	{"not a truth value is no bypass", "{\"ambient.istio.io/bypass-inbound-capture\":\"yes\"}", "",
	 "bypass-inbound-capture is not followed: \"yes\" is neither true nor false"},
	{"an empty one neither", "{\"ambient.istio.io/bypass-inbound-capture\":\"\"}", "", "is not followed"},
	{"DNS off", "{\"ambient.istio.io/dns-capture\":\"false\"}", "dns=no", NULL},
	{"DNS on", "{\"ambient.istio.io/dns-capture\":\"1\"}", "dns=yes", NULL},
	{"DNS as the node when it is wrong", "{\"ambient.istio.io/dns-capture\":\"off\"}", "", "dns-capture"},
	{"interfaces", "{\"istio.io/reroute-virtual-interfaces\":\" net1, net2 ,,\"}", "if=net1 if=net2", NULL},
	{"an interface's name that is too long", "{\"istio.io/reroute-virtual-interfaces\":\"net1,abcdefghijklmnop\"}",
	 "", "is not the name of an interface"},
	{"an interface's name that is a path", "{\"istio.io/reroute-virtual-interfaces\":\"../x\"}", "",
	 "is not the name of an interface"},
	{"nine interfaces", "{\"istio.io/reroute-virtual-interfaces\":\"a,b,c,d,e,f,g,h,i\"}", "", "more than 8 items"},
	{"ports", "{\"culvert/exclude-outbound-ports\":\"80, 443\",\"culvert/exclude-inbound-ports\":\"22\"}",
	 "out=80 out=443 in=22", NULL},
	{"a port of 0", "{\"culvert/exclude-outbound-ports\":\"80,0\"}", "", "\"0\" is not a port"},
	{"a port beyond 65535", "{\"culvert/exclude-inbound-ports\":\"65536\"}", "", "\"65536\" is not a port"},
	{"a port with a sign", "{\"culvert/exclude-inbound-ports\":\"+80\"}", "", "is not a port"},
	{"ranges", "{\"culvert/exclude-outbound-ip-ranges\":\"10.1.2.3,10.2.0.0/16,fd00::/8\"}",
	 "range=10.1.2.3/32 range=10.2.0.0/16 range=fd00::/8", NULL},
	{"a range that is none keeps all captured", "{\"culvert/exclude-outbound-ip-ranges\":\"10.0.0.0/8,x\"}", "",
	 "\"x\" is not an address or prefix"},
	{"everything", "{\"culvert/exclude-outbound-ip-ranges\":\"*\"}", "", "is not an address or prefix"},
	{"a sidecar's are not followed", "{\"traffic.sidecar.istio.io/excludeOutboundPorts\":\"80\"}", "", NULL},
	{"two wrong ones make one line",
	 "{\"ambient.istio.io/dns-capture\":\"x\",\"culvert/exclude-inbound-ports\":\"y\"}", "",
	 "; annotation culvert/"},
};

static void describe(const struct pod_overlay *o, char out[512])
{
	char text[ADDR_STRLEN + 4];
	size_t n = 0;

	out[0] = '\0';
#define ADD(...)                                                     \
	n += (size_t)snprintf(out + n, 512 - n, "%s", n ? " " : ""), \
		n += (size_t)snprintf(out + n, 512 - n, __VA_ARGS__)
	if (o->bypass_inbound)
		ADD("bypass");
	if (o->dns_capture != POD_AS_NODE)
		ADD("dns=%s", o->dns_capture == POD_YES ? "yes" : "no");
	for (unsigned i = 0; i < STEER_IFACES_MAX && o->virtual_ifaces[i][0]; i++)
		ADD("if=%s", o->virtual_ifaces[i]);
	for (unsigned i = 0; i < STEER_EXCLUDES_MAX && o->exclude_outbound_ports[i]; i++)
		ADD("out=%u", o->exclude_outbound_ports[i]);
	for (unsigned i = 0; i < STEER_EXCLUDES_MAX && o->exclude_inbound_ports[i]; i++)
		ADD("in=%u", o->exclude_inbound_ports[i]);
	for (unsigned i = 0; i < o->n_exclude_outbound; i++)
		ADD("range=%s", prefix_str(&o->exclude_outbound[i], text));
#undef ADD
}

static void test_overlays(void **state)
{
	for (unsigned i = 0; i < sizeof overlays / sizeof *overlays; i++) {
		json_t *annotations = parse(overlays[i].annotations);
		struct pod_overlay o = {.bypass_inbound = false};
		char notes[POD_WHY_MAX], got[512];

		print_message("row: %s\n", overlays[i].name);
		kube_overlay_read(&o, annotations, notes);
		describe(&o, got);
		assert_string_equal(got, overlays[i].want);
		if (overlays[i].note)
			assert_non_null(strstr(notes, overlays[i].note));
		else
			assert_string_equal(notes, "");
		assert_null(strchr(notes, '\n'));
		json_decref(annotations);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_decisions), cmocka_unit_test(test_bad_selectors),
					   cmocka_unit_test(test_limits), cmocka_unit_test(test_overlays)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
