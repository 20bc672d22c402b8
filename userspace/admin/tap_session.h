/* SPDX-License-Identifier: Apache-2.0 */
/* One tap and its reader, from the question to the end. Private to admin/. */
#pragma once
#include <pthread.h>
#include <sys/types.h>

#include "data/tap.h"

struct tap_session {
	struct data_plane *data;
	int stop; /* readable: it has to end; borrowed */
	pthread_t thread;
	bool used; /* the thread is to be joined */
	bool over; /* atomic: it has nothing more to do */
	int fd;
	pid_t pid;
	uid_t uid;
	struct tap_filter filter;
	char ns[DUMP_NAME_MAX], name[DUMP_NAME_MAX];
	uint64_t records, bytes;
};

/* A thread's: `arg` is the session, with all but what is asked filled in. Its descriptor stays, shut down. */
void *tap_session_main(void *arg);
