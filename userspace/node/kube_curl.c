/* SPDX-License-Identifier: Apache-2.0 */
/* Owns the loading of libcurl. */
#include "node/kube_curl.h"

#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

/* The one with GnuTLS is smaller, and what Debian's other programs use; any other does as well. */
static const char *const libraries[] = {"libcurl-gnutls.so.4", "libcurl.so.4"};

#define AT(name)                                                \
	{                                                       \
		"curl_" #name, offsetof(struct kube_curl, name) \
	}
static const struct {
	const char *name;
	size_t at;
} functions[] = {
	AT(global_init),      AT(multi_init),	       AT(multi_cleanup),	AT(multi_setopt),
	AT(multi_add_handle), AT(multi_remove_handle), AT(multi_socket_action), AT(multi_assign),
	AT(multi_info_read),  AT(easy_init),	       AT(easy_cleanup),	AT(easy_setopt),
	AT(easy_getinfo),     AT(easy_strerror),       AT(slist_append),	AT(slist_free_all),
};

int kube_curl_load(struct kube_curl *out, char why[POD_WHY_MAX])
{
	void *library = NULL;

	for (unsigned i = 0; !library && i < sizeof libraries / sizeof *libraries; i++)
		library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(why, POD_WHY_MAX, "libcurl is needed to ask the API server: %s", dlerror());
		return -ENOENT;
	}
	for (unsigned i = 0; i < sizeof functions / sizeof *functions; i++) {
		void *f = dlsym(library, functions[i].name);

		if (!f) {
			snprintf(why, POD_WHY_MAX, "libcurl has no %s", functions[i].name);
			return -ENOENT;
		}
		memcpy((char *)out + functions[i].at, &f, sizeof f);
	}
	return 0;
}
