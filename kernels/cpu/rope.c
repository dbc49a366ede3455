/* rope.c - rotary embedding (Su et al. 2021) and ALiBi slopes (Press et al. 2022), see rope.h. */
#include "../rope.h"
#include <math.h>
#include <string.h>

const char *k_position_refusal(const k_position *p, int D, int cross)
{
    if (p->position != K_POSITION_NONE && cross)
        return "position rope or alibi needs one sequence, not cross attention";
    if (p->position != K_POSITION_ROPE)
        return NULL;
    if (p->rope_dim % 2)
        return "rope_dim must be even";
    return p->rope_dim > D ? "rope_dim is larger than the key width" : NULL;
}

int k_rope_width(const k_position *p, int D)
{
    if (p->position != K_POSITION_ROPE)
        return 0;
    return p->rope_dim ? p->rope_dim : D - D % 2;
}

/* Frequency of pair n of r/2. */
static double frequency(const k_position *p, int n, int r)
{
    if (p->rope_freqs == K_ROPE_STANDARD)
        return pow(p->rope_base, -2.0 * n / r);
    return r == 2 ? 1.0 : pow(p->rope_base, -n / (r / 2 - 1.0));
}

/* Places of the two components of pair n. */
static void pair(const k_position *p, int n, int r, int *i, int *j)
{
    *i = p->rope_interleaved ? 2 * n : n;
    *j = p->rope_interleaved ? 2 * n + 1 : n + r / 2;
}

void k_rope_row_f64(const k_position *p, int D, int sign, int64_t pos, double *x)
{
    int r = k_rope_width(p, D), i, j;
    for (int n = 0; n < r / 2; n++) {
        double phi = sign * (double)pos * frequency(p, n, r), c = cos(phi), s = sin(phi);
        pair(p, n, r, &i, &j);
        double a = x[i], b = x[j];
        x[i] = a * c - b * s;
        x[j] = a * s + b * c;
    }
}

void k_rope_table(const k_position *p, int D, int64_t first, int64_t n, float *table)
{
    int r = k_rope_width(p, D);
    for (int f = 0; f < r / 2; f++) {
        double w = frequency(p, f, r);
        for (int64_t t = 0; t < n; t++) {
            table[t * r + f] = (float)cos((double)(first + t) * w);
            table[t * r + r / 2 + f] = (float)sin((double)(first + t) * w);
        }
    }
}

void k_rope_row_f32(const k_position *p, int D, int sign, const float *row, float *y, const float *x)
{
    int r = k_rope_width(p, D), i, j;
    for (int n = 0; n < r / 2; n++) {
        float c = row[n], s = (float)sign * row[r / 2 + n];
        pair(p, n, r, &i, &j);
        float a = x[i], b = x[j];
        y[i] = a * c - b * s;
        y[j] = a * s + b * c;
    }
    if (y != x)
        memcpy(y + r, x + r, (size_t)(D - r) * sizeof *y);
}

double k_alibi_slope(const k_position *p, int h, int H)
{
    if (p->position != K_POSITION_ALIBI)
        return 0;
    int P = 1;
    while (2 * P <= H)
        P *= 2;
    /* H = P: every slope of P heads.  Beyond P: every second slope of 2P heads, from the first. */
    return h < P ? exp2(-8.0 * (h + 1) / P) : exp2(-8.0 * (2 * (h - P) + 1) / (2 * P));
}
