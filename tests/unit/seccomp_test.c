/* SPDX-License-Identifier: Apache-2.0 */
/* The tunnel's filter of system calls: each row in a process of its own that has put it on and then tries. And what
 * rights_keep() leaves. */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <pthread.h>
#include <netdb.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "base/log.h"
#include "base/rights.h"
#include "loop/loop.h"
#include "net/resolve.h"
#include "tunnel_seccomp.c"

static char folder[] = "/tmp/culvert-seccomp-XXXXXX";

static int outcome(long result)
{
	return result < 0 ? errno : 0;
}

/* --- what is refused ------------------------------------------------------------------------------------ */

static int run_program(void)
{
	char *argv[] = {(char *)"true", NULL};

	return outcome(execv("/bin/true", argv));
}

static int run_by_fd(void)
{
	int fd = open("/bin/true", O_PATH | O_CLOEXEC);
	char *argv[] = {(char *)"true", NULL};

	return outcome(syscall(SYS_execveat, fd, "", argv, NULL, AT_EMPTY_PATH));
}

static int new_process(void)
{
	pid_t pid = fork();

	if (pid == 0)
		_exit(0);
	return outcome(pid);
}

static int new_process_by_clone3(void)
{
	uint64_t args[8] = {0};

	args[4] = SIGCHLD;
	return outcome(syscall(SYS_clone3, args, sizeof args)) == ENOSYS ? EPERM : 0;
}

static int be_traced(void)
{
	return outcome(ptrace(PTRACE_TRACEME, 0, 0, 0));
}

static int read_another(void)
{
	return outcome(syscall(SYS_process_vm_readv, getppid(), NULL, 0, NULL, 0, 0));
}

static int do_mount(void)
{
	return outcome(mount("none", folder, "tmpfs", 0, NULL));
}

static int do_umount(void)
{
	return outcome(umount2(folder, 0));
}

static int do_chroot(void)
{
	return outcome(chroot(folder));
}

static int load_bpf(void)
{
	return outcome(syscall(SYS_bpf, 0, NULL, 0));
}

static int load_module(void)
{
	return outcome(syscall(SYS_finit_module, -1, "", 0));
}

static int use_keyring(void)
{
	return outcome(syscall(SYS_keyctl, 0, -3, 0));
}

static int open_by_handle(void)
{
	return outcome(syscall(SYS_open_by_handle_at, AT_FDCWD, NULL, O_RDONLY));
}

static int use_io_uring(void)
{
	return outcome(syscall(SYS_io_uring_setup, 1, NULL));
}

static int watch_performance(void)
{
	return outcome(syscall(SYS_perf_event_open, NULL, 0, -1, -1, 0));
}

static int new_user_space(void)
{
	return outcome(unshare(CLONE_NEWUSER));
}

static int enter_mounts(void)
{
	return outcome(setns(open("/proc/self/ns/mnt", O_RDONLY), CLONE_NEWNS));
}

static int enter_anything(void)
{
	return outcome(setns(open("/proc/self/ns/net", O_RDONLY), 0));
}

static int make_file(void)
{
	char path[64];

	snprintf(path, sizeof path, "%s/new", folder);
	return outcome(open(path, O_CREAT | O_RDONLY, 0600));
}

static int write_file(void)
{
	return outcome(open("/dev/null", O_WRONLY));
}

static int write_both_ways(void)
{
	return outcome(open("/dev/null", O_RDWR));
}

static int make_unnamed_file(void)
{
	return outcome(open("/tmp", O_TMPFILE | O_RDWR, 0600));
}

static int make_memory_file(void)
{
	return outcome(syscall(SYS_memfd_create, "x", 0));
}

static int make_link(void)
{
	char path[64];

	snprintf(path, sizeof path, "%s/link", folder);
	return outcome(symlink("/etc/passwd", path));
}

static int make_executable(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return outcome(mprotect(p, 4096, PROT_READ | PROT_EXEC));
}

static int map_at(int prot, int flags, int fd)
{
	void *p = mmap(NULL, 4096, prot, flags, fd, 0);

	return p == MAP_FAILED ? errno : 0;
}

static int map_writable_code(void)
{
	return map_at(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int map_code_of_no_file(void)
{
	return map_at(PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static int map_writable_code_of_a_file(void)
{
	return map_at(PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE, open("/bin/true", O_RDONLY));
}

static int packet_socket(void)
{
	return outcome(socket(AF_PACKET, SOCK_RAW, 0));
}

static int crypto_socket(void)
{
	return outcome(socket(AF_ALG, SOCK_SEQPACKET, 0));
}

static int firewall_socket(void)
{
	return outcome(socket(AF_NETLINK, SOCK_RAW, 12 /* NETLINK_NETFILTER */));
}

static int kill_another(void)
{
	return outcome(kill(getppid(), 0));
}

static int kill_all(void)
{
	return outcome(kill(-1, 0));
}

static int change_user(void)
{
	return outcome(setuid(0));
}

static int change_limits_of_another(void)
{
	return outcome(syscall(SYS_prlimit64, getppid(), 0, NULL, NULL));
}

static int be_dumpable(void)
{
	return outcome(prctl(PR_SET_DUMPABLE, 1));
}

static int type_into_terminal(void)
{
	return outcome(ioctl(0, TIOCSTI, "x"));
}

/* --- what works ----------------------------------------------------------------------------------------- */

static int read_file(void)
{
	return outcome(open("/etc/passwd", O_RDONLY | O_CLOEXEC));
}

static void *do_nothing(void *arg)
{
	pthread_setname_np(pthread_self(), "named");
	return arg;
}

static int start_thread(void)
{
	pthread_t t;
	int e = pthread_create(&t, NULL, do_nothing, NULL);

	return e ? e : pthread_join(t, NULL);
}

static void *thread_of_before(void *arg)
{
	int *gate = arg;
	char c;

	if (read(gate[0], &c, 1) == 1)
		gate[2] = write_file();
	return NULL;
}

static void resolved(void *arg, const struct endpoint *at, unsigned n, const char *why)
{
	*(unsigned *)arg = n ? n : 1000;
}

static unsigned answers;
static struct loop *waiting;

static void answered(void *arg, bool about_to_sleep)
{
	if (answers)
		loop_stop(waiting);
}

/* libc loads the module that looks it up only now. */
static int look_up_name(void)
{
	waiting = loop_new();
	loop_on_turn(waiting, answered, NULL);
	if (!resolve_new(waiting, "localhost", 80, resolved, &answers))
		return ENOMEM;
	loop_run(waiting);
	return answers == 1000 ? ENOENT : 0;
}

static int open_sockets(void)
{
	static const struct {
		int family, type;
	} all[] = {{AF_INET, SOCK_STREAM}, {AF_INET6, SOCK_STREAM}, {AF_INET, SOCK_DGRAM}, {AF_UNIX, SOCK_SEQPACKET}};
	int e = 0;

	for (size_t i = 0; !e && i < sizeof all / sizeof *all; i++)
		e = outcome(socket(all[i].family, all[i].type | SOCK_CLOEXEC, 0));
	return e;
}

static int serve_in_run_folder(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	char next[sizeof at.sun_path];
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(at.sun_path, sizeof at.sun_path, "%s/a", folder);
	snprintf(next, sizeof next, "%s/b", folder);
	if (bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || chmod(at.sun_path, 0600) < 0 || listen(fd, 1) < 0 ||
	    rename(at.sun_path, next) < 0)
		return errno;
	return outcome(unlink(next));
}

static int watch_folder(void)
{
	return outcome(inotify_add_watch(inotify_init1(IN_CLOEXEC), folder, IN_CLOSE_WRITE));
}

static int signal_self(void)
{
	return outcome(kill(getpid(), 0)) || outcome(raise(SIGCONT));
}

/* Without the right to: that is the kernel's answer, not the filter's. */
static int enter_network(void)
{
	int e = outcome(setns(open("/proc/self/ns/net", O_RDONLY), CLONE_NEWNET));

	return geteuid() ? 0 : e;
}

static int log_lines(void)
{
	if (log_start(true) < 0)
		return ENOMEM;
	log_info("test", "a line");
	log_stop();
	return 0;
}

static int use_memory(void)
{
	char *p = malloc(64 << 20);

	memset(p, 1, 64 << 20);
	p = realloc(p, 128 << 20);
	free(p);
	return p ? 0 : ENOMEM;
}

static const struct row {
	const char *name;
	int (*try)(void);
	int error;
} rows[] = {
	{"a program is not started", run_program, EPERM},
	{"nor by its descriptor", run_by_fd, EPERM},
	{"nor a process", new_process, EPERM},
	{"nor by the newer call", new_process_by_clone3, EPERM},
	{"tracing", be_traced, EPERM},
	{"another process's memory", read_another, EPERM},
	{"mount", do_mount, EPERM},
	{"umount", do_umount, EPERM},
	{"chroot", do_chroot, EPERM},
	{"bpf", load_bpf, EPERM},
	{"a kernel module", load_module, EPERM},
	{"the keyring", use_keyring, EPERM},
	{"a file by its handle", open_by_handle, EPERM},
	{"io_uring", use_io_uring, EPERM},
	{"perf events", watch_performance, EPERM},
	{"a user namespace", new_user_space, EPERM},
	{"another mount namespace", enter_mounts, EPERM},
	{"a namespace of any kind", enter_anything, EPERM},
	{"a new file", make_file, EPERM},
	{"a file to write", write_file, EPERM},
	{"a file to read and write", write_both_ways, EPERM},
	{"a file without a name", make_unnamed_file, EPERM},
	{"a file of memory", make_memory_file, EPERM},
	{"a link", make_link, EPERM},
	{"memory made executable", make_executable, EPERM},
	{"memory to write and execute", map_writable_code, EPERM},
	{"executable memory of no file", map_code_of_no_file, EPERM},
	{"a file's memory to write and execute", map_writable_code_of_a_file, EPERM},
	{"a packet socket", packet_socket, EPERM},
	{"a crypto socket", crypto_socket, EPERM},
	{"a firewall socket", firewall_socket, EPERM},
	{"a signal to another", kill_another, EPERM},
	{"a signal to all", kill_all, EPERM},
	{"another user", change_user, EPERM},
	{"another's limits", change_limits_of_another, EPERM},
	{"dumps again", be_dumpable, EPERM},
	{"keys into a terminal", type_into_terminal, EPERM},
	{"a file is read", read_file, 0},
	{"a thread", start_thread, 0},
	{"a name is looked up", look_up_name, 0},
	{"sockets", open_sockets, 0},
	{"a socket's name in the run folder", serve_in_run_folder, 0},
	{"a folder is watched", watch_folder, 0},
	{"a signal to oneself", signal_self, 0},
	{"a network namespace", enter_network, 0},
	{"log lines", log_lines, 0},
	{"memory", use_memory, 0},
};

/* What `try` came to behind the filter. */
static int in_child(int (*try)(void))
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		alarm(30);
		_exit(seccomp_enter() == 0 ? try() : 255);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

static bool under_checker(void)
{
	const char *preload = getenv("LD_PRELOAD");

#if defined(__SANITIZE_ADDRESS__)
	return true;
#endif
	return preload && strstr(preload, "vgpreload");
}

static void test_rows(void **state)
{
	unsigned wrong = 0;

	if (under_checker())
		skip();
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		int got = in_child(rows[i].try);

		if (got == rows[i].error)
			continue;
		print_error("%s: %d (%s)\n", rows[i].name, got, strerror(got));
		wrong++;
	}
	assert_int_equal(wrong, 0);
}

static int other_thread(void)
{
	int gate[3] = {-1, -1, 0};
	pthread_t t;

	if (pipe(gate) < 0 || pthread_create(&t, NULL, thread_of_before, gate))
		return 1;
	if (seccomp_enter() < 0 || write(gate[1], "x", 1) != 1)
		return 2;
	pthread_join(t, NULL);
	return gate[2];
}

/* Threads that were there before have it as well. */
static void test_all_threads(void **state)
{
	pid_t pid;
	int status;

	if (under_checker())
		skip();
	pid = fork();
	if (pid == 0)
		_exit(other_thread());
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), EPERM);
}

static int keep_some(void)
{
	const int kept[] = {CAP_NET_RAW, CAP_SYS_ADMIN};

	if (rights_keep(kept, 2) < 0)
		return 1;
	if (!rights_has(CAP_NET_RAW) || !rights_has(CAP_SYS_ADMIN))
		return 2;
	if (rights_has(CAP_SYS_PTRACE) || rights_has(CAP_DAC_OVERRIDE) || rights_has(CAP_SETPCAP))
		return 3;
	if (prctl(PR_CAPBSET_READ, CAP_SYS_PTRACE) != 0 || prctl(PR_CAPBSET_READ, CAP_NET_RAW) != 1)
		return 4;
	return rights_keep(kept, 1) < 0 || rights_has(CAP_SYS_ADMIN) ? 5 : 0;
}

/* Who has none is left with none. */
static int keep_what_is_not_there(void)
{
	const int none[] = {CAP_NET_RAW}, some[] = {CAP_NET_RAW, CAP_SYS_ADMIN};

	if (rights_keep(none, 0) < 0 || rights_keep(some, 2) < 0)
		return 1;
	return rights_has(CAP_NET_RAW) ? 2 : 0;
}

static void test_rights(void **state)
{
	int (*const tries[])(void) = {keep_some, keep_what_is_not_there};

	if (geteuid())
		skip();
	for (size_t i = 0; i < 2; i++) {
		pid_t pid = fork();
		int status;

		if (pid == 0)
			_exit(tries[i]());
		assert_int_equal(waitpid(pid, &status, 0), pid);
		assert_true(WIFEXITED(status));
		assert_int_equal(WEXITSTATUS(status), 0);
	}
}

static int setup(void **state)
{
	return !mkdtemp(folder);
}

static int teardown(void **state)
{
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_rows),
		cmocka_unit_test(test_all_threads),
		cmocka_unit_test(test_rights),
	};

	return cmocka_run_group_tests_name("seccomp", tests, setup, teardown);
}
