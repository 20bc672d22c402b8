/* SPDX-License-Identifier: Apache-2.0 */
/* The client of Istio's CA (istiod): CreateCertificate over gRPC. */
#pragma once
#include "control/ca.h"
#include "control/token.h"
#include "net/grpc.h"

enum {
	CA_TRIES = 3,		   /* of one fetch, within CA_FETCH_MS, where trying again makes sense */
	CA_TRY_AGAIN_MS = 200,	   /* before the second one; doubles */
	CA_TRY_JITTER = 20,	   /* percent of that */
	CA_CHAIN_MAX = 16,	   /* certificates in an answer */
	CA_ANSWER_MAX = 256 << 10, /* bytes */
};

struct ca_client_options {
	struct grpc_options server; /* CA_ADDRESS, CA_ROOT_CA, ALT_CA_HOSTNAME */
	const char *token;	    /* AUTH_TOKEN, see token.h; NULL: none */
	const char *cluster_id;
	long ttl_s;			   /* SECRET_TTL */
	bool impersonate;		   /* shared mode: the identity goes in the metadata */
	const struct grpc_header *headers; /* CA_HEADER_*, at most CA_HEADERS_MAX */
	unsigned n_headers;
};
enum { CA_HEADERS_MAX = 16 };

/* Strings are copied. NULL on failure, with one line in `why`. */
struct ca *ca_client_new(struct loop *l, const struct ca_client_options *o, char why[CA_WHY_MAX]);
