/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the making of our entry. */
#include "node/install_entry.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/values.h"
#include "node/install_list.h"
#include "node/kube_yaml.h"

static json_t *names(const char *text)
{
	json_t *list = json_array();
	struct span name;

	while (list && value_next(&text, &name))
		json_array_append_new(list, json_stringn(name.at, name.len));
	return list;
}

static int selectors_put(json_t *o, const char *text, char why[POD_WHY_MAX])
{
	char line[POD_WHY_MAX - 64] = "";
	json_t *list = kube_yaml_read(text, strlen(text), why);

	if (list)
		return json_object_set_new(o, "enablement_selectors", list);
	snprintf(line, sizeof line, "%.900s", why);
	snprintf(why, POD_WHY_MAX, "AMBIENT_ENABLEMENT_SELECTOR: %s", line);
	return -EINVAL;
}

json_t *install_entry_json(const struct install_entry *e, char why[POD_WHY_MAX])
{
	json_t *o = json_pack("{ss ss ss* sb sb ss* ss* ss*}", "type", INSTALL_TYPE, "name", INSTALL_TYPE,
			      "plugin_log_level", e->log_level, "ambient_enabled", e->ambient,
			      "enable_ambient_detection_retry", e->retry, "cni_agent_run_dir", e->run_dir, "cni_socket",
			      e->socket, "pod_namespace", e->pod_namespace);

	if (o && e->excluded)
		json_object_set_new(o, "exclude_namespaces", names(e->excluded));
	if (o && e->selectors && selectors_put(o, e->selectors, why) < 0) {
		json_decref(o);
		return NULL;
	}
	if (!o)
		snprintf(why, POD_WHY_MAX, "the installer's settings are not UTF-8");
	return o;
}
