/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines of the plugin: JSON on stderr, which runtimes keep or drop, and at the end to the node agent's log socket,
 * log.sock beside its other one, if it is there. */
#pragma once

enum { REPORT_LINES_MAX = 32, REPORT_FLUSH_MS = 1000 };
enum report_level { REPORT_DEBUG, REPORT_INFO, REPORT_WARN, REPORT_ERROR, REPORT_NONE };

/* From "plugin_log_level"; info for what is not known. `about` is added to each line: which container. */
void report_setup(const char *level, const char *about);
void report(enum report_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Sends what was said to the socket in the folder of `socket`. Failures are nobody's concern. */
void report_flush(const char *socket);
