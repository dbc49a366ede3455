/* lsh_order.cu - LSH attention on CUDA: buckets, and the order of the tokens by (bucket, position).
 *
 * Hashing is a product in bfloat16 halves of floats, by the tensor cores; what it cannot tell apart is decided in double, so
 * that every device decides alike.
 * The sort is a stable radix sort of 8 bits a pass, one block per unit and round: each warp has its own stretch of
 * tokens, so that a pass is one count, one scan, and one walk. */
#include "lsh.cuh"
#include "lsh_tile.cuh"

/* Hashing: tokens and threads of a block; rows and columns of a panel of a rotation, and its numbers in two planes; of a row in
 * shared memory. */
enum { TOKENS = 128, HASHERS = 256, SIDE = 64, COLUMNS = 32, PANEL = 2 * COLUMNS * SIDE, LINE = PITCH<bf16, SIDE> };
enum { SORTERS = 32, DIGITS = 256 };    /* warps of a block, values of a digit */

/* ---- hashing -------------------------------------------------------------------------------------------------------- */

/* The largest number so far and the least index that has it. */
struct peak { double y; int at; };
__device__ static void raise(peak *p, double y, int at)
{
    if (y > p->y || (y == p->y && at < p->at))
        *p = { y, at };
}

/* longest = the length of the longest column of a head's rotations in a round.  Block: one of them. */
__global__ void __launch_bounds__(THREADS) measure(const __grid_constant__ lsh p)
{
    __shared__ float most_of[THREADS / 32];
    const int columns = (p.factor[0] + p.factor[1]) / 2;
    const float *rotation = p.rotations + (int64_t)blockIdx.x * p.Dk * columns;
    float most = 0;
    for (int c = threadIdx.x; c < columns; c += THREADS) {
        float square = 0;
        for (int d = 0; d < p.Dk; d++)
            square += rotation[(int64_t)d * columns + c] * rotation[(int64_t)d * columns + c];
        most = fmaxf(most, square);
    }
    most = warp_max(most);
    if (threadIdx.x % 32 == 0)
        most_of[threadIdx.x / 32] = most;
    __syncthreads();
    if (threadIdx.x == 0)
        p.longest[blockIdx.x] = sqrtf(fmaxf(fmaxf(most_of[0], most_of[1]), fmaxf(most_of[2], most_of[3])));
}

/* The panels of half columns of a rotation: SIDE rows of COLUMNS columns, first all rows of the first columns. */
BOTH int panels_of(const lsh &p, int half) { return ceil_div(half, COLUMNS) * ceil_div(p.Dk, SIDE); }
size_t lsh_panels(const lsh &p) { return (size_t)(panels_of(p, p.factor[0] / 2) + panels_of(p, p.factor[1] / 2)); }

/* panels [H,rounds,panels,2,COLUMNS,SIDE] = the rotations, turned, in two planes.  Block: a panel. */
__global__ void __launch_bounds__(THREADS) cut_rotations(const __grid_constant__ lsh p)
{
    const int columns = (p.factor[0] + p.factor[1]) / 2, deep = ceil_div(p.Dk, SIDE), first = panels_of(p, p.factor[0] / 2);
    const int each = first + panels_of(p, p.factor[1] / 2), turn = blockIdx.x / each, panel = blockIdx.x % each;
    const int half = p.factor[panel >= first] / 2, c0 = (panel - (panel >= first) * first) / deep * COLUMNS, d0 = panel % deep * SIDE;
    const float *rotation = p.rotations + (int64_t)turn * p.Dk * columns + (panel >= first) * p.factor[0] / 2;
    uint32_t *to = (uint32_t *)(p.panels + (int64_t)blockIdx.x * PANEL);
    for (int i = threadIdx.x; i < PANEL / 4; i += THREADS) {
        const int c = c0 + i / (SIDE / 2), d = d0 + i % (SIDE / 2) * 2;
        const float *x = rotation + (int64_t)d * columns + c;
        uint32_t parts[2];
        cut(c < half && d < p.Dk ? x[0] : 0, c < half && d + 1 < p.Dk ? x[columns] : 0, parts);
        to[i] = parts[0], to[PANEL / 4 + i] = parts[1];
    }
}

/* 16 bytes of a row that goes on for `left` numbers, then zeros. */
template <class T> __device__ static pack<T> part_of(const T *x, int left, bool vec)
{
    pack<T> part = {};
    if (vec && left > 0)
        part = *(const pack<T> *)x;
    #pragma unroll
    for (int e = 0; !vec && e < pack<T>::N; e++)
        if (e < left)
            part.v[e] = x[e];
    return part;
}

/* X: panels of SIDE numbers of the tokens from t0 on, each in two planes. */
template <class T> __device__ static void bring_tokens(const lsh &p, int unit, int t0, bf16 *X)
{
    constexpr int EACH = pack<T>::N, PER = SIDE / EACH;
    for (int d0 = 0; d0 < p.Dk; d0 += SIDE, X += 2 * TOKENS * LINE)
        #pragma unroll
        for (int i = threadIdx.x; i < TOKENS * PER; i += 4 * HASHERS) {
            pack<T> parts[4];
            #pragma unroll
            for (int n = 0; n < 4; n++) {
                const int t = t0 + (i + n * HASHERS) / PER, d = d0 + (i + n * HASHERS) % PER * EACH;
                parts[n] = part_of(row_at<T>(p.k, unit / p.H, unit % p.H, t) + d, t < p.T ? p.Dk - d : 0, p.vec);
            }
            #pragma unroll
            for (int n = 0; n < 4; n++)
                put<2>(X + (i + n * HASHERS) / PER * LINE + (i + n * HASHERS) % PER * EACH, TOKENS * LINE, parts[n]);
        }
}

/* Starts copying a panel to the tile Y. */
__device__ static void start_panel(const bf16 *panel, bf16 *Y)
{
    for (int i = threadIdx.x; i < PANEL / 8; i += HASHERS)
        copy16(Y + i / (SIDE / 8) * LINE + i % (SIDE / 8) * 8, panel + i * 8, true);
    commit();
}

/* By a warp: where [y; -y] is largest, y = x times half columns, in double; a lane has MANY columns under way. */
template <int MANY, class T> __device__ static int decide(const T *x, const float *rotation, int columns, int D, int half)
{
    peak top = { -1, 0 };
    for (int c0 = threadIdx.x % 32; c0 < half; c0 += 32 * MANY) {
        double y[MANY] = {};
        #pragma unroll 32 / MANY
        for (int d = 0; d < D; d++)
            #pragma unroll
            for (int n = 0; n < MANY; n++)
                if (c0 + 32 * n < half)
                    y[n] += (double)(float)x[d] * rotation[(int64_t)d * columns + c0 + 32 * n];
        #pragma unroll
        for (int n = 0; n < MANY; n++)
            if (c0 + 32 * n < half)
                raise(&top, fabs(y[n]), c0 + 32 * n + (y[n] < 0 ? half : 0));
    }
    for (int lane = 1; lane < 32; lane *= 2)
        raise(&top, __shfl_xor_sync(~0u, top.y, lane), __shfl_xor_sync(~0u, top.at, lane));
    return top.at;
}

/* The two largest |y| of a row: bits of the float but for the last six, which are twice the column of the panel and the sign;
 * at: where the first panel began that has the first. */
struct lead { unsigned first, second; int at; };
__device__ static unsigned ranked(float y, int column)
{
    const unsigned bits = __float_as_uint(y);
    return (bits & 0x7fffffc0u | 2 * column) + (bits >> 31);
}
__device__ static void follow(unsigned *first, unsigned *second, unsigned y)
{
    *second = max(*second, min(y, *first));
    *first = max(*first, y);
}
__device__ static void join(lead *l, unsigned first, unsigned second, int at)
{
    l->second = max(max(l->second, second), min(l->first, first));
    l->at = first > l->first ? at : l->at;
    l->first = max(l->first, first);
}

/* A tile of scores [tokens, columns from c0 on] after those before it. */
__device__ static void look_at(const float (&y)[COLUMNS / 8][4], int c0, lead (&l)[2])
{
    #pragma unroll
    for (int i = 0; i < 2; i++) {
        unsigned first = 0, second = 0;
        #pragma unroll
        for (int n = 0; n < COLUMNS / 4; n++)
            follow(&first, &second, ranked(y[n / 2][2 * i + n % 2], column_of(n / 2, n % 2)));
        join(&l[i], first, second, c0);
    }
}

/* Where [y; -y] leads in the thread's two rows, by half columns of a rotation: panels from `panel` on, of which the first is
 * under way to Y [2], and after which another may follow. */
__device__ static void look(const lsh &p, const bf16 *X, bf16 *Y, int64_t panel, int half, bool more, lead (&l)[2])
{
    for (int c0 = 0; c0 < half; c0 += COLUMNS) {
        float y[COLUMNS / 8][4] = {};
        for (int d0 = 0; d0 < p.Dk; d0 += SIDE, panel++) {
            wait<0>();
            __syncthreads();
            if (more || c0 + COLUMNS < half || d0 + SIDE < p.Dk)
                start_panel(p.panels + (panel + 1) * PANEL, Y + (panel + 1) % 2 * 2 * COLUMNS * LINE);
            tile_nt<2, SIDE, TOKENS, COLUMNS>(y, X + (d0 / SIDE * 2 * TOKENS + threadIdx.x / 32 * 16) * LINE, Y + panel % 2 * 2 * COLUMNS * LINE);
        }
        look_at(y, c0, l);
    }
    #pragma unroll
    for (int i = 0; i < 2; i++)
        for (int lane = 1; lane < 4; lane *= 2)
            join(&l[i], __shfl_xor_sync(~0u, l[i].first, lane), __shfl_xor_sync(~0u, l[i].second, lane), __shfl_xor_sync(~0u, l[i].at, lane));
}

/* The bucket of the thread's token by one factor: in double, by the warp, where the lead is shorter than twice what is left out
 * at most: 2^-14 |x| |column| by two planes of either factor, and less than half of that by the last bits. */
template <class T> __device__ static int settle(const lsh &p, int unit, int turn, int token, const float *rotation, int half, const lead &l)
{
    const int columns = (p.factor[0] + p.factor[1]) / 2;
    const float inverse = token < p.T ? p.inverse[(int64_t)unit * p.T + token] : 0, ahead = __uint_as_float(l.first) - __uint_as_float(l.second);
    const bool close = token < p.T && threadIdx.x % 4 == 0 && !(ahead * inverse > 0x1.4p-13f * p.longest[turn]);
    int at = l.at + (l.first >> 1 & 31) + (l.first & 1 ? half : 0);
    for (unsigned left = __ballot_sync(~0u, close); left; left &= left - 1) {
        const int lane = __ffs(left) - 1, t = __shfl_sync(~0u, token, lane);
        const T *x = row_at<T>(p.k, unit / p.H, unit % p.H, t);
        const int exact = half > 64 ? decide<8>(x, rotation, columns, p.Dk, half) : decide<2>(x, rotation, columns, p.Dk, half);
        if (threadIdx.x % 32 == lane)
            at = exact;
    }
    return at;
}

/* Block: TOKENS tokens of a unit in a round. */
template <class T> __global__ void __launch_bounds__(HASHERS, 2) hash(const __grid_constant__ lsh p)
{
    extern __shared__ __align__(16) bf16 room[];
    bf16 *Y = room, *X = room + 4 * COLUMNS * LINE;
    const int tiles = ceil_div(p.T - p.first, TOKENS), t0 = p.first + blockIdx.x % tiles * TOKENS;
    const int round = blockIdx.x / tiles % p.rounds, unit = blockIdx.x / tiles / p.rounds, turn = unit % p.H * p.rounds + round;
    const int panels[2] = { panels_of(p, p.factor[0] / 2), panels_of(p, p.factor[1] / 2) };
    const float *rotation = p.rotations + (int64_t)turn * p.Dk * (p.factor[0] + p.factor[1]) / 2;
    int64_t panel = (int64_t)turn * (panels[0] + panels[1]);
    int bucket[2] = { 0, 0 };
    start_panel(p.panels + panel * PANEL, Y + panel % 2 * 2 * COLUMNS * LINE);
    bring_tokens<T>(p, unit, t0, X);
    for (int f = 0, step = 1; f < 2 && p.factor[f]; panel += panels[f], rotation += p.factor[f] / 2, step *= p.factor[f], f++) {
        lead l[2] = {};
        look(p, X, Y, panel, p.factor[f] / 2, f == 0 && p.factor[1], l);
        #pragma unroll
        for (int i = 0; i < 2; i++)
            bucket[i] += step * settle<T>(p, unit, turn, t0 + row_of(2 * i), rotation, p.factor[f] / 2, l[i]);
    }
    #pragma unroll
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
    const int room = (4 * COLUMNS + ceil_div(p.Dk, SIDE) * 2 * TOKENS) * LINE * (int)sizeof(bf16);
    const int64_t blocks = (int64_t)p.B * p.H * p.rounds * ceil_div(p.T - p.first, TOKENS), turns = p.H * p.rounds;
    cudaFuncSetAttribute(hash<T>, cudaFuncAttributeMaxDynamicSharedMemorySize, room);
    measure<<<(unsigned)turns, THREADS, 0, stream>>>(p);
    cut_rotations<<<(unsigned)((size_t)turns * lsh_panels(p)), THREADS, 0, stream>>>(p);
    hash<T><<<(unsigned)blocks, HASHERS, (size_t)room, stream>>>(p);
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
    const auto token_at = [from](int place) { return from ? from[place] : place; };
    #pragma unroll 4
    for (int t = begin + lane; t < end; t += 32)
        atomicAdd(&at[warp][bucket[token_at(t)] >> shift & 255], 1);
    __syncthreads();
    scan_counts(at, totals);
    int next = begin + lane < end ? token_at(begin + lane) : 0, its = bucket[next];
    for (int t0 = begin; t0 < end; t0 += 32) {
        const bool there = t0 + lane < end;
        const int token = next, digit = there ? its >> shift & 255 : DIGITS;
        const unsigned alike = __match_any_sync(~0u, digit), before = alike & ((1u << lane) - 1);
        const int start = there ? at[warp][digit] : 0;
        next = t0 + 32 + lane < end ? token_at(t0 + 32 + lane) : 0, its = bucket[next];
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
