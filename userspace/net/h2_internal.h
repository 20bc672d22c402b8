/* SPDX-License-Identifier: Apache-2.0 */
/* What h2.c (connection), h2_read.c and h2_look.c (what arrives, until nghttp2 has it), h2_end.c (the connection's end),
 * h2_closed.c (streams that are no more), h2_frames.c (nghttp2's callbacks), h2_headers.c (header blocks) and h2_stream*.c
 * (streams, their ways in and out) share. */
#pragma once
#include "net/h2.h"

enum {
	H2_FRAME_HEADER = 9,
	H2_FRAME_MAX = 16384, /* SETTINGS_MAX_FRAME_SIZE (RFC 9113, 6.5.2), which we leave as it begins */
};

struct h2_bucket { /* tokens that refill with time */
	uint64_t at;
	uint32_t left;
};

struct h2_look {       /* where the frames of what arrives begin */
	uint32_t skip; /* bytes of the frame that is under way */
	uint8_t head[H2_FRAME_HEADER], have;
};

struct h2 {
	struct io io;
	struct loop *loop;
	struct record *record;
	nghttp2_session *session; /* NULL: of a server whose client has said nothing yet */
	const struct h2_ops *ops;
	void *owner;
	struct task turn;    /* end of the turn: settle streams, send, tell */
	struct timer timer;  /* preface, then pings; how long an end may take */
	struct timer goaway; /* second step of a server's shutdown */
	struct list streams, dirty, blocked;
	struct h2_headers *collect;    /* the header block that is being read */
	uint8_t *slot;		       /* where the frame being made goes; NULL: none */
	uint64_t seen, stuck_since;    /* when the peer last said or took something */
	size_t unsent;		       /* bytes that it had not taken when it was last looked at */
	uint64_t credited_at;	       /* when the peer last gave the connection window */
	struct h2_share *share, alone; /* `alone` where there is no other */
	uint32_t window, taken;	       /* of the connection, for the peer to send; bytes since it grew */
	int32_t window_top;	       /* the largest window that the peer gave the connection */
	struct h2_bucket control, resets;
	unsigned n_streams;
	unsigned frames;		 /* of this event */
	uint32_t closed[H2_CLOSED_KEPT]; /* h2_closed.c: ids of the last ones */
	unsigned n_closed;
	uint32_t last_reset; /* the stream that the client has reset last, for all we have seen */
	int32_t reset_by_peer, last_id;
	struct h2_look look;
	bool large;	 /* H2_CLIENT_LARGE */
	bool greeted;	 /* the peer's SETTINGS came */
	bool stuck;	 /* the socket takes nothing now */
	bool unreadable; /* the last event was for data that could not be read */
	bool ending;	 /* GOAWAY is on its way for what the peer did: nothing more is read */
	bool wake;	 /* blocked streams may go on */
	bool cut;	 /* by h2_cut() */
	bool blamed;	 /* GOAWAY with an error was sent, by us or by nghttp2 */
	bool lingering;	 /* all is said: what comes is thrown away until the peer closes */
	uint64_t linger_until;
	bool leaving, told_leaving, shutdown, goaway_sent, dead, told_closed, pinged, saw_idle, too_large, server;
	const char *why;
};

/* Ends the connection at the end of the turn. `why` is static. */
void h2_die(struct h2 *h, const char *why);
/* A session, 25 KiB, is there from now on, and with it the preface's deadline: a server makes none for who does not speak.
 * False: no memory, and it ends. */
bool h2_session_begin(struct h2 *h);
/* Tells the owner. */
void h2_limited(struct h2 *h, enum h2_limit what);
/* Makes sure that the end of the turn is worked on. */
void h2_touch(struct h2 *h);
/* Sends nghttp2's pending frames into the record; not the socket. */
void h2_frames_out(struct h2 *h);
/* 0, or the flush's error; after -EAGAIN it goes on when the socket takes more. */
int h2_flush(struct h2 *h);
/* The same; other errors end the connection. */
int h2_record_flush(struct h2 *h);
/* The connection's window, for us to send. */
int32_t h2_window(struct h2 *h);
/* That much was sent: a peer may answer with as many window updates as small reads need. */
void h2_sent(struct h2 *h, size_t n);
bool h2_bucket_take(struct h2 *h, struct h2_bucket *b, uint32_t burst, uint32_t per_ms);
extern const char h2_too_many_frames[], h2_endless_block[];

/* Announces h->window. */
nghttp2_session *h2_session_new(struct h2 *h);

/* h2_headers.c: nghttp2's callbacks for a block and its fields; its end goes to the owner of connection or stream. */
int h2_headers_begin(nghttp2_session *ng, const nghttp2_frame *frame, void *user);
int h2_headers_field(nghttp2_session *ng, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
		     const uint8_t *value, size_t value_len, uint8_t flags, void *user);
void h2_headers_done(struct h2 *h, const nghttp2_frame *frame);

/* h2_closed.c: a server's streams that are no more. */
void h2_closed_add(struct h2 *h, int32_t id);
/* Looks at a frame's header before nghttp2 has it. May end the connection. */
void h2_closed_look(struct h2 *h, const uint8_t *head);
/* At a HEADERS frame. */
void h2_closed_headers(struct h2 *h, int32_t id);

/* h2_read.c: an event's share of what has arrived. */
void h2_read(struct h2 *h);

/* h2_look.c */
void h2_look_init(struct h2 *h);
/* How many bytes of `p` nghttp2 is to have now; with them, `used` bytes are done. */
size_t h2_look(struct h2 *h, uint8_t *p, size_t len, size_t *used);

/* h2_end.c */
/* Ends the connection with GOAWAY(`code`). `why` is static. */
void h2_terminate(struct h2 *h, uint32_t code, const char *why);
/* A ping was answered: of h2_shutdown(), the peer has seen all that we sent before. */
void h2_goaway_pong(struct h2 *h, const uint8_t payload[8]);
extern const uint8_t h2_goaway_ping[8];
/* Has the peer taken some of what waits for it, since this was last asked? */
bool h2_takes(struct h2 *h);
/* All is said when the socket has it all. */
void h2_end_if_finished(struct h2 *h);

/* h2_stream.c: what the callbacks and the end of the turn call. */
void h2_stream_mark(struct h2_stream *s);
void h2_stream_over(struct h2_stream *s, uint32_t code);
void h2_streams_settle(struct h2 *h);

/* h2_stream_in.c */
int h2_stream_data(struct h2_stream *s, const uint8_t *p, size_t len);
/* Hands out what has come; false when the receiver left some of it. */
bool h2_stream_deliver(struct h2_stream *s);
/* What has come and nobody will take: the connection must not lose its credit. */
void h2_stream_in_free(struct h2_stream *s);

/* h2_stream_out.c */
ssize_t h2_stream_read_cb(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
			  nghttp2_data_source *src, void *user);
void h2_streams_wake(struct h2 *h);
/* Ends those whose peer has given no window for H2_STALL_MS. */
void h2_streams_unstall(struct h2 *h);
