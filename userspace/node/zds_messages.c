/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the form of ZDS messages on the keeper's side (proto/zds.proto). */
#include "node/zds_messages.h"

#include <errno.h>
#include <stdio.h>

#include "net/seqpacket.h"
#include "proto/zds.pb-c.h"

typedef Istio__Workload__Zds__WorkloadRequest request_t;

int zds_hello_decode(struct zds_hello *out, const void *buf, size_t len)
{
	Istio__Workload__Zds__ZdsHello *hello = istio__workload__zds__zds_hello__unpack(NULL, len, buf);
	bool known = hello && hello->version == ISTIO__WORKLOAD__ZDS__VERSION__V1;

	if (known)
		*out = (struct zds_hello){hello->extension, hello->draining};
	if (hello)
		istio__workload__zds__zds_hello__free_unpacked(hello, NULL);
	return known ? 0 : -EBADMSG;
}

int zds_answer_decode(struct zds_answer *out, const void *buf, size_t len)
{
	Istio__Workload__Zds__WorkloadResponse *r = istio__workload__zds__workload_response__unpack(NULL, len, buf);
	struct zds_answer a = {.n_sockets = 0};
	bool good = r && r->payload_case == ISTIO__WORKLOAD__ZDS__WORKLOAD_RESPONSE__PAYLOAD_ACK &&
		    zds_sockets_take(a.socket, &a.n_sockets, (const unsigned *)r->ack->sockets, r->ack->n_sockets);

	if (good)
		snprintf(a.error, sizeof a.error, "%s", r->ack->error);
	if (r)
		istio__workload__zds__workload_response__free_unpacked(r, NULL);
	if (good)
		*out = a;
	return good ? 0 : -EBADMSG;
}

static int request_encode(uint8_t *buf, const request_t *r)
{
	if (istio__workload__zds__workload_request__get_packed_size(r) > SEQPACKET_BYTES)
		return -EMSGSIZE;
	return (int)istio__workload__zds__workload_request__pack(r, buf);
}

int zds_add_encode(uint8_t *buf, const struct zds_workload *w, int fds[1 + ZDS_SOCKETS], unsigned *n_fds)
{
	request_t r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__AddWorkload add = ISTIO__WORKLOAD__ZDS__ADD_WORKLOAD__INIT;
	Istio__Workload__Zds__WorkloadInfo info = ISTIO__WORKLOAD__ZDS__WORKLOAD_INFO__INIT;
	Istio__Workload__Zds__Socket list[ZDS_SOCKETS];

	*n_fds = 0;
	fds[(*n_fds)++] = w->netns_fd;
	for (unsigned i = 0; w->socket && i < ZDS_SOCKETS; i++)
		if (w->socket[i] >= 0) {
			list[add.n_sockets++] = (Istio__Workload__Zds__Socket)i;
			fds[(*n_fds)++] = w->socket[i];
		}
	info.name = (char *)w->name;
	info.namespace_ = (char *)w->ns;
	info.service_account = (char *)w->sa;
	add.uid = (char *)w->uid;
	add.workload_info = &info;
	add.sockets = list;
	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_ADD;
	r.add = &add;
	return request_encode(buf, &r);
}

int zds_keep_encode(uint8_t *buf, const char *uid, bool return_sockets)
{
	request_t r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__KeepWorkload keep = ISTIO__WORKLOAD__ZDS__KEEP_WORKLOAD__INIT;

	keep.uid = (char *)uid;
	keep.return_sockets = return_sockets;
	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_KEEP;
	r.keep = &keep;
	return request_encode(buf, &r);
}

int zds_del_encode(uint8_t *buf, const char *uid)
{
	request_t r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__DelWorkload del = ISTIO__WORKLOAD__ZDS__DEL_WORKLOAD__INIT;

	del.uid = (char *)uid;
	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_DEL;
	r.del = &del;
	return request_encode(buf, &r);
}

int zds_snapshot_encode(uint8_t *buf)
{
	request_t r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__SnapshotSent sent = ISTIO__WORKLOAD__ZDS__SNAPSHOT_SENT__INIT;

	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_SNAPSHOT_SENT;
	r.snapshot_sent = &sent;
	return request_encode(buf, &r);
}

int zds_retire_encode(uint8_t *buf)
{
	request_t r = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__INIT;
	Istio__Workload__Zds__Retire retire = ISTIO__WORKLOAD__ZDS__RETIRE__INIT;

	r.payload_case = ISTIO__WORKLOAD__ZDS__WORKLOAD_REQUEST__PAYLOAD_RETIRE;
	r.retire = &retire;
	return request_encode(buf, &r);
}
