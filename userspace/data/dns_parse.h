/* SPDX-License-Identifier: Apache-2.0 */
/* What dns_message.c and dns_reply.c share of ldns. Include it behind data/dns_message.h. */
#pragma once
#include <ldns/ldns.h>

/* Of at least DNS_HEADER bytes. The caller's, by ldns_pkt_free(); NULL: it is no message, or there is no memory. */
ldns_pkt *dns_parse(const uint8_t *msg, size_t len);
