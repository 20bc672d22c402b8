/* SPDX-License-Identifier: Apache-2.0 */
/* net/aead: published vectors, both implementations against each other at every length that cuts blocks in another
 * place, and that nothing forged is opened. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "net/aead.h"

enum { ROOM = 16384 + 1 };

static struct aead_ciphers openssl_only, best;

static int setup(void **state)
{
	aead_ciphers_fetch(&openssl_only);
	openssl_only.gcm = false;
	aead_ciphers_fetch(&best);
	if (!best.gcm)
		print_message("skip aead/intel-ipsec-mb: not in this build, or not for this processor\n");
	return 0;
}

static int teardown(void **state)
{
	aead_ciphers_free(&openssl_only);
	aead_ciphers_free(&best);
	return 0;
}

static size_t unhex(uint8_t *out, const char *hex)
{
	size_t n = strlen(hex) / 2;

	for (size_t i = 0; i < n; i++)
		assert_int_equal(sscanf(hex + 2 * i, "%2hhx", &out[i]), 1);
	return n;
}

static const struct vector {
	const char *name;
	enum record_cipher cipher;
	const char *key, *nonce, *ad, *plain, *sealed; /* the ciphertext, or its beginning */
	const char *tag;
} vectors[] = {
#define GCM_PLAIN                                                                            \
	"d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532f" \
	"cf0e2449a6b525b16aedf5aa0de657ba637b39"
	{"GCM specification, test case 4", RECORD_AES_128_GCM, "feffe9928665731c6d6a8f9467308308",
	 "cafebabefacedbaddecaf888", "feedfacedeadbeeffeedfacedeadbeefabaddad2", GCM_PLAIN,
	 "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa051ba30b396a0a"
	 "ac973d58e091",
	 "5bc94fbc3221a5db94fae95ae7121a47"},
	{"GCM specification, test case 16", RECORD_AES_256_GCM,
	 "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308", "cafebabefacedbaddecaf888",
	 "feedfacedeadbeeffeedfacedeadbeefabaddad2", GCM_PLAIN,
	 "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba"
	 "7a0abcc9f662",
	 "76fc6ece0f4e1768cddf8853bb2d551b"},
	{"RFC 8439, 2.8.2", RECORD_CHACHA20, "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f",
	 "070000004041424344454647", "50515253c0c1c2c3c4c5c6c7",
	 "4c616469657320616e642047656e746c656d656e206f662074686520636c617373206f66202739393a204966204920636f756c64206f"
	 "6666657220796f75206f6e6c79206f6e652074697020666f7220746865206675747572652c2073756e73637265656e20776f756c6420"
	 "62652069742e",
	 "d31a8d34648e60db7b86afbc53ef7ec2", "1ae10b594f09e26a7e902ecbd0600691"},
};

static void vector_check(const struct vector *v, const struct aead_ciphers *c)
{
	uint8_t key[32], nonce[AEAD_NONCE], ad[32], plain[256], want[256], tag[AEAD_TAG], p[256 + AEAD_TAG];
	size_t ad_len, len, want_len;
	struct aead a = {0};

	unhex(key, v->key);
	unhex(nonce, v->nonce);
	unhex(tag, v->tag);
	ad_len = unhex(ad, v->ad);
	len = unhex(plain, v->plain);
	want_len = unhex(want, v->sealed);
	memcpy(p, plain, len);
	assert_int_equal(aead_set_key(&a, c, v->cipher, key, true), 0);
	assert_int_equal(aead_seal(&a, nonce, ad, ad_len, p, len), 0);
	assert_memory_equal(p, want, want_len);
	assert_memory_equal(p + len, tag, AEAD_TAG);
	assert_int_equal(aead_set_key(&a, c, v->cipher, key, false), 0);
	assert_int_equal(aead_open(&a, nonce, ad, ad_len, p, len), 0);
	assert_memory_equal(p, plain, len);
	aead_clear(&a);
}

static void test_vectors(void **state)
{
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
		print_message("%s\n", vectors[i].name);
		vector_check(&vectors[i], &openssl_only);
		vector_check(&vectors[i], &best);
	}
}

/* What one seals the other opens, whatever the length. */
static void lengths_check(enum record_cipher cipher, const struct aead_ciphers *sealer,
			  const struct aead_ciphers *opener)
{
	static uint8_t p[ROOM + AEAD_TAG], plain[ROOM];
	uint8_t key[32], nonce[AEAD_NONCE] = {0}, ad[5] = {23, 3, 3, 0x40, 0x11};
	struct aead seal = {0}, open = {0};

	for (size_t i = 0; i < sizeof key; i++)
		key[i] = (uint8_t)(i * 7 + 1);
	for (size_t i = 0; i < sizeof plain; i++)
		plain[i] = (uint8_t)(i * 31 + i / 251);
	assert_int_equal(aead_set_key(&seal, sealer, cipher, key, true), 0);
	assert_int_equal(aead_set_key(&open, opener, cipher, key, false), 0);
	for (size_t len = 0; len <= ROOM; len += len < 600 ? 1 : 1127) {
		nonce[11] = (uint8_t)len;
		memcpy(p, plain, len);
		assert_int_equal(aead_seal(&seal, nonce, ad, sizeof ad, p, len), 0);
		assert_int_equal(aead_open(&open, nonce, ad, sizeof ad, p, len), 0);
		assert_memory_equal(p, plain, len);
	}
	aead_clear(&seal);
	aead_clear(&open);
}

static void test_they_agree(void **state)
{
	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++) {
		lengths_check(c, &openssl_only, &best);
		lengths_check(c, &best, &openssl_only);
	}
}

/* A flipped bit anywhere: in the text, the tag, the header, the nonce, the key. */
static void forgery_check(enum record_cipher cipher, const struct aead_ciphers *c, size_t len)
{
	uint8_t key[32] = {1}, nonce[AEAD_NONCE] = {2}, ad[5] = {3}, p[200 + AEAD_TAG], q[sizeof p];
	struct aead a = {0};

	memset(p, 'x', len);
	assert_int_equal(aead_set_key(&a, c, cipher, key, true), 0);
	assert_int_equal(aead_seal(&a, nonce, ad, sizeof ad, p, len), 0);
	assert_int_equal(aead_set_key(&a, c, cipher, key, false), 0);
	for (size_t bit = 0; bit < 8 * (len + AEAD_TAG); bit++) {
		memcpy(q, p, len + AEAD_TAG);
		q[bit / 8] ^= (uint8_t)(1 << bit % 8);
		assert_int_equal(aead_open(&a, nonce, ad, sizeof ad, q, len), -EBADMSG);
	}
	for (size_t i = 0; i < 3; i++) {
		uint8_t *what = i == 0 ? &ad[4] : i == 1 ? &nonce[11] : &key[15];

		*what ^= 1;
		assert_int_equal(aead_set_key(&a, c, cipher, key, false), 0);
		memcpy(q, p, len + AEAD_TAG);
		assert_int_equal(aead_open(&a, nonce, ad, sizeof ad, q, len), -EBADMSG);
		*what ^= 1;
	}
	assert_int_equal(aead_set_key(&a, c, cipher, key, false), 0);
	assert_int_equal(aead_open(&a, nonce, ad, sizeof ad, p, len), 0);
	aead_clear(&a);
}

static void test_forgeries(void **state)
{
	static const size_t lengths[] = {0, 1, 15, 16, 17, 100, 200};

	for (enum record_cipher c = RECORD_AES_128_GCM; c <= RECORD_CHACHA20; c++)
		for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
			forgery_check(c, &openssl_only, lengths[i]);
			forgery_check(c, &best, lengths[i]);
		}
}

/* A context goes from one cipher to another and back. */
static void test_keyed_again(void **state)
{
	static const enum record_cipher order[] = {RECORD_AES_256_GCM, RECORD_CHACHA20, RECORD_AES_128_GCM,
						   RECORD_CHACHA20, RECORD_AES_256_GCM};
	const uint8_t key[32] = {9}, nonce[AEAD_NONCE] = {0};
	struct aead a = {0}, b = {0};
	uint8_t p[10 + AEAD_TAG];

	for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
		memcpy(p, "0123456789", 10);
		assert_int_equal(aead_set_key(&a, &best, order[i], key, true), 0);
		assert_int_equal(aead_set_key(&b, &openssl_only, order[i], key, false), 0);
		assert_int_equal(aead_seal(&a, nonce, NULL, 0, p, 10), 0);
		assert_int_equal(aead_open(&b, nonce, NULL, 0, p, 10), 0);
		assert_memory_equal(p, "0123456789", 10);
	}
	aead_clear(&a);
	aead_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_they_agree),
		cmocka_unit_test(test_forgeries),
		cmocka_unit_test(test_keyed_again),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
