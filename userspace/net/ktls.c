/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the system calls of kTLS, and the names of its features and modes. */
#include "net/ktls_internal.h"

#include <errno.h>
#include <linux/sockios.h>
#include <linux/tls.h>
#include <netinet/in.h>
#include <linux/tcp.h> /* TCP_ULP, and tcp_info with all its fields */
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif
#ifndef TLS_RX_EXPECT_NO_PAD
#define TLS_RX_EXPECT_NO_PAD 4
#endif

/* --- names ---------------------------------------------------------------------------------------------- */

static const char *const modes[] = {
	[KTLS_OFF] = "off",
	[KTLS_TX] = "tx",
	[KTLS_ON] = "on",
	[KTLS_AUTO] = "auto",
};
enum { MODES = sizeof modes / sizeof *modes };

static const char *const features[KTLS_FEATURES] = {
	[KTLS_FEATURE_TX] = "tx",
	[KTLS_FEATURE_RX] = "rx",
	[KTLS_FEATURE_RX_NO_PAD] = "rx-no-pad",
	[KTLS_FEATURE_REKEY] = "rekey",
};

const char *ktls_mode_name(enum ktls_mode m)
{
	return modes[m];
}

const char *ktls_feature_name(enum ktls_feature f)
{
	return features[f];
}

/* Which of `names` the first `len` bytes of `text` are; `n` when none. */
static unsigned find(const char *const *names, unsigned n, const char *text, size_t len)
{
	unsigned i = 0;

	while (i < n && (strlen(names[i]) != len || strncmp(names[i], text, len) != 0))
		i++;
	return i;
}

int ktls_switch_parse(struct ktls_switch *out, const char *mode, const char *disable)
{
	unsigned m = find(modes, MODES, mode, strlen(mode));
	struct ktls_switch s = {.mode = m};

	if (m == MODES)
		return -EINVAL;
	while (*disable) {
		size_t len = strcspn(disable, ",");
		unsigned f = find(features, KTLS_FEATURES, disable, len);

		if (f == KTLS_FEATURES)
			return -EINVAL;
		s.disabled[f] = true;
		disable += len + (disable[len] == ',');
	}
	*out = s;
	return 0;
}

/* --- keys ----------------------------------------------------------------------------------------------- */

union crypto_info {
	struct tls_crypto_info info;
	struct tls12_crypto_info_aes_gcm_128 aes128;
	struct tls12_crypto_info_aes_gcm_256 aes256;
	struct tls12_crypto_info_chacha20_poly1305 chacha20;
};

/* The kernel's form of a key's cipher: where its parts are. AES-GCM cuts the IV in two. */
struct parts {
	uint8_t *key, *salt, *iv, *seq;
	size_t key_len, salt_len, size;
};

static struct parts parts_of(union crypto_info *c, enum record_cipher cipher)
{
	memset(c, 0, sizeof *c);
	c->info.version = TLS_1_3_VERSION;
	switch (cipher) {
	case RECORD_AES_128_GCM:
		c->info.cipher_type = TLS_CIPHER_AES_GCM_128;
		return (struct parts){c->aes128.key,   c->aes128.salt, c->aes128.iv, c->aes128.rec_seq, 16, 4,
				      sizeof c->aes128};
	case RECORD_AES_256_GCM:
		c->info.cipher_type = TLS_CIPHER_AES_GCM_256;
		return (struct parts){c->aes256.key,   c->aes256.salt, c->aes256.iv, c->aes256.rec_seq, 32, 4,
				      sizeof c->aes256};
	default:
		c->info.cipher_type = TLS_CIPHER_CHACHA20_POLY1305;
		return (struct parts){c->chacha20.key,	 NULL, c->chacha20.iv, c->chacha20.rec_seq, 32, 0,
				      sizeof c->chacha20};
	}
}

int ktls_attach(int fd)
{
	return setsockopt(fd, IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") < 0 ? -errno : 0;
}

int ktls_install(int fd, const struct record_key *k)
{
	union crypto_info c;
	struct parts p = parts_of(&c, k->cipher);
	int err = 0;

	memcpy(p.key, k->key, p.key_len);
	if (p.salt)
		memcpy(p.salt, k->iv, p.salt_len);
	memcpy(p.iv, k->iv + p.salt_len, RECORD_IV - p.salt_len);
	for (int i = 0; i < 8; i++)
		p.seq[i] = (uint8_t)(k->seq >> (56 - 8 * i));
	if (setsockopt(fd, SOL_TLS, k->seals ? TLS_TX : TLS_RX, &c, (socklen_t)p.size) < 0)
		err = -errno;
	OPENSSL_cleanse(&c, sizeof c);
	return err;
}

int ktls_expect_no_pad(int fd)
{
	return setsockopt(fd, SOL_TLS, TLS_RX_EXPECT_NO_PAD, &(int){1}, sizeof(int)) < 0 ? -errno : 0;
}

int ktls_sequence(int fd, const struct record_key *k, uint64_t *out)
{
	union crypto_info c;
	struct parts p = parts_of(&c, k->cipher);
	socklen_t len = (socklen_t)p.size;
	uint64_t n = 0;

	if (getsockopt(fd, SOL_TLS, k->seals ? TLS_TX : TLS_RX, &c, &len) < 0)
		return -errno;
	for (int i = 0; i < 8; i++)
		n = n << 8 | p.seq[i];
	OPENSSL_cleanse(&c, sizeof c);
	*out = n;
	return 0;
}

/* --- records -------------------------------------------------------------------------------------------- */

ssize_t ktls_send(int fd, const void *p, size_t len, uint8_t type)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(1)];
	} control = {.head = {.cmsg_level = SOL_TLS, .cmsg_type = TLS_SET_RECORD_TYPE, .cmsg_len = CMSG_LEN(1)}};
	struct iovec iov = {(void *)p, len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n;

	if (type != RECORD_DATA) {
		*CMSG_DATA(&control.head) = type;
		msg.msg_control = &control;
		msg.msg_controllen = sizeof control;
	}
	do
		n = sendmsg(fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n;
}

ssize_t ktls_recv(int fd, void *p, size_t len, uint8_t *type)
{
	union {
		struct cmsghdr head;
		char bytes[CMSG_SPACE(1)];
	} control;
	struct iovec iov = {p, len};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
	struct cmsghdr *c;
	ssize_t n;

	do
		n = recvmsg(fd, &msg, MSG_DONTWAIT);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	c = CMSG_FIRSTHDR(&msg);
	*type = c && c->cmsg_level == SOL_TLS && c->cmsg_type == TLS_GET_RECORD_TYPE ? *CMSG_DATA(c) : 0;
	return n;
}

/* The two are read one after the other: what is acknowledged in between counts in neither, never twice. */
int ktls_queued(int fd, uint64_t *out)
{
	struct tcp_info info;
	socklen_t len = sizeof info;
	int unacked = 0;

	memset(&info, 0, sizeof info);
	if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0 || ioctl(fd, SIOCOUTQ, &unacked) < 0)
		return -errno;
	*out = info.tcpi_bytes_acked + (uint64_t)unacked;
	return 0;
}
