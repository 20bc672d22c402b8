/* SPDX-License-Identifier: Apache-2.0 */
/* A runtime's CNI configuration, as whoever writes it may leave it; the first byte says under which name. What is taken
 * gets our entry and is taken again, and without the entry it is what it was, byte for byte where none of ours was in it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "node/install_list.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool ok)
{
	if (!ok)
		abort();
}

static char *copy(const char *text, size_t len)
{
	char *out = malloc(len + 1);

	require(out != NULL);
	memcpy(out, text, len);
	out[len] = '\0';
	return out;
}

static void read_again(struct install_list *l, const char *name, const char *text, size_t len)
{
	char why[POD_WHY_MAX];

	require(install_list_read(l, name, copy(text, len), len, why) == 0);
}

/* `with` is `l` with our entry. */
static void take_out(const struct install_list *l, const char *file, const char *with, size_t len)
{
	char name[NAME_MAX + 1] = "a.conflist", why[POD_WHY_MAX], *out = NULL;
	struct install_list again, rest;
	size_t out_len = 0;
	int r;

	read_again(&again, name, with, len);
	require(again.ours == 1);
	r = install_list_without(&again, name, &out, &out_len, why);
	require(r == INSTALL_REST_LIST || r == INSTALL_REST_SINGLE);
	if (l->single)
		require(!strcmp(name, file) && out_len == l->len && !memcmp(out, l->text, out_len));
	else if (!l->ours && r == INSTALL_REST_LIST)
		require(out_len == l->len && !memcmp(out, l->text, out_len));
	read_again(&rest, name, out, out_len);
	require(!rest.ours);
	install_list_free(&rest);
	install_list_free(&again);
	free(out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"a.conflist", "a.conf", "a.json"};
	static json_t *entry;
	const char *name = names[size ? data[0] % 3 : 0];
	char why[POD_WHY_MAX] = "", *out = NULL;
	struct install_list l;
	size_t len = 0;

	if (!size)
		return 0;
	if (!entry)
		entry = json_pack("{ss ss}", "type", INSTALL_TYPE, "cni_agent_run_dir", "/r");
	if (install_list_read(&l, name, copy((const char *)data + 1, size - 1), size - 1, why) < 0 ||
	    install_list_with(&l, entry, l.single ? name : NULL, &out, &len, why) < 0)
		require(why[0] && !strchr(why, '\n'));
	else
		take_out(&l, name, out, len);
	install_list_free(&l);
	free(out);
	return 0;
}
