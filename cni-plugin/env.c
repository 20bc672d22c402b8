/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of the environment, by the rules of the CNI specification. */
#include "env.h"

#include <ctype.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char *const commands[] = {
	[CMD_ADD] = "ADD", [CMD_DEL] = "DEL",	    [CMD_CHECK] = "CHECK",
	[CMD_GC] = "GC",   [CMD_STATUS] = "STATUS", [CMD_VERSION] = "VERSION",
};

static const char *variable(const char *name)
{
	const char *text = getenv(name);

	return text ? text : "";
}

static bool is_true(const char *text)
{
	return !strcmp(text, "1") || !strcasecmp(text, "true");
}

bool name_is_valid(const char *name)
{
	if (!isalnum((unsigned char)name[0]))
		return false;
	for (const char *p = name; *p; p++)
		if (!isalnum((unsigned char)*p) && !strchr("_.-", *p))
			return false;
	return true;
}

static bool ifname_is_valid(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= IFNAMSIZ || !strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (const char *p = name; *p; p++)
		if (*p == '/' || *p == ':' || isspace((unsigned char)*p))
			return false;
	return true;
}

int env_command(struct env *e, struct failure *f)
{
	const char *text = variable("CNI_COMMAND");

	memset(e, 0, sizeof *e);
	if (!*text)
		return 0;
	for (unsigned i = CMD_ADD; i < sizeof commands / sizeof *commands; i++)
		if (!strcmp(text, commands[i]))
			e->command = (enum command)i;
	if (e->command == CMD_NONE)
		return failed(f, E_ENVIRONMENT, "unknown CNI_COMMAND: %.100s", text);
	return 0;
}

/* --- CNI_ARGS --------------------------------------------------------------------------------------------- */

struct argument {
	const char *key;
	char *out; /* NULL: known, and of no use here */
};

static int argument_take(const struct argument *known, const char *text, size_t len, bool *unknown, struct failure *f)
{
	const char *eq = memchr(text, '=', len);
	size_t key = eq ? (size_t)(eq - text) : 0, value = eq ? len - key - 1 : 0;

	if (!key || memchr(eq + 1, '=', value))
		return failed(f, E_ENVIRONMENT, "CNI_ARGS: \"%.*s\" is not KEY=VALUE", (int)(len < 100 ? len : 100),
			      text);
	for (; known->key; known++) {
		if (strlen(known->key) != key || memcmp(known->key, text, key) != 0)
			continue;
		if (value >= ARG_MAX_BYTES)
			return failed(f, E_ENVIRONMENT, "CNI_ARGS: %s is too long", known->key);
		if (known->out) {
			memcpy(known->out, eq + 1, value);
			known->out[value] = '\0';
		}
		return 0;
	}
	*unknown = true;
	return 0;
}

static int arguments_read(struct env *e, struct failure *f)
{
	char ignore[ARG_MAX_BYTES] = "";
	const struct argument known[] = {{"K8S_POD_NAME", e->pod_name}, {"K8S_POD_NAMESPACE", e->pod_namespace},
					 {"K8S_POD_UID", e->pod_uid},	{"K8S_POD_INFRA_CONTAINER_ID", NULL},
					 {"IgnoreUnknown", ignore},	{NULL, NULL}};
	const char *p = variable("CNI_ARGS");
	bool unknown = false;

	while (*p) {
		size_t len = strcspn(p, ";");
		int e2 = len ? argument_take(known, p, len, &unknown, f) : 0;

		if (e2)
			return e2;
		p += len + (p[len] == ';');
	}
	if (unknown && !is_true(ignore))
		return failed(f, E_ENVIRONMENT, "CNI_ARGS: a key is not known here, and IgnoreUnknown is not set");
	return 0;
}

/* --- the rest ----------------------------------------------------------------------------------------------- */

static int require(const char *name, const char *text, struct failure *f)
{
	return *text ? 0 : failed(f, E_ENVIRONMENT, "%s is not set", name);
}

int env_read(struct env *e, struct failure *f)
{
	bool add = e->command == CMD_ADD || e->command == CMD_CHECK;
	struct failure ignored;
	int err = 0;

	e->container_id = variable("CNI_CONTAINERID");
	e->netns = variable("CNI_NETNS");
	e->ifname = variable("CNI_IFNAME");
	if (!add && e->command != CMD_DEL)
		return 0;
	err = require("CNI_CONTAINERID", e->container_id, f);
	if (!err && add)
		err = require("CNI_NETNS", e->netns, f);
	if (!err)
		err = require("CNI_IFNAME", e->ifname, f);
	if (!err)
		err = require("CNI_PATH", variable("CNI_PATH"), f);
	if (!err && (!name_is_valid(e->container_id) || strlen(e->container_id) >= CNI_ID_MAX))
		err = failed(f, E_ENVIRONMENT, "CNI_CONTAINERID: \"%.150s\" is not a container's id", e->container_id);
	if (!err && !ifname_is_valid(e->ifname))
		err = failed(f, E_ENVIRONMENT, "CNI_IFNAME: \"%.50s\" is not an interface's name", e->ifname);
	if (!err && add)
		err = arguments_read(e, f);
	else if (!err)
		arguments_read(e, &ignored);
	return err;
}

int env_check_netns(const struct env *e, struct failure *f)
{
	struct stat own, pod;

	if (!e->netns[0] || is_true(variable("CNI_NETNS_OVERRIDE")) || stat("/proc/self/ns/net", &own) < 0 ||
	    stat(e->netns, &pod) < 0 || own.st_ino != pod.st_ino || own.st_dev != pod.st_dev)
		return 0;
	return failed(f, E_NETNS, "CNI_NETNS: %.512s is the namespace in which the plugin itself runs", e->netns);
}
