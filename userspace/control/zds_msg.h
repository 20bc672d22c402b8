/* SPDX-License-Identifier: Apache-2.0 */
/* ZDS messages in the client's direction: requests decoded and checked, hello and answers encoded. No I/O. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "control/zds.h"

enum {
	ZDS_EXTENSION = 2,    /* the version of the extension that we speak */
	ZDS_RETIRES = 2,      /* the first one with Retire */
	ZDS_HELLO_BYTES = 16, /* room that zds_hello_encode() needs */
	ZDS_ACK_BYTES = 512,  /* room that zds_ack_encode() needs */
};

enum zds_kind { ZDS_ADD, ZDS_DEL, ZDS_KEEP, ZDS_SNAPSHOT, ZDS_RETIRE };

struct zds_request {
	enum zds_kind kind;
	char uid[ZDS_UID_MAX];
	char name[ZDS_NAME_MAX], ns[ZDS_NAME_MAX], sa[ZDS_NAME_MAX]; /* ZDS_ADD */
	bool return_sockets;					     /* ZDS_KEEP */
	unsigned n_sockets;					     /* ZDS_ADD: indices of zds_pod.socket, each once */
	uint8_t socket[ZDS_SOCKETS];
};

/* A message's list of sockets, as protobuf-c has it (enums of the size of an int): known ones, each once. False: it is
 * none. Both directions have one. */
bool zds_sockets_take(uint8_t out[ZDS_SOCKETS], unsigned *n, const unsigned *given, size_t n_given);

/* 0. -EBADMSG: not a message at all. -EPROTO: a message that breaks the protocol. One line in `why`. */
int zds_request_decode(struct zds_request *out, const void *buf, size_t len, char why[ZDS_WHY_MAX]);

/* Both return the bytes written. `error`: "" for success; it is cut so that the packet stays small. `socket`: the
 * sockets whose descriptors go with the packet, in order. */
size_t zds_hello_encode(uint8_t buf[ZDS_HELLO_BYTES], bool draining);
size_t zds_ack_encode(uint8_t buf[ZDS_ACK_BYTES], const char *error, const uint8_t *socket, unsigned n_sockets);
