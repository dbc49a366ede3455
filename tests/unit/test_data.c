/* test_data.c - prepared sets: what a damaged file does, how tokens are cut, and how they are masked. */
#include <math.h>
#include <sys/stat.h>
#include "data_set.h"
#include "tasks/data/files.h"
#include "tasks/data/format.h"
#include "tasks/data/vocabulary.h"

static const data_file files[] = { { "train", "train.txt" }, { "test", "test.txt", .flags = DATA_OPTIONAL }, { NULL } };
static const data_set words = { "w", .kind = DATA_WORDS, .min_count = 1, .files = files };
static data_tokens t;

/* ---- the file ---------------------------------------------------------------------------------------------------- */

/* A prepared set's bytes, changed at `at` or cut to n, under a name of its own: opening it must say `part`. */
static void assert_damage(const char *bytes, size_t n, long at, const char *part)
{
    char path[128], *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    if (at >= 0) copy[at] ^= 1;
    put_bytes("damaged.tokens", copy, n);
    free(copy);
    snprintf(path, sizeof path, "%s/damaged.tokens", data_folder);
    *data_why = 0;
    assert_int_equal(data_open(path, &t, data_why, sizeof data_why), -1);
    assert_null(t.map);
    if (!strstr(data_why, part) || strncmp(data_why, path, strlen(path))) fail_msg("'%s' should hold '%s'", data_why, part);
}

static void test_damage(void **state)
{
    (void)state;
    put_file("train.txt", "some words of a corpus , and some more words\n");
    assert_int_equal(prepare_set(&words, &t), 0);
    const size_t n = t.size;
    char *bytes = malloc(n);
    memcpy(bytes, t.map, n);
    data_close(&t);
    assert_damage(bytes, 0, -1, "No data available");
    assert_damage(bytes, 100, -1, "shorter than the header");
    assert_damage(bytes, n - 1, -1, "it is truncated: prepare the set again");
    assert_damage(bytes, sizeof(file_header), -1, "it is truncated");
    assert_damage(bytes, n, 0, "it is not a prepared set");
    assert_damage(bytes, n, offsetof(file_header, version), "it is of another version");
    assert_damage(bytes, n, offsetof(file_header, nvocab), "its header is damaged");
    for (size_t at = sizeof(file_header); at < n; at += 7) assert_damage(bytes, n, (long)at, "it is damaged");
    free(bytes);
}

/* A header that is sound in itself but promises what the file has not. */
static void test_hostile(void **state)
{
    (void)state;
    put_file("train.txt", "a b c d e\n");
    assert_int_equal(prepare_set(&words, &t), 0);
    const size_t n = t.size;
    static const struct { size_t field; uint64_t value; const char *part; } lies[] = {
        { offsetof(file_header, nvocab), 1 << 30, "its vocabulary does not lie in it" },
        { offsetof(file_header, nvocab), UINT64_MAX / 4, "its vocabulary does not lie in it" },
        { offsetof(file_header, nvocab), 2, "its vocabulary makes no sense" },
        { offsetof(file_header, words_at), 0, "its vocabulary does not lie in it" },
        { offsetof(file_header, nsplits), 1000, "its header makes no sense" },
        { offsetof(file_header, split) + offsetof(file_split, n), UINT64_MAX, "a split does not lie in it" },
        { offsetof(file_header, split) + offsetof(file_split, n), 3, "its documents are not in order" },
        { offsetof(file_header, split) + offsetof(file_split, end_at), 64, "a split does not lie in it" },
    };
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++) {
        char *copy = aligned_alloc(DATA_SECTION, n);
        memcpy(copy, t.map, n);
        memcpy(copy + lies[i].field, &lies[i].value, 8);
        file_header *h = (file_header *)copy;
        h->header_sum = 0;
        h->header_sum = data_sum(h, sizeof *h);
        data_tokens keep = t;
        assert_damage(copy, n, -1, lies[i].part);
        t = keep;
        free(copy);
    }
    data_close(&t);
}

static void test_by_name(void **state)
{
    (void)state;
    assert_int_equal(data_open("w", &t, data_why, sizeof data_why), -1);
    assert_non_null(strstr(data_why, "the data set w is not prepared"));
    assert_non_null(strstr(data_why, "harness data prepare w"));
    put_file("train.txt", "first\n");
    assert_int_equal(prepare_set(&words, &t), 0);
    data_close(&t);
    assert_int_equal(data_open("w", &t, data_why, sizeof data_why), 0);
    assert_words(&t, "train", "first <eos>");
    char digest[65];
    memcpy(digest, t.digest, sizeof digest);
    data_close(&t);
    put_file("train.txt", "second\n");                  /* other bytes: another set, and now this one */
    assert_int_equal(prepare_set(&words, &t), 0);
    data_close(&t);
    assert_int_equal(data_open("w", &t, data_why, sizeof data_why), 0);
    assert_words(&t, "train", "second <eos>");
    assert_string_not_equal(digest, t.digest);
    assert_null(data_find_split(&t, "valid"));
    data_close(&t);
}

/* The widths of tokens: one byte up to 256 words, two up to 65,536, then four. */
static void test_widths(void **state)
{
    (void)state;
    static const struct { int words, width; } cases[] = { { 254, 1 }, { 255, 2 }, { 65534, 2 }, { 65535, 4 } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/train.txt", data_folder);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        for (int w = 0; w < cases[i].words; w++) fprintf(f, "w%d ", w);
        fputc('\n', f);
        fclose(f);
        assert_int_equal(prepare_set(&words, &t), 0);
        const data_split *s = data_find_split(&t, "train");
        assert_int_equal(t.nvocab, cases[i].words + 2);
        assert_int_equal(s->width, cases[i].width);
        int32_t x[2];
        data_copy(s, cases[i].words - 1, 2, x);
        assert_int_equal(x[0], cases[i].words);         /* words in the order in which they came, all once, behind <eos> */
        assert_int_equal(x[1], 0);
        for (int w = 0; w < cases[i].words; w += 97) {
            char word[16];
            assert_int_equal(data_id(&t, word, (size_t)snprintf(word, sizeof word, "w%d", w)), w + 1);
        }
        data_close(&t);
    }
}

/* ---- cuts ------------------------------------------------------------------------------------------------------------ */

static void test_streams(void **state)
{
    (void)state;
    static const uint16_t x[11] = { 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 };
    const data_split s = { .tokens = x, .width = 2, .n = 11 };
    int32_t out[6];
    assert_int_equal(data_stream_length(11, 3), 3);     /* tokens 9 and 10 are dropped */
    data_streams(&s, 3, 1, 2, out);
    static const int32_t expected[] = { 1, 2, 4, 5, 7, 8 };
    assert_memory_equal(out, expected, sizeof expected);
}

/* A one-to-one map for every n, another for every draw, and no order to be seen in it. */
static void test_permuted(void **state)
{
    (void)state;
    enum { MOST = 1000 };
    for (int64_t n = 1; n <= MOST; n = n < 20 ? n + 1 : n * 3 / 2) {
        int seen[MOST] = { 0 };
        for (int64_t i = 0; i < n; i++) {
            const int64_t to = data_permuted(7, 3, n, i);
            assert_in_range(to, 0, n - 1);
            seen[to]++;
        }
        for (int64_t i = 0; i < n; i++) assert_int_equal(seen[i], 1);
    }
    int fixed = 0, same = 0, ascents = 0;
    for (int64_t i = 0; i < MOST; i++) {
        fixed += data_permuted(7, 3, MOST, i) == i;
        same += data_permuted(7, 3, MOST, i) == data_permuted(7, 4, MOST, i);
        ascents += i > 0 && data_permuted(7, 3, MOST, i) > data_permuted(7, 3, MOST, i - 1);
    }
    assert_in_range(fixed, 0, 6);                       /* one expected, as of a random order */
    assert_in_range(same, 0, 6);
    assert_in_range(ascents, 460, 540);                 /* half, within four deviations of 9 */
}

static void test_segments(void **state)
{
    (void)state;
    assert_int_equal(data_segments(11, 3, 0), 3);       /* 10 targets */
    assert_int_equal(data_segments(11, 3, 1), 4);
    assert_int_equal(data_segments(10, 3, 1), 3);
    assert_int_equal(data_segments(1, 3, 1), 0);
    assert_int_equal(data_segments(0, 3, 1), 0);
    const data_cut last = data_segment(11, 3, 3);
    assert_int_equal(last.begin, 9);
    assert_int_equal(last.length, 1);
}

/* Each target once, in order, and with the context that was asked for. */
static void test_windows(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 40; n++) for (int32_t length = 1; length < 12; length++) for (int32_t stride = 1; stride <= length; stride++) {
        int64_t scored = 0;
        const int64_t count = data_windows(n, length, stride);
        for (int64_t i = 0; i < count; i++) {
            const data_cut w = data_window(n, length, stride, i);
            assert_true(w.begin >= 0 && w.length >= 1 && w.length <= length && w.score >= 1 && w.score <= w.length);
            assert_int_equal(w.begin + w.length - w.score, scored);     /* the first target that counts is the next one */
            scored = w.begin + w.length;
            if (i) assert_int_equal(w.length, length);
            if (i && i + 1 < count) assert_int_equal(w.score, stride);
        }
        assert_int_equal(scored, n > 1 ? n - 1 : 0);
    }
}

/* Each target once, in order within a reader's stretch, in as few turns as the longest stretch needs. */
static void test_turns(void **state)
{
    (void)state;
    for (int64_t n = 0; n < 40; n++) for (int32_t length = 1; length < 12; length++) for (int32_t streams = 1; streams < 8; streams++) {
        int scored[40] = { 0 };
        const int64_t turns = data_turns(n, length, streams);
        for (int32_t b = 0; b < streams; b++) {
            int64_t last = -1;
            for (int64_t i = 0; i < turns; i++) {
                const data_cut c = data_turn(n, length, streams, b, i);
                assert_true(c.begin >= 0 && c.length >= 0 && c.length <= length && c.score == c.length);
                if (!c.length) continue;
                assert_true(last < 0 ? i == 0 : c.begin == last);       /* it goes on where it was */
                last = c.begin + c.length;
                for (int64_t k = c.begin; k < last; k++) scored[k]++;
                const data_cut alone = data_segment(n, length, i);
                assert_true(streams > 1 || (c.begin == alone.begin && c.length == alone.length));
            }
        }
        for (int64_t k = 0; k < n - 1; k++) assert_int_equal(scored[k], 1);
        assert_int_equal(turns, n > 1 ? ((n - 1 + streams - 1) / streams + length - 1) / length : 0);
    }
}

static void test_masking(void **state)
{
    (void)state;
    enum { N = 100000 };
    static int32_t x[N], y[N], target[N], again[N];
    for (int i = 0; i < N; i++) x[i] = y[i] = i % 27;
    const data_masking m = { .seed = 3, .stream = 5, .draw = 7, .rate = 0.15, .mask = 26, .first = 1, .last = 25 };
    data_mask(&m, N, x, target);
    int chosen = 0, masked = 0, kept = 0, eligible = 0;
    for (int i = 0; i < N; i++) {
        const int may = i % 27 >= 1 && i % 27 <= 25;
        eligible += may;
        if (target[i] < 0) assert_int_equal(x[i], i % 27);
        else {
            assert_true(may);
            assert_int_equal(target[i], i % 27);
            chosen++;
            masked += x[i] == 26;
            kept += x[i] == i % 27;
            assert_true(x[i] == 26 || (x[i] >= 1 && x[i] <= 25));
        }
    }
    assert_true(fabs(chosen / (double)eligible - 0.15) < 0.005);        /* four standard deviations */
    assert_true(fabs(masked / (double)chosen - 0.8) < 0.014);
    assert_true(fabs(kept / (double)chosen - (0.1 + 0.1 / 25)) < 0.011);
    data_mask(&m, 1000, y, again);                      /* an element depends on its index alone */
    assert_memory_equal(again, target, 1000 * sizeof *again);
    assert_memory_equal(y, x, 1000 * sizeof *y);
    data_masking other = m;
    other.draw = 8;
    for (int i = 0; i < N; i++) y[i] = i % 27;
    data_mask(&other, N, y, again);
    assert_memory_not_equal(again, target, sizeof again);
}

static void test_unigram(void **state)
{
    (void)state;
    put_file("train.txt", "a a a b\n");
    put_file("test.txt", "a b b c\n");
    assert_int_equal(prepare_set(&words, &t), 0);
    const data_unigram u = data_unigram_of(&t, data_find_split(&t, "test"), data_id(&t, "<eos>", 5));
    assert_int_equal(u.n, 4);
    assert_true(u.accuracy == 0.25);                    /* 'a' is the commonest of train */
    const double loss = -(log(3.0 / 4) + 2 * log(1.0 / 4) + log(1.0 / 4)) / 4;      /* <unk>, never seen, as if once */
    assert_true(fabs(u.perplexity - exp(loss)) < 1e-12);
    data_close(&t);
}

/* ---- vocabulary and files -------------------------------------------------------------------------------------------------- */

static void test_vocabulary(void **state)
{
    (void)state;
    data_vocab v;
    char word[16];
    assert_int_equal(data_vocab_init(&v), 0);
    for (int round = 0; round < 2; round++)
        for (int i = 0; i < 30000; i++)
            assert_int_equal(data_vocab_add(&v, word, (size_t)snprintf(word, sizeof word, "%d", i * 7919), 2), i);
    assert_int_equal(v.n, 30000);
    assert_int_equal(v.count[29999], 4);
    assert_int_equal(data_vocab_find(&v, "no", 2), -1);
    assert_int_equal(data_vocab_add(&v, "", 0, 1), 30000);      /* the empty word is a word */
    assert_int_equal(data_vocab_find(&v, "", 0), 30000);
    data_vocab_release(&v);
}

static void test_paths(void **state)
{
    (void)state;
    char deep[128];
    data_paths p;
    const char *folders[] = { data_folder };
    snprintf(deep, sizeof deep, "%s/x/train", data_folder);
    assert_int_equal(data_folder_make(deep), 0);
    put_file("x/train/2.txt.xz", "");
    put_file("x/train/1.txt", "");
    put_file("x/train/1.txt.gz", "");
    put_file("x/3.txt", "");
    assert_int_equal(data_paths_find(&p, folders, 1, "none.txt|train/*.txt|3.txt", data_why, sizeof data_why), 0);
    assert_int_equal(p.n, 2);
    assert_non_null(strstr(p.path[0], "/x/train/1.txt"));
    assert_null(strstr(p.path[0], ".gz"));
    assert_non_null(strstr(p.path[1], "/x/train/2.txt.xz"));
    data_paths_release(&p);
    assert_int_equal(data_paths_find(&p, folders, 1, "rain/*.txt|.txt", data_why, sizeof data_why), 0);     /* whole components */
    assert_int_equal(p.n, 0);
    data_paths_release(&p);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, data_setup, data_teardown)
        T(test_damage), T(test_hostile), T(test_by_name), T(test_widths), T(test_streams), T(test_permuted), T(test_segments), T(test_windows), T(test_turns),
        T(test_masking), T(test_unigram), T(test_vocabulary), T(test_paths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
