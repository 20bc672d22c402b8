// SPDX-License-Identifier: Apache-2.0
/* Connections that a pod had when it was enrolled. They stay direct until they end, and are counted by their cookies,
 * which a pinned map keeps over restarts of the keeper; or, when asked, they are reset as istio-cni would. */
#include <bpf/bpf.h>
#include <stdio.h>
#include <unistd.h>

#include "base/log.h"
#include "steer/diag.h"
#include "steer/steer_internal.h"

struct note {
	struct steer_pod *p;
	int map, spared, e;
	unsigned n, reset;
};

/* The pod's traffic to itself is none of ours, and neither is the agent's. */
static bool leaves_the_pod(const struct steer_pod *p, const struct diag_socket *s)
{
	return (s->mark & CULVERT_MARK_MASK) != CULVERT_MARK_AGENT && !addr_is_loopback(&s->peer) &&
	       !addr_eq(&s->peer, &s->local) && !pod_has_addr(p, &s->peer);
}

static bool on_socket(void *arg, const struct diag_socket *s)
{
	struct note *n = arg;
	uint32_t one = 1;

	if (!leaves_the_pod(n->p, s) || s->flow == STEER_FLOW_CAPTURED)
		return true;
	n->n++;
	if (n->p->config.reset_existing) {
		n->e = diag_destroy(s);
		n->reset += !n->e;
	} else {
		/* A full map costs a number in `status`, nothing else. */
		bpf_map_update_elem(n->map, &s->cookie, &one, BPF_ANY);
	}
	return !n->e;
}

static int read_number(FILE *f, const char *format, unsigned *sum)
{
	char line[256];
	unsigned a, b = 0;

	while (fgets(line, sizeof line, f))
		if (sscanf(line, format, &a, &b) >= 1) {
			*sum += a + b;
			return 0;
		}
	return -ENODATA;
}

/* TCP sockets of the namespace in any state. */
static int count_sockets(unsigned *n)
{
	static const char *const paths[] = {"/proc/thread-self/net/sockstat", "/proc/thread-self/net/sockstat6"};
	static const char *const formats[] = {"TCP: inuse %u orphan %*u tw %u", "TCP6: inuse %u"};
	int e = 0;

	*n = 0;
	for (unsigned i = 0; i < 2 && !e; i++) {
		FILE *f = fopen(paths[i], "re");

		e = f ? read_number(f, formats[i], n) : i && errno == ENOENT ? 0 : -errno; /* there may be no IPv6 */
		if (f)
			fclose(f);
	}
	return e;
}

/* To list the sockets of a namespace the kernel walks through those of the whole machine, a millisecond or more; to
 * count them it does not. */
static bool has_only(const struct steer_sockets *ours)
{
	unsigned listeners = 0, n;

	for (unsigned i = 0; i < STEER_SOCKETS; i++)
		listeners += ours->fd[i] >= 0 &&
			     (i == STEER_TCP15001 || i == STEER_TCP15006 || i == STEER_TCP15008 || i == STEER_TCP15053);
	return count_sockets(&n) == 0 && n <= listeners;
}

int existing_pin(const struct steer_pod *p, char why[STEER_WHY_MAX])
{
	return p->existing < 0 ? 0 : pin_put(&p->pins, PIN_EXISTING, p->existing, why);
}

static int cookies_make(const char *name, char why[STEER_WHY_MAX])
{
	LIBBPF_OPTS(bpf_map_create_opts, opts, .map_flags = BPF_F_NO_PREALLOC);
	int fd = bpf_map_create(BPF_MAP_TYPE_HASH, name, sizeof(uint64_t), sizeof(uint32_t), STEER_ABI_EXISTING, &opts);

	return fd < 0 ? failed(why, fd, "cannot make the BPF map %s", name) : fd;
}

static int map_make(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int fd = cookies_make("existing", why);

	if (fd < 0)
		return fd;
	p->existing = fd;
	return existing_pin(p, why);
}

int existing_note(struct steer_pod *p, const struct steer_sockets *ours, char why[STEER_WHY_MAX])
{
	struct note note = {.p = p};
	char ignored[STEER_WHY_MAX];
	int e;

	p->existing = pin_get(&p->pins, PIN_EXISTING, PIN_MAP, ignored);
	if (p->existing >= 0)
		return 0; /* noted by a predecessor */
	e = map_make(p, why);
	if (e)
		return e;
	note.map = p->existing;
	if (!has_only(ours))
		e = diag_each(p->steer->shared.map[MAP_FLOWS], DIAG_CONNECTED, on_socket, &note);
	if (!e)
		e = note.e;
	p->idle = !e && !note.n;
	if (note.reset)
		log_info(STEER_LOG, "pod %s: %u connections older than enrolment were reset", p->uid, note.reset);
	return e ? failed(why, e, "cannot read the pod's connections") : 0;
}

struct tally {
	int map;
	unsigned n;
};

static bool on_counted(void *arg, const struct diag_socket *s)
{
	struct tally *t = arg;
	uint32_t one;

	t->n += bpf_map_lookup_elem(t->map, &s->cookie, &one) == 0;
	return true;
}

unsigned existing_count(struct steer_pod *p)
{
	struct tally t = {.map = p->existing};
	char ignored[STEER_WHY_MAX];

	if (p->existing < 0 || pod_enter(p, ignored) < 0)
		return 0;
	diag_each(-1, DIAG_CONNECTED, on_counted, &t);
	netns_home();
	return t.n;
}

static bool is_in(int map, const struct diag_socket *s)
{
	uint32_t one;

	return map >= 0 && bpf_map_lookup_elem(map, &s->cookie, &one) == 0;
}

static bool on_direct(void *arg, const struct diag_socket *s)
{
	uint32_t one = 1;

	if (s->flow == STEER_FLOW_DIRECT)
		bpf_map_update_elem(*(int *)arg, &s->cookie, &one, BPF_ANY); /* what a full map lacks is reset */
	return true;
}

int existing_direct(struct steer_pod *p, char why[STEER_WHY_MAX])
{
	int fd = cookies_make("direct", why), e;

	if (fd < 0)
		return fd;
	e = diag_each(p->steer->shared.map[MAP_FLOWS], DIAG_CONNECTED, on_direct, &fd);
	if (!e)
		return fd;
	close(fd);
	return failed(why, e, "cannot read the pod's connections");
}

static bool on_other(void *arg, const struct diag_socket *s)
{
	struct note *n = arg;

	if (!leaves_the_pod(n->p, s) || s->flow == STEER_FLOW_CAPTURED || is_in(n->map, s) || is_in(n->spared, s))
		return true;
	n->e = diag_destroy(s);
	n->reset += !n->e;
	return !n->e;
}

int existing_reset_others(struct steer_pod *p, int spared, char why[STEER_WHY_MAX])
{
	struct note note = {.p = p, .map = p->existing, .spared = spared};
	int e = diag_each(p->steer->shared.map[MAP_FLOWS], DIAG_CONNECTED, on_other, &note);

	if (!e)
		e = note.e;
	if (note.reset)
		log_warn(STEER_LOG, "pod %s: %u connections that were made without the mesh were reset", p->uid,
			 note.reset);
	return e ? failed(why, e, "cannot reset connections that were made without the mesh") : 0;
}
