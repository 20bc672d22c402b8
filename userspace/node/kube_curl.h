/* SPDX-License-Identifier: Apache-2.0 */
/* libcurl, loaded when Kubernetes is to be asked, and not before: with the thirty libraries that it brings along it
 * takes three times the memory of all the rest of the keeper. */
#pragma once
#define CURL_DISABLE_TYPECHECK
#include <curl/curl.h>

#include "node/pods.h"

struct kube_curl { /* functions of libcurl, without their "curl_" */
	CURLcode (*global_init)(long flags);
	CURLM *(*multi_init)(void);
	CURLMcode (*multi_cleanup)(CURLM *m);
	CURLMcode (*multi_setopt)(CURLM *m, CURLMoption o, ...);
	CURLMcode (*multi_add_handle)(CURLM *m, CURL *h);
	CURLMcode (*multi_remove_handle)(CURLM *m, CURL *h);
	CURLMcode (*multi_socket_action)(CURLM *m, curl_socket_t fd, int what, int *running);
	CURLMcode (*multi_assign)(CURLM *m, curl_socket_t fd, void *p);
	CURLMsg *(*multi_info_read)(CURLM *m, int *left);
	CURL *(*easy_init)(void);
	void (*easy_cleanup)(CURL *h);
	CURLcode (*easy_setopt)(CURL *h, CURLoption o, ...);
	CURLcode (*easy_getinfo)(CURL *h, CURLINFO i, ...);
	const char *(*easy_strerror)(CURLcode code);
	struct curl_slist *(*slist_append)(struct curl_slist *l, const char *text);
	void (*slist_free_all)(struct curl_slist *l);
};

/* It stays loaded. -ENOENT, and a line in `why`. */
int kube_curl_load(struct kube_curl *out, char why[POD_WHY_MAX]);
