/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of a record that not every pod has: how it was attached, and what its annotations ask for. */
#pragma once
#include <jansson.h>

#include "node/pods.h"

/* Adds them to the record's object. 0 or -ENOMEM. */
int record_more_json(json_t *o, const struct pod_record *r);
/* Reads them. -EINVAL: something is there and is not what it should be. */
int record_more_take(struct pod_record *r, const json_t *o);
