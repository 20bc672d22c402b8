/* SPDX-License-Identifier: Apache-2.0 */
/* GET /debug/pprof/profile?seconds=N&frequency=HZ: where this process spends its CPU time, as pprof reads it (gzip of
 * proto/profile.proto). A timer of CPU time interrupts whichever thread is running; its call stack is noted in memory of
 * fixed size. Nothing runs when nobody asks. */
#pragma once
#include "admin/admin.h"

enum {
	PROFILE_HZ = 100, /* of CPU time, by whichever thread */
	PROFILE_HZ_MAX = 1000,
	PROFILE_SECONDS = 10,
	PROFILE_SECONDS_MAX = 25, /* the answer has to be there within HTTP_ANSWER_MS */
	PROFILE_SECONDS_ASKED_MAX = 300,
	PROFILE_SAMPLES_MAX = 16384, /* more are counted only */
	PROFILE_DEPTH_MAX = 48,
};

void profile_serve(struct admin *a, const struct http_request *rq, struct http_response *out);

struct profile_request {
	unsigned seconds, hz;
	char cut[128]; /* why it is less than what was asked for, or "" */
};
/* What is asked for, in the bounds of what can be done: pprof asks for 30 seconds unasked. False: no such numbers. */
bool profile_read(const struct http_request *rq, struct profile_request *out);

struct profile_sample {
	unsigned depth;		     /* 0: it is not complete */
	void *pc[PROFILE_DEPTH_MAX]; /* the innermost first */
};

struct profile {
	struct profile_request asked;
	struct profile_sample *sample; /* sorted in place by profile_write() */
	unsigned n;
	unsigned lost; /* for want of room */
	int64_t began_ns, took_ns;
};

/* profile_write.c: `out` is malloc'ed. -ENOMEM. */
int profile_write(struct profile *p, char **out, size_t *len);

/* profile_names.c: what is loaded in this process, and what its functions are called. */
struct profile_object {
	char file[512], build_id[64];  /* hexadecimal, or "" */
	uint64_t start, limit, offset; /* of its code */
	uint64_t base;		       /* what was added to the addresses in the file */
	bool program;		       /* not a library */
};
enum { PROFILE_OBJECTS_MAX = 64 };
unsigned profile_objects(struct profile_object out[PROFILE_OBJECTS_MAX]);
/* The program's own symbols. NULL: it has none, or no memory. */
struct profile_names;
struct profile_names *profile_names_read(void);
void profile_names_free(struct profile_names *n);
/* The function that has this address, or NULL. */
const char *profile_name(const struct profile_names *n, const struct profile_object *o, uint64_t address);
