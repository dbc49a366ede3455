/* data_set.h - a data set of one's own in a folder of its own, prepared into a cache of its own. */
#ifndef TEST_DATA_SET_H
#define TEST_DATA_SET_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "tasks/data/data.h"
#include "tasks/data/folders.h"

static char data_folder[64], data_why[1024], data_said[1024];

static inline void keep_said(void *ctx, const char *sentence)
{
    (void)ctx;
    snprintf(data_said + strlen(data_said), sizeof data_said - strlen(data_said), "%s\n", sentence);
}

static inline int data_setup(void **state)
{
    (void)state;
    strcpy(data_folder, "/tmp/data.XXXXXX");
    return mkdtemp(data_folder) ? setenv("XDG_CACHE_HOME", data_folder, 1) : -1;
}

static inline int data_teardown(void **state)
{
    (void)state;
    return data_folder_remove(data_folder);
}

/* A file of the folder. */
static inline void put_bytes(const char *name, const void *bytes, size_t n)
{
    char path[256];
    snprintf(path, sizeof path, "%s/%s", data_folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
static inline void put_file(const char *name, const char *text) { put_bytes(name, text, strlen(text)); }

/* 0 and the opened set, or -1 and the sentence in data_why. */
static inline int prepare_with(const data_set *set, data_prepare_args args, data_tokens *t)
{
    data_prepared done;
    args.from[args.nfrom++] = data_folder;
    args.say = keep_said;
    *data_why = *data_said = 0;
    if (data_prepare(set, &args, &done, data_why, sizeof data_why) != 0) return -1;
    return data_open(done.path, t, data_why, sizeof data_why);
}

static inline int prepare_set(const data_set *set, data_tokens *t)
{
    return prepare_with(set, (data_prepare_args){ .level = -1, .min_count = -1 }, t);
}

/* Preparing is refused with a sentence that holds `part`. */
static inline void assert_refused(const data_set *set, const char *part)
{
    data_tokens t;
    assert_int_equal(prepare_set(set, &t), -1);
    if (!strstr(data_why, part)) fail_msg("'%s' should hold '%s'", data_why, part);
}

/* The tokens of a split, as words with blanks between them. */
static inline void assert_words(const data_tokens *t, const char *split, const char *expected)
{
    char text[1024] = "";
    const data_split *s = data_find_split(t, split);
    assert_non_null(s);
    for (int64_t i = 0; i < s->n; i++) {
        int32_t id;
        size_t n;
        data_copy(s, i, 1, &id);
        const char *word = data_word(t, id, &n);
        snprintf(text + strlen(text), sizeof text - strlen(text), "%s%.*s", i ? " " : "", (int)n, word);
    }
    assert_string_equal(text, expected);
}
#endif
