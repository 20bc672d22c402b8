/* SPDX-License-Identifier: Apache-2.0 */
/* The local file: whatever it says, it is taken or refused with one line; what was taken and has no endpoints of unknown
 * services can be dumped and taken again, unless a name in it is longer than a key of YAML may be. */
#include <stdlib.h>

#include "admin/dump.h"
#include "base/log.h"
#include "control/local.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { KEY_MAX = 1000 };

static void require(bool ok)
{
	if (!ok)
		abort();
}

static void dump(struct json *j, struct store *s)
{
	json_open(j, '{');
	json_key(j, "policies");
	dump_policies(j, s);
	json_key(j, "services");
	dump_services(j, s);
	json_key(j, "stagedServices");
	dump_staged(j, s);
	json_key(j, "workloads");
	dump_workloads(j, s);
	json_close(j, '}');
}

/* As they stand in JSON; libyaml takes 1,024 characters. */
static bool keys_fit(const struct json *j)
{
	size_t begin = 0;
	bool inside = false;

	for (size_t i = 0; i + 1 < j->len; i++) {
		if (inside && j->p[i] == '\\') {
			i++;
		} else if (j->p[i] == '"') {
			if (inside && j->p[i + 1] == ':' && i - begin > KEY_MAX)
				return false;
			inside = !inside;
			begin = i;
		}
	}
	return true;
}

static void take_again(struct store *s)
{
	char why[LOCAL_REASON_MAX] = "";
	struct store *again = store_new("");
	struct store_counts a, b;
	struct json j = {0};

	dump(&j, s);
	require(!j.failed);
	if (keys_fit(&j)) {
		require(local_load_text(again, "dump", j.p, j.len, why) == 0);
		store_count(s, &a);
		store_count(again, &b);
		require(a.workloads == b.workloads && a.services == b.services && a.policies == b.policies);
	}
	free(j.p);
	store_free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static bool ready;
	char why[LOCAL_REASON_MAX] = "";
	struct store *s;

	if (!ready) {
		log_set_filter("off");
		store_thread_register();
		ready = true;
	}
	s = store_new("node");
	if (local_load_text(s, "fuzz", (const char *)data, size, why) == 0)
		take_again(s);
	else
		require(why[0] && !strchr(why, '\n') && strlen(why) < LOCAL_REASON_MAX);
	store_free(s);
	return 0;
}
