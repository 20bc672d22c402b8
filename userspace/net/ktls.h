/* SPDX-License-Identifier: Apache-2.0 */
/* TLS records in the kernel (linux/tls.h): what this kernel does right, found out by trying it, and the operator's
 * switch. Moving a connection there is record_offload()'s (net/record.h).
 *
 * A feature is used when three agree: the operator's switch, the start-up probe, and the connection (its cipher). What
 * does not agree has a reason, which is shown and counted. Reads and writes are plain ones: splice, which loses data on
 * some kernels, is not used, so it is not probed either. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

#include "net/record.h"

enum ktls_mode {
	KTLS_OFF,
	KTLS_TX,   /* sending only */
	KTLS_ON,   /* both directions, wherever they work */
	KTLS_AUTO, /* what measured cheaper than the user back end (make vmbench): so far, on each kernel, neither */
};

enum ktls_feature {
	KTLS_FEATURE_TX,
	KTLS_FEATURE_RX,
	KTLS_FEATURE_RX_NO_PAD, /* TLS_RX_EXPECT_NO_PAD: without it kernel RX costs more than ours */
	KTLS_FEATURE_REKEY,	/* TLS_TX and TLS_RX may be set again (6.14): else a KeyUpdate retires the connection */
	KTLS_FEATURES,
};

enum { KTLS_WHY_MAX = 128, KTLS_PROBE_MS = 5000 };

struct ktls_switch {
	enum ktls_mode mode;
	bool disabled[KTLS_FEATURES];
};
/* "off", "tx", "on" or "auto"; `disable`: names of features with commas, or "". -EINVAL. */
int ktls_switch_parse(struct ktls_switch *out, const char *mode, const char *disable);

struct ktls_features {
	bool has[KTLS_FEATURES];	       /* works here and may be used */
	bool off[KTLS_FEATURES];	       /* where it has not: by the switch, not for what the kernel does */
	uint8_t ciphers[2];		       /* TX, RX: bit (cipher - RECORD_AES_128_GCM) */
	char why[KTLS_FEATURES][KTLS_WHY_MAX]; /* where has[] is false: one line */
};

/* Tries everything that the switch allows on a loopback pair of its own; waits for it KTLS_PROBE_MS at most. Never fails:
 * without a loopback nothing is there, and why[] says so. */
void ktls_probe(const struct ktls_switch *sw, struct ktls_features *out);
const char *ktls_mode_name(enum ktls_mode m);
const char *ktls_feature_name(enum ktls_feature f); /* "tx", "rx", "rx-no-pad", "rekey" */
