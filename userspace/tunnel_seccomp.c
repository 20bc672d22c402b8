/* SPDX-License-Identifier: Apache-2.0 */
/* The list. What is on it was seen to be needed by the tunnel, its libraries or libc. Who has taken over the process can
 * use the sockets that it has, open new ones and enter the pods' network namespaces, which is what the tunnel is for; he
 * can start no program, write no file, make no memory executable, and look into or stop no other process. */
#include "tunnel_seccomp.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <sched.h>
#include <seccomp.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41 /* libc names its memory */
#endif

/* Whatever their arguments. */
static const int calls[] = {
	/* bytes */
	SCMP_SYS(read), SCMP_SYS(readv), SCMP_SYS(pread64), SCMP_SYS(write), SCMP_SYS(writev), SCMP_SYS(lseek),
	SCMP_SYS(close), SCMP_SYS(dup), SCMP_SYS(dup3), SCMP_SYS(dup2), SCMP_SYS(fcntl), SCMP_SYS(pipe2),
	/* sockets, for those that socket() may make */
	SCMP_SYS(socketpair), SCMP_SYS(bind), SCMP_SYS(connect), SCMP_SYS(listen), SCMP_SYS(accept), SCMP_SYS(accept4),
	SCMP_SYS(shutdown), SCMP_SYS(getsockname), SCMP_SYS(getpeername), SCMP_SYS(getsockopt), SCMP_SYS(setsockopt),
	SCMP_SYS(sendto), SCMP_SYS(sendmsg), SCMP_SYS(sendmmsg), SCMP_SYS(recvfrom), SCMP_SYS(recvmsg),
	SCMP_SYS(recvmmsg),
	/* events and time */
	SCMP_SYS(epoll_create1), SCMP_SYS(epoll_ctl), SCMP_SYS(epoll_wait), SCMP_SYS(epoll_pwait), SCMP_SYS(poll),
	SCMP_SYS(ppoll), SCMP_SYS(select), SCMP_SYS(pselect6), SCMP_SYS(eventfd2), SCMP_SYS(signalfd4),
	SCMP_SYS(timerfd_create), SCMP_SYS(timerfd_settime), SCMP_SYS(inotify_init1), SCMP_SYS(inotify_add_watch),
	SCMP_SYS(inotify_rm_watch), SCMP_SYS(clock_gettime), SCMP_SYS(clock_getres), SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep), SCMP_SYS(gettimeofday), SCMP_SYS(time), SCMP_SYS(timer_create), SCMP_SYS(timer_settime),
	SCMP_SYS(timer_gettime), SCMP_SYS(timer_getoverrun), SCMP_SYS(timer_delete), SCMP_SYS(setitimer),
	SCMP_SYS(getitimer),
	/* threads and signals */
	SCMP_SYS(futex), SCMP_SYS(set_robust_list), SCMP_SYS(rseq), SCMP_SYS(membarrier), SCMP_SYS(sched_yield),
	SCMP_SYS(sched_getaffinity), SCMP_SYS(sched_getparam), SCMP_SYS(sched_getscheduler), SCMP_SYS(getcpu),
	SCMP_SYS(exit), SCMP_SYS(exit_group), SCMP_SYS(restart_syscall), SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask), SCMP_SYS(rt_sigreturn), SCMP_SYS(rt_sigtimedwait), SCMP_SYS(rt_sigpending),
	SCMP_SYS(sigaltstack),
	/* memory that is never executable */
	SCMP_SYS(brk), SCMP_SYS(munmap), SCMP_SYS(mremap), SCMP_SYS(madvise), SCMP_SYS(mincore), SCMP_SYS(mlock),
	SCMP_SYS(mlock2), SCMP_SYS(munlock),
	/* files: to look at; of the run directory the sockets' names */
	SCMP_SYS(stat), SCMP_SYS(lstat), SCMP_SYS(fstat), SCMP_SYS(newfstatat), SCMP_SYS(statx), SCMP_SYS(statfs),
	SCMP_SYS(fstatfs), SCMP_SYS(access), SCMP_SYS(faccessat), SCMP_SYS(faccessat2), SCMP_SYS(readlink),
	SCMP_SYS(readlinkat), SCMP_SYS(getdents64), SCMP_SYS(getcwd), SCMP_SYS(fadvise64), SCMP_SYS(mkdir),
	SCMP_SYS(mkdirat), SCMP_SYS(unlink), SCMP_SYS(unlinkat), SCMP_SYS(rename), SCMP_SYS(renameat),
	SCMP_SYS(renameat2), SCMP_SYS(chmod), SCMP_SYS(fchmod), SCMP_SYS(fchmodat),
	/* who and where we are */
	SCMP_SYS(getpid), SCMP_SYS(getppid), SCMP_SYS(gettid), SCMP_SYS(getuid), SCMP_SYS(geteuid), SCMP_SYS(getgid),
	SCMP_SYS(getegid), SCMP_SYS(uname), SCMP_SYS(sysinfo), SCMP_SYS(getrandom), SCMP_SYS(getrusage),
	SCMP_SYS(times), SCMP_SYS(getrlimit), SCMP_SYS(setrlimit), SCMP_SYS(capget)};

/* Allowed where an argument's bits are so; `also` is another argument's condition. */
struct condition {
	unsigned arg;
	uint64_t mask, value;
};
struct rule {
	int call;
	struct condition when, also; /* mask 0: none */
};

#define INT UINT64_C(0xffffffff) /* of the register the kernel looks at no more */
#define IS(n, v)                          \
	{                                 \
		n, INT, (uint64_t)(v)&INT \
	}
#define BITS(n, m, v)   \
	{               \
		n, m, v \
	}
enum {
	NEW_SPACES = CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
		     CLONE_NEWNET
};

static const struct rule rules[] = {
	/* files for reading; O_TMPFILE needs one of these modes */
	{SCMP_SYS(open), BITS(1, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)},
	{SCMP_SYS(openat), BITS(2, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY)},
	/* executable only what is a file's: libc loads what looks names up when a name is to be looked up */
	{SCMP_SYS(mmap), BITS(2, PROT_EXEC, 0)},
	{SCMP_SYS(mmap), BITS(2, PROT_WRITE | PROT_EXEC, PROT_EXEC), BITS(3, MAP_ANONYMOUS, 0)},
	{SCMP_SYS(mprotect), BITS(2, PROT_EXEC, 0)},
	/* threads, not processes, and in no namespaces of their own */
	{SCMP_SYS(clone), BITS(0, CLONE_THREAD | NEW_SPACES, CLONE_THREAD)},
	{SCMP_SYS(setns), IS(1, CLONE_NEWNET)},
	{SCMP_SYS(socket), IS(0, AF_UNIX)},
	{SCMP_SYS(socket), IS(0, AF_INET)},
	{SCMP_SYS(socket), IS(0, AF_INET6)},
	{SCMP_SYS(socket), IS(0, AF_NETLINK), IS(2, 0 /* NETLINK_ROUTE: libc asks which addresses there are */)},
	{SCMP_SYS(ioctl), IS(1, FIONREAD)},
	{SCMP_SYS(ioctl), IS(1, FIONBIO)},
	{SCMP_SYS(ioctl), IS(1, SIOCOUTQ)},
	{SCMP_SYS(ioctl), IS(1, NS_GET_NSTYPE)},
	{SCMP_SYS(ioctl), IS(1, TCGETS)}, /* is the output a terminal? */
	{SCMP_SYS(prctl), IS(0, PR_SET_NAME)},
	{SCMP_SYS(prctl), IS(0, PR_GET_NAME)},
	{SCMP_SYS(prctl), IS(0, PR_SET_VMA)},
	{SCMP_SYS(prlimit64), IS(0, 0 /* this process */)},
};

static struct scmp_arg_cmp compare(const struct condition *c)
{
	return (struct scmp_arg_cmp){c->arg, SCMP_CMP_MASKED_EQ, c->mask, c->value};
}

static int rule_add(scmp_filter_ctx f, const struct rule *r)
{
	const struct scmp_arg_cmp when[2] = {compare(&r->when), compare(&r->also)};

	return seccomp_rule_add_array(f, SCMP_ACT_ALLOW, r->call, r->also.mask ? 2 : 1, when);
}

/* Signals to nobody else. */
static int signals_add(scmp_filter_ctx f)
{
	const int send[] = {SCMP_SYS(kill), SCMP_SYS(tgkill)};
	int e = 0;

	for (size_t i = 0; !e && i < sizeof send / sizeof *send; i++)
		e = rule_add(f, &(struct rule){send[i], IS(0, getpid())});
	return e;
}

static int calls_add(scmp_filter_ctx f)
{
	int e = 0;

	for (size_t i = 0; !e && i < sizeof calls / sizeof *calls; i++)
		e = seccomp_rule_add(f, SCMP_ACT_ALLOW, calls[i], 0);
	for (size_t i = 0; !e && i < sizeof rules / sizeof *rules; i++)
		e = rule_add(f, &rules[i]);
	if (!e)
		e = signals_add(f);
	/* Its flags are in memory, where a filter cannot look; with this answer libc takes clone(). */
	return e ? e : seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
}

int seccomp_enter(void)
{
	scmp_filter_ctx f = seccomp_init(SCMP_ACT_ERRNO(EPERM));
	int e;

	if (!f)
		return -ENOMEM;
	e = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1);
	if (!e)
		e = calls_add(f);
	/* Each is worth having, none is needed: the audit line; a tree instead of a long list; no mitigation against code
	 * of strangers, of which there is none here, on kernels that tie it to filters. */
	seccomp_attr_set(f, SCMP_FLTATR_CTL_LOG, 1);
	seccomp_attr_set(f, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	seccomp_attr_set(f, SCMP_FLTATR_CTL_SSB, 1);
	if (!e)
		e = seccomp_load(f);
	seccomp_release(f);
	return e == -ENOSYS || e == -EINVAL ? -EOPNOTSUPP : e;
}
