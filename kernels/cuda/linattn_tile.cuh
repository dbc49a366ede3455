/* linattn_tile.cuh - tiles of 64 x 64 numbers in shared memory, and the products of the tensor cores over them: what all
 * mixers that work in chunks of tokens are made of.
 *
 * The unit is 16 x 16.  A frag is a 16 x 16 operand, spread over a warp; it serves as the left side, rows x k, and as
 * the right side, columns x k, so that every product is C [16,16] += A [16,k] B[16,k]'.  An acc is a 16 x 16 result;
 * with g = lane / 4 and t = lane % 4 its number i lies at row g + 8 (i / 2 % 2), column 8 (i / 4) + 2 t + i % 2.
 * A result becomes an operand without leaving the registers.
 *
 * bfloat16 goes through one product, float through three of TF32: hi lo + lo hi + hi hi, which is exact to 2^-21. */
#ifndef KERNELS_CUDA_LINATTN_TILE_CUH
#define KERNELS_CUDA_LINATTN_TILE_CUH
#include <cuda_bf16.h>
#include <stdint.h>

typedef __nv_bfloat16 bf16;

/* A tile, its rows in memory: no two of the rows that a warp reads at once begin in the same banks. */
enum { TILE = 64, LD = 72, BLOCKS = TILE / 16, WARPS = 4, THREADS = 32 * WARPS };
template <typename T> struct tile_of { enum { BYTES = TILE * LD * (int)sizeof(T) }; };

template <typename T> struct frag;
template <> struct frag<bf16> { uint32_t r[4]; };   /* pairs of columns, in the order of an acc */
template <> struct frag<float> { float r[8]; };     /* the numbers of an acc */
struct acc { float c[8]; };

static __device__ __forceinline__ int lane_id() { return threadIdx.x & 31; }
static __device__ __forceinline__ int warp_id() { return threadIdx.x >> 5; }
/* Where number i of an acc lies. */
static __device__ __forceinline__ int acc_row(int i) { return (lane_id() >> 2) + 8 * (i >> 1 & 1); }
static __device__ __forceinline__ int acc_col(int i) { return 8 * (i >> 2) + 2 * (lane_id() & 3) + (i & 1); }

static __device__ __forceinline__ void clear(acc &c)
{
    #pragma unroll
    for (int i = 0; i < 8; i++) c.c[i] = 0;
}

/* ---- numbers ---------------------------------------------------------------------------------------------- */

template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x) { return __float2bfloat16_rn(x); }
static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(bf16 x) { return __bfloat162float(x); }

static constexpr float LOG2E = 1.4426950408889634f;
/* 2^x. */
static __device__ __forceinline__ float power(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
/* The exponential to the precision of the numbers that go in and out. */
template <typename T> static __device__ __forceinline__ float exponential(float x) { return sizeof(T) == 4 ? expf(x) : power(LOG2E * x); }

/* Two numbers in a word, the first in the low half. */
static __device__ __forceinline__ uint32_t pack(float x, float y)
{
    __nv_bfloat162 p = __floats2bfloat162_rn(x, y);
    return *reinterpret_cast<uint32_t *>(&p);
}
static __device__ __forceinline__ float low(uint32_t x) { return __uint_as_float(x << 16); }
static __device__ __forceinline__ float high(uint32_t x) { return __uint_as_float(x & 0xffff0000u); }

/* Eight neighbours, aligned to 16 bytes. */
static __device__ __forceinline__ void read8(const float *p, float *x)
{
    float4 a = reinterpret_cast<const float4 *>(p)[0], b = reinterpret_cast<const float4 *>(p)[1];
    x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
}
static __device__ __forceinline__ void read8(const bf16 *p, float *x)
{
    uint4 a = *reinterpret_cast<const uint4 *>(p);
    x[0] = low(a.x), x[1] = high(a.x), x[2] = low(a.y), x[3] = high(a.y);
    x[4] = low(a.z), x[5] = high(a.z), x[6] = low(a.w), x[7] = high(a.w);
}
static __device__ __forceinline__ void write8(float *p, const float *x)
{
    reinterpret_cast<float4 *>(p)[0] = make_float4(x[0], x[1], x[2], x[3]);
    reinterpret_cast<float4 *>(p)[1] = make_float4(x[4], x[5], x[6], x[7]);
}
static __device__ __forceinline__ void write8(bf16 *p, const float *x)
{
    *reinterpret_cast<uint4 *>(p) = make_uint4(pack(x[0], x[1]), pack(x[2], x[3]), pack(x[4], x[5]), pack(x[6], x[7]));
}

/* ---- operands --------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t shared_address(const void *p) { return (uint32_t)__cvta_generic_to_shared(p); }

/* Rows row .. row+15, k = columns k .. k+15. */
static __device__ __forceinline__ frag<bf16> load_rows(const bf16 *tile, int row, int k)
{
    frag<bf16> f;
    int l = lane_id();
    uint32_t at = shared_address(tile + (row + (l & 15)) * LD + k + (l >> 4) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3]) : "r"(at) : "memory");
    return f;
}
static __device__ __forceinline__ frag<float> load_rows(const float *tile, int row, int k)
{
    frag<float> f;
    #pragma unroll
    for (int i = 0; i < 8; i += 2) {
        float2 x = *reinterpret_cast<const float2 *>(tile + (row + acc_row(i)) * LD + k + acc_col(i));
        f.r[i] = x.x, f.r[i + 1] = x.y;
    }
    return f;
}

/* Columns col .. col+15 as the rows of the operand, k = rows k .. k+15. */
static __device__ __forceinline__ frag<bf16> load_cols(const bf16 *tile, int k, int col)
{
    frag<bf16> f;
    int l = lane_id();
    uint32_t at = shared_address(tile + (k + (l & 7) + (l >> 4) * 8) * LD + col + (l >> 3 & 1) * 8);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(f.r[0]), "=r"(f.r[1]), "=r"(f.r[2]), "=r"(f.r[3]) : "r"(at) : "memory");
    return f;
}
static __device__ __forceinline__ frag<float> load_cols(const float *tile, int k, int col)
{
    frag<float> f;
    #pragma unroll
    for (int i = 0; i < 8; i++) f.r[i] = tile[(k + acc_col(i)) * LD + col + acc_row(i)];
    return f;
}

/* A result as an operand. */
template <typename T> static __device__ __forceinline__ frag<T> operand(const acc &c);
template <> __device__ __forceinline__ frag<bf16> operand<bf16>(const acc &c)
{
    frag<bf16> f;
    #pragma unroll
    for (int i = 0; i < 4; i++) f.r[i] = pack(c.c[2 * i], c.c[2 * i + 1]);
    return f;
}
template <> __device__ __forceinline__ frag<float> operand<float>(const acc &c)
{
    frag<float> f;
    #pragma unroll
    for (int i = 0; i < 8; i++) f.r[i] = c.c[i];
    return f;
}

/* ---- products --------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ void mma_bf16(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
static __device__ __forceinline__ void mma_tf32(float *c, const uint32_t *a, uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3]) : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* c += a b'. */
static __device__ __forceinline__ void product(acc &c, const frag<bf16> &a, const frag<bf16> &b)
{
    mma_bf16(c.c, a.r, b.r[0], b.r[2]);
    mma_bf16(c.c + 4, a.r, b.r[1], b.r[3]);
}
/* The leading 11 bits of a number, and the rest. */
static __device__ __forceinline__ void split(float x, uint32_t &hi, uint32_t &lo)
{
    hi = __float_as_uint(x) & 0xffffe000u;
    lo = __float_as_uint(x - __uint_as_float(hi));
}
static __device__ __forceinline__ void product(acc &c, const frag<float> &a, const frag<float> &b)
{
    const int order[4] = { 0, 2, 1, 3 };        /* of a's words: row g and g + 8 of one k, then of the next */
    #pragma unroll
    for (int k = 0; k < 8; k += 4) {
        uint32_t ah[4], al[4], bh[4], bl[4];
        #pragma unroll
        for (int i = 0; i < 4; i++) {
            split(a.r[k + order[i]], ah[i], al[i]);
            split(b.r[k + i], bh[i], bl[i]);
        }
        #pragma unroll
        for (int n = 0; n < 2; n++) {
            mma_tf32(c.c + 4 * n, al, bh[2 * n], bh[2 * n + 1]);
            mma_tf32(c.c + 4 * n, ah, bl[2 * n], bl[2 * n + 1]);
            mma_tf32(c.c + 4 * n, ah, bh[2 * n], bh[2 * n + 1]);
        }
    }
}

/* ---- results to memory -------------------------------------------------------------------------------------- */

/* An acc to rows row.., columns col.. of a tile. */
static __device__ __forceinline__ void store_acc(float *tile, int row, int col, const acc &c)
{
    #pragma unroll
    for (int i = 0; i < 8; i += 2)
        *reinterpret_cast<float2 *>(tile + (row + acc_row(i)) * LD + col + acc_col(i)) = make_float2(c.c[i], c.c[i + 1]);
}
static __device__ __forceinline__ void store_acc(bf16 *tile, int row, int col, const acc &c)
{
    #pragma unroll
    for (int i = 0; i < 8; i += 2)
        *reinterpret_cast<uint32_t *>(tile + (row + acc_row(i)) * LD + col + acc_col(i)) = pack(c.c[i], c.c[i + 1]);
}

/* ---- global to shared ----------------------------------------------------------------------------------------- */

/* Where a tile's rows lie in memory: row r at p + r * st, 8 columns of it at a time; rows outside [lo,hi) and columns from
 * width on read as 0.  vector: every row is aligned to 16 bytes and width is a multiple of 16 bytes. */
template <typename T> struct rows_at { const T *p; int64_t st; int lo, hi, width, vector; };

/* Starts to copy 16 bytes, of which only the first `bytes` are read and the others become 0. */
static __device__ __forceinline__ void copy16(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" :: "r"(to), "l"(from), "r"(bytes) : "memory");
}

/* Starts to copy rows row0 .. row0+63, columns col0 .. col0+63, by so many threads. */
template <typename T, int WORKERS = THREADS> static __device__ __forceinline__ void load_tile(T *tile, const rows_at<T> &s, int row0, int col0)
{
    enum { PIECE = 16 / sizeof(T), PIECES = TILE / PIECE, ROWS = WORKERS / PIECES };
    int r = threadIdx.x / PIECES, c = threadIdx.x % PIECES * PIECE;
    if (s.vector && row0 >= s.lo && row0 + TILE <= s.hi && col0 + TILE <= s.width) {
        const T *from = s.p + (int64_t)(row0 + r) * s.st + col0 + c;
        uint32_t to = shared_address(tile + r * LD + c);
        #pragma unroll
        for (int n = 0; n < TILE / ROWS; n++) copy16(to + n * ROWS * LD * (int)sizeof(T), from + n * ROWS * s.st, 16);
    } else if (s.vector) {
        #pragma unroll 1
        for (; r < TILE; r += ROWS) {
            int there = row0 + r >= s.lo && row0 + r < s.hi && col0 + c < s.width;
            copy16(shared_address(tile + r * LD + c), there ? s.p + (int64_t)(row0 + r) * s.st + col0 + c : s.p, there ? 16 : 0);
        }
    } else {
        #pragma unroll 1
        for (int n = threadIdx.x; n < TILE * TILE; n += WORKERS) {
            int i = n / TILE, j = n % TILE, there = row0 + i >= s.lo && row0 + i < s.hi && col0 + j < s.width;
            tile[i * LD + j] = there ? s.p[(int64_t)(row0 + i) * s.st + col0 + j] : from_float<T>(0);
        }
    }
}
static __device__ __forceinline__ void loads_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int LEFT> static __device__ __forceinline__ void loads_wait() { asm volatile("cp.async.wait_group %0;" :: "n"(LEFT) : "memory"); }

#endif
