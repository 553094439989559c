/* The kernels for one vector width. gru.c includes this file once for each instruction set, with
 *     LANES       floats in a vector
 *     ROWS        sequences whose three gates are computed at once, 4 or 8
 *     TARGET      the attribute that lets a function use the instruction set
 *     NAME(name)  the name with the width appended
 * The vectors are the extension of GCC and Clang: +, *, < and conversions work lane by lane.
 */

typedef float NAME(floats) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t NAME(integers) __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
#define V NAME(floats)
#define I NAME(integers)
#define FUNCTION static TARGET
#define INLINE static inline __attribute__((always_inline)) TARGET

INLINE V NAME(splat)(float x) { return x - (V){0}; }

/* Return the first n floats, followed by zeros. */
INLINE V NAME(load)(const float *p, int64_t n)
{
    V v = {0};
    if (n >= LANES) return *(const V *)p;
    for (int64_t i = 0; i < n; i++) v[i] = p[i];
    return v;
}

INLINE void NAME(store)(float *p, V v, int64_t n)
{
    if (n >= LANES)
        *(V *)p = v;
    else
        for (int64_t i = 0; i < n; i++) p[i] = v[i];
}

INLINE V NAME(select)(I condition, V yes, V no) { return (V)((condition & (I)yes) | (~condition & (I)no)); }

/* exp(x) = 2^k exp(r) with |r| <= ln(2) / 2. exp(r) is a polynomial, accurate to 2 units in the last place
 * (coefficients of Cephes' expf, https://www.netlib.org/cephes/). */
INLINE V NAME(exp)(V x)
{
    const V most = NAME(splat)(88.0f), least = NAME(splat)(-87.0f);
    x = NAME(select)(x > most, most, x);
    x = NAME(select)(x < least, least, x);
    /* Adding 1.5 * 2^23 rounds to an integer and leaves the integer in the lowest bits. */
    V shifted = x * 1.44269504f + 12582912.0f;
    V k = shifted - 12582912.0f;
    /* ln(2) as the sum of two numbers; the first has few digits, so that its product with k is exact. */
    V r = x - k * 0.693359375f;
    r = r - k * -2.12194440e-4f;
    V p = NAME(splat)(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    I power = ((I)shifted - 0x4B400000 + 127) << 23;
    return p * (V)power;
}

INLINE V NAME(sigmoid)(V x) { return 1.0f / (1.0f + NAME(exp)(-x)); }

/* Computed from |x|, because 1 - tanh(x)^2 needs the last digits of tanh(x) near -1 as well as near 1. */
INLINE V NAME(tanh)(V x)
{
    I sign = (I)x & INT32_MIN;
    V magnitude = (V)((I)x ^ sign);
    /* x (1 - x^2 / 3 ...) for a small x, where 1 - 2 / ... would cancel all digits. */
    V q = magnitude * magnitude;
    V p = NAME(splat)(-5.70498872745e-3f);
    p = p * q + 2.06390887954e-2f;
    p = p * q - 5.37397155531e-2f;
    p = p * q + 1.33314422036e-1f;
    p = p * q - 3.33332819422e-1f;
    V small = p * q * magnitude + magnitude;
    V result = 1.0f - 2.0f / (1.0f + NAME(exp)(magnitude + magnitude));
    result = NAME(select)(magnitude < 0.625f, small, result);
    return (V)((I)result | sign);
}

/* Matrix products read the right factor from panels of LANES columns, in the order panel, row, lane, with zeros after
 * the last column. */
#define COLUMNS(n) (((n) + LANES - 1) / LANES * LANES)

/* Write the panels of b (rows, columns). */
FUNCTION void NAME(pack)(int64_t rows, int64_t columns, const float *b, float *panels)
{
    for (int64_t j = 0; j < columns; j += LANES)
        for (int64_t k = 0; k < rows; k++, panels += LANES)
            *(V *)panels = NAME(load)(b + k * columns + j, columns - j);
}

/* Write the panels of the transpose of b (columns, rows). */
FUNCTION void NAME(pack_transposed)(int64_t rows, int64_t columns, const float *b, float *panels)
{
    for (int64_t j = 0; j < columns; j += LANES)
        for (int64_t k = 0; k < rows; k++, panels += LANES)
            for (int64_t lane = 0; lane < LANES; lane++)
                panels[lane] = j + lane < columns ? b[(j + lane) * rows + k] : 0.0f;
}

/* Call a macro with the number of rows as a constant, so that its loops over rows unroll into registers. */
#define WITH_ROWS(rows, call) \
    switch (rows) { \
    case 1: call(1); break; \
    case 2: call(2); break; \
    case 3: call(3); break; \
    case 4: call(4); break; \
    FIVE_TO_SEVEN_ROWS(call) \
    default: call(ROWS); \
    }
#if ROWS > 4
#define FIVE_TO_SEVEN_ROWS(call) case 5: call(5); break; case 6: call(6); break; case 7: call(7); break;
#else
#define FIVE_TO_SEVEN_ROWS(call)
#endif

#define LEAST(a, b) ((a) < (b) ? (a) : (b))

/* Compute R rows and P panels of multiply(). */
INLINE void NAME(tile)(const int R, const int P, int64_t depth, const float *a, int64_t row, int64_t column,
                       const float *panels, const float *bias, float *c, int64_t stride, int64_t n)
{
    V sum[R][P];
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) sum[r][p] = (V){0};
    for (int64_t k = 0; k < depth; k++)
        for (int p = 0; p < P; p++) {
            V b = *(const V *)(panels + (p * depth + k) * LANES);
            for (int r = 0; r < R; r++) sum[r][p] += a[r * row + k * column] * b;
        }
    for (int r = 0; r < R; r++)
        for (int p = 0; p < P; p++) {
            /* Added last: if the sum started from it, each of the small numbers would be rounded more. */
            V start = NAME(load)((bias ? bias : c + r * stride) + p * LANES, n - p * LANES);
            NAME(store)(c + r * stride + p * LANES, start + sum[r][p], n - p * LANES);
        }
}

/* Loop over the tiles of rows that a task has. Of three tasks, the tiles belong to 0 1 2 2 1 0 0 1 2 ..., since the first
 * sequences of a batch are the longest. */
#define FOR_TILES(i, last, m, s) \
    for (int64_t tile_ = (s).task, turn_ = 0, i, last; \
         i = tile_ * (s).rows, last = LEAST(i + (s).rows, m), i < (m); \
         turn_++, tile_ = (turn_ & ~INT64_C(1)) * (s).of + (turn_ & 1 ? 2 * (s).of - 1 - (s).task : (s).task))

/* c (m, n) = a b + bias, or c += a b if bias is null, for a share of the rows. a[i * row + k * column] is the element (i, k)
 * of a (m, depth), b is in panels, and the rows of c are stride apart. */
FUNCTION void NAME(multiply)(struct share share, int64_t m, int64_t n, int64_t depth, const float *a, int64_t row,
                             int64_t column, const float *panels, const float *bias, float *c, int64_t stride)
{
#define TILE(R, P) \
    NAME(tile)(R, P, depth, a + i * row, row, column, panels + j * depth, bias ? bias + j : 0, c + i * stride + j, \
               stride, n - j)
#define TWO_PANELS(R) TILE(R, 2)
#define ONE_PANEL(R) TILE(R, 1)
    for (int64_t j = 0; j < n; j += 2 * LANES)
        FOR_TILES(i, last, m, share) {
            if (n - j > LANES) {
                WITH_ROWS(last - i, TWO_PANELS)
            } else {
                WITH_ROWS(last - i, ONE_PANEL)
            }
        }
#undef TILE
#undef TWO_PANELS
#undef ONE_PANEL
}

/* One step of R sequences, for LANES units from j on: W_h h of all three gates stays in registers. */
INLINE void NAME(forward_tile)(const int R, int64_t H, int64_t j, const float *h, int64_t h_stride,
                               const float *panel, const float *inputs, const float *bias_n, float *output,
                               int64_t stride, float *gates)
{
    V sum[R][3];
    int64_t n = H - j;
    for (int r = 0; r < R; r++) {
        sum[r][0] = sum[r][1] = (V){0};
        sum[r][2] = NAME(load)(bias_n + j, n);
    }
    if (h)
        for (int64_t k = 0; k < H; k++, panel += 3 * LANES) {
            V w_r = *(const V *)panel, w_z = *(const V *)(panel + LANES), w_n = *(const V *)(panel + 2 * LANES);
            for (int r = 0; r < R; r++) {
                float state = h[r * h_stride + k];
                sum[r][0] += state * w_r;
                sum[r][1] += state * w_z;
                sum[r][2] += state * w_n;
            }
        }
    for (int r = 0; r < R; r++) {
        /* W_i x is added last, as the bias in tile(). */
        V reset = NAME(sigmoid)(sum[r][0] + NAME(load)(inputs + r * 3 * H + j, n));
        V update = NAME(sigmoid)(sum[r][1] + NAME(load)(inputs + r * 3 * H + H + j, n));
        V new = NAME(tanh)(NAME(load)(inputs + r * 3 * H + 2 * H + j, n) + reset * sum[r][2]);
        V before = h ? NAME(load)(h + r * h_stride + j, n) : (V){0};
        NAME(store)(output + r * stride + j, new + update * (before - new), n);
        if (gates) {
            float *g = gates + r * 4 * H + j;
            NAME(store)(g, reset, n);
            NAME(store)(g + H, update, n);
            NAME(store)(g + 2 * H, new, n);
            NAME(store)(g + 3 * H, sum[r][2], n);
        }
    }
}

/* One step of a share of the sequences from `first` to m. h: their previous states, h_stride apart, or null for zeros. */
FUNCTION void NAME(forward_step)(struct share share, int64_t first, int64_t m, int64_t H, const float *h, int64_t h_stride,
                                 const float *panels, const float *inputs, const float *bias_n, float *output,
                                 int64_t stride, float *gates)
{
#define STEP(R) \
    NAME(forward_tile)(R, H, j, h ? h + i * h_stride : 0, h_stride, panels + 3 * j * H, inputs + i * 3 * H, bias_n, \
                       output + i * stride, stride, gates ? gates + i * 4 * H : 0)
    if (first >= m) return;
    for (int64_t j = 0; j < H; j += LANES)
        FOR_TILES(begin, last, m, share) {
            int64_t i = begin < first ? first : begin;
            if (i < last) {
                WITH_ROWS(last - i, STEP)
            }
        }
#undef STEP
}

/* Whether all numbers from p to end are finite; there are whole vectors of them. */
FUNCTION int NAME(are_finite)(const float *p, const float *end)
{
    V sum = {0};
    for (; p < end; p += LANES) sum += NAME(load)(p, LANES) * 0.0f;
    int finite = 1;
    for (int64_t lane = 0; lane < LANES; lane++) finite &= sum[lane] == 0.0f;
    return finite;
}

#define EVERYTHING ((struct share){0, 1, ROWS})

/* Prepare the weights of a direction for the products of the forward pass. */
FUNCTION void NAME(prepare)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int d = p->first + task;
    int64_t H = g->hidden_size, batch = g->batch_sizes[0];
    const float *const *w = g->weights[d];
    NAME(pack_transposed)(g->input_size, 3 * H, w[W_IH], p->panels_x[d]);
    for (int64_t j = 0; j < 3 * H; j++) p->bias[d][j] = w[B_IH][j] + (j < 2 * H ? w[B_HH][j] : 0.0f);
    /* Panels of W_h with the three gates side by side, in the order panel, row, gate, lane. */
    float *panel = p->panels_h[d];
    for (int64_t j = 0; j < H; j += LANES)
        for (int64_t k = 0; k < H; k++)
            for (int gate = 0; gate < 3; gate++, panel += LANES)
                for (int64_t lane = 0; lane < LANES; lane++)
                    panel[lane] = j + lane < H ? w[W_HH][(gate * H + j + lane) * H + k] : 0.0f;
    p->h_0[d] = g->h_0 ? g->h_0 + d * batch * H : 0;
    /* The product with a state of zeros is left out, unless a weight is not finite: 0 times infinity is NaN. */
    if (!g->h_0 && !NAME(are_finite)(p->panels_h[d], panel)) p->h_0[d] = p->plan.zeros;
}

/* W_i x for a share of the rows of a window, in all directions of the pass. */
FUNCTION void NAME(inputs)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int64_t H = g->hidden_size, F = g->input_size;
    for (int d = p->first; d < p->first + p->count; d++) {
        struct window window = window_of(p, d);
        NAME(multiply)((struct share){task, p->threads, ROWS}, window.rows, 3 * H, F, g->x + window.row * F, F, 1,
                       p->panels_x[d], p->bias[d], p->inputs[d], 3 * H);
    }
}

/* The steps of a window for a share of the sequences. In a backward pass the states are there already: the gates are
 * computed again from them, and the new states, which are the same, are left in `before`. */
FUNCTION void NAME(steps)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int d = p->first + task / p->groups;
    int64_t H = g->hidden_size, batch = g->batch_sizes[0], stride = g->directions * H;
    struct window window = window_of(p, d);
    struct share share = share_of(p, task);
    const float *bias_n = g->weights[d][B_HH] + 2 * H, *h_0 = p->h_0[d];
    float *states = g->output + d * H, *h_n = g->h_n ? g->h_n + d * batch * H : 0;
    for (int64_t s = 0; s < window.end - window.begin; s++) {
        int64_t t = d ? window.end - 1 - s : window.begin + s, m = g->batch_sizes[t], row = p->plan.row_of[t];
        int64_t place = row - window.row;
        const float *h;
        /* The others start from h_0. */
        int64_t known = states_before(p, d, t, &h);
        const float *inputs = p->inputs[d] + place * 3 * H;
        float *output = p->is_backward ? p->before[d] + place * H : states + row * stride, *gates = 0;
        if (p->is_backward)
            gates = p->gates[d] + place * 4 * H;
        else if (g->gates)
            gates = g->gates + (d * g->rows + row) * 4 * H;
        int64_t between = p->is_backward ? H : stride;
        NAME(forward_step)(share, 0, known, H, h, stride, p->panels_h[d], inputs, bias_n, output, between, gates);
        NAME(forward_step)(share, known, m, H, h_0, p->h_0_stride, p->panels_h[d], inputs, bias_n, output, between,
                           gates);
        if (p->is_backward) continue;
        /* The sequences that have no next step, which in the second direction is the one before, end here. */
        int64_t going_on = d ? (t ? m : 0) : t + 1 < g->steps ? g->batch_sizes[t + 1] : 0;
        FOR_TILES(i, last, m, share)
            for (int64_t r = i < going_on ? going_on : i; r < last; r++)
                memcpy(h_n + r * H, output + r * stride, H * sizeof(float));
    }
}

FUNCTION int NAME(forward)(const struct gru_layer *g)
{
    struct pass pass, *p = &pass;
    if (begin_pass(p, g, 0, ROWS)) return 1;
    int64_t H = g->hidden_size, F = g->input_size;
    int64_t sizes[] = {p->plan.most_rows * 3 * H, 3 * H, COLUMNS(3 * H) * F, 3 * COLUMNS(H) * H};
    float **parts[] = {p->inputs, p->bias, p->panels_x, p->panels_h};
    float *memory = share_memory(p->count, g->directions, 4, sizes, parts);
    for (p->first = 0; memory && p->first < g->directions; p->first += p->count) {
        parallel(p->threads, p->count, NAME(prepare), p);
        for (p->window = 0; p->window < p->plan.windows; p->window++) {
            parallel(p->threads, p->threads, NAME(inputs), p);
            parallel(p->threads, p->count * p->groups, NAME(steps), p);
        }
    }
    free(memory);
    free(p->plan.row_of);
    return !memory;
}

/* For one step of the sequences from i to m, write the gradients [dn, dr, dz, dq] and the previous states; replace dh' by
 * dh' z. */
FUNCTION void NAME(gates_backward)(int64_t i, int64_t m, int64_t H, const float *h, int64_t h_stride, const float *d_output,
                                   int64_t stride, const float *gates, float *d_h, float *d_gates, float *before)
{
    for (; i < m; i++)
        for (int64_t j = 0; j < H; j += LANES) {
            int64_t n = H - j;
            const float *g = gates + i * 4 * H + j;
            V reset = NAME(load)(g, n), update = NAME(load)(g + H, n), new = NAME(load)(g + 2 * H, n),
              product = NAME(load)(g + 3 * H, n);
            V state = h ? NAME(load)(h + i * h_stride + j, n) : (V){0};
            V d = NAME(load)(d_h + i * H + j, n);
            if (d_output) d += NAME(load)(d_output + i * stride + j, n);
            V d_new = d * (1.0f - update) * (1.0f - new * new);
            float *d_gate = d_gates + i * 4 * H + j;
            NAME(store)(d_gate, d_new, n);
            NAME(store)(d_gate + H, d_new * product * reset * (1.0f - reset), n);
            NAME(store)(d_gate + 2 * H, d * (state - new) * update * (1.0f - update), n);
            NAME(store)(d_gate + 3 * H, d_new * reset, n);
            NAME(store)(d_h + i * H + j, d * update, n);
            NAME(store)(before + i * H + j, state, n);
        }
}

/* Prepare the weights of a direction for the products of the backward pass. */
FUNCTION void NAME(prepare_backward)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int d = p->first + task;
    int64_t H = g->hidden_size, F = g->input_size;
    const float *const *w = g->weights[d];
    NAME(pack)(3 * H, H, w[W_HH], p->panels_h[d]);
    /* Panels of W_i with the gates in the order of d_gates: n, r, z. */
    for (int64_t j = 0; g->d_x && j < F; j += LANES)
        for (int64_t k = 0; k < 3 * H; k++)
            *(V *)(p->panels_x[d] + j * 3 * H + k * LANES) =
                NAME(load)(w[W_IH] + (k < H ? k + 2 * H : k - H) * F + j, F - j);
    memset(g->d_weights[d][W_IH], 0, 3 * H * F * sizeof(float));
    memset(g->d_weights[d][W_HH], 0, 3 * H * H * sizeof(float));
    memset(p->bias[d], 0, 4 * H * sizeof(float));
}

/* The steps of a window, backwards, for a share of the sequences. */
FUNCTION void NAME(steps_backward)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int d = p->first + task / p->groups;
    int64_t H = g->hidden_size, batch = g->batch_sizes[0], stride = g->directions * H;
    struct window window = window_of(p, d);
    struct share share = share_of(p, task);
    const float *h_0 = g->h_0 ? g->h_0 + d * batch * H : 0;
    float *d_h = g->d_h + d * batch * H;
    for (int64_t s = 0; s < window.end - window.begin; s++) {
        int64_t t = d ? window.begin + s : window.end - 1 - s, m = g->batch_sizes[t], row = p->plan.row_of[t];
        int64_t place = row - window.row;
        const float *h;
        int64_t known = states_before(p, d, t, &h);
        const float *d_output = g->d_output ? g->d_output + d * H + row * stride : 0;
        const float *gates = g->gates ? g->gates + (d * g->rows + row) * 4 * H : p->gates[d] + place * 4 * H;
        float *d_gates = p->d_gates[d] + place * 4 * H, *before = p->before[d] + place * H;
        FOR_TILES(i, last, m, share) {
            int64_t middle = i > known ? i : LEAST(known, last);
            NAME(gates_backward)(i, middle, H, h, stride, d_output, stride, gates, d_h, d_gates, before);
            NAME(gates_backward)(middle, last, H, h_0, H, d_output, stride, gates, d_h, d_gates, before);
        }
        NAME(multiply)(share, m, H, 3 * H, d_gates + H, 4 * H, 1, p->panels_h[d], 0, d_h, H);
    }
}

/* The rows of a window, in blocks, as the right factors of the gradients of the weights; a task has every so-many-th. */
FUNCTION void NAME(pack_blocks)(void *work, int task)
{
    struct pass *p = work;
    int64_t H = p->g->hidden_size, F = p->g->input_size, size = BLOCK * (COLUMNS(H) + COLUMNS(F));
    for (int d = p->first; d < p->first + p->count; d++) {
        struct window window = window_of(p, d);
        for (int64_t block = task; block * BLOCK < window.rows; block += p->threads) {
            int64_t start = block * BLOCK, rows = LEAST(window.rows - start, BLOCK);
            float *panels = p->panels_of_rows[d] + block * size;
            NAME(pack)(rows, H, p->before[d] + start * H, panels);
            NAME(pack)(rows, F, p->g->x + (window.row + start) * F, panels + BLOCK * COLUMNS(H));
        }
    }
}

/* Add to the gradients of the weights the transposed gradients of the gates times the inputs and times the previous
 * states, summed over the rows of a window; a task has a share of the rows of each matrix. */
FUNCTION void NAME(weights_backward)(void *work, int task)
{
    struct pass *p = work;
    const struct gru_layer *g = p->g;
    int64_t H = g->hidden_size, F = g->input_size, size = BLOCK * (COLUMNS(H) + COLUMNS(F));
    struct share share = {task, p->threads, ROWS};
    for (int d = p->first; d < p->first + p->count; d++) {
        struct window window = window_of(p, d);
        float *const *d_w = g->d_weights[d];
        for (int64_t block = 0; block * BLOCK < window.rows; block++) {
            int64_t start = block * BLOCK, rows = LEAST(window.rows - start, BLOCK);
            const float *d_gates = p->d_gates[d] + start * 4 * H, *states = p->panels_of_rows[d] + block * size;
            const float *x = states + BLOCK * COLUMNS(H);
            NAME(multiply)(share, 3 * H, H, rows, d_gates + H, 1, 4 * H, states, 0, d_w[W_HH], H);
            NAME(multiply)(share, 2 * H, F, rows, d_gates + H, 1, 4 * H, x, 0, d_w[W_IH], F);
            NAME(multiply)(share, H, F, rows, d_gates, 1, 4 * H, x, 0, d_w[W_IH] + 2 * H * F, F);
            for (int64_t j = task * LANES; j < 4 * H; j += p->threads * LANES) {
                V sum = {0};
                for (int64_t i = 0; i < rows; i++) sum += NAME(load)(d_gates + i * 4 * H + j, 4 * H - j);
                NAME(store)(p->bias[d] + j, NAME(load)(p->bias[d] + j, 4 * H - j) + sum, 4 * H - j);
            }
        }
    }
}

/* Add to the gradients of the inputs, for a share of the rows of a window. */
FUNCTION void NAME(inputs_backward)(struct pass *p, int d, int task)
{
    const struct gru_layer *g = p->g;
    int64_t H = g->hidden_size, F = g->input_size;
    struct window window = window_of(p, d);
    NAME(multiply)((struct share){task, p->threads, ROWS}, window.rows, F, 3 * H, p->d_gates[d], 4 * H, 1,
                   p->panels_x[d], 0, g->d_x + window.row * F, F);
}

/* One direction after the other: both may be in the same window. */
FUNCTION void NAME(inputs_backward_0)(void *work, int task) { NAME(inputs_backward)(work, 0, task); }
FUNCTION void NAME(inputs_backward_1)(void *work, int task) { NAME(inputs_backward)(work, 1, task); }

FUNCTION int NAME(backward)(const struct gru_layer *g)
{
    struct pass pass, *p = &pass;
    if (begin_pass(p, g, 1, ROWS)) return 1;
    int64_t H = g->hidden_size, F = g->input_size, most_rows = p->plan.most_rows;
    int64_t again = !g->gates, blocks = (most_rows + BLOCK - 1) / BLOCK;
    struct pass forward = *p;
    int64_t sizes[] = {most_rows * 4 * H, most_rows * H, 4 * H, 3 * H * COLUMNS(F), 3 * H * COLUMNS(H),
                       blocks * BLOCK * (COLUMNS(H) + COLUMNS(F)), again * most_rows * 3 * H, again * most_rows * 4 * H, again * 3 * H,
                       again * COLUMNS(3 * H) * F, again * 3 * COLUMNS(H) * H};
    float **parts[] = {p->d_gates, p->before, p->bias, p->panels_x, p->panels_h, p->panels_of_rows, forward.inputs,
                       forward.gates, forward.bias, forward.panels_x, forward.panels_h};
    float *memory = share_memory(p->count, g->directions, 11, sizes, parts);
    if (memory && g->d_x) memset(g->d_x, 0, g->rows * F * sizeof(float));
    for (int first = 0; memory && first < g->directions; first += p->count) {
        p->first = forward.first = first;
        parallel(p->threads, p->count, NAME(prepare_backward), p);
        if (again) {
            for (int d = 0; d < 2; d++) {
                forward.before[d] = p->before[d];
                p->gates[d] = forward.gates[d];
            }
            parallel(p->threads, p->count, NAME(prepare), &forward);
        }
        for (p->window = 0; p->window < p->plan.windows; p->window++) {
            if (again) {
                forward.window = p->window;
                parallel(p->threads, p->threads, NAME(inputs), &forward);
                parallel(p->threads, p->count * p->groups, NAME(steps), &forward);
            }
            parallel(p->threads, p->count * p->groups, NAME(steps_backward), p);
            parallel(p->threads, p->threads, NAME(pack_blocks), p);
            parallel(p->threads, p->threads, NAME(weights_backward), p);
            if (g->d_x && first == 0) parallel(p->threads, p->threads, NAME(inputs_backward_0), p);
            if (g->d_x && first + p->count == 2) parallel(p->threads, p->threads, NAME(inputs_backward_1), p);
        }
        for (int d = first; d < first + p->count; d++) {
            float *const *d_w = g->d_weights[d];
            memcpy(d_w[B_IH], p->bias[d] + H, 2 * H * sizeof(float));
            memcpy(d_w[B_IH] + 2 * H, p->bias[d], H * sizeof(float));
            memcpy(d_w[B_HH], p->bias[d] + H, 3 * H * sizeof(float));
        }
    }
    free(memory);
    free(p->plan.row_of);
    return !memory;
}

#include "step_simd.h"

#undef V
#undef I
#undef FUNCTION
#undef INLINE
#undef COLUMNS
#undef WITH_ROWS
#undef FOR_TILES
#undef FIVE_TO_SEVEN_ROWS
#undef LEAST
#undef EVERYTHING
#undef TARGET
#undef LANES
#undef ROWS
#undef NAME
