/* The GRU of PyTorch (torch.nn.GRU) for packed float32 sequences on a CPU, forward and backward.
 *
 * For each sequence and step, with s the logistic function, x the input and h the state before (Cho et al. 2014,
 * https://arxiv.org/abs/1406.1078, as cuDNN and PyTorch have it: the reset gate acts after the product):
 *
 *     r  = s(W_ir x + b_ir + W_hr h + b_hr)          reset
 *     z  = s(W_iz x + b_iz + W_hz h + b_hz)          update
 *     q  = W_hn h + b_hn
 *     n  = tanh(W_in x + b_in + r q)                 new
 *     h' = (1 - z) n + z h
 *
 * and backwards, with dh' the gradient of the loss by h':
 *
 *     dn = dh' (1 - z) (1 - n^2)                     by what tanh is taken of
 *     dz = dh' (h - n) z (1 - z)                     by what s is taken of
 *     dr = dn q r (1 - r)                            by what s is taken of
 *     dq = dn r
 *     dh = dh' z + W_hr' dr + W_hz' dz + W_hn' dq
 *     dx = W_ir' dr + W_iz' dz + W_in' dn
 *
 * while each weight's gradient is the sum over sequences and steps of a column times a row.
 *
 * Why it is fast: torch.nn.GRU runs about twelve operators a step and as many backwards. Here the products with x of
 * all steps are one product; what is left for a step, W_h h and the gates, stays in registers from the first
 * multiplication to the stored state; backwards a step is the gates' gradients and one product, and the weights'
 * gradients are computed once, over all steps.
 *
 * Why it is reproducible: there is one thread, and each number is a sum in an order that depends on neither the
 * other sequences of the batch nor the vectors' width. (AVX2 and AVX-512 give the same bits; without their
 * multiplication and addition in one, the last bits are others.)
 *
 * Packed (torch.nn.utils.rnn.PackedSequence): row by row, the first step of all sequences, the second step of those
 * that have one, and so on; the longest sequence comes first, so that the sequences of a step are the first ones of
 * the step before.
 */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* One layer; every array is contiguous, in PyTorch's layout, and not null unless it says so. */
struct gru_layer {
    int64_t input_size, hidden_size;
    int64_t directions;              /* 1, or 2: the second one reads the sequences backwards */
    int64_t steps;                   /* of the longest sequence */
    int64_t rows;                    /* of all steps together: the sum of batch_sizes */
    const int64_t *batch_sizes;      /* (steps): how many sequences have that step */
    const float *x;                  /* (rows, input_size) */
    const float *weights[2][4];      /* for each direction, with the gates in the order r, z, n: w_ih (3 hidden_size,
                                        input_size), w_hh (3 hidden_size, hidden_size), b_ih, b_hh (3 hidden_size) */
    const float *h_0;                /* (directions, batch_sizes[0], hidden_size), or null: zeros */
    float *output;                   /* (rows, directions hidden_size): out of gru_forward, into gru_backward */
    float *h_n;                      /* (directions, batch_sizes[0], hidden_size): out of gru_forward */
    float *gates;                    /* (directions, rows, 4 hidden_size): r, z, n, q; out of gru_forward unless null,
                                        into gru_backward */
    const float *d_output;           /* (rows, directions hidden_size), or null: zeros; into gru_backward */
    float *d_h;                      /* (directions, batch_sizes[0], hidden_size): in by h_n, out by h_0 */
    float *d_x;                      /* (rows, input_size): out of gru_backward, unless null */
    float *d_weights[2][4];          /* as weights: out of gru_backward */
};

enum { W_IH, W_HH, B_IH, B_HH };

/* The weights' gradients are added up in blocks of so many rows: summed one by one, a million small numbers lose
 * their last digits, and a block stays in the cache. */
#define BLOCK 256

/* One source for every instruction set. ROWS: sequences whose gates fit the registers (3 ROWS accumulators, 3 weights
 * and a state: 28 of 32 registers with AVX-512, 16 of 16 with AVX2). */
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

/* Return the widest vectors, in floats, that this machine can compute with: 16, 8 or 4. */
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

/* Return what the sources were that this was built of; see library.py. */
#ifndef GRU_SOURCES
#define GRU_SOURCES ""
#endif
const char *gru_sources(void) { return GRU_SOURCES; }

/* Return sizeof(struct gru_layer), for whoever declares it in another language. */
int64_t gru_layer_size(void) { return sizeof(struct gru_layer); }

/* Return whether the batch sizes are those of so many packed rows; everything below trusts them. */
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

/* Compute output, h_n and gates with vectors of so many lanes; return 0, 1 if there is no memory, or 2 if the batch
 * sizes are none of a packed batch. */
int gru_forward(const struct gru_layer *layer, int lanes)
{
    if (!is_packed(layer)) return 2;
#if defined(__x86_64__)
    if (lanes == 16) return forward_16(layer);
    if (lanes == 8) return forward_8(layer);
#endif
    return forward_4(layer);
}

/* Compute all gradients, after gru_forward; return 0, or 1 if there is no memory. */
int gru_backward(const struct gru_layer *layer, int lanes)
{
#if defined(__x86_64__)
    if (lanes == 16) return backward_16(layer);
    if (lanes == 8) return backward_8(layer);
#endif
    return backward_4(layer);
}
