/* SPDX-License-Identifier: Apache-2.0 */
/* The embedded CA: signs in this process, for demos, tests and single machines. Not for production: whoever reads the
 * process or its key file can be any workload. */
#pragma once
#include "control/ca.h"

struct ca_embedded_options {
	const char *cert_path, *key_path; /* both, or NULL: a root is made now and dies with the process */
	long ttl_s;			  /* of the certificates; 0: CA_TTL_DEFAULT_S */
};

/* NULL on failure, with one line in `why`. */
struct ca *ca_embedded_new(struct loop *l, const struct ca_embedded_options *o, char why[CA_WHY_MAX]);
