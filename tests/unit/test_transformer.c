/* test_transformer.c - the Transformer: its parameters, its gradients, what it may see, and that it learns around every variant. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "transformer_model.h"

/* ---- parameters ------------------------------------------------------------------------------------------------ */

/* The number of learned numbers; nothing is allocated. */
static int64_t size_of(const char *opts, int64_t vocabulary, int64_t context)
{
    nn_params *p = nn_params_new(dev, K_F32, 1);
    nn_graph *g = nn_graph_new(p, 1);
    nn_model_opts o = options(opts);
    nn_mixer_spec mixer = { .variant = variant("softmax"), .opts = calloc(1, 1024), .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
    hs_opts_defaults(mixer.variant->opts, (void *)mixer.opts);
    nn_transformer t;
    assert_int_equal(nn_transformer_init(&t, p, &o, &mixer, 1, vocabulary, context, why, sizeof why), 0);
    nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { 1, context } });
    nn_id h = nn_transformer_body(&t, g, tokens, ATTN_CAUSAL);
    assert_true(nn_transformer_logits(&t, g, h) >= 0);
    int64_t n = 0;
    for (int i = 0; i < nn_params_count(p); i++)
        n += nn_param_dims(p, i).d[0] * (nn_param_dims(p, i).n > 1 ? nn_param_dims(p, i).d[1] : 1);
    nn_graph_free(g);
    nn_params_free(p);
    free((void *)mixer.opts);
    return n;
}

/* GPT-2 small has 124,439,808 (Radford et al. 2019, as released).  The small language model of Schlag et al. 2021 has, without the
 * adaptive softmax's 267,735 words, per layer 4 128^2 + 128 2048 2 + 2048 + 128 + 4 128, 16 times: 9,480,192. */
static void test_known_sizes(void **state)
{
    (void)state;
    assert_int_equal(size_of("{\"layers\": 12, \"d_model\": 768, \"heads\": 12, \"positions\": \"learned\"}", 50257, 1024), 124439808);
    const char *small = "{\"layers\": 16, \"d_model\": 128, \"heads\": 8, \"d_ff\": 2048, \"norm_position\": \"post\", \"activation\": \"relu\","
                        "\"attention_bias\": false, \"positions\": \"sinusoidal_reversed\", \"scale_embedding\": true}";
    assert_int_equal(size_of(small, 1, 256) - 128, 9480192);
    assert_int_equal(size_of(small, 267735, 256), 9480192 + 267735 * 128);
    assert_int_equal(size_of("{\"layers\": 1, \"d_model\": 8, \"heads\": 4, \"kv_heads\": 2, \"d_head\": 3, \"d_ff\": 5, \"activation\": \"swiglu\","
                             "\"bias\": false, \"attention_bias\": false, \"norm\": \"rms\", \"tie_embeddings\": false, \"positions\": \"none\"}", 7, 4),
                     8 * (12 + 6 + 6 + 12) + 3 * 8 * 5 + 3 * 8 + 2 * 7 * 8);
    assert_int_equal(size_of("{\"layers\": 1, \"d_model\": 96, \"heads\": 4, \"activation\": \"geglu\", \"bias\": false, \"positions\": \"none\"}", 1, 4) -
                     size_of("{\"layers\": 1, \"d_model\": 96, \"heads\": 4, \"feed_forward\": false, \"positions\": \"none\"}", 1, 4),
                     3 * 96 * 256 + 2 * 96);    /* 8/3 96 = 256 */
}

/* What contradicts itself is refused with a sentence. */
static void test_contradictions(void **state)
{
    static const char *const bad[][2] = {
        { "{\"d_model\": 65}", "model: d_model 65 is no multiple of heads 8 (or say d_head)" },
        { "{\"kv_heads\": 3}", "model: heads 8 is no multiple of kv_heads 3" },
        { "{\"d_model\": 9, \"d_head\": 2}", "model: sinusoidal positions need an even d_model, not 9" } };
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        model m;
        assert_int_equal(record(&m, "softmax", bad[i][0], K_F32, 1, 4, ATTN_CAUSAL), ATTN_EINVAL);
        assert_string_equal(why, bad[i][1]);
        release(&m);
    }
}

/* ---- gradients ------------------------------------------------------------------------------------------------------ */

/* Every norm, place of the norm and activation, with what else there is to choose spread over them. */
static void test_gradients(void **state)
{
    static const char *const norms[] = { "layer", "rms" }, *const places[] = { "pre", "post" };
    static const char *const acts[] = { "relu", "gelu", "silu", "reglu", "geglu", "swiglu" };
    static const char *const positions[] = { "none", "sinusoidal", "sinusoidal_reversed", "learned" };
    (void)state;
    for (int i = 0; i < 2 * 2 * 6; i++) {
        char opts[400];
        snprintf(opts, sizeof opts, "{\"layers\": 2, \"d_model\": 8, \"heads\": 4, \"kv_heads\": %d, \"d_ff\": 6, \"init\": 0.4, \"norm\": \"%s\", "
                 "\"norm_position\": \"%s\", \"activation\": \"%s\", \"bias\": %s, \"attention_bias\": %s, \"positions\": \"%s\", "
                 "\"tie_embeddings\": %s, \"scale_embedding\": %s, \"scale_residual_init\": true}", i % 3 ? 0 : 2, norms[i % 2], places[i / 2 % 2],
                 acts[i / 4], i % 5 ? "true" : "false", i % 3 ? "true" : "false", positions[i / 3 % 4], i % 2 ? "true" : "false",
                 i % 3 ? "false" : "true");
        model m;
        assert_int_equal(record(&m, i % 4 == 3 ? "fwp" : "softmax", opts, K_F64, 2, 5, i % 4 == 2 ? ATTN_BIDIR : ATTN_CAUSAL), 0);
        if (start(&m))
            fail_msg("%s: %s", opts, why);
        check_gradients(&m, opts);
        release(&m);
    }
}

/* ---- what a token sees -------------------------------------------------------------------------------------------------- */

/* The first logit (of all V of a position) that differs when the token at `at` of sequence 0 changes; T when none does. */
static int first_change(model *m, int at)
{
    size_t n = (size_t)m->B * m->T * V;
    double *before = malloc(n * sizeof *before), *after = nn_data(m->graph, m->logits);
    int32_t *token = nn_data(m->graph, m->tokens);
    assert_int_equal(nn_forward(m->graph), 0);
    memcpy(before, after, n * sizeof *before);
    token[at] = (token[at] + 1) % V;
    assert_int_equal(nn_forward(m->graph), 0);
    token[at] = (token[at] + V - 1) % V;
    int first = 0;
    while (first < m->T && !memcmp(before + first * V, after + first * V, V * sizeof *before))
        first++;
    assert_memory_equal(before + (size_t)m->T * V, after + (size_t)m->T * V, (size_t)(m->B - 1) * m->T * V * sizeof *before);
    free(before);
    return first;
}

/* A decoder's logits do not know later tokens, nor other sequences; an encoder's know all of their own. */
static void test_causality(void **state)
{
    (void)state;
    for (int mode = ATTN_CAUSAL; mode <= ATTN_BIDIR; mode++) {
        model m;
        assert_int_equal(record(&m, "softmax", "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"init\": 0.3}", K_F64, 2, 7, mode), 0);
        assert_int_equal(start(&m), 0);
        for (int at = 0; at < 7; at++)
            assert_int_equal(first_change(&m, at), mode == ATTN_CAUSAL ? at : 0);
        release(&m);
    }
}

/* Without positions equal tokens have equal logits under linear attention of the whole sequence; with them not. */
static void test_positions(void **state)
{
    static const char *const names[] = { "none", "sinusoidal", "sinusoidal_reversed", "learned" };
    (void)state;
    for (int i = 0; i < 4; i++) {
        char opts[200];
        model m;
        snprintf(opts, sizeof opts, "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.3, \"positions\": \"%s\"}", names[i]);
        assert_int_equal(record(&m, "softmax", opts, K_F64, 1, 6, ATTN_BIDIR), 0);
        assert_int_equal(start(&m), 0);
        int32_t *token = nn_data(m.graph, m.tokens);
        token[1] = token[4] = 3;
        assert_int_equal(nn_forward(m.graph), 0);
        const double *y = nn_data(m.graph, m.logits);
        assert_int_equal(memcmp(y + V, y + 4 * V, V * sizeof *y) == 0, i == 0);
        release(&m);
    }
}

/* The last token of a text is at place 0 when places are reversed: texts of any length end alike. */
static void test_reversed_positions(void **state)
{
    double end[2][V];
    (void)state;
    for (int i = 0; i < 2; i++) {
        model m;
        int T = i ? 9 : 4;
        assert_int_equal(record(&m, "identity", "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.3, \"positions\": \"sinusoidal_reversed\"}",
                                K_F64, 1, T, ATTN_CAUSAL), 0);
        assert_int_equal(start(&m), 0);
        ((int32_t *)nn_data(m.graph, m.tokens))[T - 1] = 5;
        assert_int_equal(nn_forward(m.graph), 0);
        memcpy(end[i], (double *)nn_data(m.graph, m.logits) + (T - 1) * V, sizeof end[i]);
        release(&m);
    }
    for (int i = 0; i < V; i++)
        assert_true(fabs(end[0][i] - end[1][i]) < 1e-12);
}

/* A graph of fewer tokens is the same model: its logits are those of the beginning; more than there are positions for is an error. */
static void test_shorter(void **state)
{
    (void)state;
    model m;
    assert_int_equal(record(&m, "softmax", "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"init\": 0.3, \"positions\": \"learned\"}", K_F64, 1, 9, ATTN_CAUSAL), 0);
    nn_graph *g = nn_graph_new(m.params, 0), *longer = nn_graph_new(m.params, 0);
    nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { 1, 5 } });
    nn_id logits = nn_transformer_logits(&m.t, g, nn_transformer_body(&m.t, g, tokens, ATTN_CAUSAL));
    nn_transformer_body(&m.t, longer, nn_input(longer, K_I32, (attn_dims){ 2, { 1, 10 } }), ATTN_CAUSAL);
    assert_int_equal(start(&m), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(longer, why, sizeof why), ATTN_EINVAL);
    assert_string_equal(why, "transformer: 10 tokens, learned positions for 9");
    memcpy(nn_data(g, tokens), nn_data(m.graph, m.tokens), 5 * sizeof(int32_t));
    assert_int_equal(nn_forward(m.graph) || nn_forward(g), 0);
    for (int i = 0; i < 5 * V; i++)
        assert_true(fabs(((double *)nn_data(g, logits))[i] - ((double *)nn_data(m.graph, m.logits))[i]) < 1e-12);
    nn_graph_free(g);
    nn_graph_free(longer);
    release(&m);
}

/* The loss is the cross-entropy of the logits. */
static void test_loss(void **state)
{
    (void)state;
    model m;
    double sum = 0;
    assert_int_equal(record(&m, "softmax", "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.5, \"tie_embeddings\": false}", K_F64, 2, 6, ATTN_CAUSAL), 0);
    assert_int_equal(start(&m), 0);
    assert_int_equal(nn_forward(m.graph), 0);
    const double *y = nn_data(m.graph, m.logits);
    const int32_t *target = nn_data(m.graph, m.target);
    for (int i = 0; i < 12; i++, y += V) {
        double z = 0;
        for (int j = 0; j < V; j++)
            z += exp(y[j]);
        sum += target[i] < 0 ? 0 : log(z) - y[target[i]];
    }
    assert_true(fabs(sum / 10 - nn_loss(m.graph)) < 1e-12);
    release(&m);
}

/* Dropout of each kind changes a training graph, from step to step, and leaves a graph of evaluation alone. */
static void test_dropout(void **state)
{
    static const char *const kinds[] = { "dropout", "embedding_dropout", "ffn_dropout" };
    (void)state;
    for (int i = 0; i < 3; i++) {
        model m;
        char opts[160];
        snprintf(opts, sizeof opts, "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"init\": 0.3, \"%s\": 0.5}", kinds[i]);
        assert_int_equal(record(&m, "softmax", opts, K_F64, 2, 6, ATTN_CAUSAL), 0);
        nn_graph *g = nn_graph_new(m.params, 0);
        nn_id tokens = nn_input(g, K_I32, (attn_dims){ 2, { 2, 6 } }), target = nn_input(g, K_I32, (attn_dims){ 1, { 12 } });
        nn_graph_set_loss(g, nn_transformer_loss(&m.t, g, nn_transformer_body(&m.t, g, tokens, ATTN_CAUSAL), target, 0));
        assert_int_equal(start(&m), 0);
        assert_int_equal(nn_graph_compile(g, why, sizeof why), 0);
        memcpy(nn_data(g, target), nn_data(m.graph, m.target), 12 * sizeof(int32_t));
        assert_int_equal(nn_forward(m.graph), 0);
        double first = nn_loss(m.graph);
        assert_int_equal(nn_forward(m.graph), 0);
        assert_true(nn_loss(m.graph) != first);
        assert_int_equal(nn_forward(g), 0);
        first = nn_loss(g);
        assert_int_equal(nn_forward(g), 0);
        assert_true(nn_loss(g) == first);
        nn_graph_free(g);
        release(&m);
    }
}

/* ---- learning ---------------------------------------------------------------------------------------------------------------- */

/* The model around this variant learns a text by heart, or its plan says why it cannot; whether it did. */
static int learns(const char *name, int mode)
{
    model m;
    double first = 0, last = 0;
    int rc = record(&m, name, "{\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"d_ff\": 64}", K_F32, 2, 16, mode);
    rc = rc ? rc : start(&m);
    if (rc == 0) {
        learn(&m, 40, &first, &last);
        if (!(last < 0.6 * first))
            fail_msg("%s: the loss went from %g to %g", name, first, last);
    }
    if (rc && mode == ATTN_CAUSAL)
        fail_msg("%s: %s", name, why);
    release(&m);
    return rc == 0;
}

/* Every variant that is built. */
static void test_every_variant(void **state)
{
    int causal = 0, both = 0;
    (void)state;
    for (int i = 0; i < nfiles; i++)
        for (int j = 0; file[i].variants && file[i].variants[j]; j++) {
            causal += learns(file[i].variants[j]->name, ATTN_CAUSAL);
            both += learns(file[i].variants[j]->name, ATTN_BIDIR);
        }
    assert_true(causal >= 19);
    assert_true(both >= 14);
}

/* The same seeds give the same bits, for any number of threads; another number of tokens the same model. */
static void test_same_bits(void **state)
{
    double loss[2][2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        k_dev *own = dev;
        model m;
        assert_int_equal(k_dev_open("cpu", i ? 3 : 1, &dev, why, sizeof why), 0);
        assert_int_equal(record(&m, "softmax", "{\"layers\": 2, \"d_model\": 32, \"heads\": 2, \"dropout\": 0.1}", K_F32, 4, 32, ATTN_CAUSAL), 0);
        assert_int_equal(start(&m), 0);
        learn(&m, 5, &loss[i][0], &loss[i][1]);
        release(&m);
        k_dev_close(dev);
        dev = own;
    }
    assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
}

/* Layers take the mixers in turn: with identity as every second one the loss differs from both pure models'. */
static void test_hybrid(void **state)
{
    const char *names[2] = { "softmax", "identity" };
    double loss[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        nn_mixer_spec mixer[2];
        char opts[2][1024];
        for (int j = 0; j < 2; j++) {
            const attn_variant *v = variant(names[i == 2 ? j : i]);
            hs_opts_defaults(v->opts, opts[j]);
            mixer[j] = (nn_mixer_spec){ .variant = v, .opts = opts[j], .common = { NN_OUTPUT_NORM_NONE, 1e-5 } };
        }
        nn_model_opts o = options("{\"layers\": 4, \"d_model\": 8, \"heads\": 2, \"init\": 0.3}");
        model m = { .params = nn_params_new(dev, K_F64, 5), .B = 1, .T = 8 };
        m.graph = nn_graph_new(m.params, 0);
        assert_int_equal(nn_transformer_init(&m.t, m.params, &o, mixer, 2, V, 8, why, sizeof why), 0);
        m.tokens = nn_input(m.graph, K_I32, (attn_dims){ 2, { 1, 8 } });
        m.target = nn_input(m.graph, K_I32, (attn_dims){ 1, { 8 } });
        m.h = nn_transformer_body(&m.t, m.graph, m.tokens, ATTN_CAUSAL);
        nn_graph_set_loss(m.graph, nn_transformer_loss(&m.t, m.graph, m.h, m.target, 0));
        assert_int_equal(start(&m), 0);
        assert_int_equal(nn_forward(m.graph), 0);
        loss[i] = nn_loss(m.graph);
        release(&m);
    }
    assert_true(loss[2] != loss[0] && loss[2] != loss[1]);
}

/* ---- an encoder and a decoder --------------------------------------------------------------------------------------------------- */

/* Two sequences: 5 source tokens, of which the first has 3, and 4 target tokens. */
static int record_pair(model *m, const char *opts)
{
    static nn_mixer_spec cross;
    assert_int_equal(record(m, "softmax", opts, K_F64, 2, 4, ATTN_CAUSAL), 0);
    nn_graph_free(m->graph);
    nn_params_free(m->params);
    m->params = nn_params_new(dev, K_F64, 5);
    m->graph = nn_graph_new(m->params, 1);
    cross = m->mixer;
    m->t.params = m->params;
    m->t.context = 5;
    m->source = nn_input(m->graph, K_I32, (attn_dims){ 2, { 2, 5 } });
    m->length = nn_input(m->graph, K_I32, (attn_dims){ 1, { 2 } });
    m->tokens = nn_input(m->graph, K_I32, (attn_dims){ 2, { 2, 4 } });
    m->target = nn_input(m->graph, K_I32, (attn_dims){ 1, { 8 } });
    nn_id memory = nn_transformer_stack(&m->t, m->graph, &(nn_stack){ "encoder", ATTN_BIDIR, m->source, m->length, &m->mixer, 1, NN_NONE, NN_NONE, NULL });
    m->h = nn_transformer_stack(&m->t, m->graph, &(nn_stack){ "decoder", ATTN_CAUSAL, m->tokens, NN_NONE, &m->mixer, 1, memory, m->length, &cross });
    m->logits = nn_transformer_logits(&m->t, m->graph, m->h);
    nn_graph_set_loss(m->graph, nn_transformer_loss(&m->t, m->graph, m->h, m->target, 0.1));
    if (start(m))
        return -1;
    for (int i = 0; i < 10; i++)
        ((int32_t *)nn_data(m->graph, m->source))[i] = (5 * i + 2) % V;
    memcpy(nn_data(m->graph, m->length), (int32_t[]){ 3, 5 }, 2 * sizeof(int32_t));
    return 0;
}

/* The logits of sequence b, by value. */
static double *logits_of(model *m, int b, double *out)
{
    assert_int_equal(nn_forward(m->graph), 0);
    return memcpy(out, (double *)nn_data(m->graph, m->logits) + b * 4 * V, 4 * V * sizeof *out);
}

/* Gradients of every parameter; what is seen: the source up to its length, target tokens before; one embedding for both. */
static void test_encoder_decoder(void **state)
{
    static const char *const opts[] = { "{\"layers\": 2, \"d_model\": 8, \"heads\": 2, \"d_ff\": 6, \"init\": 0.4}",
                                        "{\"layers\": 1, \"d_model\": 8, \"heads\": 2, \"d_ff\": 6, \"init\": 0.4, \"norm_position\": \"post\", "
                                        "\"positions\": \"learned\", \"kv_heads\": 1, \"recompute\": \"layer\"}",
                                        "{\"layers\": 3, \"d_model\": 8, \"heads\": 2, \"d_ff\": 6, \"init\": 0.4, \"reversible\": true, \"short_conv\": 3, "
                                        "\"positions\": \"axial\"}" };
    double before[4 * V], after[4 * V];
    (void)state;
    for (int i = 0; i < 3; i++) {
        model m;
        if (record_pair(&m, opts[i]))
            fail_msg("%s", why);
        check_gradients(&m, opts[i]);
        int32_t *source = nn_data(m.graph, m.source), *token = nn_data(m.graph, m.tokens);
        for (int at = 0; at < 5; at++) {
            logits_of(&m, 0, before);
            source[at] = (source[at] + 1) % V;
            assert_int_equal(memcmp(before, logits_of(&m, 0, after), sizeof before) != 0, at < 3);
            logits_of(&m, 1, before);
            source[5 + at] = (source[5 + at] + 1) % V;
            assert_int_not_equal(memcmp(before, logits_of(&m, 1, after), sizeof before), 0);
        }
        for (int at = 0; at < 4; at++) {
            int first = 0;
            logits_of(&m, 0, before);
            token[at] = (token[at] + 1) % V;
            logits_of(&m, 0, after);
            while (first < 4 && !memcmp(before + first * V, after + first * V, V * sizeof *before))
                first++;
            assert_int_equal(first, at);
        }
        int embeddings = 0;
        for (int p = 0; p < nn_params_count(m.params); p++)
            embeddings += strstr(nn_param_name(m.params, p), "embedding.weight") != NULL;
        assert_int_equal(embeddings, 1);
        release(&m);
    }
}

/* Layers that are made again in backward have the same gradients to the bit, in less memory. */
static void test_recompute(void **state)
{
    size_t bytes[2];
    double loss[2][2];
    (void)state;
    for (int i = 0; i < 2; i++) {
        char opts[200];
        model m;
        k_memory memory;
        snprintf(opts, sizeof opts, "{\"layers\": 6, \"d_model\": 32, \"heads\": 2, \"dropout\": 0.1, \"recompute\": \"%s\"}", i ? "layer" : "none");
        assert_int_equal(record(&m, "softmax", opts, K_F32, 4, 32, ATTN_CAUSAL), 0);
        assert_int_equal(start(&m), 0);
        k_memory_read(dev, &memory);
        bytes[i] = memory.now_tag[K_TAG_ACTIVATION];
        learn(&m, 4, &loss[i][0], &loss[i][1]);
        release(&m);
    }
    assert_memory_equal(loss[0], loss[1], sizeof loss[0]);
    assert_true(2 * bytes[1] < bytes[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known_sizes),        cmocka_unit_test(test_contradictions), cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_causality),          cmocka_unit_test(test_positions),      cmocka_unit_test(test_reversed_positions),
        cmocka_unit_test(test_shorter),            cmocka_unit_test(test_loss),           cmocka_unit_test(test_dropout),
        cmocka_unit_test(test_every_variant),      cmocka_unit_test(test_same_bits),      cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_encoder_decoder),    cmocka_unit_test(test_recompute) };
    return cmocka_run_group_tests_name("transformer", tests, open_files, close_files);
}
