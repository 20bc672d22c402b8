// SPDX-License-Identifier: Apache-2.0
/* Where a query was going (ancillary data), and how its answer gets the right source: IP and UDP headers of our own
 * through the pod's raw sockets (RFC 768, 791, 8200). */
#include "data/dns_answer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/udp.h>
#include <ports.h>
#include <string.h>
#include <sys/socket.h>

#include "state/route.h"

enum { DNS_PORT = 53, TTL = 64 };

static void read_ancillary(struct msghdr *m, struct endpoint *dst, struct addr *local)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
		struct sockaddr_storage ss;

		if ((c->cmsg_level == SOL_IP && c->cmsg_type == IP_ORIGDSTADDR) ||
		    (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_ORIGDSTADDR)) {
			memset(&ss, 0, sizeof ss);
			memcpy(&ss, CMSG_DATA(c),
			       c->cmsg_level == SOL_IP ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
			endpoint_from_sockaddr(dst, &ss);
		} else if (c->cmsg_level == SOL_IP && c->cmsg_type == IP_PKTINFO) {
			struct in_pktinfo i;

			memcpy(&i, CMSG_DATA(c), sizeof i);
			*local = addr_from4(i.ipi_addr.s_addr);
		} else if (c->cmsg_level == SOL_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
			struct in6_pktinfo i;

			memcpy(&i, CMSG_DATA(c), sizeof i);
			addr_from_bytes(local, &i.ipi6_addr, 16);
		}
	}
}

ssize_t dns_query_recv(const struct pod *p, uint8_t *buf, size_t cap, struct dns_path *path)
{
	struct sockaddr_storage from;
	char control[256];
	struct iovec v = {buf, cap};
	struct msghdr m = {.msg_name = &from,
			   .msg_namelen = sizeof from,
			   .msg_iov = &v,
			   .msg_iovlen = 1,
			   .msg_control = control,
			   .msg_controllen = sizeof control};
	ssize_t n = recvmsg(p->socket[POD_DNS_UDP], &m, MSG_DONTWAIT);

	if (n < 0)
		return errno == EINTR ? 0 : -errno;
	memset(path, 0, sizeof *path);
	path->resolver = (struct endpoint){addr_any6, 0};
	read_ancillary(&m, &path->resolver, &path->local);
	if (endpoint_from_sockaddr(&path->client, &from) < 0 || m.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
		return 0;
	if (path->resolver.port == DNS_PORT) {
		path->raw = true;
		return n;
	}
	/* REDIRECT on the pod's own output ends on loopback; whoever asks 15053 from outside is not served. */
	path->resolver.port = 0;
	return addr_is_loopback(&path->local) ? n : 0;
}

static uint32_t sum16(uint32_t sum, const uint8_t *p, size_t len)
{
	for (; len > 1; p += 2, len -= 2)
		sum += (uint32_t)p[0] << 8 | p[1];
	return len ? sum + ((uint32_t)p[0] << 8) : sum;
}

/* RFC 768, RFC 8200 8.1: over the pseudo-header, UDP header and data; 0 is sent as all ones. */
static uint16_t udp_checksum(const struct dns_path *d, const struct udphdr *u, const uint8_t *msg, size_t len)
{
	size_t skip = addr_is4(&d->client.ip) ? 12 : 0;
	uint32_t sum = IPPROTO_UDP + (uint32_t)(sizeof *u + len);

	sum = sum16(sum, d->resolver.ip.b + skip, 16 - skip);
	sum = sum16(sum, d->client.ip.b + skip, 16 - skip);
	sum = sum16(sum, (const uint8_t *)u, sizeof *u);
	sum = sum16(sum, msg, len);
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return htons((uint16_t)~sum) ?: 0xffff;
}

static void send_raw(const struct pod *p, const struct dns_path *d, const uint8_t *msg, size_t len)
{
	bool v4 = addr_is4(&d->client.ip);
	struct udphdr u = {
		.source = htons(DNS_PORT), .dest = htons(d->client.port), .len = htons((uint16_t)(sizeof u + len))};
	struct iphdr ip4 = {.version = 4,
			    .ihl = 5,
			    .ttl = TTL,
			    .protocol = IPPROTO_UDP,
			    .tot_len = htons((uint16_t)(sizeof ip4 + sizeof u + len))};
	struct ip6_hdr ip6 = {.ip6_nxt = IPPROTO_UDP, .ip6_hlim = TTL, .ip6_plen = u.len};
	struct endpoint to = {d->client.ip, 0};
	struct sockaddr_storage ss;
	struct iovec v[3] = {
		{v4 ? (void *)&ip4 : (void *)&ip6, v4 ? sizeof ip4 : sizeof ip6}, {&u, sizeof u}, {(void *)msg, len}};
	struct msghdr m = {.msg_name = &ss, .msg_iov = v, .msg_iovlen = 3};

	if (len > 65535 - sizeof ip4 - sizeof u)
		return;
	ip6.ip6_vfc = 0x60;
	memcpy(&ip4.saddr, d->resolver.ip.b + 12, 4);
	memcpy(&ip4.daddr, d->client.ip.b + 12, 4);
	memcpy(&ip6.ip6_src, d->resolver.ip.b, 16);
	memcpy(&ip6.ip6_dst, d->client.ip.b, 16);
	u.check = udp_checksum(d, &u, msg, len);
	m.msg_namelen = endpoint_to_sockaddr(&to, &ss);
	sendmsg(p->socket[v4 ? POD_RAW4 : POD_RAW6], &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

/* From the address that the query came to, so that conntrack knows the flow. */
static void send_back(const struct pod *p, const struct dns_path *d, const uint8_t *msg, size_t len)
{
	struct sockaddr_storage ss;
	struct iovec v = {(void *)msg, len};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(struct in6_pktinfo))];
	} c;
	struct in6_pktinfo i = {0};
	struct msghdr m = {
		.msg_name = &ss, .msg_iov = &v, .msg_iovlen = 1, .msg_control = &c, .msg_controllen = sizeof c};
	socklen_t sl = sizeof ss;

	/* The socket is [::] where there is IPv6: its messages take mapped addresses. */
	if (getsockname(p->socket[POD_DNS_UDP], (struct sockaddr *)&ss, &sl) == 0 && ss.ss_family == AF_INET6) {
		struct sockaddr_in6 *s6 = (struct sockaddr_in6 *)&ss;

		memset(&ss, 0, sizeof ss);
		s6->sin6_family = AF_INET6;
		s6->sin6_port = htons(d->client.port);
		memcpy(&s6->sin6_addr, d->client.ip.b, 16);
		memcpy(&i.ipi6_addr, d->local.b, 16);
		memset(&c, 0, sizeof c);
		c.h.cmsg_level = SOL_IPV6;
		c.h.cmsg_type = IPV6_PKTINFO;
		c.h.cmsg_len = CMSG_LEN(sizeof i);
		memcpy(CMSG_DATA(&c.h), &i, sizeof i);
		m.msg_namelen = sizeof *s6;
	} else {
		m.msg_namelen = endpoint_to_sockaddr(&d->client, &ss);
		m.msg_control = NULL;
		m.msg_controllen = 0;
	}
	sendmsg(p->socket[POD_DNS_UDP], &m, MSG_DONTWAIT | MSG_NOSIGNAL);
}

void dns_answer_send(const struct pod *p, const struct dns_path *path, const uint8_t *msg, size_t len)
{
	if (path->raw)
		send_raw(p, path, msg, len);
	else
		send_back(p, path, msg, len);
}
