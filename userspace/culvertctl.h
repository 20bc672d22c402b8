/* SPDX-License-Identifier: Apache-2.0 */
/* Parts of culvertctl: requests to the sockets of a run directory, and what is shown of the answers. */
#pragma once
#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

enum {
	CALL_DEADLINE_MS = 30000,	   /* for one request, */
	CALL_STATUS_MS = 3000,		   /* and for one of those that a status or a list is made of */
	CALL_PROGRESS_S = 2,		   /* between two lines about what is waited for */
	CALL_OPERATION_MS = 360000,	   /* for an operation to end; the keeper has deadlines of its own */
	CALL_BODY_MAX = 512 * 1024 * 1024, /* a dump of 50,000 workloads has 50 MB */
	CALL_WHY_MAX = 1280,
};

/* What the tunnel is asked for: all, or all but the objects of the mesh. An earlier tunnel answers both with all, and
 * does not say of its pods whether the mesh knows them. */
#define DUMP_WHOLE "/config_dump"
#define DUMP_BRIEF "/config_dump?mesh=counts"

struct call_answer {
	int status;
	char *body; /* malloc'ed, terminated */
	size_t len;
};

/* One HTTP request over RUN_DIR/SOCKET. `body` may be NULL. A GET has CALL_STATUS_MS until its answer begins, anything
 * CALL_DEADLINE_MS in all. 0, or -errno with a line in `why`. */
int call(const char *run_dir, const char *socket, const char *method, const char *path, const char *body,
	 struct call_answer *out, char why[CALL_WHY_MAX]);
/* The same, for JSON; a status of 400 or more is an error that says what the answer said. NULL with `why`. */
json_t *call_json(const char *run_dir, const char *socket, const char *method, const char *path, json_t *body,
		  char why[CALL_WHY_MAX]);
/* Starts an operation of the keeper and waits for its end. 0 or -errno with a line in `why`. Takes `body` over.
 * `progress`: said on stderr while it takes long; NULL: nothing is. */
int call_operation(const char *run_dir, const char *path, json_t *body, const char *progress, char why[CALL_WHY_MAX]);

/* A connection to RUN_DIR/SOCKET, or -errno with a line in `why`. */
int call_dial(const char *run_dir, const char *socket, char why[CALL_WHY_MAX]);

/* Brings the pod of a namespace into the mesh; takes one out, by the path of its namespace, uid or NAMESPACE/NAME. 0 or
 * -errno with a line in `why`. */
int enrol_run(const char *run_dir, const char *netns, const char *identity, char why[CALL_WHY_MAX]);
int unenrol_run(const char *run_dir, const char *pod, char why[CALL_WHY_MAX]);

/* Asks every tunnel that drains; its answer is borrowed. */
int draining_each(const char *run_dir, const char *path, void (*each)(void *arg, int process, json_t *answer),
		  void *arg);
/* Adds "connections" to those of the keeper's list that drain. */
void draining_connections(const char *run_dir, json_t *generations);
/* Starts the tunnel anew; `wait`: until the older ones have ended. What came of it, or NULL with a line in `why`. */
json_t *upgrade_run(const char *run_dir, bool wait, char why[CALL_WHY_MAX]);

/* Checks the node and prints what it found. 1: there are problems; -errno: nothing was printed. */
int doctor(const char *run_dir, bool json, char why[CALL_WHY_MAX]);

/* Adds "healthy" and "problems", each with what is wrong and what to do. Is it well? */
bool health_add(json_t *status);
void show_health(json_t *status);
/* Adds "inMesh" to each of the keeper's pods of which the tunnel says it. NAMESPACE/NAME/SERVICEACCOUNT of those that
 * the mesh does not know. */
json_t *strangers_of(json_t *pods, json_t *dump);

void show_status(json_t *keeper, bool verbose);
void show_pods(json_t *keeper);
void show_drops(json_t *keeper, bool all);
void show_workloads(json_t *dump);
void show_connections(json_t *dump);
void show_upgrade(json_t *result);
void show_certificates(json_t *dump);
void show_crl(json_t *crl); /* a line of the status; nothing where none are in use */

/* What a connection of `src` to `dst` would get: a new reference, or NULL with a line in `why`. */
json_t *trace_ask(const char *run_dir, const char *src, const char *dst, const char *port, char why[CALL_WHY_MAX]);
void show_trace(json_t *trace);
/* The last failures, of tunnels that drain as well; of one pod (NAME or NAMESPACE/NAME) if it is not NULL, and not older than
 * `since` ("10m") if that is not NULL. A new reference, or NULL with a line in `why`. */
json_t *failures_ask(const char *run_dir, const char *pod, const char *since, char why[CALL_WHY_MAX]);
void show_failures(json_t *failures);
/* By which lines of keeper and tunnel can be told apart; a row of the tests compares with what is used. */
#define LOG_TARGETS                                                                                    \
	"access ca certs cni crl dns drain enrol http install keeper kube local log pods state steer " \
	"supervise tap tunnel watch worker xds zds"
/* What both log; `filter`: set first, or gone back to what the start had with `reset`. NULL with a line in `why`. */
json_t *log_ask(const char *run_dir, const char *filter, bool reset, char why[CALL_WHY_MAX]);
void show_log(json_t *filters);
/* Shows what a pod's connections carry until the tunnel ends or somebody stops it; `peer` may be NULL. `file`: as pcapng into
 * it ("-": standard output), and nothing is shown; `json`: lines of headers/tap_abi.h. -errno with a line in `why`. */
int tap_run(const char *run_dir, const char *pod, const char *peer, const char *file, bool json,
	    char why[CALL_WHY_MAX]);

/* For --json: what the tunnel's dump says of these, with the dump's own names. New references. */
json_t *pick_tunnel(json_t *dump);
json_t *pick_workloads(json_t *dump);
json_t *pick_connections(json_t *dump);
/* Adds those of a tunnel that drains, with its "process". */
void pick_draining(void *connections, int process, json_t *dump);
json_t *pick_certificates(json_t *dump);

/* Tables and fields, for what shows them. Texts of absent fields are "". */
enum { COLUMNS_MAX = 9, CELL_MAX = 512 };
struct table {
	unsigned columns, n, cap;
	size_t width[COLUMNS_MAX];
	char **cell; /* row by row, the heading first */
};
struct table table_begin(unsigned columns, const char *const *headings);
void table_add(struct table *t, const char *text);
void table_cell(struct table *t, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Prints and frees it; `none` stands for a table without rows. */
void table_end(struct table *t, const char *none);
const char *text_of(json_t *o, const char *key);
long long number_of(json_t *o, const char *key);
bool flag_of(json_t *o, const char *key);
/* "a,b"; objects by their field `key`. */
const char *joined(json_t *list, const char *key, char buf[CELL_MAX]);
const char *duration(long long seconds, char buf[32]);
