/* generate.c - corpora made from a seed: the same files on every machine.
 *
 * Text: words by Zipf's law from 2,000 made-up ones, every second one following from the word before it, so that a context
 * helps; and a few words that are rare.  Proteins: a Markov chain over the amino acids, uneven in their frequencies, so
 * that a unigram model beats chance and a context beats it.  Pairs: short sentences of few words, and the same in a language
 * whose words are others and stand the other way round.  Matches: texts of common words with some of their subject among them, two
 * of one subject or of two. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../../kernels/philox.h"
#include "data.h"

enum { SEED = 20240501, WORDS = 2000, RARE = 200, LEXICON = 40, LONGEST = 6, SUBJECTS = 20, TERMS = 5 };
enum { STREAM_TEXT = 1, STREAM_PROTEIN, STREAM_CHAIN, STREAM_PAIRS, STREAM_MATCHES };

typedef struct dice { uint64_t i; uint32_t stream, draw; } dice;

static double uniform(dice *d) { return philox_u32(SEED, d->stream, d->draw, d->i++) * 0x1p-32; }

/* A word for a rank: pronounceable, different for each. */
static void spell(int rank, char out[16])
{
    static const char consonants[] = "bdfgklmnprstvz", vowels[] = "aeiou";
    char *p = out;
    for (int r = rank + 1; r > 0 && p < out + 14; r /= 70) {
        *p++ = consonants[r % 70 / 5];
        *p++ = vowels[r % 5];
    }
    *p = 0;
}

/* The rank of the next word, given the one before: half of the words follow from it, the others are by Zipf's law, whose
 * sums are in below[]. */
static int next_rank(dice *d, int before, const double *below)
{
    if (uniform(d) < 0.5) return (before * 7 + 3) % WORDS;
    const double u = uniform(d) * below[WORDS - 1];
    int low = 0, high = WORDS - 1;
    while (low < high) {
        const int middle = (low + high) / 2;
        if (below[middle] > u) high = middle;
        else low = middle + 1;
    }
    return low;
}

/* A file of that many words, in lines, with titles. */
static int write_text(FILE *f, uint32_t draw, int words)
{
    dice d = { 0, STREAM_TEXT, draw };
    char word[16];
    double below[WORDS], sum = 0;
    for (int i = 0; i < WORDS; i++) below[i] = sum += 1.0 / (i + 1);
    for (int n = 0, rank = 0; n < words; ) {
        const int length = 5 + (int)(uniform(&d) * 30);
        if (uniform(&d) < 0.02) fprintf(f, " \n = Title %d = \n \n", n);
        for (int i = 0; i < length; i++, n++) {
            rank = next_rank(&d, rank, below);
            spell(rank, word);
            fprintf(f, " %s", word);
        }
        if (uniform(&d) < 0.01) fprintf(f, " rare%d.%d", (int)draw, (int)(uniform(&d) * RARE));
        fputs(" . \n", f);
    }
    return ferror(f) ? -1 : 0;
}

/* How likely letter b is behind letter a, up to a factor. */
static double affinity(int a, int b)
{
    dice d = { (uint64_t)(a * 20 + b), STREAM_CHAIN, 0 };
    const double u = uniform(&d);
    return u * u * u * u * (1 + b);
}

static int next_letter(dice *d, int before)
{
    double total = 0, u;
    for (int b = 0; b < 20; b++) total += affinity(before, b);
    u = uniform(d) * total;
    for (int b = 0; b < 20; b++)
        if ((u -= affinity(before, b)) < 0) return b;
    return 19;
}

static int write_proteins(FILE *f, uint32_t draw, int sequences)
{
    static const char letters[] = "ACDEFGHIKLMNPQRSTVWY";
    dice d = { 0, STREAM_PROTEIN, draw };
    for (int s = 0; s < sequences; s++) {
        const int length = 30 + (int)(uniform(&d) * 200);
        fprintf(f, ">G%u_%d made from a seed\n", draw, s);
        for (int i = 0, letter = 0; i < length; i++) {
            letter = next_letter(&d, letter);
            fputc(uniform(&d) < 0.001 ? 'X' : letters[letter], f);
            if (i % 60 == 59 && i + 1 < length) fputc('\n', f);
        }
        fputc('\n', f);
    }
    return ferror(f) ? -1 : 0;
}

static int write_pairs(FILE *f, uint32_t draw, int sentences)
{
    dice d = { 0, STREAM_PAIRS, draw };
    char word[16];
    for (int s = 0; s < sentences; s++) {
        int rank[LONGEST];
        const int length = 2 + (int)(uniform(&d) * (LONGEST - 1));
        for (int i = 0; i < length; i++) {
            rank[i] = (int)(uniform(&d) * LEXICON);
            spell(rank[i], word);
            fprintf(f, "%s%s", i ? " " : "", word);
        }
        for (int i = length - 1; i >= 0; i--) {
            spell((rank[i] * 11 + 5) % LEXICON + LEXICON, word);
            fprintf(f, "%s%s", i == length - 1 ? "\t" : " ", word);
        }
        fputc('\n', f);
    }
    return ferror(f) ? -1 : 0;
}

/* A text of 10 to 30 words, every third of them, on average, of its subject. */
static void write_subject(FILE *f, dice *d, int subject)
{
    char word[16];
    const int length = 10 + (int)(uniform(d) * 21);
    for (int i = 0; i < length; i++) {
        const int term = WORDS + subject * TERMS + (int)(uniform(d) * TERMS), common = (int)(uniform(d) * LEXICON);
        spell(uniform(d) < 1.0 / 3 ? term : common, word);
        fprintf(f, "%s%s", i ? " " : "", word);
    }
}

/* Lines as those of the ACL Anthology Network's pairs: label, two names, two texts. */
static int write_matches(FILE *f, uint32_t draw, int pairs)
{
    dice d = { 0, STREAM_MATCHES, draw };
    for (int i = 0; i < pairs; i++) {
        const int match = uniform(&d) < 0.5, one = (int)(uniform(&d) * SUBJECTS), step = 1 + (int)(uniform(&d) * (SUBJECTS - 1));
        fprintf(f, "%d.0\tG%u-%d\tG%u-%d\t", match, draw, 2 * i, draw, 2 * i + 1);
        write_subject(f, &d, one);
        fputc('\t', f);
        write_subject(f, &d, match ? one : (one + step) % SUBJECTS);
        fputc('\n', f);
    }
    return ferror(f) ? -1 : 0;
}

/* generated.{train,valid,test}.END in the folder; the training file is ten times as large as each of the others. */
static int generate(const char *folder, const char *end, int (*write)(FILE *, uint32_t, int), int amount, char *why, size_t nwhy)
{
    static const char *const splits[] = { "train", "valid", "test" };
    char path[4096];
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/generated.%s.%s", folder, splits[i], end);
        FILE *f = fopen(path, "w");
        int rc = f ? write(f, i, i ? amount / 10 : amount) : -1;
        if (f && fclose(f) != 0) rc = -1;
        if (rc == 0) continue;
        snprintf(why, nwhy, "%s: %s", path, strerror(errno));
        return -1;
    }
    return 0;
}

int data_generate_text(const char *folder, char *why, size_t nwhy) { return generate(folder, "txt", write_text, 200000, why, nwhy); }

int data_generate_pairs(const char *folder, char *why, size_t nwhy) { return generate(folder, "tsv", write_pairs, 8000, why, nwhy); }

int data_generate_matches(const char *folder, char *why, size_t nwhy) { return generate(folder, "tsv", write_matches, 4000, why, nwhy); }

int data_generate_proteins(const char *folder, char *why, size_t nwhy) { return generate(folder, "fasta", write_proteins, 2000, why, nwhy); }
