/* linattn_projected.cu - linear attention without a mask, of features f(Wx) that never reach memory: performer with positive
 * features and performer_generalized.
 *
 *   gather   S = sum over rows of P y', z = sum of P w, with P = f(Wx) times a factor of the row
 *                forward  of keys     y = v, w = 1, factor 1         backward  of queries  y = do, w = -do.o, factor 1/den
 *   settle   S and z of the parts into which rows were cut become one
 *   spread   row by row, W and S in shared memory:
 *                ANSWER   o = P S / P z                              ASK       du = (do S' - do.o z) f'(Wx) / den, dq = W'du
 *                                                                    TELL      the same of keys, dk; and dv = P S
 *
 * The exponentials of favor stand under a running maximum, so that their stabiliser needs no pass of its own: a maximum
 * only moves where the exponential would grow beyond 2^SLACK, and sums are brought to the true one at their end.  eps is
 * added to the sums: phi = front (exp(u - eta - kappa) + eps).
 *
 * Floors, for R rows of queries and keys, m features, width D: 4 R m D operations forward and 8 R m D backward, three times
 * those for float rows, at the 780 TFLOP/s of large products on an H200, and rows of q k v o (do dq dk dv) once.  T = 16384,
 * H = 32, D = 64, m = 256 in float: 0.26 and 0.53 ms; 0.13 and 0.26 ms of memory. */
#include "linattn_projected.cuh"

/* Blocks of all multiprocessors that gather, and that spread; rows that a segment has at least, in tiles. */
enum { GATHER_BLOCKS = 264, SPREAD_BLOCKS = 132, LEAST_TILES = 4 };

/* Short sequences are left to walks, whose products keep more digits: the gradients of a key that is alone are differences
 * of equal numbers. */
int linattn_projects(const k_linattn *p, size_t size)
{
    int kink = p->f.fn == K_FN_RELU || p->f.fn == K_FN_ABS;     /* whose slope jumps where u changes its sign: float asks for more digits */
    int map = (p->f.map == K_MAP_FAVOR && p->f.favor == K_FAVOR_POSITIVE) || (p->f.map == K_MAP_GENERAL && p->f.m && !(kink && size == 4));
    return map && !p->causal && p->f.m <= MOST_FEATURES && p->Dk <= TILE && p->Dv <= TILE && p->Tq > 0 && p->Tk >= TILE;
}

static int halves_of(const k_linattn *p) { return (p->f.m + BLOCK_FEATURES - 1) / BLOCK_FEATURES; }

/* Segments into which T rows of `units` heads are cut, so that this many blocks are busy. */
static int segments_of(int64_t units, int T, int blocks, int least)
{
    int64_t n = blocks / units, most = (T + least - 1) / least;
    return (int)(n < 1 ? 1 : n < most ? n : most);
}
static int gather_segments(const k_linattn *p, int H, int T)
{
    return segments_of((int64_t)p->B * H * halves_of(p), T, GATHER_BLOCKS, LEAST_TILES * TILE);
}

/* The parts of saved and scratch; only counted when there is no base. */
struct room {
    char *base;
    size_t used = 0;
    room(void *start) : base((char *)start) {}
    float *take(size_t n)
    {
        float *p = base ? (float *)(base + used) : NULL;
        used += (n * sizeof(float) + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
        return p;
    }
};

/* S [B,Hk,m,Dv] and z [B,Hk,m], of keys or of queries. */
struct sums { float *S, *z; };
static sums take_sums(const k_linattn *p, room *r)
{
    size_t n = (size_t)p->B * p->Hk * p->f.m;
    return { r->take(n * p->Dv), r->take(n) };
}
/* What the blocks that gather H heads of T rows leave. */
static share take_shares(const k_linattn *p, int H, int T, room *r)
{
    size_t n = (size_t)p->B * H * gather_segments(p, H, T);
    return { r->take(n * p->f.m * p->Dv), r->take(n * p->f.m), r->take(n * GROUPS), r->take(n * GROUPS), r->take(n * p->Dv), r->take(n) };
}

/* What forward keeps: 1/den and kappa [B,Hq,Tq] of queries, kappa [B,Hk] of keys, and their sums. */
struct kept { float *inverse, *peak, *kappa; sums keys; };
static kept take_kept(const k_linattn *p, room *r)
{
    size_t rows = (size_t)p->B * p->Hq * p->Tq;
    return { r->take(rows), r->take(rows), r->take((size_t)p->B * p->Hk), take_sums(p, r) };
}

void linattn_projected_sizes(const k_linattn *p, int training, k_cuda_sizes *z)
{
    room saved(NULL), forward(NULL), backward(NULL);
    take_kept(p, &saved);
    take_sums(p, &forward), take_shares(p, p->Hk, p->Tk, &forward);
    take_sums(p, &backward), take_shares(p, p->Hq, p->Tq, &backward), backward.take((size_t)p->B * p->Hq * p->Tq);
    z->saved = training ? saved.used : 0;
    z->scratch_fwd = forward.used;
    z->scratch_bwd = training ? backward.used : 0;
}

/* Rows x and y of H heads. */
static projection projection_of(const k_linattn *p, size_t size, int H, int T, const k_rows &x, const k_rows &y)
{
    projection r = {};
    r.f = p->f, r.favor = p->f.map == K_MAP_FAVOR;
    r.H = H, r.Hk = p->Hk, r.T = T, r.D = p->Dk, r.E = p->Dv, r.x = x, r.y = y;
    r.x_vector = linattn_aligned(x, p->Dk, size), r.y_vector = linattn_aligned(y, p->Dv, size);
    r.scale = features_scale(p->f), r.front = r.favor ? 1 / sqrtf((float)p->f.m) : 1, r.eps = r.favor ? (float)p->f.eps : 0;
    r.plain = 1;
    return r;
}

/* S and z of the rows, and of keys kappa. */
template <typename T>
static void gather(const k_linattn *p, const projection &rows, const share &to, const sums &all, float *kappa, cudaStream_t stream)
{
    gathering g = { rows, to, gather_segments(p, rows.H, rows.T), halves_of(p) };
    linattn_gather<T>(p->B, g, { rows, to, g.segments * (rows.H / rows.Hk), rows.favor && !rows.peak, all.S, all.z, kappa }, stream);
}

/* What the rows make of S and z. */
static spreading spreading_of(const k_linattn *p, spread_mode mode, const projection &rows, const sums &all)
{
    spreading c = {};
    int round = spreaders(mode) / 2;
    c.p = rows, c.S = all.S, c.z = all.z;
    c.normalise = p->normalise, c.denom_eps = (float)p->denom_eps, c.guard = (float)p->guard;
    c.segments = segments_of((int64_t)p->B * rows.H, rows.T, SPREAD_BLOCKS, round);
    c.rows = ((rows.T + c.segments - 1) / c.segments + round - 1) / round * round;
    return c;
}

template <typename T> void linattn_projected_forward(const k_linattn *p, cudaStream_t stream)
{
    room saved(p->saved), scratch(p->scratch);
    kept k = take_kept(p, &saved);
    sums keys = take_sums(p, &scratch);
    projection of_keys = projection_of(p, sizeof(T), p->Hk, p->Tk, p->k, p->v);
    of_keys.klen = p->klen;
    if (p->saved) keys = k.keys;
    gather<T>(p, of_keys, take_shares(p, p->Hk, p->Tk, &scratch), keys, k.kappa, stream);
    spreading c = spreading_of(p, ANSWER, projection_of(p, sizeof(T), p->Hq, p->Tq, p->q, {}), keys);
    c.inverse = k.inverse, c.peak = k.peak, c.out = p->o;
    linattn_spread<T>(p->B, ANSWER, c, stream);
}

template <typename T> void linattn_projected_backward(const k_linattn *p, cudaStream_t stream)
{
    room saved(p->saved), scratch(p->scratch);
    kept k = take_kept(p, &saved);
    sums queries = take_sums(p, &scratch);
    share shares = take_shares(p, p->Hq, p->Tq, &scratch);
    projection of_queries = projection_of(p, sizeof(T), p->Hq, p->Tq, p->q, p->d_o), of_keys = projection_of(p, sizeof(T), p->Hk, p->Tk, p->k, p->v);
    of_queries.peak = k.peak, of_queries.factor = k.inverse, of_queries.plain = 0, of_keys.klen = p->klen;
    if (p->normalise) {
        float *h = scratch.take((size_t)p->B * p->Hq * p->Tq);
        linattn_weights<T>(p, NULL, h, stream);
        of_queries.weight = h;
    }
    if (p->dq.p) {
        spreading c = spreading_of(p, ASK, of_queries, k.keys);
        c.dx = p->dq;
        linattn_spread<T>(p->B, ASK, c, stream);
    }
    if (!p->dk.p && !p->dv.p) return;
    gather<T>(p, of_queries, shares, queries, NULL, stream);
    spreading c = spreading_of(p, TELL, of_keys, queries);
    c.kappa = k.kappa, c.dx = p->dk, c.out = p->dv;
    linattn_spread<T>(p->B, TELL, c, stream);
}

template void linattn_projected_forward<float>(const k_linattn *, cudaStream_t);
template void linattn_projected_forward<bf16>(const k_linattn *, cudaStream_t);
template void linattn_projected_backward<float>(const k_linattn *, cudaStream_t);
template void linattn_projected_backward<bf16>(const k_linattn *, cudaStream_t);
