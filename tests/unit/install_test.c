/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of what the installer is made of: whether it stays when the keeper ends, our entry, the plugin's kubeconfig and
 * programs. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "node/install_daemonset.h"
#include "node/install_internal.h"

static char dir[] = "/tmp/install_test.XXXXXX";

/* --- stay or go ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *name;
	int status;
	const char *daemonset;
	enum install_future want;
} futures[] = {
	{"it is there", 200, "{'metadata': {}}", INSTALL_BY_NODE},
	{"it is being deleted", 200, "{'metadata': {'deletionTimestamp': '2026-01-01T00:00:00Z'}}", INSTALL_GOES},
	{"it is not", 200, "{'metadata': {'deletionTimestamp': null}}", INSTALL_BY_NODE},
	{"an answer that is no DaemonSet", 200, "[]", INSTALL_UNCLEAR},
	{"gone", 404, NULL, INSTALL_GOES},
	{"our account is refused", 401, NULL, INSTALL_UNCLEAR},
	{"our role is not enough", 403, NULL, INSTALL_UNCLEAR},
	{"no answer", 0, NULL, INSTALL_UNCLEAR},
	{"the server is in trouble", 500, NULL, INSTALL_UNCLEAR},
	{"the server is busy", 429, NULL, INSTALL_UNCLEAR},
	{"somebody else's answer", 302, NULL, INSTALL_UNCLEAR},
};

/* With ' for ". */
static json_t *object(const char *text)
{
	char *copy = text ? strdup(text) : NULL;
	json_t *o;

	for (char *p = copy; p && *p; p++)
		*p = *p == '\'' ? '"' : *p;
	o = copy ? json_loads(copy, 0, NULL) : NULL;
	assert_true(!text || o);
	free(copy);
	return o;
}

static void test_futures(void **state)
{
	for (unsigned i = 0; i < sizeof futures / sizeof *futures; i++) {
		json_t *o = object(futures[i].daemonset);

		print_message("row: %s\n", futures[i].name);
		assert_int_equal(install_future(futures[i].status, o), futures[i].want);
		json_decref(o);
	}
}

#define ZONE "{'key': 'zone', 'operator': "
static const struct {
	const char *name, *terms; /* of a node "n1" with the labels zone=a, cores=8 */
	bool wanted;
} nodes[] = {
	{"no affinity", NULL, true},
	{"no terms", "[]", true},
	{"in", "[{'matchExpressions': [" ZONE "'In', 'values': ['b', 'a']}]}]", true},
	{"not in the list", "[{'matchExpressions': [" ZONE "'In', 'values': ['b']}]}]", false},
	{"one of two terms",
	 "[{'matchExpressions': [" ZONE "'In', 'values': ['b']}]}, {'matchExpressions': [" ZONE "'Exists'}]}]", true},
	{"all of a term", "[{'matchExpressions': [" ZONE "'Exists'}, " ZONE "'In', 'values': ['b']}]}]", false},
	{"excluded", "[{'matchExpressions': [" ZONE "'NotIn', 'values': ['a']}]}]", false},
	{"not excluded", "[{'matchExpressions': [" ZONE "'NotIn', 'values': ['b']}]}]", true},
	{"without the label", "[{'matchExpressions': [{'key': 'other', 'operator': 'NotIn', 'values': ['b']}]}]", true},
	{"a label that must not be there", "[{'matchExpressions': [" ZONE "'DoesNotExist'}]}]", false},
	{"greater", "[{'matchExpressions': [{'key': 'cores', 'operator': 'Gt', 'values': ['4']}]}]", true},
	{"not greater", "[{'matchExpressions': [{'key': 'cores', 'operator': 'Gt', 'values': ['8']}]}]", false},
	{"less", "[{'matchExpressions': [{'key': 'cores', 'operator': 'Lt', 'values': ['9']}]}]", true},
	{"no number", "[{'matchExpressions': [" ZONE "'Gt', 'values': ['4']}]}]", false},
	{"by name", "[{'matchFields': [{'key': 'metadata.name', 'operator': 'In', 'values': ['n1']}]}]", true},
	{"another's name", "[{'matchFields': [{'key': 'metadata.name', 'operator': 'In', 'values': ['n2']}]}]", false},
	{"a term without requirements", "[{}]", false},
	{"an operator of the future", "[{'matchExpressions': [" ZONE "'Near', 'values': ['b']}]}]", true},
};

static void test_nodes(void **state)
{
	json_t *node = object("{'metadata': {'name': 'n1', 'labels': {'zone': 'a', 'cores': '8'}}}");

	for (unsigned i = 0; i < sizeof nodes / sizeof *nodes; i++) {
		json_t *terms = object(nodes[i].terms);
		json_t *o = json_pack("{s{s{s{s{s{s{ss so*}}}}}}}", "spec", "template", "spec", "affinity",
				      "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "note", "x",
				      "nodeSelectorTerms", terms);

		print_message("row: %s\n", nodes[i].name);
		assert_non_null(o);
		assert_int_equal(install_node_wanted(o, node), nodes[i].wanted);
		json_decref(o);
	}
	json_decref(node);
}

/* --- our entry --------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name;
	struct install_entry entry;
	const char *want, *wrong;
} entries[] = {
	{"in Kubernetes",
	 {.run_dir = "/var/run/istio-cni",
	  .selectors = "- podSelector: {matchLabels: {a: b}}",
	  .excluded = "kube-system, other,,",
	  .pod_namespace = "istio-system",
	  .log_level = "info",
	  .ambient = true},
	 "{'type': 'istio-cni', 'name': 'istio-cni', 'plugin_log_level': 'info', 'ambient_enabled': true, "
	 "'enable_ambient_detection_retry': false, 'cni_agent_run_dir': '/var/run/istio-cni', 'pod_namespace': "
	 "'istio-system', 'exclude_namespaces': ['kube-system', 'other'], 'enablement_selectors': [{'podSelector': "
	 "{'matchLabels': {'a': 'b'}}}]}",
	 NULL},
	{"on a plain machine",
	 {.socket = "/run/culvert/cni.sock", .log_level = "debug", .ambient = true, .retry = true},
	 "{'type': 'istio-cni', 'name': 'istio-cni', 'plugin_log_level': 'debug', 'ambient_enabled': true, "
	 "'enable_ambient_detection_retry': true, 'cni_socket': '/run/culvert/cni.sock'}",
	 NULL},
	{"selectors that are not YAML", {.log_level = "info", .selectors = "["}, NULL, "AMBIENT_ENABLEMENT_SELECTOR: "},
	{"not UTF-8", {.log_level = "info", .socket = "/\xff"}, NULL, "not UTF-8"},
};

static void test_entries(void **state)
{
	for (unsigned i = 0; i < sizeof entries / sizeof *entries; i++) {
		char why[POD_WHY_MAX] = "";
		json_t *want = object(entries[i].want), *is = install_entry_json(&entries[i].entry, why);

		print_message("row: %s\n", entries[i].name);
		if (want)
			assert_true(json_equal(is, want));
		else
			assert_true(!is && strstr(why, entries[i].wrong));
		json_decref(want);
		json_decref(is);
	}
}

/* --- kubeconfig ---------------------------------------------------------------------------------------------------- */

static const char *file_put(const char *name, const char *text)
{
	static char path[PATH_MAX];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_true(f && fputs(text, f) >= 0 && fclose(f) == 0);
	return path;
}

/* What is written is read as kube_config.c reads it: that is what culvert-cni-api does. */
static void reads_as(const struct install *in, const char *token, const char *ca, bool skip)
{
	struct kube_config_sources from = {.kubeconfig = NULL};
	char path[PATH_MAX], why[POD_WHY_MAX] = "", got[64] = "";
	struct kube_config c;
	struct stat st;
	FILE *f;

	snprintf(path, sizeof path, "%s/" INSTALL_KUBECONFIG, dir);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, in->o.kubeconfig_mode);
	from.kubeconfig = path;
	assert_int_equal(kube_config_read(&c, &from, why), 0);
	assert_string_equal(c.server, "https://10.0.0.1:443");
	assert_string_equal(c.token, token);
	assert_int_equal(c.skip_verify, skip);
	if (ca) {
		f = fopen(c.ca_file, "r");
		assert_true(f && fread(got, 1, sizeof got, f) == strlen(ca) && fclose(f) == 0);
		assert_string_equal(got, ca);
	} else {
		assert_string_equal(c.ca_file, "");
	}
	kube_config_close(&c);
}

static void test_kubeconfig(void **state)
{
	static const char *const certificates[] = {"c", "ce", "cer", "cert"}; /* by the rest in base64 */
	struct kube_config api = {.server = "https://10.0.0.1:443", .ca_fd = -1};
	struct install in = {.o = {.run_dir = dir, .api = &api, .kubeconfig_mode = 0600}};
	char why[POD_WHY_MAX] = "";
	bool changed = false;

	snprintf(api.token_file, sizeof api.token_file, "%s", file_put("token", "one\n"));
	snprintf(api.ca_file, sizeof api.ca_file, "%s", file_put("ca.crt", "x"));
	for (unsigned i = 0; i < sizeof certificates / sizeof *certificates; i++) {
		file_put("ca.crt", certificates[i]);
		assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
		reads_as(&in, "one", certificates[i], false);
	}
	assert_true(changed);
	changed = false;
	assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
	assert_false(changed);
	file_put("token", "two");
	assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
	assert_true(changed);
	reads_as(&in, "two", "cert", false);
	file_put(INSTALL_KUBECONFIG, "damaged");
	assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
	in.o.kubeconfig_mode = 0640;
	assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
	reads_as(&in, "two", "cert", false);
	api.skip_verify = true;
	assert_int_equal(install_kubeconfig(&in, &changed, why), 0);
	reads_as(&in, "two", NULL, true);
	file_put("token", "two\nlines");
	assert_int_not_equal(install_kubeconfig(&in, &changed, why), 0);
	assert_null(strstr(why, "lines")); /* a secret is not for the log */
	reads_as(&in, "two", NULL, true);
	unlink(api.token_file);
	assert_int_not_equal(install_kubeconfig(&in, &changed, why), 0);
	assert_non_null(strstr(why, "token"));
	api.skip_verify = false;
	unlink(api.ca_file);
	assert_int_not_equal(install_kubeconfig(&in, &changed, why), 0);
	assert_non_null(strstr(why, "ca.crt"));
	install_kubeconfig_remove(&in);
}

/* --- programs ------------------------------------------------------------------------------------------------------ */

static const char *touched; /* by somebody, while the folder that it is in is brought to the disk */

int fsync(int fd)
{
	struct stat st;

	if (touched && fstat(fd, &st) == 0 && S_ISDIR(st.st_mode)) {
		assert_int_equal(chmod(touched, 0600), 0);
		touched = NULL;
	}
	return 0;
}

static void test_program_touched_at_once(void **state)
{
	char from[PATH_MAX], plugin[PATH_MAX], why[POD_WHY_MAX] = "";
	struct install in = {.o = {.bin_dir = dir, .from_dir = from}};
	bool changed = false;
	struct stat st;

	snprintf(from, sizeof from, "%s/from", dir);
	snprintf(plugin, sizeof plugin, "%s/" INSTALL_TYPE, dir);
	assert_int_equal(mkdir(from, 0755), 0);
	file_put("from/culvert-cni", "plugin");
	file_put("from/culvert-cni-api", "helper");
	assert_int_equal(install_programs(&in, &changed, why), 0);
	file_put(INSTALL_TYPE, "of another");
	touched = plugin;
	for (unsigned pass = 0; pass < 2; pass++) {
		changed = false;
		assert_int_equal(install_programs(&in, &changed, why), 0);
		assert_true(changed);
	}
	assert_int_equal(stat(plugin, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	changed = false;
	assert_int_equal(install_programs(&in, &changed, why), 0);
	assert_false(changed);
	install_programs_remove(&in);
	unlink(file_put("from/culvert-cni", ""));
	unlink(file_put("from/culvert-cni-api", ""));
	rmdir(from);
}

static int begin(void **state)
{
	log_set_filter("off");
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_futures), cmocka_unit_test(test_nodes),
					   cmocka_unit_test(test_entries), cmocka_unit_test(test_kubeconfig),
					   cmocka_unit_test(test_program_touched_at_once)};

	return cmocka_run_group_tests(tests, begin, end);
}
