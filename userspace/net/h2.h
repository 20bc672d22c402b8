/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/2 (RFC 9113) over a TLS record connection: what HBONE needs of it, CONNECT streams in both roles, and nothing
 * else. nghttp2 frames; payload does not pass through a buffer of its own: on the way out it is read from the
 * application's socket straight into record slots, on the way in it goes from the opened record to the socket.
 *
 * Back-pressure. What a stream's receiver does not take is copied to a buffer of that stream; its window is credited
 * only for what was taken, so the buffer is bounded by the stream's window, in bytes of memory, however the peer cuts its
 * frames. The connection's window is credited on arrival while all streams of the peer together hold less than
 * H2_HELD_FREE: a few stalled streams cannot stop the others. Windows begin small and grow with what receivers take, so
 * that who opens many and lets them stall pins little. A client may be given large ones: there are servers (Envoy) that,
 * once their application has closed, send what fits and reset the stream in place of the rest. Towards peers that are not
 * as kind, a stream that is not drained never takes the last part of the connection's window, and a connection that
 * stalled streams hold gets a sibling.
 *
 * Batching. Nothing is sent before the end of the loop's turn (or until the record's slots are full): frames of many
 * streams share records and one system call. */
#pragma once
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "loop/loop.h"
#include "net/record.h"

enum {
	H2_STREAM_START = 256 << 10, /* bytes a peer may send on a stream before we take any, */
	H2_STREAM_WINDOW = 1 << 20,  /* and when the application has had */
	H2_STREAM_WIDE = 512 << 10,  /* this much: more than its socket's buffer */
	H2_CONN_START = 512 << 10,   /* the same on a connection, */
	H2_CONN_NARROW = 65535,	     /* where the peer has H2_SHARE_WIDE others (RFC 9113, 6.9.2: it cannot be less), */
	H2_CONN_WINDOW = 8 << 20,    /* doubled up to this when streams with the large window took so much */
	H2_SHARE_WIDE = 8,
	H2_LARGE_STREAM = 4 << 20,   /* what a server may send from the start to H2_CLIENT_LARGE on a stream, */
	H2_LARGE_CONN = 16 << 20,    /* on a connection */
	H2_HELD_FREE = 4 << 20,	     /* bytes that a peer's stalled streams may hold at no cost to their neighbours */
	H2_STREAMS_MAX = 200,	     /* SETTINGS_MAX_CONCURRENT_STREAMS of our servers */
	H2_HEADERS_MAX = 65536,	     /* SETTINGS_MAX_HEADER_LIST_SIZE (RFC 9113, 6.5.2: 32 a field) of our servers */
	H2_HEADERS_END = 4,	     /* so many times that ends the connection, instead of a 431 */
	H2_HEADER_VALUE_MAX = 4096,  /* bytes kept of a header that we read */
	H2_PING_MS = 10000,	     /* silence after which the peer is asked */
	H2_PING_DEADLINE_MS = 20000, /* silence after that, with nothing taken, which ends the connection */
	H2_PREFACE_MS = 10000,	     /* until the peer's first frame, from a client's first byte */
	H2_SILENT_MS = 60000,	     /* until that one: to hold it costs less than its next connection would */
	H2_CONTROL_BURST = 10000,    /* control and empty frames: this many at once, */
	H2_CONTROL_PER_MS = 5,	     /* and this many a millisecond; more is a flood */
	H2_CONTROL_BYTES = 1024,     /* and one for so many bytes that we send: window updates */
	H2_RESET_BURST = 1000,	     /* requests that a client resets before their answer: this many at once, */
	H2_RESET_PER_MS = 1,	     /* and this many a millisecond */
	H2_CLOSED_KEPT = 64,	     /* streams that have closed and are known: a power of two */
	H2_FRAMES_PER_EVENT = 1024,  /* then others have their turn; 4 reads at the most */
	H2_FRAMES_JOINED = 16,	     /* so many that were put together count as one */
	H2_FRAMES_DENSE = 2048,	     /* more than so many in an event, as one read may bring, */
	H2_DENSE_MS = 10000,	     /* and for so long the peer's reads */
	H2_DENSE_READ = 16384,	     /* are of no more bytes than this */
	H2_EXHAUSTED_MS = 100,	     /* without a window update when little is left: the connection gets a sibling */
	H2_LINGER_MS = 5000,	     /* after our last byte, without a close by the peer or a byte that it takes */
	H2_LINGER_MAX_MS = 60000,    /* and at the most */
	H2_STALL_MS = 3600000,	     /* a stream has data to send, and the peer gives no window */
	H2_TINY = 512,		     /* frames with no more data than this are put together */
	H2_TAKE_MAX = 64,	     /* pieces that one call hands to a receiver */
};

/* Reached by what a peer did, or did not do. */
enum h2_limit {
	H2_LIMIT_CONTROL,  /* H2_CONTROL_*: the connection ends */
	H2_LIMIT_RESETS,   /* H2_RESET_*: the connection ends */
	H2_LIMIT_HEADERS,  /* H2_HEADERS_MAX: the request is refused */
	H2_LIMIT_BLOCK,	   /* H2_HEADERS_END, or CONTINUATION without end: the connection ends */
	H2_LIMIT_STALLED,  /* H2_STALL_MS: the stream ends */
	H2_LIMIT_UNREAD,   /* it takes no bytes at all: the connection ends */
	H2_LIMIT_PROTOCOL, /* what it sent is no HTTP/2: the connection ends */
	H2_LIMITS
};

/* What we read of a request's or a response's header fields; "" when absent. Lives until `request` or `response`
 * returns. */
struct h2_headers {
	char *authority, *baggage, *forwarded, *network; /* the last is x-forwarded-network, */
	bool has_network;				 /* which may be there and empty */
	bool connect;					 /* :method is CONNECT */
	int status;
	size_t list_size;
};

/* The connections of one peer, as far as they are counted together; zeroed. It outlives them. */
struct h2_share {
	unsigned n;
	uint64_t held;	      /* bytes, by all their streams */
	uint64_t dense_until; /* reads are small */
};

enum h2_role {
	H2_SERVER,
	H2_CLIENT,
	H2_CLIENT_LARGE, /* with H2_LARGE_* windows */
};

struct h2;
struct h2_stream;

/* A stream's owner. `take` may free nothing; the others may call h2_stream_free(), and release the memory around the
 * stream in a deferred task. */
struct h2_stream_ops {
	/* Client: the final response came. */
	void (*response)(struct h2_stream *s, const struct h2_headers *h);
	/* Data in order; returns how many bytes were taken (0: none now, call h2_stream_resume() later) or -errno,
	 * after which the stream is reset by its owner. */
	ssize_t (*take)(struct h2_stream *s, const struct iovec *iov, int n);
	/* How much of what was taken has left our own buffers; left out: all of it. */
	size_t (*reached)(struct h2_stream *s, size_t taken);
	/* All data has been taken and the peer's END_STREAM came. */
	void (*end)(struct h2_stream *s);
	/* h2_stream_pump() may be called again. */
	void (*writable)(struct h2_stream *s);
	/* h2_stream_pump() has read `n` bytes; they fill `iov` from its front, in plaintext until this returns. NULL:
	 * nobody looks. */
	void (*pumped)(struct h2_stream *s, const struct iovec *iov, size_t n);
	/* The stream is over other than by both ENDs: an HTTP/2 error code (RFC 9113, 7) and a word for the log. Data
	 * that had arrived was offered before; what was not taken is offered again by h2_stream_resume(). `refused`: the
	 * peer has not seen the request. The owner frees the stream. */
	void (*reset)(struct h2_stream *s, uint32_t code, bool refused, const char *why);
};

struct h2_stream {
	struct h2 *h2;
	const struct h2_stream_ops *ops;
	struct list dirty, blocked, all; /* in the connection's lists */
	struct iovec *in;		 /* pieces of the current batch; grown, dropped when idle */
	uint8_t *held;			 /* what was not taken */
	uint32_t held_off, held_len, held_cap;
	uint32_t held_owed; /* of held_len: not yet credited to the connection */
	int32_t id;	    /* 0: gone in nghttp2 */
	uint32_t feed;	    /* bytes read from the application for the frame that is being made */
	uint16_t n_in, in_cap;
	bool answered;		       /* headers of our side are sent (server) or came (client) */
	bool end_in, end_told;	       /* END_STREAM came; the owner knows */
	bool end_out, feed_end;	       /* END_STREAM is sent; goes with the frame being made */
	bool over, over_told, refused; /* closed in nghttp2; the owner knows */
	bool stalled;		       /* for too long */
	bool wide;		       /* has the large window */
	uint32_t code, taken, look;    /* until it is wide: bytes that were taken; and after which it is looked at */
	uint64_t stalled_since;	       /* 0: it has window, or nothing to send */
};

struct h2_ops {
	/* Server: a request came. The owner answers with a stream set up by h2_stream_accept(), now or later, or by
	 * h2_refuse(). */
	void (*request)(struct h2 *h, int32_t id, const struct h2_headers *hd);
	/* The connection is over; its streams have been reset, but for those that ended cleanly and still deliver. The
	 * owner calls h2_free(), when h2_streams() is 0, and not from here: from a deferred task. */
	void (*closed)(struct h2 *h, const char *why);
	/* Client: the peer takes no new streams (GOAWAY). */
	void (*leaving)(struct h2 *h);
	/* The last stream ended; also after `closed`. */
	void (*idle)(struct h2 *h);
	/* To be counted; may be left out. Before what comes of it; frees nothing. */
	void (*limited)(struct h2 *h, enum h2_limit what);
};

/* Takes the record over. `share` NULL: the peer has no other connections. NULL: no memory (the record stays the
 * caller's). A server says nothing, and has no session in memory, before its client says something. */
struct h2 *h2_new(struct loop *l, struct record *r, enum h2_role role, struct h2_share *share, const struct h2_ops *ops,
		  void *owner);
/* Closes at once, without GOAWAY; streams get `reset`, and those that their owners keep are freed. Takes NULL. */
void h2_free(struct h2 *h);
void *h2_owner(const struct h2 *h);
/* GOAWAY, then the end when no stream is left and the peer has closed too (H2_LINGER_MS): no byte that we sent is lost.
 * `graceful`, on a server: in two steps, so that no request that is on its way is lost (RFC 9113, 6.8). */
void h2_shutdown(struct h2 *h, bool graceful);
/* At once, whatever is under way: GOAWAY, and the end when the owners of its streams have freed them. */
void h2_cut(struct h2 *h);
bool h2_is_cut(const struct h2 *h);
unsigned h2_streams(const struct h2 *h);
/* Of its record. */
void h2_offload_of(const struct h2 *h, struct record_offload *out);
/* Has the peer said its SETTINGS? */
bool h2_greeted(const struct h2 *h);
/* How many streams the peer takes at once, once it has greeted. */
uint32_t h2_peer_streams(const struct h2 *h);
/* May a new stream be opened: no GOAWAY, below the peer's limit and `max`, and window left. */
bool h2_open_for_streams(struct h2 *h, unsigned max);

/* Client: opens a CONNECT stream. `s` is embedded in its owner. -errno: nothing happened. */
int h2_stream_connect(struct h2 *h, struct h2_stream *s, const struct h2_stream_ops *ops, const char *authority,
		      const nghttp2_nv *extra, size_t n_extra);
/* Server: takes the request `id` over; data flows from now on. -ENOENT: it has gone meanwhile. */
int h2_stream_accept(struct h2 *h, struct h2_stream *s, const struct h2_stream_ops *ops, int32_t id);
/* Server: 200 with `extra` headers. */
int h2_stream_accepted(struct h2_stream *s, const nghttp2_nv *extra, size_t n_extra);
/* Server: an error status with END_STREAM, for a request or an accepted stream that is not answered yet. */
void h2_refuse(struct h2 *h, int32_t id, int status);
void h2_stream_refuse(struct h2_stream *s, int status);
/* Forgets the stream: RST_STREAM with `code` unless it has ended on both sides. */
void h2_stream_free(struct h2_stream *s, uint32_t code);

/* Reads from `fd` into the tunnel, once. Bytes that went, 0 at the end of `fd` (END_STREAM is on its way),
 * -EAGAIN: nothing to read; -ENOBUFS: the tunnel takes nothing now, `writable` will be called; -EPIPE: the stream takes
 * nothing any more, or nothing yet (no answer); else the read's error. */
ssize_t h2_stream_pump(struct h2_stream *s, int fd);
/* The receiver can take again what it left. */
void h2_stream_resume(struct h2_stream *s);
/* Bytes that wait for the receiver. */
static inline uint32_t h2_stream_held(const struct h2_stream *s)
{
	return s->held_len;
}
