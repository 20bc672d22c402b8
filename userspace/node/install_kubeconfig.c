/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the kubeconfig by which the plugin asks the API server when the keeper is away. The token in it is a copy of ours,
 * written again when ours is rotated. The file is JSON, which is YAML. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "node/install_internal.h"

enum { CA_MAX = 1024 * 1024, FILE_MAX = 2 * CA_MAX };

static char *base64(const unsigned char *in, size_t len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	char *out = malloc((len + 2) / 3 * 4 + 1), *p = out;

	for (size_t i = 0; out && i < len; i += 3) {
		unsigned three = (unsigned)in[i] << 16 | (i + 1 < len ? (unsigned)in[i + 1] << 8 : 0) |
				 (i + 2 < len ? in[i + 2] : 0);

		for (unsigned j = 0; j < 4; j++)
			*p++ = i + j > len ? '=' : digits[three >> (18 - 6 * j) & 63];
	}
	if (out)
		*p = '\0';
	return out;
}

static json_t *cluster_json(const struct kube_config *api, char *why)
{
	json_t *o = json_pack("{ss}", "server", api->server);
	char *ca = NULL, *text = NULL;
	size_t len = 0;
	int e = 0;

	if (api->skip_verify) {
		json_object_set_new(o, "insecure-skip-tls-verify", json_true());
		return o;
	}
	if (o && api->ca_file[0]) {
		e = install_file_read(api->ca_file, &ca, &len, CA_MAX, NULL);
		text = e ? NULL : base64((unsigned char *)ca, len);
		if (text)
			json_object_set_new(o, "certificate-authority-data", json_string(text));
		free(ca);
		free(text);
	}
	if (e) {
		snprintf(why, POD_WHY_MAX, "%.900s: %s", api->ca_file, strerror(-e));
		json_decref(o);
		return NULL;
	}
	return o;
}

static json_t *user_json(const struct kube_config *api, char *why)
{
	char *token = malloc(KUBE_TOKEN_MAX);
	json_t *o = NULL;

	if (token && kube_token_read(api, token, why) == 0)
		o = token[0] ? json_pack("{ss}", "token", token) : json_object();
	if (token)
		explicit_bzero(token, KUBE_TOKEN_MAX);
	free(token);
	return o;
}

int install_kubeconfig_text(const struct kube_config *api, char **out, char why[POD_WHY_MAX])
{
	json_t *cluster, *user = NULL, *o = NULL;
	char *text = NULL;

	snprintf(why, POD_WHY_MAX, "out of memory");
	cluster = cluster_json(api, why);
	if (cluster)
		user = user_json(api, why);
	if (user)
		o = json_pack("{ss ss ss s[{ss sO}] s[{ss s{ss ss}}] s[{ss sO}]}", "apiVersion", "v1", "kind", "Config",
			      "current-context", "istio-cni-context", "clusters", "name", "local", "cluster", cluster,
			      "contexts", "name", "istio-cni-context", "context", "cluster", "local", "user",
			      "istio-cni", "users", "name", "istio-cni", "user", user);
	if (o)
		text = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	json_decref(cluster);
	json_decref(user);
	if (!text)
		return -EIO;
	*out = text;
	return 0;
}

static bool is_as(const char *path, const char *text, mode_t mode)
{
	struct stat st = {.st_mode = 0};
	char *is = NULL;
	size_t len;
	bool same = install_file_read(path, &is, &len, FILE_MAX, &st) == 0 && !strcmp(is, text) &&
		    (st.st_mode & 07777) == mode;

	if (is)
		explicit_bzero(is, len);
	free(is);
	return same;
}

int install_kubeconfig(struct install *in, bool *changed, char why[POD_WHY_MAX])
{
	char path[PATH_MAX], *text = NULL;
	int e;

	if (!in->o.api)
		return 0;
	e = install_path(path, in->o.run_dir, INSTALL_KUBECONFIG, why);
	if (!e)
		e = install_kubeconfig_text(in->o.api, &text, why);
	if (!e && !is_as(path, text, in->o.kubeconfig_mode)) {
		e = install_file_write(path, text, strlen(text), in->o.kubeconfig_mode, why);
		if (!e)
			log_info("install", "%s is written, for the API server %s", path, in->o.api->server);
		*changed |= !e;
	}
	if (text)
		explicit_bzero(text, strlen(text));
	free(text);
	return e;
}

void install_kubeconfig_remove(struct install *in)
{
	char path[PATH_MAX], why[POD_WHY_MAX];

	if (in->o.api &&
	    (install_path(path, in->o.run_dir, INSTALL_KUBECONFIG, why) < 0 || install_file_remove(path, why) < 0))
		log_error("install", "%s", why);
}
