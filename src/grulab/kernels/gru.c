/* The GRU of PyTorch (torch.nn.GRU) for packed float32 sequences on a CPU, forward and backward.
 *
 * For each sequence and step, with s the logistic function, x the input and h the previous state (Cho et al. 2014,
 * https://arxiv.org/abs/1406.1078, in the variant of cuDNN and PyTorch: the reset gate acts after the product):
 *
 *     r  = s(W_ir x + b_ir + W_hr h + b_hr)          reset
 *     z  = s(W_iz x + b_iz + W_hz h + b_hz)          update
 *     q  = W_hn h + b_hn
 *     n  = tanh(W_in x + b_in + r q)                 new
 *     h' = (1 - z) n + z h
 *
 * and backward, with dh' the gradient of the loss with respect to h':
 *
 *     dn = dh' (1 - z) (1 - n^2)                     with respect to the argument of tanh
 *     dz = dh' (h - n) z (1 - z)                     with respect to the argument of s in z
 *     dr = dn q r (1 - r)                            with respect to the argument of s in r
 *     dq = dn r
 *     dh = dh' z + W_hr' dr + W_hz' dz + W_hn' dq
 *     dx = W_ir' dr + W_iz' dz + W_in' dn
 *
 * The gradient of each weight matrix is a sum of outer products over sequences and steps.
 *
 * Why it is fast: torch.nn.GRU runs about twelve operators per step, and as many in the backward pass. Here one
 * matrix product computes W_i x for all steps. The rest of a step, W_h h and the gates, stays in registers from the
 * first multiplication to the stored state. A backward step computes the gradients of the gates and one product; the
 * gradients of the weights are computed once, over all steps.
 *
 * Why it is reproducible: the order of each sum depends neither on the width of the vectors nor on the number of threads;
 * that of a state not on the other sequences of the batch either. (AVX2 and AVX-512 give the same bits; without their fused
 * multiply-add, the last bits differ.)
 *
 * Threads: sequences do not depend on each other, so each thread takes a share of them through all steps, without
 * waiting for the others. Of the gradients of the weights each thread computes a share of the rows.
 *
 * Memory: the steps are cut into windows of some hundred rows, or thousand if there are few units; what is needed for a window only is overwritten by the
 * next one. For the backward pass the outputs are kept, and the gates; without these (gates is null) they are computed
 * again, window by window, with the same bits.
 *
 * Packed (torch.nn.utils.rnn.PackedSequence): the rows hold the first step of all sequences, then the second step of
 * the sequences that have one, and so on. The longest sequence comes first, so the sequences of a step are the first
 * sequences of the previous step.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pool.h"

/* One layer; every array is contiguous, in PyTorch's layout, and not null unless its comment allows null. */
struct gru_layer {
    int64_t input_size, hidden_size;
    int64_t directions;              /* 1, or 2: the second one reads the sequences backwards */
    int64_t steps;                   /* length of the longest sequence */
    int64_t rows;                    /* the sum of batch_sizes */
    const int64_t *batch_sizes;      /* (steps): number of sequences that have the step */
    const float *x;                  /* (rows, input_size) */
    const float *weights[2][4];      /* for each direction, with the gates in the order r, z, n: w_ih (3 hidden_size,
                                        input_size), w_hh (3 hidden_size, hidden_size), b_ih, b_hh (3 hidden_size) */
    const float *h_0;                /* (directions, batch_sizes[0], hidden_size), or null for zeros */
    float *output;                   /* (rows, directions hidden_size): gru_forward writes, gru_backward reads it */
    float *h_n;                      /* (directions, batch_sizes[0], hidden_size): gru_forward writes it */
    float *gates;                    /* (directions, rows, 4 hidden_size): r, z, n, q; gru_forward writes it and
                                        gru_backward reads it, unless null */
    const float *d_output;           /* (rows, directions hidden_size), or null for zeros; gru_backward reads it */
    float *d_h;                      /* (directions, batch_sizes[0], hidden_size): gru_backward reads the gradient
                                        with respect to h_n and writes the gradient with respect to h_0 */
    float *d_x;                      /* (rows, input_size): gru_backward writes it unless null */
    float *d_weights[2][4];          /* shapes as weights: gru_backward writes them */
    int64_t threads;                 /* that may be used; small layers use one */
};

enum { W_IH, W_HH, B_IH, B_HH };

/* A weight tensor with what the optimizer keeps of it; all of `size` floats but steps, which is one. */
struct gru_parameter {
    int64_t size;
    float *weight, *gradient, *mean, *square, *steps;
};

/* A training step of a classifier: GRU layers, a linear head on the last states of the top layer, cross-entropy, and
 * Adam or AdamW. */
struct gru_step {
    int64_t input_size, hidden_size, directions, num_layers, classes;
    int64_t batch, time;             /* of the padded sequences */
    const float *x;                  /* (batch, time, input_size) */
    const int64_t *lengths, *y;      /* (batch): the longest first, from 1 to time; from 0 to classes - 1 */
    const float *const *masks;       /* (num_layers - 1) of (rows, directions hidden_size), by which the output of a layer
                                        is multiplied before the next one reads it; or null */
    const float *class_weights;      /* (classes), or null for ones; the loss is divided by the batch all the same */
    int64_t parameters;
    const struct gru_parameter *parameter;  /* of each layer and direction w_ih, w_hh, b_ih, b_hh; then the weight
                                        (classes, directions hidden_size) and the bias of the head */
    double clip;                     /* largest norm of the gradients; 0 for any */
    int64_t is_decoupled;            /* AdamW */
    float gain_1, beta_2, gain_2;    /* 1 - beta_1, beta_2, 1 - beta_2 */
    float epsilon, weight_decay;
    float shrink;                    /* 1 - lr weight_decay, of AdamW */
    float rate, root_of_correction;  /* of this step: lr / (1 - beta_1^t), and the root of 1 - beta_2^t */
    float *loss;                     /* the mean loss of the batch */
    int64_t *hits;                   /* the number of sequences whose class has the largest logit */
    int64_t threads;                 /* that may be used */
    float *arena;                    /* memory for everything in between, grown when it is too small */
    int64_t arena_size;
};

/* The gradients of the weights are summed in blocks of this many rows: summed one by one, a million small numbers
 * would lose their last digits, and a block stays in the cache. */
#ifndef BLOCK
#define BLOCK 256
#endif

/* Rows times units of a window, if neither a step nor a block has more: what is between two stages stays in the cache. */
#ifndef WINDOW
#define WINDOW 65536
#endif

/* Multiplications and additions of a layer under which it is computed by one thread: others would come too late. */
#ifndef LEAST_WORK
#define LEAST_WORK 2e6
#endif

/* Bytes of a layer's gates beyond which they are not kept for the backward pass. */
#ifndef MOST_GATES
#define MOST_GATES (INT64_C(1) << 29)
#endif

/* What one of `of` tasks has of some rows: every so-many-th tile of them; see FOR_TILES. */
struct share {
    int64_t task, of, rows;
};

/* The windows of a packed batch. One allocation, at row_of. */
struct plan {
    int64_t windows, most_rows;      /* the number of windows, and of rows of the largest */
    int64_t *row_of;                 /* (steps + 1): the first row of each step, and the end */
    int64_t *starts;                 /* (windows + 1): the first step of each window, and the end */
    float *zeros;                    /* (hidden_size) */
};

/* Return 0, or 1 if an allocation fails. */
static int make_plan(struct plan *plan, const struct gru_layer *g)
{
    int64_t steps = g->steps;
    plan->row_of = calloc(2 * (steps + 1) + (g->hidden_size + 1) / 2, sizeof(int64_t));
    if (!plan->row_of) return 1;
    plan->starts = plan->row_of + steps + 1;
    plan->zeros = (float *)(plan->starts + steps + 1);
    plan->windows = plan->most_rows = 0;
    int64_t most = WINDOW / g->hidden_size > BLOCK ? WINDOW / g->hidden_size : BLOCK;
    for (int64_t t = 0, rows = 0; t <= steps; t++) {
        int64_t more = t < steps ? g->batch_sizes[t] : 0;
        if (t == steps || rows + more > most) {
            if (rows > plan->most_rows) plan->most_rows = rows;
            if (t) plan->starts[++plan->windows] = t;
            rows = 0;
        }
        if (t < steps) plan->row_of[t + 1] = plan->row_of[t] + more;
        rows += more;
    }
    return 0;
}

static int threads_for(const struct gru_layer *g)
{
    double work = (double)g->rows * 3.0 * (double)g->hidden_size * (double)(g->input_size + g->hidden_size) *
                  (double)g->directions;
    int64_t most = g->batch_sizes[0] * g->directions;
    if (most > MOST_THREADS) most = MOST_THREADS;
    if (g->threads < 2 || most < 2 || work < LEAST_WORK) return 1;
    return (int)(g->threads < most ? g->threads : most);
}

/* What the tasks of a layer share, forward or backward. */
struct pass {
    const struct gru_layer *g;
    struct plan plan;
    int is_backward;
    int threads, groups;             /* tasks of a stage; tasks among which the sequences of a direction are divided */
    int64_t tile;                    /* rows of a tile of sequences */
    int first, count;                /* the directions that are computed at the same time */
    int64_t window;                  /* the present one, counted in the order in which a direction comes to them */
    /* For each direction: */
    const float *h_0[2];             /* initial states, or null for zeros */
    int64_t h_0_stride;
    float *panels_h[2], *panels_x[2];
    float *bias[2];                  /* forward: of the inputs (3 H). Backward: gradients of the biases (4 H) */
    float *inputs[2];                /* (rows of a window, 3 H): W_i x with its biases */
    float *gates[2];                 /* (rows of a window, 4 H), if they are computed again for the backward pass */
    float *d_gates[2], *before[2];   /* (rows of a window, 4 H and H) */
    float *panels_of_rows[2];        /* backward: for each block, panels of `before` and of the inputs */
};

/* Divide the work of a layer; return 0, or 1 if an allocation fails. */
static int begin_pass(struct pass *p, const struct gru_layer *g, int is_backward, int64_t rows_of_tile)
{
    *p = (struct pass){.g = g, .is_backward = is_backward, .threads = threads_for(g)};
    p->h_0_stride = g->h_0 ? g->hidden_size : 0;
    p->count = p->threads > 1 ? g->directions : 1;
    p->groups = p->threads % p->count ? p->threads : p->threads / p->count;
    /* Smaller tiles, if there would be none for some of the tasks. */
    for (p->tile = rows_of_tile; p->tile > 1 && p->tile * p->groups > g->batch_sizes[0]; p->tile /= 2) {}
    return make_plan(&p->plan, g);
}

/* The steps and the rows of a window. */
struct window {
    int64_t begin, end, row, rows;   /* the first step and the one after the last; the first row, and how many */
};

/* Return the window in which a direction is. */
static struct window window_of(const struct pass *p, int d)
{
    const struct plan *plan = &p->plan;
    int64_t number = (d == 1) == p->is_backward ? p->window : plan->windows - 1 - p->window;
    int64_t begin = plan->starts[number], end = plan->starts[number + 1];
    return (struct window){begin, end, plan->row_of[begin], plan->row_of[end] - plan->row_of[begin]};
}

/* Return how many of the sequences of step t have a previous state in the output; the first of them is at *h. */
static int64_t states_before(const struct pass *p, int d, int64_t t, const float **h)
{
    const struct gru_layer *g = p->g;
    int64_t row = d ? p->plan.row_of[t + 1] : t ? p->plan.row_of[t - 1] : 0;
    *h = g->output + d * g->hidden_size + row * g->directions * g->hidden_size;
    return d ? (t + 1 < g->steps ? g->batch_sizes[t + 1] : 0) : t ? g->batch_sizes[t] : 0;
}

/* Return the share of the sequences of a direction that a task has. */
static struct share share_of(const struct pass *p, int task)
{
    return (struct share){task % p->groups, p->groups, p->tile};
}

/* Divide memory among arrays for each direction; directions that are not computed at the same time share theirs.
 * Return the memory, which the caller frees, or null if there is none. */
static float *share_memory(int at_once, int64_t directions, int count, const int64_t *sizes, float **const *parts)
{
    int64_t all = 16;
    for (int i = 0; i < count; i++) all += at_once * ((sizes[i] + 15) / 16 * 16);
    float *memory = aligned_alloc(64, all * sizeof(float)), *place = memory;
    for (int64_t d = 0; memory && d < directions; d++) {
        if (at_once == 1) place = memory;
        for (int i = 0; i < count; i++) {
            parts[i][d] = place;
            place += (sizes[i] + 15) / 16 * 16;
        }
    }
    return memory;
}

/* One source for every instruction set. ROWS: number of sequences whose gates fit the registers (3 ROWS accumulators,
 * 3 weights and a state: 28 of 32 registers with AVX-512, 16 of 16 with AVX2). */
#if defined(__x86_64__)
#define TARGET __attribute__((target("avx512f,avx512dq,avx512vl,avx512bw,avx2,fma")))
#define LANES 16
#define ROWS 8
#define NAME(name) name##_16
#include "gru_simd.h"

#define TARGET __attribute__((target("avx2,fma")))
#define LANES 8
#define ROWS 4
#define NAME(name) name##_8
#include "gru_simd.h"
#endif

#define TARGET
#define LANES 4
#define ROWS 4
#define NAME(name) name##_4
#include "gru_simd.h"

/* Return the width of the widest vectors of this machine, in floats: 16, 8 or 4. */
int gru_lanes(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("fma"))
        return 16;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return 8;
#endif
    return 4;
}

/* Return the fingerprint of the sources that this library was built from; see library.py. */
#ifndef GRU_SOURCES
#define GRU_SOURCES ""
#endif
const char *gru_sources(void) { return GRU_SOURCES; }

/* Return sizeof(struct gru_layer), to check its declaration in another language. */
int64_t gru_layer_size(void) { return sizeof(struct gru_layer); }

/* Return whether batch_sizes is valid for this number of packed rows; the other functions do not check it again. */
static int is_packed(const struct gru_layer *layer)
{
    int64_t sum = 0, before = INT64_MAX;
    for (int64_t t = 0; t < layer->steps; t++) {
        int64_t size = layer->batch_sizes[t];
        if (size < (layer->rows > 0) || size > before || size > layer->rows - sum) return 0;
        sum += size;
        before = size;
    }
    return layer->steps > 0 && sum == layer->rows;
}

/* Compute output, h_n and gates with vectors of `lanes` floats; return 0, 1 if an allocation fails, or 2 if
 * batch_sizes is not valid. */
int gru_forward(const struct gru_layer *layer, int lanes)
{
    if (!is_packed(layer)) return 2;
#if defined(__x86_64__)
    if (lanes == 16) return forward_16(layer);
    if (lanes == 8) return forward_8(layer);
#endif
    return forward_4(layer);
}

/* Compute all gradients, after gru_forward; return 0, or 1 if an allocation fails. */
int gru_backward(const struct gru_layer *layer, int lanes)
{
#if defined(__x86_64__)
    if (lanes == 16) return backward_16(layer);
    if (lanes == 8) return backward_8(layer);
#endif
    return backward_4(layer);
}

/* Return whether the gates of a layer are kept for the backward pass, or computed again to save memory. */
int gru_keeps_gates(int64_t rows, int64_t hidden_size, int64_t directions)
{
    return rows * hidden_size * directions * 4 * (int64_t)sizeof(float) <= MOST_GATES;
}

int64_t gru_step_size(void) { return sizeof(struct gru_step); }

/* Return memory from the arena, aligned to a cache line; or only count it, if the arena is null. */
static float *take(float *arena, int64_t *used, int64_t floats)
{
    float *place = arena ? arena + *used : 0;
    *used += (floats + 15) / 16 * 16;
    return place;
}

/* Point the layers to their weights and to memory from the arena; return the number of floats that it needs. */
static int64_t lay_out(const struct gru_step *s, int64_t rows, struct gru_layer **all, float **last)
{
    int64_t used = 0, D = s->directions, H = s->hidden_size, width = D * H, batch = s->batch, steps = s->lengths[0];
    int64_t *batch_sizes = (int64_t *)take(s->arena, &used, 2 * steps);
    struct gru_layer *layers =
        (struct gru_layer *)take(s->arena, &used, s->num_layers * (int64_t)(sizeof(struct gru_layer) / sizeof(float)));
    const float *x = take(s->arena, &used, rows * s->input_size);
    int64_t deepest = width > batch ? width : batch, widest = (width > s->classes ? width : s->classes) + 16;
    if (s->classes > deepest) deepest = s->classes;
    *last = take(s->arena, &used, batch * (2 * width + s->classes) + deepest * widest);
    for (int64_t l = 0; l < s->num_layers; l++) {
        if (l && s->masks) x = take(s->arena, &used, rows * width);
        float *output = take(s->arena, &used, rows * width), *gates = 0;
        if (gru_keeps_gates(rows, H, D)) gates = take(s->arena, &used, rows * 4 * width);
        float *h_n = take(s->arena, &used, batch * width), *d_h = take(s->arena, &used, batch * width);
        float *d_x = l ? take(s->arena, &used, rows * width) : 0;
        if (s->arena) {
            struct gru_layer *layer = layers + l;
            memset(layer, 0, sizeof *layer);
            layer->input_size = l ? width : s->input_size;
            layer->hidden_size = H;
            layer->directions = D;
            layer->steps = steps;
            layer->rows = rows;
            layer->batch_sizes = batch_sizes;
            layer->x = x;
            layer->output = output;
            layer->gates = gates;
            layer->h_n = h_n;
            layer->d_h = d_h;
            layer->d_x = d_x;
            layer->threads = s->threads;
            if (l) layers[l - 1].d_output = d_x;
            for (int64_t d = 0; d < D; d++)
                for (int64_t w = 0; w < 4; w++) {
                    layer->weights[d][w] = s->parameter[(l * D + d) * 4 + w].weight;
                    layer->d_weights[d][w] = s->parameter[(l * D + d) * 4 + w].gradient;
                }
        }
        x = output;
    }
    if (s->arena)
        for (int64_t t = 0, i = batch; t < steps; t++) {
            while (s->lengths[i - 1] <= t) i--;
            batch_sizes[t] = i;
        }
    *all = layers;
    return used;
}

/* Train on a batch; return 0, 1 if an allocation fails, 2 if the lengths or classes are not valid, or 3 if the loss is
 * not finite: then no weight has changed. */
int gru_train(struct gru_step *s, int lanes)
{
    int64_t rows = 0;
    for (int64_t i = 0; i < s->batch; i++) {
        int64_t length = s->lengths[i];
        if (length < 1 || length > (i ? s->lengths[i - 1] : s->time) || s->y[i] < 0 || s->y[i] >= s->classes) return 2;
        rows += length;
    }
    if (s->batch < 1) return 2;
    struct gru_layer *layers;
    float *last, *arena = s->arena;
    s->arena = 0;
    int64_t needed = lay_out(s, rows, &layers, &last);
    if (needed > s->arena_size) {
        free(arena);
        /* A little more, since batches have different lengths. */
        s->arena_size = needed + needed / 4;
        arena = aligned_alloc(64, (s->arena_size * sizeof(float) + 63) / 64 * 64);
        if (!arena) s->arena_size = 0;
    }
    s->arena = arena;
    if (!arena) return 1;
    lay_out(s, rows, &layers, &last);
#if defined(__x86_64__)
    if (lanes == 16) return train_16(s, layers, last);
    if (lanes == 8) return train_8(s, layers, last);
#endif
    return train_4(s, layers, last);
}

/* Free the arena. */
void gru_step_end(struct gru_step *s)
{
    free(s->arena);
    s->arena = 0;
    s->arena_size = 0;
}
