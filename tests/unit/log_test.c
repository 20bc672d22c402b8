/* SPDX-License-Identifier: Apache-2.0 */
/* Log lines: their shape, what becomes of long and hostile texts, levels by target, and a reader that is too slow. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/log_internal.h"

/* --- a descriptor's output -------------------------------------------------------------------------------------------- */

struct tap {
	int fd, saved, in; /* what is replaced, its copy, the end to read from */
};

static void tap_open(struct tap *t, int fd)
{
	int ends[2];

	fflush(NULL);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	*t = (struct tap){fd, dup(fd), ends[0]};
	dup2(ends[1], fd);
	close(ends[1]);
}

/* Gives the descriptor back and returns everything that came; malloc'ed. */
static char *tap_close(struct tap *t)
{
	size_t len = 0, cap = 1 << 16;
	char *text = malloc(cap);
	ssize_t n;

	dup2(t->saved, t->fd);
	close(t->saved);
	while ((n = read(t->in, text + len, cap - len - 1)) > 0) {
		len += (size_t)n;
		if (cap - len < 4096)
			text = realloc(text, cap *= 2);
	}
	text[len] = 0;
	close(t->in);
	return text;
}

/* Lines are made in the shape of the last log. */
static void set_json(bool json)
{
	assert_int_equal(log_start(json), 0);
	log_stop();
}

/* --- shape ---------------------------------------------------------------------------------------------------------- */

#define R "\xef\xbf\xbd" /* U+FFFD */
static const struct {
	const char *name, *target, *message, *str, *bare; /* fields s and b */
	bool number;					  /* field n, 7 */
	const char *plain, *json;			  /* behind the time */
} lines[] = {
	{"message", "t", "hello", NULL, NULL, false, "info\tt\thello", "\"scope\":\"t\",\"message\":\"hello\"}"},
	{"string", "t", "m", "v", NULL, false, "info\tt\tm\ts=\"v\"", "\"scope\":\"t\",\"message\":\"m\",\"s\":\"v\"}"},
	{"bare", "t", "m", NULL, "10.0.0.1:80", false, "info\tt\tm\tb=10.0.0.1:80",
	 "\"scope\":\"t\",\"message\":\"m\",\"b\":\"10.0.0.1:80\"}"},
	{"number", "t", "m", NULL, NULL, true, "info\tt\tm\tn=7", "\"scope\":\"t\",\"message\":\"m\",\"n\":7}"},
	{"the first field is set off by a tab, the others by blanks", "t", "m", "v", "w", true,
	 "info\tt\tm\ts=\"v\" b=w n=7", "\"scope\":\"t\",\"message\":\"m\",\"s\":\"v\",\"b\":\"w\",\"n\":7}"},
	{"empty texts", "t", "", "", "", false,
	 "info\tt\t\ts=\"\" b=", "\"scope\":\"t\",\"message\":\"\",\"s\":\"\",\"b\":\"\"}"},
	{"quotes and backslashes", "t", "a\"b\\c", "a\"b\\c", "a\"b\\c", false,
	 "info\tt\ta\"b\\c\ts=\"a\\\"b\\\\c\" b=a\"b\\c",
	 "\"scope\":\"t\",\"message\":\"a\\\"b\\\\c\",\"s\":\"a\\\"b\\\\c\",\"b\":\"a\\\"b\\\\c\"}"},
	{"line feeds forge no line", "t", "a\nb", "a\nb", "a\nb", false, "info\tt\ta\\nb\ts=\"a\\nb\" b=a\\nb",
	 "\"scope\":\"t\",\"message\":\"a\\nb\",\"s\":\"a\\nb\",\"b\":\"a\\nb\"}"},
	{"tabs forge no field", "t", "a\tb", "a\tb", "a\tb", false, "info\tt\ta\\tb\ts=\"a\\tb\" b=a\\tb",
	 "\"scope\":\"t\",\"message\":\"a\\tb\",\"s\":\"a\\tb\",\"b\":\"a\\tb\"}"},
	{"control characters", "t", "\x01\r\x1b\x7f", NULL, NULL, false, "info\tt\t\\u0001\\u000d\\u001b\\u007f",
	 "\"scope\":\"t\",\"message\":\"\\u0001\\u000d\\u001b\\u007f\"}"},
	{"UTF-8 stays", "t", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80", NULL, NULL, false,
	 "info\tt\t\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
	 "\"scope\":\"t\",\"message\":\"\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80\"}"},
	{"what is no UTF-8 is replaced", "t", "a\xff\xc3(\xe2\x82", NULL, NULL, false,
	 "info\tt\ta\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd",
	 "\"scope\":\"t\",\"message\":\"a\xef\xbf\xbd\xef\xbf\xbd(\xef\xbf\xbd\xef\xbf\xbd\"}"},
	{"overlong forms, surrogates and what is beyond Unicode are replaced", "t",
	 "\xe0\x82\xac|\xed\xa0\x80|\xf4\x90\x80\x80|\xf0\x82\x82\xac|\xc0\x80", NULL, NULL, false,
	 "info\tt\t" R R R "|" R R R "|" R R R R "|" R R R R "|" R R,
	 "\"scope\":\"t\",\"message\":\"" R R R "|" R R R "|" R R R R "|" R R R R "|" R R "\"}"},
	{"the first and the last of each length stay", "t",
	 "\x7e\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf", NULL, NULL, false,
	 "info\tt\t\x7e\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf",
	 "\"scope\":\"t\",\"message\":"
	 "\"\x7e\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xef\xbf\xbf\xf0\x90\x80\x80\xf4\x8f\xbf\xbf\"}"},
};

static void compose(struct log_line *l, const char *target, const char *message, const char *str, const char *bare,
		    bool number)
{
	log_begin(l, LOG_INFO, target, message);
	log_str(l, "s", str);
	log_bare(l, "b", bare);
	if (number)
		log_u64(l, "n", 7);
}

static void test_shape(void **state)
{
	for (size_t i = 0; i < 2 * sizeof lines / sizeof *lines; i++) {
		size_t row = i / 2;
		struct log_line l;
		struct tap t;
		char *got, *behind;

		tap_open(&t, STDOUT_FILENO);
		assert_int_equal(log_start(i % 2), 0);
		compose(&l, lines[row].target, lines[row].message, lines[row].str, lines[row].bare, lines[row].number);
		log_end(&l);
		log_stop();
		got = tap_close(&t);
		size_t n = strlen(got);
		if (!n || got[n - 1] != '\n')
			fail_msg("%s: no line: %s", lines[row].name, got);
		got[n - 1] = 0;
		behind = i % 2 ? strstr(got, "Z\",") + 3 : strchr(got, '\t') + 1;
		if (strcmp(behind, i % 2 ? lines[row].json : lines[row].plain))
			fail_msg("%s: %s", lines[row].name, behind);
		free(got);
	}
}

static void test_time(void **state)
{
	struct log_line l;
	struct tm tm = {.tm_year = 0};
	char text[32];
	time_t now = time(NULL), at;

	set_json(false);
	log_begin(&l, LOG_INFO, "t", "m");
	memcpy(text, l.text, 27);
	text[27] = 0;
	assert_int_equal(text[19], '.');
	assert_int_equal(text[26], 'Z');
	assert_non_null(strptime(text, "%Y-%m-%dT%H:%M:%S", &tm));
	at = timegm(&tm);
	assert_in_range(at, now, now + 2);
}

/* --- length --------------------------------------------------------------------------------------------------------- */

/* Texts of every length around the limit, of characters that are written as 1 to 6 bytes. The line keeps to its limit,
 * stays one object, and what was cut says so. */
static const char *const characters[] = {"a",	"\"", "\n", "\x01", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80",
					 "\xff"};

static char *repeated(const char *c, size_t bytes)
{
	size_t n = strlen(c), len = 0;
	char *text = malloc(bytes + n + 1);

	for (; len < bytes; len += n)
		memcpy(text + len, c, n);
	text[len] = 0;
	return text;
}

static void check_line(const char *name, struct log_line *l, bool json, size_t length)
{
	json_error_t why;
	json_t *o;

	log_finish(l);
	if (l->len > LOG_LINE_MAX || l->text[l->len - 1] != '\n' || memchr(l->text, '\n', l->len - 1))
		fail_msg("%s, %zu bytes: no line", name, length);
	if (l->cut && !memmem(l->text, l->len, json ? "\"cut\":true}" : "...", json ? 11 : 3))
		fail_msg("%s, %zu bytes: cut in silence", name, length);
	if (!json)
		return;
	o = json_loadb(l->text, l->len, 0, &why);
	if (!o)
		fail_msg("%s, %zu bytes: %s", name, length, why.text);
	json_decref(o);
}

static void test_long_texts(void **state)
{
	for (unsigned json = 0; json < 2; json++) {
		set_json(json);
		for (size_t c = 0; c < sizeof characters / sizeof *characters; c++)
			for (size_t length = 600;
			     length<LOG_LINE_MAX + 20; length += length> 700 && length < 3900 ? 97 : 1) {
				char *text = repeated(characters[c], length);
				struct log_line l;

				compose(&l, "t", text, NULL, NULL, false);
				check_line("message", &l, json, length);
				compose(&l, "t", "m", text, "x", true);
				check_line("string", &l, json, length);
				compose(&l, "t", "m", NULL, text, true);
				check_line("bare", &l, json, length);
				free(text);
			}
	}
	set_json(false);
}

static void test_many_fields(void **state)
{
	for (unsigned json = 0; json < 2; json++) {
		set_json(json);
		for (unsigned shift = 0; shift < 40; shift++) {
			char *pad = repeated("p", shift);
			struct log_line l;

			log_begin(&l, LOG_WARN, "t", pad);
			for (unsigned i = 0; i < 400; i++) {
				log_str(&l, "string", "value");
				log_u64(&l, "number", INT64_MAX);
				log_bare(&l, "bare", "value");
			}
			assert_true(l.cut);
			check_line("many fields", &l, json, shift);
			free(pad);
		}
	}
	set_json(false);
}

static void test_long_printf_messages_are_cut_too(void **state)
{
	char *text = repeated("x", 3 * LOG_LINE_MAX), *got;
	struct tap t;

	tap_open(&t, STDERR_FILENO);
	log_msg(LOG_ERROR, "t", "%s", text);
	got = tap_close(&t);
	assert_true(strlen(got) <= LOG_LINE_MAX);
	assert_non_null(strstr(got, "...\n"));
	free(got);
	free(text);
}

/* --- levels --------------------------------------------------------------------------------------------------------- */

static const struct {
	const char *name, *spec;
	const char *text; /* what log_filter() writes; NULL: refused */
} filters[] = {
	{"nothing is info", "", "info"},
	{"a level", "debug", "debug"},
	{"case does not count", "DEBUG", "debug"},
	{"the last of two levels", "debug,warn", "warn"},
	{"a target", "access=off", "access=off,info"},
	{"a target and a level", "warn,access=debug", "access=debug,warn"},
	{"several targets", "a=trace,b=error,off", "a=trace,b=error,off"},
	{"of one target the last", "a=trace,a=error", "a=error,info"},
	{"Istio's form", "default:info,cni:debug", "cni=debug,info"},
	{"Istio's form, for all", "all:none", "off"},
	{"Istio's form, fatal", "cni:fatal,default:warn", "cni=error,warn"},
	{"Istio's form beside ours", "default:debug,steer=trace", "steer=trace,debug"},
	{"Istio's form without a scope", ":info", NULL},
	{"Istio's form without a level", "default:", NULL},
	{"Istio's form, no level", "default:loud", NULL},
	{"a target that begins like another", "ab=trace,a=error", "ab=trace,a=error,info"},
	{"no such level", "loud", NULL},
	{"no such level of a target", "a=loud", NULL},
	{"an empty target", "=info", NULL},
	{"an empty level", "a=", NULL},
	{"an empty entry", "a=info,,b=info", NULL},
	{"a comma at the end", "info,", NULL},
	{"a comma alone", ",", NULL},
	{"a blank", "a = info", NULL},
	{"a target that is too long", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=info", NULL},
	{"the longest target", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=info",
	 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa=info,info"},
};

static void test_filters(void **state)
{
	char text[LOG_SPEC_MAX];

	for (size_t i = 0; i < sizeof filters / sizeof *filters; i++) {
		assert_int_equal(log_set_filter("before=trace,error"), 0);
		int e = log_set_filter(filters[i].spec);
		if (e != (filters[i].text ? 0 : -EINVAL))
			fail_msg("%s: %d", filters[i].name, e);
		if (strcmp(log_filter(text), filters[i].text ? filters[i].text : "before=trace,error"))
			fail_msg("%s: %s", filters[i].name, text);
	}
	assert_int_equal(log_set_filter("info"), 0);
}

/* As many and as long as fit, and one more. What is accepted can be read and set again. */
static void test_filters_are_bounded(void **state)
{
	char spec[4 * LOG_SPEC_MAX] = "", text[LOG_SPEC_MAX];
	unsigned n = 0;

	for (; n < 32; n++)
		sprintf(spec + strlen(spec), "%st%02u=info", n ? "," : "", n);
	assert_int_equal(log_set_filter(spec), 0);
	strcat(spec, ",x=info");
	assert_int_equal(log_set_filter(spec), -EINVAL);
	for (unsigned length = 20; length < 40; length++) {
		spec[0] = 0;
		for (n = 0; n < 32; n++)
			sprintf(spec + strlen(spec), "%s%0*u=info", n ? "," : "", length, n);
		int e = log_set_filter(spec);
		assert_int_equal(e, strlen(spec) + sizeof ",info" <= LOG_SPEC_MAX ? 0 : -EINVAL);
		if (e == 0) {
			log_filter(text);
			assert_memory_equal(text, spec, strlen(spec));
			assert_int_equal(log_set_filter(text), 0);
		}
	}
	assert_int_equal(log_set_filter("info"), 0);
}

static const struct {
	const char *name, *spec, *target;
	enum log_level most; /* the most verbose one that is on */
} enabled[] = {
	{"info", "", "t", LOG_INFO},
	{"a level", "debug", "t", LOG_DEBUG},
	{"off", "off", "t", LOG_OFF},
	{"a target's own", "error,t=trace", "t", LOG_TRACE},
	{"another target", "error,t=trace", "u", LOG_ERROR},
	{"a target that is off", "t=off", "t", LOG_OFF},
	{"a module of the target", "error,t=debug", "t::m", LOG_DEBUG},
	{"a part of the target", "error,t=debug", "t.m", LOG_DEBUG},
	{"a target that only begins so", "error,t=debug", "tm", LOG_ERROR},
	{"the longest match", "t=error,t::m=debug", "t::m::x", LOG_DEBUG},
	{"the longest match, whatever the order", "t::m=debug,t=error", "t::m", LOG_DEBUG},
	{"the shorter one for the rest", "t=error,t::m=debug", "t::n", LOG_ERROR},
	{"a module of ztunnel", "error,ztunnel::xds=debug", "xds", LOG_DEBUG},
	{"a module of ztunnel, another target", "error,ztunnel::xds=debug", "worker", LOG_ERROR},
	{"a module that is in one of ztunnel's", "error,ztunnel::tls=debug", "crl", LOG_DEBUG},
	{"all of ztunnel", "error,ztunnel=trace", "worker", LOG_TRACE},
	{"all of ztunnel but a module", "ztunnel=trace,ztunnel::proxy=warn", "worker", LOG_WARN},
	{"a target of ours beside all of ztunnel", "ztunnel=info,zds=debug", "zds", LOG_DEBUG},
	{"a target of ours beside its module", "ztunnel::proxy=warn,worker=trace", "worker", LOG_TRACE},
	{"another crate", "error,hyper=trace", "worker", LOG_ERROR},
};

static void test_enabled(void **state)
{
	for (size_t i = 0; i < sizeof enabled / sizeof *enabled; i++) {
		assert_int_equal(log_set_filter(enabled[i].spec), 0);
		for (unsigned level = LOG_ERROR; level <= LOG_TRACE; level++)
			if (log_enabled((enum log_level)level, enabled[i].target) != (level <= enabled[i].most))
				fail_msg("%s: level %u", enabled[i].name, level);
	}
	assert_int_equal(log_set_filter("info"), 0);
}

static void test_limits(void **state)
{
	struct log_limit l = {.per_second = 2};
	uint64_t suppressed = 99;

	assert_true(log_allowed(&l, 1000, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_true(log_allowed(&l, 1999, &suppressed));
	assert_false(log_allowed(&l, 1999, &suppressed));
	assert_false(log_allowed(&l, 1999, &suppressed));
	assert_true(log_allowed(&l, 2000, &suppressed));
	assert_int_equal(suppressed, 2);
	assert_true(log_allowed(&l, 2000, &suppressed));
	assert_int_equal(suppressed, 0);
	assert_false(log_allowed(&l, 2999, &suppressed));
	assert_true(log_allowed(&l, 60000, &suppressed));
	assert_int_equal(suppressed, 1);
}

/* --- the writer ------------------------------------------------------------------------------------------------------ */

enum { THREADS = 3, LINES = 500 };

static void *write_lines(void *arg)
{
	for (unsigned i = 0; i < LINES; i++)
		log_msg(LOG_INFO, "t", "thread %u line %u.", *(unsigned *)arg, i);
	return NULL;
}

/* Reads on while the writer writes. */
struct drain {
	int fd;
	size_t len;
	char *text;
};

static void *drain_main(void *arg)
{
	struct drain *d = arg;
	ssize_t n;

	d->text = malloc(8 << 20);
	while ((n = read(d->fd, d->text + d->len, (8 << 20) - 1 - d->len)) > 0)
		d->len += (size_t)n;
	d->text[d->len] = 0;
	return NULL;
}

static void test_lines_of_several_threads_stay_whole(void **state)
{
	unsigned id[THREADS], next[THREADS] = {0}, total = 0;
	pthread_t thread[THREADS], drainer;
	struct drain d = {.len = 0};
	struct tap t;

	tap_open(&t, STDOUT_FILENO);
	d.fd = dup(t.in);
	pthread_create(&drainer, NULL, drain_main, &d);
	assert_int_equal(log_start(false), 0);
	for (unsigned i = 0; i < THREADS; i++) {
		id[i] = i;
		pthread_create(&thread[i], NULL, write_lines, &id[i]);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(thread[i], NULL);
	log_stop();
	dup2(t.saved, STDOUT_FILENO); /* the last writer's end: the drainer comes to its end */
	pthread_join(drainer, NULL);
	free(tap_close(&t));
	for (char *p = d.text; *p; p = strchr(p, '\n') + 1) {
		unsigned who, line;
		assert_int_equal(sscanf(strstr(p, "\tthread"), "\tthread %u line %u.\n", &who, &line), 2);
		assert_int_equal(line, next[who]++);
		total++;
	}
	assert_int_equal(total + log_lost(), THREADS * LINES);
	close(d.fd);
	free(d.text);
}

/* Nobody reads: the producers go on, lines are lost and counted; when somebody reads again the log says how many. */
static void test_a_slow_reader_costs_lines_that_are_counted(void **state)
{
	uint64_t before = log_lost(), lost;
	unsigned long told = 0;
	struct drain d = {.len = 0};
	pthread_t drainer;
	struct tap t;
	char *p;

	tap_open(&t, STDOUT_FILENO);
	assert_int_equal(log_start(false), 0);
	for (unsigned i = 0; i < 40000; i++)
		log_msg(LOG_INFO, "t", "line %u with some text behind it that makes it longer than it need be", i);
	lost = log_lost() - before;
	assert_in_range(lost, 1, 39999);
	d.fd = dup(t.in);
	pthread_create(&drainer, NULL, drain_main, &d);
	log_stop();
	dup2(t.saved, STDOUT_FILENO);
	pthread_join(drainer, NULL);
	free(tap_close(&t));
	for (p = d.text; (p = strstr(p, "lines lost")); p++)
		told += strtoul(strstr(p, "lines=") + 6, NULL, 10);
	assert_int_equal(told, lost);
	assert_non_null(strstr(d.text, "line 0 with"));
	close(d.fd);
	free(d.text);
}

static void test_without_a_writer_lines_go_to_stderr(void **state)
{
	struct tap t;
	char *got;

	tap_open(&t, STDERR_FILENO);
	log_info("t", "early");
	got = tap_close(&t);
	assert_non_null(strstr(got, "info\tt\tearly\n"));
	free(got);
}

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Runs `f` in a child; its exit status. A child that hangs is ended by its alarm. */
static int in_child(int (*f)(void))
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		alarm(20);
		_exit(f());
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static int say_something(void)
{
	log_info("t", "from the child");
	log_stop();
	return 0;
}

/* The writer is stuck with lines in its buffer when the process forks. */
static void test_a_child_has_no_writer_and_repeats_nothing(void **state)
{
	struct tap out, err;
	struct drain d = {.len = 0};
	pthread_t drainer;
	char *got;

	tap_open(&out, STDOUT_FILENO);
	tap_open(&err, STDERR_FILENO);
	assert_int_equal(log_start(false), 0);
	for (unsigned i = 0; i < 3000; i++)
		log_msg(LOG_INFO, "t", "line %u of the parent, and some text behind it", i);
	assert_int_equal(in_child(say_something), 0);
	got = tap_close(&err);
	assert_non_null(strstr(got, "\tfrom the child\n"));
	assert_null(strstr(got, "parent"));
	free(got);
	d.fd = dup(out.in);
	pthread_create(&drainer, NULL, drain_main, &d);
	log_stop();
	dup2(out.saved, STDOUT_FILENO);
	pthread_join(drainer, NULL);
	free(tap_close(&out));
	assert_non_null(strstr(d.text, "line 2999 of the parent"));
	got = strstr(d.text, "line 1500 of the parent");
	assert_non_null(got);
	assert_null(strstr(got + 1, "line 1500 of the parent"));
	assert_null(strstr(d.text, "child"));
	close(d.fd);
	free(d.text);
}

/* A child may have a writer of its own, which has nothing of its parent's to write. */
static int start_again(void)
{
	struct tap t;
	char *got;

	tap_open(&t, STDOUT_FILENO);
	if (log_start(true))
		return 1;
	log_info("t", "a second log");
	log_stop();
	got = tap_close(&t);
	bool right = strstr(got, "\"message\":\"a second log\"}\n") && !strstr(got, "parent");
	free(got);
	return right ? 0 : 2;
}

static void test_a_child_may_start_its_own(void **state)
{
	struct drain d = {.len = 0};
	pthread_t drainer;
	struct tap t;

	tap_open(&t, STDOUT_FILENO);
	assert_int_equal(log_start(false), 0);
	for (unsigned i = 0; i < 3000; i++)
		log_msg(LOG_INFO, "t", "line %u of the parent, and some text behind it", i);
	assert_int_equal(in_child(start_again), 0);
	d.fd = dup(t.in);
	pthread_create(&drainer, NULL, drain_main, &d);
	log_stop();
	dup2(t.saved, STDOUT_FILENO);
	pthread_join(drainer, NULL);
	free(tap_close(&t));
	assert_null(strstr(d.text, "second"));
	close(d.fd);
	free(d.text);
}

static int stop_with_a_stalled_reader(void)
{
	double begin;
	int ends[2];

	if (pipe(ends) || dup2(ends[1], STDOUT_FILENO) < 0 || log_start(false))
		return 1;
	for (unsigned i = 0; i < 5000; i++)
		log_msg(LOG_INFO, "t", "line %u that nobody reads, with some text behind it", i);
	begin = seconds();
	log_stop();
	return seconds() - begin < 5 ? 0 : 2;
}

static void test_stopping_waits_no_longer_than_it_says(void **state)
{
	assert_int_equal(in_child(stop_with_a_stalled_reader), 0);
}

static int lose_the_reader(void)
{
	int ends[2];

	signal(SIGPIPE, SIG_DFL);
	if (pipe(ends) || dup2(ends[1], STDOUT_FILENO) < 0)
		return 1;
	close(ends[0]);
	close(ends[1]);
	if (log_start(false))
		return 1;
	for (unsigned i = 0; i < 100; i++)
		log_msg(LOG_INFO, "t", "line %u", i);
	log_stop();
	return 0;
}

static void test_a_reader_that_goes_away_does_not_end_the_process(void **state)
{
	assert_int_equal(in_child(lose_the_reader), 0);
}

static void test_stopping_what_never_started(void **state)
{
	log_stop();
	log_stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stopping_what_never_started),
		cmocka_unit_test(test_without_a_writer_lines_go_to_stderr),
		cmocka_unit_test(test_shape),
		cmocka_unit_test(test_time),
		cmocka_unit_test(test_long_texts),
		cmocka_unit_test(test_many_fields),
		cmocka_unit_test(test_long_printf_messages_are_cut_too),
		cmocka_unit_test(test_filters),
		cmocka_unit_test(test_filters_are_bounded),
		cmocka_unit_test(test_enabled),
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_lines_of_several_threads_stay_whole),
		cmocka_unit_test(test_a_slow_reader_costs_lines_that_are_counted),
		cmocka_unit_test(test_a_child_has_no_writer_and_repeats_nothing),
		cmocka_unit_test(test_a_child_may_start_its_own),
		cmocka_unit_test(test_stopping_waits_no_longer_than_it_says),
		cmocka_unit_test(test_a_reader_that_goes_away_does_not_end_the_process),
	};
	alarm(300); /* a failure that leaves the output in a pipe would end in silence */
	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
