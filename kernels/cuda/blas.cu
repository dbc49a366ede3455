/* blas.cu - products, by cuBLAS.  Row-major C = op(A) op(B) is column-major C^T = op(B)^T op(A)^T. */
#include "device.cuh"
#include <stdio.h>

static cudaDataType_t type_of(k_dtype t) { return t == K_F64 ? CUDA_R_64F : t == K_BF16 ? CUDA_R_16BF : CUDA_R_32F; }

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
    if (rc != CUBLAS_STATUS_SUCCESS && !cuda_failed(dev, cudaPeekAtLastError(), "cuBLAS")) {
        snprintf(dev->error, sizeof dev->error, "cuBLAS failed on %s: %s", dev->name, cublasGetStatusString(rc));
        cuda_of(dev)->failed = 1;
    }
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
