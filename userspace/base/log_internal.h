/* SPDX-License-Identifier: Apache-2.0 */
/* What log.c (lines), log_filter.c (levels) and log_writer.c (the thread that writes) share. Private to base/. */
#pragma once
#include "base/log.h"

enum { LOG_TAIL = 24 }; /* bytes of a line that are kept for its end: ...","cut":true} and a line feed */

const char *log_level_name(enum log_level level);
/* Ends the line without writing it. */
void log_finish(struct log_line *l);
/* One whole line, with its line feed. */
void log_emit(const char *text, size_t n);
bool log_is_json(void);
/* Length of the target that an entry of a filter begins with; 0: it is for all. */
size_t log_entry_target(const char *entry, size_t len);
/* The filter's lock is held around a fork, so that the child finds it free. */
void log_filter_lock(void);
void log_filter_unlock(void);
void log_filter_renew_lock(void);
