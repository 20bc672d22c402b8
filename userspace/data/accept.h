/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of a connection that a post accepted: one function per listener; each takes the descriptor over. Private
 * to data/. */
#pragma once
#include "data/pod.h"

void outbound_accept(struct post *p, int fd, const struct endpoint *peer);     /* 15001 */
void socks_accept(struct post *p, int fd, const struct endpoint *peer);	       /* 15080 */
void dns_tcp_accept(struct post *p, int fd, const struct endpoint *peer);      /* 15053, TCP */
void outbound_accept_dns(struct post *p, int fd, const struct endpoint *peer); /* where it is passed on unread */
void plain_accept(struct post *p, int fd, const struct endpoint *peer);	       /* 15006 */
void server_accept(struct post *p, int fd, const struct endpoint *peer);       /* 15008 */

/* Reads the datagrams that wait on 15053. */
void dns_receive(struct post *p);
void dns_post_open(struct post *p);
void dns_post_close(struct post *p);

/* Closes HBONE connections to a pod that goes, or all of them gracefully. */
void servers_drop_pod(struct worker *w, const struct pod *pod);
void servers_shutdown(struct worker *w);
/* Cuts those whose client's certificate is revoked by now. */
void servers_revoke(struct worker *w);
/* At the worker's end: closes what is left, at once. */
void servers_free(struct worker *w);

/* Accepts those that wait, though a listener may be shared and nobody have been woken for them. */
void post_look(struct post *p);
/* Takes what has been accepted by the kernel already, then accepts no more. Queries are answered until the end, unless
 * the sockets were handed over. */
void post_drain(struct post *p);
/* With sockets of our own, when no worker watches them any more: takes the very last ones and stops listening. */
void post_shut(struct post *p);

/* What the client of an accepted socket dialled: the socket's own address, or what a REDIRECT rule to `listener`
 * hid. */
int accept_original_dst(int fd, uint16_t listener, struct endpoint *out);
/* Would a connection to `dst` come back to us? */
bool accept_is_loop(const struct worker *w, const struct endpoint *src, const struct endpoint *dst);
/* Closes with a reset. */
void accept_refuse(int fd);
