/* SPDX-License-Identifier: Apache-2.0 */
/* Memory for private keys: OpenSSL's own secure heap, from which it takes the secret parts of keys by itself. */
#include <openssl/crypto.h>
#include <sys/resource.h>

#include "net/tls.h"

int tls_secure_memory(void)
{
	struct rlimit r;

	if (getrlimit(RLIMIT_MEMLOCK, &r) == 0 && r.rlim_cur < r.rlim_max) {
		r.rlim_cur = r.rlim_max;
		setrlimit(RLIMIT_MEMLOCK, &r);
	}
	return CRYPTO_secure_malloc_init(TLS_SECURE_BYTES, TLS_SECURE_MIN) == 1 ? 0 : -1;
}
