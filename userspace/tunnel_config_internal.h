/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration as tunnel_config.c (each variable by itself) and tunnel_config_check.c (all together) share it. */
#pragma once
#include <stddef.h>

#include "tunnel_config.h"

#define AT(field) offsetof(struct tunnel_config, field)

/* What set the field: a variable or a flag by its name, for what is found wrong with it. */
const char *tunnel_config_given(size_t at);
/* Computes what is not read. 0, or -EINVAL with one line in `why`. */
int tunnel_config_check(struct tunnel_config *c, char why[CONFIG_WHY_MAX]);
