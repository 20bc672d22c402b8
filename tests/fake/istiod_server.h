/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for istiod: delta ADS as istiod speaks it, its CA on the same port, and what a script wants to go wrong. One
 * lock for everything; each connection has a thread, which another one wakes when it has queued something. Header-only,
 * for tests of the client in one process and for tests/fake/istiod.c. */
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/eventfd.h>

#include "fake/ca_service.h"
#include "fake/istiod_acked.h"
#include "fake/istiod_mesh.h"
#include "proto/xds.pb-c.h"

enum { ISTIOD_CONNS_MAX = 32, ISTIOD_LOG_MAX = 256, ISTIOD_NAMES_MAX = 64, ISTIOD_TICK_MS = 5 };

typedef Envoy__Service__Discovery__V3__DeltaDiscoveryRequest ads_request;

struct ads { /* one stream; of a unary call only the first member is used */
	struct server_stream st;
	struct ads_conn *conn;
	int32_t id;
	struct grpc_frames frames;
	uint8_t *out;
	size_t len, at, sent;
	bool open, on_demand, ended, subscribed[XDS_TYPES];
	int end_status;
	char end_why[128], node[128];
	size_t budget;		     /* bytes of this turn, when dripping */
	char *has[ISTIOD_NAMES_MAX]; /* on demand: names that were pushed, or asked for */
	unsigned n_has;
	struct acked_list *unacked; /* responses of addresses that are not acknowledged yet */
};

struct ads_conn {
	struct server_conn base; /* first: nghttp2 hands it to what grpc_server.h has */
	struct istiod *i;
	nghttp2_session *h2;
	int wake;
	struct ads *ads;	/* the last stream */
	bool cut, goaway, full; /* full: the socket takes no more now */
};

/* What was asked, in order: for rows to look at. */
struct istiod_seen {
	enum xds_type type;
	unsigned stream; /* serial number */
	unsigned versions, subscribes, unsubscribes;
	bool first, nack, ack;
	char nonce[64], error[512], name[256], version[64]; /* the first of each */
	char node[256];
};

struct istiod {
	struct server *server;
	struct ca_root *root;
	struct ca_service ca;
	pthread_mutex_t lock;
	struct fake_mesh mesh;
	struct acked acked;
	struct ads_conn *conn[ISTIOD_CONNS_MAX];
	unsigned nonce, streams, n_seen;
	struct istiod_seen seen[ISTIOD_LOG_MAX];
	char token[256], clusterid[64], extra[64]; /* headers of the last stream */
	/* The script. */
	const char *want_token;
	int refuse; /* gRPC status of new streams, with trailers only; 0: none */
	char refuse_why[128];
	unsigned http_status;		/* of new streams; 0: 200 */
	bool mute;			/* streams are accepted and not answered */
	size_t drip;			/* bytes a turn; 0: all */
	size_t goaway_after, cut_after; /* bytes of a stream; 0: never. Once */
	char nonce_text[1200];		/* of the next response */
	size_t request_max;		/* bytes; longer ones end the stream; 0: 4 MiB as istiod */
};

/* --- what is sent --------------------------------------------------------------------------------------- */

static inline void ads_wake(struct ads_conn *c)
{
	uint64_t one = 1;

	if (write(c->wake, &one, sizeof one) < 0)
		abort();
}

/* A message as it is. */
static inline void ads_send(struct ads *a, const uint8_t *msg, size_t len)
{
	a->out = realloc(a->out, a->len + GRPC_PREFIX + len);
	grpc_prefix_write(a->out + a->len, (uint32_t)len);
	memcpy(a->out + a->len + GRPC_PREFIX, msg, len);
	a->len += GRPC_PREFIX + len;
	nghttp2_session_resume_data(a->conn->h2, a->id);
	ads_wake(a->conn);
}

struct ads_push {
	Envoy__Service__Discovery__V3__DeltaDiscoveryResponse m;
	size_t cap, removed_cap;
	struct acked_list *note; /* NULL: nobody wants to know */
};

static inline void ads_add(struct ads_push *p, const struct fake_resource *r, bool aliases)
{
	Envoy__Service__Discovery__V3__Resource m = ENVOY__SERVICE__DISCOVERY__V3__RESOURCE__INIT;
	Envoy__Service__Discovery__V3__Any any = ENVOY__SERVICE__DISCOVERY__V3__ANY__INIT;
	ProtobufCBinaryData *to;

	if (p->m.n_resources == p->cap) {
		p->cap = p->cap ? 2 * p->cap : 64;
		p->m.resources = realloc(p->m.resources, p->cap * sizeof *p->m.resources);
	}
	to = &p->m.resources[p->m.n_resources++];
	any.type_url = p->m.type_url;
	any.value = (ProtobufCBinaryData){r->len, r->value};
	if (p->note)
		acked_note(p->note, r->name, r->version, false);
	m.name = r->name;
	m.version = (char *)r->version;
	m.resource = &any;
	m.n_aliases = aliases ? r->n_alias : 0;
	m.aliases = r->alias;
	to->data = encoder_pack(&m.base, &to->len);
}

static inline void ads_remove(struct ads_push *p, const char *name)
{
	if (p->m.n_removed_resources == p->removed_cap) {
		p->removed_cap = p->removed_cap ? 2 * p->removed_cap : 64;
		p->m.removed_resources = realloc(p->m.removed_resources, p->removed_cap * sizeof(char *));
	}
	p->m.removed_resources[p->m.n_removed_resources++] = (char *)name;
	if (p->note)
		acked_note(p->note, name, "", true);
}

static inline struct ads_push ads_begin(enum xds_type t)
{
	struct ads_push p = {.m = ENVOY__SERVICE__DISCOVERY__V3__DELTA_DISCOVERY_RESPONSE__INIT};

	p.m.type_url = (char *)xds_type_urls[t];
	return p;
}

/* The same, with a note of what is in it, where a script wants to know. */
static inline struct ads_push ads_begin_noted(const struct ads *a, enum xds_type t)
{
	struct ads_push p = ads_begin(t);

	if (a->conn->i->acked.on && t == XDS_ADDRESS)
		p.note = calloc(1, sizeof *p.note);
	return p;
}

static inline void ads_finish(struct ads *a, struct ads_push *p)
{
	char nonce[sizeof a->conn->i->nonce_text];
	uint8_t *msg;
	size_t len;

	snprintf(nonce, sizeof nonce, "%u", ++a->conn->i->nonce);
	if (*a->conn->i->nonce_text)
		strcpy(nonce, a->conn->i->nonce_text);
	*a->conn->i->nonce_text = '\0';
	p->m.nonce = nonce;
	if (p->note) {
		snprintf(p->note->nonce, sizeof p->note->nonce, "%s", nonce);
		p->note->next = a->unacked;
		a->unacked = p->note;
	}
	msg = encoder_pack(&p->m.base, &len);
	ads_send(a, msg, len);
	free(msg);
	for (size_t k = 0; k < p->m.n_resources; k++)
		free(p->m.resources[k].data);
	free(p->m.resources);
	free(p->m.removed_resources);
}

/* --- on demand ------------------------------------------------------------------------------------------ */

static inline bool ads_has(const struct ads *a, const char *name)
{
	for (unsigned k = 0; k < a->n_has; k++)
		if (!strcmp(a->has[k], name))
			return true;
	return false;
}

static inline void ads_have(struct ads *a, const char *name)
{
	if (!ads_has(a, name) && a->n_has < ISTIOD_NAMES_MAX)
		a->has[a->n_has++] = strdup(name);
}

static inline void ads_forget(struct ads *a, const char *name)
{
	for (unsigned k = 0; k < a->n_has; k++)
		if (!strcmp(a->has[k], name)) {
			free(a->has[k]);
			a->has[k] = a->has[--a->n_has];
			return;
		}
}

static inline bool fake_is_called(const struct fake_resource *r, const char *name)
{
	bool is = !strcmp(r->name, name);

	for (unsigned k = 0; k < r->n_alias && !is; k++)
		is = !strcmp(r->alias[k], name);
	return is;
}

/* A name brings what it names, a service its workloads as well; one that was asked for already gets no answer. */
static inline void ads_demand(struct ads *a, const char *name)
{
	const struct fake_mesh *m = &a->conn->i->mesh;
	struct ads_push p = ads_begin(XDS_ADDRESS);

	if (ads_has(a, name))
		return;
	ads_have(a, name);
	for (size_t k = 0; k < m->of[XDS_ADDRESS].n; k++) {
		const struct fake_resource *r = &m->of[XDS_ADDRESS].all[k];

		if (!fake_is_called(r, name))
			continue;
		ads_add(&p, r, true);
		ads_have(a, r->name);
		for (size_t w = 0; w < m->of[XDS_ADDRESS].n; w++)
			for (unsigned s = 0; s < m->of[XDS_ADDRESS].all[w].n_service; s++)
				if (!strcmp(m->of[XDS_ADDRESS].all[w].service[s], r->name)) {
					ads_add(&p, &m->of[XDS_ADDRESS].all[w], true);
					ads_have(a, m->of[XDS_ADDRESS].all[w].name);
				}
	}
	if (!p.m.n_resources)
		ads_remove(&p, name);
	ads_finish(a, &p);
}

/* --- what comes in -------------------------------------------------------------------------------------- */

static inline bool ads_wants(const struct ads *a, const struct fake_resource *r)
{
	return !a->on_demand || !strcmp(r->node, a->node) || ads_has(a, r->name);
}

/* What is new against what the client says it has. */
static inline void ads_initial(struct ads *a, enum xds_type t, const ads_request *q)
{
	const struct fake_mesh *m = &a->conn->i->mesh;
	bool *known = calloc(m->of[t].n + 1, 1);
	struct ads_push p = ads_begin_noted(a, t);

	for (size_t k = 0; k < q->n_initial_resource_versions; k++) {
		const Envoy__Service__Discovery__V3__Version *v = q->initial_resource_versions[k];
		struct fake_resource *r = fake_find(m, t, v->key);

		if (a->on_demand && r)
			ads_have(a, v->key);
		if (!r && !a->on_demand)
			ads_remove(&p, v->key);
		else if (!r)
			continue; /* asked for below */
		else if (*r->version && !strcmp(r->version, v->value))
			known[r - m->of[t].all] = true;
	}
	for (size_t k = 0; k < m->of[t].n; k++)
		if (!known[k] && (t != XDS_ADDRESS || ads_wants(a, &m->of[t].all[k]))) {
			if (p.note)
				acked_check(&a->conn->i->acked, a->node, &m->of[t].all[k]);
			ads_add(&p, &m->of[t].all[k], a->on_demand && t == XDS_ADDRESS);
		}
	free(known);
	ads_finish(a, &p);
	for (size_t k = 0; a->on_demand && k < q->n_initial_resource_versions; k++)
		if (!fake_find(m, t, q->initial_resource_versions[k]->key))
			ads_demand(a, q->initial_resource_versions[k]->key);
}

static inline enum xds_type ads_type(const char *url)
{
	for (unsigned t = 0; t < XDS_TYPES; t++)
		if (!strcmp(url, xds_type_urls[t]))
			return t;
	return XDS_TYPES;
}

static inline void ads_note(struct istiod *i, const ads_request *q, enum xds_type t, bool first, const char *node)
{
	struct istiod_seen *s;

	if (i->n_seen == ISTIOD_LOG_MAX) /* the older half goes */
		memmove(i->seen, i->seen + ISTIOD_LOG_MAX / 2, sizeof *s * (i->n_seen -= ISTIOD_LOG_MAX / 2));
	s = &i->seen[i->n_seen++];
	*s = (struct istiod_seen){.type = t, .stream = i->streams, .first = first};
	s->versions = (unsigned)q->n_initial_resource_versions;
	s->subscribes = (unsigned)q->n_resource_names_subscribe;
	s->unsubscribes = (unsigned)q->n_resource_names_unsubscribe;
	s->nack = q->error_detail;
	s->ack = *q->response_nonce && !q->error_detail;
	snprintf(s->nonce, sizeof s->nonce, "%s", q->response_nonce);
	snprintf(s->error, sizeof s->error, "%s", q->error_detail ? q->error_detail->message : "");
	snprintf(s->node, sizeof s->node, "%s", node);
	if (s->subscribes)
		snprintf(s->name, sizeof s->name, "%s", q->resource_names_subscribe[0]);
	else if (s->unsubscribes)
		snprintf(s->name, sizeof s->name, "%s", q->resource_names_unsubscribe[0]);
	else if (s->versions) {
		snprintf(s->name, sizeof s->name, "%s", q->initial_resource_versions[0]->key);
		snprintf(s->version, sizeof s->version, "%s", q->initial_resource_versions[0]->value);
	}
}

/* The Node's id and, for the stream, its NODE_NAME. */
static inline void ads_node(struct ads *a, const ProtobufCBinaryData *b, char id[256])
{
	Envoy__Service__Discovery__V3__Node *n = envoy__service__discovery__v3__node__unpack(NULL, b->len, b->data);

	id[0] = '\0';
	if (!n)
		return;
	snprintf(id, 256, "%s", n->id);
	for (size_t k = 0; n->metadata && k < n->metadata->n_fields; k++)
		if (!strcmp(n->metadata->fields[k]->key, "NODE_NAME") && n->metadata->fields[k]->value)
			snprintf(a->node, sizeof a->node, "%s", n->metadata->fields[k]->value->string_value);
	envoy__service__discovery__v3__node__free_unpacked(n, NULL);
}

static inline void ads_end(struct ads *a, int status, const char *why)
{
	a->ended = true;
	a->end_status = status;
	snprintf(a->end_why, sizeof a->end_why, "%s", why);
	nghttp2_session_resume_data(a->conn->h2, a->id);
	ads_wake(a->conn);
}

static inline int ads_request_in(void *arg, const uint8_t *msg, size_t len)
{
	struct ads *a = arg;
	ads_request *q = envoy__service__discovery__v3__delta_discovery_request__unpack(NULL, len, msg);
	enum xds_type t = q ? ads_type(q->type_url) : XDS_TYPES;
	bool first = t < XDS_TYPES && !a->subscribed[t];
	char id[256];

	if (!q)
		return -EPROTO;
	ads_node(a, &q->node, id);
	ads_note(a->conn->i, q, t, first, id);
	if (*q->response_nonce && !q->error_detail)
		acked_take(&a->conn->i->acked, &a->unacked, q->response_nonce, a->node);
	if (first && !q->node.len && !a->node[0])
		ads_end(a, 3, "missing node information");
	else if (first) {
		a->subscribed[t] = true;
		if (t == XDS_ADDRESS && q->n_resource_names_unsubscribe)
			a->on_demand = true;
		if (!a->conn->i->mute)
			ads_initial(a, t, q);
	} else if (t == XDS_ADDRESS) {
		for (size_t k = 0; k < q->n_resource_names_unsubscribe; k++)
			ads_forget(a, q->resource_names_unsubscribe[k]);
		for (size_t k = 0; k < q->n_resource_names_subscribe && !a->conn->i->mute; k++)
			ads_demand(a, q->resource_names_subscribe[k]);
	}
	envoy__service__discovery__v3__delta_discovery_request__free_unpacked(q, NULL);
	return 0;
}

/* --- HTTP/2 --------------------------------------------------------------------------------------------- */

static inline bool is_ads(const struct ads *a)
{
	return a && !strcmp(a->st.rq.path,
			    "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources");
}

static inline ssize_t ads_body(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t len, uint32_t *flags,
			       nghttp2_data_source *src, void *arg)
{
	struct ads *a = nghttp2_session_get_stream_user_data(h2, id);
	struct istiod *i = a->conn->i;
	size_t n = a->len - a->at;
	char status[12];

	if (i->drip && n > a->budget)
		n = a->budget;
	n = n < len ? n : len;
	if (!n && a->ended && a->at == a->len) {
		snprintf(status, sizeof status, "%d", a->end_status);
		nghttp2_nv nv[] = {SERVER_NV("grpc-status", status), SERVER_NV("grpc-message", a->end_why)};
		*flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
		nghttp2_submit_trailer(h2, id, nv, 2);
		return 0;
	}
	if (!n)
		return NGHTTP2_ERR_DEFERRED;
	memcpy(buf, a->out + a->at, n);
	a->at += n;
	a->sent += n;
	a->budget -= i->drip ? n : 0;
	if (i->goaway_after && a->sent >= i->goaway_after) {
		a->conn->goaway = true;
		i->goaway_after = 0;
	}
	if (i->cut_after && a->sent >= i->cut_after) {
		a->conn->cut = true;
		i->cut_after = 0;
	}
	return (ssize_t)n;
}

static inline void ads_open(struct ads *a)
{
	struct istiod *i = a->conn->i;
	nghttp2_data_provider body = {.read_callback = ads_body};
	const char *token = server_header(&a->st.rq, "authorization"), *id = server_header(&a->st.rq, "clusterid"),
		   *extra = server_header(&a->st.rq, "x-test");
	int refuse = i->refuse;
	char status[12], http[12];

	i->streams++;
	snprintf(i->token, sizeof i->token, "%s", token ? token : "");
	snprintf(i->clusterid, sizeof i->clusterid, "%s", id ? id : "");
	snprintf(i->extra, sizeof i->extra, "%s", extra ? extra : "");
	if (i->want_token && (strncmp(i->token, "Bearer ", 7) || strcmp(i->token + 7, i->want_token)))
		refuse = 16;
	snprintf(status, sizeof status, "%d", refuse);
	snprintf(http, sizeof http, "%u", i->http_status ? i->http_status : 200);
	nghttp2_nv nv[] = {SERVER_NV(":status", http), SERVER_NV("content-type", "application/grpc"),
			   SERVER_NV("grpc-status", status),
			   SERVER_NV("grpc-message", refuse == i->refuse ? i->refuse_why : "bad token")};
	if (i->http_status) {
		nghttp2_submit_response(a->conn->h2, a->id, nv, 2, NULL);
	} else if (refuse) {
		nghttp2_submit_response(a->conn->h2, a->id, nv, 4, NULL);
	} else {
		a->open = true;
		a->conn->ads = a;
		nghttp2_submit_response(a->conn->h2, a->id, nv, 2, &body);
	}
}

static inline int ads_on_begin(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
	struct ads *a = f->hd.type == NGHTTP2_HEADERS ? calloc(1, sizeof *a) : NULL;

	if (!a)
		return 0;
	a->conn = arg;
	a->id = f->hd.stream_id;
	a->frames.max = a->conn->i->request_max ? a->conn->i->request_max : 4 << 20;
	nghttp2_session_set_stream_user_data(h2, f->hd.stream_id, a);
	return 0;
}

static inline int ads_on_frame(nghttp2_session *h2, const nghttp2_frame *f, void *arg)
{
	struct ads *a = nghttp2_session_get_stream_user_data(h2, f->hd.stream_id);

	if (!is_ads(a))
		return server_on_frame(h2, f, arg);
	if (f->hd.type == NGHTTP2_HEADERS && f->headers.cat == NGHTTP2_HCAT_REQUEST)
		ads_open(a);
	return 0;
}

static inline int ads_on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *data, size_t len,
			      void *arg)
{
	struct ads *a = nghttp2_session_get_stream_user_data(h2, id);
	int e;

	if (!is_ads(a))
		return server_on_data(h2, flags, id, data, len, arg);
	if (!a->open || a->ended)
		return 0;
	e = grpc_frames_feed(&a->frames, data, len, ads_request_in, a);
	if (e)
		ads_end(a, e == -EMSGSIZE ? 8 : 3, e == -EMSGSIZE ? "received message larger than max" : "bad request");
	return 0;
}

static inline int ads_on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *arg)
{
	struct ads *a = nghttp2_session_get_stream_user_data(h2, id);

	if (!a)
		return 0;
	if (a->conn->ads == a)
		a->conn->ads = NULL;
	while (a->n_has)
		free(a->has[--a->n_has]);
	for (struct acked_list *l; (l = a->unacked);) {
		a->unacked = l->next;
		acked_lose(&a->conn->i->acked, l, a->node);
	}
	grpc_frames_free(&a->frames);
	free(a->out);
	return server_on_close(h2, id, code, arg);
}

/* Who reads may be waiting for the lock that we hold: nothing waits here. */
static inline ssize_t ads_write(nghttp2_session *h2, const uint8_t *data, size_t len, int flags, void *arg)
{
	struct ads_conn *c = arg;
	ssize_t n = c->base.ssl ? SSL_write(c->base.ssl, data, (int)len) : send(c->base.fd, data, len, MSG_NOSIGNAL);

	c->full =
		n <= 0 && (c->base.ssl ? SSL_get_error(c->base.ssl, (int)n) == SSL_ERROR_WANT_WRITE : errno == EAGAIN);
	return n > 0 ? n : c->full ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static inline nghttp2_session *ads_session(struct ads_conn *c)
{
	nghttp2_session_callbacks *cb;
	nghttp2_session *h2;

	nghttp2_session_callbacks_new(&cb);
	nghttp2_session_callbacks_set_send_callback(cb, ads_write);
	nghttp2_session_callbacks_set_on_begin_headers_callback(cb, ads_on_begin);
	nghttp2_session_callbacks_set_on_header_callback(cb, server_on_header);
	nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, ads_on_data);
	nghttp2_session_callbacks_set_on_frame_recv_callback(cb, ads_on_frame);
	nghttp2_session_callbacks_set_on_stream_close_callback(cb, ads_on_close);
	nghttp2_session_server_new(&h2, cb, c);
	nghttp2_session_callbacks_del(cb);
	nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, NULL, 0);
	return h2;
}

/* With the lock held. False: the connection ends. */
static inline bool ads_turn(struct ads_conn *c)
{
	if (c->goaway)
		nghttp2_submit_goaway(c->h2, 0, nghttp2_session_get_last_proc_stream_id(c->h2), NGHTTP2_NO_ERROR, NULL,
				      0);
	c->goaway = false;
	if (c->ads && c->i->drip) {
		c->ads->budget = c->i->drip;
		nghttp2_session_resume_data(c->h2, c->ads->id);
	}
	return !c->cut && !c->base.drop && nghttp2_session_send(c->h2) == 0 && !c->cut &&
	       (nghttp2_session_want_read(c->h2) || nghttp2_session_want_write(c->h2));
}

/* Bytes of the connection into the session. False: it ended. */
static inline bool ads_read(struct ads_conn *c)
{
	struct pollfd p[2] = {{.fd = c->base.fd, .events = POLLIN | (c->full ? POLLOUT : 0)},
			      {.fd = c->wake, .events = POLLIN}};
	uint8_t buf[16384];
	uint64_t n64;
	ssize_t n;
	bool ok;

	if (!c->base.ssl || !SSL_pending(c->base.ssl)) {
		poll(p, 2, c->i->drip ? ISTIOD_TICK_MS : -1);
		if (p[1].revents && read(c->wake, &n64, sizeof n64) < 0)
			return false;
		if (!(p[0].revents & ~POLLOUT))
			return true;
	}
	n = c->base.ssl ? SSL_read(c->base.ssl, buf, sizeof buf) : recv(c->base.fd, buf, sizeof buf, 0);
	if (n < 0 && (c->base.ssl ? SSL_get_error(c->base.ssl, (int)n) == SSL_ERROR_WANT_READ : errno == EAGAIN))
		return true;
	pthread_mutex_lock(&c->i->lock);
	ok = n > 0 && nghttp2_session_mem_recv(c->h2, buf, (size_t)n) >= 0;
	pthread_mutex_unlock(&c->i->lock);
	return ok;
}

static inline void istiod_talk(struct server_conn *base)
{
	struct istiod *i = base->s->o.arg;
	struct ads_conn c = {.base = *base, .i = i, .wake = eventfd(0, EFD_CLOEXEC)};
	unsigned at = 0;
	bool going;

	fcntl(base->fd, F_SETFL, O_NONBLOCK);
	if (base->ssl)
		SSL_set_mode(base->ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
	pthread_mutex_lock(&i->lock);
	while (at < ISTIOD_CONNS_MAX - 1 && i->conn[at])
		at++;
	i->conn[at] = &c;
	c.h2 = ads_session(&c);
	do {
		going = ads_turn(&c);
		pthread_mutex_unlock(&i->lock);
		going = going && ads_read(&c);
		pthread_mutex_lock(&i->lock);
	} while (going);
	i->conn[at] = NULL;
	for (int32_t id = 1; id <= nghttp2_session_get_last_proc_stream_id(c.h2); id += 2)
		ads_on_close(c.h2, id, 0, &c);
	nghttp2_session_del(c.h2);
	pthread_mutex_unlock(&i->lock);
	close(c.wake);
}

/* The CA, on the same port. */
static inline void istiod_serve(void *arg, const struct server_request *rq, struct server_reply *out)
{
	ca_service_serve(&((struct istiod *)arg)->ca, rq, out);
}

/* --- for scripts ---------------------------------------------------------------------------------------- */

/* For each stream that is open, with the lock held or taken. */
#define ISTIOD_EACH_LOCKED(i, a, ...)                                        \
	for (unsigned istiod_k = 0; istiod_k < ISTIOD_CONNS_MAX; istiod_k++) \
		if ((i)->conn[istiod_k] && (i)->conn[istiod_k]->ads) {       \
			struct ads *a = (i)->conn[istiod_k]->ads;            \
			__VA_ARGS__;                                         \
		}
#define ISTIOD_EACH(i, a, ...)                        \
	do {                                          \
		pthread_mutex_lock(&(i)->lock);       \
		ISTIOD_EACH_LOCKED(i, a, __VA_ARGS__) \
		pthread_mutex_unlock(&(i)->lock);     \
	} while (0)

/* The difference between two meshes goes to a stream. */
static inline void istiod_push(struct ads *a, const struct fake_mesh *old, const struct fake_mesh *now)
{
	for (unsigned t = 0; t < XDS_TYPES; t++) {
		struct ads_push p;

		if (!a->subscribed[t])
			continue;
		p = ads_begin_noted(a, t);
		for (size_t k = 0; k < now->of[t].n; k++) {
			const struct fake_resource *r = &now->of[t].all[k], *was = fake_find(old, t, r->name);

			if (was && was->len == r->len && !memcmp(was->value, r->value, r->len))
				continue;
			if (t != XDS_ADDRESS || ads_wants(a, r))
				ads_add(&p, r, a->on_demand && t == XDS_ADDRESS);
		}
		for (size_t k = 0; k < old->of[t].n; k++)
			if (!fake_find(now, t, old->of[t].all[k].name))
				ads_remove(&p, old->of[t].all[k].name);
		if (p.m.n_resources || p.m.n_removed_resources)
			ads_finish(a, &p);
		else if (p.note)
			acked_list_free(p.note);
	}
}

static inline int istiod_load(struct istiod *i, const char *path, const char *text, char why[LOCAL_REASON_MAX])
{
	struct fake_mesh now, old;
	int e = fake_mesh_load(&now, path, text, why);

	if (e)
		return e;
	pthread_mutex_lock(&i->lock);
	old = i->mesh;
	i->mesh = now;
	pthread_mutex_unlock(&i->lock);
	if (!i->mute)
		ISTIOD_EACH(i, a, istiod_push(a, &old, &now));
	fake_mesh_free(&old);
	return 0;
}

static inline void istiod_cut(struct istiod *i)
{
	pthread_mutex_lock(&i->lock);
	for (unsigned k = 0; k < ISTIOD_CONNS_MAX; k++)
		if (i->conn[k]) {
			i->conn[k]->cut = true;
			ads_wake(i->conn[k]);
		}
	pthread_mutex_unlock(&i->lock);
}

static inline void istiod_goaway(struct istiod *i)
{
	ISTIOD_EACH(i, a, (a->conn->goaway = true, ads_wake(a->conn)));
}

static inline void istiod_end(struct istiod *i, int status, const char *why)
{
	ISTIOD_EACH(i, a, ads_end(a, status, why));
}

/* One resource with any content, of any type and name. */
static inline void istiod_raw(struct istiod *i, const char *type, const char *name, const void *value, size_t len)
{
	struct fake_resource r = {.name = (char *)name, .value = (uint8_t *)value, .len = len, .version = "1"};

	ISTIOD_EACH(i, a, {
		struct ads_push p = ads_begin(XDS_ADDRESS);

		p.m.type_url = (char *)type;
		ads_add(&p, &r, false);
		ads_finish(a, &p);
	});
}

static inline void istiod_removed(struct istiod *i, const char *type, const char *name)
{
	ISTIOD_EACH(i, a, {
		struct ads_push p = ads_begin(XDS_ADDRESS);

		p.m.type_url = (char *)type;
		ads_remove(&p, name);
		ads_finish(a, &p);
	});
}

/* A message that is what it is. */
static inline void istiod_message(struct istiod *i, const void *msg, size_t len)
{
	ISTIOD_EACH(i, a, ads_send(a, msg, len));
}

/* NULL and errno on failure. `certificates`: TLS with a root of its own, or with `root`, which it takes over. */
static inline struct istiod *istiod_new(const char *host, uint16_t port, bool tls, struct ca_root *root,
					const char *const *names, unsigned n)
{
	struct istiod *i = calloc(1, sizeof *i);
	struct server_options o = {.host = host, .port = port, .serve = istiod_serve, .talk = istiod_talk, .arg = i};
	char why[CA_WHY_MAX];
	struct ca_cert own = {0};

	pthread_mutex_init(&i->lock, NULL);
	i->root = root ? root : ca_root_new(NULL, NULL, why);
	i->ca.root = i->root;
	if (tls && ca_root_server(i->root, names, n, &own) == 0) {
		o.key_pem = own.key;
		o.chain_pem = own.chain;
	}
	i->server = server_start(&o);
	ca_cert_clear(&own);
	if (i->server)
		return i;
	ca_root_free(i->root);
	free(i);
	return NULL;
}

static inline void istiod_free(struct istiod *i)
{
	istiod_cut(i);
	server_stop(i->server);
	fake_mesh_free(&i->mesh);
	acked_free(&i->acked);
	ca_root_free(i->root);
	pthread_mutex_destroy(&i->lock);
	free(i);
}
