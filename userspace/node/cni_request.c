/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of requests to the CNI socket. */
#include "node/cni_request.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { KEY_MAX = 2 * CNI_ID_MAX };

static json_t *field(json_t *o, const char *name)
{
	const char *key;
	json_t *v;

	json_object_foreach(o, key, v) if (!strcasecmp(key, name)) return json_is_null(v) ? NULL : v;
	return NULL;
}

static int wrong(char why[POD_WHY_MAX], const char *name, const char *what)
{
	snprintf(why, POD_WHY_MAX, "%s: %s", name, what);
	return -EINVAL;
}

static int text_take(json_t *o, const char *name, char *out, size_t cap, bool needed, char why[POD_WHY_MAX])
{
	json_t *v = field(o, name);
	const char *text = v ? json_string_value(v) : "";

	if (!text)
		return wrong(why, name, "must be a text");
	if (needed && !*text)
		return wrong(why, name, "is missing");
	if (strlen(text) >= cap)
		return wrong(why, name, "is too long");
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			return wrong(why, name, "has control characters");
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

/* The mask is of no use here. */
static int ips_take(struct cni_request *r, json_t *list, char why[POD_WHY_MAX])
{
	size_t i;
	json_t *v;

	if (list && (!json_is_array(list) || json_array_size(list) > CNI_IPS_MAX))
		return wrong(why, "IPs", "must be a list of at most 16 addresses");
	json_array_foreach(list, i, v)
	{
		const char *text = json_string_value(field(field(v, "Address"), "IP"));

		if (!text || addr_parse(&r->ip[i], text) < 0)
			return wrong(why, "IPs", "each needs an Address with an IP");
		r->n_ips++;
	}
	return 0;
}

static int pod_take(struct cni_request *r, json_t *o, char why[POD_WHY_MAX])
{
	struct pod_attachment *a = &r->attachment;
	json_t *decide = field(o, "Decide");
	int e = text_take(o, "Netns", r->netns, sizeof r->netns, false, why);

	if (!e)
		e = text_take(o, "PodName", r->name, sizeof r->name, false, why);
	if (!e)
		e = text_take(o, "PodNamespace", r->ns, sizeof r->ns, false, why);
	if (!e)
		e = text_take(o, "PodUID", r->uid, sizeof r->uid, false, why);
	if (!e)
		e = text_take(o, "ContainerID", a->container_id, sizeof a->container_id, false, why);
	if (!e)
		e = text_take(o, "IfName", a->ifname, sizeof a->ifname, false, why);
	if (!e)
		e = text_take(o, "Network", a->network, sizeof a->network, false, why);
	if (!e && decide && !json_is_boolean(decide))
		e = wrong(why, "Decide", "must be true or false");
	if (!e && r->uid[0] && !pod_uid_valid(r->uid))
		e = wrong(why, "PodUID", "is not a uid");
	if (!e && r->netns[0] && r->netns[0] != '/')
		e = wrong(why, "Netns", "must be an absolute path");
	r->decide = json_is_true(decide);
	return e ? e : ips_take(r, field(o, "IPs"), why);
}

static void attachment_key(char key[KEY_MAX], const struct pod_attachment *a)
{
	snprintf(key, KEY_MAX, "%s/%s", a->container_id, a->ifname);
}

static int list_take(struct cni_request *r, json_t *o, char why[POD_WHY_MAX])
{
	json_t *list = field(o, "Attachments"), *v;
	int e = text_take(o, "Network", r->attachment.network, sizeof r->attachment.network, true, why);
	size_t i;

	if (!e && (!json_is_array(list) || json_array_size(list) > CNI_ATTACHMENTS_MAX))
		e = wrong(why, "Attachments", "must be a list, which is not too long");
	r->valid = e ? NULL : json_object();
	if (!e && !r->valid)
		return -ENOMEM;
	for (i = 0; !e && i < json_array_size(list); i++) {
		struct pod_attachment a = {.ifname = ""};
		char key[KEY_MAX];

		v = json_array_get(list, i);
		e = text_take(v, "ContainerID", a.container_id, sizeof a.container_id, true, why);
		if (!e)
			e = text_take(v, "IfName", a.ifname, sizeof a.ifname, true, why);
		attachment_key(key, &a);
		if (!e && json_object_set_new(r->valid, key, json_true()) < 0)
			e = wrong(why, "Attachments", "is not UTF-8, or does not fit into memory");
	}
	return e;
}

int cni_request_parse(struct cni_request *out, enum cni_kind kind, const char *body, size_t len, char why[POD_WHY_MAX])
{
	json_error_t at;
	json_t *o;
	int e = 0;

	memset(out, 0, sizeof *out);
	o = json_loadb(body, len, JSON_REJECT_DUPLICATES, &at);
	if (!json_is_object(o)) {
		snprintf(why, POD_WHY_MAX, "the body must be a JSON object%s%s", o ? "" : ": ", o ? "" : at.text);
		for (char *p = why; *p; p++) /* it quotes what was there */
			*p = (unsigned char)*p < ' ' || *p == 127 ? '?' : *p;
		e = -EINVAL;
	} else if (kind == CNI_POD) {
		e = pod_take(out, o, why);
	} else if (kind == CNI_LIST) {
		e = list_take(out, o, why);
	}
	json_decref(o);
	return e;
}

void cni_request_free(struct cni_request *r)
{
	json_decref(r->valid);
	r->valid = NULL;
}

bool cni_request_lists(const struct cni_request *r, const struct pod_attachment *a)
{
	char key[KEY_MAX];

	attachment_key(key, a);
	return json_object_get(r->valid, key) != NULL;
}
