/* SPDX-License-Identifier: Apache-2.0 */
/* Requests to the API server, as kube_api.c (libcurl on the loop) and kube_call.c (a request's life) share them. */
#pragma once
#include "node/kube_api.h"
#include "node/kube_curl.h"

struct kube_api {
	struct loop *loop;
	const struct kube_config *config;
	struct kube_curl curl;
	CURLM *multi;
	struct timer timer;
	struct list calls, watches; /* watches: sockets */
	unsigned n_calls;
};

struct kube_call {
	struct list link;
	struct kube_api *api;
	struct kube_request rq; /* without method, path and body */
	CURL *easy;
	struct curl_slist *headers;
	char *url, *sent;
	char *buf;
	size_t len, cap;
	struct timer deadline, silence;
	struct task task;
	bool ended, delivering, cancelled;
	int err;
	CURLcode code;
	char error[CURL_ERROR_SIZE], why[POD_WHY_MAX];
};

void kube_call_free(struct kube_call *c);
/* It has come to an end, which is delivered by a task. */
void kube_call_end(struct kube_call *c, int err);
/* libcurl's; a new one when `address` is opened. */
curl_socket_t kube_socket_open(void *arg, curlsocktype purpose, struct curl_sockaddr *address);
