/* SPDX-License-Identifier: Apache-2.0 */
/* Writes taps as pcapng (draft-ietf-opsawg-pcapng): packets of raw IP, with TCP headers made up so that Wireshark puts the
 * streams together, and a comment on each that names both identities. What a tap lost is missing in the sequence numbers. */
#pragma once
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* The head of the file; `pod` names its one interface. All return 0 or -EIO. */
int pcapng_begin(FILE *f, const char *pod);
/* One event of headers/tap_abi.h; of data with its bytes. What is no event is passed over. */
int pcapng_event(FILE *f, json_t *event, const uint8_t *data, size_t len);
