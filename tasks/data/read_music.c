/* read_music.c - chorales as JSON: {"train": [piece ...], ...}, a piece a list of steps, a step a list of MIDI pitches.
 *
 * A step becomes four tokens, its pitches in the order given and rests for the voices that are silent; a piece is a
 * document. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "read.h"

enum { PITCHES = 128, REST = PITCHES, VOICES = 4 };

int data_music_vocab(data_vocab *v)
{
    char word[8];
    if (data_vocab_init(v) != 0) return -1;
    for (int p = 0; p < PITCHES; p++)
        if (data_vocab_add(v, word, (size_t)snprintf(word, sizeof word, "%d", p), 0) < 0) return -1;
    return data_vocab_add(v, "rest", 4, 0) < 0 ? -1 : 0;
}

/* A whole file, terminated; NULL with a sentence. */
static char *read_whole(data_source *s)
{
    size_t n = 0, room = 1 << 16;
    char *text = malloc(room);
    ssize_t got = 0;
    while (text && (got = data_source_read(s, text + n, room - n - 1)) > 0) {
        n += (size_t)got;
        char *wider = room - n == 1 ? realloc(text, room *= 2) : text;
        if (!wider) free(text);
        text = wider;
    }
    if (!text) data_source_fail(s, "no memory");
    else if (got == 0) text[n] = 0;
    else free(text);
    return text && got == 0 ? text : NULL;
}

/* The four tokens of a step; 0, or what is wrong with it. */
static const char *step_tokens(const json_t *step, unsigned char id[VOICES])
{
    size_t i;
    json_t *pitch;
    if (!json_is_array(step)) return "a step is not a list of pitches";
    if (json_array_size(step) > VOICES) return "a step of more than four voices";
    memset(id, REST, VOICES);
    json_array_foreach(step, i, pitch) {
        const json_int_t p = json_integer_value(pitch);
        if (!json_is_number(pitch) || (json_is_real(pitch) && json_real_value(pitch) != (double)(json_int_t)json_real_value(pitch)))
            return "a pitch is not a whole number";
        const json_int_t whole = json_is_real(pitch) ? (json_int_t)json_real_value(pitch) : p;
        if (whole < 0 || whole >= PITCHES) return "a pitch outside 0..127";
        id[i] = (unsigned char)whole;
    }
    return NULL;
}

/* The pieces of one key. */
static int put_pieces(data_reading *r, const data_source *s, const json_t *pieces)
{
    size_t p, t;
    json_t *piece, *step;
    if (!json_is_array(pieces)) return data_source_fail(s, "there is no list '%s' in it", r->split);
    json_array_foreach(pieces, p, piece) {
        if (!json_is_array(piece)) return data_source_fail(s, "%s, piece %zu: it is not a list of steps", r->split, p + 1);
        if (r->left <= 0) break;
        json_array_foreach(piece, t, step) {
            unsigned char id[VOICES];
            const char *fault = step_tokens(step, id);
            if (fault) return data_source_fail(s, "%s, piece %zu, step %zu: %s", r->split, p + 1, t + 1, fault);
            data_put_bytes(r, id, VOICES);
        }
        data_writer_doc(r->out, -1);
    }
    return 0;
}

int data_read_music(data_reading *r, const data_file *file, const char *path, const char *other)
{
    data_source s;
    json_error_t error;
    int rc = -1;
    (void)file; (void)other;
    if (data_source_open(&s, path, r->why, r->nwhy) != 0) return -1;
    char *text = read_whole(&s);
    json_t *all = text ? json_loads(text, JSON_REJECT_DUPLICATES, &error) : NULL;
    if (all) rc = put_pieces(r, &s, json_object_get(all, r->split));
    else if (text) {
        s.line = error.line;
        data_source_fail(&s, "column %d: %s", error.column, error.text);
    }
    json_decref(all);
    free(text);
    r->bytes += s.bytes;
    data_source_close(&s);
    return rc;
}
