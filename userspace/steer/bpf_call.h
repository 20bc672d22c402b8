/* SPDX-License-Identifier: Apache-2.0 */
/* bpf(2) without libbpf, for what culvertctl asks of the kernel. Private to steer/. */
#pragma once
#include <errno.h>
#include <linux/bpf.h>
#include <sys/syscall.h>
#include <unistd.h>

/* A descriptor, or 0, or -errno. */
static inline int bpf_call(enum bpf_cmd cmd, union bpf_attr *attr)
{
	long r = syscall(SYS_bpf, cmd, attr, sizeof *attr);

	return r < 0 ? -errno : (int)r;
}
