/* recurrence.cu - fading memories on CUDA: where everything lies, and the order of the passes (recurrence.cuh).
 *
 * Saved: S at the start of every chunk and, for delta, what every token wrote; both in the dtype of the rows.  All else that
 * backward needs it makes again. */
#include "recurrence.cuh"
#include "kernels/cuda.h"

enum { ELEMENTWISE = 256 };

/* turns [T,r] of positions first.. + *offset: r/2 cosines, then r/2 sines, the angles in double. */
static __global__ void turns_kernel(k_position p, int r, int64_t first, const float *offset, int T, float *turns)
{
    int64_t i = (int64_t)blockIdx.x * ELEMENTWISE + threadIdx.x;
    if (i >= (int64_t)T * (r / 2)) return;
    int n = (int)(i % (r / 2));
    int64_t t = i / (r / 2);
    double w = p.rope_freqs == K_ROPE_STANDARD ? pow(p.rope_base, -2.0 * n / r) : r == 2 ? 1 : pow(p.rope_base, -n / (r / 2 - 1.0));
    double angle = (double)(first + t + (offset ? llrint(*offset) : 0)) * w;
    turns[t * r + n] = (float)cos(angle);
    turns[t * r + r / 2 + n] = (float)sin(angle);
}

/* ---- memory --------------------------------------------------------------------------------------------------------- */

/* Arrays one after the other from base on; only counted when it is NULL. */
struct cursor { char *base; size_t used; };
template <typename N> static void take(cursor *c, N **p, size_t bytes)
{
    *p = c->base ? (N *)(c->base + c->used) : NULL;
    c->used += (bytes + K_ALIGN - 1) / K_ALIGN * K_ALIGN;
}

static int tiles(int n) { return (n + TILE - 1) / TILE; }

/* A problem without its arrays. */
static recurrence problem_of(const k_recurrence *r, k_dtype type, int training)
{
    recurrence x = {};
    size_t size = k_dtype_size(type);
    x.r = *r;
    if (r->position) x.position = *r->position, x.rope = k_rope_width(r->position, r->D);
    x.r.position = NULL;
    x.G = r->Ho / r->H, x.chunks = tiles(r->T), x.ET = tiles(r->E);
    x.DT = tiles(r->D) <= 2 ? tiles(r->D) : tiles(r->D) <= 4 ? 4 : 6;
    x.delta = r->write == K_WRITE_DELTA, x.stepped = r->write == K_WRITE_STEPPED, x.channel = r->decay == K_DECAY_CHANNEL;
    x.training = training;
    x.vector_q = in_eights(r->q, r->D, size) && (!r->dq.p || in_eights(r->dq, r->D, size));
    x.vector_k = in_eights(r->k, r->D, size) && (!r->dk.p || in_eights(r->dk, r->D, size));
    x.vector_v = in_eights(r->v, r->E, size);
    x.vector_o = in_eights(r->o, r->E, size) && (!r->d_o.p || in_eights(r->d_o, r->E, size));
    x.map = { r->map, K_FN_RELU, 0 };
    x.mapped = r->map != K_MAP_IDENTITY || r->norm == K_NORM_SUM;
    x.normed = r->norm == K_NORM_L2 && x.DT == 1;
    x.vector_gate = x.channel && in_eights(r->gate, r->D, size) && (!r->dgate.p || in_eights(r->dgate, r->D, size));
    x.narrow = r->D <= TILE && r->E <= TILE && !x.rope && (x.G == 1 || !r->d_skip);
    x.shares = x.narrow ? 1 : x.chunks;
    int plain = (r->norm == K_NORM_NONE || x.normed || x.mapped) && !x.rope && !r->float_rows;
    x.direct_q = plain && r->Hq == r->Ho, x.direct_k = plain && r->Hk == r->H, x.direct_v = r->Hv == r->H;
    return x;
}

/* What forward leaves for backward. */
static size_t lay_out_saved(recurrence *x, size_t tile, void *base)
{
    cursor c = { (char *)base, 0 };
    size_t chunks = (size_t)x->r.B * x->r.H * x->chunks;
    take(&c, &x->S, chunks * x->ET * x->DT * tile);
    if (x->delta) take(&c, &x->X, chunks * x->ET * tile);
    return c.used;
}

/* Gradients that are summed or turned before they go out, from c on. */
static size_t lay_out_gradients(recurrence *x, cursor c)
{
    const k_recurrence &r = x->r;
    size_t tokens = (size_t)r.B * r.T * sizeof(float);
    if (r.float_rows) x->dq = (float *)r.dq.p, x->dk = (float *)r.dk.p;
    else {
        if (!x->direct_q) take(&c, &x->dq, tokens * r.Ho * r.D);
        if (!x->direct_k) take(&c, &x->dk, tokens * r.H * r.D);
    }
    if (!x->direct_v) take(&c, &x->dv, tokens * r.H * r.E);
    take(&c, &x->dparam, RC_PARAMS * (size_t)r.B * r.H * x->shares * sizeof(float));
    return c.used;
}

/* What a pass works with. */
static size_t lay_out(recurrence *x, size_t tile, int backward, void *base)
{
    cursor c = { (char *)base, 0 };
    const k_recurrence &r = x->r;
    size_t chunks = (size_t)r.B * r.H * x->chunks, readers = chunks * x->G, rows = chunks * TILE * sizeof(float);
    if (x->narrow) return backward ? lay_out_gradients(x, c) : 0;
    take(&c, &x->k_out, chunks * x->DT * tile);
    take(&c, &x->q_in, readers * x->DT * tile);
    take(&c, &x->P, readers * tile);
    take(&c, &x->left, rows * x->DT);
    if (x->delta) take(&c, &x->k_in, chunks * x->DT * tile), take(&c, &x->W, chunks * tile);
    if (x->rope) take(&c, (float **)&x->turns, (size_t)r.T * x->rope * sizeof(float));
    take(&c, &x->beta, rows), take(&c, &x->step, rows), take(&c, &x->slope, rows);
    take(&c, &x->b, !x->channel ? rows : backward ? chunks * x->DT * TILE_SIZE * sizeof(float) : 0);
    if (!backward) return c.used;
    if (x->normed) take(&c, &x->k_factor, rows), take(&c, &x->q_factor, rows * x->G);
    take(&c, &x->k_hat, chunks * x->DT * tile);
    take(&c, &x->q_hat, readers * x->DT * tile);
    take(&c, &x->R, chunks * x->ET * x->DT * tile);
    if (x->delta) take(&c, &x->dV, chunks * x->ET * tile);
    return lay_out_gradients(x, c);
}

static const char *plan(const k_recurrence *r, k_dtype type, int training, k_cuda_sizes *z)
{
    if (type != K_F32 && type != K_BF16) return "a recurrence on CUDA takes f32 and bf16";
    if (r->D > (r->decay == K_DECAY_CHANNEL ? 256 : 384) || r->E > 256)
        return "a recurrence on CUDA takes keys up to 384 wide, with a decay of each channel 256, and values up to 256";
    recurrence x = problem_of(r, type, training);
    if (x.mapped && !(x.narrow && !x.channel && x.direct_q && x.direct_k))
        return "a recurrence on CUDA maps rows of heads that are not shared, up to 64 wide, with one decay for all channels";
    if (r->write == K_WRITE_DELTA && (r->decay == K_DECAY_CHANNEL || r->d_skip))
        return "the delta rule on CUDA has one decay for all channels and no skip";
    size_t tile = TILE_SIZE * k_dtype_size(type);
    *z = (k_cuda_sizes){};
    z->saved = training ? lay_out_saved(&x, tile, NULL) : 0;
    z->scratch_fwd = z->scratch_dec = lay_out(&x, tile, 0, NULL);
    z->scratch_bwd = training ? lay_out(&x, tile, 1, NULL) : 0;
    z->state = (size_t)r->B * r->H * r->D * r->E * sizeof(float);
    return NULL;
}

/* ---- the passes --------------------------------------------------------------------------------------------------------- */

static void find_turns(const recurrence &x, cudaStream_t stream)
{
    int64_t n = (int64_t)x.r.T * (x.rope / 2);
    if (n) turns_kernel<<<(unsigned)((n + ELEMENTWISE - 1) / ELEMENTWISE), ELEMENTWISE, 0, stream>>>(x.position, x.rope, x.r.first, (const float *)x.r.offset,
                                                                                                     x.r.T, (float *)x.turns);
}

static int result() { return cudaPeekAtLastError() == cudaSuccess ? K_OK : K_EDEVICE; }

/* Tiles of all chunks, then the walk forward. */
template <typename T> static void run_forward(const recurrence &x, cudaStream_t stream)
{
    if (x.narrow) return recurrence_narrow_forward<T>(x, stream);
    find_turns(x, stream);
    recurrence_chunks<T>(x, stream);
    recurrence_forward_walk<T>(x, stream);
}

static int forward(const k_recurrence *r, k_dtype type, void *stream)
{
    recurrence x = problem_of(r, type, 0);
    size_t tile = TILE_SIZE * k_dtype_size(type);
    lay_out(&x, tile, 0, r->scratch);
    if (r->saved) lay_out_saved(&x, tile, r->saved);
    x.keep = r->saved != NULL;
    if (type == K_BF16) run_forward<bf16>(x, (cudaStream_t)stream);
    else run_forward<float>(x, (cudaStream_t)stream);
    return result();
}

/* The tiles again, the walk back, then the gradients of every chunk. */
template <typename T> static void run_backward(const recurrence &x, cudaStream_t stream)
{
    if (x.narrow) recurrence_narrow_backward<T>(x, stream);
    else {
        find_turns(x, stream);
        recurrence_chunks<T>(x, stream);
        recurrence_backward_walk<T>(x, stream);
        recurrence_gradients<T>(x, stream);
    }
    recurrence_finish<T>(x, stream);
}

static int backward(const k_recurrence *r, k_dtype type, void *stream)
{
    recurrence x = problem_of(r, type, 1);
    size_t tile = TILE_SIZE * k_dtype_size(type);
    lay_out(&x, tile, 1, r->scratch);
    lay_out_saved(&x, tile, r->saved);
    if (type == K_BF16) run_backward<bf16>(x, (cudaStream_t)stream);
    else run_backward<float>(x, (cudaStream_t)stream);
    return result();
}

/* A forward pass over the new tokens, from the memory to itself. */
static int decode(const k_recurrence *r, k_dtype type, void *state, int64_t pos, int64_t capacity, void *stream)
{
    (void)capacity;
    k_recurrence now = *r;
    now.first += pos;
    now.saved = NULL;
    now.state_in = now.state_out = state;
    return forward(&now, type, stream);
}

extern "C" const k_cuda_recurrence k_cuda_recurrence_v1;
const k_cuda_recurrence k_cuda_recurrence_v1 = { sizeof(k_cuda_recurrence), plan, forward, backward, decode };
