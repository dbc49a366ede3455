/* linattn_spread.cu - what every row makes of the sums over the others (see linattn_projected.cu): a block keeps W and S of a
 * head in shared memory and goes through the rows of a segment, warp by warp, each with its rows in registers. */
#include "linattn_projected.cuh"

/* Shared memory of `wide` features: W and S [2][wide][LD], then this. */
enum { SHARES = 8 };                    /* of a sum over features, at most */
struct spread_memory { float z[MOST_FEATURES], sum_S[1 + SHARES][TILE], sum_z[1 + SHARES]; };

struct spreader {
    spread_memory *m;
    bf16 *W, *S;
    int part, wide, unit, b, h, end;    /* part: numbers from part to part of W and S */
};

/* A matrix [m,width] times scale, in two parts. */
static __device__ __forceinline__ void split_matrix(const spreader &k, bf16 *to, const float *from, int m, int width, float scale)
{
    for (int n = threadIdx.x; n < k.wide * (TILE / 2); n += blockDim.x) {
        int row = n / (TILE / 2), col = n % (TILE / 2) * 2, there = row < m;
        const float *at = from + row * width + col;
        uint32_t pair[2];
        split_pair(there && col < width ? scale * at[0] : 0, there && col + 1 < width ? scale * at[1] : 0, pair);
        *(uint32_t *)(to + row * LD + col) = pair[0], *(uint32_t *)(to + k.part + row * LD + col) = pair[1];
    }
}

/* W, S and z, and the sums over features that eps is multiplied by. */
static __device__ __forceinline__ void prepare(const spreading &c, const spreader &k)
{
    const projection &p = c.p;
    int64_t head = (int64_t)k.b * p.Hk + k.h / (p.H / p.Hk);
    const float *S = c.S + head * p.f.m * p.E, *z = c.z + head * p.f.m;
    split_matrix(k, k.W, (const float *)p.f.W + head % p.Hk * p.f.m * p.D, p.f.m, p.D, p.scale);
    split_matrix(k, k.S, S, p.f.m, p.E, 1);
    for (int f = threadIdx.x; f < MOST_FEATURES; f += blockDim.x) k.m->z[f] = f < p.f.m ? z[f] : 0;
    int e = threadIdx.x % TILE, part = threadIdx.x / TILE, parts = blockDim.x / TILE;
    float sum = 0, sum_z = 0;
    for (int f = part; f < p.f.m && p.favor; f += parts) {
        if (e < p.E) sum += S[f * p.E + e];
        if (e == 0) sum_z += z[f];
    }
    k.m->sum_S[1 + part][e] = sum;
    if (e == 0) k.m->sum_z[1 + part] = sum_z;
    __syncthreads();
    if (part == 0) {
        for (int i = 2; i <= parts; i++) sum += k.m->sum_S[i][e], sum_z += k.m->sum_z[i];
        k.m->sum_S[0][e] = p.eps * sum;
        if (e == 0) k.m->sum_z[0] = p.eps * sum_z;
    }
    __syncthreads();
}

/* Two neighbours of a row. */
static __device__ __forceinline__ float2 read_pair(const float *p) { return *(const float2 *)p; }
static __device__ __forceinline__ float2 read_pair(const bf16 *p)
{
    uint32_t x = *(const uint32_t *)p;
    return make_float2(low(x), high(x));
}
static __device__ __forceinline__ void write_pair(float *p, float x, float y) { *(float2 *)p = make_float2(x, y); }
static __device__ __forceinline__ void write_pair(bf16 *p, float x, float y) { *(uint32_t *)p = pack(x, y); }

/* Rows row0 .. row0+15 of the head as operands; squares: of the thread's two rows. */
template <typename T, int N> static __device__ __forceinline__ void read_rows(const spreader &k, const k_rows &t, int width, int vector, int row0,
                                                                              frag<bf16> (&to)[BLOCKS][N], float (&squares)[2])
{
    const T *x = (const T *)t.p + k.b * t.sb + k.h * t.sh;
    squares[0] = squares[1] = 0;
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 4; n++) {
            int row = row0 + acc_row(2 * n), col = 16 * j + acc_col(2 * n);
            const T *at = x + row * t.st + col;
            float2 y = make_float2(0, 0);
            if (row < k.end && col < width) {
                if (vector) y = read_pair(at);
                else y = make_float2(to_float(at[0]), col + 1 < width ? to_float(at[1]) : 0);
            }
            squares[n % 2] += y.x * y.x + y.y * y.y;
            uint32_t pair[N];
            split_pair(y.x, y.y, pair);
            #pragma unroll
            for (int i = 0; i < N; i++) to[j][i].r[n] = pair[i];
        }
    }
    squares[0] = row_sum(squares[0]), squares[1] = row_sum(squares[1]);
}

/* 16 rows of results; those beyond the rows' end become 0. */
template <typename T>
static __device__ __forceinline__ void write_rows(const spreader &k, const k_rows &t, int rows, int width, int vector, int row0,
                                                  const acc (&x)[BLOCKS])
{
    T *to = (T *)t.p + k.b * t.sb + k.h * t.sh;
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n += 2) {
            int row = row0 + acc_row(n), col = 16 * j + acc_col(n), there = row < k.end;
            float a = there ? x[j].c[n] : 0, b = there ? x[j].c[n + 1] : 0;
            T *at = to + row * t.st + col;
            if (row >= rows || col >= width) continue;
            if (vector) {
                write_pair(at, a, b);
            } else {
                at[0] = from_float<T>(a);
                if (col + 1 < width) at[1] = from_float<T>(b);
            }
        }
    }
}

/* Whether rows of t can be written by pairs. */
template <typename T> static __device__ __forceinline__ int in_pairs(const k_rows &t, int width)
{
    return ((uintptr_t)t.p % (2 * sizeof(T)) | t.sb % 2 | t.sh % 2 | t.st % 2 | width % 2) == 0;
}

/* ---- the answers of 16 queries ------------------------------------------------------------------------------- */

/* The thread's rows, their running maximum, sum and answers. */
template <typename T> struct answers {
    frag<bf16> x[BLOCKS][PARTS<T>];
    float squares[2], top[2], most[2], den[2];
    acc o[BLOCKS];
};

/* Where u grows too far, answers move under a new maximum. */
template <typename T> static __device__ __forceinline__ void raise(answers<T> &a, const acc &u)
{
    #pragma unroll
    for (int n = 0; n < 8; n++) a.most[n / 2 % 2] = fmaxf(a.most[n / 2 % 2], u.c[n]);
    if (!__any_sync(~0u, LOG2E * a.most[0] > a.top[0] + SLACK || LOG2E * a.most[1] > a.top[1] + SLACK)) return;
    float keep[2];
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        float now = LOG2E * row_most(a.most[e]);
        keep[e] = power(a.top[e] - now);
        a.top[e] = now, a.den[e] *= keep[e];
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) a.o[j].c[n] *= keep[n / 2 % 2];
    }
}

/* Features f .. f+15 join the answers. */
template <typename T, int FAVOR> static __device__ __forceinline__ void add_features(const projection &p, const spreader &k, int f, answers<T> &a)
{
    acc u;
    right w[2];
    frag<bf16> P[PARTS<T>];
    clear(u);
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        right_rows(w, k.W, k.part, f, 16 * j);
        multiply(u, a.x[j], w);
    }
    if (FAVOR && f + 16 > p.f.m) {
        #pragma unroll
        for (int n = 0; n < 8; n++) if (f + acc_col(n) >= p.f.m) u.c[n] = -INFINITY;
    }
    if (FAVOR) raise(a, u);
    else apply_function<T>(p.f, u.c);
    #pragma unroll
    for (int n = 0; n < 8 && FAVOR; n++) u.c[n] = power(fmaf(u.c[n], LOG2E, -a.top[n / 2 % 2]));
    split_acc(u, P);
    #pragma unroll
    for (int n = 0; n < 8; n += 2) {
        float2 z = *(const float2 *)(k.m->z + f + acc_col(n));
        a.den[n / 2 % 2] += u.c[n] * z.x + u.c[n + 1] * z.y;
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        right_cols(w, k.S, k.part, f, 16 * j);
        multiply(a.o[j], P, w);
    }
}

/* Sums to answers: num / den, and what backward wants to know. */
template <typename T, int FAVOR> static __device__ __forceinline__ void divide(const spreading &c, const spreader &k, int row0, answers<T> &a)
{
    const projection &p = c.p;
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        int row = row0 + acc_row(2 * e);
        float all = row_most(a.most[e]), kappa = FAVOR && p.f.stabilise ? all : 0;
        float grow = FAVOR ? power(a.top[e] - LOG2E * (kappa + 0.5f * p.scale * p.scale * a.squares[e])) : 1;
        float den = p.front * (grow * row_sum(a.den[e]) + k.m->sum_z[0]);
        den += (fabsf(den) <= c.guard ? 2 * c.guard : 0) + c.denom_eps;
        float inverse = !c.normalise ? 1 : fabsf(den) < 1.17549435e-38f ? 0 : 1 / den;
        #pragma unroll
        for (int j = 0; j < BLOCKS; j++) {
            #pragma unroll
            for (int n = 0; n < 8; n++)
                if (n / 2 % 2 == e) a.o[j].c[n] = inverse * p.front * (grow * a.o[j].c[n] + k.m->sum_S[0][16 * j + acc_col(n)]);
        }
        int64_t at = (int64_t)k.unit * p.T + row;
        if (!c.inverse || lane_id() % 4 || row >= k.end) continue;
        c.inverse[at] = inverse, c.peak[at] = kappa;
    }
}

template <typename T, int FAVOR> static __device__ __forceinline__ void answer(const spreading &c, const spreader &k, int row0)
{
    const projection &p = c.p;
    answers<T> a = {};
    read_rows<T>(k, p.x, p.D, p.x_vector, row0, a.x, a.squares);
    a.top[0] = a.top[1] = a.most[0] = a.most[1] = -INFINITY;
    #pragma unroll 1
    for (int f = 0; f < k.wide; f += 16) add_features<T, FAVOR>(p, k, f, a);
    divide<T, FAVOR>(c, k, row0, a);
    write_rows<T>(k, c.out, p.T, p.E, in_pairs<T>(c.out, p.E), row0, a.o);
}

/* ---- the gradients of 16 rows ---------------------------------------------------------------------------------- */

/* What there is of the thread's rows, and what gathers; offset: eta + kappa in powers of two, less those of front and factor. */
template <typename T> struct gradients {
    frag<bf16> x[BLOCKS][PARTS<T>], y[BLOCKS][PARTS<T>];
    float offset[2], factor[2], weight[2], deta[2];
    acc dx[BLOCKS], out[BLOCKS];
};

/* Of features f .. f+15. */
template <typename T, int FAVOR, int MODE>
static __device__ __forceinline__ void add_gradients(const projection &p, const spreader &k, int f, gradients<T> &g)
{
    acc u, d;
    right w[2], v[PARTS<T>];
    frag<bf16> P[PARTS<T>], du[PARTS<T>];
    clear(u), clear(d);
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        right_rows(w, k.W, k.part, f, 16 * j);
        multiply(u, g.x[j], w);
        right_rows(w, k.S, k.part, f, 16 * j);
        multiply(d, g.y[j], w);
    }
    #pragma unroll
    for (int n = 0; n < 8; n += 2) {
        int e = n / 2 % 2;
        float2 z = *(const float2 *)(k.m->z + f + acc_col(n));
        d.c[n] += g.weight[e] * z.x, d.c[n + 1] += g.weight[e] * z.y;
    }
    #pragma unroll
    for (int n = 0; n < 8; n++) {
        int e = n / 2 % 2;
        if (FAVOR) {
            u.c[n] = power(fmaf(u.c[n], LOG2E, -g.offset[e]));
            d.c[n] *= u.c[n];
            g.deta[e] -= d.c[n];
        } else {
            d.c[n] *= g.factor[e] * (p.f.fn == K_FN_RELU ? u.c[n] > 0 : function_slope<T>(p.f.fn, u.c[n]));
        }
    }
    if (!FAVOR && MODE == TELL) apply_function<T>(p.f, u.c);
    split_acc(u, P);
    split_acc(d, du);
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        right_cols(v, k.W, k.part, f, 16 * j);
        multiply(g.dx[j], du, v);
        if (MODE != TELL) continue;
        right_cols(w, k.S, k.part, f, 16 * j);
        multiply(g.out[j], P, w);
    }
}

template <typename T, int FAVOR, int MODE> static __device__ __forceinline__ void differentiate(const spreading &c, const spreader &k, int row0)
{
    const projection &p = c.p;
    gradients<T> g;
    float squares[2], none[2];
    read_rows<T>(k, p.x, p.D, p.x_vector, row0, g.x, squares);
    read_rows<T>(k, p.y, p.E, p.y_vector, row0, g.y, none);
    #pragma unroll
    for (int e = 0; e < 2; e++) {
        int row = row0 + acc_row(2 * e), there = row < k.end;
        int64_t at = (int64_t)k.unit * p.T + row;
        float kappa = !there ? 0 : MODE == TELL ? c.kappa[k.unit] : p.peak[at];
        g.factor[e] = !there || !p.factor ? 1 : p.factor[at];
        g.offset[e] = LOG2E * (0.5f * p.scale * p.scale * squares[e] + kappa) - log2f(p.front * g.factor[e]);
        g.weight[e] = !there || !p.weight ? p.plain : p.weight[at];
        g.deta[e] = 0;
    }
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) clear(g.dx[j]), clear(g.out[j]);
    #pragma unroll 1
    for (int f = 0; f < k.wide; f += 16) add_gradients<T, FAVOR, MODE>(p, k, f, g);
    float deta[2] = { p.scale * p.scale * row_sum(g.deta[0]), p.scale * p.scale * row_sum(g.deta[1]) };
    #pragma unroll
    for (int j = 0; j < BLOCKS; j++) {
        #pragma unroll
        for (int n = 0; n < 8; n++) {
            #pragma unroll
            for (int i = 0; i < PARTS<T> && FAVOR; i++) {
                uint32_t x = g.x[j][i].r[n / 2];
                g.dx[j].c[n] += deta[n / 2 % 2] * (n % 2 ? high(x) : low(x));
            }
            if (MODE == TELL && FAVOR) g.out[j].c[n] += p.front * k.m->sum_S[0][16 * j + acc_col(n)];
        }
    }
    if (c.dx.p) write_rows<T>(k, c.dx, p.T, p.D, in_pairs<T>(c.dx, p.D), row0, g.dx);
    if (MODE == TELL && c.out.p) write_rows<T>(k, c.out, p.T, p.E, in_pairs<T>(c.out, p.E), row0, g.out);
}

template <typename T, int FAVOR, int MODE>
static __global__ void __launch_bounds__(spreaders(MODE), 1) spread_kernel(const __grid_constant__ spreading c)
{
    extern __shared__ __align__(16) unsigned char memory[];
    spreader k;
    k.wide = (c.p.f.m + 15) / 16 * 16, k.part = k.wide * LD;
    k.W = (bf16 *)memory, k.S = k.W + 2 * k.part, k.m = (spread_memory *)(k.S + 2 * k.part);
    k.unit = blockIdx.x / c.segments, k.b = k.unit / c.p.H, k.h = k.unit % c.p.H, k.end = end_of(c.p, k.b);
    prepare(c, k);
    int from = blockIdx.x % c.segments * c.rows, to = min(from + c.rows, c.p.T);
    for (int row0 = from + warp_id() * 16; row0 < to; row0 += spreaders(MODE) / 2) {
        if constexpr (MODE == ANSWER) answer<T, FAVOR>(c, k, row0);
        else differentiate<T, FAVOR, MODE>(c, k, row0);
    }
}

/* In one mode. */
template <typename T, int MODE> static void spread(int B, const spreading &c, cudaStream_t stream)
{
    const projection &p = c.p;
    size_t wide = (p.f.m + 15) / 16 * 16;
    launch(p.favor ? spread_kernel<T, 1, MODE> : spread_kernel<T, 0, MODE>, dim3((unsigned)(B * p.H * c.segments)), spreaders(MODE),
           4 * wide * LD * sizeof(bf16) + sizeof(spread_memory), c, stream);
}
template <typename T> void linattn_spread(int B, spread_mode mode, const spreading &c, cudaStream_t stream)
{
    mode == ANSWER ? spread<T, ANSWER>(B, c, stream) : mode == ASK ? spread<T, ASK>(B, c, stream) : spread<T, TELL>(B, c, stream);
}
template void linattn_spread<float>(int, spread_mode, const spreading &, cudaStream_t);
template void linattn_spread<bf16>(int, spread_mode, const spreading &, cudaStream_t);
