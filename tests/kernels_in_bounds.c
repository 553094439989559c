/* Runs the kernels over layers of many shapes, with arrays of exactly the required length: the address sanitizer
 * stops at the first byte read or written out of bounds, and reports leaks at the end. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include "gru.c"

static float *numbers(int64_t count)
{
    float *array = malloc(count * sizeof(float));
    for (int64_t i = 0; i < count; i++) array[i] = rand() / (float)RAND_MAX - 0.5f;
    return array;
}

static void check(int64_t input_size, int64_t H, int64_t directions, int64_t steps, int64_t batch, int some, int lanes)
{
    int64_t *batch_sizes = malloc(steps * sizeof(int64_t)), rows = 0;
    for (int64_t t = 0; t < steps; t++) {
        batch_sizes[t] = t ? 1 + rand() % batch_sizes[t - 1] : batch;
        rows += batch_sizes[t];
    }
    struct gru_layer g = {input_size, H, directions, steps, rows, batch_sizes, numbers(rows * input_size)};
    int64_t sizes[4] = {3 * H * input_size, 3 * H * H, 3 * H, 3 * H};
    for (int d = 0; d < directions; d++)
        for (int w = 0; w < 4; w++) {
            g.weights[d][w] = numbers(sizes[w]);
            g.d_weights[d][w] = numbers(sizes[w]);
        }
    g.h_0 = some ? numbers(directions * batch * H) : 0;
    g.output = numbers(rows * directions * H);
    g.h_n = numbers(directions * batch * H);
    if (gru_forward(&g, lanes)) abort();
    g.gates = numbers(directions * rows * 4 * H);
    if (gru_forward(&g, lanes)) abort();
    g.d_output = some ? numbers(rows * directions * H) : 0;
    g.d_h = numbers(directions * batch * H);
    g.d_x = some ? numbers(rows * input_size) : 0;
    if (gru_backward(&g, lanes)) abort();
    for (int d = 0; d < directions; d++)
        for (int w = 0; w < 4; w++) {
            free((float *)g.weights[d][w]);
            free(g.d_weights[d][w]);
        }
    const float *rest[] = {g.x, g.h_0, g.output, g.h_n, g.gates, g.d_output, g.d_h, g.d_x};
    for (int i = 0; i < 8; i++) free((float *)rest[i]);
    free(batch_sizes);
}

int main(void)
{
    srand(0);
    for (int lanes = 4; lanes <= gru_lanes(); lanes *= 2)
        for (int i = 0; i < 150; i++) {
            /* Every tenth layer may have more rows than the kernels sum in one block. */
            int64_t steps = 1 + rand() % (i % 10 ? 6 : 40), batch = 1 + rand() % (i % 10 ? 12 : 40);
            check(1 + rand() % 40, 1 + rand() % 70, 1 + rand() % 2, steps, batch, rand() % 2, lanes);
        }
    puts("in bounds");
    return 0;
}
