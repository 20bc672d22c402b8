/* SPDX-License-Identifier: Apache-2.0 */
/* The load generator of the benchmark: one thread, one kind of load, one line of JSON.
 *
 * gen KIND ADDRESS [conns=N] [size=BYTES] [seconds=S] [warm=S] [rate=PER_SECOND] [port=BASE]
 *
 * - rr: closed loop; each connection sends `size` bytes, reads as many back, and so on.
 *
 * - open: open loop; exchanges are due at fixed times (`rate` a second over all connections) and are sent then, whether
 *   or not answers are outstanding. Latency counts from the time that was due, so a stall shows in every exchange that
 *   it delayed, and no exchange that was due is left out.
 *
 * - dns: the same with DNS queries over UDP, to port 53, for what the mesh knows and what only a resolver does.
 *
 * - conn: `conns` at a time: connect, exchange, close.
 *
 * - connect: one after the other, `rate` a second at most: how long connect() takes.
 *
 * - bulk: sends for `seconds`, then waits until the sink has counted all of it.
 *
 * - pull: reads from the source.
 *
 * - idle: opens `conns` connections with one exchange each, says "ready", holds them until a line of input; again with
 *   twice, three times as many; ends with its input.
 *
 * Times are in microseconds. `total` counts all work including the warm-up: what CPU time is divided by. */
#include <arpa/inet.h>
#include <math.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>

#include "bench.h"

enum {
	SIZE_MAX_ = 64 << 10,
	CONNS_MAX = 16384,
	PIPE_MAX = 4096, /* exchanges outstanding on one connection of the open loop */
	ERRORS_MAX = 100,
	STALL_MS = 15000, /* nothing moves for so long: give up */
};

struct conn {
	int fd, port;
	int connecting;
	size_t sent, got; /* of the current exchange; bulk: bytes in all */
	uint64_t begun;	  /* when the exchange was sent, or the connection opened */
	uint64_t *due;	  /* open loop: a ring of the times of exchanges that have no answer yet */
	unsigned head, tail;
};

static struct sockaddr_storage peer;
static socklen_t peer_len;
static unsigned conns = 1, size = 64, base_port = BENCH_PORT;
static double seconds = 1, warm = 0.1, rate = 1000;
static char chunk[BENCH_CHUNK];

static int ep;
static struct conn *conn;
static uint64_t measure_from, measure_to; /* samples outside are not counted */
static uint32_t *sample;		  /* nanoseconds */
static size_t n_samples, max_samples;
static uint64_t total;
static unsigned errors;
static char first_error[128];

/* --- samples -------------------------------------------------------------------------------------------- */

/* Counts when `at` lies in the window: the end of a closed loop's exchange, the due time of an open one's. */
static void sample_add(uint64_t begun, uint64_t end, uint64_t at)
{
	uint64_t took = end - begun;

	total++;
	if (at < measure_from || at >= measure_to)
		return;
	if (n_samples == max_samples) {
		max_samples = max_samples ? max_samples * 2 : 1 << 16;
		sample = realloc(sample, max_samples * sizeof *sample);
		if (!sample)
			die("out of memory for samples");
	}
	sample[n_samples++] = took > UINT32_MAX ? UINT32_MAX : (uint32_t)took;
}

static int sample_order(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

static double sample_quantile(double q)
{
	return n_samples ? sample[(size_t)(q * (double)(n_samples - 1))] / 1e3 : NAN;
}

static void report_samples(void)
{
	if (!n_samples)
		die("nothing was measured%s%s", *first_error ? ": " : "", first_error);
	qsort(sample, n_samples, sizeof *sample, sample_order);
	printf("{\"total\": %llu, \"count\": %zu, \"rate\": %.1f, \"p50\": %.2f, \"p90\": %.2f, \"p99\": "
	       "%.2f, \"max\": %.2f, "
	       "\"errors\": %u, \"error\": \"%s\"}\n",
	       (unsigned long long)total, n_samples, (double)n_samples / seconds, sample_quantile(0.5),
	       sample_quantile(0.9), sample_quantile(0.99), sample_quantile(1), errors, first_error);
}

static void report_bytes(uint64_t bytes, uint64_t all, double took)
{
	printf("{\"total\": %llu, \"rate\": %.1f, \"errors\": 0}\n", (unsigned long long)all, (double)bytes / took);
}

/* --- connections ---------------------------------------------------------------------------------------- */

static void peer_set_port(int port)
{
	if (peer.ss_family == AF_INET6)
		((struct sockaddr_in6 *)&peer)->sin6_port = htons((uint16_t)port);
	else
		((struct sockaddr_in *)&peer)->sin_port = htons((uint16_t)port);
}

static void peer_parse(const char *text)
{
	struct sockaddr_in *v4 = (struct sockaddr_in *)&peer;
	struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&peer;

	if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
		peer.ss_family = AF_INET;
		peer_len = sizeof *v4;
	} else if (inet_pton(AF_INET6, text, &v6->sin6_addr) == 1) {
		peer.ss_family = AF_INET6;
		peer_len = sizeof *v6;
	} else {
		die("%s is no address", text);
	}
}

/* Returns 0, or -errno when it does not even begin. A non-blocking one may still be connecting. */
static int conn_open(struct conn *c, int port, int nonblocking)
{
	c->fd = socket(peer.ss_family, SOCK_STREAM | (nonblocking ? SOCK_NONBLOCK : 0), 0);
	if (c->fd < 0)
		die("socket: %s", strerror(errno));
	set_option(c->fd, IPPROTO_TCP, TCP_NODELAY, 1);
	peer_set_port(port);
	c->sent = c->got = 0;
	c->port = port;
	c->begun = now_ns();
	if (!connect(c->fd, (struct sockaddr *)&peer, peer_len) || errno == EINPROGRESS)
		return 0;
	return -errno;
}

static int conn_exchange_once(struct conn *c)
{
	if (send(c->fd, chunk, size, MSG_NOSIGNAL) != (ssize_t)size)
		return errno ? -errno : -EIO;
	for (size_t got = 0; got < size;) {
		ssize_t n = recv(c->fd, chunk, size - got, 0);

		if (n <= 0)
			return n ? -errno : -ECONNRESET;
		got += (size_t)n;
	}
	return 0;
}

/* Opens all of them, with an exchange on each so that every hop is up before time is taken. */
static void conns_open(unsigned from, unsigned to, int port, int exchange, uint32_t events)
{
	for (unsigned i = from; i < to; i++) {
		struct conn *c = &conn[i];
		/* One port is enough here: nothing closes. */
		int err = conn_open(c, port, 0);

		if (!err && exchange)
			err = conn_exchange_once(c);
		if (err)
			die("connection %u to port %d: %s", i + 1, port, strerror(-err));
		set_nonblocking(c->fd);
		if (events)
			watch(ep, EPOLL_CTL_ADD, c->fd, events, c);
	}
}

static int wait_events(struct epoll_event *ev)
{
	int n = epoll_wait(ep, ev, BENCH_EVENTS, STALL_MS);

	if (!n)
		die("nothing moved for %d s", STALL_MS / 1000);
	return n < 0 ? 0 : n;
}

static void window_set(void)
{
	measure_from = now_ns() + (uint64_t)(warm * 1e9);
	measure_to = measure_from + (uint64_t)(seconds * 1e9);
}

static void conn_fatal(const struct conn *c, ssize_t n)
{
	die("connection to port %d: %s", c->port, n ? strerror(errno) : "closed by the other end");
}

/* --- kinds ---------------------------------------------------------------------------------------------- */

static void rr_send(struct conn *c)
{
	c->begun = now_ns();
	c->got = 0;
	if (send(c->fd, chunk, size, MSG_NOSIGNAL) != (ssize_t)size)
		conn_fatal(c, -1);
}

static void run_rr(void)
{
	struct epoll_event ev[BENCH_EVENTS];

	conns_open(0, conns, (int)base_port, 1, EPOLLIN);
	window_set();
	for (unsigned i = 0; i < conns; i++)
		rr_send(&conn[i]);
	for (uint64_t now = 0; now < measure_to;) {
		int n = wait_events(ev);

		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;
			ssize_t got = recv(c->fd, chunk, size - c->got, 0);

			if (got <= 0)
				conn_fatal(c, got);
			c->got += (size_t)got;
			if (c->got < size)
				continue;
			now = now_ns();
			sample_add(c->begun, now, now);
			rr_send(c);
		}
	}
	report_samples();
}

static void open_send(struct conn *c, uint64_t due)
{
	if (c->tail - c->head == PIPE_MAX)
		die("%d exchanges wait on one connection: the offered rate is far beyond what can be served", PIPE_MAX);
	c->due[c->tail++ % PIPE_MAX] = due;
	if (send(c->fd, chunk, size, MSG_NOSIGNAL) != (ssize_t)size)
		conn_fatal(c, -1);
}

static void open_receive(struct conn *c)
{
	ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
	uint64_t now = now_ns();

	if (n <= 0)
		conn_fatal(c, n);
	for (c->got += (size_t)n; c->got >= size; c->got -= size, c->head++)
		sample_add(c->due[c->head % PIPE_MAX], now, c->due[c->head % PIPE_MAX]);
}

/* Both kinds of open loop, on connections that are there. */
static void run_paced(void (*emit)(struct conn *c, uint64_t due), void (*receive)(struct conn *c))
{
	struct epoll_event ev[BENCH_EVENTS];
	struct itimerspec tick = {0};
	uint64_t period = (uint64_t)(1e9 / rate), next, sent = 0;
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);

	prctl(PR_SET_TIMERSLACK, 1);
	watch(ep, EPOLL_CTL_ADD, timer, EPOLLIN, NULL);
	window_set();
	next = now_ns() + period;
	while (total < sent || next < measure_to) {
		int n;

		for (; next <= now_ns() && next < measure_to; next += period)
			emit(&conn[sent++ % conns], next);
		tick.it_value.tv_sec = (time_t)(next / 1000000000u);
		tick.it_value.tv_nsec = (long)(next % 1000000000u);
		if (next >= measure_to) /* only answers are waited for */
			tick.it_value.tv_sec = tick.it_value.tv_nsec = 0;
		timerfd_settime(timer, TFD_TIMER_ABSTIME, &tick, NULL);
		n = wait_events(ev);
		for (int i = 0; i < n; i++)
			if (ev[i].data.ptr)
				receive(ev[i].data.ptr);
	}
	report_samples();
}

static void run_open(void)
{
	conns_open(0, conns, (int)base_port, 1, EPOLLIN);
	for (unsigned i = 0; i < conns; i++)
		conn[i].due = calloc(PIPE_MAX, sizeof *conn[i].due);
	run_paced(open_send, open_receive);
}

static uint64_t dns_due[1 << 16]; /* by the query's id */

static void dns_send(struct conn *c, uint64_t due)
{
	/* Of four queries three are for the mesh: its service's whole name, and its short one. */
	static const char *const names[] = {"\5bench\7default\3svc\7cluster\5local", "\5bench", "\5bench\7default",
					    "\7outside\4test"};
	static const char tail[] = "\0\1\0\1";
	static uint16_t id;
	const char *name = names[id % 4];
	uint8_t msg[64] = {(uint8_t)(id >> 8), (uint8_t)id, 1, 0, 0, 1};
	size_t n = strlen(name) + 1;

	memcpy(msg + 12, name, n);
	memcpy(msg + 12 + n, tail, 4);
	dns_due[id++] = due;
	if (send(c->fd, msg, 12 + n + 4, 0) < 0)
		conn_fatal(c, -1);
}

static void dns_receive(struct conn *c)
{
	const uint8_t *msg = (const uint8_t *)chunk;
	ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
	uint64_t due = n >= 12 ? dns_due[msg[0] << 8 | msg[1]] : 0;

	if (n < 0)
		conn_fatal(c, n);
	if (!due)
		return;
	dns_due[msg[0] << 8 | msg[1]] = 0;
	if ((msg[3] & 15) || !(msg[6] | msg[7]))
		die("a query was answered without an address, rcode %d", msg[3] & 15);
	sample_add(due, now_ns(), due);
}

static void run_dns(void)
{
	peer_set_port(53);
	for (unsigned i = 0; i < conns; i++) {
		struct conn *c = &conn[i];

		c->port = 53;
		c->fd = socket(peer.ss_family, SOCK_DGRAM, 0);
		if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&peer, peer_len))
			die("socket: %s", strerror(errno));
		watch(ep, EPOLL_CTL_ADD, c->fd, EPOLLIN, c);
	}
	run_paced(dns_send, dns_receive);
}

static void short_fail(const char *what, int err)
{
	if (!errors++)
		snprintf(first_error, sizeof first_error, "%s: %s", what, strerror(err));
	if (errors > ERRORS_MAX)
		die("more than %d errors, the first: %s", ERRORS_MAX, first_error);
}

static void short_begin(struct conn *c)
{
	static unsigned turn;
	int err;

	while ((err = conn_open(c, (int)(base_port + turn++ % BENCH_ECHO_PORTS), 1))) {
		short_fail("connect", -err);
		close(c->fd);
	}
	c->connecting = 1;
	watch(ep, EPOLL_CTL_ADD, c->fd, EPOLLOUT, c);
}

/* Returns whether the connection is done, one way or the other. */
static int short_step(struct conn *c)
{
	uint64_t now;
	ssize_t n;
	int err = 0;

	if (c->connecting) {
		getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &err, &(socklen_t){sizeof err});
		if (!err && send(c->fd, chunk, size, MSG_NOSIGNAL) != (ssize_t)size)
			err = errno;
		if (err)
			return short_fail("connect", err), 1;
		c->connecting = 0;
		watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
		return 0;
	}
	n = recv(c->fd, chunk, size - c->got, 0);
	if (n <= 0)
		return short_fail("answer", n ? errno : ECONNRESET), 1;
	c->got += (size_t)n;
	if (c->got < size)
		return 0;
	now = now_ns();
	sample_add(c->begun, now, now);
	return 1;
}

static void run_conn(void)
{
	struct epoll_event ev[BENCH_EVENTS];

	window_set();
	for (unsigned i = 0; i < conns; i++)
		short_begin(&conn[i]);
	while (now_ns() < measure_to) {
		int n = wait_events(ev);

		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;

			if (!short_step(c))
				continue;
			close(c->fd);
			short_begin(c);
		}
	}
	report_samples();
}

/* At real-time priority: else a proxy that the handshake's last packet wakes takes our processor, and its work is
 * counted as connect()'s. */
static void run_connect(void)
{
	if (sched_setscheduler(0, SCHED_FIFO, &(struct sched_param){.sched_priority = 1}))
		die("sched_setscheduler: %s", strerror(errno));
	window_set();
	for (uint64_t next = now_ns(), i = 0; next < measure_to; next += (uint64_t)(1e9 / rate), i++) {
		struct timespec at = {.tv_sec = (time_t)(next / 1000000000u), .tv_nsec = (long)(next % 1000000000u)};
		uint64_t now;
		int err;

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
		err = conn_open(&conn[0], (int)(base_port + i % BENCH_ECHO_PORTS), 0);
		if (err)
			die("connect: %s", strerror(-err));
		now = now_ns();
		sample_add(conn[0].begun, now, now);
		close(conn[0].fd);
	}
	report_samples();
}

static void bulk_send(struct conn *c, int stop)
{
	ssize_t n;

	if (stop) {
		if (shutdown(c->fd, SHUT_WR))
			conn_fatal(c, -1);
		watch(ep, EPOLL_CTL_MOD, c->fd, EPOLLIN, c);
		return;
	}
	n = send(c->fd, chunk, sizeof chunk, MSG_NOSIGNAL);
	if (n < 0 && errno != EAGAIN)
		conn_fatal(c, n);
	c->sent += n > 0 ? (size_t)n : 0;
}

/* Returns whether the answer is complete: the sink has read all that was sent. */
static int bulk_receive(struct conn *c)
{
	static uint64_t answer[CONNS_MAX];
	uint64_t *count = &answer[c - conn];
	ssize_t n = recv(c->fd, (char *)count + c->got, sizeof *count - c->got, 0);

	if (n <= 0)
		conn_fatal(c, n);
	c->got += (size_t)n;
	if (c->got < sizeof *count)
		return 0;
	if (*count != c->sent)
		die("%llu of %zu bytes arrived", (unsigned long long)*count, c->sent);
	watch(ep, EPOLL_CTL_DEL, c->fd, 0, c);
	return 1;
}

static void run_bulk(void)
{
	struct epoll_event ev[BENCH_EVENTS];
	uint64_t begin, bytes = 0;
	unsigned done = 0;

	conns_open(0, conns, (int)base_port + BENCH_SINK - BENCH_PORT, 0, EPOLLOUT);
	warm = 0; /* it ends when the last byte has arrived, so it counts from the first */
	window_set();
	begin = now_ns();
	while (done < conns) {
		int n = wait_events(ev);

		for (int i = 0; i < n; i++) {
			if (ev[i].events & EPOLLIN)
				done += (unsigned)bulk_receive(ev[i].data.ptr);
			else
				bulk_send(ev[i].data.ptr, now_ns() >= measure_to);
		}
	}
	for (unsigned i = 0; i < conns; i++)
		bytes += conn[i].sent;
	report_bytes(bytes, bytes, (double)(now_ns() - begin) / 1e9);
}

static void run_pull(void)
{
	struct epoll_event ev[BENCH_EVENTS];
	uint64_t bytes = 0, all = 0, now = 0, first = 0;

	conns_open(0, conns, (int)base_port + BENCH_SOURCE - BENCH_PORT, 0, EPOLLIN);
	window_set();
	while (now < measure_to) {
		int n = wait_events(ev);

		now = now_ns();
		if (!first && now >= measure_from)
			first = now;
		for (int i = 0; i < n; i++) {
			struct conn *c = ev[i].data.ptr;
			ssize_t got = recv(c->fd, chunk, sizeof chunk, 0);

			if (got <= 0)
				conn_fatal(c, got);
			all += (uint64_t)got;
			bytes += first ? (uint64_t)got : 0;
		}
	}
	report_bytes(bytes, all, (double)(now - first) / 1e9);
}

static void run_idle(void)
{
	unsigned n = 0;

	while (n + conns <= CONNS_MAX) {
		conns_open(n, n + conns, (int)base_port, 1, 0);
		n += conns;
		printf("ready %u\n", n);
		fflush(stdout);
		for (int c; (c = getchar()) != '\n';)
			if (c == EOF)
				return;
	}
}

/* --- options -------------------------------------------------------------------------------------------- */

static void option_set(const char *text)
{
	static const struct {
		const char *name;
		unsigned *number, max;
		double *real;
	} known[] = {
		{"conns", &conns, CONNS_MAX, NULL}, {"size", &size, SIZE_MAX_, NULL}, {"port", &base_port, 65000, NULL},
		{"seconds", NULL, 0, &seconds},	    {"warm", NULL, 0, &warm},	      {"rate", NULL, 0, &rate},
	};
	const char *value = strchr(text, '=');
	char *end;

	for (size_t i = 0; value && i < sizeof known / sizeof *known; i++) {
		double v;

		if (strlen(known[i].name) != (size_t)(value - text) ||
		    strncmp(text, known[i].name, (size_t)(value - text)))
			continue;
		v = strtod(value + 1, &end);
		if (end == value + 1 || *end || v < 0 || (known[i].number && (v < 1 || v > known[i].max)))
			die("%s: out of range", text);
		if (known[i].number)
			*known[i].number = (unsigned)v;
		else
			*known[i].real = v;
		return;
	}
	die("%s: unknown option", text);
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} kinds[] = {{"rr", run_rr},	       {"open", run_open}, {"dns", run_dns},   {"conn", run_conn},
		     {"connect", run_connect}, {"bulk", run_bulk}, {"pull", run_pull}, {"idle", run_idle}};

	if (argc < 3)
		die("usage: gen rr|open|dns|conn|connect|bulk|pull|idle ADDRESS [NAME=VALUE...]");
	peer_parse(argv[2]);
	for (int i = 3; i < argc; i++)
		option_set(argv[i]);
	raise_files();
	ep = epoll_create1(EPOLL_CLOEXEC);
	conn = calloc(CONNS_MAX, sizeof *conn);
	if (ep < 0 || !conn)
		die("%s", strerror(errno));
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
		if (!strcmp(argv[1], kinds[i].name)) {
			kinds[i].run();
			return 0;
		}
	die("%s: unknown kind", argv[1]);
}
