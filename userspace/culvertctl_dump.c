/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what culvertctl takes from the tunnel's dump: connections, workloads, and the tunnel's part of the status. */
#include <stdio.h>
#include <string.h>

#include "culvertctl.h"

/* Calls `each` for every live connection of the dump. */
static void each_connection(json_t *dump, void (*each)(void *arg, json_t *info, const char *direction, json_t *c),
			    void *arg)
{
	static const char *const directions[] = {"inbound", "outbound"};
	json_t *state, *c;
	const char *uid;
	size_t i;

	json_object_foreach(json_object_get(dump, "workloadState"), uid, state) for (unsigned d = 0; d < 2; d++)
		json_array_foreach(json_object_get(json_object_get(state, "connections"), directions[d]), i, c)
			each(arg, json_object_get(state, "info"), directions[d], c);
}

/* Who carries a tunnel's records. */
static const char *carrier(json_t *tls)
{
	bool tx = !strcmp(text_of(tls, "tx"), "kernel"), rx = !strcmp(text_of(tls, "rx"), "kernel");

	return !tls ? "" : tx && rx ? "kernel" : tx ? "kernel tx" : rx ? "kernel rx" : "user";
}

static void connection_row(void *arg, json_t *info, const char *direction, json_t *c)
{
	struct table *t = arg;
	const char *original = text_of(c, "originalDst"), *actual = text_of(c, "actualDst");

	table_cell(t, "%s/%s", text_of(info, "namespace"), text_of(info, "name"));
	table_add(t, direction);
	table_add(t, text_of(c, "src"));
	table_add(t, *original ? original : actual);
	table_add(t, actual);
	table_add(t, text_of(c, "protocol"));
	table_add(t, carrier(json_object_get(c, "tls")));
	table_add(t, text_of(json_object_get(c, "tls"), "cipher"));
}

void show_connections(json_t *dump)
{
	static const char *const headings[] = {"POD",	     "DIRECTION", "SOURCE",  "DESTINATION",
					       "CARRIED TO", "PROTOCOL",  "RECORDS", "CIPHER"};
	struct table t = table_begin(8, headings);

	each_connection(dump, connection_row, &t);
	table_end(&t, "no connection");
}

static void connection_pick(void *arg, json_t *info, const char *direction, json_t *c)
{
	json_t *o = json_deep_copy(c);

	json_object_set_new(o, "direction", json_string(direction));
	json_object_set(o, "pod", info);
	json_array_append_new(arg, o);
}

json_t *pick_connections(json_t *dump)
{
	json_t *list = json_array();

	each_connection(dump, connection_pick, list);
	return json_pack("{so}", "connections", list);
}

void pick_draining(void *connections, int process, json_t *dump)
{
	size_t before = json_array_size(connections);
	json_t *c;
	size_t i;

	each_connection(dump, connection_pick, connections);
	json_array_foreach(connections, i, c) if (i >= before) json_object_set_new(c, "process", json_integer(process));
}

void show_workloads(json_t *dump)
{
	static const char *const headings[] = {"NAMESPACE", "NAME",   "ADDRESSES",     "NODE",
					       "PROTOCOL",  "STATUS", "SERVICEACCOUNT"};
	struct table t = table_begin(7, headings);
	char buf[CELL_MAX];
	json_t *w;
	size_t i;

	json_array_foreach(json_object_get(dump, "workloads"), i, w)
	{
		table_add(&t, text_of(w, "namespace"));
		table_add(&t, text_of(w, "name"));
		table_add(&t, joined(json_object_get(w, "workloadIps"), NULL, buf));
		table_add(&t, text_of(w, "node"));
		table_add(&t, text_of(w, "protocol"));
		table_add(&t, text_of(w, "status"));
		table_add(&t, text_of(w, "serviceAccount"));
	}
	table_end(&t, "the tunnel knows no workload");
}

json_t *pick_workloads(json_t *dump)
{
	json_t *list = json_object_get(dump, "workloads");

	return list ? json_pack("{sO}", "workloads", list) : json_pack("{s[]}", "workloads");
}

static void connection_count(void *arg, json_t *info, const char *direction, json_t *c)
{
	++*(int *)arg;
}

static int mesh_count(json_t *dump, const char *what)
{
	json_t *counts = json_object_get(dump, "mesh");

	return counts ? (int)number_of(counts, what) : (int)json_array_size(json_object_get(dump, what));
}

json_t *pick_tunnel(json_t *dump)
{
	int connections = 0;

	each_connection(dump, connection_count, &connections);
	return json_pack("{sO* sO* sO* sO* si si si si si}", "crl", json_object_get(dump, "crl"), "ktls",
			 json_object_get(dump, "ktls"), "staticConfig", json_object_get(dump, "staticConfig"), "xds",
			 json_object_get(dump, "xds"), "workloads", mesh_count(dump, "workloads"), "services",
			 mesh_count(dump, "services"), "policies", mesh_count(dump, "policies"), "certificates",
			 (int)json_array_size(json_object_get(dump, "certificates")), "connections", connections);
}
