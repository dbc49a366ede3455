/* test_nn_memory.c - tensors that share buffers: the same numbers as with buffers of their own, in much less memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "device.h"
#include "harness/nn/internal.h"
#include "kernels/philox.h"

enum { ROWS = 24, WIDTH = 16, LAYERS = 6 };

typedef struct chain { nn_params *params; nn_graph *graph; nn_id target, loss; } chain;

static nn_id weight(chain *c, const char *name, int layer, int64_t a, int64_t b)
{
    char full[40];
    snprintf(full, sizeof full, "%s%d", name, layer);
    return nn_use(c->graph, nn_param(c->params, full, (attn_dims){ b ? 2 : 1, { a, b } }, (attn_init){ ATTN_INIT_NORMAL, 0, 0.4 }, 0));
}

/* Layers of every kind of node that backward looks at or does not: x + drop(W gelu(V norm(x)) * 0.5), some with a product. */
static chain build(int training, int keep_all)
{
    chain c = { .params = nn_params_new(dev, K_F64, 3) };
    nn_graph *g = c.graph = nn_graph_new(c.params, training);
    nn_id words = nn_input(g, K_I32, (attn_dims){ 2, { 2, ROWS / 2 } });
    c.target = nn_input(g, K_I32, (attn_dims){ 1, { ROWS } });
    nn_id x = nn_gather(g, weight(&c, "words", 0, 7, WIDTH), words);
    x = nn_add_rows(g, x, weight(&c, "places", 0, ROWS / 2, WIDTH));
    for (int l = 0; l < LAYERS; l++) {
        nn_id h = nn_layer_norm(g, x, weight(&c, "gain", l, WIDTH, 0), weight(&c, "bias", l, WIDTH, 0), 1e-5);
        nn_id up = nn_unary(g, l % 2 ? K_GELU : K_TANH, nn_linear(g, h, weight(&c, "V", l, 3 * WIDTH, WIDTH), weight(&c, "b", l, 3 * WIDTH, 0)));
        if (l % 3 == 0)
            up = nn_mul(g, up, nn_linear(g, h, weight(&c, "U", l, 3 * WIDTH, WIDTH), NN_NONE));
        nn_id down = nn_scale(g, nn_linear(g, up, weight(&c, "W", l, WIDTH, 3 * WIDTH), NN_NONE), 0.5);
        x = nn_add(g, x, nn_dropout(g, down, 0.2));
    }
    x = nn_reshape(g, x, (attn_dims){ 2, { ROWS, WIDTH } });
    c.loss = nn_linear_cross_entropy(g, x, weight(&c, "words", 0, 7, WIDTH), NN_NONE, c.target, 0.1);
    nn_graph_set_loss(g, c.loss);
    for (nn_id i = 0; keep_all && i < g->ntensors; i++)
        nn_keep(g, i);
    assert_int_equal(nn_params_alloc(c.params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), 0);
    for (int i = 0; i < ROWS; i++) {
        ((int32_t *)nn_data(g, words))[i] = i * i % 7;
        ((int32_t *)nn_data(g, c.target))[i] = (i + 2) % 7;
    }
    return c;
}

static void release(chain *c)
{
    nn_graph_free(c->graph);
    nn_params_free(c->params);
}

static size_t activations(void)
{
    k_memory m;
    k_memory_read(dev, &m);
    return m.now_tag[K_TAG_ACTIVATION];
}

/* Loss and every gradient are the same bits, also when backward runs twice after one forward. */
static void test_same_numbers(void **state)
{
    (void)state;
    chain own = build(1, 1), shared = build(1, 0);
    chain *const each[] = { &own, &shared };
    for (int i = 0; i < 2; i++)
        for (int step = 0; step < 2; step++) {
            nn_params_zero_grad(each[i]->params);
            assert_int_equal(nn_forward(each[i]->graph) || nn_backward(each[i]->graph), 0);
        }
    for (int again = 0; again < 2; again++) {
        assert_true(nn_loss(own.graph) == nn_loss(shared.graph));
        for (int p = 0; p < nn_params_count(own.params); p++)
            assert_memory_equal(nn_param_grad(own.params, p), nn_param_grad(shared.params, p), (size_t)own.params->list[p].n * sizeof(double));
        nn_params_zero_grad(shared.params);
        assert_int_equal(nn_backward(shared.graph), 0);
    }
    release(&own);
    release(&shared);
}

/* What no backward reads takes no memory of its own: gradients that of the widest layer, not of all. */
static void test_less_memory(void **state)
{
    (void)state;
    size_t none = activations(), row = ROWS * WIDTH * sizeof(double);
    chain own = build(1, 1);
    size_t all = activations() - none;
    release(&own);
    chain shared = build(1, 0);
    size_t some = activations() - none;
    release(&shared);
    /* Data by layer: the sum, norm, linear (3), unary (3), W, scale, dropout, and 6 more in layers 0 and 3; the embedding, and
     * with positions. */
    size_t data = (LAYERS * (1 + 1 + 3 + 3 + 1 + 1 + 1) + 2 * 6 + 2) * row, small = ROWS * sizeof(double) + sizeof(double);
    assert_int_equal(all, 2 * data + small);
    /* Without W, scale, dropout, the bare embedding and what tanh is of; beside it what a product's backward has at a time, 3 of 3
     * rows, gradients of the stream and of the norm. */
    size_t seen = data - (3 * LAYERS + 1 + LAYERS / 2 * 3) * row + small;
    assert_true(some <= seen + 12 * row && some >= seen + 11 * row);
}

/* Without training only a few tensors are there at a time: the stream, the norm and up to three wide ones, and the losses. */
static void test_evaluation(void **state)
{
    (void)state;
    size_t none = activations(), row = ROWS * WIDTH * sizeof(double);
    chain own = build(0, 1), shared = build(0, 0);
    assert_true(activations() - none > (2 + 8 * LAYERS) * row);
    assert_int_equal(nn_forward(own.graph) || nn_forward(shared.graph), 0);
    assert_true(nn_loss(own.graph) == nn_loss(shared.graph));
    release(&own);
    assert_true(activations() - none <= 12 * row + ROWS * sizeof(double) + sizeof(double));
    release(&shared);
}

/* ---- graphs at random ------------------------------------------------------------------------------------------------------ */

enum { GRAPHS = 400, NODES = 16, KINDS = 9, SIDE = 5 };
static uint32_t die(uint32_t graph, uint32_t throw, uint32_t sides) { return philox_below(philox_u32(graph, 1, 0, throw), sides); }

/* A node of any kind over tensors [SIDE,SIDE] that stand before it, rather the last ones. */
static nn_id any_node(chain *c, uint32_t graph, uint32_t i, const nn_id *x, uint32_t n)
{
    nn_graph *g = c->graph;
    nn_id a = x[n - 1 - die(graph, 4 * i, n < 4 ? n : 4)], b = x[die(graph, 4 * i + 1, n)], w = weight(c, "w", (int)die(graph, 4 * i + 2, 3), SIDE, SIDE);
    switch (die(graph, 4 * i + 3, KINDS)) {
    case 0: return nn_mul(g, a, b);
    case 1: return nn_scale(g, a, 0.5);
    case 2: return nn_unary(g, K_TANH, a);
    case 3: return nn_unary(g, K_GELU, a);
    case 4: return nn_dropout(g, a, 0.3);
    case 5: return nn_linear(g, a, w, NN_NONE);
    case 6: return nn_layer_norm(g, nn_add_rows(g, a, weight(c, "v", 0, SIDE, 0)), weight(c, "v", 1, SIDE, 0), NN_NONE, 0.1);
    default: return nn_add(g, a, b);
    }
}

/* The same graph with a buffer for every tensor (0), with turns (1), and with segments thrown in (2). */
static chain random_graph(uint32_t graph, int how)
{
    chain c = { .params = nn_params_new(dev, K_F64, 3) };
    nn_graph *g = c.graph = nn_graph_new(c.params, 1);
    nn_id x[NODES + 2] = { weight(&c, "x", 0, SIDE, SIDE) };
    uint32_t n = 2, until = 0;
    x[1] = nn_scale(g, x[0], 1);
    for (uint32_t i = 0; i < NODES; i++) {
        if (how == 2 && until == 0 && die(graph, 100 + i, 3) == 0) {
            nn_recompute_begin(g);
            until = 1 + die(graph, 200 + i, 5);
        }
        x[n] = any_node(&c, graph, i, x, n);
        n++;
        if (until && --until == 0)
            nn_recompute_end(g);
    }
    if (until)
        nn_recompute_end(g);
    c.target = nn_input(g, K_I32, (attn_dims){ 1, { SIDE } });
    c.loss = nn_half_squared_error(g, nn_add(g, x[n - 1], nn_add(g, x[n - 2], x[n - 3])), c.target);
    nn_graph_set_loss(g, c.loss);
    for (nn_id i = 0; how == 0 && i < g->ntensors; i++)
        nn_keep(g, i);
    assert_int_equal(nn_params_alloc(c.params, why, sizeof why), 0);
    assert_int_equal(nn_graph_compile(g, why, sizeof why), 0);
    return c;
}

/* No order of nodes makes two tensors meet in one place, nor a gradient that is passed on be added to too early. */
static void test_random_graphs(void **state)
{
    int shared = 0;
    (void)state;
    for (uint32_t graph = 0; graph < GRAPHS; graph++) {
        chain each[3];
        for (int how = 0; how < 3; how++) {
            each[how] = random_graph(graph, how);
            nn_params_zero_grad(each[how].params);
            assert_int_equal(nn_forward(each[how].graph) || nn_backward(each[how].graph), 0);
        }
        const nn_graph *g = each[1].graph;
        for (int i = 0; i < g->nnodes; i++)
            shared += g->nodes[i].live && g->nodes[i].op->passes && g->tensors[g->nodes[i].in[0]].grad == g->tensors[g->nodes[i].out].grad;
        for (int how = 1; how < 3; how++) {
            assert_true(nn_loss(each[0].graph) == nn_loss(each[how].graph));
            for (int p = 0; p < nn_params_count(each[0].params); p++)
                if (memcmp(nn_param_grad(each[0].params, p), nn_param_grad(each[how].params, p), (size_t)each[0].params->list[p].n * sizeof(double)))
                    fail_msg("graph %u, %s: the gradient of %s differs", graph, how == 1 ? "in turns" : "with segments", nn_param_name(each[0].params, p));
        }
        for (int how = 0; how < 3; how++)
            release(&each[how]);
    }
    assert_true(shared > GRAPHS);           /* sums do hand their gradients on */
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_same_numbers), cmocka_unit_test(test_less_memory), cmocka_unit_test(test_evaluation),
                                        cmocka_unit_test(test_random_graphs) };
    return cmocka_run_group_tests_name("nn_memory", tests, open_device, close_device);
}
