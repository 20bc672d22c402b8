/* SPDX-License-Identifier: Apache-2.0 */
/* A stand-in for istiod as a program: xDS and CA on one port, driven by lines on standard input. Each line is answered by
 * one: "ok", "ok TEXT" or "error TEXT". */
#include <getopt.h>
#include <signal.h>

#include "base/log.h"
#include "fake/istiod_server.h"

static const char usage[] =
	"istiod: a stand-in for istiod for tests (delta ADS and istio.v1.auth over TLS)\n"
	"  --listen ADDRESS  127.0.0.1\n"
	"  --port PORT       0: any; the one in use is printed\n"
	"  --name NAME       host name or address in the server's certificate; may be repeated.\n"
	"                    Always there: the listen address and localhost\n"
	"  --root FILE       where the root certificate is written (PEM)\n"
	"  --cert FILE, --key FILE  the CA's own; without them one is made\n"
	"  --token TEXT      refuse streams and requests with another bearer token\n"
	"  --mesh FILE       the mesh to begin with\n"
	"  --plaintext       no TLS\n"
	"Prints \"listening on ADDRESS:PORT\" when it is ready; SIGINT, SIGTERM and the end of input end it. Lines:\n"
	"  load FILE          the mesh is this file's (as LOCAL_XDS_PATH has it); streams get what has changed\n"
	"  cut                all connections, at once\n"
	"  cut-after N, goaway-after N  once, when a stream has carried N bytes\n"
	"  goaway             to all connections\n"
	"  end STATUS TEXT    all streams, with this gRPC status\n"
	"  refuse STATUS TEXT new streams; 0 ends that\n"
	"  http STATUS        the answer to new streams; 0 ends that\n"
	"  mute 1, mute 0     streams are taken but not answered, nor told of changes\n"
	"  drip N             bytes every 5 ms; 0 ends that\n"
	"  nonce TEXT         of the next response\n"
	"  raw TYPE NAME HEX  one resource with this content; TYPE: address, policy or a type URL\n"
	"  big TYPE NAME N    the same with N zero bytes\n"
	"  remove TYPE NAME   one removal\n"
	"  message HEX        bytes in the place of a response\n"
	"  track 1            from now on: what clients acknowledge is remembered\n"
	"  seen               what was asked since the last \"seen\", as JSON\n"
	"  state              streams so far and now, certificates, what was sent again though it was\n"
	"                     acknowledged (see track), the last stream's headers, as JSON\n";

enum { NAMES_MAX = 16, LINE_LIMIT = 1 << 20 };

/* --- lines ---------------------------------------------------------------------------------------------- */

static const char *type_url(const char *word)
{
	return !strcmp(word, "address")	 ? xds_type_urls[XDS_ADDRESS]
	       : !strcmp(word, "policy") ? xds_type_urls[XDS_AUTHORIZATION]
					 : word;
}

static size_t unhex(const char *hex, uint8_t *out)
{
	size_t n = 0;
	unsigned byte;

	for (; sscanf(hex, "%2x", &byte) == 1 && hex[1]; hex += 2)
		out[n++] = (uint8_t)byte;
	return n;
}

static void text_json(const char *key, const char *value)
{
	printf(", \"%s\": \"", key);
	for (const char *p = value; *p; p++)
		if (*p == '"' || *p == '\\')
			printf("\\%c", *p);
		else if ((unsigned char)*p < ' ')
			printf("\\u%04x", *p);
		else
			putchar(*p);
	putchar('"');
}

static void show_seen(struct istiod *i)
{
	static const char *const types[] = {"address", "policy", "other"};

	printf("ok [");
	for (unsigned k = 0; k < i->n_seen; k++) {
		const struct istiod_seen *s = &i->seen[k];

		printf("%s{\"type\": \"%s\", \"stream\": %u, \"first\": %s, \"ack\": %s, \"nack\": %s, \"versions\": "
		       "%u, "
		       "\"subscribes\": %u, \"unsubscribes\": %u",
		       k ? ", " : "", types[s->type], s->stream, s->first ? "true" : "false", s->ack ? "true" : "false",
		       s->nack ? "true" : "false", s->versions, s->subscribes, s->unsubscribes);
		text_json("nonce", s->nonce);
		text_json("error", s->error);
		text_json("name", s->name);
		text_json("node", s->node);
		putchar('}');
	}
	printf("]\n");
	i->n_seen = 0;
}

static void show_state(struct istiod *i)
{
	unsigned now = 0;

	ISTIOD_EACH_LOCKED(i, a, now += a->open && !a->ended)
	printf("ok {\"streams\": %u, \"open\": %u, \"certificates\": %u, \"again\": %u", i->streams, now, i->ca.served,
	       i->acked.again);
	text_json("again_first", i->acked.which);
	text_json("token", i->token);
	text_json("clusterid", i->clusterid);
	text_json("extra", i->extra);
	printf("}\n");
}

/* What changes a setting, with the lock held. */
static bool set(struct istiod *i, const char *verb, const char *rest)
{
	size_t n = strtoul(rest, NULL, 10);

	if (!strcmp(verb, "refuse")) {
		i->refuse = (int)n;
		snprintf(i->refuse_why, sizeof i->refuse_why, "%s", strchr(rest, ' ') ? strchr(rest, ' ') + 1 : "");
	} else if (!strcmp(verb, "http"))
		i->http_status = (unsigned)n;
	else if (!strcmp(verb, "mute"))
		i->mute = n;
	else if (!strcmp(verb, "drip"))
		i->drip = n;
	else if (!strcmp(verb, "cut-after"))
		i->cut_after = n;
	else if (!strcmp(verb, "goaway-after"))
		i->goaway_after = n;
	else if (!strcmp(verb, "track"))
		i->acked.on = n;
	else if (!strcmp(verb, "nonce"))
		snprintf(i->nonce_text, sizeof i->nonce_text, "%s", rest);
	else if (!strcmp(verb, "seen"))
		show_seen(i);
	else if (!strcmp(verb, "state"))
		show_state(i);
	else
		return false;
	return true;
}

static void send_resource(struct istiod *i, const char *verb, char *rest)
{
	char *name = strchr(rest, ' '), *value;
	uint8_t *bytes;
	size_t len;

	if (name)
		*name++ = '\0';
	value = name ? strchr(name, ' ') : NULL;
	if (value)
		*value++ = '\0';
	if (!name || (!value && strcmp(verb, "remove") != 0)) {
		printf("error %s: too few words\n", verb);
		return;
	}
	if (!strcmp(verb, "remove")) {
		istiod_removed(i, type_url(rest), name);
	} else {
		len = !strcmp(verb, "big") ? strtoul(value, NULL, 10) : strlen(value) / 2;
		bytes = calloc(1, len + 1);
		if (strcmp(verb, "big") != 0)
			len = unhex(value, bytes);
		istiod_raw(i, type_url(rest), name, bytes, len);
		free(bytes);
	}
	printf("ok\n");
}

static void line(struct istiod *i, char *text)
{
	char *rest = text + strcspn(text, " "), why[LOCAL_REASON_MAX] = "";
	uint8_t *bytes;
	bool known;

	if (*rest)
		*rest++ = '\0';
	if (!strcmp(text, "load")) {
		printf(istiod_load(i, rest, NULL, why) ? "error %s\n" : "ok\n", why);
		return;
	}
	if (!strcmp(text, "raw") || !strcmp(text, "big") || !strcmp(text, "remove")) {
		send_resource(i, text, rest);
		return;
	}
	if (!strcmp(text, "message")) {
		bytes = calloc(1, strlen(rest) + 1);
		istiod_message(i, bytes, unhex(rest, bytes));
		free(bytes);
	} else if (!strcmp(text, "cut")) {
		istiod_cut(i);
	} else if (!strcmp(text, "goaway")) {
		istiod_goaway(i);
	} else if (!strcmp(text, "end")) {
		istiod_end(i, atoi(rest), strchr(rest, ' ') ? strchr(rest, ' ') + 1 : "");
	} else {
		pthread_mutex_lock(&i->lock);
		known = set(i, text, rest);
		pthread_mutex_unlock(&i->lock);
		if (!known)
			printf("error no such line: %s\n", text);
		else if (strcmp(text, "seen") != 0 && strcmp(text, "state") != 0)
			printf("ok\n");
		return;
	}
	printf("ok\n");
}

/* --- the program ---------------------------------------------------------------------------------------- */

static void read_lines(struct istiod *i)
{
	char *text = NULL;
	size_t cap = 0;

	while (getline(&text, &cap, stdin) > 0) {
		text[strcspn(text, "\n")] = '\0';
		line(i, text);
		fflush(stdout);
	}
	free(text);
}

int main(int argc, char **argv)
{
	enum { LISTEN, PORT, NAME, ROOT, CERT, KEY, TOKEN, MESH, PLAIN, HELP };
	static const struct option options[] = {{"listen", 1, 0, LISTEN},
						{"port", 1, 0, PORT},
						{"name", 1, 0, NAME},
						{"root", 1, 0, ROOT},
						{"cert", 1, 0, CERT},
						{"key", 1, 0, KEY},
						{"token", 1, 0, TOKEN},
						{"mesh", 1, 0, MESH},
						{"plaintext", 0, 0, PLAIN},
						{"help", 0, 0, HELP},
						{0}};
	const char *names[NAMES_MAX] = {"localhost"}, *host = "127.0.0.1", *arg[HELP] = {NULL};
	char why[LOCAL_REASON_MAX];
	struct istiod *i;
	struct ca_root *ca;
	unsigned n = 1;
	bool tls = true;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) >= 0) {
		if (c == NAME && n < NAMES_MAX - 1)
			names[n++] = optarg;
		else if (c == LISTEN)
			host = optarg;
		else if (c == PLAIN)
			tls = false;
		else if (c < HELP)
			arg[c] = optarg;
		else {
			fputs(usage, c == HELP ? stdout : stderr);
			return c == HELP ? 0 : 2;
		}
	}
	names[n++] = host;
	signal(SIGPIPE, SIG_IGN);
	log_set_filter("off");
	store_thread_register();
	ca = ca_root_new(arg[CERT], arg[KEY], why);
	if (!ca || (arg[ROOT] && ca_root_save(ca, arg[ROOT], "/dev/null"))) {
		fprintf(stderr, "istiod: %s\n", ca ? "cannot write the root certificate" : why);
		return 1;
	}
	i = istiod_new(host, (uint16_t)(arg[PORT] ? atoi(arg[PORT]) : 0), tls, ca, names, n);
	if (!i) {
		fprintf(stderr, "istiod: cannot start: %s\n", strerror(errno));
		return 1;
	}
	i->want_token = i->ca.token = arg[TOKEN];
	if (arg[MESH] && istiod_load(i, arg[MESH], NULL, why)) {
		fprintf(stderr, "istiod: %s\n", why);
		return 1;
	}
	printf("listening on %s:%u\n", host, i->server->port);
	fflush(stdout);
	read_lines(i);
	istiod_free(i);
	store_thread_unregister();
	return 0;
}
