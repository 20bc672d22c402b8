/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the form of ZDS messages (proto/zds.proto). */
#include "control/zds_msg.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "proto/zds.pb-c.h"

_Static_assert(ISTIO__WORKLOAD__ZDS__SOCKET__RAW6 == ZDS_SOCKETS - 1, "sockets of proto/zds.proto");

static bool text_take(char *out, size_t cap, const char *in)
{
	if (strlen(in) >= cap)
		return false;
	strcpy(out, in);
	return true;
}

static bool uid_take(struct zds_request *r, const char *uid)
{
	return uid[0] && text_take(r->uid, sizeof r->uid, uid);
}

bool zds_sockets_take(uint8_t out[ZDS_SOCKETS], unsigned *n, const unsigned *given, size_t n_given)
{
	unsigned seen = 0;

	if (n_given > ZDS_SOCKETS)
		return false;
	for (size_t i = 0; i < n_given; i++) {
		unsigned s = given[i];

		if (s >= ZDS_SOCKETS || seen & 1u << s)
			return false;
		seen |= 1u << s;
		out[i] = (uint8_t)s;
	}
	*n = (unsigned)n_given;
	return true;
}

/* What is wrong with the message, or NULL. */
static const char *add_take(struct zds_request *r, const Istio__Workload__Zds__AddWorkload *add)
{
	const Istio__Workload__Zds__WorkloadInfo *w = add->workload_info;

	r->kind = ZDS_ADD;
	if (!uid_take(r, add->uid))
		return "add: bad uid";
	if (!w)
		return "add: no workload info";
	if (!text_take(r->name, sizeof r->name, w->name) || !text_take(r->ns, sizeof r->ns, w->namespace_) ||
	    !text_take(r->sa, sizeof r->sa, w->service_account))
		return "add: workload info too long";
	return zds_sockets_take(r->socket, &r->n_sockets, (const unsigned *)add->sockets, add->n_sockets)
		       ? NULL
		       : "add: bad list of sockets";
}

static const char *request_take(struct zds_request *r, const Istio__Workload__Zds__WorkloadRequest *in)
{
	switch ((int)in->payload_case) {
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD:
		return add_take(r, in->add);
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL:
		r->kind = ZDS_DEL;
		return uid_take(r, in->del->uid) ? NULL : "del: bad uid";
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP:
		r->kind = ZDS_KEEP;
		r->return_sockets = in->keep->return_sockets;
		return uid_take(r, in->keep->uid) ? NULL : "keep: bad uid";
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT:
		r->kind = ZDS_SNAPSHOT;
		return NULL;
	case ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_RETIRE:
		r->kind = ZDS_RETIRE;
		return NULL;
	default:
		return "unknown request";
	}
}

int zds_request_decode(struct zds_request *out, const void *buf, size_t len, char why[ZDS_WHY_MAX])
{
	Istio__Workload__Zds__WorkloadRequest *in = istio__workload__zds__workload_request__unpack(NULL, len, buf);
	struct zds_request r = {0};
	const char *wrong;

	if (!in) {
		snprintf(why, ZDS_WHY_MAX, "undecodable message of %zu bytes", len);
		return -EBADMSG;
	}
	wrong = request_take(&r, in);
	istio__workload__zds__workload_request__free_unpacked(in, NULL);
	if (wrong) {
		snprintf(why, ZDS_WHY_MAX, "%s", wrong);
		return -EPROTO;
	}
	*out = r;
	return 0;
}

size_t zds_hello_encode(uint8_t buf[ZDS_HELLO_BYTES], bool draining)
{
	Istio__Workload__Zds__ZdsHello hello = ISTIO__WORKLOAD__ZDS__ZDS_HELLO__INIT;

	hello.version = ISTIO__WORKLOAD__ZDS__VERSION__V1;
	hello.extension = ZDS_EXTENSION;
	hello.draining = draining;
	return istio__workload__zds__zds_hello__pack(&hello, buf);
}

size_t zds_ack_encode(uint8_t buf[ZDS_ACK_BYTES], const char *error, const uint8_t *socket, unsigned n_sockets)
{
	Istio__Workload__Zds__Ack ack = ISTIO__WORKLOAD__ZDS__ACK__INIT;
	Istio__Workload__Zds__WorkloadResponse out = ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__INIT;
	Istio__Workload__Zds__Socket list[ZDS_SOCKETS];
	char text[ZDS_WHY_MAX];

	snprintf(text, sizeof text, "%s", error);
	for (unsigned i = 0; i < n_sockets; i++)
		list[i] = (Istio__Workload__Zds__Socket)socket[i];
	ack.error = text;
	ack.sockets = list;
	ack.n_sockets = n_sockets;
	out.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__PAYLOAD_ACK;
	out.ack = &ack;
	return istio__workload__zds__workload_response__pack(&out, buf);
}
