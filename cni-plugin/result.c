/* SPDX-License-Identifier: Apache-2.0 */
/* Owns what is printed. */
#include "result.h"

#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/addr.h"

/* --- the previous result --------------------------------------------------------------------------------------- */

/* 0.3.x and 0.4.0 have one form of results, 1.x the other. */
static char family(const char *version)
{
	return version[0];
}

static bool is_known(const char *version)
{
	for (unsigned i = 0; conf_versions[i]; i++)
		if (!strcmp(version, conf_versions[i]))
			return true;
	return false;
}

/* Pieces that follow each other. */
static int join(const struct span *piece, unsigned n, char **out, size_t *len, struct failure *f)
{
	size_t sum = 0;
	char *p;

	for (unsigned i = 0; i < n; i++)
		sum += piece[i].len;
	*out = malloc(sum + 1);
	if (!*out)
		return failed(f, E_INTERNAL, "out of memory");
	p = *out;
	for (unsigned i = 0; i < n; i++) {
		memcpy(p, piece[i].at, piece[i].len);
		p += piece[i].len;
	}
	*p = '\0';
	*len = sum;
	return 0;
}

static struct span span_of(const char *text)
{
	return (struct span){text, strlen(text)};
}

int result_make(const struct conf *c, char **out, size_t *len, struct failure *f)
{
	const json_t *v = json_object_get(c->prev, "cniVersion");
	const char *is = json_string_value(v);
	char ours[40];
	struct span at;

	if (!c->prev) {
		snprintf(ours, sizeof ours, "{\"cniVersion\":\"%s\"}", c->version);
		at = span_of(ours);
		return join(&at, 1, out, len, f);
	}
	if (v && !is)
		return failed(f, E_CONFIG, "prevResult: \"cniVersion\" must be a string");
	if (is && (!is_known(is) || family(is) != family(c->version)))
		return failed(f, E_VERSION, "prevResult has cniVersion \"%.30s\", which does not go with %s", is,
			      c->version);
	if (is && !strcmp(is, c->version))
		return join(&c->prev_text, 1, out, len, f);
	if (is && span_member(&c->prev_text, "cniVersion", &at)) {
		const char *end = c->prev_text.at + c->prev_text.len;

		snprintf(ours, sizeof ours, "\"%s\"", c->version);
		return join((struct span[]){{c->prev_text.at, (size_t)(at.at - c->prev_text.at)},
					    span_of(ours),
					    {at.at + at.len, (size_t)(end - at.at - at.len)}},
			    3, out, len, f);
	}
	if (is)
		return failed(f, E_DECODE, "prevResult: the key \"cniVersion\" must be written without escapes");
	snprintf(ours, sizeof ours, "{\"cniVersion\":\"%s\"%s", c->version, json_object_size(c->prev) ? "," : "");
	return join((struct span[]){span_of(ours), {c->prev_text.at + 1, c->prev_text.len - 1}}, 2, out, len, f);
}

/* --- addresses -------------------------------------------------------------------------------------------------- */

/* Base64 of a netmask of `bytes` bytes, which is what Go makes of one. */
static void mask_text(char out[28], unsigned bits, unsigned bytes)
{
	static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	uint8_t mask[18] = {0};
	char *p = out;

	for (unsigned i = 0; i < bits; i++)
		mask[i / 8] |= (uint8_t)(0x80 >> i % 8);
	for (unsigned i = 0; i < bytes; i += 3) {
		uint32_t three = (uint32_t)mask[i] << 16 | (uint32_t)mask[i + 1] << 8 | mask[i + 2];

		for (unsigned k = 0; k < 4; k++)
			*p++ = i + k > bytes ? '=' : digit[three >> (18 - 6 * k) & 63];
	}
	*p = '\0';
}

/* Whether in, of a prevResult, is an index of an interface: numbers are read as real ones (conf.c), of any size. */
static bool is_index(const json_t *in)
{
	double n = json_number_value(in);

	return json_is_number(in) && n >= INT_MIN && n <= INT_MAX && n == (int)n;
}

static json_t *ip_json(const json_t *in)
{
	const char *address = json_string_value(json_object_get(in, "address"));
	const char *gateway = json_string_value(json_object_get(in, "gateway"));
	json_t *interface = json_object_get(in, "interface");
	char text[ADDR_STRLEN] = "", mask[28];
	const char *slash = address ? strchr(address, '/') : NULL;
	struct prefix net;
	struct addr ip;

	if (!slash || (size_t)(slash - address) >= sizeof text || prefix_parse(&net, address) < 0)
		return NULL;
	memcpy(text, address, (size_t)(slash - address));
	if (addr_parse(&ip, text) < 0 || (interface && !is_index(interface)))
		return NULL;
	mask_text(mask, net.len, addr_is4(&ip) ? 4 : 16);
	return json_pack("{so s{ss ss} ss}", "Interface",
			 interface ? json_integer((json_int_t)json_number_value(interface)) : json_null(), "Address",
			 "IP", text, "Mask", mask, "Gateway", gateway ? gateway : "");
}

int result_ips(const struct conf *c, json_t **out, struct failure *f)
{
	json_t *list = json_object_get(c->prev, "ips"), *ips;

	*out = NULL;
	if (!c->prev) {
		*out = json_null();
		return 0;
	}
	if (list && !json_is_null(list) && !json_is_array(list))
		return failed(f, E_CONFIG, "prevResult: \"ips\" must be an array");
	ips = json_array();
	for (size_t i = 0; i < json_array_size(list); i++) {
		json_t *ip = ip_json(json_array_get(list, i));

		if (!ip || json_array_append_new(ips, ip) < 0) {
			json_decref(ips);
			return failed(f, E_CONFIG, "prevResult: address %zu is not ADDRESS/LENGTH of an interface", i);
		}
	}
	*out = ips;
	return 0;
}

/* --- others ----------------------------------------------------------------------------------------------------- */

char *result_error(const char *version, const struct failure *f)
{
	json_t *o = json_pack("{ss si}", "cniVersion", *version ? version : "1.1.0", "code", f->code);
	char *text = NULL;

	/* Texts of others that are not UTF-8 are not repeated. */
	if (o && json_object_set_new(o, "msg", json_string(f->msg)) < 0)
		json_object_set_new(o, "msg", json_string("the reason is not UTF-8"));
	if (o)
		text = json_dumps(o, JSON_INDENT(2));
	json_decref(o);
	return text;
}

char *result_versions(const char *asked)
{
	json_t *list = json_array(), *o;
	char *text;

	for (unsigned i = 0; conf_versions[i]; i++)
		json_array_append_new(list, json_string(conf_versions[i]));
	o = json_pack("{ss so}", "cniVersion", *asked ? asked : "1.1.0", "supportedVersions", list);
	text = o ? json_dumps(o, JSON_INDENT(2)) : NULL;
	json_decref(o);
	return text;
}
