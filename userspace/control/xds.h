/* SPDX-License-Identifier: Apache-2.0 */
/* The mesh from istiod: a delta ADS stream that fills the store and is opened again whenever it ends. What came before
 * stays while istiod is away. All on the control thread, but for xds_status(). */
#pragma once
#include <time.h>

#include "control/xds_apply.h"
#include "control/xds_node.h"
#include "data/demand.h"
#include "net/grpc.h"

enum {
	XDS_WHY_MAX = 512,
	XDS_HEADERS_MAX = 16,
	XDS_MESSAGE_MAX = 200 << 20, /* bytes of one message, unless the options say otherwise */
	XDS_MESSAGE_MS = 60000,	     /* from a message's first byte to its last */
	XDS_FIRST_MS = 60000,	     /* until each type has been answered, while the mesh is not complete */
	XDS_QUEUE_MAX = 4 << 20,     /* bytes that istiod has not read; it reads no message that is longer */
	XDS_CLAIMS_MAX = 3 << 20,    /* bytes that name what is known; beyond it everything is sent again */
	XDS_TRIM_BYTES = 1 << 20,    /* after so much at once, free memory goes back to the system */
	XDS_TRIM_MS = 10000,	     /* when readers have let go of what was before */
	XDS_BACKOFF_MIN_MS = 10,
	XDS_BACKOFF_MAX_MS = 15000,
	XDS_STEADY_MS = 5000,	 /* a stream that lasted so long starts the backoff anew */
	XDS_DEMANDS_MAX = 65536, /* names asked for, on demand */
	XDS_DEMAND_MS = 5000,	 /* until one is answered */
	XDS_NOTHING_MS = 30000,	 /* so long it is believed that there is nothing of a name, while there is room */
	XDS_REFUSED_MAX = 32,	 /* resources that are shown as refused; one more, and the oldest is not any more */
};

struct xds_options {
	struct grpc_options server; /* XDS_ADDRESS, XDS_ROOT_CA, ALT_XDS_HOSTNAME */
	const char *token;	    /* AUTH_TOKEN, see token.h; NULL: none */
	const char *cluster_id;
	const struct grpc_header *headers; /* XDS_HEADER_*, at most XDS_HEADERS_MAX */
	unsigned n_headers;
	const uint8_t *node; /* as xds_node_encode() makes it */
	size_t node_len;
	bool on_demand;		       /* addresses come when they are asked for: XDS_ON_DEMAND */
	const char *node_name;	       /* on demand: whose pods' services are asked for; NULL: nobody's */
	size_t message_max;	       /* 0: XDS_MESSAGE_MAX */
	unsigned message_ms, first_ms; /* 0: XDS_MESSAGE_MS, XDS_FIRST_MS */
	unsigned demand_ms;	       /* 0: XDS_DEMAND_MS */
	void (*warm)(void *arg);       /* once: every type that is not on demand has come whole; from inside the loop */
	void *arg;
};

struct xds;
/* Options are copied. NULL on failure, with one line in `why`. */
struct xds *xds_new(struct loop *l, struct store *s, const struct xds_options *o, char why[XDS_WHY_MAX]);
void xds_free(struct xds *x); /* takes NULL; who waits for a name is told that it did not come */
/* Where workers ask for names; NULL without on_demand. */
struct demand *xds_demand(struct xds *x);

struct xds_status {
	const char *address; /* good as long as the client */
	bool connected, warm;
	time_t since;		   /* it is connected, or it is not; wall clock */
	char why[XDS_WHY_MAX];	   /* why the last stream ended, or could not be opened; "" */
	char refused[XDS_WHY_MAX]; /* what of istiod's resources is wrong at present, cut; "" */
	unsigned closed;	   /* of them policies, which deny everything, or allow nothing; of the others what was
				    * there before is in force */
};
/* Any thread. */
void xds_status(struct xds *x, struct xds_status *out);

/* The metrics' families, once; before xds_new(). 0 or -ENOMEM. */
int xds_metrics_init(void);
