/* SPDX-License-Identifier: Apache-2.0 */
/* Pins of a pod, PIN_DIR/v1/UID/NAME: what outlives the keeper. The folder is locked while a process steers the pod.
 * Names: map-NAME, lookup, ingress-IFINDEX, egress-IFINDEX (a link, or below Linux 6.6 the filter's program),
 * qdisc-IFINDEX (a program as well: the clsact qdisc there is ours). */
#pragma once
#include <limits.h>
#include <stdbool.h>

#include "steer/steer.h"

enum {
	PIN_NAME_MAX = 32,
	PIN_PATH_MAX = PATH_MAX,
};

enum pin_kind { PIN_MAP, PIN_PROG, PIN_LINK };

#define PIN_LOOKUP   "lookup"
#define PIN_EXISTING "map-existing"

struct pins {
	char path[PIN_PATH_MAX];
	int dir; /* locked; -1: closed */
	bool existed;
};

/* Mounts bpffs where it is missing and makes PIN_DIR/v1. */
int pins_mount(const char *pin_dir, char why[STEER_WHY_MAX]);

/* Opens and locks PIN_DIR/v1/UID, making it when missing. -EBUSY: another process steers this pod. -EEXIST: there is
 * something in it that we did not make (owner, names). */
int pins_open(struct pins *p, const char *pin_dir, const char *uid, char why[STEER_WHY_MAX]);
/* Closes; what is pinned stays. */
void pins_close(struct pins *p);
/* Removes every pin and the folder, and closes. */
void pins_remove(struct pins *p);
/* What holds up another namespace than it is for now goes on doing so as PIN_DIR/v1/UID_INODE, which nobody knows: it is
 * collected with its namespace. Closes. */
int pins_set_aside(struct pins *p, const char *pin_dir, const char *uid, uint64_t inode, char why[STEER_WHY_MAX]);

/* Is the folder still the one that its name leads to? */
bool pins_hold(const struct pins *p);
bool pin_there(const struct pins *p, const char *name);
/* A descriptor; -ENOENT; -EEXIST when it is of another kind. */
int pin_get(const struct pins *p, const char *name, enum pin_kind kind, char why[STEER_WHY_MAX]);
/* Puts `fd` there; what was there is replaced atomically. */
int pin_put(const struct pins *p, const char *name, int fd, char why[STEER_WHY_MAX]);
void pin_drop(const struct pins *p, const char *name);
/* Calls `each` for every name; it may drop that pin. */
void pins_each(const struct pins *p, void (*each)(void *arg, const char *name), void *arg);

/* pin_drop() for pins_each(). */
void pins_drop_one(void *arg, const char *name);

/* Also for the node's own pins. */
int pin_kind_of(int fd, enum pin_kind *kind);
int pin_get_path(const char *path, enum pin_kind kind, char why[STEER_WHY_MAX]);
int pin_put_path(const char *path, int fd, char why[STEER_WHY_MAX]);
