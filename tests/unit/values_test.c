/* SPDX-License-Identifier: Apache-2.0 */
/* Table tests of base/values: what a configuration's texts mean, and which are refused. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "base/values.h"

static const struct {
	const char *name, *text;
	long want; /* -1: refused */
} durations[] =
	{
		{"seconds without a unit", "30", 30000},
		{"zero", "0", 0},
		{"milliseconds", "250ms", 250},
		{"a part of a unit", "1.5s", 1500},
		{"a sum", "1h30m", 5400000},
		{"a sum with a plus", "3m+31", 211000},
		{"a sum with a blank", "3m 31s", 211000},
		{"days and weeks", "1w1d", 691200000},
		{"two points", "1.2.3s", -1},
		{"empty", "", -1},
		{"a unit alone", "s", -1},
		{"no unit of ours", "5y", -1},
		{"negative", "-1s", -1},
		{"endless", "inf", -1},
		{"no number", "nan", -1},
		{"longer than an int", "25d", -1},
},
  cpus[] =
	  {
		  {"whole", "2", 2},
		  {"a part", "1.5", 2},
		  {"thousandths", "500m", 1},
		  {"none", "0", 0},
		  {"a unit that is none", "2k", -1},
		  {"negative", "-1", -1},
		  {"more than there are", "5000", -1},
},
  modes[] =
	  {
		  {"octal", "0600", 0600},
		  {"without the zero", "644", 0644},
		  {"all that there is", "777", 0777},
		  {"more than permissions", "4755", -1},
		  {"no octal digit", "0680", -1},
		  {"as ls shows it", "rw-------", -1},
		  {"negative", "-1", -1},
		  {"empty", "", -1},
},
  numbers[] = {
	  {"decimal", "15014", 15014},
	  {"zeros in front", "007", 7},
	  {"empty", "", -1},
	  {"a blank in front", " 1", -1},
	  {"a sign", "+1", -1},
	  {"with a unit", "1s", -1},
	  {"larger than an int", "2147483648", -1},
};

#define EACH(table, read)                                                                     \
	for (size_t i = 0; i < sizeof(table) / sizeof *(table); i++) {                        \
		unsigned long out = 0;                                                        \
		int e = read((table)[i].text, &out);                                          \
                                                                                              \
		if (e != ((table)[i].want < 0 ? -EINVAL : 0))                                 \
			fail_msg("%s: \"%s\" gave %d", (table)[i].name, (table)[i].text, e);  \
		if (!e && out != (unsigned long)(table)[i].want)                              \
			fail_msg("%s: \"%s\" is %lu", (table)[i].name, (table)[i].text, out); \
	}

static void test_numbers(void **state)
{
	EACH(numbers, value_number);
	EACH(durations, value_duration);
	EACH(cpus, value_cpus);
	EACH(modes, value_mode);
}

static const struct {
	const char *name, *list, *entries; /* joined by "|" */
} lists[] = {
	{"none", "", ""},
	{"one", "a", "a"},
	{"several", "a,b,c", "a|b|c"},
	{"blanks around", " a ,\tb\n, c", "a|b|c"},
	{"empty entries", ",a,, ,b,", "a|b"},
	{"a blank within is no separator", "a b,c", "a b|c"},
};

static void test_lists(void **state)
{
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		const char *rest = lists[i].list;
		char joined[64] = "", name[16];
		struct span one;

		while (value_next(&rest, &one)) {
			snprintf(joined + strlen(joined), sizeof joined - strlen(joined), "%s%.*s",
				 joined[0] ? "|" : "", (int)one.len, one.at);
			snprintf(name, sizeof name, "%.*s", (int)one.len, one.at);
			if (!value_lists(lists[i].list, name))
				fail_msg("%s: %s is not found", lists[i].name, name);
		}
		if (strcmp(joined, lists[i].entries))
			fail_msg("%s: read as %s", lists[i].name, joined);
		if (value_lists(lists[i].list, "a-longer-name") || value_lists(lists[i].list, ""))
			fail_msg("%s: finds what is not there", lists[i].name);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_numbers), cmocka_unit_test(test_lists)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
