/* blas.cu - products, by cuBLAS.  Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T. */
#include "device.cuh"
#include <stdio.h>
#include <stdlib.h>

static cudaDataType_t type_of(k_dtype t) { return t == K_F64 ? CUDA_R_64F : t == K_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

/* Notes a failure. */
static void judge(k_dev *dev, cublasStatus_t rc)
{
    if (rc == CUBLAS_STATUS_SUCCESS || cuda_failed(dev, cudaPeekAtLastError(), "cuBLAS"))
        return;
    snprintf(dev->error, sizeof dev->error, "cuBLAS failed on %s: %s", dev->name, cublasGetStatusString(rc));
    cuda_of(dev)->failed = 1;
}

/* Every product: nbatch of them, C of dtype out. */
static void multiply(k_dev *dev, k_dtype in, k_dtype out, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha,
                     const void *A, int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB, double beta, void *C,
                     int64_t ldc, int64_t sC, int64_t nbatch)
{
    const float alpha32 = (float)alpha, beta32 = (float)beta;
    const int wide = in == K_F64;
    if (m <= 0 || n <= 0 || nbatch <= 0 || cuda_of(dev)->failed)
        return;
    const cublasStatus_t rc = cublasGemmStridedBatchedEx_64(
        cuda_of(dev)->blas, tb ? CUBLAS_OP_T : CUBLAS_OP_N, ta ? CUBLAS_OP_T : CUBLAS_OP_N, n, m, k,
        wide ? (const void *)&alpha : &alpha32, B, type_of(in), ldb, sB, A, type_of(in), lda, sA,
        wide ? (const void *)&beta : &beta32, C, type_of(out), ldc, sC, nbatch,
        wide ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    judge(dev, rc);
}

void cuda_gemm(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A, int64_t lda,
               const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    multiply(dev, t, t, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);
}

void cuda_gemm_wide(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
                    int64_t lda, const void *B, int64_t ldb, double beta, void *C, int64_t ldc)
{
    multiply(dev, t, t == K_BF16 ? K_F32 : t, ta, tb, m, n, k, alpha, A, lda, 0, B, ldb, 0, beta, C, ldc, 0, 1);
}

void cuda_gemm_batched(k_dev *dev, k_dtype t, int ta, int tb, int64_t m, int64_t n, int64_t k, double alpha, const void *A,
                       int64_t lda, int64_t sA, const void *B, int64_t ldb, int64_t sB, double beta, void *C, int64_t ldc,
                       int64_t sC, int64_t nbatch)
{
    multiply(dev, t, t, ta, tb, m, n, k, alpha, A, lda, sA, B, ldb, sB, beta, C, ldc, sC, nbatch);
}

/* ---- linear layers in bf16: the bias is added to the sums before they are rounded, and y is written once ---------------- */

struct linear_plan {
    int64_t rows, width, depth;
    cublasLtMatmulDesc_t what;
    cublasLtMatrixLayout_t x, w, y;
    cublasLtMatmulAlgo_t how;
    struct linear_plan *next;
};

static void forget_linear(linear_plan *p)
{
    cublasLtMatrixLayout_t const layouts[] = { p->x, p->w, p->y };
    for (int i = 0; i < 3; i++)
        if (layouts[i])
            cublasLtMatrixLayoutDestroy(layouts[i]);
    if (p->what)
        cublasLtMatmulDescDestroy(p->what);
    free(p);
}

void cuda_forget_linears(cuda_state *s)
{
    while (linear_plan *p = s->linears) {
        s->linears = p->next;
        forget_linear(p);
    }
}

/* Asks cuBLASLt how it would do this shape; 0 when it would not. */
static int ask_linear(cuda_state *s, linear_plan *p)
{
    const cublasOperation_t transposed = CUBLAS_OP_T;
    const cublasLtEpilogue_t add_bias = CUBLASLT_EPILOGUE_BIAS;
    const size_t room = CUDA_BLAS_SCRATCH;
    cublasLtMatmulPreference_t wish = NULL;
    cublasLtMatmulHeuristicResult_t found;
    int n = 0;
    const int ok = cublasLtMatmulDescCreate(&p->what, CUBLAS_COMPUTE_32F, CUDA_R_32F) == 0 &&
        cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed) == 0 &&
        cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_EPILOGUE, &add_bias, sizeof add_bias) == 0 &&
        cublasLtMatrixLayoutCreate(&p->w, CUDA_R_16BF, (uint64_t)p->depth, (uint64_t)p->width, p->depth) == 0 &&
        cublasLtMatrixLayoutCreate(&p->x, CUDA_R_16BF, (uint64_t)p->depth, (uint64_t)p->rows, p->depth) == 0 &&
        cublasLtMatrixLayoutCreate(&p->y, CUDA_R_16BF, (uint64_t)p->width, (uint64_t)p->rows, p->width) == 0 &&
        cublasLtMatmulPreferenceCreate(&wish) == 0 &&
        cublasLtMatmulPreferenceSetAttribute(wish, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &room, sizeof room) == 0 &&
        cublasLtMatmulAlgoGetHeuristic((cublasLtHandle_t)s->blas, p->what, p->w, p->x, p->y, p->y, wish, 1, &found, &n) == 0 && n == 1;
    if (wish)
        cublasLtMatmulPreferenceDestroy(wish);
    if (ok)
        p->how = found.algo;
    return ok;
}

/* The plan of a shape, made when it comes for the first time; NULL when there is none. */
static linear_plan *plan_linear(cuda_state *s, int64_t rows, int64_t width, int64_t depth)
{
    for (linear_plan *p = s->linears; p; p = p->next)
        if (p->rows == rows && p->width == width && p->depth == depth)
            return p;
    linear_plan *p = (linear_plan *)calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->rows = rows, p->width = width, p->depth = depth;
    if (!ask_linear(s, p)) {
        forget_linear(p);
        return NULL;
    }
    p->next = s->linears;
    return s->linears = p;
}

/* Whether everything lies as tensor cores read it. */
static int fits(int64_t width, int64_t depth, const void *y, const void *x, const void *w, const void *bias)
{
    const uintptr_t any = (uintptr_t)y | (uintptr_t)x | (uintptr_t)w | (uintptr_t)bias;
    return any % K_ALIGN == 0 && width % 8 == 0 && depth % 8 == 0;
}

void cuda_linear(k_dev *dev, k_dtype t, int64_t rows, int64_t width, int64_t depth, void *y, const void *x, const void *w, const void *bias)
{
    cuda_state *s = cuda_of(dev);
    const float one = 1, zero = 0;
    linear_plan *p = t == K_BF16 && bias && rows > 0 && !s->failed && fits(width, depth, y, x, w, bias) ? plan_linear(s, rows, width, depth) : NULL;
    if (!p) {
        cuda_gemm(dev, t, 0, 1, rows, width, depth, 1, x, depth, w, depth, 0, y, width);
        if (bias)
            cuda_add_bias(dev, t, rows, width, y, y, bias);
        return;
    }
    cublasStatus_t rc = cublasLtMatmulDescSetAttribute(p->what, CUBLASLT_MATMUL_DESC_BIAS_POINTER, &bias, sizeof bias);
    if (rc == CUBLAS_STATUS_SUCCESS)
        rc = cublasLtMatmul((cublasLtHandle_t)s->blas, p->what, &one, w, p->w, x, p->x, &zero, y, p->y, y, p->y, &p->how,
                            s->scratch + CUDA_SCRATCH, CUDA_BLAS_SCRATCH, cuda_stream(dev));
    judge(dev, rc);
}
