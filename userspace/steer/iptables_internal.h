/* SPDX-License-Identifier: Apache-2.0 */
/* What the iptables*.c files share: what iptables-save showed, the texts for iptables-restore, and the runner. */
#pragma once
#include "steer/iptables.h"

enum iptables_hook { HOOK_PREROUTING, HOOK_OUTPUT, IPTABLES_HOOKS };
enum iptables_table { TABLE_RAW, TABLE_MANGLE, TABLE_NAT, IPTABLES_TABLES };

extern const char *const iptables_hook_name[IPTABLES_HOOKS];   /* "PREROUTING", ... */
extern const char *const iptables_chain_name[IPTABLES_HOOKS];  /* "ISTIO_PRERT", ... */
extern const char *const iptables_table_name[IPTABLES_TABLES]; /* "raw", ... */

/* What one family of one back end holds. */
struct iptables_found {
	enum iptables_table table; /* the parser's place; IPTABLES_TABLES: a table that we do not use */
	unsigned rules;		   /* in all tables, everybody's */
	struct {
		bool ours, others; /* our chain is there; the hook's own chain holds rules of others or a policy */
		unsigned jumps;	   /* from the hook to our chain, */
		unsigned rules;	   /* and its rules */
	} at[IPTABLES_TABLES][IPTABLES_HOOKS];
};
/* One line of iptables-save. `arg` is the struct iptables_found, zeroed before the first. */
void iptables_read_line(void *arg, const char *line);
bool iptables_holds(const struct iptables_found *f, enum iptables_table t);
bool iptables_holds_any(const struct iptables_found *f);
/* Has each of our chains what `c` needs at least: a jump to it, and as many rules? The table where not, else
 * IPTABLES_TABLES. */
enum iptables_table iptables_lacks(const struct iptables_found *f, const struct steer_config *c, bool v6);

enum iptables_backend { LEGACY, NFT, PLAIN, BACKENDS };
enum { V4, V6, FAMILIES };

/* What all of them hold (iptables_survey.c). */
struct iptables_survey {
	bool family[FAMILIES];
	bool works[BACKENDS]; /* it was asked and answered */
	struct iptables_found found[BACKENDS][FAMILIES];
};
/* Of the namespace of the calling thread. Fails when it cannot be known what is there: no program works, or there was no
 * time. */
int iptables_look(struct iptables_survey *s, bool ipv6, int64_t deadline, char why[STEER_WHY_MAX]);
bool iptables_survey_holds(const struct iptables_survey *s, enum iptables_backend b);
bool iptables_survey_holds_any(const struct iptables_survey *s);
int iptables_enter(int fd, const struct netns_id *ns, bool *was_there, char why[STEER_WHY_MAX]);
void iptables_leave(bool was_there);
bool iptables_has_ipv6(void);
bool iptables_wants_ipv6(void); /* it is not switched off on lo */
/* Writes that this cannot be done, and why, if `e` says so; returns `e`. */
int iptables_say(int e, const char *what, char why[STEER_WHY_MAX]);

enum { IPTABLES_TEXT_MAX = 16384 };
struct iptables_text {
	size_t len;
	bool overflow;
	char s[IPTABLES_TEXT_MAX];
};
/* The inputs that turn `f` into the rules of `c`, end new captures, and remove what is ours. */
void iptables_write_rules(struct iptables_text *t, const struct iptables_found *f, const struct steer_config *c,
			  bool v6);
void iptables_write_stop(struct iptables_text *t, const struct iptables_found *f);
void iptables_write_removal(struct iptables_text *t, const struct iptables_found *f);
/* Removes hooks that we leave empty; only iptables-nft can. Empty text: nothing to do. */
void iptables_write_tidying(struct iptables_text *t, const struct iptables_found *f);

/* Runs a program (looked up in the directories for system programs, then PATH) in the namespace where the thread
 * is. It reads `input`; `line`, when set, gets each line that it prints. 0; -ENOENT: no such program; -ETIMEDOUT: it
 * was killed at `deadline_ms` (CLOCK_MONOTONIC); -EPROTO: it failed, and `why` is what it said; or another -errno. */
int iptables_run(const char *const argv[], const char *input, size_t len, void (*line)(void *arg, const char *line),
		 void *arg, int64_t deadline_ms, char why[STEER_WHY_MAX]);
