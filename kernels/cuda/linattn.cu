/* linattn.cu - linear attention on CUDA: which walks (linattn_walk.cuh) over which tensors.
 *
 * Saved: 1/den of every query and kappa of every key head.  Scratch: features of maps that mix a row, states of
 * segments, and sums in parts where a row has more than 64 features or values. */
#include "linattn.cuh"
#include "linattn_walk.cuh"
#include "kernels/cuda.h"

/* ---- small kernels ------------------------------------------------------------------------------------------ */

enum scan_kind { SCAN_BEFORE, SCAN_AFTER, SCAN_ALL };
enum { ELEMENTWISE = 256 };

/* states [units,n,size]: each becomes the sum of those before it or after it; or the first becomes the sum of all. */
static __global__ void __launch_bounds__(ELEMENTWISE) scan_kernel(float *states, int64_t total, int64_t size, int n, scan_kind kind)
{
    int64_t i = (int64_t)blockIdx.x * ELEMENTWISE + threadIdx.x;
    if (i >= total) return;
    float *s = states + i / size * size * n + i % size, sum = 0;
    for (int k = 0; k < n; k++) {
        float *at = s + (kind == SCAN_AFTER ? n - 1 - k : k) * size, x = *at;
        if (kind != SCAN_ALL) *at = sum;
        sum += x;
    }
    if (kind == SCAN_ALL) *s = sum;
}

/* What finish_kernel needs of a walk. */
struct finish { walk w; int64_t rows; };

/* out = the sum of its parts, times 1/den or the slope of its map. */
template <typename T> static __global__ void __launch_bounds__(ELEMENTWISE) finish_kernel(const __grid_constant__ finish f)
{
    const walk &w = f.w;
    int64_t i = (int64_t)blockIdx.x * ELEMENTWISE + threadIdx.x, width = w.z.width;
    if (i >= f.rows * width) return;
    int64_t n = i / width, unit = n / w.x.rows;
    int col = (int)(i % width), row = (int)(n % w.x.rows), b = (int)(unit / w.x.heads), h = (int)(unit % w.x.heads);
    float sum = 0, den = 0;
    for (int s = 0; s < w.slices * w.x_share; s++) sum += w.part[s * f.rows * width + i];
    for (int s = 0; s < w.slices && w.sum == SUM_Y; s++) den += w.den_part[s * f.rows + n];
    if (w.sum == SUM_Y) sum *= den = inverse_of(w, den);
    if (w.sum == SUM_Y && w.inverse && col == 0) w.inverse[n] = den;
    if (w.raw.map.map != K_MAP_IDENTITY && row < rows_of(w.x, b))
        sum *= map_slope<T>(w.raw.map, to_float(((const T *)w.raw.p)[b * w.raw.sb + h * w.raw.sh + row * w.raw.st + col]));
    ((T *)w.out.p)[b * w.out.sb + h * w.out.sh + row * w.out.st + col] = from_float<T>(row < rows_of(w.x, b) ? sum : 0);
}

/* h [B,Hq,Tq] = -g.o with g = do / den as the walks round it, so that g.v + h vanishes where v = o.  Eight lanes for each
 * row; vector: rows begin at 16 bytes. */
template <typename T> static __global__ void __launch_bounds__(ELEMENTWISE)
weights_kernel(const __grid_constant__ k_linattn p, int vector, const float *inverse, float *h)
{
    int64_t n = ((int64_t)blockIdx.x * ELEMENTWISE + threadIdx.x) / 8, rows = (int64_t)p.B * p.Hq * p.Tq;
    int there = n < rows, lane = threadIdx.x & 7;
    int64_t t = n % p.Tq, b = n / p.Tq / p.Hq, head = n / p.Tq % p.Hq;
    const T *o = (const T *)p.o.p + b * p.o.sb + head * p.o.sh + t * p.o.st, *g = (const T *)p.d_o.p + b * p.d_o.sb + head * p.d_o.sh + t * p.d_o.st;
    float sum = 0, x[8], y[8], by = !there ? 0 : inverse ? inverse[n] : 1;
    for (int d = 8 * lane; d < p.Dv && there; d += 64) {
        if (vector) read8(o + d, x), read8(g + d, y);
        #pragma unroll
        for (int i = 0; i < 8; i++)
            if (vector) sum += x[i] * to_float(from_float<T>(by * y[i]));
            else if (d + i < p.Dv) sum += to_float(o[d + i]) * to_float(from_float<T>(by * to_float(g[d + i])));
    }
    for (int lanes = 1; lanes < 8; lanes *= 2) sum += __shfl_xor_sync(~0u, sum, lanes);
    if (there && lane == 0) h[n] = -sum;
}

static unsigned blocks_for(int64_t threads) { return (unsigned)((threads + ELEMENTWISE - 1) / ELEMENTWISE); }

template <typename T> void linattn_weights(const k_linattn *p, const float *inverse, float *h, cudaStream_t stream)
{
    int vector = p->Dv % 8 == 0 && linattn_aligned(p->o, p->Dv, sizeof(T)) && linattn_aligned(p->d_o, p->Dv, sizeof(T));
    weights_kernel<T><<<blocks_for((int64_t)p->B * p->Hq * p->Tq * 8), ELEMENTWISE, 0, stream>>>(*p, vector, inverse, h);
}
template void linattn_weights<float>(const k_linattn *, const float *, float *, cudaStream_t);
template void linattn_weights<bf16>(const k_linattn *, const float *, float *, cudaStream_t);

/* ---- memory ----------------------------------------------------------------------------------------------------- */

/* The parts of scratch; counted when base is NULL. */
struct layout {
    char *base;
    size_t used;
    void *fq, *fk;                      /* [B,Hq,Tq,M] [B,Hk,Tk,M], or NULL: the map is local */
    float *kappa, *peaks, *states, *sums, *part, *den_part, *h;
};

template <typename N> static void take(layout *l, N **p, size_t bytes)
{
    *p = l->base ? (N *)(l->base + l->used) : NULL;
    l->used += (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
}

static int tiles(int64_t n) { return (int)((n + TILE - 1) / TILE); }
/* Tiles of a slice, and slices of x and y of this width. */
static int wide_of(int width, size_t size) { return size == 2 && width > TILE ? 2 : 1; }
static int slices_of(int width, size_t size) { return (tiles(width) + wide_of(width, size) - 1) / wide_of(width, size); }

/* Chunks of 64 positions; those of queries count from the first key. */
static int shift_of(const k_linattn *p) { return p->causal ? p->Tk - p->Tq : 0; }
static int first_of(const k_linattn *p) { return shift_of(p) < 0 ? shift_of(p) : 0; }

/* Into how many segments `chunks` are cut when one has `blocks` blocks: enough to fill the device, few enough to be
 * worth their states. */
enum { FEW_BLOCKS = 200, MANY_BLOCKS = 528, LEAST_CHUNKS = 4 };
static int segments_of(int64_t blocks, int chunks, int least)
{
    int64_t n = (MANY_BLOCKS + blocks - 1) / blocks, most = chunks / least;
    if (blocks >= FEW_BLOCKS || most < 2) return 1;
    return (int)(n < most ? n : most);
}

/* Segments of the walks that keep states. */
static int state_segments(const k_linattn *p, int M, size_t size)
{
    int64_t blocks = (int64_t)p->B * (p->causal ? p->Hq : p->Hk) * slices_of(M, size) * tiles(p->Dv);
    int longest = p->Tq > p->Tk ? p->Tq : p->Tk;
    return segments_of(blocks, tiles(p->causal ? p->Tk - first_of(p) : longest), LEAST_CHUNKS);
}

static layout lay_out(const k_linattn *p, k_dtype type, int backward, void *base)
{
    layout l = {};
    l.base = (char *)base;
    size_t size = k_dtype_size(type), M = k_features_width(&p->f), units = (size_t)p->B * p->Hk;
    size_t nq = (size_t)p->B * p->Hq * p->Tq, nk = units * p->Tk, segments = state_segments(p, (int)M, size), group = p->Hq / p->Hk;
    size_t local = map_is_local(p->f), slices = slices_of((int)M, size), value_slices = slices_of(p->Dv, size), of_dq = 0, of_dk = 0;
    if (!local) {
        take(&l, &l.fq, nq * M * size);
        take(&l, &l.fk, nk * M * size);
        take(&l, &l.kappa, units * sizeof(float));
        take(&l, &l.peaks, units * feature_blocks(p->Tk) * sizeof(float));
    }
    size_t states = units * segments * (backward ? group : 1);  /* one segment needs none, but sizes shall grow evenly */
    take(&l, &l.states, states * M * p->Dv * sizeof(float));
    take(&l, &l.sums, states * M * sizeof(float));
    size_t of_values = slices * (backward ? group : 1) > 1 ? slices * (backward ? group * nk : nq) * p->Dv : 0;
    if (backward && (!local || value_slices > 1)) of_dq = value_slices * nq * M;
    if (backward && (!local || value_slices * group > 1)) of_dk = value_slices * group * nk * M;
    size_t most = of_dq > of_dk ? of_dq : of_dk;
    take(&l, &l.part, (of_values > most ? of_values : most) * sizeof(float));
    if (!backward && slices > 1) take(&l, &l.den_part, slices * nq * sizeof(float));
    if (backward) take(&l, &l.h, nq * sizeof(float));
    return l;
}

/* 1/den [B,Hq,Tq] and kappa [B,Hk] in saved. */
static size_t saved_rows(const k_linattn *p) { return ((size_t)p->B * p->Hq * p->Tq * sizeof(float) + K_ALIGN - 1) / K_ALIGN * K_ALIGN; }
static float *saved_kappa(const k_linattn *p) { return (float *)((char *)p->saved + saved_rows(p)); }

static const char *plan(const k_linattn *p, k_dtype type, int training, k_cuda_sizes *z)
{
    int M = k_features_width(&p->f);
    if (type != K_F32 && type != K_BF16) return "linear attention on CUDA takes f32 and bf16";
    if (p->Dk > 256 || p->Dv > 256) return "linear attention on CUDA takes heads up to 256 wide";
    if (M > 16384) return "linear attention on CUDA takes up to 16384 features";
    *z = (k_cuda_sizes){};
    z->saved = training ? saved_rows(p) + (size_t)p->B * p->Hk * sizeof(float) : 0;
    z->scratch_fwd = lay_out(p, type, 0, NULL).used;
    z->scratch_bwd = training ? lay_out(p, type, 1, NULL).used : 0;
    z->state = (size_t)p->B * p->Hk * ((size_t)M * p->Dv + M + 1) * sizeof(float);
    if (linattn_projects(p, k_dtype_size(type))) linattn_projected_sizes(p, training, z);
    return NULL;
}

/* ---- sides of walks ------------------------------------------------------------------------------------------------ */

/* Rows of t [B,heads,rows,width]. */
static side side_of(k_rows t, int heads, int rows, int width, size_t size)
{
    side s = {};
    s.p = t.p, s.sb = t.sb, s.sh = t.sh, s.st = t.st;
    s.heads = heads, s.rows = rows, s.width = width;
    s.vector = linattn_aligned(t, width, size);
    s.map = no_map();
    return s;
}

/* A problem as the walks see it. */
struct problem {
    const k_linattn *p;
    size_t size;
    layout l;
    int M, local, segments;
    side q, k, v, a, b, g;              /* tensors; features of q and k; do / den */
};

static k_rows dense(void *p, int heads, int rows, int width) { return { p, (int64_t)heads * rows * width, (int64_t)rows * width, width }; }

static problem problem_of(const k_linattn *p, k_dtype type, int backward)
{
    problem x = {};
    x.p = p, x.size = k_dtype_size(type), x.l = lay_out(p, type, backward, p->scratch);
    x.M = k_features_width(&p->f), x.local = map_is_local(p->f), x.segments = state_segments(p, x.M, x.size);
    x.q = side_of(p->q, p->Hq, p->Tq, p->Dk, x.size), x.k = side_of(p->k, p->Hk, p->Tk, p->Dk, x.size);
    x.v = side_of(p->v, p->Hk, p->Tk, p->Dv, x.size), x.g = side_of(p->d_o, p->Hq, p->Tq, p->Dv, x.size);
    x.a = x.local ? x.q : side_of(dense(x.l.fq, p->Hq, p->Tq, x.M), p->Hq, p->Tq, x.M, x.size);
    x.b = x.local ? x.k : side_of(dense(x.l.fk, p->Hk, p->Tk, x.M), p->Hk, p->Tk, x.M, x.size);
    if (x.local) x.a.map = x.b.map = local_map_of(p->f);
    x.k.klen = x.v.klen = x.b.klen = p->klen;
    x.q.off = x.a.off = x.g.off = shift_of(p);
    if (backward && p->normalise) x.g.factor = (const float *)p->saved;
    return x;
}

/* A walk over x, y and z with all but its heads, its state and where it goes. */
static walk walk_of(const problem &x, side sx, side sy, side sz)
{
    walk w = {};
    w.x = sx, w.y = sy, w.z = sz;
    w.B = x.p->B, w.H = x.p->Hq, w.x_share = w.H / sx.heads, w.y_share = w.H / sy.heads;
    w.wide = wide_of(sx.width, x.size), w.slices = slices_of(sx.width, x.size), w.strips = tiles(sz.width);
    w.denom_eps = (float)x.p->denom_eps, w.guard = (float)x.p->guard;
    w.state_size = (int64_t)x.M * x.p->Dv, w.sum_size = x.M, w.states = x.segments;
    w.raw.map = no_map();
    return w;
}

/* Where a walk goes: dst, times the slope of the map at raw if it has one; or parts. */
static void send_to(const problem &x, walk *w, k_rows dst, const side &raw, int parts)
{
    w->out = dst, w->raw = raw;
    w->out_vector = w->z.width % 8 == 0 && linattn_aligned(dst, w->z.width, x.size) && (raw.map.map == K_MAP_IDENTITY || raw.vector);
    if (!parts) return;
    w->part = x.l.part, w->den_part = x.l.den_part;
}

/* ---- running walks ----------------------------------------------------------------------------------------------------- */

template <typename T, int W, int reverse> static void launch_as(const walk &w, cudaStream_t stream)
{
    int64_t blocks = (int64_t)w.B * w.H * w.segments * w.slices * w.strips;
    auto kernel = walk_kernel<T, W, reverse>;
    cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, sizeof(walk_memory<T, W>));
    kernel<<<(unsigned)blocks, THREADS, sizeof(walk_memory<T, W>), stream>>>(w);
}
template <typename T> static void launch(const walk &w, cudaStream_t stream)
{
    constexpr int most = sizeof(T) == 2 ? 2 : 1;        /* tiles of a slice */
    if (w.wide == 1 && !w.reverse) launch_as<T, 1, 0>(w, stream);
    else if (w.wide == 1) launch_as<T, 1, 1>(w, stream);
    else if (!w.reverse) launch_as<T, most, 0>(w, stream);
    else launch_as<T, most, 1>(w, stream);
}

static void cut(walk *w, int chunks, int segments)
{
    w->chunks = chunks;
    w->per_segment = (chunks + segments - 1) / segments;
    w->segments = segments;
}

/* States of the segments of w, then what lies before each of them, or in all of them. */
template <typename T> static void find_states(const problem &x, const walk &w, scan_kind kind, cudaStream_t stream)
{
    walk s = w;
    int64_t units = (int64_t)w.B * w.H / w.y_share;
    s.H = w.H / w.y_share, s.x_share = s.y_share = 1;
    s.reads = 0, s.writes = 1, s.part = s.den_part = NULL;
    s.state_in = s.sum_in = NULL, s.state_out = x.l.states, s.sum_out = x.l.sums;
    launch<T>(s, stream);
    scan_kernel<<<blocks_for(units * w.state_size), ELEMENTWISE, 0, stream>>>(x.l.states, units * w.state_size, w.state_size, w.states, kind);
    if (w.sum != SUM_NONE)
        scan_kernel<<<blocks_for(units * w.sum_size), ELEMENTWISE, 0, stream>>>(x.l.sums, units * w.sum_size, w.sum_size, w.states, kind);
}

/* Cuts a walk and finds its states, if it needs any. */
template <typename T> static int begin(const problem &x, walk *w, int known, cudaStream_t stream)
{
    const k_linattn *p = x.p;
    int states = x.segments > 1 || !p->causal;
    w->first = p->causal ? first_of(p) : 0;
    cut(w, tiles(p->causal ? p->Tk - w->first : w->y.rows), x.segments);
    if (states && !known) find_states<T>(x, *w, !p->causal ? SCAN_ALL : w->reverse ? SCAN_AFTER : SCAN_BEFORE, stream);
    return states;
}

/* All of a walk; known: the states of another walk with the same states are still there. */
template <typename T> static void run(const problem &x, walk w, int known, cudaStream_t stream)
{
    const k_linattn *p = x.p;
    if (begin<T>(x, &w, known, stream)) w.state_in = x.l.states, w.sum_in = x.l.sums;
    w.reads = 1, w.writes = p->causal;
    if (!p->causal) {
        int chunks = tiles(w.x.rows);
        w.one_state = 1;
        cut(&w, chunks, segments_of((int64_t)w.B * w.H * w.slices * w.strips, chunks, 1));
    }
    launch<T>(w, stream);
}

template <typename T> static void finish_parts(const walk &w, cudaStream_t stream)
{
    finish f = { w, (int64_t)w.B * w.x.heads * w.x.rows };
    finish_kernel<T><<<blocks_for(f.rows * w.z.width), ELEMENTWISE, 0, stream>>>(f);
}

/* ---- the passes ------------------------------------------------------------------------------------------------------------ */

static feature_rows feature_rows_of(const problem &x, k_role role)
{
    const k_linattn *p = x.p;
    feature_rows r = {};
    r.f = p->f, r.role = role, r.B = p->B, r.Hk = p->Hk;
    r.H = role == K_KEY ? p->Hk : p->Hq, r.T = role == K_KEY ? p->Tk : p->Tq;
    r.x = role == K_KEY ? p->k : p->q;
    r.klen = role == K_KEY ? p->klen : NULL;
    r.kappa = p->saved ? saved_kappa(p) : x.l.kappa, r.peaks = x.l.peaks;
    return r;
}

/* Features into scratch, where the map is not local. */
template <typename T> static void find_features(const problem &x, int kappa_known, cudaStream_t stream)
{
    if (x.local) return;
    if (!kappa_known) features_kappa<T>(feature_rows_of(x, K_KEY), stream);
    features_forward<T>(feature_rows_of(x, K_KEY), (T *)x.l.fk, stream);
    features_forward<T>(feature_rows_of(x, K_QUERY), (T *)x.l.fq, stream);
}

template <typename T> static void forward_pass(const k_linattn *p, k_dtype type, cudaStream_t stream)
{
    if (linattn_projects(p, sizeof(T))) return linattn_projected_forward<T>(p, stream);
    problem x = problem_of(p, type, 0);
    find_features<T>(x, 0, stream);
    walk w = walk_of(x, x.a, x.b, x.v);
    side none = {};
    w.x_step = p->Dv, w.z_step = 1;
    w.sum = p->normalise ? SUM_Y : SUM_NONE;
    w.inverse = (float *)p->saved;
    none.map = no_map();
    send_to(x, &w, p->o, none, w.slices > 1);
    run<T>(x, w, 0, stream);
    if (w.part) finish_parts<T>(w, stream);
}

/* The walk that gives the gradient of the features of queries or keys. */
static walk gradient_walk(const problem &x, k_role role)
{
    walk w = role == K_KEY ? walk_of(x, x.v, x.g, x.a) : walk_of(x, x.g, x.v, x.b);
    w.reverse = role == K_KEY, w.h_on_rows = role == K_QUERY;
    w.x_step = 1, w.z_step = x.p->Dv;
    if (x.p->normalise) w.h = x.l.h, w.sum = SUM_Z;
    return w;
}

/* dq or dk. */
template <typename T> static void feature_gradient(const problem &x, k_role role, cudaStream_t stream)
{
    walk w = gradient_walk(x, role);
    k_rows dst = role == K_KEY ? x.p->dk : x.p->dq;
    side raw = role == K_KEY ? x.k : x.q;
    raw.map = x.local ? local_map_of(x.p->f) : no_map();
    send_to(x, &w, dst, raw, !x.local || w.slices * w.x_share > 1);
    run<T>(x, w, 0, stream);
    const T *phi = (const T *)(role == K_KEY ? x.l.fk : x.l.fq);
    if (!x.local) features_backward<T>(feature_rows_of(x, role), phi, x.l.part, w.slices * w.x_share, dst, stream);
    else if (w.part) finish_parts<T>(w, stream);
}

template <typename T> static void backward_pass(const k_linattn *p, k_dtype type, cudaStream_t stream)
{
    if (linattn_projects(p, sizeof(T))) return linattn_projected_backward<T>(p, stream);
    problem x = problem_of(p, type, 1);
    find_features<T>(x, 1, stream);
    if (p->normalise) linattn_weights<T>(p, (const float *)p->saved, x.l.h, stream);
    if (p->dq.p) feature_gradient<T>(x, K_QUERY, stream);
    if (p->dk.p) feature_gradient<T>(x, K_KEY, stream);
    if (!p->dv.p) return;
    walk w = walk_of(x, x.b, x.a, x.g);
    side none = {};
    none.map = no_map();
    w.x_step = p->Dv, w.z_step = 1, w.reverse = 1;
    send_to(x, &w, p->dv, none, w.slices * w.x_share > 1);
    walk keys = gradient_walk(x, K_KEY);                    /* the same states, found in one way, so that the bits are the same */
    if (!p->dk.p) begin<T>(x, &keys, 0, stream);
    run<T>(x, w, 1, stream);
    if (w.part) finish_parts<T>(w, stream);
}

/* ---- the table ----------------------------------------------------------------------------------------------------------------- */

static int result() { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }

static int forward(const k_linattn *p, k_dtype type, void *stream)
{
    if (type == K_BF16) forward_pass<bf16>(p, type, (cudaStream_t)stream);
    else forward_pass<float>(p, type, (cudaStream_t)stream);
    return result();
}

static int backward(const k_linattn *p, k_dtype type, void *stream)
{
    if (type == K_BF16) backward_pass<bf16>(p, type, (cudaStream_t)stream);
    else backward_pass<float>(p, type, (cudaStream_t)stream);
    return result();
}

static int decode(const k_linattn *p, k_dtype type, void *state, int64_t pos, int64_t capacity, void *stream)
{
    (void)capacity;
    if (type == K_BF16) linattn_decode<bf16>(p, state, pos, (cudaStream_t)stream);
    else linattn_decode<float>(p, state, pos, (cudaStream_t)stream);
    return result();
}

extern "C" const k_cuda_linattn k_cuda_linattn_v1;
const k_cuda_linattn k_cuda_linattn_v1 = { sizeof(k_cuda_linattn), plan, forward, backward, decode };
