/* SPDX-License-Identifier: Apache-2.0 */
/* What the tunnel gives up before it hears from anybody: capabilities, new privileges, core dumps, and most system calls.
 * Keys get memory that is never swapped out. */
#include <errno.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "base/log.h"
#include "base/rights.h"
#include "net/tls.h"
#include "tunnel.h"
#include "tunnel_seccomp.h"

#if defined(__SANITIZE_ADDRESS__)
enum { SANITIZED = 1 };
#elif defined(__has_feature)
enum { SANITIZED = __has_feature(address_sanitizer) };
#else
enum { SANITIZED = 0 };
#endif

static const char target[] = "tunnel";

/* Entering pods' namespaces; connecting there from a client's address, with a mark. Dedicated mode enters none, and
 * does without the others where it was not given them. */
static const int wanted[] = {CAP_NET_ADMIN, CAP_NET_RAW, CAP_SYS_ADMIN};
enum { WANTED = sizeof wanted / sizeof *wanted };

/* Threads inherit all of it: there are none yet. */
int rights_up(struct tunnel *t, char *why)
{
	int e = rights_keep(wanted, t->c.dedicated ? WANTED - 1 : WANTED);

	if (e) {
		snprintf(why, CONFIG_WHY_MAX, "cannot give up capabilities: %s", strerror(-e));
		return -1;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return tunnel_says(why, "cannot refuse new privileges (no_new_privs)");
	/* Keys, traffic secrets and what passes stay out of core dumps, and of sight for who is not root. */
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	return 0;
}

/* A checker makes system calls of its own, which are nobody's to list. */
static const char *checker(void)
{
	const char *preload = getenv("LD_PRELOAD");

	return SANITIZED ? "sanitizers" : preload && strstr(preload, "vgpreload") ? "valgrind" : NULL;
}

int seccomp_up(struct tunnel *t, char *why)
{
	const char *under = checker();
	int e;

	if (tls_secure_memory() < 0)
		log_info(target, "keys may be swapped out: memory cannot be locked (RLIMIT_MEMLOCK)");
	if (!t->c.seccomp || under) {
		log_warn(target, "system calls are not filtered: %s", under ? under : "CULVERT_SECCOMP=off");
		return 0;
	}
	e = seccomp_enter();
	if (e == 0)
		return 0;
	snprintf(why, CONFIG_WHY_MAX, "cannot filter system calls: %s; CULVERT_SECCOMP=off does without", strerror(-e));
	return -1;
}
