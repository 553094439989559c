/* A whole training step for one vector width; gru_simd.h includes this file. struct gru_step in gru.c documents what is
 * computed.
 */

/* log(x) for x of at least 1, accurate to 2 units in the last place (coefficients of Cephes' logf). */
INLINE V NAME(log)(V x)
{
    I bits = (I)x;
    V m = (V)((bits & 0x007FFFFF) | 0x3F000000);
    I small = m < 0.707106781f;
    /* m is from sqrt(1/2) to sqrt(2), less 1; k is the exponent. */
    V k = __builtin_convertvector((bits >> 23) - 126 + small, V);
    m = NAME(select)(small, m + m, m) - 1.0f;
    V z = m * m;
    V p = NAME(splat)(7.0376836292e-2f);
    p = p * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    p = p * m * z + k * -2.12194440e-4f - 0.5f * z;
    return m + p + k * 0.693359375f;
}

INLINE V NAME(sqrt)(V x)
{
    for (int lane = 0; lane < LANES; lane++) x[lane] = __builtin_sqrtf(x[lane]);
    return x;
}

/* Write the loss, the number of hits, and the gradients with respect to the logits in their place. */
FUNCTION void NAME(cross_entropy)(const struct gru_step *s, float *logits)
{
    int64_t C = s->classes, batch = s->batch;
    double sum = 0.0;
    int64_t hits = 0;
    for (int64_t i = 0; i < batch; i++) {
        float *row = logits + i * C, most = row[0];
        int64_t y = s->y[i], best = 0;
        for (int64_t c = 1; c < C; c++)
            if (row[c] > most || row[c] != row[c]) {
                most = row[c];
                best = c;
            }
        float own = row[y] - most, others = 0.0f, weight = s->class_weights ? s->class_weights[y] : 1.0f;
        for (int64_t c = 0; c < C; c += LANES)
            NAME(store)(row + c, NAME(exp)(NAME(load)(row + c, C - c) - most), C - c);
        for (int64_t c = 0; c < C; c++) others += c == y ? 0.0f : row[c];
        float total = others + row[y];
        sum += (double)weight * (NAME(log)(NAME(splat)(total))[0] - own);
        hits += best == y;
        float scale = weight / ((float)batch * total);
        for (int64_t c = 0; c < C; c += LANES) NAME(store)(row + c, NAME(load)(row + c, C - c) * scale, C - c);
        /* p - 1, as the sum of the others: the difference would lose the digits of a p near 1. */
        row[y] = -others * scale;
        /* exp() cuts what is not finite. */
        if (most - most != 0.0f || own - own != 0.0f) sum += own - own;
    }
    /* A sum beyond 32 bits is infinite, as torch's: such a run has diverged. */
    float whole = (float)sum;
    *s->loss = whole - whole != 0.0f ? whole : (float)(sum / (double)batch);
    *s->hits = hits;
}

/* Scale all gradients so that their norm is at most clip. */
FUNCTION void NAME(clip)(const struct gru_step *s)
{
    double sum = 0.0;
    for (int64_t p = 0; p < s->parameters; p++) {
        const float *g = s->parameter[p].gradient;
        double own = 0.0;
        for (int64_t i = 0; i < s->parameter[p].size; i++) own += (double)g[i] * (double)g[i];
        sum += own;
    }
    float scale = (float)(s->clip / (__builtin_sqrt(sum) + 1e-6));
    if (!(scale < 1.0f)) return;
    for (int64_t p = 0; p < s->parameters; p++) {
        float *g = s->parameter[p].gradient;
        for (int64_t i = 0; i < s->parameter[p].size; i += LANES)
            NAME(store)(g + i, NAME(load)(g + i, s->parameter[p].size - i) * scale, s->parameter[p].size - i);
    }
}

/* Adam (Kingma and Ba 2015, https://arxiv.org/abs/1412.6980), or AdamW (Loshchilov and Hutter 2019,
 * https://arxiv.org/abs/1711.05101), with torch's formulas. */
FUNCTION void NAME(update)(const struct gru_step *s)
{
    for (int64_t k = 0; k < s->parameters; k++) {
        const struct gru_parameter *p = s->parameter + k;
        for (int64_t i = 0; i < p->size; i += LANES) {
            int64_t n = p->size - i;
            V weight = NAME(load)(p->weight + i, n), g = NAME(load)(p->gradient + i, n),
              mean = NAME(load)(p->mean + i, n), square = NAME(load)(p->square + i, n);
            if (s->is_decoupled)
                weight = weight * s->shrink;
            else
                g = g + weight * s->weight_decay;
            mean = mean + s->gain_1 * (g - mean);
            square = s->beta_2 * square + s->gain_2 * (g * g);
            V denominator = NAME(sqrt)(square) / s->root_of_correction + s->epsilon;
            NAME(store)(p->weight + i, weight - s->rate * (mean / denominator), n);
            NAME(store)(p->mean + i, mean, n);
            NAME(store)(p->square + i, square, n);
        }
        *p->steps += 1.0f;
    }
}

/* Write the packed rows of the padded sequences. */
FUNCTION void NAME(pack_sequences)(const struct gru_step *s, const struct gru_layer *first, float *x)
{
    int64_t F = s->input_size;
    for (int64_t t = 0; t < first->steps; t++)
        for (int64_t i = 0; i < first->batch_sizes[t]; i++, x += F)
            memcpy(x, s->x + (i * s->time + t) * F, F * sizeof(float));
}

/* last (batch, directions H): the states of the last layer that the head reads; logits: a place for (batch, C). */
FUNCTION void NAME(head_forward)(const struct gru_step *s, const struct gru_layer *top, float *last, float *logits,
                                 float *panels)
{
    int64_t H = s->hidden_size, D = s->directions, batch = s->batch;
    const struct gru_parameter *weight = s->parameter + s->parameters - 2, *bias = weight + 1;
    for (int64_t i = 0; i < batch; i++)
        for (int64_t d = 0; d < D; d++)
            memcpy(last + (i * D + d) * H, top->h_n + (d * batch + i) * H, H * sizeof(float));
    NAME(pack_transposed)(D * H, s->classes, weight->weight, panels);
    NAME(multiply)(EVERYTHING, batch, s->classes, D * H, last, D * H, 1, panels, bias->weight, logits, s->classes);
}

/* From the gradients of the logits: those of the head's weights, and of the last layer's h_n in d_h. */
FUNCTION void NAME(head_backward)(const struct gru_step *s, const struct gru_layer *top, const float *last,
                                  const float *d_logits, float *d_last, float *panels)
{
    int64_t H = s->hidden_size, D = s->directions, batch = s->batch, C = s->classes;
    const struct gru_parameter *weight = s->parameter + s->parameters - 2, *bias = weight + 1;
    memset(weight->gradient, 0, C * D * H * sizeof(float));
    NAME(pack)(batch, D * H, last, panels);
    NAME(multiply)(EVERYTHING, C, D * H, batch, d_logits, 1, C, panels, 0, weight->gradient, D * H);
    for (int64_t c = 0; c < C; c++) {
        float sum = 0.0f;
        for (int64_t i = 0; i < batch; i++) sum += d_logits[i * C + c];
        bias->gradient[c] = sum;
    }
    memset(d_last, 0, batch * D * H * sizeof(float));
    NAME(pack)(C, D * H, weight->weight, panels);
    NAME(multiply)(EVERYTHING, batch, D * H, C, d_logits, C, 1, panels, 0, d_last, D * H);
    for (int64_t i = 0; i < batch; i++)
        for (int64_t d = 0; d < D; d++)
            memcpy(top->d_h + (d * batch + i) * H, d_last + (i * D + d) * H, H * sizeof(float));
}

/* a *= b */
FUNCTION void NAME(times)(float *a, const float *b, int64_t size)
{
    for (int64_t i = 0; i < size; i += LANES)
        NAME(store)(a + i, NAME(load)(a + i, size - i) * NAME(load)(b + i, size - i), size - i);
}

FUNCTION int NAME(train)(const struct gru_step *s, struct gru_layer *layers, float *last)
{
    int64_t top = s->num_layers - 1, width = s->directions * s->hidden_size, rows = layers[0].rows;
    float *d_last = last + s->batch * width, *logits = d_last + s->batch * width;
    float *panels = logits + s->batch * s->classes;
    NAME(pack_sequences)(s, layers, (float *)layers[0].x);
    for (int64_t l = 0; l <= top; l++) {
        if (l && s->masks) {
            /* The layer below needs its output as it is for its backward pass. */
            memcpy((float *)layers[l].x, layers[l - 1].output, rows * width * sizeof(float));
            NAME(times)((float *)layers[l].x, s->masks[l - 1], rows * width);
        }
        if (NAME(forward)(layers + l)) return 1;
    }
    NAME(head_forward)(s, layers + top, last, logits, panels);
    NAME(cross_entropy)(s, logits);
    /* A loss that is not finite changes no weight. */
    if (*s->loss - *s->loss != 0.0f) return 3;
    NAME(head_backward)(s, layers + top, last, logits, d_last, panels);
    for (int64_t l = top; l >= 0; l--) {
        if (l < top) {
            memset(layers[l].d_h, 0, s->directions * s->batch * s->hidden_size * sizeof(float));
            if (s->masks) NAME(times)((float *)layers[l].d_output, s->masks[l], rows * width);
        }
        if (NAME(backward)(layers + l)) return 1;
    }
    if (s->clip > 0.0) NAME(clip)(s);
    NAME(update)(s);
    return 0;
}
