/* SPDX-License-Identifier: Apache-2.0 */
/* Results on stdout: the previous plugin's, byte for byte, and errors; and what the keeper is told of the former. */
#pragma once
#include "conf.h"

/* The result of ADD: prevResult as it came; only its cniVersion is put right where it differs within the same family of
 * versions. malloc'ed, in `out`. */
int result_make(const struct conf *c, char **out, size_t *len, struct failure *f);
/* The addresses in prevResult as istio-cni tells its agent; json_null() without a prevResult. */
int result_ips(const struct conf *c, json_t **out, struct failure *f);
/* The error object; `version` may be "". malloc'ed, or NULL. */
char *result_error(const char *version, const struct failure *f);
/* The answer to VERSION, which echoes the version it was asked in. malloc'ed, or NULL. */
char *result_versions(const char *asked);
