/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps the lists in force as CRL_PATH has them, while the file comes, changes and goes.
 *
 * A file that is not there, or no more, changes nothing; nor does one that cannot be read or understood, which is an error
 * in the log and counted. Where the first one that there is cannot be understood, nothing is revoked, as with ztunnel; but
 * then the tunnel is not ready: crl_file_usable() is false until it can, or the file is gone. */
#pragma once
#include "loop/loop.h"
#include "net/crl.h"

enum {
	CRL_FILE_SETTLE_MS = 200,
	CRL_FILE_WHY_MAX = 1024,
};

struct crl_file;
/* Reads the file, and again whenever it has changed, on the loop's thread; `changed` comes after each reading but the
 * first, whatever came of it. `lists` outlives it. Once in a process. NULL: no memory. */
struct crl_file *crl_file_new(struct loop *l, struct crls *lists, const char *path, void (*changed)(void *arg),
			      void *arg);
void crl_file_free(struct crl_file *f); /* takes NULL */

bool crl_file_usable(const struct crl_file *f);
/* Why the last reading changed nothing; "" if it did. Any thread. */
void crl_file_trouble(struct crl_file *f, char out[CRL_FILE_WHY_MAX]);
const char *crl_file_path(const struct crl_file *f);
struct crls *crl_file_lists(const struct crl_file *f);
