/* SPDX-License-Identifier: Apache-2.0 */
/* Tries what steering needs of the kernel, each part on its own: a program that does nothing is loaded and attached, a
 * map is made, a listener is opened and ended. */
#include "steer/features.h"

#include <fcntl.h>
#include <linux/btf.h>
#include <linux/if_ether.h>
#include <linux/pkt_sched.h>
#include <linux/rtnetlink.h>
#include <pthread.h>
#include <sched.h>
#include <string.h>
#include <sys/socket.h>

#include "net/sock.h"
#include "ports.h"
#include "steer/bpf_call.h"
#include "steer/diag.h"
#include "steer/netlink.h"
#include "steer/rtnl.h"

enum {
	IFINDEX_LO = 1,
	TCX_INGRESS = 46, /* BPF_TCX_INGRESS; not in Debian 12's headers */
	REQUEST_BYTES = 256,
	VALUE_BYTES = 4,
};

static int closed(int fd)
{
	if (fd >= 0)
		close(fd);
	return fd < 0 ? fd : 0;
}

/* --- programs ------------------------------------------------------------------------------------------- */

/* return 1 */
static int prog_load(enum bpf_prog_type type, unsigned attach)
{
	static const struct bpf_insn one[] = {{.code = BPF_ALU64 | BPF_MOV | BPF_K, .imm = 1},
					      {.code = BPF_JMP | BPF_EXIT}};
	union bpf_attr a = {.prog_type = type,
			    .insns = (uintptr_t)one,
			    .insn_cnt = sizeof one / sizeof *one,
			    .license = (uintptr_t) "GPL",
			    .expected_attach_type = attach};

	return bpf_call(BPF_PROG_LOAD, &a);
}

static int link_make(int prog, unsigned target, unsigned attach)
{
	union bpf_attr a = {.link_create = {.prog_fd = (unsigned)prog, .target_fd = target, .attach_type = attach}};

	return bpf_call(BPF_LINK_CREATE, &a);
}

static int try_lookup(void)
{
	int netns = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC), prog, e;

	if (netns < 0)
		return -errno;
	prog = prog_load(BPF_PROG_TYPE_SK_LOOKUP, BPF_SK_LOOKUP);
	e = prog < 0 ? prog : closed(link_make(prog, (unsigned)netns, BPF_SK_LOOKUP));
	closed(prog);
	close(netns);
	return e;
}

static int try_tc(void)
{
	return closed(prog_load(BPF_PROG_TYPE_SCHED_CLS, 0));
}

static int try_tcx(void)
{
	int prog = prog_load(BPF_PROG_TYPE_SCHED_CLS, 0), e;

	e = prog < 0 ? prog : closed(link_make(prog, IFINDEX_LO, TCX_INGRESS));
	closed(prog);
	return e;
}

static int try_cgroup(void)
{
	return closed(prog_load(BPF_PROG_TYPE_CGROUP_SKB, BPF_CGROUP_INET_EGRESS));
}

static int try_clsact(void)
{
	char buf[REQUEST_BYTES];
	struct nlmsghdr *h = mnl_nlmsg_put_header(buf);
	struct tcmsg *tc = mnl_nlmsg_put_extra_header(h, sizeof *tc);

	h->nlmsg_type = RTM_NEWQDISC;
	h->nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL;
	tc->tcm_ifindex = IFINDEX_LO;
	tc->tcm_parent = TC_H_CLSACT;
	tc->tcm_handle = TC_H_MAKE(TC_H_CLSACT, 0);
	mnl_attr_put_strz(h, TCA_KIND, "clsact");
	return netlink_talk(NETLINK_ROUTE, h, NULL, NULL);
}

/* --- maps ----------------------------------------------------------------------------------------------- */

static int map_make(union bpf_attr a)
{
	a.key_size = VALUE_BYTES;
	a.value_size = VALUE_BYTES;
	return bpf_call(BPF_MAP_CREATE, &a);
}

static int try_bpf(void)
{
	return closed(map_make((union bpf_attr){.map_type = BPF_MAP_TYPE_ARRAY, .max_entries = 1}));
}

static int try_sockmap(void)
{
	return closed(map_make((union bpf_attr){.map_type = BPF_MAP_TYPE_SOCKMAP, .max_entries = 1}));
}

/* "int", which the kernel wants to be told of what it stores in sockets. */
static int btf_load(void)
{
	static const struct {
		struct btf_header head;
		struct btf_type type;
		uint32_t encoding;
		char strings[5];
	} __attribute__((packed)) text = {
		.head = {.magic = BTF_MAGIC,
			 .version = BTF_VERSION,
			 .hdr_len = sizeof(struct btf_header),
			 .type_len = sizeof(struct btf_type) + sizeof(uint32_t),
			 .str_off = sizeof(struct btf_type) + sizeof(uint32_t),
			 .str_len = sizeof "\0int"},
		.type = {.name_off = 1, .info = BTF_KIND_INT << 24, .size = VALUE_BYTES},
		.encoding = BTF_INT_SIGNED << 24 | 8 * VALUE_BYTES,
		.strings = "\0int",
	};
	union bpf_attr a = {.btf = (uintptr_t)&text, .btf_size = sizeof text};

	return bpf_call(BPF_BTF_LOAD, &a);
}

static int try_storage(void)
{
	int btf = btf_load(), e = btf;

	if (btf >= 0)
		e = closed(map_make((union bpf_attr){.map_type = BPF_MAP_TYPE_SK_STORAGE,
						     .map_flags = BPF_F_NO_PREALLOC,
						     .btf_fd = (unsigned)btf,
						     .btf_key_type_id = 1,
						     .btf_value_type_id = 1}));
	closed(btf);
	return e;
}

/* --- sockets -------------------------------------------------------------------------------------------- */

static int listener_open(void)
{
	return sock_listen_tcp(&(struct sock_listen){{addr_any6, PORT_OUTBOUND}, CULVERT_MARK_AGENT, true, false});
}

static int try_listener(void)
{
	return closed(listener_open());
}

static bool on_listener(void *arg, const struct diag_socket *s)
{
	*(int *)arg = diag_destroy(s);
	return false;
}

static int try_destroy(void)
{
	int fd = listener_open(), result = -ENOENT, e = fd;

	if (fd >= 0)
		e = diag_each(-1, 1u << DIAG_LISTEN, on_listener, &result);
	closed(fd);
	return e < 0 ? e : result;
}

/* --- all of them ---------------------------------------------------------------------------------------- */

static int (*const tries[STEER_FEATURES])(void) = {
	[STEER_FEATURE_BPF] = try_bpf,
	[STEER_FEATURE_LOOKUP] = try_lookup,
	[STEER_FEATURE_STORAGE] = try_storage,
	[STEER_FEATURE_SOCKMAP] = try_sockmap,
	[STEER_FEATURE_TC] = try_tc,
	[STEER_FEATURE_CLSACT] = try_clsact,
	[STEER_FEATURE_TCX] = try_tcx,
	[STEER_FEATURE_CGROUP] = try_cgroup,
	[STEER_FEATURE_LISTENER] = try_listener,
	[STEER_FEATURE_DESTROY] = try_destroy,
};

static void *try_all(void *arg)
{
	struct steer_features *out = arg;
	int e = unshare(CLONE_NEWNET) < 0 ? -errno : rtnl_lo_up();

	out->err[STEER_FEATURE_NAMESPACES] = e;
	for (unsigned f = 0; f < STEER_FEATURES && !e; f++)
		if (tries[f])
			out->err[f] = tries[f]();
	return NULL;
}

int steer_features_try(struct steer_features *out)
{
	pthread_t thread;
	int e;

	memset(out, 0, sizeof *out);
	e = pthread_create(&thread, NULL, try_all, out);
	if (e)
		return -e;
	pthread_join(thread, NULL);
	return 0;
}
