/* SPDX-License-Identifier: Apache-2.0 */
/* The dispatcher: becomes the keeper or the tunnel, which are two programs so that neither carries the other's
 * libraries. They are found beside it: ../libexec/culvert from the folder that this program is in. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/version.h"

static const char help[] =
	"culvertd - the node data plane of an ambient mesh\n"
	"\n"
	"  culvertd [FLAGS]         keeper and tunnel: enrols pods, steers and carries their traffic\n"
	"  culvertd node [FLAGS]    the keeper alone (takes the place of istio-cni's node agent)\n"
	"  culvertd tunnel [FLAGS]  the tunnel alone (takes ztunnel's place)\n"
	"  culvertd proxy ztunnel   the same: how Istio's chart calls its image\n"
	"  culvertd --version       or version, also behind node and tunnel\n"
	"\n"
	"Each has a --help of its own: culvertd node --help, culvertd tunnel --help. Without a word before them, FLAGS "
	"are\n"
	"those of culvertd node.\n";

static int fail(const char *what, const char *why)
{
	fprintf(stderr, "culvertd: %s: %s\n", what, why);
	return 1;
}

/* The path of a program in libexec; NULL with errno. */
static char *libexec(const char *program, char out[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof self);

	if (n < 0)
		return NULL;
	for (unsigned up = 0; up < 2; up++) { /* the file's name, and bin */
		while (n > 0 && self[n - 1] != '/')
			n--;
		n -= n > 1;
	}
	if (snprintf(out, PATH_MAX, "%.*s/libexec/culvert/%s", (int)n, self, program) < PATH_MAX)
		return out;
	errno = ENAMETOOLONG;
	return NULL;
}

static int become(const char *program, char *as, int argc, char **argv)
{
	char path[PATH_MAX], **args = calloc((size_t)argc + 3, sizeof *args);
	unsigned n = 0;

	if (!args || !libexec(program, path)) {
		free(args);
		return fail(program, strerror(errno));
	}
	args[n++] = (char *)program;
	if (as)
		args[n++] = as;
	memcpy(args + n, argv, (size_t)argc * sizeof *args);
	execv(path, args);
	free(args);
	return fail(path, strerror(errno));
}

int main(int argc, char **argv)
{
	const char *word = argc > 1 ? argv[1] : "";

	if (help_word(word)) {
		fputs(help, stdout);
		return 0;
	}
	if (version_told(word))
		return 0;
	if (!strcmp(word, "node"))
		return become("culvert-keeper", (char *)"node", argc - 2, argv + 2);
	if (!strcmp(word, "tunnel"))
		return become("culvert-tunnel", NULL, argc - 2, argv + 2);
	if (!strcmp(word, "proxy")) /* the tunnel knows these words */
		return become("culvert-tunnel", NULL, argc - 1, argv + 1);
	if (!*word || word[0] == '-')
		return become("culvert-keeper", (char *)"supervise", argc - 1, argv + 1);
	return fail(word, "unknown command; see culvertd --help");
}
