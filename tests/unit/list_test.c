/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive lists, and the short texts that several objects share. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/list.h"
#include "base/rstr.h"

struct item {
	struct list link;
	char name;
};

static void assert_items(struct list *head, const char *want)
{
	char forward[8] = "", backward[8] = "";
	size_t n = 0;

	list_for_each (p, head)
		forward[n++] = list_entry(p, struct item, link)->name;
	for (struct list *p = head->prev; p != head; p = p->prev)
		backward[--n] = list_entry(p, struct item, link)->name;
	assert_string_equal(forward, want);
	assert_memory_equal(backward, want, strlen(want));
}

/* "+x" adds at the end, "^x" in front, "-x" takes out. */
static const struct {
	const char *name, *steps, *want;
} lists[] = {
	{"empty", "", ""},
	{"in order", "+a+b+c", "abc"},
	{"in front", "^a^b^c", "cba"},
	{"both", "+a^b+c", "bac"},
	{"first out", "+a+b+c-a", "bc"},
	{"middle out", "+a+b+c-b", "ac"},
	{"last out", "+a+b+c-c", "ab"},
	{"all out", "+a+b-a-b", ""},
	{"out twice", "+a+b-a-a", "b"},
	{"out and in again", "+a+b-a+a", "ba"},
	{"out without having been in", "+a-b", "a"},
};

static void test_lists(void **state)
{
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		struct item item[3] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}};
		struct list head;

		list_init(&head);
		for (unsigned k = 0; k < 3; k++)
			list_init(&item[k].link);
		for (const char *s = lists[i].steps; *s; s += 2) {
			struct list *link = &item[s[1] - 'a'].link;
			if (s[0] == '+')
				list_add_tail(&head, link);
			else if (s[0] == '^')
				list_add(&head, link);
			else
				list_del(link);
		}
		assert_items(&head, lists[i].want);
		assert_int_equal(list_empty(&head), !*lists[i].want);
	}
}

static const struct {
	const char *name;
	unsigned has, more; /* items that are there, that come */
	const char *want;
} moves[] = {
	{"nothing to nothing", 0, 0, ""}, {"nothing to some", 2, 0, "ab"},   {"one to nothing", 0, 1, "a"},
	{"some to nothing", 0, 3, "abc"}, {"some behind some", 1, 2, "abc"},
};

static void test_moves(void **state)
{
	for (size_t i = 0; i < sizeof moves / sizeof *moves; i++) {
		struct item item[3] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}};
		struct list to, from;

		list_init(&to);
		list_init(&from);
		for (unsigned k = 0; k < moves[i].has + moves[i].more; k++)
			list_add_tail(k < moves[i].has ? &to : &from, &item[k].link);
		list_move_all(&to, &from);
		assert_items(&to, moves[i].want);
		assert_true(list_empty(&from));
		list_add_tail(&from, &(struct item){.name = 'd'}.link);
		assert_items(&from, "d");
	}
}

static void test_items_may_go_while_they_are_visited(void **state)
{
	struct item item[3] = {{.name = 'a'}, {.name = 'b'}, {.name = 'c'}};
	struct list head;

	list_init(&head);
	for (unsigned k = 0; k < 3; k++)
		list_add_tail(&head, &item[k].link);
	list_for_each_safe (p, tmp, &head)
		if (list_entry(p, struct item, link)->name != 'b')
			list_del(p);
	assert_items(&head, "b");
}

static void test_shared_texts(void **state)
{
	struct rstr *r = rstr_new("text");

	assert_null(rstr_new(NULL));
	assert_null(rstr_ref(NULL));
	assert_null(rstr_text(NULL));
	rstr_unref(NULL);
	assert_ptr_equal(rstr_ref(r), r);
	rstr_unref(r);
	assert_string_equal(rstr_text(r), "text");
	rstr_unref(r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_moves),
		cmocka_unit_test(test_items_may_go_while_they_are_visited),
		cmocka_unit_test(test_shared_texts),
	};
	return cmocka_run_group_tests_name("list", tests, NULL, NULL);
}
