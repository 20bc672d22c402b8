/* SPDX-License-Identifier: Apache-2.0 */
/* What the objects of the mesh live in: arenas, shared texts, versions of services, and the indexes of the store. */
#include <malloc.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "state/arena.h"
#include "state/index.h"
#include "state/intern.h"

static int nothing_left(void **state)
{
	return intern_count() ? -1 : 0;
}

/* --- arenas -------------------------------------------------------------------------------------------------------- */

static void test_new_objects_are_empty(void **state)
{
	struct arena *a;
	struct workload *w = workload_new(&a);
	const char *const texts[] = {w->uid,
				     w->name,
				     w->ns,
				     w->trust_domain,
				     w->service_account,
				     w->network,
				     w->node,
				     w->cluster_id,
				     w->hostname,
				     w->canonical_name,
				     w->region,
				     w->zone,
				     w->subzone,
				     w->workload_name,
				     w->workload_type,
				     w->waypoint.ns,
				     w->waypoint.hostname,
				     w->network_gateway.ns,
				     w->canonical_revision};

	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
		assert_string_equal(texts[i], "");
	assert_true(w->healthy);
	assert_int_equal(w->capacity, 1);
	assert_int_equal(w->waypoint.kind, GATEWAY_NONE);
	workload_unref(w);
	struct service *v = service_new(&a);
	assert_string_equal(v->hostname, "");
	assert_string_equal(v->waypoint.addr.network, "");
	assert_int_equal(v->n_endpoints, 0);
	service_unref(v);
	struct policy *p = policy_new(&a);
	assert_string_equal(p->ns, "");
	assert_false(p->unparseable);
	policy_unref(p);
	workload_unref(NULL);
	service_unref(NULL);
	policy_unref(NULL);
}

/* Texts and arrays in all orders and sizes, far beyond the room of the first piece; every byte stays what it was. */
static void test_arenas_hold_what_is_put_in(void **state)
{
	enum { N = 300 };
	struct arena *a;
	struct workload *w = workload_new(&a);
	const char *text[N];
	uint64_t *array[N];
	char want[300];

	for (unsigned i = 0; i < N; i++) {
		memset(want, 'a' + (int)(i % 26), sizeof want);
		text[i] = i & 1 ? arena_str(a, want, i) : arena_copy(a, want, i);
		array[i] = arena_alloc(a, i % 7, sizeof **array);
		assert_int_equal((uintptr_t)array[i] % sizeof **array, 0);
		for (unsigned k = 0; k < i % 7; k++) {
			assert_int_equal(array[i][k], 0);
			array[i][k] = i;
		}
	}
	for (unsigned i = 0; i < N; i++) {
		memset(want, 'a' + (int)(i % 26), sizeof want);
		assert_int_equal(strlen(text[i]), i);
		assert_memory_equal(text[i], want, i);
		for (unsigned k = 0; k < i % 7; k++)
			assert_int_equal(array[i][k], i);
	}
	workload_unref(w);
}

static const struct {
	const char *name, *in;
	size_t len;
	const char *want;
} texts[] = {
	{"whole", "abc", 3, "abc"}, {"a part", "abcdef", 3, "abc"},  {"up to a zero byte", "ab\0cd", 5, "ab"},
	{"nothing", "abc", 0, ""},  {"no text at all", NULL, 0, ""}, {"a zero byte first", "\0ab", 3, ""},
};

static void test_texts(void **state)
{
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct arena *a;
		struct workload *w = workload_new(&a);

		if (strcmp(arena_str(a, texts[i].in, texts[i].len), texts[i].want))
			fail_msg("%s: shared", texts[i].name);
		if (strcmp(arena_copy(a, texts[i].in, texts[i].len), texts[i].want))
			fail_msg("%s: own", texts[i].name);
		workload_unref(w);
	}
}

static void test_absurd_sizes_are_refused(void **state)
{
	struct arena *a;
	struct workload *w = workload_new(&a);

	assert_null(arena_alloc(a, SIZE_MAX, 16));
	assert_null(arena_alloc(a, UINT32_MAX, 1));
	assert_null(arena_alloc(a, SIZE_MAX / 8, 8));
	assert_non_null(arena_alloc(a, 0, 8));
	workload_unref(w);
}

/* --- shared texts ---------------------------------------------------------------------------------------------------- */

static void test_equal_texts_are_one(void **state)
{
	struct arena *a, *b;
	struct workload *x = workload_new(&a), *y = workload_new(&b);
	char long_text[INTERN_MAX + 2];
	const char *s = arena_str(a, "shop", 4);

	assert_ptr_equal(arena_str(b, "shop", 4), s);
	assert_ptr_equal(arena_str(a, "shop", 4), s);
	assert_ptr_not_equal(arena_copy(a, "shop", 4), s);
	assert_int_equal(intern_count(), 1);
	workload_unref(x);
	assert_string_equal(s, "shop"); /* y has it still */
	memset(long_text, 'x', sizeof long_text);
	assert_ptr_equal(arena_str(b, long_text, INTERN_MAX), arena_str(b, long_text, INTERN_MAX));
	assert_ptr_not_equal(arena_str(b, long_text, INTERN_MAX + 1), arena_str(b, long_text, INTERN_MAX + 1));
	workload_unref(y);
	assert_int_equal(intern_count(), 0);
}

/* Many come and go in an order that closes gaps in the table. */
static void test_texts_come_and_go(void **state)
{
	enum { N = 5000 };
	uint32_t *id = malloc(N * sizeof *id), again;
	const char **s = malloc(N * sizeof *s);
	char text[16];

	for (unsigned i = 0; i < N; i++) {
		snprintf(text, sizeof text, "text %u", i);
		s[i] = intern_get(text, strlen(text), &id[i]);
	}
	assert_int_equal(intern_count(), N);
	for (unsigned i = 0; i < N; i += 3)
		intern_put(id[i]);
	for (unsigned i = 0; i < N; i++) {
		snprintf(text, sizeof text, "text %u", i);
		const char *now = intern_get(text, strlen(text), &again);
		if (i % 3) {
			assert_ptr_equal(now, s[i]);
			assert_int_equal(again, id[i]);
			intern_put(again);
		} else {
			assert_string_equal(now, text);
			id[i] = again;
		}
	}
	for (unsigned i = N; i--;)
		intern_put(id[i]);
	free(id);
	free(s);
}

static void *texts_main(void *arg)
{
	for (unsigned round = 0; round < 2000; round++) {
		struct arena *a;
		struct workload *w = workload_new(&a);
		char text[8];

		for (unsigned i = 0; i < 8; i++) {
			snprintf(text, sizeof text, "%u", (round + i) % 16);
			if (strcmp(arena_str(a, text, strlen(text)), text))
				abort();
		}
		workload_unref(w);
	}
	return arg;
}

static void test_texts_from_several_threads(void **state)
{
	pthread_t thread[3];

	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, texts_main, NULL), 0);
	for (unsigned i = 0; i < 3; i++)
		pthread_join(thread[i], NULL);
}

/* --- versions ------------------------------------------------------------------------------------------------------ */

static void test_a_version_keeps_its_description_and_endpoints(void **state)
{
	struct arena *a;
	struct service *d = service_new(&a);
	struct workload *w = workload_new(&a);

	w->name = arena_str(a, "pod", 3);
	struct service *v = service_version(d, 2);
	service_unref(d);
	v->endpoints[v->n_endpoints++].workload = workload_ref(w);
	workload_unref(w);
	assert_ptr_equal(service_description(v), d);
	assert_ptr_equal(service_description(d), d);
	assert_string_equal(v->endpoints[0].workload->name, "pod");
	service_unref(service_ref(v));
	assert_string_equal(v->endpoints[0].workload->name, "pod");
	service_unref(v);
}

/* --- indexes ------------------------------------------------------------------------------------------------------- */

static unsigned found(const struct index *ix, uint32_t hash, const void *object)
{
	struct index_cursor c;
	unsigned n = 0;
	void *p;

	index_find(ix, hash, &c);
	while ((p = index_next(&c)))
		n += p == object;
	return n;
}

static unsigned all_of(const struct index *ix, uint32_t hash)
{
	struct index_cursor c;
	unsigned n = 0;

	for (index_find(ix, hash, &c); index_next(&c);)
		n++;
	return n;
}

static void test_index(void **state)
{
	struct index ix = {0};
	struct garbage g = {0};
	struct index_cursor each = {0};
	int a, b, c, d;

	assert_int_equal(found(&ix, 1, &a), 0); /* nothing was ever added */
	index_remove(&ix, 1, &a);
	assert_null(index_each(&ix, &each));
	assert_int_equal(index_reserve(&ix, 8, &g), 0);
	index_add(&ix, 1, &a);
	index_add(&ix, 1, &b);
	index_add(&ix, 1, &a);
	index_add(&ix, 0, &c);
	assert_int_equal(found(&ix, 1, &a), 2);
	assert_int_equal(found(&ix, 1, &b), 1);
	assert_int_equal(found(&ix, 0, &c), 1);
	assert_int_equal(found(&ix, 2, &a), 0);
	index_remove(&ix, 2, &b); /* not under this hash */
	assert_int_equal(ix.live, 4);
	index_remove(&ix, 1, &a);
	assert_int_equal(found(&ix, 1, &a), 1);
	assert_int_equal(found(&ix, 1, &b), 1); /* behind the gap */
	assert_int_equal(all_of(&ix, 1), 3);	/* with `c`, whose hash of 0 counts as 1; the gap is nothing */
	index_put(&ix, 1, &b, &d);
	assert_int_equal(found(&ix, 1, &b), 0);
	assert_int_equal(found(&ix, 1, &d), 1);
	assert_int_equal(ix.live, 3);
	index_put(&ix, 5, &b, &b); /* nothing to replace */
	index_put(&ix, 6, NULL, &b);
	assert_int_equal(found(&ix, 5, &b) + found(&ix, 6, &b), 2);
	assert_int_equal(ix.live, 5);
	index_free(&ix);
}

/* Churn within the room that was reserved: tombstones neither fill the table nor make it grow for ever. */
static void test_index_churn_is_bounded(void **state)
{
	struct index ix = {0};
	struct garbage g = {0};
	static char object[100];

	for (unsigned i = 0; i < 100000; i++) {
		assert_int_equal(index_reserve(&ix, 1, &g), 0);
		if (i >= 50)
			index_remove(&ix, (i - 50) * 2654435761u, &object[(i - 50) % 100]);
		index_add(&ix, i * 2654435761u, &object[i % 100]);
		assert_int_equal(found(&ix, i * 2654435761u, &object[i % 100]), 1);
		if (i >= 50)
			assert_int_equal(found(&ix, (i - 50) * 2654435761u, &object[(i - 50) % 100]), 0);
	}
	assert_int_equal(ix.live, 50);
	assert_true(ix.used < 200);
	garbage_flush(&g);
	garbage_wait();
	index_free(&ix);
}

static void test_index_grows(void **state)
{
	enum { N = 20000 };
	struct index ix = {0};
	struct garbage g = {0};
	struct index_cursor c = {0};
	static char object[N];
	unsigned n = 0;

	for (unsigned i = 0; i < N; i++) {
		assert_int_equal(index_reserve(&ix, 1, &g), 0);
		index_add(&ix, i * 2654435761u, &object[i]);
	}
	for (unsigned i = 0; i < N; i++)
		assert_int_equal(found(&ix, i * 2654435761u, &object[i]), 1);
	while (index_each(&ix, &c))
		n++;
	assert_int_equal(n, N);
	garbage_flush(&g);
	garbage_wait();
	index_free(&ix);
}

int main(void)
{
	mallopt(M_PERTURB, 0x5a); /* new memory is not zero */
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(test_new_objects_are_empty, nothing_left),
		cmocka_unit_test_teardown(test_arenas_hold_what_is_put_in, nothing_left),
		cmocka_unit_test_teardown(test_texts, nothing_left),
		cmocka_unit_test_teardown(test_absurd_sizes_are_refused, nothing_left),
		cmocka_unit_test_teardown(test_equal_texts_are_one, nothing_left),
		cmocka_unit_test_teardown(test_texts_come_and_go, nothing_left),
		cmocka_unit_test_teardown(test_texts_from_several_threads, nothing_left),
		cmocka_unit_test_teardown(test_a_version_keeps_its_description_and_endpoints, nothing_left),
		cmocka_unit_test(test_index),
		cmocka_unit_test(test_index_churn_is_bounded),
		cmocka_unit_test(test_index_grows),
	};
	return cmocka_run_group_tests_name("mesh", tests, NULL, NULL);
}
