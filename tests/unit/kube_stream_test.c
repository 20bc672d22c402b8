/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what the API server sends: lines in any pieces, events, pages, objects with fields of wrong types, and the
 * cgroups that name pods. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "node/kube_netns.h"
#include "node/kube_rule.h"
#include "node/kube_stream.h"

/* --- lines ---------------------------------------------------------------------------------------------- */

struct heard {
	struct kube_lines *lines;
	unsigned n, stop_after;
	size_t longest;
	char text[256];
};

static void on_line(void *arg, const char *p, size_t n)
{
	struct heard *h = arg;
	size_t len = strlen(h->text);

	snprintf(h->text + len, sizeof h->text - len, "[%.*s]", n < 100 ? (int)n : 100, p);
	h->longest = n > h->longest ? n : h->longest;
	h->lines->stop = ++h->n == h->stop_after;
}

static void test_lines_in_any_pieces(void **state)
{
	static const char all[] = "one\n\ntwo\n\n\nthree\nfour";

	for (size_t piece = 1; piece <= sizeof all; piece++) {
		struct kube_lines l = {.buf = NULL};
		struct heard h = {.lines = &l};

		for (size_t at = 0; at < sizeof all - 1; at += piece) {
			size_t n = sizeof all - 1 - at < piece ? sizeof all - 1 - at : piece;

			assert_int_equal(kube_lines_feed(&l, all + at, n, on_line, &h), 0);
		}
		assert_string_equal(h.text, "[one][two][three]");
		assert_int_equal(h.n, 3);
		assert_true(kube_lines_waiting(&l));
		kube_lines_free(&l);
		assert_false(kube_lines_waiting(&l));
	}
}

static void test_lines_stop(void **state)
{
	struct kube_lines l = {.buf = NULL};
	struct heard h = {.lines = &l, .stop_after = 1};

	assert_int_equal(kube_lines_feed(&l, "a\nb\nc", 5, on_line, &h), 0);
	assert_string_equal(h.text, "[a]");
	assert_false(kube_lines_waiting(&l));
	kube_lines_free(&l);
}

static void test_lines_limit(void **state)
{
	struct kube_lines l = {.buf = NULL};
	struct heard h = {.lines = &l};
	size_t step = 65536;
	char *x = malloc(step);
	int e = 0;
	size_t fed = 0;

	memset(x, 'x', step);
	for (; fed + step <= KUBE_LINE_MAX; fed += step)
		assert_int_equal(kube_lines_feed(&l, x, step, on_line, &h), 0);
	assert_int_equal(kube_lines_feed(&l, "\n", 1, on_line, &h), 0);
	assert_int_equal(h.longest, KUBE_LINE_MAX);
	assert_true(l.cap < step); /* the room of a long line is given back */
	for (fed = 0; !e && fed <= 2 * (size_t)KUBE_LINE_MAX; fed += step)
		e = kube_lines_feed(&l, x, step, on_line, &h);
	assert_int_equal(e, -EMSGSIZE);
	assert_true(l.len <= KUBE_LINE_MAX);
	kube_lines_free(&l);
	free(x);
}

/* --- events and pages ----------------------------------------------------------------------------------- */

#define OBJECT "{\"metadata\":{\"resourceVersion\":\"7\"}}"

static const struct {
	const char *name, *line;
	int want, type, code;
	const char *why; /* part of it */
} events[] = {
	{"added", "{\"type\":\"ADDED\",\"object\":" OBJECT "}", 0, KUBE_ADDED, 0, NULL},
	{"modified", "{\"type\":\"MODIFIED\",\"object\":" OBJECT "}", 0, KUBE_MODIFIED, 0, NULL},
	{"deleted", "{\"type\":\"DELETED\",\"object\":" OBJECT "}", 0, KUBE_DELETED, 0, NULL},
	{"bookmark", "{\"type\":\"BOOKMARK\",\"object\":" OBJECT "}", 0, KUBE_BOOKMARK, 0, NULL},
	{"forgotten", "{\"type\":\"ERROR\",\"object\":{\"code\":410,\"message\":\"too old\"}}", 0, KUBE_ERROR, 410,
	 "too old"},
	{"an error without a word", "{\"type\":\"ERROR\",\"object\":{}}", 0, KUBE_ERROR, 0, "no reason given"},
	{"unknown type", "{\"type\":\"PATCHED\",\"object\":" OBJECT "}", -EBADMSG, 0, 0, "known type"},
	{"type of a wrong type", "{\"type\":1,\"object\":" OBJECT "}", -EBADMSG, 0, 0, "known type"},
	{"no object", "{\"type\":\"ADDED\"}", -EBADMSG, 0, 0, "an object"},
	{"an object that is a list", "{\"type\":\"ADDED\",\"object\":[]}", -EBADMSG, 0, 0, "an object"},
	{"no version", "{\"type\":\"ADDED\",\"object\":{}}", -EBADMSG, 0, 0, "resourceVersion"},
	{"a version that is a number", "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":7}}}",
	 -EBADMSG, 0, 0, "resourceVersion"},
	{"an empty version", "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"\"}}}", -EBADMSG, 0,
	 0, "resourceVersion"},
	{"a version that would change the query",
	 "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"resourceVersion\":\"7&watch=0\"}}}", -EBADMSG, 0, 0,
	 "resourceVersion"},
	{"a list", "[]", -EBADMSG, 0, 0, "known type"},
	{"half a line", "{\"type\":\"ADDED\",\"obj", -EBADMSG, 0, 0, "no JSON"},
	{"nothing", "", -EBADMSG, 0, 0, "no JSON"},
	{"a NUL in a key", "{\"ty\\u0000pe\":\"ADDED\"}", -EBADMSG, 0, 0, "no JSON"},
	{"text after it", "{} {}", -EBADMSG, 0, 0, "no JSON"},
};

static void test_events(void **state)
{
	for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
		struct kube_event ev = {.object = NULL};
		char why[POD_WHY_MAX] = "";

		print_message("row: %s\n", events[i].name);
		assert_int_equal(kube_event_read(&ev, events[i].line, strlen(events[i].line), why), events[i].want);
		if (events[i].why)
			assert_non_null(strstr(why, events[i].why));
		assert_null(strchr(why, '\n'));
		if (events[i].want)
			continue;
		assert_int_equal(ev.type, events[i].type);
		assert_int_equal(ev.code, events[i].code);
		assert_string_equal(ev.version, ev.type == KUBE_ERROR ? "" : "7");
		assert_int_equal(ev.object != NULL, ev.type < KUBE_BOOKMARK);
		json_decref(ev.object);
	}
}

static void test_deep_nesting_is_refused(void **state)
{
	enum { DEPTH = 1000000 };
	char *deep = malloc(DEPTH + 1), why[POD_WHY_MAX];
	struct kube_event ev;

	memset(deep, '[', DEPTH);
	deep[DEPTH] = '\0';
	assert_int_equal(kube_event_read(&ev, deep, DEPTH, why), -EBADMSG);
	free(deep);
}

static const struct {
	const char *name, *text;
	int want;
	unsigned items;
	const char *next;
} pages[] = {
	{"two items", "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{},{}]}", 0, 2, ""},
	{"no items", "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":null}", 0, 0, ""},
	{"items left out", "{\"metadata\":{\"resourceVersion\":\"7\"}}", 0, 0, ""},
	{"more to come", "{\"metadata\":{\"resourceVersion\":\"7\",\"continue\":\"a+b=\"},\"items\":[1]}", 0, 1,
	 "a+b="},
	{"items that are a map", "{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":{}}", -EBADMSG, 0, ""},
	{"no version", "{\"items\":[]}", -EBADMSG, 0, ""},
	{"a page of HTML", "<html>", -EBADMSG, 0, ""},
};

static void test_pages(void **state)
{
	for (unsigned i = 0; i < sizeof pages / sizeof *pages; i++) {
		struct kube_page page;
		char why[POD_WHY_MAX];

		print_message("row: %s\n", pages[i].name);
		assert_int_equal(kube_page_read(&page, pages[i].text, strlen(pages[i].text), why), pages[i].want);
		if (pages[i].want)
			continue;
		assert_int_equal(json_array_size(page.items), pages[i].items);
		assert_string_equal(page.next, pages[i].next);
		json_decref(page.document);
	}
}

/* --- objects -------------------------------------------------------------------------------------------- */

#define META "\"metadata\":{\"namespace\":\"shop\",\"name\":\"web-0\",\"uid\":\"u-1\"}"

static const struct {
	const char *name, *text;
	const char *wrong; /* NULL: it is good */
} pods[] = {
	{"the least", "{" META "}", NULL},
	{"nulls are as good as nothing", "{" META ",\"spec\":null,\"status\":null}", NULL},
	{"null labels",
	 "{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"c\",\"labels\":null,\"annotations\":null}}",
	 NULL},
	{"a number", "1", "uid"},
	{"metadata that is a list", "{\"metadata\":[]}", "metadata is no object"},
	{"no metadata", "{}", "uid"},
	{"a uid that is a path", "{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"../x\"}}", "no uid"},
	{"a name that is a path", "{\"metadata\":{\"namespace\":\"a\",\"name\":\"../b\",\"uid\":\"c\"}}",
	 "Kubernetes name"},
	{"a namespace with a slash", "{\"metadata\":{\"namespace\":\"a/b\",\"name\":\"b\",\"uid\":\"c\"}}",
	 "Kubernetes name"},
	{"a name that is a number", "{\"metadata\":{\"namespace\":\"a\",\"name\":1,\"uid\":\"c\"}}", "name is no text"},
	{"labels that are a text", "{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"c\",\"labels\":\"x\"}}",
	 "labels"},
	{"a label that is true",
	 "{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"c\",\"labels\":{\"x\":true}}}", "labels"},
	{"an annotation that is a map",
	 "{\"metadata\":{\"namespace\":\"a\",\"name\":\"b\",\"uid\":\"c\",\"annotations\":{\"x\":{}}}}", "annotations"},
	{"spec that is a text", "{" META ",\"spec\":\"\"}", "spec"},
	{"hostNetwork that is a text", "{" META ",\"spec\":{\"hostNetwork\":\"false\"}}", "hostNetwork"},
	{"hostUsers that is a number", "{" META ",\"spec\":{\"hostUsers\":0}}", "hostUsers"},
	{"a service account that is a list", "{" META ",\"spec\":{\"serviceAccountName\":[]}}", "serviceAccountName"},
	{"a service account that is a path", "{" META ",\"spec\":{\"serviceAccountName\":\"a/b\"}}", "Kubernetes name"},
	{"podIPs that are a map", "{" META ",\"status\":{\"podIPs\":{}}}", "podIPs"},
	{"an address that is a number", "{" META ",\"status\":{\"podIPs\":[{\"ip\":1}]}}", "podIPs"},
	{"a phase that is a number", "{" META ",\"status\":{\"phase\":1}}", "phase"},
	{"an address that is none is left out", "{" META ",\"status\":{\"podIPs\":[{\"ip\":\"x\"}]}}", NULL},
	{"probes that are anything",
	 "{" META
	 ",\"spec\":{\"containers\":[1,{\"livenessProbe\":[]},{\"readinessProbe\":{\"httpGet\":{\"port\":{}}}}]}}",
	 NULL},
};

static void test_pods(void **state)
{
	struct kube_rule *r;
	const struct kube_rule_settings s = {NULL, NULL, NULL};
	char why[POD_WHY_MAX] = "", notes[POD_WHY_MAX];

	assert_int_equal(kube_rule_new(&r, &s, why), 0);
	for (unsigned i = 0; i < sizeof pods / sizeof *pods; i++) {
		json_t *o = json_loads(pods[i].text, JSON_DECODE_ANY, NULL);
		struct kube_pod_facts f;

		print_message("row: %s\n", pods[i].name);
		assert_non_null(o);
		assert_int_equal(kube_pod_read(&f, o, r, notes, why), pods[i].wrong ? -EBADMSG : 0);
		if (pods[i].wrong)
			assert_non_null(strstr(why, pods[i].wrong));
		json_decref(o);
	}
	kube_rule_free(r);
}

static void test_a_whole_pod(void **state)
{
	static const char text[] =
		"{\"metadata\":{\"namespace\":\"shop\",\"name\":\"web-0\",\"uid\":\"u-1\",\"deletionTimestamp\":\"x\","
		"\"annotations\":{\"ambient.istio.io/redirection\":\"pending\",\"kubernetes.io/"
		"config.mirror\":\"abc\"}},"
		"\"spec\":{\"serviceAccountName\":\"web\",\"containers\":[{\"ports\":[{\"name\":\"health\","
		"\"containerPort\":8080}],\"livenessProbe\":{\"httpGet\":{\"port\":\"health\"}},\"readinessProbe\":"
		"{\"tcpSocket\":{\"port\":8080}},\"startupProbe\":{\"grpc\":{\"port\":9000}}}]},"
		"\"status\":{\"phase\":\"Failed\",\"podIP\":\"10.9.9.9\",\"podIPs\":[{\"ip\":\"10.1.2.3\"},"
		"{\"ip\":\"fd00::3\"},{\"ip\":\"10.1.2.3\"}]}}";
	const struct kube_rule_settings s = {NULL, NULL, NULL};
	json_t *o = json_loads(text, 0, NULL);
	char why[POD_WHY_MAX], notes[POD_WHY_MAX];
	struct kube_pod_facts f;
	struct kube_rule *r;

	assert_int_equal(kube_rule_new(&r, &s, why), 0);
	assert_int_equal(kube_pod_read(&f, o, r, notes, why), 0);
	assert_string_equal(f.identity.sa, "web");
	assert_string_equal(f.mirror, "abc");
	assert_int_equal(f.redirection, KUBE_PENDING);
	assert_true(f.terminal && f.deleting);
	assert_int_equal(f.n_ips, 2);
	assert_int_equal(f.overlay.probe_ports[0], 9000);
	assert_int_equal(f.overlay.probe_ports[1], 8080);
	assert_int_equal(f.overlay.probe_ports[2], 0);
	json_decref(o);
	kube_rule_free(r);
}

/* --- cgroups -------------------------------------------------------------------------------------------- */

#define UID "490c5e26-eb2b-4a71-8a5f-0b8b6d7a9c11"

static const struct {
	const char *name, *text, *want; /* NULL: none, "": several */
} cgroups[] = {
	{"systemd and containerd",
	 "0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod490c5e26_eb2b_4a71_8a5f_0b8b6d7a9c11.slice/"
	 "cri-containerd-ffff.scope\n",
	 UID},
	{"cgroupfs", "0::/kubepods/besteffort/pod" UID "/0123abcd\n", UID},
	{"seen from another cgroup", "0::/../../kubepods/besteffort/pod" UID "/0123abcd", UID},
	{"nested in a container", "0::/docker/0123/kubelet/kubepods/pod" UID "/0123abcd", UID},
	{"in capitals", "0::/kubepods/pod490C5E26-EB2B-4A71-8A5F-0B8B6D7A9C11/0123abcd", UID},
	{"several controllers that agree", "9:cpu:/kubepods/pod" UID "/a\n8:pids:/kubepods/pod" UID "/a\n0::/\n", UID},
	{"several that do not",
	 "9:cpu:/kubepods/pod" UID "/a\n8:pids:/kubepods/pod00000000-eb2b-4a71-8a5f-0b8b6d7a9c11/a\n", ""},
	{"a static pod's hash", "0::/kubepods/pod0123456789abcdef0123456789abcdef/a",
	 "0123456789abcdef0123456789abcdef"},
	{"the first counts: a pod may name groups of its own",
	 "0::/kubepods/pod" UID "/a/pod00000000-eb2b-4a71-8a5f-0b8b6d7a9c11/b", UID},
	{"the pod itself, without a container", "0::/kubepods/pod" UID, NULL},
	{"no pod", "0::/system.slice/sshd.service\n", NULL},
	{"half a uid", "0::/kubepods/pod490c5e26-eb2b/a", NULL},
	{"a longer one", "0::/kubepods/pod" UID "0/a", NULL},
	{"not after a separator", "0::/kubepod" UID "/a", NULL},
	{"nothing", "", NULL},
	{"lines without colons", "a\nb:c\n::\n", NULL},
};

static void test_cgroups(void **state)
{
	for (unsigned i = 0; i < sizeof cgroups / sizeof *cgroups; i++) {
		char uid[POD_UID_MAX] = "";
		int e = kube_cgroup_uid(uid, cgroups[i].text);

		print_message("row: %s\n", cgroups[i].name);
		assert_int_equal(e, !cgroups[i].want ? -ENOENT : cgroups[i].want[0] ? 0 : -EINVAL);
		if (!e)
			assert_string_equal(uid, cgroups[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lines_in_any_pieces),
		cmocka_unit_test(test_lines_stop),
		cmocka_unit_test(test_lines_limit),
		cmocka_unit_test(test_events),
		cmocka_unit_test(test_deep_nesting_is_refused),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_pods),
		cmocka_unit_test(test_a_whole_pod),
		cmocka_unit_test(test_cgroups),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
