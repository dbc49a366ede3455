/* test_nn.c - parameters and the tape: every node against central differences, precision, threads, replay, mistakes. */
#include "nn_check.h"
#include "nn_toy.h"
#include <malloc.h>

static const toy_opts fine = { FINE };

/* ---- gradients ------------------------------------------------------------------------------------------------------------ */

static void linear_unary_matmul(void **state)
{
    (void)state;
    for (int u = 0; u < K_UNARIES; u++) {
        model m = begin();
        nn_graph *g = m.graph;
        nn_id x = weight(&m, "x", dims(3, 2, 2, 5, 0), 1), w = weight(&m, "w", dims(2, 6, 5, 0, 0), 0.5);
        nn_id h = nn_unary(g, (k_unary)u, nn_linear(g, x, w, weight(&m, "b", dims(1, 6, 0, 0, 0), 0.5)));
        h = nn_linear(g, h, weight(&m, "w2", dims(2, 6, 6, 0, 0), 0.5), NN_NONE);
        nn_id y = nn_matmul(g, nn_reshape(g, h, dims(2, 4, 6, 0, 0)), weight(&m, "c", dims(2, 6, 3, 0, 0), 0.5));
        nn_id t = nn_input(g, K_I32, dims(1, 4, 0, 0, 0));
        assert_int_equal(nn_graph_set_loss(g, u % 2 ? nn_cross_entropy(g, y, t) : nn_half_squared_error(g, y, t)), 0);
        ready(&m);
        targets(&m, t, 4, 3);
        check_gradients(m.params, g);
        end(&m);
    }
}

/* One tensor with many consumers: twice in one sum, twice in one product, in both tables of a gather, as a weight. */
static void gradients_add_up(void **state)
{
    (void)state;
    model m = begin();
    nn_graph *g = m.graph;
    nn_id x = weight(&m, "x", dims(2, 4, 4, 0, 0), 0.7), idx = nn_input(g, K_I32, dims(1, 4, 0, 0, 0)), t = nn_input(g, K_I32, dims(1, 4, 0, 0, 0));
    nn_id h = nn_unary(g, K_TANH, x);
    nn_id y = nn_add(g, nn_add(g, h, h), nn_matmul(g, h, nn_reshape(g, h, dims(2, 4, 4, 0, 0))));
    y = nn_add(g, y, nn_gather2(g, x, idx, x, t));
    y = nn_add(g, nn_gather(g, h, idx), nn_linear(g, y, x, NN_NONE));
    nn_unary(g, K_EXP, y);              /* a branch on which the loss does not depend */
    assert_int_equal(nn_graph_set_loss(g, nn_cross_entropy(g, y, nn_input(g, K_I32, dims(1, 4, 0, 0, 0)))), 0);
    ready(&m);
    memcpy(nn_data(g, idx), (int32_t[]){ 3, 0, 3, 3 }, 16);
    memcpy(nn_data(g, t), (int32_t[]){ 1, 1, 2, 0 }, 16);
    check_gradients(m.params, g);
    end(&m);
}

static nn_mixer_spec toy_spec(int mode, int dtype)
{
    return (nn_mixer_spec){ .variant = &toy, .opts = &fine, .common = { NN_OUTPUT_NORM_NONE, 1e-5 }, .shape = { .mode = mode, .dtype = dtype } };
}

/* The model of the first task in double: 2 sequences of 5, 2 queries, 4 symbols. */
static model task_model(k_dev *on, k_dtype dtype, int mode, int norm)
{
    model m = { .B = 2, .T = 5, .Tq = 2, .S = 4, .params = nn_params_new(on, dtype, 11) };
    nn_mixer_spec spec = toy_spec(mode, (int)dtype);
    spec.common.output_norm = norm;
    m.graph = nn_graph_new(m.params, 1);
    model_record(&m, &spec, 6, 3, 1);
    return m;
}

static void the_task_model(void **state)
{
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        model m = task_model(dev, K_F64, kind & 1 ? ATTN_CAUSAL : ATTN_CROSS, kind >> 1);
        ready(&m);
        model_batch(&m, 1, 1);
        assert_null(nn_grad(m.graph, m.v));
        assert_non_null(nn_grad(m.graph, m.o));
        check_gradients(m.params, m.graph);
        end(&m);
    }
}

/* Self-attention with q = k = v = a parameter, then with a residual around it: gradients meet in one tensor. */
static model shared_inputs(void)
{
    model m = begin();
    nn_graph *g = m.graph;
    nn_mixer_spec spec = toy_spec(ATTN_BIDIR, ATTN_F64);
    nn_id x = weight(&m, "x", dims(4, 2, 3, 2, 4), 0.5), gate = weight(&m, "gate", dims(4, 2, 3, 2, 1), 0.5);
    nn_id h = nn_add(g, x, nn_attention(g, &spec, "first", x, x, x, &gate));
    h = nn_unary(g, K_TANH, h);
    h = nn_add(g, h, nn_attention(g, &spec, "second", h, h, h, &gate));
    nn_id t = nn_input(g, K_I32, dims(1, 12, 0, 0, 0));
    assert_int_equal(nn_graph_set_loss(g, nn_half_squared_error(g, nn_reshape(g, h, dims(2, 12, 4, 0, 0)), t)), 0);
    ready(&m);
    targets(&m, t, 12, 4);
    return m;
}

static void attention_shares_its_inputs(void **state)
{
    (void)state;
    model m = shared_inputs();
    check_gradients(m.params, m.graph);
    end(&m);
}

/* What depends on nothing learned has no gradient, and neither has what the loss does not depend on. */
static void gradients_exist_where_needed(void **state)
{
    (void)state;
    model m = begin();
    nn_graph *g = m.graph;
    nn_id x = nn_input(g, K_F64, dims(2, 3, 4, 0, 0)), w = weight(&m, "w", dims(2, 4, 4, 0, 0), 1), t = nn_input(g, K_I32, dims(1, 3, 0, 0, 0));
    nn_id f = nn_use(g, nn_param(m.params, "f", dims(2, 4, 4, 0, 0), (attn_init){ ATTN_INIT_NORMAL, 0, 1 }, ATTN_FROZEN));
    nn_id a = nn_linear(g, x, f, NN_NONE), b = nn_linear(g, a, w, NN_NONE), aside = nn_unary(g, K_TANH, b);
    nn_graph_set_loss(g, nn_cross_entropy(g, nn_linear(g, b, f, NN_NONE), t));
    ready(&m);
    assert_null(nn_grad(g, x));
    assert_null(nn_grad(g, f));
    assert_null(nn_grad(g, a));
    assert_null(nn_grad(g, aside));
    assert_non_null(nn_grad(g, b));
    check_gradients(m.params, g);
    end(&m);
}

/* ---- precision, threads, replay ------------------------------------------------------------------------------------------- */

static void float_is_close_to_double(void **state)
{
    (void)state;
    model d = task_model(dev, K_F64, ATTN_CROSS, 1), f = task_model(dev, K_F32, ATTN_CAUSAL, 1), c = task_model(dev, K_F32, ATTN_CROSS, 1);
    model e = task_model(dev, K_F64, ATTN_CAUSAL, 1);
    model *const pairs[][2] = { { &e, &f }, { &d, &c } };   /* the fast implementation, and the reference through conversion */
    for (int i = 0; i < 2; i++) {
        model *wide = pairs[i][0], *narrow = pairs[i][1];
        ready(wide);
        ready(narrow);
        for (int p = 0; p < nn_params_count(wide->params); p++)
            k_convert(dev, count(wide->params, p), nn_param_value(narrow->params, p), K_F32, nn_param_value(wide->params, p), K_F64);
        model_batch(wide, 3, 1);
        model_batch(narrow, 3, 0);
        model *const both[] = { wide, narrow };
        for (int b = 0; b < 2; b++) {
            nn_params_zero_grad(both[b]->params);
            assert_int_equal(nn_forward(both[b]->graph), 0);
            assert_int_equal(nn_backward(both[b]->graph), 0);
        }
        assert_true(fabs(nn_loss(wide->graph) - nn_loss(narrow->graph)) < 1e-5);
        for (int p = 0; p < nn_params_count(wide->params); p++) {
            double *x = nn_param_grad(wide->params, p);
            float *y = nn_param_grad(narrow->params, p);
            for (int64_t k = 0; x && k < count(wide->params, p); k++)
                assert_true(fabs(x[k] - (double)y[k]) < 2e-5 * (1 + fabs(x[k])));
        }
        end(wide);
        end(narrow);
    }
}

/* Loss and all gradients of one step, bit for bit, for any number of threads, and again when replayed. */
static void replay_and_threads_change_no_bit(void **state)
{
    static float first[4096], have[4096];
    (void)state;
    for (int threads = 1; threads <= 3; threads += 2) {
        k_dev *on;
        assert_int_equal(k_dev_open("cpu", threads, &on, why, sizeof why), 0);
        model m = { .B = 8, .T = 30, .Tq = 30, .S = 40, .params = nn_params_new(on, K_F32, 11) };
        nn_mixer_spec spec = toy_spec(ATTN_CAUSAL, ATTN_F32);
        m.graph = nn_graph_new(m.params, 1);
        model_record(&m, &spec, 24, 16, 1);
        ready(&m);
        model_batch(&m, 1, 0);
        for (int turn = 0; turn < 2; turn++) {
            int64_t n = 0;
            nn_params_zero_grad(m.params);
            assert_int_equal(nn_forward(m.graph), 0);
            assert_int_equal(nn_backward(m.graph), 0);
            have[n++] = (float)nn_loss(m.graph);
            for (int p = 0; p < nn_params_count(m.params); p++) {
                int64_t more = nn_param_grad(m.params, p) ? count(m.params, p) : 0;
                assert_true(n + more < 4096);
                if (more)
                    memcpy(have + n, nn_param_grad(m.params, p), (size_t)more * sizeof *have);
                n += more;
            }
            if (threads == 1 && turn == 0)
                memcpy(first, have, sizeof have);
            assert_memory_equal(first, have, (size_t)n * sizeof *have);
        }
        end(&m);
        k_dev_close(on);
    }
}

static void replay_allocates_nothing(void **state)
{
    (void)state;
    model m = task_model(dev, K_F32, ATTN_CROSS, 1);
    ready(&m);
    model_batch(&m, 1, 0);
    k_memory before, after;
    struct mallinfo2 heap = { 0 }, then;
    for (int turn = 0; turn < 2; turn++) {
        nn_params_zero_grad(m.params);
        assert_int_equal(nn_forward(m.graph), 0);
        assert_int_equal(nn_backward(m.graph), 0);
        nn_loss(m.graph);
        if (turn == 0) {
            k_memory_read(dev, &before);
            heap = mallinfo2();
        }
    }
    then = mallinfo2();
    k_memory_read(dev, &after);
    assert_int_equal(heap.uordblks, then.uordblks);
    assert_int_equal(before.now, after.now);
    assert_int_equal(before.peak, after.peak);
    for (int tag = 0; tag < K_TAGS; tag++)
        assert_true((before.now_tag[tag] > 0) == (tag != K_TAG_STATE));
    assert_int_equal(k_check_guards(dev, why, sizeof why), 0);
    end(&m);
}

/* An evaluation graph beside the training graph: same parameters, same loss, no gradients. */
static void graphs_share_parameters(void **state)
{
    (void)state;
    model m = task_model(dev, K_F64, ATTN_CROSS, 0), e = m;
    nn_mixer_spec spec = toy_spec(ATTN_CROSS, ATTN_F64);
    e.graph = nn_graph_new(m.params, 0);
    model_record(&e, &spec, 6, 3, 1);
    ready(&m);
    assert_int_equal(nn_graph_compile(e.graph, why, sizeof why), 0);
    model_batch(&m, 1, 1);
    model_batch(&e, 1, 1);
    assert_int_equal(nn_forward(m.graph), 0);
    assert_int_equal(nn_forward(e.graph), 0);
    assert_true(nn_loss(m.graph) == nn_loss(e.graph) && nn_loss(m.graph) > 0);
    assert_int_equal(nn_backward(e.graph), ATTN_EINVAL);
    assert_null(nn_grad(e.graph, e.o));
    nn_graph_free(e.graph);
    end(&m);
}

/* Without zero_grad a second backward adds; after it, a gradient that nothing reached is zero. */
static void gradients_accumulate_until_zeroed(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        model m = kind ? shared_inputs() : task_model(dev, K_F64, ATTN_CROSS, 0);
        int lonely = kind ? 0 : nn_param(m.params, "lonely", dims(1, 7, 0, 0, 0), (attn_init){ ATTN_INIT_CONST, 2, 0 }, 0);
        if (!kind) {
            ready(&m);
            model_batch(&m, 1, 1);
        }
        double once[16][64];
        nn_params_zero_grad(m.params);
        for (int turn = 1; turn <= 2; turn++) {
            assert_int_equal(nn_forward(m.graph), 0);
            assert_int_equal(nn_backward(m.graph), 0);
            for (int p = 0; p < nn_params_count(m.params); p++)
                for (int64_t i = 0; nn_param_grad(m.params, p) && i < count(m.params, p); i++) {
                    double x = ((double *)nn_param_grad(m.params, p))[i];
                    if (turn == 1)
                        once[p][i] = x;
                    assert_true(fabs(x - turn * once[p][i]) < 1e-13);
                }
        }
        memset(nn_param_grad(m.params, lonely), 0x41, 7 * sizeof(double));
        nn_params_zero_grad(m.params);
        for (int i = 0; i < 7; i++)
            assert_true(((double *)nn_param_grad(m.params, lonely))[i] == 0);
        end(&m);
    }
}

/* A row without a target counts in neither the loss nor the mean; no row with one is a loss of 0. */
static void rows_without_target_do_not_count(void **state)
{
    (void)state;
    model m = begin();
    nn_id y = nn_input(m.graph, K_F64, dims(2, 3, 2, 0, 0)), t = nn_input(m.graph, K_I32, dims(1, 3, 0, 0, 0));
    nn_graph_set_loss(m.graph, nn_half_squared_error(m.graph, y, t));
    ready(&m);
    memcpy(nn_data(m.graph, y), (double[]){ 1, 0, 3, 4, 0, 0 }, 48);
    memcpy(nn_data(m.graph, t), (int32_t[]){ 0, -1, 1 }, 12);
    assert_int_equal(nn_forward(m.graph), 0);
    assert_true(nn_loss(m.graph) == 0.25);
    memcpy(nn_data(m.graph, t), (int32_t[]){ -1, -1, -1 }, 12);
    assert_int_equal(nn_forward(m.graph), 0);
    assert_true(nn_loss(m.graph) == 0);
    end(&m);
}

/* ---- what the variant is handed ------------------------------------------------------------------------------------------- */

static int backwards, unwanted;

/* The toy's backward, noting whether gradients of v and of the frozen param were asked for. */
static int spy_backward(const attn_call *c)
{
    backwards++;
    unwanted += !c->dv.p && !c->dparam[1] && c->dq.p && c->dk.p && c->dgate[0].p && c->dparam[0];
    return toy64_backward(c);
}

static void gradients_nobody_needs_are_not_asked_for(void **state)
{
    (void)state;
    attn_impl impls[] = { toy_impls[0], { NULL } };
    attn_variant spy = toy;
    impls[0].backward = spy_backward;
    spy.impls = impls;
    for (int dtype = K_F32; dtype <= K_F64; dtype += K_F64 - K_F32) {
        model m = { .B = 2, .T = 5, .Tq = 2, .S = 4, .params = nn_params_new(dev, (k_dtype)dtype, 11) };
        nn_mixer_spec spec = toy_spec(ATTN_CROSS, dtype);
        spec.variant = &spy;
        m.graph = nn_graph_new(m.params, 1);
        model_record(&m, &spec, 6, 3, 1);
        ready(&m);
        model_batch(&m, 1, dtype == K_F64);
        backwards = unwanted = 0;
        assert_int_equal(nn_forward(m.graph), 0);
        assert_int_equal(nn_backward(m.graph), 0);
        assert_int_equal(backwards, 1);
        assert_int_equal(unwanted, 1);
        end(&m);
    }
}

/* ---- parameters ------------------------------------------------------------------------------------------------------------ */

static void values_depend_on_seed_and_name_alone(void **state)
{
    static const char *const names[] = { "a", "b", "layer.3/w-1", "frozen", "plain" };
    (void)state;
    nn_params *p[3];
    for (int k = 0; k < 3; k++) {
        p[k] = nn_params_new(dev, K_F32, k == 2 ? 12 : 11);
        for (int i = 0; i < 5; i++) {
            int n = k == 1 ? 4 - i : i;
            nn_param(p[k], names[n], dims(2, 5, 3 + n, 0, 0), (attn_init){ n % 2 ? ATTN_INIT_UNIFORM : ATTN_INIT_NORMAL, 0, 1 },
                     n == 3 ? ATTN_FROZEN | ATTN_REDRAW : n == 4 ? ATTN_NO_DECAY : 0);
        }
        assert_int_equal(nn_params_alloc(p[k], why, sizeof why), 0);
        assert_int_equal(nn_params_elements(p[k], 0), 5 * (3 + 4 + 5 + 6 + 7));
        assert_int_equal(nn_params_elements(p[k], 1), 5 * (3 + 4 + 5 + 7));
    }
    for (int i = 0; i < 5; i++) {
        size_t bytes = (size_t)(5 * (3 + i)) * sizeof(float);
        assert_string_equal(nn_param_name(p[1], 4 - i), names[i]);
        assert_memory_equal(nn_param_value(p[0], i), nn_param_value(p[1], 4 - i), bytes);
        assert_memory_not_equal(nn_param_value(p[0], i), nn_param_value(p[2], i), bytes);
        assert_true((nn_param_grad(p[0], i) == NULL) == (i == 3));
    }
    float *frozen = nn_param_value(p[0], 3), *plain = nn_param_value(p[0], 4), was = frozen[0], other = plain[0];
    nn_params_redraw(p[0], 1);
    assert_true(frozen[0] != was && plain[0] == other);
    nn_params_redraw(p[0], 0);
    assert_true(frozen[0] == was);
    for (int k = 0; k < 3; k++)
        nn_params_free(p[k]);
}

/* Constants, and both kinds of orthogonal rows in blocks of D, for every leading index. */
static void initial_values_are_of_their_kind(void **state)
{
    (void)state;
    nn_params *p = nn_params_new(dev, K_F64, 5);
    int c = nn_param(p, "c", dims(1, 3, 0, 0, 0), (attn_init){ ATTN_INIT_CONST, 2.5, 0 }, 0);
    int f = nn_param(p, "forget", dims(2, 2, 8, 0, 0), (attn_init){ ATTN_INIT_FORGET, 0.5, 1 }, 0);
    int a = nn_param(p, "rate", dims(1, 300, 0, 0, 0), (attn_init){ ATTN_INIT_LOG_UNIFORM, 1, 16 }, 0);
    int s = nn_param(p, "step", dims(1, 300, 0, 0, 0), (attn_init){ ATTN_INIT_STEP, 1e-3, 1e-1 }, 0);
    int r = nn_param(p, "root", dims(3, 2, 6, 4, 0), (attn_init){ ATTN_INIT_ORTHO_SQRT, 0, 0 }, ATTN_FROZEN);
    int x = nn_param(p, "chi", dims(3, 2, 6, 4, 0), (attn_init){ ATTN_INIT_ORTHO_CHI, 0, 0 }, ATTN_FROZEN);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
    assert_true(((double *)nn_param_value(p, c))[2] == 2.5);
    for (int i = 0; i < 16; i++)
        assert_true(((double *)nn_param_value(p, f))[i] == (i % 8 / 2 == 1 ? 1 : 0.5));
    double rate = 0, step = 0;          /* means: of e^value 8.5, of ln softplus(value) ln 1e-2 */
    for (int i = 0; i < 300; i++) {
        double x = exp(((double *)nn_param_value(p, a))[i]), y = log1p(exp(((double *)nn_param_value(p, s))[i]));
        assert_true(x >= 1 && x < 16 && y > 0.999e-3 && y < 1.001e-1);
        rate += x / 300;
        step += log(y) / 300;
    }
    assert_true(fabs(rate - 8.5) < 1 && fabs(step - log(1e-2)) < 0.4);
    for (int which = 0; which < 2; which++)
        for (int block = 0; block < 2; block++)
            for (int i = 0; i < 6; i++)
                for (int j = 0; j <= i; j++) {
                    const double *a = (double *)nn_param_value(p, which ? x : r) + (block * 6 + i) * 4, *b = a + (j - i) * 4;
                    double dot = a[0] * b[0] + a[1] * b[1] + a[2] * b[2] + a[3] * b[3];
                    if (i == j)
                        assert_true(which ? dot > 0 : fabs(dot - 4) < 1e-12);
                    else if (i / 4 == j / 4)
                        assert_true(fabs(dot) < 1e-12);
                }
    nn_params_free(p);
}

/* ---- mistakes ---------------------------------------------------------------------------------------------------------------- */

/* The parameter mistakes: each is told once, by nn_params_alloc. */
static void bad_parameters_are_told(void **state)
{
    (void)state;
    static const struct { const char *first, *second; int n; int64_t d; const char *say; } cases[] = {
        { "a", "a", 1, 3, "declared twice" }, { "a", "", 1, 2, "has a name" }, { "a", "b c", 1, 2, "has a name" },
        { "a", "b", 0, 2, "impossible" }, { "a", "b", 5, 2, "impossible" }, { "a", "b", 2, 0, "impossible" },
        { "a", "b", 4, 1 << 20, "impossible" }, { "costarring", "liquid", 1, 2, "hash of another" } };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        nn_params *p = nn_params_new(dev, K_F32, 1);
        attn_dims d = { cases[i].n, { cases[i].d, cases[i].d, cases[i].d, cases[i].d } };
        assert_int_equal(nn_param(p, cases[i].first, dims(1, 2, 0, 0, 0), (attn_init){ 0 }, 0), 0);
        assert_int_equal(nn_param(p, cases[i].second, d, (attn_init){ 0 }, 0), NN_BAD);
        assert_int_equal(nn_params_alloc(p, why, sizeof why), ATTN_EINVAL);
        assert_non_null(strstr(why, cases[i].say));
        nn_params_free(p);
    }
    nn_params *p = nn_params_new(dev, K_F32, 1);
    assert_int_equal(nn_param(p, "flat", dims(1, 4, 0, 0, 0), (attn_init){ ATTN_INIT_ORTHO_CHI, 0, 0 }, 0), NN_BAD);
    nn_params_free(p);
    p = nn_params_new(dev, K_F32, 1);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), 0);
    assert_int_equal(nn_param(p, "late", dims(1, 4, 0, 0, 0), (attn_init){ 0 }, 0), NN_BAD);
    assert_int_equal(nn_params_alloc(p, why, sizeof why), ATTN_EINVAL);
    nn_params_free(p);
}

/* One wrong line of a model each; returns what it recorded. */
static nn_id wrong(int which, model *m)
{
    nn_graph *g = m->graph;
    nn_id x = weight(m, "x", dims(2, 4, 5, 0, 0), 1), i = nn_input(g, K_I32, dims(1, 4, 0, 0, 0)), v = nn_input(g, K_F64, dims(4, 2, 3, 1, 4));
    nn_mixer_spec spec = toy_spec(ATTN_CROSS, ATTN_F64);
    static const toy_opts refusing = { ALL_REFUSE };
    switch (which) {
    case 0: return nn_linear(g, x, weight(m, "w", dims(2, 6, 4, 0, 0), 1), NN_NONE);
    case 1: return nn_linear(g, x, weight(m, "w", dims(2, 6, 5, 0, 0), 1), weight(m, "b", dims(1, 5, 0, 0, 0), 1));
    case 2: return nn_matmul(g, x, x);
    case 3: return nn_gather(g, x, x);
    case 4: return nn_gather(g, i, i);
    case 5: return nn_gather2(g, x, i, x, nn_input(g, K_I32, dims(1, 3, 0, 0, 0)));
    case 6: return nn_add(g, x, v);
    case 7: return nn_unary(g, K_UNARIES, x);
    case 8: return nn_unary(g, K_RELU, i);
    case 9: return nn_reshape(g, x, dims(1, 21, 0, 0, 0));
    case 10: return nn_reshape(g, x, (attn_dims){ 9, { 20 } });
    case 11: return nn_half_squared_error(g, x, nn_input(g, K_I32, dims(1, 3, 0, 0, 0)));
    case 12: return nn_cross_entropy(g, x, x);
    case 13: return nn_use(g, 99);
    case 14: return nn_linear(g, 1000, x, NN_NONE);
    case 15: return nn_linear(g, NN_BAD, x, NN_NONE);
    case 16: return nn_linear(g, NN_NONE, x, NN_NONE);
    case 17: return nn_input(g, K_F64, dims(2, 0, 3, 0, 0));
    case 18: return nn_attention(g, &spec, "a", v, v, x, NULL);
    case 19: return nn_attention(g, &spec, "a", v, nn_input(g, K_F64, dims(4, 2, 3, 1, 5)), v, NULL);
    case 20: return nn_attention(g, &spec, "a", v, v, v, NULL);                 /* the gate is missing */
    case 21: return nn_attention(g, &spec, "bad name", v, v, v, (nn_id[]){ nn_input(g, K_F64, dims(4, 2, 3, 1, 1)) });
    case 22: return nn_graph_set_loss(g, nn_unary(g, K_RELU, x)) ? NN_BAD : 0;
    case 23: spec.opts = &refusing; return nn_attention(g, &spec, "a", v, v, v, NULL);
    default: return nn_attention(g, &spec, "a", i, v, v, NULL);
    }
}

/* Every mistake is kept until nn_graph_compile, which tells it; what follows it does nothing. */
static void bad_models_are_told(void **state)
{
    (void)state;
    for (int which = 0; which <= 24; which++) {
        model m = begin();
        assert_int_equal(wrong(which, &m), NN_BAD);
        assert_int_equal(nn_input(m.graph, K_F32, dims(1, 2, 0, 0, 0)), NN_BAD);
        nn_params_alloc(m.params, why, sizeof why);
        strcpy(why, "");
        assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), which == 23 ? ATTN_EUNSUP : ATTN_EINVAL);
        assert_true(strlen(why) > 10);
        assert_int_equal(nn_forward(m.graph), ATTN_EINVAL);
        end(&m);
    }
}

static void order_of_calls_is_checked(void **state)
{
    (void)state;
    model m = begin();
    weight(&m, "x", dims(1, 3, 0, 0, 0), 1);
    assert_int_equal(nn_forward(m.graph), ATTN_EINVAL);
    assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), ATTN_EINVAL);  /* before nn_params_alloc */
    nn_graph_free(m.graph);
    m.graph = nn_graph_new(m.params, 1);
    weight(&m, "x", dims(1, 3, 0, 0, 0), 1);
    ready(&m);
    assert_int_equal(nn_backward(m.graph), ATTN_EINVAL);                        /* no loss */
    assert_int_equal(nn_input(m.graph, K_F32, dims(1, 2, 0, 0, 0)), NN_BAD);
    assert_int_equal(nn_graph_compile(m.graph, why, sizeof why), ATTN_EINVAL);
    end(&m);
}

/* Running out of memory at every point of building leaves a code, a sentence with bytes, and nothing behind. */
static void too_little_memory_is_told(void **state)
{
    (void)state;
    int refused = 0, rc = NN_ENOMEM;
    for (size_t limit = 1000; rc; limit += 1500) {
        model m = task_model(dev, K_F32, ATTN_CROSS, 1);
        k_set_limit(dev, limit);
        rc = nn_params_alloc(m.params, why, sizeof why);
        if (!rc)
            rc = nn_graph_compile(m.graph, why, sizeof why);
        if (rc) {
            refused++;
            assert_int_equal(rc, NN_ENOMEM);
            assert_non_null(strpbrk(why, "0123456789"));
        }
        k_set_limit(dev, 0);
        end(&m);
    }
    assert_true(refused > 3);
}

#define T(f) cmocka_unit_test_setup_teardown(f, open_device, close_device)
int main(void)
{
    const struct CMUnitTest tests[] = {
        T(linear_unary_matmul), T(gradients_add_up), T(the_task_model), T(attention_shares_its_inputs), T(gradients_exist_where_needed), T(float_is_close_to_double),
        T(replay_and_threads_change_no_bit), T(replay_allocates_nothing), T(graphs_share_parameters),
        T(gradients_accumulate_until_zeroed), T(rows_without_target_do_not_count), T(gradients_nobody_needs_are_not_asked_for),
        T(values_depend_on_seed_and_name_alone), T(initial_values_are_of_their_kind), T(bad_parameters_are_told), T(bad_models_are_told),
        T(order_of_calls_is_checked), T(too_little_memory_is_told) };
    return cmocka_run_group_tests_name("nn", tests, NULL, NULL);
}
