/* read_protein.c - FASTA: a line that begins with '>' names a sequence, the lines behind it are the sequence.
 *
 * Tokens: <eos>, the 20 standard amino acids in the alphabet's order, the five anomalous ones B O U X Z, <mask>.  Lower
 * case is read as upper case; J (leucine or isoleucine) becomes X; a '*' at a sequence's end is a stop and is left out.
 * Anything else is refused with its place.  Every sequence ends in <eos> and is a document. */
#include <string.h>
#include "read.h"

enum { EOS = 0, STOP = 254, NONE = 255, BATCH = 1 << 14 };
static const char LETTERS[] = "ACDEFGHIKLMNPQRSTVWYBOUXZ";

int data_protein_vocab(data_vocab *v)
{
    if (data_vocab_init(v) != 0 || data_vocab_add(v, "<eos>", 5, 0) < 0) return -1;
    for (const char *l = LETTERS; *l; l++)
        if (data_vocab_add(v, l, 1, 0) < 0) return -1;
    return data_vocab_add(v, "<mask>", 6, 0) < 0 ? -1 : 0;
}

/* What each byte of a sequence means: an id, STOP or NONE. */
static void letter_table(unsigned char table[256])
{
    memset(table, NONE, 256);
    for (int i = 0; LETTERS[i]; i++) table[(int)LETTERS[i]] = table[LETTERS[i] | 32] = (unsigned char)(i + 1);
    table['J'] = table['j'] = table['X'];
    table['*'] = STOP;
}

typedef struct sequence {
    data_reading *r;
    const data_file *file;
    unsigned char table[256], id[BATCH];
    size_t n;
    int64_t length;                     /* letters so far */
    int open, wanted, stopped;
} sequence;

static void flush(sequence *q)
{
    if (q->r->learn)
        for (size_t i = 0; i < q->n; i++) q->r->vocab->count[q->id[i]]++;
    data_writer_put(q->r->out, q->id, q->n);
    q->r->left -= (int64_t)q->n;
    q->n = 0;
}

static void put(sequence *q, unsigned char id)
{
    if (q->n == BATCH) flush(q);
    q->id[q->n++] = id;
}

/* Ends the open sequence, if there is one. */
static int finish(sequence *q, const data_source *s)
{
    if (!q->open) return 0;
    if (q->length == 0) return data_source_fail(s, "the sequence before this line has no letters");
    if (!q->wanted) return 0;
    put(q, EOS);
    flush(q);
    data_writer_text(q->r->out, (uint64_t)q->length + 1);
    data_writer_doc(q->r->out, -1);
    return 0;
}

/* The name of a sequence, up to the first blank, as a number of 0..999 that is the same everywhere. */
static int64_t part_of(const char *name, size_t length)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (size_t i = 0; i < length && name[i] != ' ' && name[i] != '\t'; i++) h = (h ^ (unsigned char)name[i]) * 0x100000001B3u;
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCDu;
    return (int64_t)((h ^ h >> 33) % 1000);
}

/* A header; 1: the split has enough. */
static int begin(sequence *q, const data_source *s, const char *line, size_t length)
{
    if (finish(q, s) != 0) return -1;
    if (length < 2 || line[1] == ' ' || line[1] == '\t') return data_source_fail(s, "a header without a name");
    const int64_t part = part_of(line + 1, length - 1);
    q->wanted = q->file->to == 0 || (part >= q->file->from && part < q->file->to);
    q->open = 1;
    q->length = q->stopped = 0;
    return q->r->left <= 0;
}

/* The letters of a line. */
static int put_letters(sequence *q, const data_source *s, const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        const unsigned char c = (unsigned char)line[i], id = q->table[c];
        if (c == ' ' || c == '\t') continue;
        if (id == NONE) return data_source_fail(s, "'%c' (0x%02X) at column %zu is no amino acid", c >= 32 && c < 127 ? c : '?', c, i + 1);
        if (q->stopped) return data_source_fail(s, "a stop ('*') inside the sequence");
        if (id == STOP) {
            q->stopped = 1;
            q->r->notes.stops += q->wanted;
            continue;
        }
        if ((c | 32) == 'j') q->r->notes.odd_letters += q->wanted;
        q->length++;
        if (q->wanted) put(q, id);
    }
    return 0;
}

int data_read_proteins(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    char *line;
    size_t length;
    int rc;
    sequence q = { .r = r, .file = file };
    (void)other;
    letter_table(q.table);
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    while ((rc = data_source_text(&s, &line, &length)) == 1) {
        if (length == 0) continue;
        if (*line == '>') rc = begin(&q, &s, line, length);
        else if (!q.open) rc = data_source_fail(&s, "letters before the first header (a line that begins with '>')");
        else rc = put_letters(&q, &s, line, length);
        if (rc != 0) break;
    }
    if (rc == 0 && !q.open) rc = data_source_fail(&s, "there is no sequence");
    if (rc == 0) rc = finish(&q, &s);
    r->notes.crlf += s.crlf;
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc < 0 ? -1 : 0;
}
