/* Feature maps: the order of dpfp, gradients against central differences, float against double,
 * the identities of favor, and the normalisation of feature rows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include "kernels/linear_attention.h"
#include "kernels/philox.h"

enum { N = 5, D = 7, M_FAVOR = 11, M_MAX = 2 * (2 * D - 1) * D, WORK = 4096, PACKED = 1024, KEEP = 16 };

/* A number in (-1, 1) away from 0, where relu and elu1 have a kink. */
static double number(uint32_t stream, uint64_t i)
{
    double u = 2.0 * philox_uniform(philox_u32(7, stream, 0, i)) - 1;
    return u + (u < 0 ? -0.05 : 0.05);
}

/* Every map that the tests walk through; W is filled in by setup. */
static const struct { const char *name; k_features f; } MAPS[] = {
    { "identity", { .map = K_MAP_IDENTITY, .D = D } },
    { "elu1", { .map = K_MAP_ELU1, .D = D } },
    { "relu", { .map = K_MAP_RELU, .D = D } },
    { "silu", { .map = K_MAP_SILU, .D = D } },
    { "tanh", { .map = K_MAP_TANH, .D = D } },
    { "dpfp-1", { .map = K_MAP_DPFP, .D = D, .nu = 1 } },
    { "dpfp-3", { .map = K_MAP_DPFP, .D = D, .nu = 3 } },
    { "dpfp-13", { .map = K_MAP_DPFP, .D = D, .nu = 2 * D - 1 } },
    { "positive", { .map = K_MAP_FAVOR, .D = D, .favor = K_FAVOR_POSITIVE, .m = M_FAVOR, .eps = 1e-2 } },
    { "hyperbolic", { .map = K_MAP_FAVOR, .D = D, .favor = K_FAVOR_HYPERBOLIC, .m = M_FAVOR, .input_scale = 1, .eps = 1e-2 } },
    { "trig", { .map = K_MAP_FAVOR, .D = D, .favor = K_FAVOR_TRIG, .m = M_FAVOR } },
    { "relu of Wx", { .map = K_MAP_GENERAL, .D = D, .fn = K_FN_RELU, .m = M_FAVOR, .eps = 1e-3 } },
    { "abs of Wx", { .map = K_MAP_GENERAL, .D = D, .fn = K_FN_ABS, .m = M_FAVOR } },
    { "exp of x", { .map = K_MAP_GENERAL, .D = D, .fn = K_FN_EXP, .eps = 1e-3 } },
    { "sigmoid of Wx", { .map = K_MAP_GENERAL, .D = D, .fn = K_FN_SIGMOID, .m = M_FAVOR } },
    { "softplus of x", { .map = K_MAP_GENERAL, .D = D, .fn = K_FN_SOFTPLUS } },
};
enum { MAPS_N = sizeof MAPS / sizeof *MAPS };

static double W[M_FAVOR * D], X[N * D], DPHI[N * M_MAX];
static float Wf[M_FAVOR * D], Xf[N * D], DPHIf[N * M_MAX];

static int setup(void **state)
{
    (void)state;
    for (int i = 0; i < M_FAVOR * D; i++) W[i] = Wf[i] = (float)number(1, i);
    for (int i = 0; i < N * D; i++) X[i] = Xf[i] = (float)number(2, i);
    for (int i = 0; i < N * M_MAX; i++) DPHI[i] = DPHIf[i] = (float)number(3, i);
    return 0;
}

static k_features with(int map, const void *w)
{
    k_features f = MAPS[map].f;
    f.W = w;
    return f;
}

/* dpfp of two numbers, by hand: r = [1.5, 0, 0, 2]. */
static void dpfp_has_the_order_of_the_code(void **state)
{
    (void)state;
    const k_features f = { .map = K_MAP_DPFP, .D = 2, .nu = 3 };
    const double x[2] = { 1.5, -2 }, want[12] = { 3, 0, 0, 0,  0, 0, 0, 0,  0, 0, 0, 3 };
    const float xf[2] = { 1.5f, -2 };
    double phi[12], work[64];
    float phif[12], workf[64];
    assert_int_equal(k_features_width(&f), 12);
    k_dfeatures_forward(&f, K_KEY, 1, x, 2, NULL, phi, 12, work);
    k_sfeatures_forward(&f, K_KEY, 1, xf, 2, NULL, phif, 12, workf);
    for (int i = 0; i < 12; i++) {
        assert_true(phi[i] == want[i]);
        assert_true(phif[i] == want[i]);
    }
}

/* sum(dphi o phi(x)) with the stabiliser held at kappa. */
static double loss(const k_features *f, k_role role, const double *x, const double *kappa)
{
    int M = k_features_width(f);
    double phi[N * M_MAX], work[WORK], sum = 0;
    k_dfeatures_forward(f, role, N, x, D, kappa, phi, M, work);
    for (int i = 0; i < N * M; i++) sum += DPHI[i] * phi[i];
    return sum;
}

static void backward_is_the_derivative_of_forward(void **state)
{
    (void)state;
    for (int c = 0; c < 4 * MAPS_N; c++) {
        k_role role = c & 1 ? K_KEY : K_QUERY;
        k_features f = with(c / 4, W);
        f.stabilise = c >> 1 & 1;
        int M = k_features_width(&f);
        double phi[N * M_MAX], dx[N * D], x[N * D], work[WORK], kappa = k_dfeatures_kappa(&f, N, X, D, work), h = 1e-6;
        k_dfeatures_forward(&f, role, N, X, D, &kappa, phi, M, work);
        k_dfeatures_backward(&f, role, N, X, D, phi, M, DPHI, M, dx, D, work);
        memcpy(x, X, sizeof x);
        for (int i = 0; i < N * D; i++) {
            x[i] = X[i] + h;
            double up = loss(&f, role, x, &kappa);
            x[i] = X[i] - h;
            double slope = (up - loss(&f, role, x, &kappa)) / (2 * h);
            x[i] = X[i];
            /* eps > 0 is a constant of the features, so even then the gradient is exact for a fixed kappa. */
            if (fabs(slope - dx[i]) > 1e-7 * (1 + fabs(slope))) fail_msg("%s: d x[%d] is %g, not %g", MAPS[c / 4].name, i, dx[i], slope);
        }
    }
}

/* Rows with padding between them, so that a stride taken for a width shows. */
static void float_agrees_with_double(void **state)
{
    (void)state;
    for (int c = 0; c < 4 * MAPS_N; c++) {
        k_role role = c & 1 ? K_KEY : K_QUERY;
        k_features f = with(c / 4, W), g = with(c / 4, Wf);
        f.stabilise = g.stabilise = c >> 1 & 1;
        int M = k_features_width(&f), P = M + 3, Q = D + 2;
        double phi[N * M_MAX], dx[N * D], work[WORK];
        float x[N * (D + 2)], phif[N * (M_MAX + 3)], dphif[N * (M_MAX + 3)], dxf[N * (D + 2)], workf[WORK];
        for (int i = 0; i < N; i++) memcpy(x + i * Q, Xf + i * D, sizeof(float[D]));
        for (int i = 0; i < N; i++) memcpy(dphif + i * P, DPHIf + i * M, M * sizeof(float));
        assert_true(k_features_work(&f, N) <= WORK);
        k_dfeatures_forward(&f, role, N, X, D, NULL, phi, M, work);
        k_sfeatures_forward(&g, role, N, x, Q, NULL, phif, P, workf);
        k_dfeatures_backward(&f, role, N, X, D, phi, M, DPHI, M, dx, D, work);
        k_sfeatures_backward(&g, role, N, x, Q, phif, P, dphif, P, dxf, Q, workf);
        assert_float_equal(k_dfeatures_kappa(&f, N, X, D, work), k_sfeatures_kappa(&g, N, x, Q, workf), 1e-5);
        for (int i = 0; i < N * M; i++) assert_float_equal(phi[i], phif[i / M * P + i % M], 2e-6 * (1 + fabs(phi[i])));
        for (int i = 0; i < N * D; i++) assert_float_equal(dx[i], dxf[i / D * Q + i % D], 1e-5 * (1 + fabs(dx[i])));
    }
}

/* phi_q(x) . phi_k(y) as its formula says it, and what stabilisers may and may not change. */
static void favor_has_its_identities(void **state)
{
    (void)state;
    const double *x = X, *y = X + D;
    double eta[2] = { 0, 0 }, cosines = 0, hyperbolic = 0, s = pow(D, -0.5);
    for (int d = 0; d < D; d++) {
        eta[0] += 0.5 * s * x[d] * x[d];
        eta[1] += 0.5 * s * y[d] * y[d];
    }
    for (int r = 0; r < M_FAVOR; r++) {
        double u = 0, v = 0;
        for (int d = 0; d < D; d++) {
            u += W[r * D + d] * x[d] * sqrt(s);
            v += W[r * D + d] * y[d] * sqrt(s);
        }
        cosines += cos(u - v) / M_FAVOR;
        hyperbolic += cosh(u + v) / M_FAVOR;
    }
    const double want[2] = { hyperbolic * exp(-eta[0] - eta[1]), cosines * exp(eta[1]) };
    for (int trig = 0; trig < 2; trig++) {
        k_features f = { .map = K_MAP_FAVOR, .D = D, .favor = trig ? K_FAVOR_TRIG : K_FAVOR_HYPERBOLIC, .m = M_FAVOR, .W = W };
        double a[2 * M_FAVOR], b[2 * M_FAVOR], work[WORK], got = 0, ratio, kappa;
        k_dfeatures_forward(&f, K_QUERY, 1, x, D, NULL, a, 2 * M_FAVOR, work);
        k_dfeatures_forward(&f, K_KEY, 1, y, D, NULL, b, 2 * M_FAVOR, work);
        for (int r = 0; r < 2 * M_FAVOR; r++) got += a[r] * b[r];
        assert_float_equal(got, want[trig], 1e-13 * fabs(want[trig]));
        f.stabilise = 1;                            /* one factor exp(-kappa) on every feature of every key */
        kappa = k_dfeatures_kappa(&f, 2, X, D, work);
        k_dfeatures_forward(&f, K_KEY, 1, y, D, &kappa, a, 2 * M_FAVOR, work);
        for (int r = 0; r < 2 * M_FAVOR; r++) {
            ratio = a[r] / b[r];
            assert_float_equal(ratio, exp(-kappa), 1e-13);
        }
    }
}

/* Inputs far beyond unit scale: with the stabiliser, features stay finite and the largest exponent is at most 0. */
static void favor_survives_large_inputs(void **state)
{
    (void)state;
    float x[N * D], phi[N * 2 * M_FAVOR], work[WORK];
    for (int i = 0; i < N * D; i++) x[i] = 100 * Xf[i];
    for (int c = 0; c < 6; c++) {
        k_features f = { .map = K_MAP_FAVOR, .D = D, .favor = c / 2, .m = M_FAVOR, .W = Wf, .stabilise = 1, .eps = 1e-6 };
        int M = k_features_width(&f);
        float kappa = k_sfeatures_kappa(&f, N, x, D, work);
        k_sfeatures_forward(&f, c & 1, N, x, D, &kappa, phi, M, work);
        for (int i = 0; i < N * M; i++) assert_true(fabsf(phi[i]) <= 1);
    }
}

/* The scores of one query without features are the products with the features, at unit scale and where the
 * exponentials of favor leave the range of float one by one. */
static void fused_scores_are_products_of_features(void **state)
{
    (void)state;
    const float scales[] = { 1, 8, 40 };
    for (int c = 0; c < 6 * MAPS_N; c++) {
        k_features f = with(c / 6, Wf);
        f.eps = 0;
        f.stabilise = c & 1;
        if (!k_scores_fused(&f)) continue;
        k_scores_sizes z;
        k_sscores_sizes(&f, &z);
        assert_true(z.packed <= PACKED && z.keep <= KEEP && z.query <= M_MAX + D && z.work <= WORK);
        int M = k_features_width(&f);
        float x[N * D], phi[N * M_MAX], a[M_MAX], ds[N], dphi[N * M_MAX], work[WORK], packed[PACKED], keep[N * KEEP];
        float s[N], da[M_MAX] = { 0 }, query[M_MAX + D] = { 0 }, dq[D], dx[N * D], want_dq[D], want_dx[N * D];
        for (int i = 0; i < N * D; i++) x[i] = scales[c / 2 % 3] * Xf[i];
        for (int r = 0; r < M; r++) a[r] = (float)fabs(number(5, r));
        for (int j = 0; j < N; j++) ds[j] = (float)number(6, j);
        float kappa = k_sfeatures_kappa(&f, N, x, D, work);
        k_sfeatures_forward(&f, K_KEY, N, x, D, &kappa, phi, M, work);
        k_sscores_pack(&f, packed);
        k_sscores_forward(&f, packed, N, x, D, &kappa, a, s, keep, work);
        for (int j = 0; j < N; j++) {
            double want = 0;
            for (int r = 0; r < M; r++) want += (double)a[r] * phi[j * M + r];
            assert_float_equal(s[j], want, 2e-5 * fabs(want));
        }
        for (int i = 0; i < N * M; i++) dphi[i] = ds[i / M] * a[i % M];
        k_sfeatures_backward(&f, K_KEY, N, x, D, phi, M, dphi, M, want_dx, D, work);
        for (int i = 0; i < N * M; i++) da[i % M] += ds[i / M] * phi[i];
        k_sfeatures_backward(&f, K_QUERY, 1, Xf, D, a, M, da, M, want_dq, D, work);
        k_sscores_backward(&f, N, x, D, a, s, ds, keep, query, dx, D, work);
        k_sscores_dq(&f, Xf, a, query, dq, work);
        double size = 0, error = 0, size_q = 0, error_q = 0;
        for (int i = 0; i < N * D; i++) {
            size += pow(want_dx[i], 2);
            error += pow(dx[i] - want_dx[i], 2);
        }
        for (int d = 0; d < D; d++) {
            size_q += pow(want_dq[d], 2);
            error_q += pow(dq[d] - want_dq[d], 2);
        }
        assert_true(isfinite(size) && error <= 1e-9 * size);
        assert_true(isfinite(size_q) && error_q <= 1e-9 * size_q);
    }
}

static void normalised_rows_have_unit_size(void **state)
{
    (void)state;
    enum { M = 9 };
    for (int norm = K_NORM_NONE; norm <= K_NORM_L2; norm++) {
        double phi[2 * M], y[2 * M], r[2], dphi[2 * M], size = 0, h = 1e-6;
        float phif[2 * M], rf[2], dphif[2 * M], dyf[2 * M];
        for (int i = 0; i < 2 * M; i++) phif[i] = phi[i] = (float)fabs(number(4, i));
        k_dnormalise_forward(norm, 0.1, 2, M, phi, M, y, M, r);
        k_snormalise_forward(norm, 0.1, 2, M, phif, M, phif, M, rf);
        for (int k = 0; k < M; k++) size += norm == K_NORM_L2 ? y[k] * y[k] : y[k];
        if (norm != K_NORM_NONE) assert_float_equal(size, 1 - 0.1 * r[0] * (norm == K_NORM_L2 ? r[0] : 1), 1e-13);
        k_dnormalise_backward(norm, 2, M, y, M, r, DPHI, M, dphi, M);
        memcpy(dyf, DPHIf, sizeof dyf);
        k_snormalise_backward(norm, 2, M, phif, M, rf, dyf, M, dphif, M);
        for (int i = 0; i < 2 * M; i++) {
            double up = 0, down = 0, keep = phi[i], z[2 * M], q[2];
            phi[i] = keep + h;
            k_dnormalise_forward(norm, 0.1, 2, M, phi, M, z, M, q);
            for (int k = 0; k < 2 * M; k++) up += DPHI[k] * z[k];
            phi[i] = keep - h;
            k_dnormalise_forward(norm, 0.1, 2, M, phi, M, z, M, q);
            for (int k = 0; k < 2 * M; k++) down += DPHI[k] * z[k];
            phi[i] = keep;
            assert_float_equal(dphi[i], (up - down) / (2 * h), 1e-8);
            assert_float_equal(phif[i], y[i], 1e-6);
            assert_float_equal(dphif[i], dphi[i], 1e-6);
        }
    }
    float zero[3] = { 0, 0, 0 }, r;                 /* dpfp gives such rows: nothing divides by 0 */
    k_snormalise_forward(K_NORM_SUM, 0, 1, 3, zero, 3, zero, 3, &r);
    assert_true(zero[0] == 0 && r == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dpfp_has_the_order_of_the_code),
        cmocka_unit_test(backward_is_the_derivative_of_forward),
        cmocka_unit_test(float_agrees_with_double),
        cmocka_unit_test(favor_has_its_identities),
        cmocka_unit_test(favor_survives_large_inputs),
        cmocka_unit_test(fused_scores_are_products_of_features),
        cmocka_unit_test(normalised_rows_have_unit_size),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
