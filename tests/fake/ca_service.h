/* SPDX-License-Identifier: Apache-2.0 */
/* Istio's CreateCertificate for fakes and tests, over the embedded CA's code: signs whatever identity is asked for. */
#pragma once
#include "control/ca_root.h"
#include "control/csr.h"
#include "fake/grpc_server.h"
#include "proto/ca.pb-c.h"

struct ca_service {
	struct ca_root *root;
	const char *token; /* the bearer token that is due; NULL: any */
	long ttl_max_s;	   /* 0: what is asked for */
	unsigned served;
};

static inline const char *ca_service_identity(const Istio__V1__Auth__IstioCertificateRequest *r)
{
	for (size_t i = 0; r->metadata && i < r->metadata->n_fields; i++) {
		const Istio__V1__Auth__MetadataEntry *e = r->metadata->fields[i];

		if (!strcmp(e->key, "ImpersonatedIdentity") && e->value &&
		    e->value->kind_case == ISTIO__V1__AUTH__METADATA_VALUE__KIND_STRING_VALUE)
			return e->value->string_value;
	}
	return NULL;
}

static inline void ca_service_sign(struct ca_service *s, const Istio__V1__Auth__IstioCertificateRequest *r,
				   struct server_reply *out)
{
	Istio__V1__Auth__IstioCertificateResponse answer = ISTIO__V1__AUTH__ISTIO_CERTIFICATE_RESPONSE__INIT;
	const char *asked = ca_service_identity(r);
	char *own = asked ? NULL : csr_identity(r->csr), *chain[2], why[CA_WHY_MAX] = "no identity";
	long ttl = s->ttl_max_s && r->validity_duration > s->ttl_max_s ? s->ttl_max_s : (long)r->validity_duration;

	chain[0] = asked || own ? ca_root_sign(s->root, r->csr, asked ? asked : own, ttl, why) : NULL;
	free(own);
	if (!chain[0]) {
		out->status = 3;
		snprintf(out->message, sizeof out->message, "%.100s", why);
		return;
	}
	chain[1] = (char *)ca_root_pem(s->root);
	answer.n_cert_chain = 2;
	answer.cert_chain = chain;
	out->len = istio__v1__auth__istio_certificate_response__get_packed_size(&answer);
	out->body = malloc(out->len);
	istio__v1__auth__istio_certificate_response__pack(&answer, out->body);
	free(chain[0]);
	__atomic_add_fetch(&s->served, 1, __ATOMIC_RELAXED);
}

static inline void ca_service_serve(void *arg, const struct server_request *rq, struct server_reply *out)
{
	struct ca_service *s = arg;
	const char *auth = server_header(rq, "authorization");
	Istio__V1__Auth__IstioCertificateRequest *r;

	if (strcmp(rq->path, "/istio.v1.auth.IstioCertificateService/CreateCertificate")) {
		out->status = 12;
		return;
	}
	if (s->token && (!auth || strncmp(auth, "Bearer ", 7) || strcmp(auth + 7, s->token))) {
		out->status = 16;
		snprintf(out->message, sizeof out->message, "bad token");
		return;
	}
	r = rq->len < GRPC_PREFIX ? NULL
				  : istio__v1__auth__istio_certificate_request__unpack(NULL, rq->len - GRPC_PREFIX,
										       rq->body + GRPC_PREFIX);
	if (!r) {
		out->status = 3;
		return;
	}
	ca_service_sign(s, r, out);
	istio__v1__auth__istio_certificate_request__free_unpacked(r, NULL);
}
