/* SPDX-License-Identifier: Apache-2.0 */
/* Owns how culvertctl asks for an enrolment and its end: a namespace by a path that is the keeper's as well. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "ctl_abi.h"
#include "culvertctl.h"

/* The keeper must find the same namespace: a path from here, and not "this process". */
static int absolute(const char *path, char out[PATH_MAX])
{
	char cwd[PATH_MAX] = "";
	int n;

	if (!strncmp(path, "/proc/self/", 11))
		n = snprintf(out, PATH_MAX, "/proc/%d/%s", (int)getpid(), path + 11);
	else if (path[0] == '/')
		n = snprintf(out, PATH_MAX, "%s", path);
	else
		n = getcwd(cwd, sizeof cwd) ? snprintf(out, PATH_MAX, "%s/%s", cwd, path) : -1;
	return n > 0 && n < PATH_MAX ? 0 : -ENAMETOOLONG;
}

int enrol_run(const char *run_dir, const char *netns, const char *identity, char why[CALL_WHY_MAX])
{
	char path[PATH_MAX];

	if (absolute(netns, path) < 0) {
		snprintf(why, CALL_WHY_MAX, "%.256s: the path is too long", netns);
		return -ENAMETOOLONG;
	}
	return call_operation(run_dir, CTL_ENROL, json_pack("{ss ss}", "netns", path, "identity", identity), NULL, why);
}

int unenrol_run(const char *run_dir, const char *pod, char why[CALL_WHY_MAX])
{
	char path[PATH_MAX];

	/* What is no path from here is perhaps NAMESPACE/NAME. */
	if (strchr(pod, '/') && access(pod, F_OK) == 0) {
		if (absolute(pod, path) < 0) {
			snprintf(why, CALL_WHY_MAX, "%.256s: the path is too long", pod);
			return -ENAMETOOLONG;
		}
		pod = path;
	}
	return call_operation(run_dir, CTL_UNENROL, json_pack("{ss}", "pod", pod), NULL, why);
}
