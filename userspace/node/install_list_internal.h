/* SPDX-License-Identifier: Apache-2.0 */
/* What install_list.c (reading) and install_list_edit.c share. */
#pragma once
#include "node/install_list.h"

/* Numbers of any size pass: they are never written, only compared. As Go reads JSON, the last of two equal keys counts. */
enum { INSTALL_HOW_READ = JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL };

/* Writes the line, without control characters; -EBADMSG. */
int install_list_bad(char *why, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* "" where there is none. */
const char *install_list_text(const json_t *o, const char *key);
bool install_list_is_ours(const json_t *plugin);
/* Is it the name of a list, rather than of one plugin? */
bool install_name_is_list(const char *name);
