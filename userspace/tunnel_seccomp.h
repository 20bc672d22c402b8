/* SPDX-License-Identifier: Apache-2.0 */
/* The system calls that the tunnel may make. Everything else is EPERM, and a line of the kernel's audit log (type 1326,
 * with the call's number). */
#pragma once

/* All threads of this process, from now on, and for good. 0; -EOPNOTSUPP: the kernel has no such filters; -errno. */
int seccomp_enter(void);
