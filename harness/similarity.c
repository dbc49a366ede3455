/* similarity.c - see similarity.h. */
#include "similarity.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include "attention_map.h"
#include "stats.h"

int hs_similarity_init(hs_similarity *s, int64_t features)
{
    s->features = features;
    s->mass = calloc((size_t)features, sizeof *s->mass);
    return s->mass ? 0 : -1;
}

void hs_similarity_release(hs_similarity *s)
{
    free(s->mass);
}

static double one_hot(const void *kind, int64_t row, int64_t column) { return ((const signed char *)kind)[row] == column; }

int hs_similarity_add(hs_similarity *s, k_dev *dev, nn_seen seen, const signed char *kind, int64_t feature, char *why, size_t nwhy)
{
    enum { COLUMNS = HS_AMINO + 1 };
    const int64_t T = seen.spec->shape.Tk, H = attn_out_heads(&seen.spec->shape);
    double *given = malloc((size_t)(H * T * COLUMNS) * sizeof *given);
    if (!given) return snprintf(why, nwhy, "out of memory"), -1;
    int rc = hs_attention_read(dev, seen, COLUMNS, one_hot, kind, given, why, nwhy);
    for (int64_t h = 0; !rc && h < H; h++)
        for (int64_t i = 0; i < T * COLUMNS; i++) s->mass[feature + h][i % COLUMNS] += given[h * T * COLUMNS + i];
    free(given);
    return rc;
}

double hs_blosum62_normalised(int x, int y)
{
    return hs_blosum62[x][y] / sqrt((double)hs_blosum62[x][x] * hs_blosum62[y][y]);
}

/* The share of each amino acid in what a head gave; 0 when the head is left out. */
static int shares(const double *mass, double *share)
{
    double total = 0;
    for (int a = 0; a <= HS_AMINO; a++) total += mass[a];
    for (int a = 0; a < HS_AMINO; a++) share[a] = mass[a] / total;
    return fabs(total) >= HS_LEAST_MASS;
}

void hs_similarity_likeness(const hs_similarity *s, hs_likeness *out)
{
    double ours[HS_AMINO * (HS_AMINO - 1) / 2], theirs[sizeof ours / sizeof *ours], share[HS_AMINO];
    double *vector[HS_AMINO];           /* [heads] of each amino acid */
    size_t n = 0;
    *out = (hs_likeness){ 0 };
    for (int a = 0; a < HS_AMINO; a++)
        if (!(vector[a] = calloc((size_t)s->features + 1, sizeof **vector))) abort();
    for (int64_t f = 0; f < s->features; f++) {
        if (!shares(s->mass[f], share)) continue;
        for (int a = 0; a < HS_AMINO; a++) vector[a][out->heads] = share[a];
        out->heads++;
    }
    for (int a = 0; a < HS_AMINO; a++)
        for (int b = 0; b <= a; b++) {
            out->of[a][b] = out->of[b][a] = a == b ? 1 : hs_pearson(vector[a], vector[b], (size_t)out->heads);
            if (a != b) ours[n] = out->of[a][b], theirs[n++] = hs_blosum62[a][b];
        }
    out->pearson = hs_pearson(ours, theirs, n);
    out->spearman = hs_spearman(ours, theirs, n);
    for (int a = 0; a < HS_AMINO; a++) free(vector[a]);
}
