/* test_data_readers.c - every reader on sound and on odd files: what is defined, and what is refused where. */
#include <math.h>
#include "data_set.h"
#include "tasks/data/read.h"

static data_tokens t;

/* ---- words ---------------------------------------------------------------------------------------------------------- */

static const data_file text_files[] = { { "train", "train.txt" }, { "valid", "valid.txt", .flags = DATA_OPTIONAL }, { NULL } };
static const data_set words = { "w", .kind = DATA_WORDS, .min_count = 1, .files = text_files };
static const data_set rare = { "r", .kind = DATA_WORDS, .min_count = 2, .files = text_files };

static void test_words(void **state)
{
    (void)state;
    put_file("train.txt", " b a b\n\na\tc  b\n");
    put_file("valid.txt", "c d <unk>\n");
    assert_int_equal(prepare_set(&words, &t), 0);
    assert_words(&t, "train", "b a b <eos> <eos> a c b <eos>");
    assert_words(&t, "valid", "c <unk> <unk> <eos>");
    static const char *const order[] = { "<eos>", "b", "a", "c", "<unk>" };    /* 3, 3, 2, 1, 0 times */
    static const int times[] = { 3, 3, 2, 1, 0 };
    assert_int_equal(t.nvocab, 5);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(data_id(&t, order[i], strlen(order[i])), i);
        assert_int_equal(t.count[i], times[i]);
    }
    assert_int_equal(data_id(&t, "zz", 2), -1);
    const data_split *v = data_find_split(&t, "valid");
    assert_int_equal(v->unknown, 2);
    assert_int_equal(v->replaced, 1);                   /* the text wrote the other one itself */
    assert_int_equal(v->bytes, 10);
    assert_int_equal(v->width, 1);
    data_close(&t);
}

static void test_rare_words(void **state)
{
    (void)state;
    put_file("train.txt", "x a a y b b b z c c\n");
    assert_int_equal(prepare_set(&rare, &t), 0);
    assert_words(&t, "train", "<unk> a a <unk> b b b <unk> c c <eos>");
    assert_int_equal(data_id(&t, "<unk>", 5), 1);       /* three times, and before b among its equals */
    assert_int_equal(data_id(&t, "b", 1), 2);
    assert_int_equal(data_id(&t, "a", 1), 3);           /* equal to c, which came later */
    assert_int_equal(data_id(&t, "c", 1), 4);
    data_close(&t);
}

static void test_white_space(void **state)
{
    (void)state;
    put_file("train.txt", "a\xC2\xA0" "b\xE2\x80\x89" "c\xE3\x80\x80" "d\xE2\x80\x93" "e\x0B" "f\x1F" "g\xE2\x80\x8B" "h\r\ni");
    assert_int_equal(prepare_set(&words, &t), 0);
    assert_words(&t, "train", "a b c d\xE2\x80\x93" "e f g\xE2\x80\x8B" "h <eos> i <eos>");
    assert_non_null(strstr(data_said, "1 lines ended in CR LF"));
    data_close(&t);
}

static void test_words_refused(void **state)
{
    (void)state;
    put_file("train.txt", "fine\nnot \xFF fine\n");
    assert_refused(&words, "train.txt:2: byte 5 of the line is not UTF-8 (0xFF)");
    put_file("train.txt", "cut \xE2\x80");
    assert_refused(&words, "train.txt:1: byte 5 of the line is not UTF-8");
    put_bytes("train.txt", "a\0b\n", 4);
    assert_refused(&words, "train.txt:1: there is a NUL byte");
    put_file("train.txt", "");
    assert_refused(&words, "train.txt: the file is empty");
    put_file("train.txt", "fine\n");
    put_file("train.txt.gz", "not packed");
    assert_int_equal(prepare_set(&words, &t), 0);       /* the plain file is preferred */
    data_close(&t);
}

static void test_limit(void **state)
{
    (void)state;
    put_file("train.txt", "a b c\nd e f\ng h i\n");
    assert_int_equal(prepare_with(&words, (data_prepare_args){ .level = -1, .min_count = -1, .limit = 9 }, &t), 0);
    assert_words(&t, "train", "a b c <eos> d e f <eos>");
    data_close(&t);
}

/* ---- bytes ------------------------------------------------------------------------------------------------------------ */

static void test_bytes(void **state)
{
    (void)state;
    static const data_file ranges[] = { { "train", "b.bin", .from = 0, .to = 3 }, { "valid", "b.bin", .from = 3, .to = 5 }, { NULL } };
    static const data_set bytes = { "b", .kind = DATA_BYTES, .files = ranges };
    put_bytes("b.bin", "\0\xFF\nxyz", 6);
    assert_int_equal(prepare_set(&bytes, &t), 0);
    int32_t x[3];
    data_copy(data_find_split(&t, "train"), 0, 3, x);
    assert_int_equal(x[0], 0);
    assert_int_equal(x[1], 255);
    assert_int_equal(x[2], '\n');
    assert_words(&t, "valid", "x y");
    assert_int_equal(t.count[255], 1);
    assert_int_equal(t.count['x'], 0);                  /* not in train */
    assert_int_equal(data_words_of(&t, data_find_split(&t, "train"), 0, 3), 1);
    data_close(&t);
    static const data_set line = { "l", .kind = DATA_BYTES, .files = text_files };
    put_file("train.txt", "  Two words,\tthen\r\nthree more-of them \n");
    assert_int_equal(prepare_set(&line, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    assert_int_equal(data_words_of(&t, s, 0, s->n), 6);
    assert_int_equal(data_words_of(&t, s, 4, 8), 2);    /* "o wo" */
    assert_int_equal(data_words_of(&t, s, 0, 2), 0);
    data_close(&t);
    assert_int_equal(prepare_with(&line, (data_prepare_args){ .level = DATA_WORDS, .min_count = -1 }, &t), 0);
    assert_int_equal(data_words_of(&t, data_find_split(&t, "train"), 0, 3), -1);
    data_close(&t);
    put_bytes("b.bin", "abcd", 4);
    assert_refused(&bytes, "b.bin: it is truncated: 4 bytes, the set has 5 at least");
}

static void test_books(void **state)
{
    (void)state;
    static const data_set books = { "k", .kind = DATA_BYTES, .files = text_files, .form_feeds = 1 };
    put_file("train.txt", "\fone\n\ftwo\n");
    assert_int_equal(prepare_set(&books, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    assert_int_equal(s->n, 8);
    assert_int_equal(s->ndocs, 2);
    assert_int_equal(data_doc_begin(s, 1), 4);
    data_close(&t);
    assert_int_equal(prepare_with(&books, (data_prepare_args){ .level = DATA_WORDS, .min_count = -1 }, &t), 0);
    assert_words(&t, "train", "one <eos> two <eos>");
    assert_int_equal(data_find_split(&t, "train")->ndocs, 2);
    data_close(&t);
}

/* ---- proteins ------------------------------------------------------------------------------------------------------------ */

static const data_file fasta[] = { { "valid", "p.fasta" }, { NULL } };
static const data_set proteins = { "p", .kind = DATA_PROTEIN, .files = fasta };

static void test_proteins(void **state)
{
    (void)state;
    put_file("p.fasta", ">one some words\nACd\n\nef*\n>two\nJXBZUO\r\n");
    assert_int_equal(prepare_set(&proteins, &t), 0);
    assert_words(&t, "valid", "A C D E F <eos> X X B Z U O <eos>");
    assert_int_equal(t.nvocab, 27);
    assert_int_equal(data_id(&t, "<mask>", 6), 26);
    assert_int_equal(data_find_split(&t, "valid")->ndocs, 2);
    assert_non_null(strstr(data_said, "1 letters J read as X"));
    assert_non_null(strstr(data_said, "1 stops"));
    assert_non_null(strstr(data_said, "1 lines ended in CR LF"));
    data_close(&t);
}

static void test_proteins_refused(void **state)
{
    (void)state;
    static const struct { const char *text, *part; } odd[] = {
        { "ACD\n", "p.fasta:1: letters before the first header" },
        { ">a\n>b\nACD\n", "p.fasta:2: the sequence before this line has no letters" },
        { ">a\nACD\n>b\n", "p.fasta:3: the sequence before this line has no letters" },
        { ">a\nAC1D\n", "p.fasta:2: '1' (0x31) at column 3 is no amino acid" },
        { ">a\nAC*D\n", "p.fasta:2: a stop ('*') inside the sequence" },
        { ">a\nA-C\n", "p.fasta:2: '-' (0x2D) at column 2" },
        { ">\nACD\n", "p.fasta:1: a header without a name" },
        { "\n\n", "p.fasta:2: there is no sequence" },
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        put_file("p.fasta", odd[i].text);
        assert_refused(&proteins, odd[i].part);
    }
}

/* Every name falls into exactly one of the parts. */
static void test_protein_parts(void **state)
{
    (void)state;
    static const data_file parts[] = { { "train", "p.fasta", .from = 500, .to = 1000 }, { "valid", "p.fasta", .from = 0, .to = 500 }, { NULL } };
    static const data_set halves = { "h", .kind = DATA_PROTEIN, .files = parts };
    char text[8000] = "";
    for (int i = 0; i < 200; i++) snprintf(text + strlen(text), sizeof text - strlen(text), ">n%d x\nACD\n", i);
    put_file("p.fasta", text);
    assert_int_equal(prepare_set(&halves, &t), 0);
    const int64_t a = data_find_split(&t, "train")->ndocs, b = data_find_split(&t, "valid")->ndocs;
    assert_int_equal(a + b, 200);
    assert_in_range(a, 70, 130);
    data_close(&t);
}

/* ---- pairs ----------------------------------------------------------------------------------------------------------------- */

static const data_file pair_files[] = { { "valid", "a.en", "a.de" }, { "train", "a.en", "a.de" }, { NULL } };
static const data_set pairs = { "pairs", .kind = DATA_PARALLEL, .languages = "en,de", .files = pair_files };
static const data_file tab_files[] = { { "valid", "a.tsv" }, { NULL } };
static const data_set tabs = { "tabs", .kind = DATA_PARALLEL, .languages = "en,de", .files = tab_files };

/* Document i of a split as text. */
static void assert_document(const char *split, int64_t i, const char *expected)
{
    const data_split *s = data_find_split(&t, split);
    assert_non_null(s);
    const int64_t begin = data_doc_begin(s, i), n = (int64_t)s->end[i] - begin;
    assert_int_equal(n, strlen(expected));
    assert_memory_equal((const char *)s->tokens + begin, expected, (size_t)n);
}

static void test_pairs(void **state)
{
    (void)state;
    put_file("a.en", "one\n\n three \r\nfour\n");
    put_file("a.de", "eins\nzwei\ndrei\nvier\n");
    assert_int_equal(prepare_set(&pairs, &t), 0);
    assert_int_equal(data_find_split(&t, "valid.en")->ndocs, 3);
    assert_document("valid.en", 1, "three");
    assert_document("valid.de", 1, "drei");
    assert_non_null(strstr(data_said, "2 pairs left out"));     /* of two splits */
    data_close(&t);
    assert_int_equal(prepare_with(&pairs, (data_prepare_args){ .level = -1, .min_count = -1, .limit = 2 }, &t), 0);
    assert_int_equal(data_find_split(&t, "train.en")->ndocs, 2);
    assert_int_equal(data_find_split(&t, "train.de")->ndocs, 2);
    data_close(&t);
    put_file("a.de", "eins\nzwei\ndrei\n");
    assert_refused(&pairs, "a.en:4: ");
    assert_non_null(strstr(data_why, "a.de has no line that belongs to this one"));
    put_file("a.de", "eins\nzwei\ndrei\nvier\n\n");
    assert_refused(&pairs, "a.de:5: ");                 /* an empty line at the end is a line too */
    put_file("a.en", "\n");
    put_file("a.de", "eins\n");
    assert_refused(&pairs, "valid.en has no tokens");
    put_file("a.en", "one\ntwo\nthree\nfour\n");
    put_file("a.de", "eins\n\xE9t\xE9\ndrei\nvier\n");
    assert_refused(&pairs, "a.de:2: byte 1 of the line is not UTF-8");
}

static void test_tabs(void **state)
{
    (void)state;
    put_file("a.tsv", "src\tone\teins\nsrc\ttwo\tzwei\n");
    assert_int_equal(prepare_set(&tabs, &t), 0);
    assert_document("valid.en", 0, "one");
    assert_document("valid.de", 1, "zwei");
    data_close(&t);
    put_file("a.tsv", "one\teins\ntwo\n");
    assert_refused(&tabs, "a.tsv:2: 1 column, expected 2");
    put_file("a.tsv", "one\teins\n\n");
    assert_refused(&tabs, "a.tsv:2: 1 column, expected 2");
}

/* Training pairs are in another order than in the files, every one of them, and still pairs. */
static void test_shuffled(void **state)
{
    (void)state;
    enum { N = 500 };
    char en[20 * N] = "", de[20 * N] = "", *e = en, *d = de;
    int seen[N] = { 0 }, moved = 0;
    for (int i = 0; i < N; i++) {
        e += sprintf(e, "%d\n", i);
        d += sprintf(d, "die %d\n", i);
    }
    put_file("a.en", en);
    put_file("a.de", de);
    assert_int_equal(prepare_set(&pairs, &t), 0);
    for (int i = 0; i < N; i++) {
        const data_split *s = data_find_split(&t, "train.en");
        char text[24];
        const int64_t begin = data_doc_begin(s, i);
        snprintf(text, sizeof text, "%.*s", (int)((int64_t)s->end[i] - begin), (const char *)s->tokens + begin);
        const int n = atoi(text);
        snprintf(text, sizeof text, "die %d", n);
        assert_document("train.de", i, text);
        seen[n]++;
        moved += n != i;
        assert_document("valid.de", i, (snprintf(text, sizeof text, "die %d", i), text));
    }
    for (int i = 0; i < N; i++) assert_int_equal(seen[i], 1);
    assert_true(moved > N * 9 / 10);
    data_close(&t);
}

static void test_sgm(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "a.sgm", "b.sgm" }, { NULL } };
    static const data_set sgm = { "s", .kind = DATA_PARALLEL, .languages = "en,de", .files = files };
    put_file("a.sgm", "<doc id=\"x\">\n<seg id=\"1\">One &amp; two</seg>\n</doc>\n");
    put_file("b.sgm", "<seg id=\"1\"> Eins </seg>\n");
    assert_int_equal(prepare_set(&sgm, &t), 0);
    assert_document("train.en", 0, "One &amp; two");
    assert_document("train.de", 0, "Eins");
    data_close(&t);
    put_file("b.sgm", "<seg id=\"1\"> Eins\n");
    assert_refused(&sgm, "b.sgm:1: a <seg> that does not end on its line");
}

/* ---- music, images, labels --------------------------------------------------------------------------------------------------- */

static void test_music(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "m.json" }, { NULL } };
    static const data_set music = { "m", .kind = DATA_MUSIC, .files = files };
    put_file("m.json", "{\"train\": [[[65, 60.0], []], [[1, 2, 3, 4]]]}");
    assert_int_equal(prepare_set(&music, &t), 0);
    assert_words(&t, "train", "65 60 rest rest rest rest rest rest 1 2 3 4");
    assert_int_equal(data_find_split(&t, "train")->ndocs, 2);
    data_close(&t);
    static const struct { const char *text, *part; } odd[] = {
        { "{\"train\": [[[65]]", "m.json:1: column" },
        { "{\"test\": []}", "there is no list 'train' in it" },
        { "{\"train\": [[[1, 2, 3, 4, 5]]]}", "train, piece 1, step 1: a step of more than four voices" },
        { "{\"train\": [[[1], [128]]]}", "train, piece 1, step 2: a pitch outside 0..127" },
        { "{\"train\": [[[1.5]]]}", "a pitch is not a whole number" },
        { "{\"train\": [7]}", "train, piece 1: it is not a list of steps" },
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        put_file("m.json", odd[i].text);
        assert_refused(&music, odd[i].part);
    }
}

static void test_images(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "i.bin" }, { NULL } }, raster[] = { { "train", "i.hwc", "i.labels" }, { NULL } };
    static const data_set records = { "i", .kind = DATA_IMAGES, .files = files }, plain = { "j", .kind = DATA_IMAGES, .files = raster };
    static unsigned char record[2 * 3073];
    record[0] = 7;
    record[3073] = 3;
    for (int i = 0; i < 3072; i++) record[1 + i] = (unsigned char)(i / 1024 * 100 + i % 100);
    put_bytes("i.bin", record, sizeof record);
    assert_int_equal(prepare_set(&records, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    assert_int_equal(s->ndocs, 2);
    assert_int_equal(s->label[0], 7);
    assert_int_equal(s->label[1], 3);
    const unsigned char *x = s->tokens;
    assert_int_equal(x[3], record[2]);                  /* the second pixel's red, then its green */
    assert_int_equal(x[4], record[1 + 1024 + 1]);
    put_bytes("i.hwc", x, 2 * 3072);
    data_close(&t);
    put_bytes("i.bin", record, 4000);
    assert_refused(&records, "i.bin: it is truncated: image 2 has 927 of 3073 bytes");
    record[0] = 10;
    put_bytes("i.bin", record, sizeof record);
    assert_refused(&records, "image 1: its label is 10, expected 0..9");
    put_bytes("i.labels", "\x07\x03", 2);
    assert_int_equal(prepare_set(&plain, &t), 0);
    assert_int_equal(data_find_split(&t, "train")->label[1], 3);
    data_close(&t);
    put_bytes("i.labels", "\x07", 1);
    assert_refused(&plain, "i.labels has not as many labels");
}

/* A side of the set's own, and no labels. */
static void test_large_images(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "i.hwc" }, { NULL } };
    static const data_set large = { "large", .kind = DATA_IMAGES, .files = files, .side = 64 };
    static unsigned char image[2 * 12288];
    for (size_t i = 0; i < sizeof image; i++) image[i] = (unsigned char)(i * 31 + i / 251);
    put_bytes("i.hwc", image, sizeof image);
    assert_int_equal(prepare_set(&large, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    assert_int_equal(s->ndocs, 2);
    assert_int_equal(s->end[0], 12288);
    assert_null(s->label);
    assert_memory_equal(s->tokens, image, sizeof image);
    data_close(&t);
    put_bytes("i.hwc", image, 12288 + 7);
    assert_refused(&large, "i.hwc: it is truncated: image 2 has 7 of 12288 bytes");
}

/* ---- sound --------------------------------------------------------------------------------------------------------------------- */

/* The bytes of a WAV file: `extra` bytes of another chunk before the samples. */
typedef struct wav { unsigned char byte[512]; size_t n; } wav;
static void put_le(wav *w, uint32_t x, int bytes)
{
    for (; bytes--; x >>= 8) w->byte[w->n++] = (unsigned char)x;
}
static void put_chunk(wav *w, const char *name, uint32_t n)
{
    memcpy(w->byte + w->n, name, 4);
    w->n += 4;
    put_le(w, n, 4);
}
static wav make_wav(int channels, int rate, int bits, int extra, int samples, const int16_t *sample)
{
    wav w = { .n = 0 };
    put_chunk(&w, "RIFF", 0);                           /* the sizes of files that were streamed are as they are */
    memcpy(w.byte + w.n, "WAVE", 4), w.n += 4;
    put_chunk(&w, "fmt ", 16);
    put_le(&w, 1, 2), put_le(&w, (uint32_t)channels, 2), put_le(&w, (uint32_t)rate, 4), put_le(&w, (uint32_t)(rate * channels * 2), 4);
    put_le(&w, (uint32_t)channels * 2, 2), put_le(&w, (uint32_t)bits, 2);
    if (extra) put_chunk(&w, "LIST", (uint32_t)extra), w.n += (size_t)(extra + extra % 2);
    put_chunk(&w, "data", (uint32_t)samples * 2);
    for (int i = 0; i < samples; i++) put_le(&w, (uint16_t)sample[i], 2);
    return w;
}

/* Every sample against the formula, by the borders between its steps: a byte b stands for f(x) within half a step of b. */
static void test_mu_law(void **state)
{
    (void)state;
    int last = -1;
    for (int x = -32768; x <= 32767; x++) {
        const double at = x / 32768.0, f = (at < 0 ? -1 : 1) * log(1 + 255 * fabs(at)) / log(256);
        const int b = data_mu_law(at);
        assert_true(fabs((f + 1) / 2 * 255 - b) <= 0.5 + 1e-9);
        assert_true(b >= last && b <= last + 1);
        last = b;
    }
    assert_int_equal(data_mu_law(-1), 0);
    assert_int_equal(data_mu_law(0), 128);
    assert_int_equal(data_mu_law(1), 255);
}

static void test_audio(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "?.wav" }, { NULL } };
    static const data_set sound = { "s", .kind = DATA_AUDIO, .files = files };
    static const int16_t one[] = { 0, 32767, -32768, 100, -100 }, two[] = { 1000, 3000, -7, 7, 300, -100 };
    wav a = make_wav(1, 8000, 16, 3, 5, one), b = make_wav(2, 8000, 16, 0, 6, two);
    put_bytes("a.wav", a.byte, a.n);
    put_bytes("b.wav", b.byte, b.n);
    assert_int_equal(prepare_set(&sound, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    const unsigned char *x = s->tokens;
    assert_int_equal(s->ndocs, 2);
    assert_int_equal(s->end[0], 5);
    assert_int_equal(s->n, 8);
    for (int i = 0; i < 5; i++) assert_int_equal(x[i], data_mu_law(one[i] / 32768.0));
    for (int i = 0; i < 3; i++) assert_int_equal(x[5 + i], data_mu_law((two[2 * i] + two[2 * i + 1]) / 65536.0));
    data_close(&t);
    assert_int_equal(prepare_with(&sound, (data_prepare_args){ .level = -1, .min_count = -1, .limit = 6 }, &t), 0);
    assert_int_equal(data_find_split(&t, "train")->n, 6);
    data_close(&t);
    wav e = { .n = 0 };                                 /* a longer format, which says further on that it is PCM */
    memcpy(e.byte, a.byte, 16), e.n = 16;
    put_le(&e, 40, 4);
    memcpy(e.byte + 20, a.byte + 20, 16), e.n = 36;
    e.byte[20] = 0xfe, e.byte[21] = 0xff;
    put_le(&e, 22, 2), put_le(&e, 16, 2), put_le(&e, 4, 4), put_le(&e, 1, 2);
    e.n = 60;
    const size_t sound_of_a = 36 + 8 + 4;               /* behind its odd chunk */
    memcpy(e.byte + e.n, a.byte + sound_of_a, a.n - sound_of_a);
    put_bytes("a.wav", e.byte, e.n + a.n - sound_of_a);
    assert_int_equal(prepare_set(&sound, &t), 0);
    assert_int_equal(data_find_split(&t, "train")->n, 8);
    assert_memory_equal(data_find_split(&t, "train")->tokens, ((unsigned char[]){ 128, 255, 0 }), 3);
    data_close(&t);
    e.byte[44] = 3;
    put_bytes("a.wav", e.byte, e.n + a.n - sound_of_a);
    assert_refused(&sound, "a.wav: byte 20: samples of format 3 with 16 bits, expected PCM (1) with 16");
}

static void test_audio_refused(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "?.wav" }, { NULL } };
    static const data_set sound = { "s", .kind = DATA_AUDIO, .files = files };
    static const int16_t some[] = { 1, 2, 3, 4 };
    static const struct { int at, value, cut; const char *part; } odd[] = {
        { 0, 'X', 0, "a.wav: byte 0: it is not a RIFF WAVE file" },
        { 8, 'X', 0, "a.wav: byte 0: it is not a RIFF WAVE file" },
        { 0, 'R', 9, "a.wav: byte 0: it is truncated: its header has 9 of 12 bytes" },
        { 0, 'R', 12, "a.wav: byte 12: it is truncated: a chunk's header (no sound so far) has 0 of 8 bytes" },
        { 0, 'R', 30, "a.wav: byte 20: it is truncated: its format has 10 of 16 bytes" },
        { 16, 12, 0, "a.wav: byte 20: its format has 12 bytes, expected 16" },
        { 20, 3, 0, "a.wav: byte 20: samples of format 3 with 16 bits, expected PCM (1) with 16" },
        { 34, 8, 0, "a.wav: byte 20: samples of format 1 with 8 bits, expected PCM (1) with 16" },
        { 22, 0, 0, "a.wav: byte 20: 0 channels, expected 1..64" },
        { 12, 'X', 0, "a.wav: byte 36: sound without a format before it" },
        { 40, 7, 0, "a.wav: byte 44: 7 bytes are no samples of 1 channels" },
        { 40, 0, 0, "a.wav: byte 44: 0 bytes are no samples of 1 channels" },
        { 0, 'R', 50, "a.wav: byte 44: it is truncated: its sound has 6 of 8 bytes" },
    };
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++) {
        wav w = make_wav(1, 8000, 16, 0, 4, some);
        w.byte[odd[i].at] = (unsigned char)odd[i].value;
        put_bytes("a.wav", w.byte, odd[i].cut ? (size_t)odd[i].cut : w.n);
        assert_refused(&sound, odd[i].part);
    }
    wav a = make_wav(1, 8000, 16, 0, 4, some), b = make_wav(1, 16000, 16, 0, 4, some);
    put_bytes("a.wav", a.byte, a.n);
    put_bytes("b.wav", b.byte, b.n);
    assert_refused(&sound, "b.wav: byte 20: 16000 samples a second; the recordings before have 8000");
}

static void test_labelled(void **state)
{
    (void)state;
    static const data_file files[] = { { "valid", "l.tsv" }, { NULL } };
    static const data_set labelled = { "l", .kind = DATA_LABELLED, .files = files };
    put_file("l.tsv", "1\tid\tgood film\n0\tid\tbad one\n");
    assert_int_equal(prepare_set(&labelled, &t), 0);
    assert_document("valid", 1, "bad one");
    assert_int_equal(data_find_split(&t, "valid")->label[0], 1);
    data_close(&t);
    static const data_file training[] = { { "train", "l.tsv" }, { NULL } };
    static const data_set shuffled = { "ls", .kind = DATA_LABELLED, .files = training };
    char text[2000] = "", expected[16];
    for (int i = 0; i < 100; i++) sprintf(text + strlen(text), "%d\ttext %d\n", i, i);
    put_file("l.tsv", text);
    assert_int_equal(prepare_set(&shuffled, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    for (int i = 0; i < 100; i++) {                     /* in another order, each label with its text */
        snprintf(expected, sizeof expected, "text %d", s->label[i]);
        assert_document("train", i, expected);
    }
    assert_int_not_equal(s->label[0] + s->label[1] + s->label[2], 0 + 1 + 2);
    data_close(&t);
    put_file("l.tsv", "good\ttext\n");
    assert_refused(&labelled, "l.tsv:1: the first column is 'good', expected a label");
    put_file("l.tsv", "1\ta\tb\n0\tc\n");
    assert_refused(&labelled, "l.tsv:2: 2 columns, expected 3");
    put_file("l.tsv", "1\ta\tb\n0\tc\t\n");
    assert_refused(&labelled, "l.tsv:2: the text is empty");
}

/* Two texts and whether they match: two documents with one label. */
static void test_matched(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "m.tsv" }, { NULL } };
    static const data_set matched = { "m", .kind = DATA_MATCHED, .files = files };
    static const struct { const char *text, *part; } refused[] = {
        { "1\tA\tB\tone\n", "m.tsv:1: 4 columns, expected 5" },
        { "1\tA\tB\tone\ttwo\n0\tA\tB\tone\ttwo\tthree\n", "m.tsv:2: more than 5 columns" },
        { "2.0\tA\tB\tone\ttwo\n", "m.tsv:1: the first column is '2.0', expected 0 or 1" },
        { "1.5\tA\tB\tone\ttwo\n", "m.tsv:1: the first column is '1.5', expected 0 or 1" },
        { "\tA\tB\tone\ttwo\n", "m.tsv:1: the first column is '', expected 0 or 1" },
        { "0\tA\tB\tone\ttwo\n1\tA\tB\t\ttwo\n", "m.tsv:2: the first text is empty" },
        { "1\tA\tB\tone\t\n", "m.tsv:1: the second text is empty" }, { "\n", "m.tsv:1: 1 column, expected 5" },
        { "1\tA\tB\tone\ttw\xFF\n", "m.tsv:1: " }, { "", "m.tsv: the file is empty" } };
    put_file("m.tsv", "1.0\tA\tB\tone text\tanother\r\n0\tA\tC\tone text\ta third");
    assert_int_equal(prepare_set(&matched, &t), 0);
    const data_split *s = data_find_split(&t, "train");
    assert_int_equal(s->ndocs, 4);
    assert_document("train", 0, "one text");
    assert_document("train", 1, "another");
    assert_document("train", 2, "one text");
    assert_document("train", 3, "a third");
    for (int i = 0; i < 4; i++) assert_int_equal(s->label[i], i < 2);
    data_close(&t);
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        put_file("m.tsv", refused[i].text);
        assert_refused(&matched, refused[i].part);
    }
}

static void test_listops(void **state)
{
    (void)state;
    static const data_file files[] = { { "train", "o.tsv" }, { NULL } };
    static const data_set listops = { "o", .kind = DATA_LISTOPS, .files = files };
    put_file("o.tsv", "Source\tTarget\n( ( [MAX 2 ) 9 ) ]\t9\n");
    assert_int_equal(prepare_set(&listops, &t), 0);
    assert_words(&t, "train", "[MAX 2 9 ]");
    assert_int_equal(data_find_split(&t, "train")->label[0], 9);
    data_close(&t);
    put_file("o.tsv", "3\t[MIN 3 ten ]\n");
    assert_refused(&listops, "o.tsv:1: 'ten' is neither a number nor an operator");
    put_file("o.tsv", "12\t[MIN 3 ]\n");
    assert_refused(&listops, "o.tsv:1: the label is '12', expected 0..9");
}

/* ---- files ----------------------------------------------------------------------------------------------------------------------- */

static void test_missing(void **state)
{
    (void)state;
    static const data_file none[] = { { "train", "absent.txt|elsewhere/*.txt" }, { NULL } };
    static const data_set absent = { "absent", .kind = DATA_WORDS, .files = none };
    assert_refused(&absent, "there is no file absent.txt|elsewhere/*.txt");
    char folder[128];
    snprintf(folder, sizeof folder, "%s/elsewhere", data_folder);
    assert_int_equal(data_folder_make(folder), 0);
    put_file("elsewhere/1.txt", "a\n");
    put_file("elsewhere/2.txt", "b\n");
    assert_int_equal(prepare_set(&absent, &t), 0);
    assert_words(&t, "train", "a <eos> b <eos>");
    assert_int_equal(data_find_split(&t, "train")->ndocs, 2);
    data_close(&t);
    put_file("absent.txt", "x\n");
    put_file("elsewhere/absent.txt", "y\n");
    assert_refused(&absent, "which of them is meant?");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, data_setup, data_teardown)
        T(test_words), T(test_rare_words), T(test_white_space), T(test_words_refused), T(test_limit), T(test_bytes), T(test_books),
        T(test_proteins), T(test_proteins_refused), T(test_protein_parts), T(test_pairs), T(test_tabs), T(test_shuffled), T(test_sgm), T(test_music),
        T(test_images), T(test_large_images), T(test_mu_law), T(test_audio),
        T(test_audio_refused), T(test_labelled), T(test_matched), T(test_listops), T(test_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
