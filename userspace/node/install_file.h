/* SPDX-License-Identifier: Apache-2.0 */
/* Files that others read meanwhile: replaced whole or not at all, and on the disk before they are. */
#pragma once
#include <stddef.h>
#include <sys/stat.h>

#include "node/pods.h"

/* What a file's name ends in until it is whole: nobody looks for such names. */
#define INSTALL_UNFINISHED ".culvert-tmp"
bool install_name_unfinished(const char *name);
/* Removes those that a process left that died. */
void install_folder_tidy(const char *folder);

/* The line goes to `why`; returns `e`. */
int install_failed(char why[POD_WHY_MAX], int e, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The whole of a regular file, terminated, malloc'ed; `st`, when set, is what it was. -EFBIG: more than `max` bytes;
 * -EINVAL: not a regular file; -EAGAIN: it grows while it is read. */
int install_file_read(const char *path, char **out, size_t *len, size_t max, struct stat *st);
/* Is somebody writing it now? A read lease is granted only while nobody has the file open for writing; where there are no
 * leases, nobody can tell. SIGIO must be ignored: who comes to write meanwhile sends it. */
bool install_file_busy(const char *path);
/* Is somebody writing it, or is it another one than `was`? */
bool install_file_changed(const char *path, const struct stat *was);
/* Puts the text in the file's place, whose owner stays if he can. A symbolic link stays: the file that it leads to is
 * replaced. The SELinux label is the one that it had, or of another file of the folder. -errno and a line in `why`. */
int install_file_write(const char *path, const char *text, size_t len, mode_t mode, char why[POD_WHY_MAX]);
/* The same for a file that was read and must still be what `was` says, by a look right before the rename: -EAGAIN. */
int install_file_rewrite(const char *path, const struct stat *was, const char *text, size_t len, char why[POD_WHY_MAX]);
/* The same with the contents of `from`, but a symbolic link is replaced: programs are often links to one that is many. */
int install_file_copy(const char *from, const char *path, mode_t mode, char why[POD_WHY_MAX]);
/* 1: they are equal; 0: they are not, or `b` is not there; -errno: `a` cannot be read. */
int install_file_equal(const char *a, const char *b);
/* Removes it, from the disk too. 0 also when it was not there; -errno and a line in `why`. */
int install_file_remove(const char *path, char why[POD_WHY_MAX]);
