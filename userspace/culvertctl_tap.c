/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the reading of a tap: the question, lines as they come, and how people are shown them. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "culvertctl.h"
#include "culvertctl_pcapng.h"
#include "tap_abi.h"

enum { LINE_MAX_BYTES = 1 << 20, HEX_COLUMNS = 16 };

struct tap {
	FILE *in;
	FILE *file; /* pcapng, or NULL */
	bool json;
	char pod[600]; /* NAMESPACE/NAME, as the tunnel says */
};

/* --- bytes ---------------------------------------------------------------------------------------------- */

static int sextet(char c)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	const char *p = c ? strchr(digits, c) : NULL;

	return p ? (int)(p - digits) : -1;
}

/* In place of the text, which is longer; the number of bytes. */
static size_t unbase64(char *text)
{
	uint8_t *out = (uint8_t *)text;
	unsigned bits = 0, have = 0;
	size_t n = 0;
	int v;

	for (const char *p = text; (v = sextet(*p)) >= 0; p++) {
		bits = bits << 6 | (unsigned)v;
		have += 6;
		if (have < 8)
			continue;
		have -= 8;
		out[n++] = (uint8_t)(bits >> have);
	}
	return n;
}

/* --- for people ----------------------------------------------------------------------------------------- */

/* No byte that a terminal would obey. */
static bool is_text(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if ((p[i] < ' ' && p[i] != '\n' && p[i] != '\r' && p[i] != '\t') || p[i] >= 0x7f)
			return false;
	return true;
}

static void show_text(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != '\r')
			putchar(p[i]);
	if (n && p[n - 1] != '\n')
		putchar('\n');
}

static void show_hex(const uint8_t *p, size_t n)
{
	for (size_t at = 0; at < n; at += HEX_COLUMNS) {
		size_t k = n - at < HEX_COLUMNS ? n - at : HEX_COLUMNS;

		printf("  %06zx ", at);
		for (size_t i = 0; i < HEX_COLUMNS; i++)
			if (i < k)
				printf(" %02x", p[at + i]);
			else
				printf("   ");
		printf("  ");
		for (size_t i = 0; i < k; i++)
			putchar(p[at + i] >= ' ' && p[at + i] < 0x7f ? p[at + i] : '.');
		putchar('\n');
	}
}

static void show_time(long long us)
{
	time_t s = (time_t)(us / 1000000);
	struct tm tm;
	char text[16] = "";

	if (localtime_r(&s, &tm))
		strftime(text, sizeof text, "%H:%M:%S", &tm);
	printf("%s.%06lld", text, us % 1000000);
}

static void show_end(json_t *e, const char *which)
{
	json_t *o = json_object_get(e, which);

	printf("%s", text_of(o, "address"));
	if (*text_of(o, "identity"))
		printf(" %s", text_of(o, "identity"));
	else if (*text_of(o, "workload"))
		printf(" (%s)", text_of(o, "workload"));
}

static void show_event(json_t *e, const uint8_t *data, size_t len)
{
	const char *kind = text_of(e, "event"), *error = text_of(e, "error");
	bool back = !strcmp(text_of(e, "to"), "client"), is_data = !strcmp(kind, "data");

	if (!strcmp(kind, "lost")) {
		printf("(%lld records with %lld bytes were lost so far: they came faster than they are read)\n",
		       number_of(e, "records"), number_of(e, "bytes"));
		return;
	}
	show_time(number_of(e, "time"));
	printf(" #%lld %s ", number_of(e, "connection"), text_of(e, "direction"));
	show_end(e, "client");
	printf(" %s ", is_data && back ? "<-" : "->");
	show_end(e, "server");
	if (is_data)
		printf(" %zu bytes at %lld\n", len, number_of(e, back ? "sent" : "received"));
	else if (!strcmp(kind, "closed"))
		printf(" closed after %lld and %lld bytes%s%s\n", number_of(e, "received"), number_of(e, "sent"),
		       *error ? ": " : "", error);
	else
		printf(" %s, %s\n", kind, text_of(e, "protocol"));
	(is_text(data, len) ? show_text : show_hex)(data, len);
}

/* --- lines ---------------------------------------------------------------------------------------------- */

/* 0; -EIO: the file cannot be written. */
static int take_event(struct tap *t, json_t *e)
{
	const char *data = text_of(e, "data");
	char *copy = strdup(data);
	size_t n = copy ? unbase64(copy) : 0;
	int err = 0;

	if (t->file)
		err = pcapng_event(t->file, e, (uint8_t *)copy, n);
	else
		show_event(e, (uint8_t *)copy, n);
	free(copy);
	return err;
}

static int take_line(struct tap *t, const char *line)
{
	json_t *e = json_loads(line, 0, NULL);
	int err = e ? take_event(t, e) : -EBADMSG;

	json_decref(e);
	if (!err && (fflush(t->file ? t->file : stdout) != 0))
		err = -EIO;
	return err;
}

/* What the tunnel says first: whom it follows, or why not. */
static int greeted(struct tap *t, const char *line, char why[CALL_WHY_MAX])
{
	json_t *o = json_loads(line, 0, NULL), *pod = json_object_get(json_object_get(o, "tap"), "pod");
	const char *error = text_of(o, "error");

	snprintf(t->pod, sizeof t->pod, "%.63s/%.253s", text_of(pod, "namespace"), text_of(pod, "name"));
	if (!pod)
		snprintf(why, CALL_WHY_MAX, "%.1024s", *error ? error : "the answer is no tap's");
	json_decref(o);
	return pod ? 0 : -EIO;
}

static int follow(struct tap *t, char why[CALL_WHY_MAX])
{
	char *line = NULL;
	size_t cap = 0;
	bool begun = false;
	int e = 0;

	while (!e && getline(&line, &cap, t->in) > 0 && cap < LINE_MAX_BYTES) {
		if (!begun)
			e = greeted(t, line, why);
		if (!e && !begun && t->file)
			e = pcapng_begin(t->file, t->pod);
		if (!e && t->json)
			e = fputs(line, stdout) < 0 || fflush(stdout) ? -EIO : 0;
		else if (!e && begun)
			e = take_line(t, line);
		else if (!e && !t->file)
			printf("tapping %s; end with ^C\n", t->pod);
		begun = true;
	}
	free(line);
	if (begun && !e)
		fprintf(stderr, "culvertctl: the tunnel has ended the tap\n");
	if (!begun)
		snprintf(why, CALL_WHY_MAX, "the tunnel has closed the connection");
	else if (e && !why[0])
		snprintf(why, CALL_WHY_MAX, e == -EIO ? "cannot write" : "the tunnel says what is no event");
	return begun ? e : -ECONNRESET;
}

/* --- the beginning -------------------------------------------------------------------------------------- */

static int ask(int fd, const char *pod, const char *peer, char why[CALL_WHY_MAX])
{
	json_t *o = json_pack("{ss ss}", "pod", pod, "peer", peer ? peer : "");
	char *text = o ? json_dumps(o, JSON_COMPACT) : NULL;
	int e = text && strlen(text) < TAP_REQUEST_MAX - 1 ? 0 : -EINVAL;

	json_decref(o);
	if (e)
		snprintf(why, CALL_WHY_MAX, "the names are too long, or no text");
	else if (send(fd, text, strlen(text), MSG_NOSIGNAL) >= 0) /* else there is an answer already: a refusal */
		send(fd, "\n", 1, MSG_NOSIGNAL);
	free(text);
	return e;
}

static FILE *open_file(const char *path, char why[CALL_WHY_MAX])
{
	int fd = strcmp(path, "-") ? open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600) : dup(STDOUT_FILENO);
	FILE *f = fd >= 0 ? fdopen(fd, "wb") : NULL;

	if (!f)
		snprintf(why, CALL_WHY_MAX, "%.512s: %s", path, strerror(errno));
	return f;
}

static int dial(const char *run_dir, char why[CALL_WHY_MAX])
{
	int fd = call_dial(run_dir, TAP_SOCKET, why);

	if (fd == -ENOENT || fd == -ECONNREFUSED)
		snprintf(why, CALL_WHY_MAX,
			 "%.512s/" TAP_SOCKET
			 ": no tunnel offers taps there; they are off unless it runs with CULVERT_TAP=true",
			 run_dir);
	return fd;
}

int tap_run(const char *run_dir, const char *pod, const char *peer, const char *file, bool json, char why[CALL_WHY_MAX])
{
	struct tap t = {.json = json && !file};
	int fd = dial(run_dir, why), e;

	if (fd < 0)
		return fd;
	e = ask(fd, pod, peer, why);
	t.in = fdopen(fd, "rb");
	t.file = !e && file ? open_file(file, why) : NULL;
	if (!e && file && !t.file)
		e = -EIO;
	if (!e && t.in)
		e = follow(&t, why);
	if (t.file && fclose(t.file) != 0 && !e) {
		e = -EIO;
		snprintf(why, CALL_WHY_MAX, "%.512s: %s", file, strerror(errno));
	}
	if (t.in)
		fclose(t.in);
	else
		close(fd);
	return e;
}
