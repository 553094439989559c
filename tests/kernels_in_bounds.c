/* Runs the kernels over layers, and steps over classifiers, of many shapes and with several threads, with arrays of
 * exactly the required length: the address sanitizer stops at the first byte read or written out of bounds, and reports
 * leaks at the end; the thread sanitizer at the first two accesses that nothing puts in order. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Small layers have several windows and threads too. */
#define WINDOW 400
#define BLOCK 16
#define LEAST_WORK 0.0
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
    g.threads = 1 + rand() % 5;
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
    /* Again, with gates that were not kept. */
    const float *gates = g.gates;
    g.gates = 0;
    if (gru_backward(&g, lanes)) abort();
    g.gates = (float *)gates;
    for (int d = 0; d < directions; d++)
        for (int w = 0; w < 4; w++) {
            free((float *)g.weights[d][w]);
            free(g.d_weights[d][w]);
        }
    const float *rest[] = {g.x, g.h_0, g.output, g.h_n, g.gates, g.d_output, g.d_h, g.d_x};
    for (int i = 0; i < 8; i++) free((float *)rest[i]);
    free(batch_sizes);
}

/* Some training steps of one classifier, over batches of different lengths. */
static void check_step(int64_t F, int64_t H, int64_t D, int64_t layers, int64_t classes, int64_t batch, int some, int lanes)
{
    float loss;
    int64_t hits, count = 4 * layers * D + 2, width = D * H;
    struct gru_parameter *parameters = malloc(count * sizeof *parameters);
    for (int64_t k = 0; k < count; k++) {
        int64_t w = k % 4, input = k < 4 * D ? F : width;
        int64_t size = k == count - 2 ? classes * width : k == count - 1 ? classes : w == 0 ? 3 * H * input : w == 1 ? 3 * H * H : 3 * H;
        parameters[k] = (struct gru_parameter){size, numbers(size), numbers(size), numbers(size), numbers(size), numbers(1)};
        for (int64_t i = 0; i < size; i++) {
            parameters[k].mean[i] = 0.0f;
            parameters[k].square[i] = 0.0f;
        }
    }
    float *class_weights = some ? numbers(classes) : 0;
    struct gru_step s = {F, H, D, layers, classes, batch};
    s.class_weights = class_weights;
    s.parameters = count;
    s.parameter = parameters;
    s.clip = some ? 0.5 : 0.0;
    s.is_decoupled = some;
    s.gain_1 = 0.1f, s.beta_2 = 0.999f, s.gain_2 = 0.001f, s.epsilon = 1e-8f, s.shrink = 0.9f, s.rate = 0.01f;
    s.root_of_correction = 0.1f;
    s.loss = &loss, s.hits = &hits;
    s.threads = 1 + rand() % 5;
    for (int step = 0; step < 3; step++) {
        int64_t *lengths = malloc(batch * sizeof(int64_t)), *y = malloc(batch * sizeof(int64_t)), rows = 0;
        for (int64_t i = 0; i < batch; i++) {
            lengths[i] = i ? 1 + rand() % lengths[i - 1] : 1 + rand() % 12;
            y[i] = rand() % classes;
            rows += lengths[i];
        }
        s.time = lengths[0];
        float *x = numbers(batch * s.time * F), **masks = some ? malloc(layers * sizeof *masks) : 0;
        for (int64_t l = 0; masks && l < layers - 1; l++) masks[l] = numbers(rows * width);
        s.x = x, s.lengths = lengths, s.y = y, s.masks = (const float *const *)masks;
        if (gru_train(&s, lanes)) abort();
        if (!(loss - loss == 0.0f) || hits < 0 || hits > batch) abort();
        lengths[batch - 1] = 0;
        if (gru_train(&s, lanes) != 2) abort();
        for (int64_t l = 0; masks && l < layers - 1; l++) free(masks[l]);
        free(masks), free(x), free(lengths), free(y);
    }
    gru_step_end(&s);
    for (int64_t k = 0; k < count; k++) {
        struct gru_parameter p = parameters[k];
        free(p.weight), free(p.gradient), free(p.mean), free(p.square), free(p.steps);
    }
    free(parameters), free(class_weights);
}

int main(void)
{
    srand(0);
    for (int lanes = 4; lanes <= gru_lanes(); lanes *= 2)
        for (int i = 0; i < 50; i++)
            check_step(1 + rand() % 9, 1 + rand() % 40, 1 + rand() % 2, 1 + rand() % 3, 1 + rand() % 20, 1 + rand() % 20,
                       rand() % 2, lanes);
    for (int lanes = 4; lanes <= gru_lanes(); lanes *= 2)
        for (int i = 0; i < 150; i++) {
            /* Every tenth layer may have more rows than the kernels sum in one block. */
            int64_t steps = 1 + rand() % (i % 10 ? 6 : 40), batch = 1 + rand() % (i % 10 ? 12 : 40);
            check(1 + rand() % 40, 1 + rand() % 70, 1 + rand() % 2, steps, batch, rand() % 2, lanes);
        }
    puts("in bounds");
    return 0;
}
