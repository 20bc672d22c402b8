/* SPDX-License-Identifier: Apache-2.0 */
/* Headers of HBONE as peers send them: baggage, forwarded. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "data/baggage.h"
#include "data/headers.h"

static const struct {
	const char *name, *in;
	int want; /* length, or -errno */
	const char *host;
} forwarded[] = {
	{"as sent by peers", "for=\"10.0.0.1:80\";host=web.default.svc.cluster.local", 29,
	 "web.default.svc.cluster.local"},
	{"v6 in quotes", "for=\"[fd00::1]:80\";host=web", 3, "web"},
	{"host first", "host=web;for=x", 3, "web"},
	{"quoted", "host=\"web\"", 3, "web"},
	{"quoted with escapes", "host=\"w\\\"e\\\\b\"", 5, "w\"e\\b"},
	{"separators in quotes", "for=\"a;host=b,c\";host=web", 3, "web"},
	{"upper-case name", "HOST=web", 3, "web"},
	{"blanks", " for=x ; host = web", 0, ""},
	{"blanks around values", "for=x; host= web ", 3, "web"},
	{"two elements", "for=x, host=web", 3, "web"},
	{"the first one counts", "host=a;host=b", 1, "a"},
	{"only for", "for=\"10.0.0.1:80\"", 0, ""},
	{"empty", "", 0, ""},
	{"empty value", "host=;for=x", 0, ""},
	{"empty quoted value", "host=\"\"", 0, ""},
	{"no value", "host", 0, ""},
	{"longer name", "xhost=a", 0, ""},
	{"prefix of the name", "hos=a", 0, ""},
	{"open quote", "host=\"web", -EINVAL, ""},
	{"open quote elsewhere", "for=\"x;host=web", -EINVAL, ""},
	{"open escape", "host=\"web\\", -EINVAL, ""},
	{"not ASCII", "host=w\xc3\xa4", -EINVAL, ""},
	{"control character", "host=w\x01", -EINVAL, ""},
	{"fits", "host=12345678901234567890123456789012345678901234567", 47,
	 "12345678901234567890123456789012345678901234567"},
	{"does not fit", "host=123456789012345678901234567890123456789012345678", -ENAMETOOLONG, ""},
	{"only separators", ";;,=;,", 0, ""},
};

static void test_forwarded(void **state)
{
	for (size_t i = 0; i < sizeof forwarded / sizeof *forwarded; i++) {
		char host[48];
		size_t len = strlen(forwarded[i].in);
		char *exact = memcpy(malloc(len + !len), forwarded[i].in, len); /* no terminator to lean on */
		int got = forwarded_parse(exact, len, host, sizeof host);

		free(exact);
		if (got != forwarded[i].want || strcmp(host, forwarded[i].host))
			fail_msg("%s: %d \"%s\"", forwarded[i].name, got, host);
	}
}

#define A64    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define TABS10 "\t\t\t\t\t\t\t\t\t\t"
#define TABS60 TABS10 TABS10 TABS10 TABS10 TABS10 TABS10
static const struct {
	const char *name, *in;
	int want;
	struct baggage b;
} baggages[] = {
	{"as sent by peers",
	 "k8s.cluster.name=K,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=web-svc,service."
	 "version=v1,"
	 "cloud.region=r,cloud.availability_zone=z",
	 0,
	 {"K", "ns", "web", "web-svc", "v1", "r", "z"}},
	{"cronjob", "k8s.cronjob.name=x", 0, {.workload = "x"}},
	{"pod", "k8s.pod.name=x", 0, {.workload = "x"}},
	{"job", "k8s.job.name=x", 0, {.workload = "x"}},
	{"other kind", "k8s.daemonset.name=x", 0, {""}},
	{"empty", "", 0, {""}},
	{"empty value", "service.name=", 0, {""}},
	{"no value", "service.name", 0, {""}},
	{"only separators", ",,=,;=,", 0, {""}},
	{"unknown keys", "a=b,service.name=s,c=d", 0, {.service = "s"}},
	{"blanks", " service.name = s ,\tservice.version=v", 0, {.service = "s", .version = "v"}},
	{"equals sign in the value", "service.name=a=b", 0, {.service = "a=b"}},
	{"properties are ignored", "service.name=a;p=1;q", 0, {.service = "a"}},
	{"property before the value", "service.name;x=1", 0, {""}},
	{"the last of two", "service.name=a,service.name=b", 0, {.service = "b"}},
	{"no percent-decoding", "service.name=%20", 0, {.service = "%20"}},
	{"quotes", "service.name=\"a\"", 0, {.service = "\"a\""}},
	{"cut", "service.name=" A64 A64 "b", 0, {.service = A64 A64}},
	{"cut leaves no blanks at the end",
	 "k8s#er.k#e=a;, service.version=" A64 "=t_\t\t\t" TABS60 " \t \tend",
	 0,
	 {.version = A64 "=t_"}},
	{"not ASCII spoils all", "service.name=a,service.version=\xc3\xa4", -EINVAL, {""}},
	{"line feed spoils all", "service.name=a,service.version=\n", -EINVAL, {""}},
};

static void test_baggage(void **state)
{
	for (size_t i = 0; i < sizeof baggages / sizeof *baggages; i++) {
		const struct baggage *want = &baggages[i].b;
		size_t len = strlen(baggages[i].in);
		char *exact = memcpy(malloc(len + !len), baggages[i].in, len);
		struct baggage got;
		int e;

		memset(&got, 'x', sizeof got);
		e = baggage_parse(&got, exact, len);
		free(exact);
		if (e != baggages[i].want || strcmp(got.cluster, want->cluster) || strcmp(got.ns, want->ns) ||
		    strcmp(got.workload, want->workload) || strcmp(got.service, want->service) ||
		    strcmp(got.version, want->version) || strcmp(got.region, want->region) ||
		    strcmp(got.zone, want->zone))
			fail_msg("%s: %d [%s %s %s %s %s %s %s]", baggages[i].name, e, got.cluster, got.ns,
				 got.workload, got.service, got.version, got.region, got.zone);
	}
}

/* Attributes that a row leaves out are NULL here and become "" in the test. */
static const struct {
	const char *name;
	struct workload w;
	size_t room;
	const char *want;
} formats[] = {
	{"all",
	 {.cluster_id = "K",
	  .ns = "ns",
	  .workload_type = "deployment",
	  .workload_name = "web",
	  .canonical_name = "s",
	  .canonical_revision = "v1",
	  .region = "r",
	  .zone = "z"},
	 1024,
	 "k8s.cluster.name=K,k8s.namespace.name=ns,k8s.deployment.name=web,service.name=s,service.version=v1,"
	 "cloud.region=r,cloud.availability_zone=z"},
	{"nothing", {.ns = ""}, 1024, ""},
	{"empty ones are left out", {.ns = "ns", .zone = "z"}, 1024, "k8s.namespace.name=ns,cloud.availability_zone=z"},
	{"workload without a type", {.workload_name = "web"}, 1024, ""},
	{"what does not fit is left out", {.cluster_id = "0123456789", .zone = "z"}, 27, "cloud.availability_zone=z"},
	{"just fits", {.zone = "z"}, 26, "cloud.availability_zone=z"},
	{"just does not fit", {.zone = "z"}, 25, ""},
	{"separator in a value", {.ns = "a,b", .zone = "z"}, 1024, "cloud.availability_zone=z"},
	{"line feed in a value", {.ns = "a\nb", .zone = "z"}, 1024, "cloud.availability_zone=z"},
	{"separator in the type", {.workload_type = "a=b", .workload_name = "w"}, 1024, ""},
};

static struct workload filled(const struct workload *from)
{
	struct workload w = *from;
	const char **fields[] = {
		&w.cluster_id,	       &w.ns,	  &w.workload_type, &w.workload_name, &w.canonical_name,
		&w.canonical_revision, &w.region, &w.zone};

	for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
		*fields[i] = *fields[i] ? *fields[i] : "";
	return w;
}

static void test_format(void **state)
{
	for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
		struct workload w = filled(&formats[i].w);
		char *buf = malloc(formats[i].room);
		size_t n = baggage_format(buf, formats[i].room, &w);

		if (strcmp(buf, formats[i].want) || n != strlen(formats[i].want))
			fail_msg("%s: %zu %s", formats[i].name, n, buf);
		free(buf);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forwarded),
		cmocka_unit_test(test_baggage),
		cmocka_unit_test(test_format),
	};
	return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
