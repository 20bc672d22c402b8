/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of kubeconfig files and tokens. Of a kubeconfig the current context's server, certificate authority
 * and token are taken; what would need a client certificate or a program is refused in one line. */
#include "node/kube_config.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "node/kube_yaml.h"

static int __attribute__((format(printf, 3, 4))) failed(char *why, int e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, POD_WHY_MAX, fmt, ap);
	va_end(ap);
	return e;
}

/* The whole file, terminated. Bytes, or -errno; -EFBIG when it does not fit. */
static ssize_t file_read(const char *path, char *out, size_t cap)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = 0;
	ssize_t n = fd < 0 ? -1 : 1;

	while (n > 0 && len < cap) {
		n = read(fd, out + len, cap - len);
		len += n > 0 ? (size_t)n : 0;
	}
	if (n < 0)
		n = -errno;
	if (fd >= 0)
		close(fd);
	if (n < 0 || len == cap)
		return n < 0 ? n : -EFBIG;
	out[len] = '\0';
	return (ssize_t)len;
}

/* --- a kubeconfig --------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key)
{
	const char *text = json_string_value(json_object_get(o, key));

	return text && *text ? text : NULL;
}

/* The member `what` of the entry of this name in a list. */
static const json_t *entry(const json_t *file, const char *list, const char *name, const char *what)
{
	const json_t *all = json_object_get(file, list);

	for (size_t i = 0; name && i < json_array_size(all); i++) {
		const json_t *o = json_array_get(all, i);

		if (text_of(o, "name") && !strcmp(text_of(o, "name"), name))
			return json_object_get(o, what);
	}
	return NULL;
}

static int base64_decode(const char *in, unsigned char *out, size_t *len)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint32_t bits = 0;
	unsigned n = 0;

	*len = 0;
	for (; *in && *in != '='; in++) {
		const char *d = strchr(digits, *in);

		if (strchr(" \n\r\t", *in))
			continue;
		if (!d)
			return -EINVAL;
		bits = bits << 6 | (uint32_t)(d - digits);
		if (++n % 4 != 1)
			out[(*len)++] = (unsigned char)(bits >> (8 - 2 * (n % 4)) % 8);
	}
	return n % 4 == 1 ? -EINVAL : 0;
}

/* libcurl wants a file: one without a name, which lives as long as the descriptor. */
static int ca_keep(struct kube_config *out, const char *base64, char *why)
{
	unsigned char *pem = malloc(strlen(base64) + 1);
	size_t len = 0;
	int e = pem ? base64_decode(base64, pem, &len) : -ENOMEM;

	if (!e) {
		out->ca_fd = memfd_create("kube-ca", MFD_CLOEXEC);
		e = out->ca_fd < 0 || write(out->ca_fd, pem, len) != (ssize_t)len ? -EIO : 0;
	}
	free(pem);
	if (e)
		return failed(why, e, "certificate-authority-data: %s",
			      e == -EINVAL ? "it is not base64" : strerror(-e));
	snprintf(out->ca_file, sizeof out->ca_file, "/proc/self/fd/%d", out->ca_fd);
	return 0;
}

/* A path in the file is relative to the file. */
static int path_take(char out[PATH_MAX], const char *path, const char *file, char *why)
{
	const char *slash = strrchr(file, '/');
	int folder = path[0] == '/' || !slash ? 0 : (int)(slash + 1 - file);

	if (snprintf(out, PATH_MAX, "%.*s%s", folder, file, path) < PATH_MAX)
		return 0;
	return failed(why, -ENAMETOOLONG, "a path is too long");
}

static int cluster_take(struct kube_config *out, const json_t *cluster, const char *file, char *why)
{
	const char *server = text_of(cluster, "server"), *ca = text_of(cluster, "certificate-authority");
	const char *data = text_of(cluster, "certificate-authority-data");
	const char *skip = text_of(cluster, "insecure-skip-tls-verify");

	if (!server || snprintf(out->server, sizeof out->server, "%s", server) >= (int)sizeof out->server)
		return failed(why, -EINVAL, "the current context's cluster has no server");
	out->skip_verify |= skip && !strcmp(skip, "true");
	if (data)
		return ca_keep(out, data, why);
	return ca ? path_take(out->ca_file, ca, file, why) : 0;
}

static int user_take(struct kube_config *out, const json_t *user, const char *file, char *why)
{
	static const char *const others[] = {"client-certificate", "client-certificate-data", "exec", "auth-provider",
					     "username"};
	const char *token = text_of(user, "token"), *path = text_of(user, "tokenFile");

	for (unsigned i = 0; !token && !path && i < sizeof others / sizeof *others; i++)
		if (json_object_get(user, others[i]))
			return failed(why, -EINVAL, "the user has %s, but only token and tokenFile are taken",
				      others[i]);
	if (path)
		return path_take(out->token_file, path, file, why);
	if (token && snprintf(out->token, sizeof out->token, "%s", token) >= (int)sizeof out->token)
		return failed(why, -EINVAL, "the user's token is too long");
	return 0;
}

static int kubeconfig_take(struct kube_config *out, const json_t *file, const char *path, char *why)
{
	const json_t *context = entry(file, "contexts", text_of(file, "current-context"), "context");
	int e;

	if (!json_is_object(context))
		return failed(why, -EINVAL, "it has no current context");
	e = cluster_take(out, entry(file, "clusters", text_of(context, "cluster"), "cluster"), path, why);
	return e ? e : user_take(out, entry(file, "users", text_of(context, "user"), "user"), path, why);
}

static int kubeconfig_read(struct kube_config *out, const char *path, char why[POD_WHY_MAX])
{
	char *text = malloc(KUBE_YAML_BYTES), line[POD_WHY_MAX / 2] = "";
	ssize_t len = text ? file_read(path, text, KUBE_YAML_BYTES) : -ENOMEM;
	json_t *file = len < 0 ? NULL : kube_yaml_read(text, (size_t)len, why);
	int e = len < 0 ? failed(why, (int)len, "%s", strerror((int)-len)) : file ? 0 : -EINVAL;

	if (!e)
		e = kubeconfig_take(out, file, path, why);
	if (e) {
		snprintf(line, sizeof line, "%.400s", why);
		failed(why, e, "%.400s: %s", path, line);
	}
	if (text)
		explicit_bzero(text, KUBE_YAML_BYTES);
	free(text);
	json_decref(file);
	return e;
}

/* --- a pod's own ---------------------------------------------------------------------------------------- */

static int in_cluster(struct kube_config *out, const struct kube_config_sources *from, char why[POD_WHY_MAX])
{
	const char *protocol = from->protocol ? from->protocol : "https";
	bool v6 = from->host && strchr(from->host, ':');

	if (!from->host || !from->port)
		return failed(why, -EINVAL,
			      "neither KUBECONFIG nor KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are set");
	if (snprintf(out->server, sizeof out->server, "%s://%s%s%s:%s", protocol, v6 ? "[" : "", from->host,
		     v6 ? "]" : "", from->port) >= (int)sizeof out->server ||
	    snprintf(out->token_file, PATH_MAX, "%s/token", from->secrets) >= PATH_MAX ||
	    snprintf(out->ca_file, PATH_MAX, "%s/ca.crt", from->secrets) >= PATH_MAX)
		return failed(why, -ENAMETOOLONG, "KUBERNETES_SERVICE_HOST is too long");
	return 0;
}

int kube_config_read(struct kube_config *out, const struct kube_config_sources *from, char why[POD_WHY_MAX])
{
	size_t len;
	int e;

	memset(out, 0, sizeof *out);
	out->ca_fd = -1;
	out->skip_verify = from->skip_verify;
	e = from->kubeconfig ? kubeconfig_read(out, from->kubeconfig, why) : in_cluster(out, from, why);
	if (!e && from->ca_file && snprintf(out->ca_file, PATH_MAX, "%s", from->ca_file) >= PATH_MAX)
		e = failed(why, -ENAMETOOLONG, "KUBE_CA_FILE is too long");
	len = strlen(out->server);
	while (len && out->server[len - 1] == '/')
		out->server[--len] = '\0';
	if (!e && strncmp(out->server, "https://", 8) != 0 && strncmp(out->server, "http://", 7) != 0)
		e = failed(why, -EINVAL, "the API server \"%.256s\" is neither https:// nor http://", out->server);
	if (e)
		kube_config_close(out);
	return e;
}

void kube_config_close(struct kube_config *c)
{
	if (c->ca_fd >= 0)
		close(c->ca_fd);
	c->ca_fd = -1;
	explicit_bzero(c->token, sizeof c->token);
}

int kube_token_read(const struct kube_config *c, char out[KUBE_TOKEN_MAX], char why[POD_WHY_MAX])
{
	ssize_t len = (ssize_t)strlen(c->token);

	if (!c->token_file[0])
		memcpy(out, c->token, (size_t)len + 1);
	else
		len = file_read(c->token_file, out, KUBE_TOKEN_MAX);
	if (len < 0)
		return failed(why, (int)len, "%.512s: %s", c->token_file, strerror((int)-len));
	while (len && strchr(" \t\r\n", out[len - 1]))
		out[--len] = '\0';
	/* It goes into a header. */
	for (ssize_t i = 0; i < len; i++)
		if ((unsigned char)out[i] <= ' ' || (unsigned char)out[i] >= 0x7f)
			return failed(why, -EINVAL, "the token in %.512s has characters that no token has",
				      c->token_file);
	return 0;
}
