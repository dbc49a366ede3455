/* lsh_order.cu - LSH attention on CUDA: buckets, and the order of the tokens by (bucket, position).
 *
 * Hashing is a product in double, by the tensor cores: every device decides alike, and nothing has to be decided twice.
 * The sort is a stable radix sort of 8 bits a pass, one block per unit and round: each warp has its own stretch of
 * tokens, so that a pass is one count, one scan, and one walk. */
#include "lsh.cuh"
#include "softmax_rows.cuh"
#include <cmath>

enum { SIDE = 64, LINE = SIDE + 4 };    /* of a tile of numbers in double; elements of its row in memory */
enum { SORTERS = 32, DIGITS = 256 };    /* warps of a block, values of a digit */

/* ---- hashing -------------------------------------------------------------------------------------------------------- */

/* c [16,8] += a [16,4] b [4,8]: rows lane/4 and 8 more by column lane%4; row lane%4, column lane/4. */
__device__ static void multiply(double (&c)[4], double a0, double a1, double b)
{
#if __CUDA_ARCH__ >= 900
    asm volatile("mma.sync.aligned.m16n8k4.row.col.f64.f64.f64.f64 {%0,%1,%2,%3}, {%4,%5}, {%6}, {%0,%1,%2,%3};"
                 : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3]) : "d"(a0), "d"(a1), "d"(b));
#else
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+d"(c[0]), "+d"(c[1]) : "d"(a0), "d"(b));
    asm volatile("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0,%1}, {%2}, {%3}, {%0,%1};" : "+d"(c[2]), "+d"(c[3]) : "d"(a1), "d"(b));
#endif
}

/* The largest number so far and the least index that has it. */
struct peak { double y; int at; };
__device__ static void raise(peak *p, double y, int at)
{
    if (y > p->y || (y == p->y && at < p->at))
        *p = { y, at };
}
__device__ static void raise_over_quad(peak *p)
{
    for (int lane = 1; lane < 4; lane *= 2)
        raise(p, __shfl_xor_sync(~0u, p->y, lane), __shfl_xor_sync(~0u, p->at, lane));
}

/* X [64 tokens,64] = columns k0 .. of tokens t0 .. of k. */
template <class T> __device__ static void bring_tokens(const lsh &p, int unit, int t0, int k0, double *X)
{
    for (int n = threadIdx.x; n < SIDE * SIDE; n += THREADS) {
        const int t = t0 + n / SIDE, d = k0 + n % SIDE;
        X[n / SIDE * LINE + n % SIDE] = t < p.T && d < p.Dk ? (double)(float)row_at<T>(p.k, unit / p.H, unit % p.H, t)[d] : 0;
    }
}

/* Y [64,64 columns] = rows k0 .., columns c0 .. c1 - 1 of a rotation. */
__device__ static void bring_rotation(const float *rotation, int columns, int D, int k0, int c0, int c1, double *Y)
{
    for (int n = threadIdx.x; n < SIDE * SIDE; n += THREADS) {
        const int d = k0 + n / SIDE, c = c0 + n % SIDE;
        Y[n / SIDE * LINE + n % SIDE] = d < D && c < c1 ? rotation[(int64_t)d * columns + c] : 0;
    }
}

/* c [16,64] of a warp += 64 columns of X by Y. */
__device__ static void add_product(const double *X, const double *Y, double (&c)[SIDE / 8][4])
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const double *x = X + (threadIdx.x / 32 * 16 + g) * LINE + t, *y = Y + t * LINE + g;
    #pragma unroll 4
    for (int k = 0; k < SIDE; k += 4)
        #pragma unroll
        for (int n = 0; n < SIDE / 8; n++)
            multiply(c[n], x[k], x[8 * LINE + k], y[k * LINE + 8 * n]);
}

/* Block: 64 tokens of a unit in a round. */
template <class T> __global__ void __launch_bounds__(THREADS) hash(const __grid_constant__ lsh p)
{
    extern __shared__ double room[];
    double *X = room, *Y = room + SIDE * LINE;
    const int tiles = ceil_div(p.T - p.first, SIDE), columns = (p.factor[0] + p.factor[1]) / 2, t0 = p.first + blockIdx.x % tiles * SIDE;
    const int round = blockIdx.x / tiles % p.rounds, unit = blockIdx.x / tiles / p.rounds;
    const float *rotation = p.rotations + ((int64_t)(unit % p.H) * p.rounds + round) * p.Dk * columns;
    int bucket[2] = { 0, 0 };
    for (int f = 0, begin = 0, step = 1; f < 2 && p.factor[f]; begin += p.factor[f] / 2, step *= p.factor[f], f++) {
        const int half = p.factor[f] / 2;
        peak plus[2] = { { -INFINITY, 0 }, { -INFINITY, 0 } }, minus[2] = { { -INFINITY, 0 }, { -INFINITY, 0 } };
        for (int c0 = 0; c0 < half; c0 += SIDE) {
            double y[SIDE / 8][4] = {};
            for (int k0 = 0; k0 < p.Dk; k0 += SIDE) {
                __syncthreads();
                bring_tokens<T>(p, unit, t0, k0, X);
                bring_rotation(rotation, columns, p.Dk, k0, begin + c0, begin + half, Y);
                __syncthreads();
                add_product(X, Y, y);
            }
            #pragma unroll
            for (int n = 0; n < SIDE / 8; n++)
                #pragma unroll
                for (int e = 0; e < 4; e++)
                    if (c0 + column_of(n, e) < half) {
                        raise(&plus[e / 2], y[n][e], c0 + column_of(n, e));
                        raise(&minus[e / 2], -y[n][e], c0 + column_of(n, e));
                    }
        }
        for (int i = 0; i < 2; i++) {
            raise_over_quad(&plus[i]);
            raise_over_quad(&minus[i]);
            bucket[i] += step * (plus[i].y >= minus[i].y ? plus[i].at : half + minus[i].at);
        }
    }
    for (int i = 0; i < 2; i++)
        if (threadIdx.x % 4 == 0 && t0 + row_of(2 * i) < p.T)
            p.bucket[round_at(p, unit, round) * p.capacity + t0 + row_of(2 * i)] = bucket[i];
}

/* Buckets that were given as numbers. */
__global__ void __launch_bounds__(THREADS) take_given(const __grid_constant__ lsh p)
{
    const int64_t each = p.T - p.first, n = (int64_t)p.B * p.H * p.rounds * each;
    for (int64_t i = blockIdx.x * (int64_t)THREADS + threadIdx.x; i < n; i += (int64_t)gridDim.x * THREADS) {
        const int64_t at = i / each * p.capacity + p.first + i % each;
        p.bucket[at] = (int32_t)p.given[at];
    }
}

/* Of one type. */
template <class T> static void run_hash(const lsh &p, cudaStream_t stream)
{
    const int room = 2 * SIDE * LINE * (int)sizeof(double);
    const int64_t blocks = (int64_t)p.B * p.H * p.rounds * ceil_div(p.T - p.first, SIDE);
    cudaFuncSetAttribute(hash<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    hash<T><<<(unsigned)blocks, THREADS, room, stream>>>(p);
}

int lsh_hash(const lsh &p, k_dtype dtype, cudaStream_t stream)
{
    if (p.given)
        take_given<<<1024, THREADS, 0, stream>>>(p);
    else if (dtype == K_BF16)
        run_hash<bf16>(p, stream);
    else
        run_hash<float>(p, stream);
    return lsh_launched();
}

/* ---- order ---------------------------------------------------------------------------------------------------------- */

/* at [SORTERS][DIGITS]: from how many tokens a warp has of a digit to where the first of them goes. */
__device__ static void scan_counts(int (*at)[DIGITS], int *totals)
{
    const int digit = threadIdx.x;
    int sum = 0;
    for (int w = 0; digit < DIGITS && w < SORTERS; w++) {
        const int n = at[w][digit];
        at[w][digit] = sum;
        sum += n;
    }
    if (digit < DIGITS)
        totals[digit] = sum;
    for (int step = 1; step < DIGITS; step *= 2) {
        __syncthreads();
        const int before = digit >= step && digit < DIGITS ? totals[digit - step] : 0;
        __syncthreads();
        if (digit < DIGITS)
            totals[digit] += before;
    }
    for (int w = 0; digit < DIGITS && w < SORTERS; w++)
        at[w][digit] += totals[digit] - sum;
    __syncthreads();
}

/* One pass over the tokens `from` [T] (NULL: 0 .. T - 1) by bits shift .. shift + 7 of their buckets. */
__device__ static void sort_pass(int T, const int32_t *bucket, const int32_t *from, int32_t *to, int shift, int (*at)[DIGITS], int *totals)
{
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, each = ceil_div(ceil_div(T, SORTERS), 32) * 32;
    const int begin = least(warp * each, T), end = least(begin + each, T);
    for (int i = threadIdx.x; i < SORTERS * DIGITS; i += 32 * SORTERS)
        at[i / DIGITS][i % DIGITS] = 0;
    __syncthreads();
    for (int t = begin + lane; t < end; t += 32)
        atomicAdd(&at[warp][bucket[from ? from[t] : t] >> shift & 255], 1);
    __syncthreads();
    scan_counts(at, totals);
    for (int t0 = begin; t0 < end; t0 += 32) {
        const bool there = t0 + lane < end;
        const int token = !there ? 0 : from ? from[t0 + lane] : t0 + lane, digit = there ? bucket[token] >> shift & 255 : DIGITS;
        const unsigned alike = __match_any_sync(~0u, digit), before = alike & ((1u << lane) - 1);
        const int start = there ? at[warp][digit] : 0;
        __syncwarp();
        if (there)
            to[start + __popc(before)] = token;
        if (there && !before)
            at[warp][digit] = start + __popc(alike);
        __syncwarp();
    }
    __syncthreads();
}

/* Block: a unit in a round. */
__global__ void __launch_bounds__(32 * SORTERS) sort_tokens(const __grid_constant__ lsh p, int passes)
{
    __shared__ int at[SORTERS][DIGITS], totals[DIGITS];
    const int64_t row = blockIdx.x;
    int32_t *order = p.order + row * p.T, *spare = p.spare + row * p.T, *from = nullptr;
    for (int pass = 0; pass < passes; pass++) {
        int32_t *to = (passes - pass) % 2 ? order : spare;
        sort_pass(p.T, p.bucket + row * p.capacity, from, to, 8 * pass, at, totals);
        from = to;
    }
    for (int place = threadIdx.x; p.chunk_of && place < p.T; place += 32 * SORTERS)
        p.chunk_of[row * p.T + order[place]] = place / p.chunk;
}

int lsh_sort(const lsh &p, cudaStream_t stream)
{
    const int64_t buckets = p.given ? INT32_MAX : (int64_t)p.factor[0] * most(p.factor[1], 1);
    int passes = 1;
    while (passes < 4 && (buckets - 1) >> 8 * passes)
        passes++;
    sort_tokens<<<(unsigned)(p.B * p.H * p.rounds), 32 * SORTERS, 0, stream>>>(p, passes);
    return lsh_launched();
}
