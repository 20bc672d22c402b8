/* SPDX-License-Identifier: Apache-2.0 */
/* Capabilities by the system calls themselves (capabilities(7)). */
#include "base/rights.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { WORDS = _LINUX_CAPABILITY_U32S_3 };

static struct __user_cap_header_struct mine = {.version = _LINUX_CAPABILITY_VERSION_3};

static bool is_in(int cap, const int *caps, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (caps[i] == cap)
			return true;
	return false;
}

/* Without CAP_SETPCAP it stays: it only matters to programs that gain rights when they start. */
static void bounding_shrink(const int *caps, size_t n)
{
	for (int cap = 0; cap < 32 * WORDS; cap++)
		if (!is_in(cap, caps, n) && prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
}

int rights_keep(const int *caps, size_t n)
{
	struct __user_cap_data_struct set[WORDS];

	bounding_shrink(caps, n);
	if (syscall(SYS_capget, &mine, set) < 0)
		return -errno;
	for (int w = 0; w < WORDS; w++) {
		uint32_t wanted = 0;

		for (size_t i = 0; i < n; i++)
			if (caps[i] / 32 == w)
				wanted |= UINT32_C(1) << caps[i] % 32;
		set[w].permitted &= wanted;
		set[w].effective = set[w].permitted;
		set[w].inheritable = 0; /* ambient ones go with these */
	}
	return syscall(SYS_capset, &mine, set) < 0 ? -errno : 0;
}

bool rights_has(int cap)
{
	struct __user_cap_data_struct set[WORDS];

	return syscall(SYS_capget, &mine, set) == 0 && set[cap / 32].effective & UINT32_C(1) << cap % 32;
}
