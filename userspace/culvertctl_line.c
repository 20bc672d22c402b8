/* SPDX-License-Identifier: Apache-2.0 */
/* Owns culvertctl's command line: options, help, and what is wrong with one. */
#include "culvertctl_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/version.h"
#include "ctl_abi.h"

static void usage(const struct command *all, unsigned n)
{
	printf("culvertctl - looks into and directs the Culvert agent of this node\n\n");
	for (unsigned i = 0; i < n; i++)
		printf("  culvertctl %-12s %-36s %s\n", all[i].name, all[i].arguments, all[i].brief);
	printf("\n  --run-dir DIR   the agent's run directory [CULVERT_RUN_DIR, else " CTL_RUN_DIR "]\n"
	       "  --json          for programs; field names are stable\n"
	       "  --help          also after a command\n"
	       "  --version\n\nExit status: 0 done, 1 failed (one line says why), 2 wrong usage.\n");
}

static void usage_command(const struct command *c)
{
	printf("culvertctl %s - %s\n\n  culvertctl %s %s\n\n%s\n", c->name, c->brief, c->name, c->arguments, c->help);
}

static int wrong(const char *fmt, const char *what, const char *more)
{
	fprintf(stderr, "culvertctl: ");
	fprintf(stderr, fmt, what, more);
	fprintf(stderr, "; see culvertctl --help\n");
	return EXIT_USAGE;
}

static const struct command *command_find(const struct command *all, unsigned n, const char *name)
{
	for (unsigned i = 0; name && i < n; i++)
		if (!strcmp(all[i].name, name))
			return &all[i];
	return NULL;
}

struct line {
	struct options *o;
	const char *command;
	bool help;
};

static const struct {
	const char *name;
	size_t at;
} valued[] = {
	{"--run-dir", offsetof(struct options, run_dir)}, {"--peer", offsetof(struct options, peer)},
	{"--write", offsetof(struct options, write)},	  {"--pod", offsetof(struct options, pod)},
	{"--since", offsetof(struct options, since)},
};
enum { VALUED = sizeof valued / sizeof *valued };

static bool option_named(const char *a)
{
	for (unsigned k = 0; k < VALUED; k++)
		if (!strcmp(a, valued[k].name))
			return true;
	return false;
}

/* --OPTION VALUE or --OPTION=VALUE. */
static bool option_value(struct options *o, int argc, char **argv, int *i)
{
	const char *a = argv[*i];

	for (unsigned k = 0; k < VALUED; k++) {
		const char **to = (const char **)((char *)o + valued[k].at);
		size_t n = strlen(valued[k].name);

		if (strncmp(a, valued[k].name, n) != 0 || (a[n] && a[n] != '=') || (!a[n] && *i + 1 == argc))
			continue;
		*to = a[n] ? a + n + 1 : argv[++*i];
		return true;
	}
	return false;
}

/* 0, or an exit status after saying what is wrong. */
static int words_read(struct line *l, int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		const char *a = argv[i];

		if (option_value(l->o, argc, argv, &i))
			continue;
		if (i == 1 ? help_word(a) : help_flag(a))
			l->help = true;
		else if (!strcmp(a, "--json"))
			l->o->json = true;
		else if (!strcmp(a, "--all"))
			l->o->all = true;
		else if (!strcmp(a, "--wait"))
			l->o->wait = true;
		else if (!strcmp(a, "--verbose") || !strcmp(a, "-v"))
			l->o->verbose = true;
		else if (!strcmp(a, "--reset"))
			l->o->reset = true;
		else if (option_named(a))
			return wrong("%s needs a value%s", a, "");
		else if (a[0] == '-')
			return wrong("unknown argument \"%s\"%s", a, "");
		else if (!l->command)
			l->command = a;
		else if (l->o->n < 3)
			l->o->argument[l->o->n++] = a;
		else
			return wrong("too many arguments: \"%s\"%s", a, "");
	}
	return 0;
}

const struct command *line_read(struct options *o, const struct command *all, unsigned n, int argc, char **argv,
				int *status)
{
	const char *env = getenv("CULVERT_RUN_DIR");
	struct line l = {.o = o};
	const struct command *c;

	*o = (struct options){.run_dir = env && *env ? env : CTL_RUN_DIR};
	*status = 0;
	if (argc == 2 && version_told(argv[1]))
		return NULL;
	*status = words_read(&l, argc, argv);
	if (*status)
		return NULL;
	c = command_find(all, n, l.command);
	if (l.help || !l.command) {
		if (c)
			usage_command(c);
		else
			usage(all, n);
		*status = l.help ? 0 : EXIT_USAGE;
		return NULL;
	}
	if (!c)
		*status = wrong("unknown command \"%s\"%s", l.command, "");
	else if (o->n < c->least || o->n > c->most)
		*status = wrong("usage: culvertctl %s %s", c->name, c->arguments);
	return *status ? NULL : c;
}
