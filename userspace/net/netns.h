/* SPDX-License-Identifier: Apache-2.0 */
/* Network namespaces: entering them per thread, and what identifies one. A thread may stay in a namespace
 * between calls: netns_enter() is a system call only when the thread is elsewhere. A thread that stays keeps the
 * namespace alive, so netns_home() is owed before it is let go. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* Opens /proc/thread-self/ns/net as this thread's home; call once per thread that enters others. 0 or -errno. */
int netns_init_thread(void);
/* `fd` is a namespace descriptor that the caller keeps open; `id` is its inode, which names it. */
int netns_enter(int fd, uint64_t id);
/* Back to where the thread was born. Aborts the process when the kernel refuses: everything that this thread
 * would do from then on would happen in the wrong pod. */
void netns_home(void);
/* Is the calling thread inside the namespace `id` now? */
bool netns_inside(uint64_t id);

struct netns_id {
	uint64_t inode, device;
	uint64_t cookie; /* SO_NETNS_COOKIE: never reused while the machine runs; 0 where it could not be read */
};
/* Checks that `fd` is a network namespace (-EINVAL else) and reads its identity. Enters it for the cookie. */
int netns_identify(int fd, struct netns_id *out);
/* Of the namespace that a socket is in; 0 where it could not be read. */
uint64_t netns_cookie_of(int socket);
/* Opens a path and checks it. Descriptor or -errno. */
int netns_open(const char *path);
/* Looks for namespaces that live, though the names that we knew are gone: once through all processes, then through
 * /run/netns. By inode, or by cookie; 0 where it does not matter, and twice for nothing. Slow: for exceptions. */
struct netns_sought {
	uint64_t inode, cookie;
	int fd; /* out: the caller's; -ENOENT: there is none; any other error: not all could be looked at */
};
void netns_seek(struct netns_sought *sought, unsigned n);
/* The same for one. */
int netns_find(uint64_t inode, uint64_t cookie);
