/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of where the API server is: as a pod finds it, kubeconfig files, tokens. */
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

#include "node/kube_config.h"

static char dir[] = "/tmp/kube_config_test.XXXXXX";

static const char *file_put(const char *name, const char *text)
{
	static char path[256];
	FILE *f;

	snprintf(path, sizeof path, "%s/%s", dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	assert_int_equal(fputs(text, f) >= 0 && fclose(f) == 0, 1);
	return path;
}

static const struct {
	const char *name, *host, *port, *protocol;
	const char *server, *wrong;
} clusters[] = {
	{"IPv4", "10.0.0.1", "443", NULL, "https://10.0.0.1:443", NULL},
	{"IPv6", "fd00::1", "6443", NULL, "https://[fd00::1]:6443", NULL},
	{"a name", "kubernetes.default.svc", "443", "https", "https://kubernetes.default.svc:443", NULL},
	{"without TLS, when that is asked for", "127.0.0.1", "80", "http", "http://127.0.0.1:80", NULL},
	{"no host", NULL, "443", NULL, NULL, "neither KUBECONFIG nor KUBERNETES_SERVICE_HOST"},
	{"no port", "10.0.0.1", NULL, NULL, NULL, "neither KUBECONFIG nor KUBERNETES_SERVICE_HOST"},
	{"another protocol", "10.0.0.1", "21", "ftp", NULL, "neither https:// nor http://"},
};

static void test_in_cluster(void **state)
{
	for (unsigned i = 0; i < sizeof clusters / sizeof *clusters; i++) {
		const struct kube_config_sources from = {.host = clusters[i].host,
							 .port = clusters[i].port,
							 .protocol = clusters[i].protocol,
							 .secrets = "/secrets"};
		char why[POD_WHY_MAX] = "";
		struct kube_config c;
		int e = kube_config_read(&c, &from, why);

		print_message("row: %s\n", clusters[i].name);
		assert_int_equal(e, clusters[i].wrong ? -EINVAL : 0);
		if (e) {
			assert_non_null(strstr(why, clusters[i].wrong));
			continue;
		}
		assert_string_equal(c.server, clusters[i].server);
		assert_string_equal(c.token_file, "/secrets/token");
		assert_string_equal(c.ca_file, "/secrets/ca.crt");
		kube_config_close(&c);
	}
}

#define CONTEXT "current-context: t\ncontexts: [{name: t, context: {cluster: c, user: u}}]\n"
#define CLUSTER "clusters: [{name: c, cluster: {server: 'https://10.0.0.1:6443/'}}]\n"

static const struct {
	const char *name, *text;
	const char *server, *token, *token_file,
		*ca_file; /* NULL: not looked at; token_file and ca_file within the folder */
	const char *wrong;
} files[] = {
	{"token", CONTEXT CLUSTER "users: [{name: u, user: {token: abc}}]", "https://10.0.0.1:6443", "abc", "", NULL,
	 NULL},
	{"token file beside it", CONTEXT CLUSTER "users: [{name: u, user: {tokenFile: t}}]", NULL, "", "t", NULL, NULL},
	{"no user", CONTEXT CLUSTER, NULL, "", "", NULL, NULL},
	{"the right one of several",
	 "current-context: t\ncontexts: [{name: x, context: {cluster: x, user: x}}, {name: t, context: {cluster: c, "
	 "user: "
	 "u}}]\nclusters: [{name: x, cluster: {server: 'https://x'}}, {name: c, cluster: {server: 'https://c', "
	 "certificate-authority: ca.pem}}]\nusers: [{name: x, user: {token: x}}, {name: u, user: {token: u}}]",
	 "https://c", "u", "", "ca.pem", NULL},
	{"JSON",
	 "{\"current-context\":\"t\",\"contexts\":[{\"name\":\"t\",\"context\":{\"cluster\":\"c\",\"user\":\"u\"}}],"
	 "\"clusters\":[{\"name\":\"c\",\"cluster\":{\"server\":\"https://c\"}}],\"users\":[]}",
	 "https://c", "", "", NULL, NULL},
	{"no current context", CLUSTER, NULL, NULL, NULL, NULL, "no current context"},
	{"a context that is not there", "current-context: x\ncontexts: []", NULL, NULL, NULL, NULL,
	 "no current context"},
	{"no cluster", CONTEXT, NULL, NULL, NULL, NULL, "no server"},
	{"a client certificate", CONTEXT CLUSTER "users: [{name: u, user: {client-certificate-data: x}}]", NULL, NULL,
	 NULL, NULL, "client-certificate-data, but only token and tokenFile"},
	{"a program", CONTEXT CLUSTER "users: [{name: u, user: {exec: {command: x}}}]", NULL, NULL, NULL, NULL,
	 "exec, but"},
	{"not YAML", "{", NULL, NULL, NULL, NULL, "line"},
	{"a text", "text", NULL, NULL, NULL, NULL, "no current context"},
	{"a certificate that is not base64",
	 CONTEXT "clusters: [{name: c, cluster: {server: 'https://c', certificate-authority-data: '*'}}]", NULL, NULL,
	 NULL, NULL, "not base64"},
};

static void test_kubeconfig(void **state)
{
	for (unsigned i = 0; i < sizeof files / sizeof *files; i++) {
		const struct kube_config_sources from = {.kubeconfig = file_put("kubeconfig", files[i].text)};
		char why[POD_WHY_MAX] = "", path[512];
		struct kube_config c;
		int e = kube_config_read(&c, &from, why);

		print_message("row: %s\n", files[i].name);
		assert_int_equal(e != 0, files[i].wrong != NULL);
		if (e) {
			assert_non_null(strstr(why, files[i].wrong));
			assert_null(strchr(why, '\n'));
			continue;
		}
		if (files[i].server)
			assert_string_equal(c.server, files[i].server);
		assert_string_equal(c.token, files[i].token);
		snprintf(path, sizeof path, "%s/%s", dir, files[i].token_file);
		assert_string_equal(c.token_file, files[i].token_file[0] ? path : "");
		if (files[i].ca_file) {
			snprintf(path, sizeof path, "%s/%s", dir, files[i].ca_file);
			assert_string_equal(c.ca_file, path);
		}
		kube_config_close(&c);
	}
}

static void test_certificate_in_the_file(void **state)
{
	/* "certificate" in lines of five, with padding */
	static const char text[] = CONTEXT "clusters: [{name: c, cluster: {server: 'https://c', "
					   "certificate-authority-data: 'Y2Vyd GlmaW NhdGU ='}}]";
	const struct kube_config_sources from = {.kubeconfig = file_put("kubeconfig", text)};
	char why[POD_WHY_MAX], got[64] = "";
	struct kube_config c;
	FILE *f;

	assert_int_equal(kube_config_read(&c, &from, why), 0);
	f = fopen(c.ca_file, "r");
	assert_non_null(f);
	assert_non_null(fgets(got, sizeof got, f));
	fclose(f);
	assert_string_equal(got, "certificate");
	kube_config_close(&c);
	assert_int_equal(c.ca_fd, -1);
}

static const struct {
	const char *name, *text, *want, *wrong;
} tokens[] = {
	{"as it is", "eyJhbGciOi.x-y_z", "eyJhbGciOi.x-y_z", NULL},
	{"without the end of its line", "abc\r\n", "abc", NULL},
	{"empty", "", "", NULL},
	{"two lines would be two headers", "abc\r\nX-Header: 1", NULL, "characters that no token has"},
	{"blanks within", "a b", NULL, "characters that no token has"},
	{"beyond ASCII", "a\xc3\xa4", NULL, "characters that no token has"},
};

static void test_tokens(void **state)
{
	struct kube_config c = {.ca_fd = -1};
	char out[KUBE_TOKEN_MAX], why[POD_WHY_MAX], *big;

	for (unsigned i = 0; i < sizeof tokens / sizeof *tokens; i++) {
		snprintf(c.token_file, sizeof c.token_file, "%s", file_put("token", tokens[i].text));
		why[0] = '\0';
		print_message("row: %s\n", tokens[i].name);
		assert_int_equal(kube_token_read(&c, out, why), tokens[i].wrong ? -EINVAL : 0);
		if (!tokens[i].wrong) {
			assert_string_equal(out, tokens[i].want);
			continue;
		}
		assert_non_null(strstr(why, tokens[i].wrong));
		assert_null(strstr(why, "abc")); /* a secret is not for the log */
	}
	big = malloc(KUBE_TOKEN_MAX + 1);
	memset(big, 'a', KUBE_TOKEN_MAX);
	big[KUBE_TOKEN_MAX] = '\0';
	file_put("token", big);
	assert_int_equal(kube_token_read(&c, out, why), -EFBIG);
	free(big);
	unlink(c.token_file);
	assert_int_equal(kube_token_read(&c, out, why), -ENOENT);
}

static int begin(void **state)
{
	return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
	char path[256];

	snprintf(path, sizeof path, "%s/kubeconfig", dir);
	unlink(path);
	snprintf(path, sizeof path, "%s/token", dir);
	unlink(path);
	return rmdir(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_cluster), cmocka_unit_test(test_kubeconfig),
					   cmocka_unit_test(test_certificate_in_the_file),
					   cmocka_unit_test(test_tokens)};

	return cmocka_run_group_tests(tests, begin, end);
}
