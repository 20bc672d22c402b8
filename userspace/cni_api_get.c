/* SPDX-License-Identifier: Apache-2.0 */
/* Owns a request to the API server. HTTP/1.0, so that an answer ends with the connection. The server must be given by
 * address, as it is in a cluster: names would need the host's resolver, which a static program cannot load. */
#include <ctype.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/addr.h"
#include "base/monotonic.h"
#include "cni_api.h"

struct talk {
	int fd;
	SSL_CTX *context;
	SSL *tls; /* NULL: none */
	uint64_t deadline;
};

static int __attribute__((format(printf, 3, 4))) failed(char why[POD_WHY_MAX], int e, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, POD_WHY_MAX, fmt, ap);
	va_end(ap);
	return e;
}

/* --- where it is ---------------------------------------------------------------------------------------------- */

struct place {
	struct endpoint at;
	char host[ADDR_STRLEN];
	const char *path; /* what precedes every path */
	bool tls;
};

static int place_read(struct place *p, const char *server, char why[POD_WHY_MAX])
{
	const char *host = server + (strncmp(server, "https://", 8) == 0 ? 8 : 7), *end, *port;
	bool six = *host == '[';
	size_t len;

	p->tls = host == server + 8;
	end = six ? strchr(host, ']') : host + strcspn(host, ":/");
	host += six;
	len = end ? (size_t)(end - host) : ADDR_STRLEN;
	if (len >= sizeof p->host)
		return failed(why, -EINVAL, "%.300s: the API server must be given by its address", server);
	memcpy(p->host, host, len);
	p->host[len] = '\0';
	port = end + six;
	p->at.port = p->tls ? 443 : 80;
	if (*port == ':')
		p->at.port = (uint16_t)strtoul(port + 1, NULL, 10);
	p->path = port + strcspn(port, "/");
	if (addr_parse(&p->at.ip, p->host) < 0)
		return failed(why, -EINVAL, "%.300s: the API server must be given by its address", server);
	return 0;
}

/* --- the connection ------------------------------------------------------------------------------------------- */

static int wait_for(const struct talk *t, short events)
{
	struct pollfd p = {.fd = t->fd, .events = events};
	uint64_t now = monotonic_ms();
	int n = now < t->deadline ? poll(&p, 1, (int)(t->deadline - now)) : 0;

	return n > 0 || (n < 0 && errno == EINTR) ? 0 : n ? -errno : -ETIMEDOUT;
}

static int connect_to(struct talk *t, const struct place *p)
{
	struct sockaddr_storage ss;
	socklen_t len = endpoint_to_sockaddr(&p->at, &ss), size = sizeof(int);
	int e = 0;

	t->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (t->fd < 0)
		return -errno;
	if (connect(t->fd, (struct sockaddr *)&ss, len) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return -errno;
	e = wait_for(t, POLLOUT);
	if (!e && getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &e, &size) < 0)
		return -errno;
	return e > 0 ? -e : e;
}

/* After an operation of OpenSSL that returned `r`: 0 when it is to be repeated. */
static int tls_wait(const struct talk *t, int r)
{
	switch (SSL_get_error(t->tls, r)) {
	case SSL_ERROR_WANT_READ:
		return wait_for(t, POLLIN);
	case SSL_ERROR_WANT_WRITE:
		return wait_for(t, POLLOUT);
	default:
		return -EPROTO;
	}
}

static int tls_trust(struct talk *t, const struct kube_config *c, const struct place *p)
{
	int ok;

	if (c->skip_verify)
		return 0;
	SSL_set_verify(t->tls, SSL_VERIFY_PEER, NULL);
	ok = c->ca_file[0] ? SSL_CTX_load_verify_file(t->context, c->ca_file)
			   : SSL_CTX_set_default_verify_paths(t->context);
	return ok == 1 && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(t->tls), p->host) == 1 ? 0 : -EINVAL;
}

static int tls_begin(struct talk *t, const struct kube_config *c, const struct place *p, char why[POD_WHY_MAX])
{
	long verdict;
	int r, e = 0;

	OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL); /* the host's is for the host's programs */
	t->context = SSL_CTX_new(TLS_client_method());
	if (t->context) /* an answer has a length */
		SSL_CTX_set_options(t->context, SSL_OP_IGNORE_UNEXPECTED_EOF);
	t->tls = t->context && SSL_CTX_set_min_proto_version(t->context, TLS1_2_VERSION) == 1 ? SSL_new(t->context)
											      : NULL;
	if (!t->tls || SSL_set_fd(t->tls, t->fd) != 1)
		return failed(why, -ENOMEM, "cannot begin TLS");
	if (tls_trust(t, c, p) < 0)
		return failed(why, -EINVAL, "the certificate authority of the API server cannot be read");
	while (!e && (r = SSL_connect(t->tls)) != 1)
		e = tls_wait(t, r);
	verdict = SSL_get_verify_result(t->tls);
	if (e && verdict != X509_V_OK)
		return failed(why, -EACCES, "the API server's certificate: %s", X509_verify_cert_error_string(verdict));
	return e ? failed(why, e, "TLS with the API server: %s", strerror(-e)) : 0;
}

static ssize_t talk_write(struct talk *t, const char *p, size_t len)
{
	int e = 0;

	while (!e) {
		int r = t->tls ? SSL_write(t->tls, p, (int)len) : (int)send(t->fd, p, len, MSG_NOSIGNAL);

		if (r > 0)
			return r;
		e = t->tls ? tls_wait(t, r) : errno == EAGAIN ? wait_for(t, POLLOUT) : -errno;
	}
	return e;
}

/* 0: the end. A server that ends TLS without saying so is believed: what it said has a length. */
static ssize_t talk_read(struct talk *t, char *p, size_t len)
{
	int e = 0;

	while (!e) {
		int r = t->tls ? SSL_read(t->tls, p, (int)len) : (int)recv(t->fd, p, len, 0);

		if (r > 0 || (!t->tls && r == 0) || (t->tls && SSL_get_shutdown(t->tls) & SSL_RECEIVED_SHUTDOWN))
			return r > 0 ? r : 0;
		e = t->tls ? tls_wait(t, r) : errno == EAGAIN ? wait_for(t, POLLIN) : -errno;
	}
	return e;
}

static void talk_end(struct talk *t)
{
	SSL_free(t->tls);
	SSL_CTX_free(t->context);
	if (t->fd >= 0)
		close(t->fd);
}

/* --- request and answer ----------------------------------------------------------------------------------------- */

static int ask(struct talk *t, const struct kube_config *c, const struct place *p, const char *path,
	       char why[POD_WHY_MAX])
{
	static char token[KUBE_TOKEN_MAX], text[KUBE_TOKEN_MAX + 2048];
	size_t len, done = 0;
	int e = kube_token_read(c, token, why);

	if (e)
		return e;
	len = (size_t)snprintf(
		text, sizeof text,
		"GET %s%s HTTP/1.0\r\nHost: %s\r\nAccept: application/json\r\nUser-Agent: culvert-cni\r\n"
		"%s%s%s\r\n",
		p->path, path, p->host, token[0] ? "Authorization: Bearer " : "", token, token[0] ? "\r\n" : "");
	while (!e && done < len) {
		ssize_t n = talk_write(t, text + done, len - done);

		e = n < 0 ? (int)n : 0;
		done += n > 0 ? (size_t)n : 0;
	}
	explicit_bzero(token, sizeof token);
	explicit_bzero(text, sizeof text);
	return e ? failed(why, e, "the API server: %s", strerror(-e)) : 0;
}

static long content_length(const char *head, const char *end)
{
	static const char name[] = "\r\ncontent-length:";
	const char *at = head;

	while ((at = memchr(at, '\r', (size_t)(end - at)))) {
		if ((size_t)(end - at) > sizeof name && !strncasecmp(at, name, sizeof name - 1))
			return strtol(at + sizeof name - 1, NULL, 10);
		at++;
	}
	return -1;
}

static int answer_take(char *all, size_t n, int *status, char **body, size_t *len, char why[POD_WHY_MAX])
{
	char *end = memmem(all, n, "\r\n\r\n", 4);
	long want = end ? content_length(all, end + 2) : -1;

	if (!end || n < 12 || memcmp(all, "HTTP/1.", 7) != 0 || !isdigit((unsigned char)all[9]))
		return failed(why, -EPROTO, "what the API server says is not HTTP");
	*len = n - (size_t)(end + 4 - all);
	if (want >= 0 && (size_t)want > *len)
		return failed(why, -EPROTO, "the API server's answer is cut");
	*status = atoi(all + 9);
	memmove(all, end + 4, *len);
	all[*len] = '\0';
	*body = all;
	return 0;
}

static int answer_read(struct talk *t, int *status, char **body, size_t *len, char why[POD_WHY_MAX])
{
	char *all = malloc(API_BODY_MAX + 1);
	size_t used = 0;
	ssize_t n = 1;
	int e;

	if (!all)
		return failed(why, -ENOMEM, "out of memory");
	while (n > 0 && used < API_BODY_MAX) {
		n = talk_read(t, all + used, API_BODY_MAX - used);
		used += n > 0 ? (size_t)n : 0;
	}
	if (n < 0)
		e = failed(why, (int)n, "the API server: %s", strerror((int)-n));
	else if (used == API_BODY_MAX)
		e = failed(why, -EMSGSIZE, "the API server's answer is too large");
	else
		e = answer_take(all, used, status, body, len, why);
	if (e)
		free(all);
	return e;
}

int api_get(const struct kube_config *c, const char *path, uint64_t deadline, int *status, char **body, size_t *len,
	    char why[POD_WHY_MAX])
{
	struct talk t = {.fd = -1, .deadline = deadline};
	struct place p = {.path = ""};
	int e = place_read(&p, c->server, why);

	if (e)
		return e;
	e = connect_to(&t, &p);
	if (e)
		failed(why, e, "the API server at %.300s: %s", c->server, strerror(-e));
	else if (p.tls)
		e = tls_begin(&t, c, &p, why);
	if (!e)
		e = ask(&t, c, &p, path, why);
	if (!e)
		e = answer_read(&t, status, body, len, why);
	talk_end(&t);
	return e;
}
