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

/* c (m, n) = a b + bias, or c += a b if bias is null. a[i * row + k * column] is the element (i, k) of a (m, depth),
 * b is in panels, and the rows of c are stride apart. */
FUNCTION void NAME(multiply)(int64_t m, int64_t n, int64_t depth, const float *a, int64_t row, int64_t column,
                             const float *panels, const float *bias, float *c, int64_t stride)
{
#define TILE(R, P) \
    NAME(tile)(R, P, depth, a + i * row, row, column, panels + j * depth, bias ? bias + j : 0, c + i * stride + j, \
               stride, n - j)
#define TWO_PANELS(R) TILE(R, 2)
#define ONE_PANEL(R) TILE(R, 1)
    for (int64_t j = 0; j < n; j += 2 * LANES)
        for (int64_t i = 0; i < m; i += ROWS) {
            if (n - j > LANES) {
                WITH_ROWS(LEAST(m - i, ROWS), TWO_PANELS)
            } else {
                WITH_ROWS(LEAST(m - i, ROWS), ONE_PANEL)
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

/* One step of m sequences. h: their previous states, h_stride apart, or null for zeros. */
FUNCTION void NAME(forward_step)(int64_t m, int64_t H, const float *h, int64_t h_stride, const float *panels,
                                 const float *inputs, const float *bias_n, float *output, int64_t stride,
                                 float *gates)
{
#define STEP(R) \
    NAME(forward_tile)(R, H, j, h ? h + i * h_stride : 0, h_stride, panels + 3 * j * H, inputs + i * 3 * H, bias_n, \
                       output + i * stride, stride, gates ? gates + i * 4 * H : 0)
    for (int64_t j = 0; j < H; j += LANES)
        for (int64_t i = 0; i < m; i += ROWS) {
            WITH_ROWS(LEAST(m - i, ROWS), STEP)
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

FUNCTION void NAME(forward_direction)(const struct gru_layer *g, int reverse, float *inputs, float *bias,
                                      const float *zeros, float *panels)
{
    int64_t H = g->hidden_size, batch = g->batch_sizes[0], stride = g->directions * H;
    const float *const *w = g->weights[reverse];
    const float *bias_n = w[B_HH] + 2 * H;
    float *h_n = g->h_n + reverse * batch * H, *all_output = g->output + reverse * H;
    float *all_gates = g->gates ? g->gates + reverse * g->rows * 4 * H : 0;

    NAME(pack_transposed)(g->input_size, 3 * H, w[W_IH], panels);
    for (int64_t j = 0; j < 3 * H; j++) bias[j] = w[B_IH][j] + (j < 2 * H ? w[B_HH][j] : 0.0f);
    NAME(multiply)(g->rows, 3 * H, g->input_size, g->x, g->input_size, 1, panels, bias, inputs, 3 * H);

    /* Panels of W_h with the three gates side by side, in the order panel, row, gate, lane. */
    float *panel = panels;
    for (int64_t j = 0; j < H; j += LANES)
        for (int64_t k = 0; k < H; k++)
            for (int gate = 0; gate < 3; gate++, panel += LANES)
                for (int64_t lane = 0; lane < LANES; lane++)
                    panel[lane] = j + lane < H ? w[W_HH][(gate * H + j + lane) * H + k] : 0.0f;

    const float *h_0 = g->h_0 ? g->h_0 + reverse * batch * H : 0;
    int64_t h_0_stride = H;
    /* The product with a state of zeros is left out, unless a weight is not finite: 0 times infinity is NaN. */
    if (!h_0 && !NAME(are_finite)(panels, panel)) {
        h_0 = zeros;
        h_0_stride = 0;
    }
    const float *h = h_0;
    int64_t h_stride = h_0_stride, row = reverse ? g->rows : 0, known = reverse ? 0 : batch;
    for (int64_t s = 0; s < g->steps; s++) {
        int64_t t = reverse ? g->steps - 1 - s : s, m = g->batch_sizes[t];
        if (reverse) row -= m;
        float *output = all_output + row * stride, *gates = all_gates ? all_gates + row * 4 * H : 0;
        known = LEAST(known, m);
        NAME(forward_step)(known, H, h, h_stride, panels, inputs + row * 3 * H, bias_n, output, stride, gates);
        /* In the backward direction, shorter sequences start at a later iteration, from h_0. */
        NAME(forward_step)(m - known, H, h_0 ? h_0 + known * h_0_stride : 0, h_0_stride, panels,
                           inputs + (row + known) * 3 * H, bias_n, output + known * stride, stride, gates ? gates + known * 4 * H : 0);
        /* In the forward direction, the sequences that have no next step end here. */
        int64_t going_on = reverse ? (t ? m : 0) : t + 1 < g->steps ? g->batch_sizes[t + 1] : 0;
        for (int64_t i = going_on; i < m; i++) memcpy(h_n + i * H, output + i * stride, H * sizeof(float));
        h = output;
        h_stride = stride;
        known = m;
        if (!reverse) row += m;
    }
}

FUNCTION int NAME(forward)(const struct gru_layer *g)
{
    int64_t H = g->hidden_size, deepest = g->input_size > H ? g->input_size : H;
    /* W_i x of all rows, the biases added to it, and panels of 3 x COLUMNS(H) or COLUMNS(3 H) columns. */
    float *inputs = malloc((g->rows * 3 * H + 4 * H + 3 * COLUMNS(H) * deepest) * sizeof(float));
    if (!inputs) return 1;
    float *bias = inputs + g->rows * 3 * H, *zeros = bias + 3 * H;
    memset(zeros, 0, H * sizeof(float));
    for (int reverse = 0; reverse < g->directions; reverse++)
        NAME(forward_direction)(g, reverse, inputs, bias, zeros, zeros + H);
    free(inputs);
    return 0;
}

/* For one step of m sequences, write the gradients [dn, dr, dz, dq] and the previous states; replace dh' by dh' z. */
FUNCTION void NAME(gates_backward)(int64_t m, int64_t H, const float *h, int64_t h_stride, const float *d_output,
                                   int64_t stride, const float *gates, float *d_h, float *d_gates, float *before)
{
    for (int64_t i = 0; i < m; i++)
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

/* The gradients of the weights: the transposed gradients of the gates times the inputs and times the previous states,
 * summed over all rows. */
FUNCTION void NAME(weights_backward)(const struct gru_layer *g, int reverse, const float *d_gates,
                                     const float *before, float *panels, float *bias)
{
    int64_t H = g->hidden_size, F = g->input_size;
    float *const *d_w = g->d_weights[reverse];
    memset(d_w[W_IH], 0, 3 * H * F * sizeof(float));
    memset(d_w[W_HH], 0, 3 * H * H * sizeof(float));
    memset(bias, 0, 4 * H * sizeof(float));
    for (int64_t start = 0; start < g->rows; start += BLOCK) {
        int64_t rows = LEAST(g->rows - start, BLOCK);
        const float *d = d_gates + start * 4 * H;
        NAME(pack)(rows, H, before + start * H, panels);
        NAME(multiply)(3 * H, H, rows, d + H, 1, 4 * H, panels, 0, d_w[W_HH], H);
        NAME(pack)(rows, F, g->x + start * F, panels);
        NAME(multiply)(2 * H, F, rows, d + H, 1, 4 * H, panels, 0, d_w[W_IH], F);
        NAME(multiply)(H, F, rows, d, 1, 4 * H, panels, 0, d_w[W_IH] + 2 * H * F, F);
        for (int64_t j = 0; j < 4 * H; j += LANES) {
            V sum = {0};
            for (int64_t i = 0; i < rows; i++) sum += NAME(load)(d + i * 4 * H + j, 4 * H - j);
            NAME(store)(bias + j, NAME(load)(bias + j, 4 * H - j) + sum, 4 * H - j);
        }
    }
    memcpy(d_w[B_IH], bias + H, 2 * H * sizeof(float));
    memcpy(d_w[B_IH] + 2 * H, bias, H * sizeof(float));
    memcpy(d_w[B_HH], bias + H, 3 * H * sizeof(float));
}

FUNCTION void NAME(backward_direction)(const struct gru_layer *g, int reverse, float *d_gates, float *before,
                                       float *panels, float *bias)
{
    int64_t H = g->hidden_size, F = g->input_size, batch = g->batch_sizes[0], stride = g->directions * H;
    const float *const *w = g->weights[reverse];
    const float *h_0 = g->h_0 ? g->h_0 + reverse * batch * H : 0;
    const float *all_gates = g->gates + reverse * g->rows * 4 * H;
    float *d_h = g->d_h + reverse * batch * H;

    NAME(pack)(3 * H, H, w[W_HH], panels);
    int64_t row = reverse ? 0 : g->rows;
    for (int64_t s = 0; s < g->steps; s++) {
        int64_t t = reverse ? s : g->steps - 1 - s, m = g->batch_sizes[t];
        if (!reverse) row -= m;
        /* The first `known` sequences have their previous state in output, at h; the others start from h_0. */
        int64_t known = reverse ? (t + 1 < g->steps ? g->batch_sizes[t + 1] : 0) : t ? m : 0;
        const float *h = g->output + reverse * H + (reverse ? row + m : row - (t ? g->batch_sizes[t - 1] : 0)) * stride;
        const float *d_output = g->d_output ? g->d_output + reverse * H + row * stride : 0;
        const float *gates = all_gates + row * 4 * H;
        float *d = d_gates + row * 4 * H;
        NAME(gates_backward)(known, H, h, stride, d_output, stride, gates, d_h, d, before + row * H);
        NAME(gates_backward)(m - known, H, h_0 ? h_0 + known * H : 0, H, d_output ? d_output + known * stride : 0,
                             stride, gates + known * 4 * H, d_h + known * H, d + known * 4 * H,
                             before + (row + known) * H);
        NAME(multiply)(m, H, 3 * H, d + H, 4 * H, 1, panels, 0, d_h, H);
        if (reverse) row += m;
    }
    NAME(weights_backward)(g, reverse, d_gates, before, panels, bias);
    if (g->d_x) {
        /* Panels of W_i with the gates in the order of d_gates: n, r, z. */
        for (int64_t j = 0; j < F; j += LANES)
            for (int64_t k = 0; k < 3 * H; k++)
                *(V *)(panels + j * 3 * H + k * LANES) =
                    NAME(load)(w[W_IH] + (k < H ? k + 2 * H : k - H) * F + j, F - j);
        if (!reverse) memset(g->d_x, 0, g->rows * F * sizeof(float));
        NAME(multiply)(g->rows, F, 3 * H, d_gates, 4 * H, 1, panels, 0, g->d_x, F);
    }
}

FUNCTION int NAME(backward)(const struct gru_layer *g)
{
    int64_t H = g->hidden_size, widest = COLUMNS(g->input_size > H ? g->input_size : H);
    int64_t deepest = 3 * H > BLOCK ? 3 * H : BLOCK;
    /* The gradients of the gates, the previous states, panels, and the gradients of the biases. */
    float *d_gates = malloc((g->rows * 5 * H + widest * deepest + 4 * H) * sizeof(float));
    if (!d_gates) return 1;
    float *before = d_gates + g->rows * 4 * H, *panels = before + g->rows * H, *bias = panels + widest * deepest;
    for (int reverse = 0; reverse < g->directions; reverse++)
        NAME(backward_direction)(g, reverse, d_gates, before, panels, bias);
    free(d_gates);
    return 0;
}

#include "step_simd.h"

#undef V
#undef I
#undef FUNCTION
#undef INLINE
#undef COLUMNS
#undef WITH_ROWS
#undef FIVE_TO_SEVEN_ROWS
#undef LEAST
#undef TARGET
#undef LANES
#undef ROWS
#undef NAME
