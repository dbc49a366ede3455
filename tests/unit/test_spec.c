/* test_spec.c - YAML as a tree with marks; what is refused on the way, and where. */
#include "harness/spec.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

/* Reads text as a file called "f" would be read; the errors in one string, line by line. */
static char *errors_of(const char *text, size_t n, hs_node **root)
{
    char path[] = "/tmp/test_spec.XXXXXX", *all = NULL;
    size_t size;
    hs_errors e = { 0 };
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text, n) == (ssize_t)n && !close(fd));
    hs_node *node = hs_spec_file(path, &e);
    FILE *out = open_memstream(&all, &size);
    for (size_t i = 0; i < e.n; i++)                /* the path is not the test's matter */
        if (!strncmp(e.at[i].text, path, strlen(path))) memmove(e.at[i].text, e.at[i].text + strlen(path) + 1, strlen(e.at[i].text) - strlen(path));
    hs_errors_print(&e, out);
    fclose(out);
    hs_errors_release(&e);
    unlink(path);
    if (root) *root = node;
    else hs_node_free(node);
    return all;
}

/* Expects exactly these errors; "" when there are none. */
static void expect(const char *text, const char *errors)
{
    char *got = errors_of(text, strlen(text), NULL);
    assert_string_equal(got, errors);
    free(got);
}

static void a_tree(void **state)
{
    hs_node *root;
    (void)state;
    const char *text = "a: 1\nb:\n  - x\n  - {c: \"3\", d: ~}\n";
    char *errors = errors_of(text, strlen(text), &root);
    assert_string_equal(errors, "");
    const hs_node *d = hs_node_get(hs_node_get(root, "b")->item[1], "d"), *c = hs_node_get(hs_node_get(root, "b")->item[1], "c");
    assert_true(d->line == 4 && d->col == 17 && hs_node_is_null(d));
    assert_true(c->line == 4 && c->col == 9 && !c->plain);
    assert_null(hs_node_get(root, "z"));
    assert_null(hs_node_get(d, "z"));
    json_t *j = hs_node_json(root);
    char *dump = json_dumps(j, JSON_COMPACT);
    assert_string_equal(dump, "{\"a\":1,\"b\":[\"x\",{\"c\":\"3\",\"d\":null}]}");
    free(dump);
    json_decref(j);
    hs_node_free(root);
    free(errors);
}

static void structure(void **state)
{
    (void)state;
    expect("", "1:1: is empty: an experiment is expected\n");
    expect("# only a comment\n", "1:1: is empty: an experiment is expected\n");
    expect("a: 1\na: 2\n", "2:1: the key 'a' is given twice, first on line 1\n");
    expect("a: {b: 1, c: 2, b: 3}\n", "1:17: the key 'b' is given twice, first on line 1\n");
    expect("a: &x 1\nb: *x\n", "1:4: anchors (&x) are not supported\n2:4: aliases (*x) are not supported: write the value again\n");
    expect("a: &x [1]\n", "1:4: anchors (&x) are not supported\n");
    expect("a: {<<: 1}\n", "1:5: merge keys (<<) are not supported: write the keys out\n");
    expect("a: !!str 1\n", "1:4: tags (tag:yaml.org,2002:str) are not supported\n");
    expect("? [a]\n: 1\n", "1:3: a key must be a word\n");
    expect("a: 1\n---\nb: 2\n", "2:1: a second document begins here: a file holds one experiment\n");
    expect("a:\n\tb: 1\n", "2:1: a tab: YAML is indented with spaces\n");
    expect("a: [1, 2\n", "2:1: is not YAML: while parsing a flow sequence, did not find expected ',' or ']'\n");
    expect("a: \"x\\0y\"\n", "1:4: a zero byte in a text\n");
    expect("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[", "1:33: is nested too deeply\n");
}

static void booleans_of_1_1(void **state)
{
    (void)state;
    expect("a: true\nb: false\nc: \"no\"\nd: 'on'\nno: 1\ny: n\nnorway: nope\n", "");
    expect("a: no\n", "1:4: 'no' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"no\" in quotes for the word\n");
    expect("a: [1, On]\n", "1:8: 'On' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"On\" in quotes for the word\n");
    expect("a: TRUE\n", "1:4: 'TRUE' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"TRUE\" in quotes for the word\n");
}

static void encodings(void **state)
{
    (void)state;
    expect("\xef\xbb\xbf" "a: 1\n", "");
    expect("\xc3\xbc: \xc3\xbc\nb: \xff\n", "2:4: is not UTF-8 text (invalid leading UTF-8 octet)\n");
    expect("a: \xc3\xbc, \xc3(\n", "1:8: is not UTF-8 text (invalid trailing UTF-8 octet)\n");
    char *got = errors_of("a: \0b\n", 6, NULL);
    assert_string_equal(got, "1:4: is not UTF-8 text (control characters are not allowed)\n");
    free(got);
}

static void several_errors_in_order(void **state)
{
    (void)state;
    expect("z: off\na: {b: 1, b: 2}\nz: 3\n",
           "1:4: 'off' is a boolean in YAML 1.1 and a word in YAML 1.2: write true or false, or \"off\" in quotes for the word\n"
           "2:11: the key 'b' is given twice, first on line 2\n"
           "3:1: the key 'z' is given twice, first on line 1\n");
}

static void unknown_keys(void **state)
{
    static const char *const names[] = { "device", "dtype" };
    hs_errors e = { 0 };
    (void)state;
    hs_node *map = hs_spec_text("{devise: 1, dtype: 2, other: 3}", "--set x", &e);
    hs_node_known(map, "a thing", names, 2, &e);
    assert_int_equal(e.n, 2);
    assert_string_equal(e.at[0].text, "--set x: a thing has no key 'devise'; did you mean 'device'?");
    assert_string_equal(e.at[1].text, "--set x: a thing has no key 'other'; known are device, dtype");
    hs_node_free(map);
    hs_errors_release(&e);
}

static void unreadable(void **state)
{
    hs_errors e = { 0 };
    (void)state;
    assert_null(hs_spec_file("/nonexistent/x.yaml", &e));
    assert_null(hs_spec_file("/", &e));
    assert_string_equal(e.at[0].text, "/nonexistent/x.yaml: No such file or directory");
    assert_string_equal(e.at[1].text, "/: Is a directory");
    hs_errors_release(&e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree), cmocka_unit_test(structure), cmocka_unit_test(booleans_of_1_1), cmocka_unit_test(encodings),
        cmocka_unit_test(several_errors_in_order), cmocka_unit_test(unknown_keys), cmocka_unit_test(unreadable) };
    return cmocka_run_group_tests_name("spec", tests, NULL, NULL);
}
