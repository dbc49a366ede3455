/* test_attention_map.c - for every variant inside a model: its own map, the map by one-hot values and the output agree; what the
 * similarity of amino acids is summed from is the map; a pattern that was planted is found. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "built_variants.h"
#include "harness/attention_map.h"
#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "harness/similarity.h"
#include "harness/stats.h"
#include "kernels/philox.h"

enum { WORDS = 26, LAYERS = 2 };

/* A small model around a variant with its defaults, over one text. */
typedef struct looked {
    nn_params *params;
    nn_transformer model;
    nn_graph *graph;
    nn_mixer_spec mixer;
    void *opts;
    nn_id tokens;
    int64_t T;
} looked;

static void looked_init(looked *x, const attn_variant *v, int64_t T, int layers, int heads, double init)
{
    nn_model_opts o;
    *x = (looked){ .mixer = { .variant = v }, .opts = calloc(1, v->opts_size + 1), .T = T, .params = nn_params_new(dev, K_F32, 5) };
    if (v->opts) hs_opts_defaults(v->opts, x->opts);
    if (!strcmp(v->name, "local_2d")) assert_int_equal(hs_opt_set_text(hs_opts_find(v->opts, "width"), x->opts, "4", why, sizeof why), 0);
    hs_opts_defaults(nn_common_table, &x->mixer.common);
    x->mixer.opts = x->opts;
    hs_opts_defaults(nn_model_table, &o);
    o.layers = layers, o.d_model = 8 * heads, o.heads = heads, o.init = init, o.positions = NN_POSITIONS_NONE;
    assert_int_equal(nn_transformer_init(&x->model, x->params, &o, &x->mixer, 1, WORDS, T, why, sizeof why), 0);
}

static void looked_release(looked *x)
{
    nn_graph_free(x->graph);
    nn_params_free(x->params);
    free(x->opts);
}

/* Records, compiles and runs it over the words; the code of compiling. */
static int looked_run(looked *x, int mode, const int32_t *word)
{
    nn_graph_free(x->graph);
    x->graph = nn_graph_new(x->params, 0);
    x->tokens = nn_input(x->graph, K_I32, (attn_dims){ 2, { 1, x->T } });
    nn_keep(x->graph, nn_transformer_body(&x->model, x->graph, x->tokens, mode));
    nn_watch(x->graph);
    if (!nn_params_elements(x->params, 0) || !nn_param_value(x->params, 0)) assert_int_equal(nn_params_alloc(x->params, why, sizeof why), 0);
    int rc = nn_graph_compile(x->graph, why, sizeof why);
    if (rc) return rc;
    memcpy(nn_data(x->graph, x->tokens), word, (size_t)x->T * sizeof *word);
    assert_int_equal(nn_forward(x->graph), 0);
    return 0;
}

static double largest_difference(const double *a, const double *b, int64_t n)
{
    double most = 0;
    for (int64_t i = 0; i < n; i++) most = fmax(most, fabs(a[i] - b[i]));
    return most;
}

/* The output of a call of the graph against its map times its v, both float there. */
static double off_output(nn_seen seen, const double *map)
{
    const attn_shape *s = &seen.spec->shape;
    const int64_t T = s->Tk, H = attn_out_heads(s), Hv = s->Hv ? s->Hv : s->Hk;
    double most = 0;
    for (int64_t h = 0; h < H; h++)
        for (int64_t i = 0; i < T; i++)
            for (int64_t e = 0; e < s->Dv; e++) {
                double sum = 0;
                for (int64_t j = 0; j < T; j++) sum += map[(h * T + i) * T + j] * (double)((const float *)seen.io->v.p)[(j * Hv + h * Hv / H) * s->Dv + e];
                most = fmax(most, fabs(sum - (double)((const float *)seen.io->o.p)[(i * H + h) * s->Dv + e]));
            }
    return most;
}

/* What the heads give to each kind, by the similarity and by the map. */
static void check_mass(nn_seen seen, const double *map, const signed char *kind)
{
    const int64_t T = seen.spec->shape.Tk, H = attn_out_heads(&seen.spec->shape);
    hs_similarity s = { 0 };
    assert_int_equal(hs_similarity_init(&s, H), 0);
    assert_int_equal(hs_similarity_add(&s, dev, seen, kind, 0, why, sizeof why), 0);
    for (int64_t h = 0; h < H; h++) {
        double mass[HS_AMINO + 1] = { 0 };
        for (int64_t i = 0; i < T * T; i++) mass[kind[i % T]] += map[h * T * T + i];
        assert_true(largest_difference(mass, s.mass[h], HS_AMINO + 1) < 2e-4);
    }
    hs_similarity_release(&s);
}

/* One call of a model: 1 when it has a map, 0 when the variant has none. */
static int check_call(nn_seen seen, const signed char *kind)
{
    const int64_t T = seen.spec->shape.Tk, n = attn_out_heads(&seen.spec->shape) * T * T;
    double *map = malloc((size_t)n * sizeof *map), *again = malloc((size_t)n * sizeof *again);
    enum hs_map_by any = HS_MAP_ANY, values = HS_MAP_VALUES, own = HS_MAP_OWN;
    int has = !hs_attention_map(dev, seen, &any, map, why, sizeof why);
    if (has) {
        assert_int_equal(hs_attention_map(dev, seen, &values, again, why, sizeof why), 0);
        assert_true(largest_difference(map, again, n) < 1e-12);
        assert_int_equal(hs_attention_map(dev, seen, &own, again, why, sizeof why), any == HS_MAP_OWN ? 0 : -1);
        assert_true(off_output(seen, map) < 1e-4);
        for (int64_t i = 0; i < n / T && hs_attention_sums_to_one(seen); i++) {
            double sum = 0;
            for (int64_t j = 0; j < T; j++) sum += map[i * T + j];
            assert_true(fabs(sum - 1) < 1e-12);
        }
        check_mass(seen, map, kind);
    } else assert_non_null(strstr(why, "no sum of its values with one weight each"));
    free(map);
    free(again);
    return has;
}

static void maps_of_every_variant(void **state)
{
    enum { T = 12 };
    int32_t word[T];
    signed char kind[T];
    (void)state;
    for (int i = 0; i < T; i++) word[i] = (int32_t)philox_below(philox_u32(1, 2, 3, (uint64_t)i), WORDS), kind[i] = (signed char)(word[i] < HS_AMINO ? word[i] : HS_AMINO);
    int with = 0;
    for (int f = 0; f < nfiles; f++)
        for (const attn_variant *const *v = file[f].variants; v && *v; v++) {
            looked x;
            looked_init(&x, *v, T, LAYERS, 2, 0.3);
            int mode = ATTN_CAUSAL, rc = looked_run(&x, mode, word);
            if (rc == ATTN_EUNSUP) {
                looked_release(&x);
                looked_init(&x, *v, T, LAYERS, 2, 0.3);
                rc = looked_run(&x, mode = ATTN_BIDIR, word);
            }
            if (rc) print_message("# %s: %s\n", (*v)->name, why);
            assert_int_equal(rc, 0);
            assert_int_equal(nn_seen_count(x.graph), LAYERS);
            int has = 1;
            for (int c = 0; c < LAYERS; c++) has &= check_call(nn_see(x.graph, c), kind);
            int none = !strcmp((*v)->name, "lstm") || !strcmp((*v)->name, "conv");     /* one bends values, one weighs every channel by itself */
            if (has == none) print_message("# %s: %s\n", (*v)->name, has ? "has a map" : why);
            assert_int_equal(has, !none);
            with += has;
            looked_release(&x);
        }
    assert_true(with >= 15);
}

/* Amino acids in four groups that the model cannot tell apart are alike to it, and others are not. */
static void a_planted_pattern_is_found(void **state)
{
    enum { T = 90, SEQUENCES = 6, HEADS = 4 };
    const attn_variant *softmax = NULL;
    int32_t word[T];
    signed char kind[T];
    hs_similarity s = { 0 };
    looked x;
    (void)state;
    for (int f = 0; f < nfiles; f++)
        if (hs_plugin_variant(&file[f], "softmax")) softmax = hs_plugin_variant(&file[f], "softmax");
    looked_init(&x, softmax, T, LAYERS, HEADS, 0.5);
    assert_int_equal(hs_similarity_init(&s, LAYERS * HEADS), 0);
    for (uint32_t q = 0; q < SEQUENCES; q++) {
        for (int i = 0; i < T; i++) kind[i] = (signed char)(word[i] = (int32_t)philox_below(philox_u32(4, q, 0, (uint64_t)i), HS_AMINO));
        assert_int_equal(looked_run(&x, ATTN_BIDIR, word), 0);
        if (q == 0) {
            float *e = nn_param_value(x.params, 0);
            assert_string_equal(nn_param_name(x.params, 0), "embedding.weight");
            for (int a = 4; a < HS_AMINO; a++) memcpy(e + a * 8 * HEADS, e + a % 4 * 8 * HEADS, 8 * HEADS * sizeof *e);
            assert_int_equal(looked_run(&x, ATTN_BIDIR, word), 0);
        }
        for (int c = 0; c < LAYERS; c++) assert_int_equal(hs_similarity_add(&s, dev, nn_see(x.graph, c), kind, c * HEADS, why, sizeof why), 0);
    }
    hs_likeness l;
    double ours[HS_AMINO * HS_AMINO], planted[HS_AMINO * HS_AMINO];
    size_t n = 0;
    hs_similarity_likeness(&s, &l);
    assert_int_equal(l.heads, LAYERS * HEADS);
    for (int a = 0; a < HS_AMINO; a++)
        for (int b = 0; b < a; b++) {
            ours[n] = l.of[a][b], planted[n++] = a % 4 == b % 4;
            assert_true(l.of[a][b] == l.of[b][a]);
            if (a % 4 == b % 4) assert_true(l.of[a][b] > 0.9);
        }
    assert_true(hs_pearson(ours, planted, n) > 0.5);
    assert_true(fabs(l.pearson) < 0.5);         /* which knows nothing of BLOSUM62 */
    hs_similarity_release(&s);
    looked_release(&x);
}

/* The table and its form with ones on the diagonal, by hand. */
static void blosum(void **state)
{
    (void)state;
    for (int a = 0; a < HS_AMINO; a++)
        for (int b = 0; b < HS_AMINO; b++) assert_int_equal(hs_blosum62[a][b], hs_blosum62[b][a]);
    int D = 2, E = 3, W = 18;
    assert_int_equal(hs_blosum62[D][E], 2);
    assert_int_equal(hs_blosum62[W][W], 11);
    assert_true(fabs(hs_blosum62_normalised(D, E) - 2 / sqrt(30)) < 1e-15 && hs_blosum62_normalised(W, W) == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(maps_of_every_variant, open_files, close_files),
                                        cmocka_unit_test_setup_teardown(a_planted_pattern_is_found, open_files, close_files),
                                        cmocka_unit_test(blosum) };
    return cmocka_run_group_tests_name("attention_map", tests, NULL, NULL);
}
