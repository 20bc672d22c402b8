/* SPDX-License-Identifier: Apache-2.0 */
/* Queries and answers on a pod's 15053 socket with the addresses that the application sees. Private to data/. */
#pragma once
#include <sys/types.h>

#include "data/pod.h"

struct dns_path {
	struct endpoint client, resolver; /* resolver: who is asked; port 0: rules have hidden it */
	struct addr local;		  /* behind REDIRECT: the address that the query came to */
	bool raw;			  /* the answer needs the resolver as its source */
};

/* Receives one query. Bytes, 0 for one that is dropped (not from this pod's applications), or -errno. */
ssize_t dns_query_recv(const struct pod *p, uint8_t *buf, size_t cap, struct dns_path *path);
void dns_answer_send(const struct pod *p, const struct dns_path *path, const uint8_t *msg, size_t len);
