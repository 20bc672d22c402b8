/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of the configuration. */
#include "conf.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "env.h"

const char *const conf_versions[] = {CNI_VERSIONS, NULL};

static const char default_socket[] = "/run/culvert/" CNI_SOCKET;

/* --- stdin ------------------------------------------------------------------------------------------------ */

static int stdin_wait(int fd, uint64_t deadline)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int n = poll(&p, 1, left_ms(deadline));

	return n > 0 ? 0 : n < 0 && errno != EINTR ? -errno : n == 0 ? -ETIMEDOUT : -EAGAIN;
}

int conf_stdin(int fd, char **text, size_t *len, struct failure *f)
{
	uint64_t deadline = now_ms() + STDIN_MS;
	char *buf = malloc(STDIN_MAX + 1);
	size_t used = 0;
	int e = buf ? 0 : -ENOMEM;

	while (!e) {
		ssize_t n;

		e = stdin_wait(fd, deadline);
		if (e == -EAGAIN)
			e = 0;
		if (e)
			break;
		n = read(fd, buf + used, STDIN_MAX + 1 - used);
		if (n == 0)
			break;
		if (n < 0 && errno != EINTR)
			e = -errno;
		used += n > 0 ? (size_t)n : 0;
		if (used > STDIN_MAX)
			e = -EFBIG;
	}
	if (!e) {
		*text = buf;
		*len = used;
		return 0;
	}
	free(buf);
	return failed(f, E_IO, "cannot read the configuration from stdin: %s", strerror(-e));
}

/* --- values ------------------------------------------------------------------------------------------------ */

/* Go takes null for a value that is missing. */
static json_t *value(const json_t *o, const char *key)
{
	json_t *v = json_object_get(o, key);

	return json_is_null(v) ? NULL : v;
}

static int text_take(const struct conf *c, const char *key, const char **out, struct failure *f)
{
	json_t *v = value(c->root, key);

	*out = v ? json_string_value(v) : "";
	return *out ? 0 : failed(f, E_CONFIG, "\"%s\" must be a string", key);
}

static int bool_take(const struct conf *c, const char *key, bool *out, struct failure *f)
{
	json_t *v = value(c->root, key);

	if (v && !json_is_boolean(v))
		return failed(f, E_CONFIG, "\"%s\" must be true or false", key);
	if (v)
		*out = json_is_true(v);
	return 0;
}

static int list_take(const struct conf *c, const char *key, json_t **out, struct failure *f)
{
	json_t *v = value(c->root, key);

	if (v && !json_is_array(v))
		return failed(f, E_CONFIG, "\"%s\" must be an array", key);
	*out = v;
	return 0;
}

/* `file` in the folder that another key names, where this one is missing. */
static int path_take(const struct conf *c, const char *key, char out[CONF_PATH_MAX], const char *file,
		     struct failure *f)
{
	const char *text;
	int e = text_take(c, key, &text, f), n;

	if (e)
		return e;
	n = *text || !c->run_dir[0] ? snprintf(out, CONF_PATH_MAX, "%s", text)
				    : snprintf(out, CONF_PATH_MAX, "%s/%s", c->run_dir, file);
	if (n >= CONF_PATH_MAX || (n && out[0] != '/'))
		return failed(f, E_CONFIG, "\"%s\" must be an absolute path, of at most %d bytes", key,
			      CONF_PATH_MAX - 1);
	return 0;
}

/* --- versions ----------------------------------------------------------------------------------------------- */

static int version_index(const char *version)
{
	for (int i = 0; conf_versions[i]; i++)
		if (!strcmp(version, conf_versions[i]))
			return i;
	return -1;
}

bool conf_since(const struct conf *c, const char *version)
{
	return version_index(c->version) >= version_index(version);
}

static int version_take(struct conf *c, struct failure *f)
{
	const char *text;
	int e = text_take(c, "cniVersion", &text, f);

	if (e)
		return e;
	if (version_index(text) < 0)
		return failed(f, E_VERSION,
			      "cniVersion \"%.30s\" is not supported: 0.3.0, 0.3.1, 0.4.0, 1.0.0, 1.1.0 are",
			      *text ? text : "(none)");
	snprintf(c->version, sizeof c->version, "%s", text);
	return 0;
}

/* --- the whole ------------------------------------------------------------------------------------------------ */

static int parse_text(struct conf *c, size_t len, struct failure *f)
{
	json_error_t at;

	/* Numbers may be of any size: they are passed on as text. */
	c->root = json_loadb(c->text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL, &at);
	if (!c->root)
		return failed(f, E_DECODE, "the configuration is not JSON: line %d, column %d: %s", at.line, at.column,
			      at.text);
	return json_is_object(c->root) ? 0 : failed(f, E_DECODE, "the configuration must be a JSON object");
}

static int prev_take(struct conf *c, size_t len, struct failure *f)
{
	struct span all = span_trim(c->text, len);

	c->prev = value(c->root, "prevResult");
	if (!c->prev)
		return 0;
	if (!json_is_object(c->prev))
		return failed(f, E_CONFIG, "\"prevResult\" must be an object");
	if (!span_member(&all, "prevResult", &c->prev_text))
		return failed(f, E_DECODE, "the key \"prevResult\" must be written without escapes");
	return 0;
}

static int keys_take(struct conf *c, struct failure *f)
{
	const char *name, *run_dir;
	int e = text_take(c, "name", &name, f);

	if (!e && (!name_is_valid(name) || strlen(name) >= sizeof c->name))
		e = failed(f, E_CONFIG, "\"name\": \"%.100s\" is not a network's name", name);
	if (!e)
		snprintf(c->name, sizeof c->name, "%s", name);
	if (!e)
		e = text_take(c, "cni_agent_run_dir", &run_dir, f);
	if (!e && snprintf(c->run_dir, sizeof c->run_dir, "%s", run_dir) >= CONF_PATH_MAX)
		e = failed(f, E_CONFIG, "\"cni_agent_run_dir\" is too long");
	if (!e)
		e = path_take(c, "cni_socket", c->socket, CNI_SOCKET_ISTIO, f);
	if (!e && !c->socket[0])
		memcpy(c->socket, default_socket, sizeof default_socket);
	if (!e)
		e = path_take(c, "kubeconfig", c->kubeconfig, "istio-cni-kubeconfig", f);
	if (!e)
		e = text_take(c, "plugin_log_level", &c->log_level, f);
	if (!e)
		e = text_take(c, "pod_namespace", &c->pod_namespace, f);
	if (!e)
		e = list_take(c, "exclude_namespaces", &c->exclude, f);
	if (!e)
		e = list_take(c, "enablement_selectors", &c->selectors, f);
	c->ambient = true;
	if (!e)
		e = bool_take(c, "ambient_enabled", &c->ambient, f);
	if (!e)
		e = bool_take(c, "enable_ambient_detection_retry", &c->retry, f);
	return e ? e : bool_take(c, "strict_status", &c->strict_status, f);
}

int conf_parse(struct conf *c, char *text, size_t len, struct failure *f)
{
	int e;

	memset(c, 0, sizeof *c);
	c->text = text;
	e = parse_text(c, len, f);
	if (!e)
		e = version_take(c, f);
	if (!e)
		e = keys_take(c, f);
	return e ? e : prev_take(c, len, f);
}

void conf_free(struct conf *c)
{
	json_decref(c->root);
	free(c->text);
	memset(c, 0, sizeof *c);
}

bool conf_excludes(const struct conf *c, const char *namespace)
{
	for (size_t i = 0; i < json_array_size(c->exclude); i++) {
		const char *text = json_string_value(json_array_get(c->exclude, i));

		if (text && !strcmp(text, namespace))
			return true;
	}
	return false;
}
