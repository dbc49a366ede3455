/* nn_check.h - what the tests of the tape share: a device, models in double, and gradients against differences. */
#ifndef NN_CHECK_H
#define NN_CHECK_H
#include "harness/nn/nn.h"
#include "nn_model.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>
#include "device.h"

/* Elements of parameter i. */
static int64_t count(nn_params *p, int i)
{
    int64_t n = 1;
    for (int d = 0; d < nn_param_dims(p, i).n; d++)
        n *= nn_param_dims(p, i).d[d];
    return n;
}

/* A forward with the same elements dropped as in every other. */
static double loss_of(nn_params *p, nn_graph *g)
{
    nn_params_set_forwards(p, 6);
    assert_int_equal(nn_forward(g), 0);
    return nn_loss(g);
}

/* Every learned element's gradient, computed by the tape, against central differences of the loss. */
static void check_gradients(nn_params *p, nn_graph *g)
{
    nn_params_zero_grad(p);
    loss_of(p, g);
    assert_int_equal(nn_backward(g), 0);
    for (int i = 0; i < nn_params_count(p); i++) {
        double *x = nn_param_value(p, i), *dx = nn_param_grad(p, i);
        for (int64_t e = 0; dx && e < count(p, i); e++) {
            double was = x[e], h = 1e-5;
            x[e] = was + h;
            double up = loss_of(p, g);
            x[e] = was - h;
            double slope = (up - loss_of(p, g)) / (2 * h);
            x[e] = was;
            if (fabs(slope - dx[e]) > 1e-6 * (1 + fabs(slope)))
                fail_msg("%s[%lld]: %.9g by the tape, %.9g by differences", nn_param_name(p, i), (long long)e, dx[e], slope);
        }
    }
}

/* A model in double under construction. */
static model begin(void)
{
    model m = { .params = nn_params_new(dev, K_F64, 11) };
    m.graph = nn_graph_new(m.params, 1);
    return m;
}

static void ready(model *m)
{
    int rc = nn_params_alloc(m->params, why, sizeof why);
    if (!rc)
        rc = nn_graph_compile(m->graph, why, sizeof why);
    if (rc)
        fail_msg("%d: %s", rc, why);
}

static void end(model *m)
{
    nn_graph_free(m->graph);
    nn_params_free(m->params);
}

/* rows targets below width; every third row has none. */
static void targets(model *m, nn_id id, int rows, int width)
{
    for (int i = 0; i < rows; i++)
        ((int32_t *)nn_data(m->graph, id))[i] = i % 3 == 2 ? -1 : i * 7 % width;
}
#endif
