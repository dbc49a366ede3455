/* attention.cu - softmax attention on CUDA over any allowed set: the table of kernels/cuda.h.
 *
 * The steps: q and k are turned by their positions; tiles (attention_tiles.cu); the slots of several stages or splits
 * are put together.  A set whose rows lie in two ways (strided: in sequence, and in transposed columns) has two
 * stages.  Few queries split the keys between blocks.  Backward: delta, gradients of queries and of keys, which gather
 * in float first when there are two stages or something to turn back.
 *
 * The ladder: attention_tiles takes everything, on any chip from sm_80 on; attention takes the kernels of sm_90a
 * (attention_hopper.cu, attention_hopper_gradient.cu) for bfloat16 rows up to 128 wide where the set is an interval, an
 * interval and summaries, or a strided set's local half; backward of keys 64 wide goes over all pairs once where the set is every
 * key (attention_hopper_sweep.cu).
 *
 * Floors, for P pairs of a query and a key it sees, width D and heads H: 4 P D H operations forward, 10 P D H backward,
 * at the 780 TFLOP/s that large products reach on an H200; two sweeps do 14 P D H, since they compute scores and their
 * gradients twice.  4 x 4096 tokens, H = 16, D = 128, every key: floors 0.70 ms and 1.76 ms (2.47 ms of two sweeps);
 * measured 0.83 and 3.1 ms, tiles 6 and 12 ms.  16384 tokens, H = 32, D = 64, every key: floors 2.8 and 7.0 ms; measured 4.2 and
 * 13.4 ms, 15.1 ms in two sweeps.  Blocks of 128 with 32 summaries, 32768 tokens, H = 32, D = 64, causal: 4.4e9 pairs, floors
 * 1.4 and 3.6 ms, their exponentials alone 1.2 and 2.4 ms of the special units; measured 2.6 and 9.4 ms, the rates of narrow heads
 * under a full mask. */
#include "attention.cuh"
#include "scratch.cuh"
#include <cstring>

/* Blocks that keep any GPU busy, and most parts of the keys of one tile of queries. */
enum { ENOUGH = 264, MOST_SPLITS = 64, TILE = 64 };

/* How the scratch is cut, in bytes from its start. */
struct layout { size_t q, k, part, part_lse, level, delta, sum_q, sum_k, sum_v, parts, tickets, forward, backward; };

/* A picture's measures as far as there are positions: beyond, they mean the same. */
static k_mask fitting(const k_attention *p)
{
    k_mask m = p->mask;
    if (m.kind == K_MASK_IMAGE) {
        const int high = ceil_div(most(most(p->Tk, p->Tq), 1), m.width);
        m.query_h = least(m.query_h, high), m.flange_h = least(m.flange_h, high);
        m.query_w = least(m.query_w, m.width), m.flange_w = least(m.flange_w, m.width);
    }
    return m;
}

/* Parts of the keys for this many queries. */
static int splits_of(const k_attention *p)
{
    if (p->Tq > TILE)
        return 1;
    return most(1, least(least(ceil_div(ENOUGH, p->B * p->Hq), ceil_div(p->Tk, 2 * TILE)), MOST_SPLITS));
}

/* Whether backward may go over the keys once (attention_hopper_sweep.cu). */
static bool in_one_sweep(const k_attention *p, k_dtype dtype)
{
    return dtype == K_BF16 && p->mask.kind == K_MASK_ALL && p->Dk == 64 && p->Dv <= 64 && p->position->position == K_POSITION_NONE &&
           (!p->mask.causal || p->Tk >= p->Tq);
}

/* The problem, and where in the scratch its parts lie. */
static layout layout_of(const k_attention *p, k_dtype dtype, attention *a)
{
    const size_t number = k_dtype_size(dtype), rows = (size_t)p->B * (size_t)p->Hq * (size_t)p->Tq;
    const size_t keys = (size_t)p->B * (size_t)p->Hk * (size_t)p->Tk, Dk = (size_t)p->Dk, Dv = (size_t)p->Dv;
    const bool turned = k_rope_width(p->position, p->Dk) > 0;
    stage s[2];
    layout l = {};
    size_t end = 0;
    *a = attention{};
    a->mask = fitting(p);
    a->splits = splits_of(p);
    a->slots = a->splits * stages_of(a->mask, false, s);
    const bool slots = a->slots > 1;
    l.q = take(&end, turned ? rows * Dk * number : 0);
    l.k = take(&end, turned ? keys * Dk * number : 0);
    l.backward = end;
    l.part = take(&end, slots ? (size_t)a->slots * rows * Dv * sizeof(float) : 0);
    l.part_lse = take(&end, slots ? (size_t)a->slots * rows * sizeof(float) : 0);
    l.forward = end;
    const bool sum_q = turned || stages_of(a->mask, false, s) > 1, two = stages_of(a->mask, true, s) > 1;
    const size_t padded = (size_t)p->B * (size_t)p->Hq * (size_t)pitch_of(p->Tq) * sizeof(float);
    l.level = take(&l.backward, padded);
    l.delta = take(&l.backward, padded);
    l.sum_q = take(&l.backward, sum_q ? rows * Dk * sizeof(float) : 0);
    l.sum_k = take(&l.backward, turned || two ? keys * Dk * sizeof(float) : 0);
    l.sum_v = take(&l.backward, two ? keys * Dv * sizeof(float) : 0);
    l.parts = take(&l.backward, in_one_sweep(p, dtype) ? padded * Dk : 0);
    l.tickets = take(&l.backward, in_one_sweep(p, dtype) ? padded / 128 : 0);
    return l;
}

/* [B,H,T,D] without gaps. */
static k_heads dense(void *p, int H, int T, int D) { return { p, (int64_t)H * T * D, (int64_t)T * D, D }; }

/* The problem as kernels take it, without what depends on the direction. */
static attention problem_of(const k_attention *p, k_dtype dtype, layout *l)
{
    attention a;
    *l = layout_of(p, dtype, &a);
    a.B = p->B, a.Hq = p->Hq, a.Hk = p->Hk, a.Tq = p->Tq, a.Tk = p->Tk, a.Dk = p->Dk, a.Dv = p->Dv;
    a.first = p->Tk - p->Tq;
    a.scale = (float)p->scale;
    a.alibi = p->position->position == K_POSITION_ALIBI;
    while (a.alibi && 2 * a.alibi <= p->Hq)
        a.alibi *= 2;
    a.q = p->q, a.k = p->k, a.v = p->v, a.o = p->o, a.d_o = p->d_o, a.dq = p->dq, a.dk = p->dk, a.dv = p->dv;
    a.klen = p->klen;
    a.lse = (float *)p->lse;
    char *room = (char *)p->scratch;
    a.part = (float *)(room + l->part), a.part_lse = (float *)(room + l->part_lse);
    return a;
}

/* Turns q and Tk rows of k, whose first is at position `first`, into scratch; vec is settled with that. */
static int turn_inputs(attention *a, const k_attention *p, const layout &l, k_dtype dtype, int Tk, int first, cudaStream_t stream)
{
    const size_t number = k_dtype_size(dtype);
    int code = K_OK;
    if (k_rope_width(p->position, p->Dk)) {
        char *room = (char *)p->scratch;
        a->q = dense(room + l.q, a->Hq, a->Tq, a->Dk), a->k = dense(room + l.k, a->Hk, Tk, a->Dk);
        code = attention_turn(*a, p->position, dtype, a->Hq, a->Tq, a->first, p->q, a->q, stream);
        if (!code)
            code = attention_turn(*a, p->position, dtype, a->Hk, Tk, first, p->k, a->k, stream);
    }
    a->vec = even(a->q, a->Dk, number) && even(a->k, a->Dk, number) && even(a->v, a->Dv, number) &&
             (!a->d_o.p || even(a->d_o, a->Dv, number));
    return code;
}

/* Bytes; any set, any length; rows up to 256 numbers. */
static const char *plan(const k_attention *p, k_dtype dtype, int training, k_cuda_sizes *sizes)
{
    attention a;
    if (p->Dk > 256 || p->Dv > 256)
        return "the CUDA kernels of softmax attention go up to width 256";
    const layout l = layout_of(p, dtype, &a);
    *sizes = k_cuda_sizes{};
    sizes->saved = training ? (size_t)p->B * (size_t)p->Hq * (size_t)p->Tq * sizeof(float) : 0;
    sizes->scratch_fwd = sizes->scratch_dec = l.forward;
    sizes->scratch_bwd = training ? l.backward : 0;
    sizes->state = (size_t)p->B * (size_t)p->Hk * (size_t)k_mask_rows(&p->mask, p->Tk) * (size_t)(p->Dk + p->Dv) * k_dtype_size(dtype);
    return NULL;
}

/* Whether the code in this object is for sm_90a, and this the kind of chip it runs on. */
static bool on_hopper(void)
{
    static const bool is = attention_hopper_built() != 0;
    return is;
}

/* How many of the stages the kernels of sm_90a take: none, the first, or all. */
static int fast_stages(const attention &a, k_dtype dtype)
{
    const k_mask &m = a.mask;
    const bool shape = a.vec && even(a.o, a.Dv, sizeof(short)) && a.Dk <= 128 && a.Dv <= 128 && a.Tq > 0 && a.Tk > 0 && a.splits == 1;
    const bool blocks = m.kind == K_MASK_FIXED && m.summary_slots == 1 && 64 % m.summary_len == 0 && a.Tk % m.length == 0;
    if (dtype != K_BF16 || !on_hopper() || !shape || a.alibi || a.klen || a.state)
        return 0;
    if (m.kind == K_MASK_STRIDED)
        return m.patterns != K_PATTERNS_SECOND;
    return blocks || m.kind == K_MASK_ALL || m.kind == K_MASK_WINDOW || m.kind == K_MASK_BLOCK ? 2 : 0;
}

/* All stages, the first `fast` of them on sm_90a; then slots. */
static int attend(const attention &a, k_dtype dtype, int fast, cudaStream_t stream)
{
    int code = fast ? attention_forward_hopper(a, stream) : K_OK;
    if (!code)
        code = attention_forward(a, dtype, fast, stream);
    return code || a.slots == 1 ? code : attention_merge(a, even(a.o, a.Dv, k_dtype_size(dtype)), dtype, stream);
}

/* On the highest rung, or not above the tiles that run everywhere. */
static int forward_on(bool fast, const k_attention *p, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    layout l;
    attention a = problem_of(p, dtype, &l);
    a.d_o.p = NULL;
    const int code = turn_inputs(&a, p, l, dtype, a.Tk, 0, stream);
    return code ? code : attend(a, dtype, fast ? fast_stages(a, dtype) : 0, stream);
}
static int forward(const k_attention *p, k_dtype dtype, void *stream) { return forward_on(true, p, dtype, stream); }
static int forward_tiles(const k_attention *p, k_dtype dtype, void *stream) { return forward_on(false, p, dtype, stream); }

/* As forward_on. */
static int backward_on(bool fast, const k_attention *p, k_dtype dtype, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    layout l;
    attention a = problem_of(p, dtype, &l);
    char *room = (char *)p->scratch;
    stage s[2];
    const bool turned = k_rope_width(p->position, p->Dk) > 0, two = stages_of(a.mask, true, s) > 1;
    a.level = (float *)(room + l.level), a.delta = (float *)(room + l.delta);
    a.sum_q = turned || stages_of(a.mask, false, s) > 1 ? (float *)(room + l.sum_q) : NULL;
    a.sum_k = turned || two ? (float *)(room + l.sum_k) : NULL;
    a.sum_v = two ? (float *)(room + l.sum_v) : NULL;
    const bool even_results = (!a.dq.p || a.sum_q || even(a.dq, a.Dk, 2)) && (!a.dk.p || a.sum_k || even(a.dk, a.Dk, 2)) &&
                             (!a.dv.p || even(a.dv, a.Dv, 2));
    int code = turn_inputs(&a, p, l, dtype, a.Tk, 0, stream);
    const int done = fast && even_results ? fast_stages(a, dtype) : 0;
    if (done && in_one_sweep(p, dtype) && a.dq.p && a.dk.p && a.dv.p)
        a.parts = (float *)(room + l.parts), a.tickets = (int *)(room + l.tickets);
    if (!code)
        code = attention_delta(a, even(a.o, a.Dv, k_dtype_size(dtype)) && even(a.d_o, a.Dv, k_dtype_size(dtype)), dtype, stream);
    if (!code)
        code = done ? attention_gradient_hopper(a, stream) : K_OK;
    if (!code)
        code = attention_gradient(a, dtype, done, stream);
    return code ? code : attention_finish(a, p->position, dtype, stream);
}
static int backward(const k_attention *p, k_dtype dtype, void *stream) { return backward_on(true, p, dtype, stream); }
static int backward_tiles(const k_attention *p, k_dtype dtype, void *stream) { return backward_on(false, p, dtype, stream); }

/* The new rows see what is held and each other; then they are held themselves. */
static int decode(const k_attention *p, k_dtype dtype, void *state, int64_t pos, int64_t capacity, void *queue)
{
    cudaStream_t stream = (cudaStream_t)queue;
    const size_t number = k_dtype_size(dtype);
    layout l;
    k_attention room = *p;
    room.Tk = (int)capacity;                                /* plan() cut the scratch by it */
    attention a = problem_of(&room, dtype, &l);
    a.d_o.p = NULL;
    a.lse = NULL;
    a.held = a.first = (int)pos;
    a.Tk = a.first + a.Tq;
    a.ring = (int)k_mask_ring(&p->mask, capacity);
    a.rows = (int)k_mask_rows(&p->mask, capacity);
    a.state = state;
    a.mask.causal = 1;
    int code = turn_inputs(&a, p, l, dtype, a.Tq, a.first, stream);
    a.vec = a.vec && (a.Dk + a.Dv) * number % 16 == 0;
    if (!code)
        code = attend(a, dtype, 0, stream);
    return code ? code : attention_append(a, dtype, stream);
}

/* The ladder: with the kernels of sm_90a where they fit, and without. */
#define EXPORT extern "C" __attribute__((visibility("default"))) const k_cuda_attention
EXPORT k_cuda_attention_v1;
EXPORT k_cuda_attention_tiles_v1;
const k_cuda_attention k_cuda_attention_v1 = { sizeof(k_cuda_attention), plan, forward, backward, decode };
const k_cuda_attention k_cuda_attention_tiles_v1 = { sizeof(k_cuda_attention), plan, forward_tiles, backward_tiles, decode };
