/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the editing of CNI configurations: what is written with our entry, that the file without it is the one that was
 * there, byte for byte, and what is refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "node/install_file.h"
#include "node/install_list.h"

#define OURS "{\"type\": \"istio-cni\", \"cni_agent_run_dir\": \"/r\"}"
#define HEAD "{\"cniVersion\": \"1.0.0\", \"name\": \"n\", "

static json_t *entry(void)
{
	return json_pack("{ss ss}", "type", "istio-cni", "cni_agent_run_dir", "/r");
}

static int list_read(struct install_list *l, const char *name, const char *text, char *why)
{
	return install_list_read(l, name, strdup(text), strlen(text), why);
}

/* --- with our entry ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *file, *before, *after;
	const char *back; /* without us; NULL: as before */
} edits[] = {
	{"in one line", "a.conflist", HEAD "\"plugins\": [{\"type\": \"bridge\"}]}",
	 HEAD "\"plugins\": [{\"type\": \"bridge\"}," OURS "]}", NULL},
	{"set apart as the last plugin is", "a.conflist",
	 HEAD "\n  \"plugins\": [\n    {\"type\": \"bridge\"},\n    {\"type\": \"portmap\"}\n  ]\n}\n",
	 HEAD "\n  \"plugins\": [\n    {\"type\": \"bridge\"},\n    {\"type\": \"portmap\"},\n    " OURS "\n  ]\n}\n",
	 NULL},
	{"keys behind the plugins, and blanks everywhere", "a.conflist",
	 "\n { \"plugins\" : [ {\"type\":\"x\"} , {\"type\":\"y\"}  ] , \"name\":\"n\",\"cniVersion\":\"0.4.0\"}\t\n",
	 "\n { \"plugins\" : [ {\"type\":\"x\"} , {\"type\":\"y\"}, " OURS
	 "  ] , \"name\":\"n\",\"cniVersion\":\"0.4.0\"}\t\n",
	 NULL},
	{"numbers of any size, escapes and order", "a.conflist",
	 HEAD
	 "\"z\": 1.50, \"a\": 123456789012345678901234567890, \"plugins\": [{\"type\": \"x\", \"mtu\": 1e3, \"s\": "
	 "\"\\u00e9\\/\\u0000]},\", \"b\": 9007199254740993}]}",
	 HEAD
	 "\"z\": 1.50, \"a\": 123456789012345678901234567890, \"plugins\": [{\"type\": \"x\", \"mtu\": 1e3, \"s\": "
	 "\"\\u00e9\\/\\u0000]},\", \"b\": 9007199254740993}," OURS "]}",
	 NULL},
	{"plugins in a plugin are none of the list's", "a.conflist",
	 HEAD "\"x\": {\"plugins\": [1]}, \"plugins\": [{\"type\": \"x\", \"plugins\": [{\"type\": \"istio-cni\"}]}]}",
	 HEAD
	 "\"x\": {\"plugins\": [1]}, \"plugins\": [{\"type\": \"x\", \"plugins\": [{\"type\": \"istio-cni\"}]}," OURS
	 "]}",
	 NULL},
	{"an older entry of ours gives way", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"old\": 1}]}",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, " OURS "]}", HEAD "\"plugins\": [{\"type\": \"x\"}]}"},
	{"also in the middle", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"old\": 1}, {\"type\": \"y\"}]}",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"y\"}, " OURS "]}",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"y\"}]}"},
	{"all of them do, wherever they are", "a.conflist",
	 HEAD "\"plugins\": [ {\"type\": \"istio-cni\"}, {\"type\": \"istio-cni\"},\n{\"type\": \"x\"}, {\"type\": "
	      "\"istio-cni\"},\n {\"type\": \"y\"}, {\"type\": \"istio-cni\"} ]}",
	 HEAD "\"plugins\": [ {\"type\": \"x\"},\n {\"type\": \"y\"}, " OURS " ]}",
	 HEAD "\"plugins\": [ {\"type\": \"x\"},\n {\"type\": \"y\"} ]}"},
	{"one plugin becomes a list", "a.conf",
	 "{\n \"cniVersion\": \"0.4.0\",\n \"name\": \"net\", \"type\": \"x\", \"n\": 1.0\n}\n",
	 "{\n  \"cniVersion\": \"0.4.0\",\n  \"name\": \"net\",\n  \"plugins\": [{\n \"cniVersion\": \"0.4.0\",\n "
	 "\"name\": \"net\", \"type\": \"x\", \"n\": 1.0\n}\n, {\"type\": \"istio-cni\", \"cni_agent_run_dir\": "
	 "\"/r\", "
	 "\"wrapped_file\": \"a.conf\"}]\n}\n",
	 NULL},
	{"one without name and version gets Istio's", "a.json", "{\"type\":\"x\"}",
	 "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"k8s-pod-network\",\n  \"plugins\": [{\"type\":\"x\"}, "
	 "{\"type\": "
	 "\"istio-cni\", \"cni_agent_run_dir\": \"/r\", \"wrapped_file\": \"a.json\"}]\n}\n",
	 NULL},
	{"a version that the plugin does not speak is not kept", "a.conf",
	 "{\"type\":\"x\",\"cniVersion\":\"0.2.0\",\"name\":\"q\\\"\"}",
	 "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"q\\\"\",\n  \"plugins\": "
	 "[{\"type\":\"x\",\"cniVersion\":\"0.2.0\",\"name\":\"q\\\"\"}, {\"type\": \"istio-cni\", "
	 "\"cni_agent_run_dir\": \"/r\", \"wrapped_file\": \"a.conf\"}]\n}\n",
	 NULL},
};

/* The file that `text` is without us, in `name`. */
static void take_out(char name[NAME_MAX + 1], const char *text, char **out, size_t *len, enum install_rest want)
{
	char why[POD_WHY_MAX] = "";
	struct install_list l;

	assert_int_equal(list_read(&l, name, text, why), 0);
	assert_int_equal(install_list_without(&l, name, out, len, why), want);
	install_list_free(&l);
}

static void test_edits(void **state)
{
	json_t *e = entry();

	for (unsigned i = 0; i < sizeof edits / sizeof *edits; i++) {
		char why[POD_WHY_MAX] = "", name[NAME_MAX + 1], *out = NULL, *back = NULL;
		bool single = strstr(edits[i].file, ".conflist") == NULL;
		struct install_list l;
		size_t len = 0, back_len = 0;

		print_message("row: %s\n", edits[i].name);
		assert_int_equal(list_read(&l, edits[i].file, edits[i].before, why), 0);
		assert_int_equal(l.single, single);
		assert_false(install_list_holds(&l, e));
		assert_int_equal(install_list_with(&l, e, single ? edits[i].file : NULL, &out, &len, why), 0);
		install_list_free(&l);
		assert_int_equal(len, strlen(out));
		assert_string_equal(out, edits[i].after);

		assert_int_equal(list_read(&l, "a.conflist", out, why), 0);
		assert_true(install_list_holds(&l, e));
		install_list_free(&l);

		strcpy(name, "a.conflist");
		take_out(name, out, &back, &back_len, single ? INSTALL_REST_SINGLE : INSTALL_REST_LIST);
		assert_string_equal(back, edits[i].back ? edits[i].back : edits[i].before);
		assert_string_equal(name, edits[i].file);
		free(out);
		free(back);
	}
	json_decref(e);
}

/* A list that was one plugin is that file again, also after its entry has changed. */
static void test_wrapped_again(void **state)
{
	static const char before[] = "\n{\"type\": \"x\"}\n\n";
	char why[POD_WHY_MAX] = "", name[NAME_MAX + 1] = "a.conflist", *out = NULL, *again = NULL, *back = NULL;
	json_t *e = entry(), *other = json_pack("{ss}", "type", "istio-cni");
	struct install_list l;
	size_t len;

	assert_int_equal(list_read(&l, "a.conf", before, why), 0);
	assert_int_equal(install_list_with(&l, other, "a.conf", &out, &len, why), 0);
	install_list_free(&l);
	assert_int_equal(list_read(&l, name, out, why), 0);
	assert_int_equal(install_list_with(&l, e, NULL, &again, &len, why), 0);
	install_list_free(&l);
	take_out(name, again, &back, &len, INSTALL_REST_SINGLE);
	assert_string_equal(back, before);
	assert_string_equal(name, "a.conf");
	json_decref(e);
	json_decref(other);
	free(out);
	free(again);
	free(back);
}

/* --- what is there ----------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *plugins;
	bool holds;
} lists[] = {
	{"last", "[{\"type\": \"x\"}, " OURS "]", true},
	{"with others behind it", "[{\"type\": \"x\"}, " OURS ", {\"type\": \"y\"}]", true},
	{"keys in another order", "[{\"type\": \"x\"}, {\"cni_agent_run_dir\": \"/r\", \"type\": \"istio-cni\"}]",
	 true},
	{"with a note of the installer",
	 "[{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"cni_agent_run_dir\": \"/r\", \"wrapped_file\": \"a.conf\"}]",
	 true},
	{"not there", "[{\"type\": \"x\"}]", false},
	{"first", "[" OURS ", {\"type\": \"x\"}]", false},
	{"alone", "[" OURS "]", false},
	{"twice", "[{\"type\": \"x\"}, " OURS ", " OURS "]", false},
	{"another content", "[{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"cni_agent_run_dir\": \"/other\"}]", false},
	{"more content", "[{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"cni_agent_run_dir\": \"/r\", \"a\": 1}]",
	 false},
};

static void test_holds(void **state)
{
	json_t *e = entry();

	for (unsigned i = 0; i < sizeof lists / sizeof *lists; i++) {
		char text[1024], why[POD_WHY_MAX];
		struct install_list l;

		print_message("row: %s\n", lists[i].name);
		snprintf(text, sizeof text, HEAD "\"plugins\": %s}", lists[i].plugins);
		assert_int_equal(list_read(&l, "a.conflist", text, why), 0);
		assert_int_equal(install_list_holds(&l, e), lists[i].holds);
		install_list_free(&l);
	}
	json_decref(e);
}

/* --- what is refused ---------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *file, *text, *wrong;
} unread[] = {
	{"empty", "a.conflist", "", "not JSON"},
	{"not JSON", "a.conflist", "{\"name\": ", "not JSON"},
	{"not JSON, and more than a line of it", "a.conflist", "{\n \"name\" \"]}\\\n}\n", "not JSON"},
	{"two values", "a.conf", "{\"type\":\"x\"}{}", "not JSON"},
	{"an array", "a.conflist", "[]", "not a JSON object"},
	{"a list without a name", "a.conflist", "{\"plugins\": [{\"type\": \"x\"}]}", "needs a name"},
	{"without plugins", "a.conflist", "{\"name\": \"n\", \"plugins\": []}", "needs a name and plugins"},
	{"plugins of another kind", "a.conflist", "{\"name\": \"n\", \"plugins\": {\"type\": \"x\"}}", "and plugins"},
	{"a plugin without a type", "a.conflist", "{\"name\": \"n\", \"plugins\": [{\"type\": \"x\"}, {}]}",
	 "plugin 2"},
	{"a plugin that is none", "a.conflist", "{\"name\": \"n\", \"plugins\": [7]}", "plugin 1"},
	{"a list where one plugin is expected", "a.conf", HEAD "\"plugins\": [{\"type\": \"x\"}]}", "has no type"},
	{"one plugin where a list is expected", "a.conflist", "{\"name\": \"n\", \"type\": \"x\"}", "and plugins"},
};

static void test_unread(void **state)
{
	for (unsigned i = 0; i < sizeof unread / sizeof *unread; i++) {
		char why[POD_WHY_MAX] = "";
		struct install_list l;

		print_message("row: %s\n", unread[i].name);
		assert_int_equal(list_read(&l, unread[i].file, unread[i].text, why), -EBADMSG);
		assert_non_null(strstr(why, unread[i].wrong));
		assert_null(strchr(why, '\n'));
		install_list_free(&l);
	}
}

static const struct {
	const char *name, *file, *text, *wrong;
} unedited[] = {
	{"a version that the plugin does not speak", "a.conflist",
	 "{\"cniVersion\": \"2.0.0\", \"name\": \"n\", \"plugins\": [{\"type\": \"x\"}]}", "cniVersion is \"2.0.0\""},
	{"no version", "a.conflist", "{\"name\": \"n\", \"plugins\": [{\"type\": \"x\"}]}", "cniVersion is \"\""},
	{"plugins twice", "a.conflist", HEAD "\"plugins\": [{\"type\": \"x\"}], \"plugins\": [{\"type\": \"y\"}]}",
	 "written twice"},
	{"plugins of another kind before", "a.conflist", HEAD "\"plugins\": 1, \"plugins\": [{\"type\": \"y\"}]}",
	 "cannot be edited"},
	{"a key with escapes", "a.conflist", HEAD "\"plu\\u0067ins\": [{\"type\": \"y\"}]}", "cannot be edited"},
	{"nothing but ours", "a.conflist", HEAD "\"plugins\": [" OURS "]}", "no plugin but ours"},
	{"one that is ours", "a.conf", OURS, "our own"},
};

static void test_unedited(void **state)
{
	json_t *e = entry();

	for (unsigned i = 0; i < sizeof unedited / sizeof *unedited; i++) {
		char why[POD_WHY_MAX] = "", *out = NULL;
		struct install_list l;
		size_t len;

		print_message("row: %s\n", unedited[i].name);
		assert_int_equal(list_read(&l, unedited[i].file, unedited[i].text, why), 0);
		assert_int_equal(install_list_with(&l, e, NULL, &out, &len, why), -EBADMSG);
		assert_non_null(strstr(why, unedited[i].wrong));
		assert_null(out);
		install_list_free(&l);
	}
	json_decref(e);
}

/* --- without us ---------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *file, *text;
	enum install_rest rest;
	const char *out, *out_name;
} rests[] = {
	{"nothing of ours", "a.conflist", HEAD "\"plugins\": [{\"type\": \"x\"}]}", INSTALL_REST_SAME, NULL, NULL},
	{"a plugin of another", "a.conf", "{\"type\": \"x\"}", INSTALL_REST_SAME, NULL, NULL},
	{"our own configuration", "a.conf", OURS, INSTALL_REST_NONE, NULL, NULL},
	{"a list with ours alone", "a.conflist", HEAD "\"plugins\": [" OURS "]}", INSTALL_REST_NONE, NULL, NULL},
	{"a copy", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"copied_file\": \"b.conflist\"}]}",
	 INSTALL_REST_NONE, NULL, NULL},
	{"a list that was made of one plugin and has more by now", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"wrapped_file\": \"a.conf\"}, {\"type\": "
	      "\"y\"}]}",
	 INSTALL_REST_LIST, HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"y\"}]}", "a.conflist"},
	{"a list that was written anew", "a.conflist",
	 HEAD "\"plugins\": [\n  {\"type\": \"x\", \"n\": 1},\n  {\"wrapped_file\": \"a.conf\", \"type\": "
	      "\"istio-cni\"}]}",
	 INSTALL_REST_SINGLE, "\n  {\"type\": \"x\", \"n\": 1}", "a.conf"},
	{"a note of a file that is elsewhere", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"wrapped_file\": \"../a.conf\"}]}",
	 INSTALL_REST_LIST, HEAD "\"plugins\": [{\"type\": \"x\"}]}", "a.conflist"},
	{"a note of a file of another name", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"x\"}, {\"type\": \"istio-cni\", \"wrapped_file\": \"b.conf\"}]}",
	 INSTALL_REST_LIST, HEAD "\"plugins\": [{\"type\": \"x\"}]}", "a.conflist"},
	{"ours before the one that was wrapped", "a.conflist",
	 HEAD "\"plugins\": [{\"type\": \"istio-cni\", \"wrapped_file\": \"a.conf\"}, {\"type\": \"x\"}]}",
	 INSTALL_REST_LIST, HEAD "\"plugins\": [{\"type\": \"x\"}]}", "a.conflist"},
};

static void test_rests(void **state)
{
	for (unsigned i = 0; i < sizeof rests / sizeof *rests; i++) {
		char name[NAME_MAX + 1], *out = NULL;
		size_t len;

		print_message("row: %s\n", rests[i].name);
		strcpy(name, rests[i].file);
		take_out(name, rests[i].text, &out, &len, rests[i].rest);
		if (rests[i].out) {
			assert_string_equal(out, rests[i].out);
			assert_string_equal(name, rests[i].out_name);
		} else {
			assert_null(out);
		}
		free(out);
	}
}

/* --- names ------------------------------------------------------------------------------------------------------ */

static void test_names(void **state)
{
	char out[NAME_MAX + 1], longest[NAME_MAX + 1];

	assert_true(install_name_counts("a.conf"));
	assert_true(install_name_counts("a.conflist"));
	assert_true(install_name_counts("a.json")); /* runtimes look for it, though Istio's installer does not */
	assert_true(install_name_counts(".a.conf"));
	assert_false(install_name_counts("a.conf.bak"));
	assert_false(install_name_counts("a.conflist~"));
	assert_false(install_name_counts("a.conflist" INSTALL_UNFINISHED));
	assert_false(install_name_counts("conf"));
	assert_false(install_name_counts(""));
	assert_int_equal(install_name_of_list(out, "10-a.b.conf"), 0);
	assert_string_equal(out, "10-a.b.conflist");
	memset(longest, 'a', NAME_MAX);
	strcpy(longest + NAME_MAX - 5, ".conf");
	assert_int_equal(install_name_of_list(out, longest), -ENAMETOOLONG);
}

/* As large as a file may be, with as many plugins as fit. */
static void test_large(void **state)
{
	char *text = malloc(INSTALL_LIST_MAX + 64), *p = text, name[NAME_MAX + 1] = "a.conflist", *out = NULL,
	     *back = NULL;
	char why[POD_WHY_MAX] = "";
	struct install_list l;
	json_t *e = entry();
	size_t len, back_len;

	p += sprintf(p, "%s", HEAD "\"plugins\": [{\"type\": \"x\"}");
	while (p < text + INSTALL_LIST_MAX - 64)
		p += sprintf(p, ", {\"type\": \"y\", \"n\": 1}");
	sprintf(p, "]}");
	assert_int_equal(list_read(&l, name, text, why), 0);
	assert_int_equal(install_list_with(&l, e, NULL, &out, &len, why), 0);
	install_list_free(&l);
	take_out(name, out, &back, &back_len, INSTALL_REST_LIST);
	assert_string_equal(back, text);
	json_decref(e);
	free(text);
	free(out);
	free(back);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_edits),    cmocka_unit_test(test_wrapped_again),
					   cmocka_unit_test(test_holds),    cmocka_unit_test(test_unread),
					   cmocka_unit_test(test_unedited), cmocka_unit_test(test_rests),
					   cmocka_unit_test(test_names),    cmocka_unit_test(test_large)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
