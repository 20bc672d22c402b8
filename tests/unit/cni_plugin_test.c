/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the CNI plugin: environment, configuration, results byte for byte, what the keeper is told, what it answers. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <cmocka.h>

#include "../../cni-plugin/agent.h"
#include "../../cni-plugin/plugin.h"
#include "../../cni-plugin/result.h"

static int parse(struct conf *c, const char *text, struct failure *f)
{
	f->code = 0;
	f->msg[0] = '\0';
	return conf_parse(c, strdup(text), strlen(text), f);
}

/* --- configuration ---------------------------------------------------------------------------------------- */

#define HEAD "\"cniVersion\":\"1.0.0\",\"name\":\"net\",\"type\":\"culvert-cni\""

static const struct {
	const char *claim, *text;
	int code;
} confs[] = {
	{"the least that there can be", "{" HEAD "}", 0},
	{"blanks around it", " \n\t{" HEAD "} \n", 0},
	{"what istio-cni's installer writes",
	 "{" HEAD ",\"ambient_enabled\":true,\"cni_agent_run_dir\":\"/var/run/istio-cni\",\"dns\":{},"
	 "\"enable_ambient_detection_retry\":false,\"enablement_selectors\":[{\"podSelector\":{\"matchLabels\":{\"a\":"
	 "\"b\"}}}],\"exclude_namespaces\":null,\"ipam\":{},\"native_nftables\":false,\"plugin_log_level\":\"info\","
	 "\"pod_namespace\":\"istio-system\"}",
	 0},
	{"unknown keys are of no concern", "{" HEAD ",\"other\":{\"deep\":[1,2,{}]}}", 0},
	{"numbers of any size", "{" HEAD ",\"n\":123456789012345678901234567890,\"m\":-0.0e-7}", 0},
	{"null is as good as missing", "{" HEAD ",\"prevResult\":null,\"ambient_enabled\":null,\"cni_socket\":null}",
	 0},
	{"nothing", "", E_DECODE},
	{"an array", "[]", E_DECODE},
	{"cut", "{" HEAD, E_DECODE},
	{"a newline where it breaks", "{" HEAD ",\"a\\\\\n\":1 x", E_DECODE},
	{"more than one value", "{" HEAD "}{}", E_DECODE},
	{"a key twice", "{" HEAD ",\"name\":\"other\"}", E_DECODE},
	{"not UTF-8", "{" HEAD ",\"x\":\"\xff\"}", E_DECODE},
	{"a zero byte in a string", "{" HEAD ",\"x\":\"a\\u0000b\"}", E_DECODE},
	{"no version", "{\"name\":\"net\"}", E_VERSION},
	{"a version that is too old", "{\"cniVersion\":\"0.2.0\",\"name\":\"net\"}", E_VERSION},
	{"a version that is not known yet", "{\"cniVersion\":\"1.2.0\",\"name\":\"net\"}", E_VERSION},
	{"a version with more behind it", "{\"cniVersion\":\"1.0.0 \",\"name\":\"net\"}", E_VERSION},
	{"a version that is a number", "{\"cniVersion\":1,\"name\":\"net\"}", E_CONFIG},
	{"no name", "{\"cniVersion\":\"1.0.0\"}", E_CONFIG},
	{"an empty name", "{\"cniVersion\":\"1.0.0\",\"name\":\"\"}", E_CONFIG},
	{"a name with a slash", "{\"cniVersion\":\"1.0.0\",\"name\":\"a/b\"}", E_CONFIG},
	{"a name that begins with a dot", "{\"cniVersion\":\"1.0.0\",\"name\":\".a\"}", E_CONFIG},
	{"the run directory is a number", "{" HEAD ",\"cni_agent_run_dir\":7}", E_CONFIG},
	{"the run directory is relative", "{" HEAD ",\"cni_agent_run_dir\":\"run\"}", E_CONFIG},
	{"the socket is relative", "{" HEAD ",\"cni_socket\":\"cni.sock\"}", E_CONFIG},
	{"excluded namespaces are a text", "{" HEAD ",\"exclude_namespaces\":\"a,b\"}", E_CONFIG},
	{"selectors are an object", "{" HEAD ",\"enablement_selectors\":{}}", E_CONFIG},
	{"a switch is a text", "{" HEAD ",\"ambient_enabled\":\"true\"}", E_CONFIG},
	{"prevResult is an array", "{" HEAD ",\"prevResult\":[]}", E_CONFIG},
	{"prevResult is a text", "{" HEAD ",\"prevResult\":\"{}\"}", E_CONFIG},
	{"prevResult in escapes", "{" HEAD ",\"prevResul\\u0074\":{}}", E_DECODE},
};

static void test_conf(void **state)
{
	for (unsigned i = 0; i < sizeof confs / sizeof *confs; i++) {
		struct failure f;
		struct conf c;
		int e = parse(&c, confs[i].text, &f);

		print_message("conf: %s: %s\n", confs[i].claim, f.msg);
		assert_int_equal(e, confs[i].code);
		assert_int_equal(f.msg[0] != '\0', confs[i].code != 0);
		assert_null(strchr(f.msg, '\n'));
		conf_free(&c);
	}
}

static const struct {
	const char *claim, *more, *socket, *kubeconfig;
} paths[] = {
	{"ours by default", "", "/run/culvert/cni.sock", ""},
	{"Istio's folder", ",\"cni_agent_run_dir\":\"/d\"", "/d/pluginevent.sock", "/d/istio-cni-kubeconfig"},
	{"our key wins", ",\"cni_agent_run_dir\":\"/d\",\"cni_socket\":\"/s\",\"kubeconfig\":\"/k\"", "/s", "/k"},
};

static void test_paths(void **state)
{
	for (unsigned i = 0; i < sizeof paths / sizeof *paths; i++) {
		struct failure f;
		struct conf c;
		char text[512];

		snprintf(text, sizeof text, "{" HEAD "%s}", paths[i].more);
		assert_int_equal(parse(&c, text, &f), 0);
		assert_string_equal(c.socket, paths[i].socket);
		assert_string_equal(c.kubeconfig, paths[i].kubeconfig);
		conf_free(&c);
	}
}

static void test_values(void **state)
{
	struct failure f;
	struct conf c;

	assert_int_equal(parse(&c, "{" HEAD "}", &f), 0);
	assert_true(c.ambient && !c.retry && !c.strict_status);
	assert_string_equal(c.pod_namespace, "");
	assert_true(conf_since(&c, "0.4.0") && conf_since(&c, "1.0.0") && !conf_since(&c, "1.1.0"));
	assert_false(conf_excludes(&c, "a"));
	conf_free(&c);
	assert_int_equal(parse(&c,
			       "{" HEAD ",\"ambient_enabled\":false,\"strict_status\":true,"
			       "\"enable_ambient_detection_retry\":true,\"exclude_namespaces\":[\"a\",1,\"b c\"]}",
			       &f),
			 0);
	assert_true(!c.ambient && c.retry && c.strict_status);
	assert_true(conf_excludes(&c, "a") && conf_excludes(&c, "b c") && !conf_excludes(&c, "b"));
	conf_free(&c);
}

/* --- results ------------------------------------------------------------------------------------------------ */

static const struct {
	const char *claim, *version, *prev, *want; /* want NULL: as it came */
	int code;
} results[] = {
	{"byte for byte", "1.0.0", "{ \"cniVersion\" : \"1.0.0\",\n\t\"x\":1e2 }", NULL, 0},
	{"large numbers", "1.0.0", "{\"cniVersion\":\"1.0.0\",\"n\":[123456789012345678901234,1.50,-0]}", NULL, 0},
	{"keys of others, in their order", "1.1.0", "{\"z\":{},\"cniVersion\":\"1.1.0\",\"a\":{\"z\":[],\"b\":null}}",
	 NULL, 0},
	{"brackets and quotes in texts", "1.0.0",
	 "{\"a\":\"}]\\\"{\\\\\",\"b\\\"\":\"prevResult\",\"cniVersion\":\"1.0.0\",\"c\":\"\\\\\"}", NULL, 0},
	{"escapes are kept", "1.0.0", "{\"cniVersion\":\"1.0.0\",\"a\":\"\\u00e4\\/\"}", NULL, 0},
	{"no prevResult", "0.4.0", NULL, "{\"cniVersion\":\"0.4.0\"}", 0},
	{"a version of the same family is put right", "1.1.0", "{\"a\":1, \"cniVersion\": \"1.0.0\" ,\"b\":2.0}",
	 "{\"a\":1, \"cniVersion\": \"1.1.0\" ,\"b\":2.0}", 0},
	{"of the old family as well", "0.3.1", "{\"cniVersion\":\"0.4.0\"}", "{\"cniVersion\":\"0.3.1\"}", 0},
	{"only the outer one", "1.1.0", "{\"a\":{\"cniVersion\":\"1.0.0\"},\"cniVersion\":\"1.0.0\"}",
	 "{\"a\":{\"cniVersion\":\"1.0.0\"},\"cniVersion\":\"1.1.0\"}", 0},
	{"without a version", "1.0.0", "{ \"a\":1}", "{\"cniVersion\":\"1.0.0\", \"a\":1}", 0},
	{"without anything", "1.0.0", "{}", "{\"cniVersion\":\"1.0.0\"}", 0},
	{"without anything but a blank", "1.0.0", "{ }", "{\"cniVersion\":\"1.0.0\" }", 0},
	{"of the other family", "1.0.0", "{\"cniVersion\":\"0.4.0\"}", NULL, E_VERSION},
	{"of the other family, the other way", "0.4.0", "{\"cniVersion\":\"1.0.0\"}", NULL, E_VERSION},
	{"of no version that is known", "1.0.0", "{\"cniVersion\":\"1.7.0\"}", NULL, E_VERSION},
	{"a version that is a number", "1.0.0", "{\"cniVersion\":1}", NULL, E_CONFIG},
	{"a version behind escapes", "1.1.0", "{\"cni\\u0056ersion\":\"1.0.0\"}", NULL, E_DECODE},
};

static void test_results(void **state)
{
	for (unsigned i = 0; i < sizeof results / sizeof *results; i++) {
		const char *want = results[i].want ? results[i].want : results[i].prev;
		struct failure f = {.code = 0};
		char text[1024], *out = NULL;
		struct conf c;
		size_t len = 0;
		int e;

		print_message("result: %s\n", results[i].claim);
		snprintf(text, sizeof text, "{\"cniVersion\":\"%s\",\"name\":\"n\"%s%s}", results[i].version,
			 results[i].prev ? ", \"prevResult\" :" : "", results[i].prev ? results[i].prev : "");
		assert_int_equal(parse(&c, text, &f), 0);
		e = result_make(&c, &out, &len, &f);
		assert_int_equal(e, results[i].code);
		if (!e) {
			assert_int_equal(len, strlen(want));
			assert_memory_equal(out, want, len);
		}
		free(out);
		conf_free(&c);
	}
}

static const struct {
	const char *claim, *prev, *want; /* NULL: E_CONFIG */
} addresses[] = {
	{"none without a prevResult", NULL, "null"},
	{"none", "{}", "[]"},
	{"null", "{\"ips\":null}", "[]"},
	{"IPv4 and its mask", "{\"ips\":[{\"interface\":2,\"address\":\"10.1.2.3/32\",\"gateway\":\"10.1.2.1\"}]}",
	 "[{\"Interface\":2,\"Address\":{\"IP\":\"10.1.2.3\",\"Mask\":\"/////w==\"},\"Gateway\":\"10.1.2.1\"}]"},
	{"/24", "{\"ips\":[{\"address\":\"10.1.2.3/24\"}]}",
	 "[{\"Interface\":null,\"Address\":{\"IP\":\"10.1.2.3\",\"Mask\":\"////AA==\"},\"Gateway\":\"\"}]"},
	{"/0 and /20", "{\"ips\":[{\"address\":\"0.0.0.0/0\"},{\"address\":\"10.0.0.1/20\"}]}",
	 "[{\"Interface\":null,\"Address\":{\"IP\":\"0.0.0.0\",\"Mask\":\"AAAAAA==\"},\"Gateway\":\"\"},"
	 "{\"Interface\":null,\"Address\":{\"IP\":\"10.0.0.1\",\"Mask\":\"///wAA==\"},\"Gateway\":\"\"}]"},
	{"IPv6", "{\"ips\":[{\"address\":\"fd00::3/128\"},{\"address\":\"fd00::4/64\"}]}",
	 "[{\"Interface\":null,\"Address\":{\"IP\":\"fd00::3\",\"Mask\":\"/////////////////////"
	 "w==\"},\"Gateway\":\"\"},"
	 "{\"Interface\":null,\"Address\":{\"IP\":\"fd00::4\",\"Mask\":\"//////////"
	 "8AAAAAAAAAAA==\"},\"Gateway\":\"\"}]"},
	{"a text", "{\"ips\":\"10.0.0.1/8\"}", NULL},
	{"an address without a length", "{\"ips\":[{\"address\":\"10.0.0.1\"}]}", NULL},
	{"no address", "{\"ips\":[{}]}", NULL},
	{"no object", "{\"ips\":[7]}", NULL},
	{"a length that is too long", "{\"ips\":[{\"address\":\"10.0.0.1/33\"}]}", NULL},
	{"an interface that is a text", "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":\"eth0\"}]}", NULL},
	{"an interface past every integer", "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":9e127}]}", NULL},
	{"an interface below every integer", "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":-9e127}]}", NULL},
	{"an interface that is a fraction", "{\"ips\":[{\"address\":\"10.0.0.1/8\",\"interface\":0.5}]}", NULL},
};

static void test_addresses(void **state)
{
	for (unsigned i = 0; i < sizeof addresses / sizeof *addresses; i++) {
		struct failure f;
		json_t *ips = NULL;
		struct conf c;
		char text[1024], *got;
		int e;

		print_message("addresses: %s\n", addresses[i].claim);
		snprintf(text, sizeof text, "{" HEAD "%s%s}", addresses[i].prev ? ",\"prevResult\":" : "",
			 addresses[i].prev ? addresses[i].prev : "");
		assert_int_equal(parse(&c, text, &f), 0);
		e = result_ips(&c, &ips, &f);
		assert_int_equal(e, addresses[i].want ? 0 : E_CONFIG);
		got = e ? NULL : json_dumps(ips, JSON_COMPACT | JSON_ENCODE_ANY);
		if (!e)
			assert_string_equal(got, addresses[i].want);
		free(got);
		json_decref(ips);
		conf_free(&c);
	}
}

static void test_errors(void **state)
{
	struct failure f = {.code = 11, .msg = "\"quoted\" \\ and \n"}, bad = {.code = 7, .msg = "\xff"};
	char *text = result_error("1.0.0", &f);
	json_t *o = json_loads(text, 0, NULL);

	assert_string_equal(json_string_value(json_object_get(o, "cniVersion")), "1.0.0");
	assert_int_equal(json_integer_value(json_object_get(o, "code")), 11);
	assert_string_equal(json_string_value(json_object_get(o, "msg")), f.msg);
	json_decref(o);
	free(text);
	text = result_error("", &bad);
	assert_non_null(strstr(text, "1.1.0"));
	assert_non_null(strstr(text, "not UTF-8"));
	free(text);
	text = result_versions("0.4.0");
	o = json_loads(text, 0, NULL);
	assert_string_equal(json_string_value(json_object_get(o, "cniVersion")), "0.4.0");
	assert_int_equal(json_array_size(json_object_get(o, "supportedVersions")), 5);
	json_decref(o);
	free(text);
}

/* --- environment ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *claim, *command, *container, *netns, *ifname, *path, *args;
	int code;
	const char *name; /* of the pod */
} envs[] = {
	{"ADD", "ADD", "c1", "/n", "eth0", "/p", "K8S_POD_NAME=a;K8S_POD_NAMESPACE=b;K8S_POD_UID=u", 0, "a"},
	{"ADD without Kubernetes", "ADD", "c1", "/n", "eth0", "/p", NULL, 0, ""},
	{"unknown arguments that may be ignored", "ADD", "c1", "/n", "eth0", "/p", "X=1;K8S_POD_NAME=a;IgnoreUnknown=1",
	 0, "a"},
	{"true is as good", "ADD", "c1", "/n", "eth0", "/p", "IgnoreUnknown=true;X=1;K8S_POD_NAME=a", 0, "a"},
	{"unknown arguments", "ADD", "c1", "/n", "eth0", "/p", "X=1", 4, NULL},
	{"an argument without a value", "ADD", "c1", "/n", "eth0", "/p", "K8S_POD_NAME", 4, NULL},
	{"an argument with two", "ADD", "c1", "/n", "eth0", "/p", "K8S_POD_NAME=a=b", 4, NULL},
	{"an argument without a key", "ADD", "c1", "/n", "eth0", "/p", "=a", 4, NULL},
	{"DEL takes what it gets", "DEL", "c1", NULL, "eth0", "/p", "X=1;K8S_POD_NAME=a", 0, "a"},
	{"no container", "ADD", NULL, "/n", "eth0", "/p", NULL, 4, NULL},
	{"a container with a slash", "ADD", "a/b", "/n", "eth0", "/p", NULL, 4, NULL},
	{"no namespace", "ADD", "c1", NULL, "eth0", "/p", NULL, 4, NULL},
	{"no namespace for CHECK", "CHECK", "c1", NULL, "eth0", "/p", NULL, 4, NULL},
	{"no interface", "ADD", "c1", "/n", NULL, "/p", NULL, 4, NULL},
	{"an interface that is too long", "ADD", "c1", "/n", "abcdefghijklmnop", "/p", NULL, 4, NULL},
	{"an interface with a colon", "ADD", "c1", "/n", "eth0:1", "/p", NULL, 4, NULL},
	{"an interface of dots", "ADD", "c1", "/n", "..", "/p", NULL, 4, NULL},
	{"no path", "ADD", "c1", "/n", "eth0", NULL, NULL, 4, NULL},
	{"no path for DEL", "DEL", "c1", NULL, "eth0", NULL, NULL, 4, NULL},
	{"STATUS needs nothing", "STATUS", NULL, NULL, NULL, NULL, NULL, 0, ""},
	{"GC needs nothing", "GC", NULL, NULL, NULL, NULL, NULL, 0, ""},
	{"another command", "REMOVE", "c1", "/n", "eth0", "/p", NULL, 4, NULL},
	{"in small letters", "add", "c1", "/n", "eth0", "/p", NULL, 4, NULL},
};

static void put(const char *name, const char *value)
{
	if (value)
		setenv(name, value, 1);
	else
		unsetenv(name);
}

static void test_env(void **state)
{
	for (unsigned i = 0; i < sizeof envs / sizeof *envs; i++) {
		struct failure f = {.code = 0};
		struct env e;
		int err;

		put("CNI_COMMAND", envs[i].command);
		put("CNI_CONTAINERID", envs[i].container);
		put("CNI_NETNS", envs[i].netns);
		put("CNI_IFNAME", envs[i].ifname);
		put("CNI_PATH", envs[i].path);
		put("CNI_ARGS", envs[i].args);
		err = env_command(&e, &f);
		if (!err)
			err = env_read(&e, &f);
		print_message("env: %s: %s\n", envs[i].claim, f.msg);
		assert_int_equal(err, envs[i].code);
		if (!err)
			assert_string_equal(e.pod_name, envs[i].name);
	}
}

static void test_own_netns(void **state)
{
	struct env e = {.command = CMD_ADD, .netns = "/proc/self/ns/net"};
	struct failure f = {.code = 0};

	unsetenv("CNI_NETNS_OVERRIDE");
	assert_int_equal(env_check_netns(&e, &f), E_NETNS);
	setenv("CNI_NETNS_OVERRIDE", "true", 1);
	assert_int_equal(env_check_netns(&e, &f), 0);
	unsetenv("CNI_NETNS_OVERRIDE");
	e.netns = "/nowhere";
	assert_int_equal(env_check_netns(&e, &f), 0);
	e.netns = "/proc/self/ns/uts";
	assert_int_equal(env_check_netns(&e, &f), 0);
}

/* --- the keeper's answers -------------------------------------------------------------------------------------- */

static const struct {
	const char *claim, *data;
	int status; /* 0: -EPROTO */
	const char *text;
} answers[] = {
	{"good", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, ""},
	{"of the older HTTP", "HTTP/1.0 503 Service Unavailable\r\n\r\nno tunnel\n", 503, "no tunnel"},
	{"several lines are one", "HTTP/1.1 500 x\r\n\r\na\nb\tc\n\n", 500, "a b c"},
	{"no words", "HTTP/1.1 200\r\n\r\n", 200, ""},
	{"a status of four digits", "HTTP/1.1 2000 OK\r\n\r\n", 0, NULL},
	{"a status with words behind it", "HTTP/1.1 200OK\r\n\r\n", 0, NULL},
	{"cut in the headers", "HTTP/1.1 200 OK\r\nContent-", 0, NULL},
	{"no status", "HTTP/1.1 OK\r\n\r\n", 0, NULL},
	{"another protocol", "SSH-2.0-x\r\n\r\n", 0, NULL},
	{"nothing", "", 0, NULL},
};

static void test_answers(void **state)
{
	for (unsigned i = 0; i < sizeof answers / sizeof *answers; i++) {
		struct agent_answer a = {0};
		int e = agent_parse(answers[i].data, strlen(answers[i].data), &a);

		print_message("answer: %s\n", answers[i].claim);
		assert_int_equal(e, answers[i].status ? 0 : -EPROTO);
		assert_int_equal(a.status, answers[i].status);
		if (!e)
			assert_string_equal(a.text, answers[i].text);
	}
}

static int listener;

/* A keeper that takes what it is told a little at a time, each time soon enough. */
static void *slow_keeper(void *arg)
{
	int fd = accept(listener, NULL, NULL);
	char buf[4096];

	while (recv(fd, buf, sizeof buf, 0) > 0)
		usleep(50000);
	close(fd);
	return NULL;
}

/* The deadline is of all that is sent, not of each part. */
static void test_deadline_while_sending(void **state)
{
	enum { BODY = 4 << 20, PATIENCE_MS = 500 };
	char path[] = "/tmp/cni-plugin-test-XXXXXX", *body = malloc(BODY + 1);
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	struct agent_answer a = {0};
	uint64_t start = now_ms();
	pthread_t thread;
	int e;

	if (geteuid() != 0)
		skip(); /* whom it does not take for the keeper */
	close(mkstemp(path));
	unlink(path);
	strcpy(at.sun_path, path);
	memset(body, ' ', BODY);
	body[BODY] = '\0';
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(pthread_create(&thread, NULL, slow_keeper, NULL), 0);
	e = agent_call(path, "/x", body, start + PATIENCE_MS, &a);
	assert_int_equal(e, -ETIMEDOUT);
	assert_true(now_ms() - start < 3 * PATIENCE_MS);
	pthread_join(thread, NULL);
	close(listener);
	unlink(path);
	free(body);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_conf),	  cmocka_unit_test(test_paths),
		cmocka_unit_test(test_values),	  cmocka_unit_test(test_results),
		cmocka_unit_test(test_addresses), cmocka_unit_test(test_errors),
		cmocka_unit_test(test_env),	  cmocka_unit_test(test_own_netns),
		cmocka_unit_test(test_answers),	  cmocka_unit_test(test_deadline_while_sending),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
