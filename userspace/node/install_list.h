/* SPDX-License-Identifier: Apache-2.0 */
/* The runtime's CNI configuration as text: our plugin is put behind the others of a list, and taken out again. What is
 * not ours stays byte for byte, so that the file without us is the file that was there. Pure functions.
 *
 * A runtime takes the first file of its folder, by name, that it can read: NAME.conflist holds a list of plugins,
 * NAME.conf and NAME.json hold one. One plugin becomes a list, whose entry of ours says in INSTALL_WRAPPED which file
 * it was. A list that we made as a copy of another says of which in INSTALL_COPIED. */
#pragma once
#include <jansson.h>
#include <limits.h>

#include "node/pods.h"

#define INSTALL_WRAPPED "wrapped_file"
#define INSTALL_COPIED	"copied_file"
#define INSTALL_TYPE	"istio-cni" /* of our entry, as Istio's: also the name of the program */

enum { INSTALL_LIST_MAX = 1024 * 1024 }; /* bytes of a file */

struct install_list {
	char *text; /* as it is in the file */
	size_t len;
	json_t *root;
	bool single;	   /* one plugin, not a list */
	unsigned n, ours;  /* plugins, and how many of them are ours */
	const json_t *own; /* the last of ours, in root; NULL: none */
};

/* Has it a name that runtimes look for? Those of ours that are not finished have none. */
bool install_name_counts(const char *name);
/* The name of the list that this file becomes: NAME.conflist. -ENAMETOOLONG. */
int install_name_of_list(char out[NAME_MAX + 1], const char *name);

/* Takes `text` over, which is malloc'ed. What no runtime would take is refused: -EBADMSG, and in `why` what is wrong.
 * install_list_free() is owed in any case. */
int install_list_read(struct install_list *out, const char *name, char *text, size_t len, char why[POD_WHY_MAX]);
void install_list_free(struct install_list *l);

/* Is this entry there once, behind another plugin, and no other of ours? */
bool install_list_holds(const struct install_list *l, const json_t *entry);
/* The list with `entry` as its last, in place of all of ours; malloc'ed. `wrapped`: the name of the file of one plugin
 * that becomes a list, else NULL. -EBADMSG, with a line in `why`: a runtime takes the file, but it cannot be edited. */
int install_list_with(const struct install_list *l, const json_t *entry, const char *wrapped, char **out, size_t *len,
		      char why[POD_WHY_MAX]);

enum install_rest {
	INSTALL_REST_SAME,   /* nothing of ours is in it */
	INSTALL_REST_LIST,   /* the list without ours, in `out` */
	INSTALL_REST_SINGLE, /* the one plugin that it was, in `out`; the file's name, in `name` */
	INSTALL_REST_NONE,   /* all of it was ours */
};
/* What is left of file `name` without us. A member of the enumeration, or -errno as above. */
int install_list_without(const struct install_list *l, char name[NAME_MAX + 1], char **out, size_t *len,
			 char why[POD_WHY_MAX]);
