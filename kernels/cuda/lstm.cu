/* lstm.cu - long short-term memory on CUDA: a chunk of tokens at a time, whose gates [B,H,chunk,4D] lie in scratch.
 *
 * Forward:   gates = bias + w_x x of all tokens of the chunk (taps.cuh), then a walk: a block has one to four rows of the
 *            batch and a head, a thread one row of w_h, which adds w_h h_(t-1) to its gate.
 * Backward:  gates = bias + w_x x + w_h h_(t-1) at once, since h_(t-1) is known from o; a walk from the last token that
 *            leaves da in their place, a thread with a quarter of a column of w_h; then dx, dw_x, dw_h and dbias from da.
 * The weights of the walk stay in registers up to D = 64 in float and 128 in bfloat16; wider ones come from the L1 and L2
 * caches at every step.  In bfloat16 h and w_h are rounded, sums and cells are float.
 *
 * The floor is the walk's: T steps one after another, each of at least 4 D^2 multiply-adds per row in one SM and two
 * barriers - D = 64: 128 cycles of arithmetic per row, about 0.2 us with all that one waits for. */
#include "taps.cuh"

enum { CHUNK = 1024, WIDEST = 256, HELD_PACKS = 16, MOST_ROWS = 4, ENOUGH_BLOCKS = 132 };

/* Numbers of T in 16 bytes; such packs in a row of D numbers; numbers from one row in shared memory to the next. */
template <class T> constexpr int EACH = 16 / (int)sizeof(T);
template <class T> static inline __host__ __device__ int packs_of(int D) { return (D + EACH<T> - 1) / EACH<T>; }
template <class T> static inline __host__ __device__ int pitch_of(int D) { return packs_of<T>(D) * EACH<T>; }

/* A walk over the tokens t0 .. t0+n-1. */
struct walk {
    k_lstm p;
    int t0, n;
    float *gates;                       /* [B,H,n,4D] before activation; backward leaves da there */
    const uint4 *weights;               /* [H,packs,4D] of eight or four numbers: row j of w_h, backward part of a column */
    const float *in1, *in2;             /* [B,H,D] h and c before t0, backward dh and dc behind; NULL: 0 */
    float *out1, *out2;                 /* [B,H,D] h and c behind, backward dh and dc before t0; may be in1 and in2 */
};

/* ---- the weights of the walk ---------------------------------------------------------------------------------- */

/* out [H,packs,4D] packs: thread j = (block g, d) gets w_h[j,:], or turned w_h[g D .. g D + D-1, d]. */
template <class T> __global__ static void __launch_bounds__(MAP_THREADS) pack_kernel(const float *w, T *out, int H, int D, bool turned)
{
    const int64_t packs = packs_of<T>(D), all = H * packs * 4 * D * EACH<T>;
    for (int64_t i = (int64_t)blockIdx.x * MAP_THREADS + threadIdx.x; i < all; i += (int64_t)gridDim.x * MAP_THREADS) {
        const int64_t j = i / EACH<T> % (4 * D), e = i / EACH<T> / (4 * D) % packs * EACH<T> + i % EACH<T>, h = i / EACH<T> / (4 * D) / packs;
        const int64_t row = turned ? j / D * D + e : j, column = turned ? j % D : e;
        out[i] = from_float<T>(e < D ? w[(h * 4 * D + row) * D + column] : 0);
    }
}

static __device__ __forceinline__ void unpack(const uint4 &w, float (&x)[4])
{
    x[0] = __uint_as_float(w.x), x[1] = __uint_as_float(w.y), x[2] = __uint_as_float(w.z), x[3] = __uint_as_float(w.w);
}
static __device__ __forceinline__ void unpack(const uint4 &w, float (&x)[8])
{
    x[0] = low(w.x), x[1] = high(w.x), x[2] = low(w.y), x[3] = high(w.y);
    x[4] = low(w.z), x[5] = high(w.z), x[6] = low(w.w), x[7] = high(w.w);
}

/* The D weights of a thread. */
template <class T, bool HELD> struct row_of_weights {
    uint4 held[HELD ? HELD_PACKS : 1];
    const uint4 *far;
    int packs, step;
    __device__ void load(const uint4 *w, int D, int h)
    {
        packs = packs_of<T>(D), step = 4 * D;
        far = w + (int64_t)h * packs * step + min((int)threadIdx.x, step - 1);
        if (HELD)
            #pragma unroll
            for (int p = 0; p < HELD_PACKS; p++)
                if (p < packs) held[p] = far[p * step];
    }
    /* sum[n] += weights . x[n], vectors `stride` apart in shared memory with zeros behind. */
    template <int N> __device__ __forceinline__ void pack_product(const uint4 &w, const float *x, int stride, float (&sum)[N]) const
    {
        float y[EACH<T>];
        unpack(w, y);
        #pragma unroll
        for (int n = 0; n < N; n++)
            #pragma unroll
            for (int i = 0; i < EACH<T>; i += 4) {
                const float4 v = *reinterpret_cast<const float4 *>(x + n * stride + i);
                sum[n] += y[i] * v.x, sum[n] += y[i + 1] * v.y, sum[n] += y[i + 2] * v.z, sum[n] += y[i + 3] * v.w;
            }
    }
    template <int N> __device__ __forceinline__ void product(const float *x, int stride, float (&sum)[N]) const
    {
        if (HELD) {
            #pragma unroll
            for (int p = 0; p < HELD_PACKS; p++)
                if (p < packs) pack_product(held[p], x + p * EACH<T>, stride, sum);
        } else {
            #pragma unroll 4
            for (int p = 0; p < packs; p++) pack_product(far[p * step], x + p * EACH<T>, stride, sum);
        }
    }
};

/* ---- the walks --------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ float sigmoid(float x) { return 1 / (1 + expf(-x)); }
template <class T> static __device__ __forceinline__ float rounded(float x) { return to_float(from_float<T>(x)); }

/* The most threads of a walk whose weights are held, or are not. */
template <class T, bool HELD> constexpr int WALKERS = HELD ? 4 * HELD_PACKS * EACH<T> : 4 * WIDEST;

/* The rows b0 .. b0+N-1 of the batch and a head; thread n D + d has number d of row b0+n besides its row of weights. */
template <int N> struct place {
    int D, h, b0, n, d;
    bool owns;                          /* whether there is such a row */
    int64_t bh;                         /* of that row */
    __device__ place(const k_lstm &p)
    {
        const int groups = (p.B + N - 1) / N;
        D = p.D, h = blockIdx.x / groups, b0 = blockIdx.x % groups * N;
        n = threadIdx.x / D, d = threadIdx.x % D, owns = n < N && b0 + n < p.B;
        bh = (int64_t)(b0 + n) * p.H + h;
    }
};

/* h and c of the tokens of a chunk. */
template <class T, bool HELD, int N> __global__ static void __launch_bounds__(WALKERS<T, HELD>) forward_kernel(walk w)
{
    extern __shared__ __align__(16) float memory[];
    const k_lstm &p = w.p;
    const place<N> at(p);
    const int D = p.D, j = threadIdx.x, pitch = pitch_of<T>(D);
    float *hidden = memory, *act = memory + N * pitch;      /* [N,pitch] [N,4D] */
    row_of_weights<T, HELD> weights;
    weights.load(w.weights, D, at.h);
    for (int i = j; i < N * pitch; i += blockDim.x) hidden[i] = 0;
    __syncthreads();
    float c = at.owns && w.in2 ? w.in2[at.bh * D + at.d] : 0, h = at.owns && w.in1 ? w.in1[at.bh * D + at.d] : 0;
    if (at.owns) hidden[at.n * pitch + at.d] = rounded<T>(h);
    __syncthreads();
    float next[N];
    auto fetch = [&](int t) {
        #pragma unroll
        for (int n = 0; n < N; n++)
            next[n] = t < w.n && j < 4 * D && at.b0 + n < p.B ? w.gates[(((int64_t)(at.b0 + n) * p.H + at.h) * w.n + t) * 4 * D + j] : 0;
    };
    fetch(0);
    for (int t = 0; t < w.n; t++) {
        float sum[N];
        #pragma unroll
        for (int n = 0; n < N; n++) sum[n] = next[n];
        fetch(t + 1);
        weights.product(hidden, pitch, sum);
        #pragma unroll
        for (int n = 0; n < N; n++)
            if (j < 4 * D) act[n * 4 * D + j] = j / D == 2 ? tanhf(sum[n]) : sigmoid(sum[n]);
        __syncthreads();
        if (at.owns) {
            const float *a = act + at.n * 4 * D + at.d;
            c = a[D] * c + a[0] * a[2 * D];
            h = a[3 * D] * tanhf(c);
            hidden[at.n * pitch + at.d] = rounded<T>(h);
            ((T *)p.o.p)[(at.b0 + at.n) * p.o.sb + at.h * p.o.sh + (w.t0 + t) * p.o.st + at.d] = from_float<T>(h);
            if (p.cells) p.cells[(at.bh * p.T + w.t0 + t) * D + at.d] = c;
        }
        __syncthreads();
    }
    if (at.owns && w.out1) w.out1[at.bh * D + at.d] = h;
    if (at.owns && w.out2) w.out2[at.bh * D + at.d] = c;
}

/* What the way back reads of a token, one number of each. */
struct token { float a[4], before, d_o; };      /* gates before activation, c_(t-1) */

template <class T, int N> static __device__ __forceinline__ token token_at(const walk &w, const place<N> &at, int t)
{
    const k_lstm &p = w.p;
    token x = {};
    if (!at.owns || t < 0) return x;
    const int64_t s = w.t0 + t;
    const float *a = w.gates + (at.bh * w.n + t) * 4 * p.D + at.d;
    for (int g = 0; g < 4; g++) x.a[g] = a[g * p.D];
    x.before = s ? p.cells[(at.bh * p.T + s - 1) * p.D + at.d] : p.c0 ? p.c0[at.bh * p.D + at.d] : 0;
    x.d_o = to_float(((const T *)p.d_o.p)[(at.b0 + at.n) * p.d_o.sb + at.h * p.d_o.sh + s * p.d_o.st + at.d]);
    return x;
}

/* da of the tokens of a chunk, from the last to the first; dh is the sum of four parts, one of every block of gates. */
template <class T, bool HELD, int N> __global__ static void __launch_bounds__(WALKERS<T, HELD>) backward_kernel(walk w)
{
    extern __shared__ __align__(16) float memory[];
    const k_lstm &p = w.p;
    const place<N> at(p);
    const int D = p.D, j = threadIdx.x, pitch = pitch_of<T>(D), block = min(j / D, 3);
    float *da = memory, *part = memory + N * 4 * pitch;     /* [N,4,pitch] [N,4,D] */
    row_of_weights<T, HELD> weights;
    weights.load(w.weights, D, at.h);
    for (int i = j; i < N * 4 * (pitch + D); i += blockDim.x) memory[i] = 0;
    __syncthreads();
    float dc = at.owns && w.in2 ? w.in2[at.bh * D + at.d] : 0;
    if (at.owns && w.in1) part[at.n * 4 * D + at.d] = w.in1[at.bh * D + at.d];
    auto dh = [&]() {
        const float *x = part + at.n * 4 * D + at.d;
        return (x[0] + x[D]) + (x[2 * D] + x[3 * D]);
    };
    token now = token_at<T>(w, at, w.n - 1);
    float c = at.owns ? p.cells[(at.bh * p.T + w.t0 + w.n - 1) * D + at.d] : 0;
    for (int t = w.n - 1; t >= 0; t--) {
        const float i = sigmoid(now.a[0]), f = sigmoid(now.a[1]), g = tanhf(now.a[2]), o = sigmoid(now.a[3]), tc = tanhf(c);
        const float before = now.before, d_o = now.d_o;
        now = token_at<T>(w, at, t - 1);
        __syncthreads();
        if (at.owns) {
            const float y = d_o + dh(), e = dc + y * o * (1 - tc * tc);
            const float a[4] = { e * g * i * (1 - i), e * before * f * (1 - f), e * i * (1 - g * g), y * tc * o * (1 - o) };
            float *to = w.gates + (at.bh * w.n + t) * 4 * D + at.d;
            #pragma unroll
            for (int q = 0; q < 4; q++) da[(at.n * 4 + q) * pitch + at.d] = to[q * D] = a[q];
            dc = e * f, c = before;
        }
        __syncthreads();
        float sum[N] = { 0 };
        weights.product(da + block * pitch, 4 * pitch, sum);
        #pragma unroll
        for (int n = 0; n < N; n++)
            if (j < 4 * D) part[n * 4 * D + j] = sum[n];
    }
    __syncthreads();
    if (at.owns && w.out1) w.out1[at.bh * D + at.d] = dh();
    if (at.owns && w.out2) w.out2[at.bh * D + at.d] = dc;
}

/* ---- queueing ---------------------------------------------------------------------------------------------------- */

template <class T, bool HELD, int N> static void queue_walk_of(const walk &w, bool back, cudaStream_t stream)
{
    const int D = w.p.D, pitch = pitch_of<T>(D), threads = (4 * D + 31) / 32 * 32;
    const unsigned blocks = (unsigned)((w.p.B + N - 1) / N * w.p.H);
    const size_t forward = (size_t)N * (pitch + 4 * D) * sizeof(float), backward = (size_t)N * 4 * (pitch + D) * sizeof(float);
    if (back) backward_kernel<T, HELD, N><<<blocks, threads, backward, stream>>>(w);
    else forward_kernel<T, HELD, N><<<blocks, threads, forward, stream>>>(w);
}

/* Several rows to a block share the weights, once all SMs have a block. */
template <class T> static void queue_walk(const walk &w, bool back, cudaStream_t stream)
{
    const bool many = (int64_t)(w.p.B + MOST_ROWS - 1) / MOST_ROWS * w.p.H >= ENOUGH_BLOCKS, held = packs_of<T>(w.p.D) <= HELD_PACKS;
    if (held && many) queue_walk_of<T, true, MOST_ROWS>(w, back, stream);
    else if (held) queue_walk_of<T, true, 1>(w, back, stream);
    else if (many) queue_walk_of<T, false, MOST_ROWS>(w, back, stream);
    else queue_walk_of<T, false, 1>(w, back, stream);
}

static int chunk_of(const k_lstm *p) { return p->T < CHUNK ? p->T : CHUNK; }

/* Bytes of the scratch, whose parts are multiples of 16: gates, packed weights, two states that go from chunk to chunk. */
static size_t gates_size(const k_lstm *p) { return (size_t)p->B * p->H * chunk_of(p) * 4 * p->D * sizeof(float); }
static size_t weights_size(const k_lstm *p, k_dtype t)
{
    return (size_t)p->H * (t == K_BF16 ? packs_of<bf16>(p->D) : packs_of<float>(p->D)) * 4 * p->D * sizeof(uint4);
}
static size_t state_size(const k_lstm *p) { return (size_t)p->B * p->H * p->D * sizeof(float); }

/* A walk with its arrays, and the weights packed for it. */
template <class T> static walk walk_of(const k_lstm *p, bool back, cudaStream_t stream)
{
    char *scratch = (char *)p->scratch, *packed = scratch + gates_size(p), *state = packed + weights_size(p, sizeof(T) == 2 ? K_BF16 : K_F32);
    const int64_t n = (int64_t)p->H * packs_of<T>(p->D) * 4 * p->D * EACH<T>;
    walk w = {};
    w.p = *p, w.gates = (float *)scratch, w.weights = (const uint4 *)packed;
    w.out1 = (float *)state, w.out2 = (float *)(state + state_size(p));
    pack_kernel<T><<<map_blocks(n), MAP_THREADS, 0, stream>>>(p->w_h, (T *)packed, p->H, p->D, back);
    return w;
}

/* Rows t .. of a tensor of T. */
template <class T> static k_heads from_row(k_heads x, int64_t t)
{
    if (x.p) x.p = (T *)x.p + t * x.st;
    return x;
}
/* The gates of a walk as a tensor. */
static k_heads gates_of(const walk &w)
{
    const int64_t row = 4 * w.p.D;
    return { w.gates, w.p.H * w.n * row, w.n * row, row };
}
/* Tokens before those of the walk: row -1 is h0. */
template <class T> static k_heads hidden_before(const walk &w, tap_range *range, const float **before)
{
    *range = { 1, w.t0 ? 0 : -1, 0 };
    *before = w.t0 ? NULL : w.p.h0;
    return from_row<T>(w.p.o, w.t0 ? w.t0 - 1 : 0);
}

/* gates = bias + w_x x, and with `recurrent` + w_h h_(t-1). */
template <class T> static void queue_gates(const walk &w, bool recurrent, cudaStream_t stream)
{
    const k_lstm &p = w.p;
    tap_product q = {};
    q.B = p.B, q.H = p.H, q.T = w.n, q.K = p.D, q.N = 4 * p.D, q.out = gates_of(w);
    q.in = from_row<T>(p.x, w.t0), q.w = p.w_x, q.bias = p.bias, q.range = { 1, 0, 0 };
    queue_product<T, T, float, false>(q, stream);
    if (!recurrent) return;
    q.in = hidden_before<T>(w, &q.range, &q.before), q.w = p.w_h, q.bias = NULL, q.add = 1;
    queue_product<T, T, float, false>(q, stream);
}

/* What da of a chunk gives to x and to the weights. */
template <class T> static void queue_gradients(const walk &w, cudaStream_t stream)
{
    const k_lstm &p = w.p;
    tap_product q = {};
    q.B = p.B, q.H = p.H, q.T = w.n, q.K = 4 * p.D, q.N = p.D, q.in = gates_of(w), q.out = from_row<T>(p.dx, w.t0);
    q.w = p.w_x, q.range = { 1, 0, 0 };
    queue_product<T, float, T, true>(q, stream);
    tap_gradient g = {};
    g.B = p.B, g.H = p.H, g.T = w.n, g.M = 4 * p.D, g.N = p.D, g.g = gates_of(w), g.range = { 1, 0, 0 };
    g.dw = p.dbias;
    queue_column_sum<float, float>(g, stream);
    g.x = from_row<T>(p.x, w.t0), g.dw = p.dw_x;
    queue_gradient<T, float, T>(g, stream);
    g.x = hidden_before<T>(w, &g.range, &g.before), g.dw = p.dw_h;
    queue_gradient<T, float, T>(g, stream);
}

/* ---- the table ------------------------------------------------------------------------------------------------------- */

template <class T> static void forward_in(const k_lstm *p, cudaStream_t stream)
{
    walk w = walk_of<T>(p, false, stream);
    float *h = w.out1, *c = w.out2;
    for (w.t0 = 0; w.t0 < p->T; w.t0 += CHUNK) {
        const bool last = w.t0 + CHUNK >= p->T;
        w.n = last ? p->T - w.t0 : CHUNK;
        w.in1 = w.t0 ? h : p->h0, w.in2 = w.t0 ? c : p->c0;
        w.out1 = last ? p->hT : h, w.out2 = last ? p->cT : c;
        queue_gates<T>(w, false, stream);
        queue_walk<T>(w, false, stream);
    }
}

template <class T> static void backward_in(const k_lstm *p, cudaStream_t stream)
{
    walk w = walk_of<T>(p, true, stream);
    float *dh = w.out1, *dc = w.out2;
    queue_zero<T>(p->dq, p->B, p->H, p->T, p->Dk, stream);
    queue_zero<T>(p->dk, p->B, p->H, p->T, p->Dk, stream);
    for (w.t0 = (p->T - 1) / CHUNK * CHUNK; w.t0 >= 0; w.t0 -= CHUNK) {
        const bool last = w.t0 + CHUNK >= p->T;
        w.n = last ? p->T - w.t0 : CHUNK;
        w.in1 = last ? NULL : dh, w.in2 = last ? NULL : dc;
        w.out1 = w.t0 ? dh : p->dh0, w.out2 = w.t0 ? dc : p->dc0;
        queue_gates<T>(w, true, stream);
        queue_walk<T>(w, true, stream);
        queue_gradients<T>(w, stream);
    }
}

static const char *plan(const k_lstm *p, k_dtype t, int training, k_cuda_sizes *out)
{
    if (t != K_F32 && t != K_BF16) return "the GPU's kernel takes f32 and bf16";
    if (p->D > WIDEST) return "the GPU's kernel takes a hidden width of up to 256";
    *out = {};
    out->saved = training ? (size_t)p->T * state_size(p) : 0;
    out->state = 2 * state_size(p);
    out->scratch_fwd = out->scratch_dec = gates_size(p) + weights_size(p, t) + 2 * state_size(p);
    out->scratch_bwd = training ? out->scratch_fwd : 0;
    return NULL;
}
static int result(void) { return cudaGetLastError() == cudaSuccess ? 0 : K_EDEVICE; }
static int forward(const k_lstm *p, k_dtype t, void *stream)
{
    if (t == K_BF16) forward_in<bf16>(p, (cudaStream_t)stream);
    else forward_in<float>(p, (cudaStream_t)stream);
    return result();
}
static int backward(const k_lstm *p, k_dtype t, void *stream)
{
    if (t == K_BF16) backward_in<bf16>(p, (cudaStream_t)stream);
    else backward_in<float>(p, (cudaStream_t)stream);
    return result();
}
/* h0 c0 and hT cT are the state already. */
static int decode(const k_lstm *p, k_dtype t, void *, int64_t, int64_t, void *stream) { return forward(p, t, stream); }

extern "C" const k_cuda_lstm k_cuda_lstm_v1;
const k_cuda_lstm k_cuda_lstm_v1 = { sizeof(k_cuda_lstm), plan, forward, backward, decode };
