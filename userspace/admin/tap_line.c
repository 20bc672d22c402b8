// SPDX-License-Identifier: Apache-2.0
/* Questions and records of taps as JSON. */
#include "admin/tap_line.h"

#include <errno.h>
#include <jansson.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *copy(struct tap_question *q, const char *pod, const char *peer)
{
	if (snprintf(q->pod, sizeof q->pod, "%s", pod) >= (int)sizeof q->pod)
		return "the pod's name is too long";
	if (snprintf(q->peer, sizeof q->peer, "%s", peer) >= (int)sizeof q->peer)
		return "the peer's name is too long";
	return NULL;
}

const char *tap_question(const char *text, struct tap_question *out)
{
	json_t *o = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
	const char *pod = NULL, *peer = "", *wrong = "the question is {\"pod\": text, \"peer\": text}";

	if (json_unpack(o, "{s:s s?:s}", "pod", &pod, "peer", &peer) == 0)
		wrong = copy(out, pod, peer);
	json_decref(o);
	return wrong;
}

static void set_some(json_t *o, const char *key, const char *text)
{
	if (*text)
		json_object_set_new(o, key, json_string(text));
}

static json_t *end_of(const struct endpoint *at, const char *identity, const char *workload, const char *service)
{
	char text[ENDPOINT_STRLEN];
	json_t *o = json_pack("{ss}", "address", endpoint_str(at, text));

	set_some(o, "identity", identity);
	set_some(o, "workload", workload);
	set_some(o, "service", service);
	return o;
}

static json_t *base64(const uint8_t *p, size_t len)
{
	char text[(TAP_PIECE_MAX + 2) / 3 * 4 + 1];

	EVP_EncodeBlock((unsigned char *)text, p, (int)len);
	return json_string(text);
}

static json_t *record(const struct tap_record *r)
{
	static const char *const events[] = {[TAP_OPENED] = "opened", [TAP_DATA] = "data", [TAP_CLOSED] = "closed"};
	const struct tap_head *h = &r->head;
	bool back = h->event == TAP_DATA && !h->to_server;
	json_t *o = json_pack(
		"{ss sI sI ss ss so so sI sI}", "event", events[h->event], "connection", (json_int_t)h->conn, "time",
		(json_int_t)h->time_us, "direction", h->inbound ? "inbound" : "outbound", "protocol",
		h->local   ? "local"
		: h->hbone ? "HBONE"
			   : "TCP",
		"client", end_of(&h->client, r->text[TAP_CLIENT_ID], r->text[TAP_CLIENT], ""), "server",
		end_of(&h->server, r->text[TAP_SERVER_ID], r->text[TAP_SERVER], r->text[TAP_SERVICE]), "received",
		(json_int_t)(back ? h->other : h->offset), "sent", (json_int_t)(back ? h->offset : h->other));

	if (h->event == TAP_DATA) {
		json_object_set_new(o, "to", json_string(h->to_server ? "server" : "client"));
		json_object_set_new(o, "length", json_integer(h->data_len));
		json_object_set_new(o, "data", base64(r->data, h->data_len));
	}
	set_some(o, "error", r->text[TAP_ERROR]);
	return o;
}

int tap_line(const struct tap_record *r, char **out, size_t *len)
{
	json_t *o = record(r);
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;

	json_decref(o);
	if (!text)
		return -ENOMEM;
	*len = strlen(text) + 1;
	text[*len - 1] = '\n';
	*out = text;
	return 0;
}
