/* SPDX-License-Identifier: Apache-2.0 */
/* What wire.c asks of wire_tls.c. */
#pragma once
#include <openssl/ssl.h>

#include "net/wire.h"

/* A client on `fd`, ready for its handshake. NULL, or what is wrong: static. */
const char *wire_tls_new(const struct wire_options *o, int fd, SSL **out);
/* After the handshake: is it the server that was asked for? */
bool wire_tls_is_meant(const SSL *ssl, const struct wire_options *o);
/* What went wrong; `code` is SSL_get_error()'s. */
const char *wire_tls_error(const SSL *ssl, int code);
