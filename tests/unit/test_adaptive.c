/* test_adaptive.c - the adaptive softmax against its definition written out, its gradients against differences, whole and in
 * chunks, in a Transformer, and what is refused. */
#include "harness/nn/internal.h"
#include "harness/nn/train.h"
#include "harness/nn/transformer.h"
#include "harness/options.h"
#include "harness/plugin.h"
#include "nn_check.h"

enum { ROWS = 23, D = 6, V = 37 };
static const k_clusters one = { 1, { 20 } }, three = { 3, { 5, 16, 30 } }, edges = { 2, { 1, 36 } };

/* x [ROWS,D] from a table, words [V,D], tails [K,D]; without x the graph evaluates and gives logits. */
static model record(k_dtype dtype, const k_clusters *c, int64_t chunk_bytes, int logits)
{
    model m = { .params = nn_params_new(dev, dtype, 11) };
    nn_graph *g = m.graph = nn_graph_new(m.params, !logits);
    g->chunk_bytes = chunk_bytes;
    nn_id x = weight(&m, "x", dims(2, ROWS, D, 0, 0), 1), words = weight(&m, "words", dims(2, V, D, 0, 0), 1);
    nn_id tails = weight(&m, "tails", dims(2, c->tails, D, 0, 0), 1);
    m.target = nn_input(g, K_I32, dims(1, ROWS, 0, 0, 0));
    nn_id h = nn_unary(g, K_TANH, x);
    if (logits)
        nn_keep(g, m.o = nn_adaptive_logits(g, h, words, tails, c));
    m.loss = logits ? nn_cross_entropy(g, m.o, m.target) : nn_adaptive_cross_entropy(g, h, words, tails, m.target, c);
    nn_graph_set_loss(g, m.loss);
    ready(&m);
    return m;
}

/* log p of every word of a row, by the definition. */
static void define(const double *x, const double *words, const double *tails, const k_clusters *c, double *logp)
{
    double score[V], gate[K_TAILS], head = 0;
    for (int w = 0; w < V; w++)
        for (int j = 0; j < D; j++)
            score[w] = (j ? score[w] : 0) + tanh(x[j]) * words[w * D + j];
    for (int i = 0; i < c->tails; i++)
        for (int j = 0; j < D; j++)
            gate[i] = (j ? gate[i] : 0) + tanh(x[j]) * tails[i * D + j];
    for (int w = 0; w < c->cut[0]; w++)
        head += exp(score[w]);
    for (int i = 0; i < c->tails; i++)
        head += exp(gate[i]);
    for (int w = 0; w < c->cut[0]; w++)
        logp[w] = score[w] - log(head);
    for (int i = 0; i < c->tails; i++) {
        int end = i + 1 < c->tails ? c->cut[i + 1] : V;
        double tail = 0;
        for (int w = c->cut[i]; w < end; w++)
            tail += exp(score[w]);
        for (int w = c->cut[i]; w < end; w++)
            logp[w] = gate[i] - log(head) + score[w] - log(tail);
    }
}

/* The loss of every row, and the logarithms of all probabilities, which add up to one. */
static void it_is_what_it_says(void **state)
{
    (void)state;
    const k_clusters *const all[] = { &one, &three, &edges };
    for (int k = 0; k < 6; k++) {
        const k_clusters *c = all[k / 2];
        int logits = k % 2;
        model m = record(K_F64, c, 1 << 20, logits);
        double *x = nn_param_value(m.params, 0), *words = nn_param_value(m.params, 1), *tails = nn_param_value(m.params, 2), mean = 0, n = 0;
        targets(&m, m.target, ROWS, V);
        assert_int_equal(nn_forward(m.graph), 0);
        for (int r = 0; r < ROWS; r++) {
            int32_t target = ((int32_t *)nn_data(m.graph, m.target))[r];
            double logp[V], total = 0, loss = ((double *)nn_data(m.graph, m.loss))[r];
            define(x + r * D, words, tails, c, logp);
            for (int w = 0; logits && w < V; w++) {
                double got = ((double *)nn_data(m.graph, m.o))[r * V + w];
                total += exp(got);
                assert_true(fabs(got - logp[w]) < 1e-12);
            }
            assert_true(!logits || fabs(total - 1) < 1e-12);
            if (fabs(loss - (target < 0 ? 0 : -logp[target])) > 1e-12)
                fail_msg("row %d, target %d: loss %.15g, defined %.15g", r, target, loss, -logp[target]);
            mean += target < 0 ? 0 : -logp[target];
            n += target >= 0;
        }
        assert_true(fabs(nn_loss(m.graph) - mean / n) < 1e-12);
        end(&m);
    }
}

/* Whole, in chunks of few rows, and of one. */
static void gradients_are_right(void **state)
{
    (void)state;
    static const int64_t bytes[] = { 1 << 20, 6 * 64 * 8, 1 };
    const k_clusters *const all[] = { &one, &three, &edges };
    for (int k = 0; k < 9; k++) {
        model m = record(K_F64, all[k / 3], bytes[k % 3], 0);
        targets(&m, m.target, ROWS, V);
        check_gradients(m.params, m.graph);
        end(&m);
    }
}

/* The loss without a forward of its own, as training takes it; in float near the double one, in chunks of any size. */
static void steps_have_the_same_loss(void **state)
{
    (void)state;
    static const int64_t bytes[] = { 1 << 20, 5 * 64 * 4, 1 };
    model m = record(K_F64, &three, 1 << 20, 0);
    targets(&m, m.target, ROWS, V);
    nn_params_zero_grad(m.params);
    assert_int_equal(nn_step(m.graph), 0);
    double want = nn_loss(m.graph);
    for (int k = 0; k < 3; k++) {
        model f = record(K_F32, &three, bytes[k], 0);
        targets(&f, f.target, ROWS, V);
        nn_params_zero_grad(f.params);
        assert_int_equal(nn_step(f.graph), 0);
        assert_true(fabs(nn_loss(f.graph) - want) < 1e-5);
        float *got = nn_param_grad(f.params, 1);
        double *true_one = nn_param_grad(m.params, 1);
        for (int i = 0; i < V * D; i++)
            assert_true(fabs(got[i] - true_one[i]) < 1e-5);
        end(&f);
    }
    end(&m);
}

/* Without a target in a tail its words have no gradient, and without any target nothing has. */
static void rows_without_targets_are_quiet(void **state)
{
    (void)state;
    for (int none = 0; none < 2; none++) {
        model m = record(K_F64, &three, 1 << 20, 0);
        for (int i = 0; i < ROWS; i++)
            ((int32_t *)nn_data(m.graph, m.target))[i] = none ? -1 : i % 16;
        nn_params_zero_grad(m.params);
        assert_int_equal(nn_step(m.graph), 0);
        double *d = nn_param_grad(m.params, 1), sum[2] = { 0 };
        for (int i = 0; i < V * D; i++)
            sum[i >= 16 * D] += fabs(d[i]);
        assert_true(none ? nn_loss(m.graph) == 0 && sum[0] == 0 : sum[0] > 0);
        assert_true(sum[1] == 0);
        end(&m);
    }
}

/* A matrix whose rows are no multiple of 8 ends with rows of zeros, which steps leave alone. */
static void rows_of_zeros_stay(void **state)
{
    (void)state;
    model m = record(K_F64, &three, 1 << 20, 0);
    nn_train_opts o = { .lr = 0.1, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .max_steps = 10, .decay_embeddings = 1, .weight_decay = 0.1 };
    targets(&m, m.target, ROWS, V);
    for (int s = 1; s <= 3; s++) {
        nn_params_zero_grad(m.params);
        assert_int_equal(nn_step(m.graph), 0);
        assert_int_equal(nn_optimiser_step(m.params, &o, s), 0);
    }
    assert_int_equal(nn_param_rows(m.params, 1), 40);
    assert_int_equal(nn_param_rows(m.params, 2), 8);
    for (int i = V * D; i < 40 * D; i++)
        assert_true(((double *)nn_param_value(m.params, 1))[i] == 0);
    for (int i = 3 * D; i < 8 * D; i++)
        assert_true(((double *)nn_param_value(m.params, 2))[i] == 0);
    end(&m);
}

/* In a Transformer: tied to the embedding and with a table of its own; the loss is that of the logits. */
static void a_transformer_takes_it(void **state)
{
    (void)state;
    hs_plugin file;
    char path[300], opts[1024] = { 0 };
    snprintf(path, sizeof path, "%s/variants/softmax.so", getenv("B") ? getenv("B") : "build");
    assert_int_equal(hs_plugin_open(path, &file, why, sizeof why), 0);
    nn_mixer_spec mixer = { .variant = hs_plugin_variant(&file, "softmax"), .opts = opts, .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    hs_opts_defaults(mixer.variant->opts, opts);
    for (int tied = 0; tied < 2; tied++) {
        nn_model_opts o;
        hs_opts_defaults(nn_model_table, &o);
        o.layers = 1, o.d_model = 8, o.heads = 2, o.d_ff = 6, o.tie_embeddings = tied, o.init = 0.4;
        o.adaptive_cutoffs = (attn_ints){ 2, { 5, 12 } };
        nn_params *p = nn_params_new(dev, K_F64, 5);
        nn_graph *g = nn_graph_new(p, 1), *judge = nn_graph_new(p, 0);
        nn_transformer t;
        assert_int_equal(nn_transformer_init(&t, p, &o, &mixer, 1, 19, 6, why, sizeof why), 0);
        nn_id tokens[2], target[2];
        for (int i = 0; i < 2; i++) {
            nn_graph *of = i ? judge : g;
            tokens[i] = nn_input(of, K_I32, dims(2, 2, 6, 0, 0));
            target[i] = nn_input(of, K_I32, dims(1, 12, 0, 0, 0));
            nn_id h = nn_transformer_body(&t, of, tokens[i], ATTN_CAUSAL);
            nn_graph_set_loss(of, i ? nn_cross_entropy(of, nn_transformer_logits(&t, of, h), target[i]) : nn_transformer_loss(&t, of, h, target[i], 0));
        }
        assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
        if (nn_graph_compile(g, why, sizeof why) || nn_graph_compile(judge, why, sizeof why))
            fail_msg("%s", why);
        for (int i = 0; i < 24; i++)
            ((int32_t *)nn_data(i / 12 ? judge : g, tokens[i / 12]))[i % 12] = i % 12 * 7 % 19, ((int32_t *)nn_data(i / 12 ? judge : g, target[i / 12]))[i % 12] = i % 12 * 5 % 19;
        check_gradients(p, g);
        assert_int_equal(nn_forward(g) | nn_forward(judge), 0);
        assert_true(fabs(nn_loss(g) - nn_loss(judge)) < 1e-12);
        nn_graph_free(g);
        nn_graph_free(judge);
        nn_params_free(p);
        o.adaptive_cutoffs = (attn_ints){ 2, { 12, 5 } };
        assert_int_equal(nn_model_check(&o, why, sizeof why), -1);
    }
    hs_plugin_close(&file);
}

static void mistakes_are_told(void **state)
{
    (void)state;
    static const k_clusters wrong[] = { { 0, { 0 } }, { 1, { 0 } }, { 2, { 9, 9 } }, { 1, { V } }, { 9, { 1 } } };
    for (int i = 0; i < 8; i++) {
        model m = begin();
        nn_graph *g = m.graph;
        const k_clusters *c = i < 5 ? &wrong[i] : &one;
        nn_id x = nn_unary(g, K_TANH, weight(&m, "x", dims(2, ROWS, D, 0, 0), 1)), words = weight(&m, "words", dims(2, V, D + (i == 5), 0, 0), 1);
        nn_id tails = weight(&m, "tails", dims(2, i < 5 ? c->tails + !c->tails : 1 + (i == 6), D, 0, 0), 1);
        nn_id target = nn_input(g, K_I32, dims(1, ROWS, 0, 0, 0));
        nn_id y = i == 7 ? nn_adaptive_logits(g, x, words, tails, c) : nn_adaptive_cross_entropy(g, x, words, tails, target, c);
        assert_int_equal(y, NN_BAD);
        assert_int_equal(nn_params_alloc(m.params, why, sizeof why), 0);
        assert_int_equal(nn_graph_compile(g, why, sizeof why), ATTN_EINVAL);
        assert_non_null(strstr(why, "adaptive_"));
        end(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_what_it_says),            cmocka_unit_test(gradients_are_right), cmocka_unit_test(steps_have_the_same_loss),
        cmocka_unit_test(rows_without_targets_are_quiet), cmocka_unit_test(rows_of_zeros_stay), cmocka_unit_test(mistakes_are_told),
        cmocka_unit_test(a_transformer_takes_it),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
