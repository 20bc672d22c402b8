/* SPDX-License-Identifier: Apache-2.0 */
/* What culvertctl shows of certificates: the pods' own, and revocation lists. */
#include <string.h>

#include "culvertctl.h"

static void certificate_row(struct table *t, json_t *c)
{
	json_t *leaf = json_array_get(json_object_get(c, "certChain"), 0);

	table_add(t, text_of(c, "identity"));
	table_add(t, text_of(c, "state"));
	table_add(t, text_of(leaf, "validFrom"));
	table_add(t, text_of(leaf, "expirationTime"));
	table_cell(t, "%zu", json_array_size(json_object_get(c, "rootCerts")));
	table_add(t, text_of(leaf, "serialNumber"));
}

static void show_lists(json_t *crl)
{
	static const char *const headings[] = {"REVOKED BY", "NUMBER", "ENTRIES", "ISSUED", "NEXT DUE"};
	struct table t;
	json_t *l;
	size_t i;

	if (!json_is_object(crl))
		return;
	t = table_begin(5, headings);
	json_array_foreach(json_object_get(crl, "lists"), i, l)
	{
		table_add(&t, text_of(l, "issuer"));
		table_add(&t, text_of(l, "number"));
		table_cell(&t, "%lld", number_of(l, "entries"));
		table_add(&t, text_of(l, "lastUpdate"));
		table_add(&t, text_of(l, "nextUpdate"));
	}
	printf("\n");
	table_end(&t, "no revocation list is in force");
	if (*text_of(crl, "trouble"))
		printf("%s\n", text_of(crl, "trouble"));
}

void show_certificates(json_t *dump)
{
	static const char *const headings[] = {"IDENTITY", "STATE", "VALID FROM", "VALID UNTIL", "ROOTS", "SERIAL"};
	struct table t = table_begin(6, headings);
	json_t *c;
	size_t i;

	json_array_foreach(json_object_get(dump, "certificates"), i, c) certificate_row(&t, c);
	table_end(&t, "no pod has needed a certificate yet");
	show_lists(json_object_get(dump, "crl"));
}

/* One line of the status. */
void show_crl(json_t *crl)
{
	long long entries = 0;
	json_t *l;
	size_t i;

	if (!json_is_object(crl))
		return;
	json_array_foreach(json_object_get(crl, "lists"), i, l) entries += number_of(l, "entries");
	printf("revocation     %zu lists, %lld certificates%s%s\n", json_array_size(json_object_get(crl, "lists")),
	       entries, *text_of(crl, "trouble") ? "; " : "", text_of(crl, "trouble"));
}

json_t *pick_certificates(json_t *dump)
{
	return json_pack("{sO* sO*}", "certificates", json_object_get(dump, "certificates"), "crl",
			 json_object_get(dump, "crl"));
}
