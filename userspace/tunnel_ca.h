/* SPDX-License-Identifier: Apache-2.0 */
/* Which CA the configuration asks for: Istio's at CA_ADDRESS, else the embedded one. */
#pragma once
#include "control/ca.h"
#include "tunnel_config.h"

/* NULL on failure, with one line in `why`. */
struct ca *tunnel_ca_new(struct loop *l, const struct tunnel_config *c, char why[CONFIG_WHY_MAX]);
