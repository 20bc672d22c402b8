/* SPDX-License-Identifier: Apache-2.0 */
/* What a runtime gives the plugin, what the keeper answers it, and what a plugin sends the keeper: taken or refused with
 * one line. A previous result that is taken comes out byte for byte, or with another version in it. The first byte picks. */
#include <stdlib.h>
#include <string.h>

#include "../../cni-plugin/agent.h"
#include "../../cni-plugin/result.h"
#include "base/log.h"
#include "node/cni_log.h"
#include "node/cni_request.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void require_line(const char *why)
{
	require(why[0] && !strchr(why, '\n'));
}

static void result(const struct conf *c)
{
	struct failure f = {.code = 0};
	json_t *ips = NULL, *o;
	char *out = NULL;
	size_t len = 0;

	if (result_make(c, &out, &len, &f) == 0) {
		o = json_loadb(out, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, NULL);
		require(json_is_object(o));
		require(!strcmp(json_string_value(json_object_get(o, "cniVersion")), c->version));
		if (c->prev)
			json_object_set(o, "cniVersion", json_object_get(c->prev, "cniVersion"));
		if (c->prev && json_object_get(c->prev, "cniVersion"))
			require(json_equal(o, c->prev));
		json_decref(o);
		free(out);
	} else {
		require_line(f.msg);
	}
	f.msg[0] = '\0';
	if (result_ips(c, &ips, &f) != 0)
		require_line(f.msg);
	json_decref(ips);
}

static void plugin(const char *text, size_t len)
{
	struct failure f = {.code = 0};
	struct conf c;
	char *copy = malloc(len + 1);

	memcpy(copy, text, len);
	copy[len] = '\0';
	if (conf_parse(&c, copy, len, &f) == 0)
		result(&c);
	else
		require_line(f.msg);
	conf_free(&c);
}

static void answer(const char *text, size_t len)
{
	struct agent_answer a = {0};

	if (agent_parse(text, len, &a) == 0)
		require(strlen(a.text) < AGENT_TEXT_MAX && !strchr(a.text, '\n'));
}

static void keeper(enum cni_kind kind, const char *text, size_t len)
{
	char why[POD_WHY_MAX] = "";
	struct cni_request r;

	if (cni_request_parse(&r, kind, text, len, why) < 0)
		require_line(why);
	else
		require(r.n_ips <= CNI_IPS_MAX);
	cni_request_free(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data + 1;

	if (!size)
		return 0;
	switch (data[0]) {
	case 'a':
		answer(text, size - 1);
		break;
	case 'k':
		keeper(CNI_POD, text, size - 1);
		break;
	case 'g':
		log_set_filter("off");
		cni_log_take(text, size - 1);
		break;
	case 'l':
		keeper(CNI_LIST, text, size - 1);
		break;
	default:
		plugin(text, size - 1);
	}
	return 0;
}
