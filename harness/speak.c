/* speak.c - see speak.h. */
#include "speak.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A graph of that kind, compiled; NULL with a sentence and its code. */
static nn_graph *compiled(hs_speaker *s, int states, int *code, char *why, size_t nwhy)
{
    nn_graph *g = hs_kept_graph(s->kept, s->rows, states ? s->length : s->kept->model.context, states, &s->tokens, &s->scores);
    *code = g ? nn_graph_compile(g, why, nwhy) : NN_ENOMEM;
    if (*code == 0) return g;
    nn_graph_free(g);
    return NULL;
}

/* Whether a model has seen places as far as the sequences go. */
static int knows_places(const hs_speaker *s)
{
    return s->length <= s->kept->model.context || s->kept->bound.model.positions == NN_POSITIONS_NONE;
}

int hs_speaker_init(hs_speaker *s, hs_kept *k, int64_t rows, int64_t length, enum hs_speak_how how, char *why, size_t nwhy)
{
    int code = 0;
    *s = (hs_speaker){ .kept = k, .rows = rows, .length = length, .how = how };
    if (how == HS_SPEAK_STATES || (how == HS_SPEAK_ANY && knows_places(s))) {
        s->graph = compiled(s, 1, &code, why, nwhy);
        if (s->graph) s->how = HS_SPEAK_STATES;
        else if (how == HS_SPEAK_STATES || code == NN_ENOMEM) return -1;
    }
    if (!s->graph) {
        s->how = HS_SPEAK_WINDOWS;
        if (!(s->graph = compiled(s, 0, &code, why, nwhy))) return -1;
    }
    size_t words = (size_t)(s->how == HS_SPEAK_STATES ? rows : rows * k->model.context), vocabulary = (size_t)k->model.vocabulary;
    s->said = calloc((size_t)(rows * length), sizeof *s->said);
    s->shown = calloc(words, sizeof *s->shown);
    s->raw = malloc(words * vocabulary * k_dtype_size(k->call.dtype));
    s->score = malloc((size_t)rows * vocabulary * sizeof *s->score);
    if (s->said && s->shown && s->raw && s->score) return 0;
    return snprintf(why, nwhy, "out of memory"), -1;
}

/* Fills `shown`; the row of each sequence, in the graph, whose scores are wanted. */
static int64_t show(hs_speaker *s)
{
    int64_t T = s->how == HS_SPEAK_STATES ? 1 : s->kept->model.context;
    int64_t n = T < s->at ? T : s->at;
    for (int64_t r = 0; r < s->rows; r++)
        memcpy(s->shown + r * T, s->said + r * s->length + s->at - n, (size_t)n * sizeof *s->shown);
    k_upload(s->kept->dev, nn_data(s->graph, s->tokens), s->shown, (size_t)(s->rows * T) * sizeof *s->shown);
    return n - 1;
}

int hs_speaker_take(hs_speaker *s, const int32_t *word)
{
    const int64_t V = s->kept->model.vocabulary, T = s->how == HS_SPEAK_STATES ? 1 : s->kept->model.context;
    const k_dtype dtype = s->kept->call.dtype;
    if (s->at == s->length) return -1;
    for (int64_t r = 0; r < s->rows; r++) s->said[r * s->length + s->at] = word[r];
    s->at++;
    int64_t row = show(s);
    if (nn_forward(s->graph)) return -1;
    k_download(s->kept->dev, s->raw, nn_data(s->graph, s->scores), (size_t)(s->rows * T * V) * k_dtype_size(dtype));
    for (int64_t r = 0; r < s->rows; r++)
        for (int64_t v = 0; v < V; v++) {
            int64_t at = (r * T + row) * V + v;
            s->score[r * V + v] = dtype == K_F64 ? (float)((double *)s->raw)[at] : ((float *)s->raw)[at];
        }
    return 0;
}

void hs_speaker_release(hs_speaker *s)
{
    nn_graph_free(s->graph);
    free(s->said);
    free(s->shown);
    free(s->raw);
    free(s->score);
}
