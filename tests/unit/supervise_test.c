/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of the supervisor with shell scripts for tunnels: refusal, accidents and their pauses, adoption, upgrades that
 * succeed and that fail, another file in the program's place, the end. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/log.h"
#include "fds.h"
#include "node/process.h"
#include "node/supervise.h"

enum { DEADLINE_MS = 8000, PIDS_MAX = 32 };

static struct {
	struct loop *loop;
	struct supervise *s;
	struct timer deadline, act;
	unsigned starts, enough; /* the loop stops at the start with this number */
	pid_t pid, started[PIDS_MAX];
	int refused;
	unsigned limit_ms;
	bool stopped, late, prove;
	long long at[8];	       /* of the starts, ms */
	char retired[128], ended[128]; /* numbers of starts */
	bool answered, stop_at_answer, stop_at_end;
	int answer;
	char why[SUPERVISE_WHY_MAX];
} rig;

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

static void started(void *arg, pid_t pid)
{
	rig.pid = pid;
	if (rig.starts < PIDS_MAX)
		rig.started[rig.starts] = pid;
	if (rig.starts < 8)
		rig.at[rig.starts] = now_ms();
	if (++rig.starts == rig.enough)
		loop_stop(rig.loop);
}

/* Which start it was, from 1. */
static unsigned number_of(pid_t pid)
{
	for (unsigned i = 0; i < rig.starts && i < PIDS_MAX; i++)
		if (rig.started[i] == pid)
			return i + 1;
	return 0;
}

static void note(char *list, pid_t pid)
{
	snprintf(list + strlen(list), sizeof rig.retired - strlen(list), "%u ", number_of(pid));
}

static void retire(void *arg, pid_t pid)
{
	note(rig.retired, pid);
}

static void ended(void *arg, pid_t pid)
{
	note(rig.ended, pid);
	if (rig.stop_at_end)
		loop_stop(rig.loop);
}

/* Later than in started(): the supervisor knows the tunnel by then. */
static void prove(struct timer *t)
{
	if (rig.prove)
		supervise_serves(rig.s, rig.pid);
}

static void refused(void *arg, int status)
{
	rig.refused = status;
	loop_stop(rig.loop);
}

static void stopped(void *arg)
{
	rig.stopped = true;
	loop_stop(rig.loop);
}

static void too_late(struct timer *t)
{
	rig.late = true;
	loop_stop(rig.loop);
}

static const struct supervise_handler handler = {started, refused, retire, ended, stopped, NULL};

static void rig_open(const char *path, const char *script)
{
	static char *argv[4], *envp[] = {(char *)"PATH=/bin:/usr/bin", NULL};

	memset(&rig, 0, sizeof rig);
	rig.loop = loop_new();
	argv[0] = (char *)"sh";
	argv[1] = (char *)"-c";
	argv[2] = (char *)script;
	rig.s = supervise_new(rig.loop, path, argv, envp, 60000, &handler);
	timer_set(rig.loop, &rig.deadline, DEADLINE_MS, too_late);
}

static void rig_close(void)
{
	assert_false(rig.late);
	supervise_free(rig.s);
	loop_free(rig.loop);
}

static void pass(struct timer *t)
{
	loop_stop(rig.loop);
}

static void run_for(unsigned ms)
{
	timer_set(rig.loop, &rig.act, ms, pass);
	loop_run(rig.loop);
}

static void kill_all(void)
{
	for (unsigned i = 0; i < rig.starts && i < PIDS_MAX; i++)
		if (kill(rig.started[i], SIGKILL) == 0)
			waitpid(rig.started[i], NULL, 0);
}

static const struct {
	const char *name, *script;
	bool proved;
	int refused;	 /* status that ends it */
	unsigned starts; /* else: so many starts are waited for */
} ends[] = {
	{"refuses its configuration", "exit 3", false, 3, 0},
	{"refuses with another status", "exit 78", false, 78, 0},
	{"ends well before it serves: an accident", "exit 0", false, 0, 3},
	{"killed before it serves: an accident", "kill -9 $$", false, 0, 3},
	{"status once one has served: an accident", "sleep 0.1; exit 3", true, 0, 4},
};

static void test_ends(void **state)
{
	for (unsigned i = 0; i < sizeof ends / sizeof *ends; i++) {
		struct supervise_status status;

		print_message("row: %s\n", ends[i].name);
		rig_open("/bin/sh", ends[i].script);
		rig.enough = ends[i].starts;
		rig.prove = ends[i].proved;
		supervise_start(rig.s);
		timer_set(rig.loop, &rig.act, 10, prove);
		loop_run(rig.loop);
		supervise_status(rig.s, &status);
		assert_int_equal(rig.refused, ends[i].refused);
		if (ends[i].starts) {
			assert_int_equal(rig.starts, ends[i].starts);
			assert_int_equal(status.restarts, ends[i].starts - 1);
			assert_int_equal(status.pid, rig.pid);
		}
		/* The pauses double: 100 ms, 200 ms, ... ; none after the one that served. */
		for (unsigned k = 1 + ends[i].proved; k < rig.starts; k++)
			assert_true(rig.at[k] - rig.at[k - 1] >=
				    (SUPERVISE_BACKOFF_MIN_MS << (k - 1 - ends[i].proved)) - 20);
		if (ends[i].starts)
			waitpid(rig.pid, NULL, 0);
		rig_close();
	}
}

static void kill_served(struct timer *t)
{
	supervise_serves(rig.s, rig.pid);
	kill(rig.pid, SIGKILL);
}

/* Those that served are replaced at once, but not for ever. */
static void test_pauses(void **state)
{
	rig_open("/bin/sh", "exec sleep 60");
	supervise_start(rig.s);
	for (unsigned k = 1; k <= SUPERVISE_AT_ONCE + 2; k++) {
		long long at = now_ms(), pause;

		rig.enough = rig.starts + 1;
		timer_set(rig.loop, &rig.act, 10, kill_served);
		loop_run(rig.loop);
		assert_false(rig.late);
		pause = now_ms() - at;
		if (k <= SUPERVISE_AT_ONCE)
			assert_true(pause < 100);
		else
			assert_true(pause >= SUPERVISE_BACKOFF_MIN_MS << (k - SUPERVISE_AT_ONCE - 1));
	}
	kill_all();
	rig_close();
}

static void test_missing(void **state)
{
	struct supervise_status status;

	log_set_filter("off");
	rig_open("/nonexistent/tunnel", "");
	supervise_start(rig.s);
	supervise_status(rig.s, &status);
	assert_int_equal(status.pid, 0);
	timer_set(rig.loop, &rig.deadline, 400, too_late);
	loop_run(rig.loop);
	rig.late = false;
	assert_int_equal(rig.starts, 0);
	rig_close();
}

static void stop_now(struct timer *t)
{
	supervise_stop(rig.s, rig.limit_ms);
	supervise_stop(rig.s, rig.limit_ms); /* a second signal */
}

static const struct {
	const char *name, *script;
	unsigned limit_ms;
	long long least, most; /* ms until it has stopped */
} stops[] = {
	{"ends at SIGTERM", "exec sleep 60", 6000, 0, 3000},
	{"drains first", "trap 'sleep 0.2; exit 0' TERM; while :; do sleep 0.01; done", 6000, 180, 3000},
	{"does not end: killed", "trap '' TERM; while :; do sleep 0.01; done", 300, 280, 3000},
};

static void test_stop(void **state)
{
	for (unsigned i = 0; i < sizeof stops / sizeof *stops; i++) {
		long long took;

		print_message("row: %s\n", stops[i].name);
		rig_open("/bin/sh", stops[i].script);
		rig.limit_ms = stops[i].limit_ms;
		supervise_start(rig.s);
		timer_set(rig.loop, &rig.act, 200, stop_now);
		took = now_ms();
		loop_run(rig.loop);
		took = now_ms() - took - 200;
		assert_true(rig.stopped);
		assert_int_equal(rig.starts, 1);
		assert_true(took >= stops[i].least && took <= stops[i].most);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* nothing is left to wait for */
		rig_close();
	}
}

static void test_stop_without_tunnel(void **state)
{
	rig_open("/bin/sh", "exit 0");
	supervise_stop(rig.s, 100);
	assert_true(rig.stopped);
	supervise_start(rig.s); /* too late */
	assert_int_equal(rig.starts, 0);
	rig_close();
}

/* A process that is not our child: the grandchild of a shell that has ended. */
static pid_t stranger(void)
{
	FILE *p;
	int pid = 0, fd[2];

	assert_int_equal(pipe(fd), 0);
	if (fork() == 0) {
		if (fork() == 0) {
			char text[16];

			setsid();
			snprintf(text, sizeof text, "%d\n", (int)getpid());
			_exit(write(fd[1], text, strlen(text)) < 0 || execl("/bin/sleep", "sleep", "60", NULL));
		}
		_exit(0);
	}
	wait(NULL);
	close(fd[1]);
	p = fdopen(fd[0], "r");
	assert_int_equal(fscanf(p, "%d", &pid), 1);
	fclose(p);
	return pid;
}

static void kill_it(struct timer *t)
{
	kill(rig.pid, SIGKILL);
}

static void test_adopt(void **state)
{
	struct supervise_status status;
	pid_t pid = stranger();

	rig_open("/bin/sh", "exec sleep 60");
	assert_int_equal(supervise_adopt(rig.s, pid, false), 0);
	supervise_start(rig.s); /* one is there */
	supervise_serves(rig.s, pid);
	supervise_status(rig.s, &status);
	assert_int_equal(status.pid, pid);
	assert_true(status.adopted);
	assert_int_equal(rig.starts, 1);
	assert_int_equal(supervise_adopt(rig.s, pid, false), 0); /* it has reconnected */
	assert_int_equal(rig.starts, 1);
	rig.enough = 2;
	timer_set(rig.loop, &rig.act, 10, kill_it);
	loop_run(rig.loop); /* its end is seen, and our own comes in its place */
	assert_int_equal(rig.starts, 2);
	supervise_status(rig.s, &status);
	assert_false(status.adopted);
	assert_int_equal(status.restarts, 1);
	kill(rig.pid, SIGKILL);
	waitpid(rig.pid, NULL, 0);
	rig_close();
}

static void test_adopt_the_dead(void **state)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	rig_open("/bin/sh", "exec sleep 60");
	assert_int_equal(supervise_adopt(rig.s, pid, false), -ESRCH);
	rig_close();
}

/* Two of an earlier keeper, in the middle of its upgrade: 1 is older than 2. What the new keeper learns, in which order,
 * and who serves and who drains in the end. */
enum learn { NOTHING, ONE, ONE_DRAINS, TWO, TWO_DRAINS, ONE_LIVE, TWO_LIVE };
static const struct {
	const char *name;
	enum learn learn[6];
	const char *states; /* of 1 and 2: s starting, S serving, D draining */
	const char *retired;
} found[] = {
	{"the old one, then its successor", {ONE, ONE_LIVE, TWO}, "Ss", ""},
	{"and the successor has all pods", {ONE, ONE_LIVE, TWO, TWO_LIVE}, "DS", "1 "},
	{"the successor says hello first", {TWO, ONE}, "Ss", ""},
	{"and the old one has all pods first", {TWO, ONE, ONE_LIVE}, "Ss", ""},
	{"and the successor has all pods", {TWO, ONE, ONE_LIVE, TWO_LIVE}, "DS", "1 "},
	{"the successor has all pods before the old one comes", {TWO, TWO_LIVE, ONE}, "DS", ""},
	{"which is retired when it has them as well", {TWO, TWO_LIVE, ONE, ONE_LIVE}, "DS", "1 "},
	{"both before either has pods", {ONE, TWO, TWO_LIVE, ONE_LIVE}, "DS", "1 1 "},
	{"the old one drains already", {ONE_DRAINS, TWO, TWO_LIVE}, "DS", ""},
	{"the old one drains, seen last", {TWO, TWO_LIVE, ONE_DRAINS}, "DS", ""},
};

static char state_of(pid_t pid)
{
	struct supervise_status s;

	supervise_status(rig.s, &s);
	for (unsigned i = 0; i < s.n; i++)
		if (s.generation[i].pid == pid)
			return "sSD"[s.generation[i].state];
	return '-';
}

/* A child that the supervisor takes for a stranger: this process reaps it. */
static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(execl("/bin/sleep", "sleep", "60", NULL));
	return pid;
}

static void test_found(void **state)
{
	pid_t pid[2] = {sleeper(), 0};

	assert_true(process_born(pid[0]) > 0);
	while (!pid[1] || process_born(pid[1]) == process_born(pid[0])) { /* in clock ticks */
		if (pid[1]) {
			kill(pid[1], SIGKILL);
			waitpid(pid[1], NULL, 0);
		}
		usleep(11000);
		pid[1] = sleeper();
	}
	for (unsigned i = 0; i < sizeof found / sizeof *found; i++) {
		char states[3] = "";

		print_message("row: %s\n", found[i].name);
		rig_open("/bin/sh", "exec sleep 60");
		rig.starts = 2;
		rig.started[0] = pid[0];
		rig.started[1] = pid[1];
		for (const enum learn *l = found[i].learn; *l != NOTHING; l++) {
			unsigned which = *l == TWO || *l == TWO_DRAINS || *l == TWO_LIVE;

			if (*l == ONE_LIVE || *l == TWO_LIVE)
				supervise_serves(rig.s, pid[which]);
			else
				assert_int_equal(
					supervise_adopt(rig.s, pid[which], *l == ONE_DRAINS || *l == TWO_DRAINS), 0);
		}
		states[0] = state_of(pid[0]);
		states[1] = state_of(pid[1]);
		assert_string_equal(states, found[i].states);
		assert_string_equal(rig.retired, found[i].retired);
		rig_close();
	}
	for (unsigned i = 0; i < 2; i++) {
		kill(pid[i], SIGKILL);
		waitpid(pid[i], NULL, 0);
	}
}

/* The tunnel outlives its supervisor, and has no signal blocked or ignored. */
static void test_outlives(void **state)
{
	sigset_t term, old;
	int status = 0;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, &old);
	signal(SIGPIPE, SIG_IGN);
	rig_open("/bin/sh", "exec sleep 60");
	supervise_start(rig.s);
	sigprocmask(SIG_SETMASK, &old, NULL);
	rig_close();
	assert_int_equal(waitpid(rig.pid, NULL, WNOHANG), 0);
	kill(rig.pid, SIGPIPE);
	waitpid(rig.pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
	rig_open("/bin/sh", "exec sleep 60");
	sigprocmask(SIG_BLOCK, &term, &old);
	supervise_start(rig.s);
	sigprocmask(SIG_SETMASK, &old, NULL);
	kill(rig.pid, SIGTERM);
	waitpid(rig.pid, &status, 0);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	rig_close();
}

/* --- upgrades ------------------------------------------------------------------------------------------- */

static void answered(void *arg, int err, const char *why)
{
	rig.answered = true;
	rig.answer = err;
	snprintf(rig.why, sizeof rig.why, "%s", why);
	if (rig.stop_at_answer)
		loop_stop(rig.loop);
}

/* What the second one of a program does; the first sleeps. */
#define SECOND(what) "if [ -z \"$CULVERT_SUCCEEDS\" ]; then exec sleep 60; fi; " what

enum then { WAIT, SERVES, FAILS, LOST, LOST_SERVES, OLD_KILLED, OLD_KILLED_SERVES, OLD_KILLED_LATE };
static const struct {
	const char *name, *script;
	enum then then; /* what the keeper says of the second one */
	int answer;
	const char *why;    /* part of the answer */
	const char *states; /* of the starts, afterwards */
	const char *retired;
} upgrades[] = {
	{"it serves", SECOND("exec sleep 60"), SERVES, 0, "", "DS", "1 "},
	{"it refuses its configuration", SECOND("exit 3"), WAIT, -ECHILD, "ended with status 3", "S-", ""},
	{"it ends without a status", SECOND("exit 0"), WAIT, -ECHILD, "ended with status 0 before", "S-", ""},
	{"it is killed", SECOND("kill -9 $$"), WAIT, -ECHILD, "signal 9", "S-", ""},
	{"it cannot serve a pod", SECOND("exec sleep 60"), FAILS, -EPROTO, "told to fail", "SD", "2 "},
	{"it is ended though it ignores that", SECOND("trap '' TERM; while :; do sleep 0.01; done"), FAILS, -EPROTO,
	 "told to fail", "SD", "2 "},
	{"it loses its connection", SECOND("exec sleep 60"), LOST, -EPROTO, "lost its connection", "SD", "2 "},
	{"it comes back in time", SECOND("exec sleep 60"), LOST_SERVES, 0, "", "DS", "1 "},
	{"the old one dies meanwhile, it serves", SECOND("exec sleep 60"), OLD_KILLED_SERVES, 0, "", "-S", ""},
	{"both die: the next one starts", SECOND("sleep 0.3; exit 3"), OLD_KILLED, -ECHILD, "ended with status 3",
	 "--s", ""},
	{"the old one dies, and its successor hangs", SECOND("exec sleep 60"), OLD_KILLED_LATE, -ECHILD, "signal 9",
	 "--s", ""},
};

static void test_upgrades(void **state)
{
	for (unsigned i = 0; i < sizeof upgrades / sizeof *upgrades; i++) {
		enum then then = upgrades[i].then;
		struct supervise_status status;
		char states[8] = "";

		print_message("row: %s\n", upgrades[i].name);
		rig_open("/bin/sh", upgrades[i].script);
		supervise_start(rig.s);
		supervise_serves(rig.s, rig.started[0]);
		supervise_upgrade(rig.s, answered, NULL);
		assert_int_equal(rig.starts, 2);
		assert_false(rig.answered);
		if (then >= OLD_KILLED) {
			rig.stop_at_end = true;
			kill(rig.started[0], SIGKILL);
			loop_run(rig.loop);
			rig.stop_at_end = false;
		}
		if (then == LOST || then == LOST_SERVES)
			supervise_lost(rig.s, rig.started[1]);
		if (then == LOST_SERVES)
			run_for(100);
		if (then == SERVES || then == LOST_SERVES || then == OLD_KILLED_SERVES)
			supervise_serves(rig.s, rig.started[1]);
		else if (then == FAILS || then == OLD_KILLED_LATE)
			supervise_fails(rig.s, rig.started[1], "told to fail");
		rig.stop_at_answer = true;
		if (!rig.answered)
			loop_run(rig.loop);
		if (then == OLD_KILLED || then == OLD_KILLED_LATE) {
			rig.enough = 3;
			if (rig.starts < 3)
				loop_run(rig.loop);
		}
		for (unsigned k = 0; k < rig.starts; k++)
			states[k] = state_of(rig.started[k]);
		supervise_status(rig.s, &status);
		assert_int_equal(rig.answer, upgrades[i].answer);
		assert_non_null(strstr(rig.why, upgrades[i].why));
		assert_string_equal(states, upgrades[i].states);
		assert_string_equal(rig.retired, upgrades[i].retired);
		assert_int_equal(status.upgrades, !rig.answer);
		assert_int_equal(status.failures, !!rig.answer);
		assert_string_equal(status.trouble, rig.why);
		assert_false(status.upgrading);
		kill_all();
		rig_close();
	}
}

enum silence { BACK, SILENT, SILENT_FAILS, SILENT_BACK, SILENT_HELD };
static const struct {
	const char *name, *script;
	enum silence what;
	unsigned ms; /* until its end, or the look */
	const char *states, *retired;
	unsigned restarts;
} silences[] = {
	{"it is back in time", "exec sleep 60", BACK, SUPERVISE_SILENT_MS + 500, "S", "", 0},
	{"a successor serves", "exec sleep 60", SILENT, SUPERVISE_SILENT_MS + 500, "DS", "1 ", 1},
	{"it is back then, and drains", "exec sleep 60", SILENT_BACK, SUPERVISE_SILENT_MS + 500, "DS", "1 1 ", 1},
	{"its successor fails: no other at once", SECOND("exit 3"), SILENT_FAILS, SUPERVISE_SILENT_MS + 1500, "S-", "",
	 1},
	{"the end is near: no successor", "exec sleep 60", SILENT_HELD, SUPERVISE_SILENT_MS + 500, "S", "", 0},
};

/* That which serves has lost its connection and does not end. */
static void test_silence(void **state)
{
	for (unsigned i = 0; i < sizeof silences / sizeof *silences; i++) {
		enum silence what = silences[i].what;
		struct supervise_status status;
		char states[8] = "";

		print_message("row: %s\n", silences[i].name);
		rig_open("/bin/sh", silences[i].script);
		supervise_start(rig.s);
		supervise_serves(rig.s, rig.started[0]);
		supervise_lost(rig.s, rig.started[0]);
		supervise_status(rig.s, &status);
		assert_true(status.silent);
		if (what == BACK)
			assert_int_equal(supervise_adopt(rig.s, rig.started[0], false), 0);
		if (what == SILENT_HELD)
			supervise_hold(rig.s);
		run_for(silences[i].ms);
		if (what == SILENT || what == SILENT_BACK) {
			assert_int_equal(rig.starts, 2);
			supervise_serves(rig.s, rig.started[1]);
		}
		if (what == SILENT_BACK) {
			assert_int_equal(supervise_adopt(rig.s, rig.started[0], false), 0);
			supervise_serves(rig.s, rig.started[0]);
		}
		for (unsigned k = 0; k < rig.starts; k++)
			states[k] = state_of(rig.started[k]);
		supervise_status(rig.s, &status);
		assert_string_equal(states, silences[i].states);
		assert_string_equal(rig.retired, silences[i].retired);
		assert_int_equal(status.restarts, silences[i].restarts);
		assert_int_equal(status.silent, what == SILENT_FAILS || what == SILENT_HELD);
		kill_all();
		rig_close();
	}
}

/* A tunnel of an earlier keeper's time that never comes is one that does not answer. */
static void test_silent_from_the_beginning(void **state)
{
	pid_t pid = stranger();

	rig_open("/bin/sh", "exec sleep 60");
	assert_int_equal(supervise_adopt(rig.s, pid, false), 0);
	supervise_lost(rig.s, pid);
	rig.enough = 2;
	loop_run(rig.loop);
	assert_int_equal(rig.starts, 2);
	assert_int_equal(state_of(pid), 'S');
	supervise_serves(rig.s, rig.started[1]);
	assert_int_equal(state_of(pid), 'D');
	kill_all();
	rig_close();
}

static const struct {
	const char *name;
	unsigned before; /* upgrades that succeed */
	bool one_starts, none_serves, no_file;
	int answer;
	const char *why;
} wrong[] = {
	{"another one is under way", 0, true, false, false, -EBUSY, "under way"},
	{"no tunnel serves", 0, false, true, false, -EAGAIN, "no tunnel serves"},
	{"too many drain", SUPERVISE_GENERATIONS_MAX - 1, false, false, false, -E2BIG, "still drain"},
	{"there is no program", 0, false, false, true, -ENOENT, "No such file"},
};

/* A program of our own in a folder of our own. */
static char folder[] = "/tmp/culvert-supervise-XXXXXX", program[64], second[64];

static void install(const char *to, const char *what)
{
	char command[256];

	snprintf(command, sizeof command, "cp %s %s.new && mv %s.new %s", what, to, to, to);
	assert_int_equal(system(command), 0);
}

static void test_wrong(void **state)
{
	for (unsigned i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		print_message("row: %s\n", wrong[i].name);
		install(program, "/bin/sh");
		rig_open(program, "exec sleep 60");
		if (!wrong[i].none_serves) {
			supervise_start(rig.s);
			supervise_serves(rig.s, rig.pid);
		}
		for (unsigned k = 0; k < wrong[i].before; k++) {
			supervise_upgrade(rig.s, NULL, NULL);
			assert_int_equal(rig.starts, k + 2);
			supervise_serves(rig.s, rig.pid);
		}
		if (wrong[i].one_starts)
			supervise_upgrade(rig.s, NULL, NULL);
		if (wrong[i].no_file)
			unlink(program);
		unsigned before = rig.starts;

		supervise_upgrade(rig.s, answered, NULL);
		assert_true(rig.answered);
		assert_int_equal(rig.answer, wrong[i].answer);
		assert_non_null(strstr(rig.why, wrong[i].why));
		assert_int_equal(rig.starts, before);
		kill_all();
		rig_close();
	}
}

/* --- the file ------------------------------------------------------------------------------------------- */

static void start_followed(const char *script)
{
	install(program, "/bin/sh");
	rig_open(program, script);
	assert_int_equal(supervise_follow(rig.s), 0);
	supervise_start(rig.s);
	supervise_serves(rig.s, rig.pid);
}

static const struct {
	const char *name, *command; /* %s: the program */
	unsigned starts;
} changes[] = {
	{"renamed into its place", "cp /bin/sh %1$s.new && mv %1$s.new %1$s", 2},
	{"written in pieces", "rm %1$s; head -c 1000 /bin/sh >%1$s; sleep 0.2; cp /bin/sh %1$s; chmod 755 %1$s", 2},
	{"made by install(1)", "install -m 755 /bin/sh %1$s", 2},
	{"several at once", "for i in 1 2 3; do cp /bin/sh %1$s.new && mv %1$s.new %1$s; done", 2},
	{"another file of the folder", "cp /bin/sh %1$s.other", 1},
	{"only its mode", "chmod 700 %1$s", 1},
	{"no program", "echo no >%1$s.new; chmod 600 %1$s.new; mv %1$s.new %1$s", 1},
	{"it is removed", "rm %1$s", 1},
	{"the folder is made anew", "d=$(dirname %1$s); mv $d $d.old; mkdir $d; cp /bin/sh %1$s; rm -r $d.old", 2},
};

static void test_changes(void **state)
{
	for (unsigned i = 0; i < sizeof changes / sizeof *changes; i++) {
		char command[512];

		print_message("row: %s\n", changes[i].name);
		start_followed("exec sleep 60");
		rig.enough = changes[i].starts > 1 ? changes[i].starts : 0;
		snprintf(command, sizeof command, changes[i].command, program);
		assert_int_equal(system(command), 0);
		if (rig.enough)
			loop_run(rig.loop);
		supervise_serves(rig.s, rig.pid);
		run_for(2 * SUPERVISE_SETTLE_MS); /* and no more */
		assert_int_equal(rig.starts, changes[i].starts);
		kill_all();
		rig_close();
	}
}

/* A file that fails is tried once; what served before is started again when it ends, since the file is known to be bad;
 * the next file is tried. */
static void test_bad_file(void **state)
{
	char command[256];

	start_followed("exec sleep 60");
	snprintf(command, sizeof command, "cp /bin/false %s.new && mv %s.new %s", program, program, program);
	assert_int_equal(system(command), 0);
	rig.stop_at_end = true;
	loop_run(rig.loop);
	rig.stop_at_end = false;
	run_for(2 * SUPERVISE_SETTLE_MS);
	assert_int_equal(rig.starts, 2);
	assert_int_equal(state_of(rig.started[0]), 'S');
	rig.enough = 3;
	kill(rig.started[0], SIGKILL);
	loop_run(rig.loop);
	run_for(100);
	assert_int_equal(rig.starts, 3);
	assert_int_equal(state_of(rig.started[2]), 's');
	supervise_serves(rig.s, rig.started[2]);
	rig.enough = 4;
	install(program, "/bin/sh");
	loop_run(rig.loop);
	supervise_serves(rig.s, rig.started[3]);
	assert_int_equal(state_of(rig.started[2]), 'D');
	assert_int_equal(state_of(rig.started[3]), 'S');
	kill_all();
	rig_close();
}

/* The file was replaced while no keeper ran: the tunnel that is taken over gets a successor. */
static void test_changed_before(void **state)
{
	pid_t pid;

	install(second, "/bin/sleep");
	install(program, "/bin/sh");
	pid = fork();
	if (pid == 0)
		_exit(execl(second, "sleep", "60", NULL));
	usleep(100000);
	rig_open(program, "exec sleep 60");
	assert_int_equal(supervise_follow(rig.s), 0);
	assert_int_equal(supervise_adopt(rig.s, pid, false), 0);
	assert_int_equal(rig.starts, 1);
	supervise_serves(rig.s, pid);
	assert_int_equal(rig.starts, 2);
	supervise_serves(rig.s, rig.started[1]);
	assert_string_equal(rig.retired, "1 ");
	kill_all();
	rig_close();
}

/* Nobody told it to, but it drains: another one starts; not when the end is near. */
static void test_drains_by_itself(void **state)
{
	for (unsigned held = 0; held < 2; held++) {
		rig_open("/bin/sh", "exec sleep 60");
		supervise_start(rig.s);
		supervise_serves(rig.s, rig.pid);
		if (held)
			supervise_hold(rig.s);
		assert_int_equal(supervise_adopt(rig.s, rig.started[0], true), 0);
		assert_int_equal(rig.starts, 2 - held);
		assert_int_equal(state_of(rig.started[0]), 'D');
		kill_all();
		rig_close();
	}
}

static int folder_open(void **state)
{
	if (!mkdtemp(folder))
		return -1;
	snprintf(program, sizeof program, "%s/bin/tunnel", folder);
	snprintf(second, sizeof second, "%s/tunnel-2", folder);
	*strrchr(program, '/') = '\0';
	mkdir(program, 0755);
	program[strlen(program)] = '/';
	return 0;
}

static int folder_close(void **state)
{
	char command[128];

	snprintf(command, sizeof command, "rm -r %s", folder);
	return system(command);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ends),
		cmocka_unit_test(test_pauses),
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_stop),
		cmocka_unit_test(test_stop_without_tunnel),
		cmocka_unit_test(test_adopt),
		cmocka_unit_test(test_adopt_the_dead),
		cmocka_unit_test(test_found),
		cmocka_unit_test(test_outlives),
		cmocka_unit_test(test_upgrades),
		cmocka_unit_test(test_silence),
		cmocka_unit_test(test_silent_from_the_beginning),
		cmocka_unit_test(test_wrong),
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_bad_file),
		cmocka_unit_test(test_changed_before),
		cmocka_unit_test(test_drains_by_itself),
	};

	int fd = (int)syscall(SYS_pidfd_open, getpid(), 0);

	if (fd < 0) {
		printf("skip supervise: no pidfd_open(2) here (%s); valgrind 3.19 does not know it\n", strerror(errno));
		return 0;
	}
	close(fd);
	log_set_filter("off");
	return cmocka_run_group_tests(tests, folder_open, folder_close);
}
