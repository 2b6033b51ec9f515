/* golden
 *
 * Made by stl-deploy of one version from net.nir. What each step computes is in net.h and in the comments below.
 */
#include <string.h>

#include "net.h"

#ifndef STL_RESTRICT
#ifdef __cplusplus
#define STL_RESTRICT __restrict
#else
#define STL_RESTRICT restrict
#endif
#endif

/* Registers of 64 bits and vectors, or of 32 bits; -DNET_NARROW chooses the latter anywhere. */
#if (UINTPTR_MAX > UINT32_MAX) && !defined NET_NARROW
#define NET_WIDE
#endif

/* To count or time layers: called with a layer's number before its work. */
#ifndef NET_MARK
#define NET_MARK(layer) ((void)0)
#endif

/* Products and sums of the functions below need an int of 32 bits: this array has a size below 0 without. */
typedef char net_int_has_32_bits[sizeof(int) >= 4 ? 1 : -1];

#ifdef NET_DEBUG
#include <assert.h>
#define NET_BEGUN 0x6e657475u
#endif

#if !defined NET_RECORD && !defined NET_DEBUG
/* The state is as large as net.h says: this array has a size below 0 if it is not. */
typedef char net_state_size_as_told[sizeof(net_state) == NET_STATE_BYTES ? 1 : -1];
#endif

/* Where registers are few, inner loops are functions of their own, and several neurons take turns in one. */
#if defined __GNUC__ && !defined NET_WIDE
#define STL_APART __attribute__((noinline))
#define STL_UNROLL _Pragma("GCC unroll 4")
#else
#define STL_APART
#define STL_UNROLL
#endif

/* lif1: neurons, 2 x 4 x 4 */
static const int16_t lif1_bias[2] = { /* added in every step */
    1, -2
};
static const int8_t lif1_threshold[2] = { /* a neuron fires above it */
    9, 12
};

/* conv1: convolution, 2 x 4 x 4 */
static const int8_t conv1_weight[18] = { /* 2 x 1 x 3 x 3, by input channel, columns last to first */
    -7, 2, -8, 1, -9, 0, -4, 5, -5, 4, -6, 3, -1, 8, -2, 7, -3, 6
};

/* lif2: neurons, 3 */
static const int8_t lif2_threshold[3] = { /* a neuron fires above it */
    3, 1, 2
};

/* fc: dense, 3 */
static const int8_t fc_weight[24] = { /* 3 x 8, by input */
    0, 1, 2, -3, -2, -1, 1, 2, 3, -2, -1, 0, 2, 3, -3, -1, 0, 1, 3, -3, -2, 0, 1, 2
};

struct layer_shape {
    int32_t channels;
    int32_t height;
    int32_t width;
    int32_t out_channels;
    int32_t pairs;
    int32_t out_height;
    int32_t out_width;
    int32_t kernel_height;
    int32_t kernel_width;
    int32_t top;
    int32_t left;
    int32_t stride_rows;
    int32_t stride_columns;
    int32_t dilation_rows;
    int32_t dilation_columns;
    int32_t groups;
};

static const struct layer_shape conv1_shape = {
    1, /* channels */
    4, /* height */
    4, /* width */
    2, /* out_channels */
    0, /* pairs */
    4, /* out_height */
    4, /* out_width */
    3, /* kernel_height */
    3, /* kernel_width */
    1, /* top */
    1, /* left */
    1, /* stride_rows */
    1, /* stride_columns */
    1, /* dilation_rows */
    1, /* dilation_columns */
    1 /* groups */
};

/* Add n weights, x times each, to as many sums. */
static void add_times_s16(int16_t *STL_RESTRICT sums, const int8_t *STL_RESTRICT weight, int32_t x, int32_t n)
{
    for (int32_t i = 0; i < n; i++) {
        sums[i] = (int16_t)(sums[i] + weight[i] * x);
    }
}

static void clear_s16(int16_t *sums, int32_t n)
{
    (void)memset(sums, 0, (size_t)n * sizeof *sums);
}

/* Begin rows of sums with their biases. */
static void fill_s16(int16_t *STL_RESTRICT sums, const int16_t *STL_RESTRICT bias, int32_t n, int32_t rows)
{
    for (int32_t row = 0; row < rows; row++) {
        (void)memcpy(&sums[row * n], bias, (size_t)n * sizeof *sums);
    }
}

/* Every input that is not 0 adds its row of weights, as often as it says. */
static void dense_u8_s16(const uint8_t *STL_RESTRICT in, int32_t ins, const int8_t *STL_RESTRICT weight,
                         int16_t *STL_RESTRICT sums, int32_t outs)
{
    for (int32_t i = 0; i < ins; i++) {
        if (in[i] != 0u) {
            add_times_s16(sums, &weight[i * outs], in[i], outs);
        }
    }
}

/* One row of inputs: each that is not 0 adds its kernel around where it is. Neighbouring columns of the output lie side
 * by side, as do the kernel's columns (stored last to first), so that a row is added at once. Row i of outputs stands
 * in slot i modulo slots. */
static void conv_u8_s16(const struct layer_shape *layer, int32_t row, const uint8_t *STL_RESTRICT in,
                        const int8_t *STL_RESTRICT weight, int16_t *STL_RESTRICT sums, int32_t slots)
{
    const int32_t pixel = layer->out_channels;
    const int32_t line = layer->out_width * pixel;
    const int32_t columns = layer->kernel_width;
    const int32_t kernel_line = columns * pixel;
    const int32_t kernel = layer->kernel_height * kernel_line;
    const int32_t bottom = row + layer->top;
    const int32_t first = bottom < layer->out_height ? 0 : bottom - layer->out_height + 1;
    const int32_t last = bottom < layer->kernel_height ? bottom : layer->kernel_height - 1;
    const int32_t newest = (bottom - first) % slots * line;

    in += row * layer->width * layer->channels;
    for (int32_t i = 0; i < layer->width * layer->channels; i++) {
        const int32_t column = i / layer->channels;
        const int32_t channel = i % layer->channels;
        const int32_t x = *in++;
        const int32_t left = column + layer->left - columns + 1;
        const int32_t skipped = left < 0 ? -left : 0;
        const int32_t end = left + columns > layer->out_width ? layer->out_width - left : columns;
        const int8_t *inside = &weight[channel * kernel + skipped * pixel];
        int32_t at = newest + (left + skipped) * pixel;

        if (x == 0) {
            continue;
        }
        for (int32_t k = first; k <= last; k++) {
            add_times_s16(&sums[at], &inside[k * kernel_line], x, (end - skipped) * pixel);
            at = at < line ? at + (slots - 1) * line : at - line;
        }
    }
}

/* Rows of 2 neurons, one step. v keeps 2048 of 4096, rounded toward 0 and gains
 * 64 times what arrives; above 64 times its threshold a neuron fires, and v is 0.
 * Of 2 neighbours, pooled is 1 where one fires. */
STL_APART static void neurons_1(int16_t *STL_RESTRICT v, const int16_t *STL_RESTRICT sums,
                                const int8_t *STL_RESTRICT threshold, uint8_t *STL_RESTRICT spikes,
                                uint8_t *STL_RESTRICT pooled, int32_t rows)
{
    for (int32_t row = 0; row < rows; row++) {
        uint8_t *STL_RESTRICT pool = &pooled[row / 2 * 2];

#if !defined NET_WIDE && !defined NET_RECORD
    (void)spikes;
#endif
        for (int32_t i = 0; i < 2; i++) {
            const int32_t current = 64 * (int32_t)sums[i];
            const int32_t now = v[i] / 2 + current;

#ifdef NET_WIDE
            spikes[i] = (now > (64 * (int32_t)threshold[i])) ? 1 : 0;
            pool[i] |= (now > (64 * (int32_t)threshold[i])) ? 1u : 0u;
            v[i] = (int16_t)((now > (64 * (int32_t)threshold[i])) ? 0 : now);
#else
#ifdef NET_RECORD
            spikes[i] = (now > (64 * (int32_t)threshold[i])) ? 1 : 0;
#endif
            if (now > (64 * (int32_t)threshold[i])) {
                pool[i] = 1;
                v[i] = (int16_t)(0);
            } else {
                v[i] = (int16_t)now;
            }
#endif
        }
        v += 2;
        sums += 2;
        spikes += 2;
    }
}

/* A row of 3 neurons, one step. v keeps 3096 of 4096, rounded toward 0 and gains
 * 64 times what arrives; above 64 times its threshold a neuron fires, and v is 0. */
STL_APART static void neurons_2(int16_t *STL_RESTRICT v, const int16_t *STL_RESTRICT sums,
                                const int8_t *STL_RESTRICT threshold, uint8_t *STL_RESTRICT spikes)
{
    for (int32_t i = 0; i < 3; i++) {
        const int32_t current = 64 * (int32_t)sums[i];
        const int32_t now = v[i] * 3096 / 4096 + current;

#ifdef NET_WIDE
        spikes[i] = (now > (64 * (int32_t)threshold[i])) ? 1 : 0;
        v[i] = (int16_t)((now > (64 * (int32_t)threshold[i])) ? 0 : now);
#else
        spikes[i] = 0;
        if (now > (64 * (int32_t)threshold[i])) {
            spikes[i] = 1;
            v[i] = (int16_t)(0);
        } else {
            v[i] = (int16_t)now;
        }
#endif
    }
}

/* One step of what was taken in. */
static void run(net_state *s, int32_t *y)
{
#ifdef NET_DEBUG
    assert(s->begun == NET_BEGUN);
#endif
    NET_MARK(1); /* lif1: neurons, 2 x 4 x 4 */
    fill_s16(s->scratch.s16, lif1_bias, 2, 16);
    for (int32_t row = 0; row < 4; row++) {
        conv_u8_s16(&conv1_shape, row, s->in_values, conv1_weight, s->scratch.s16, 4);
    }
    /* pool1: the largest of 2 x 2 */
    (void)memset(s->pool1_spikes, 0, sizeof s->pool1_spikes);
    for (int32_t row = 0; row < 4; row++) {
        const int32_t at = row * 8;

        neurons_1(&s->lif1_v[at], &s->scratch.s16[at], lif1_threshold, s->row_spikes, &s->pool1_spikes[row / 2 * 4], 4);
#ifdef NET_RECORD
        (void)memcpy(&s->recorded[row * 8], s->row_spikes, 8);
#endif
    }
#ifdef NET_RECORD
    (void)memcpy(&s->recorded[32], s->pool1_spikes, 8);
#endif

    NET_MARK(2); /* lif2: neurons, 3 */
    clear_s16(s->scratch.s16, 3);
    dense_u8_s16(s->pool1_spikes, 8, fc_weight, s->scratch.s16, 3);
    neurons_2(s->lif2_v, s->scratch.s16, lif2_threshold, s->lif2_spikes);
#ifdef NET_RECORD
    (void)memcpy(&s->recorded[40], s->lif2_spikes, 3);
#endif

    NET_MARK(3); /* out: output, 3 */
    for (int32_t i = 0; i < 3; i++) {
        y[i] = s->lif2_spikes[i];
    }
}

void net_init(net_state *s)
{
    (void)memset(s, 0, sizeof *s);
#ifdef NET_DEBUG
    s->begun = NET_BEGUN;
#endif
}

/* Whether a value is refused. Built with NET_SATURATE none is: it counts as the nearest one in range. */
static int is_refused(int32_t value)
{
#ifdef NET_SATURATE
    (void)value;
    return 0;
#else
    return (value < NET_INPUT_MIN) || (value > NET_INPUT_MAX);
#endif
}

static int32_t nearest(int32_t value)
{
    const int32_t low = (value < NET_INPUT_MIN) ? NET_INPUT_MIN : value;

    return (low > NET_INPUT_MAX) ? NET_INPUT_MAX : low;
}

int net_step(net_state *s, const int32_t *x, int32_t *y)
{
#ifdef NET_WIDE
    int refused = 0;

    for (int32_t i = 0; i < NET_INPUTS; i++) { /* to the end, so that vectors may take it */
        refused |= is_refused(x[i]);
    }
    if (refused != 0) {
        return -1;
    }
#else
    for (int32_t i = 0; i < NET_INPUTS; i++) {
        if (is_refused(x[i]) != 0) {
            return -1;
        }
    }
#endif
    for (int32_t i = 0; i < 16; i++) {
        s->in_values[i] = (uint8_t)nearest(x[i]);
    }
    run(s, y);
    return 0;
}

int net_step_int8(net_state *s, const int8_t *x, int32_t *y)
{
#ifdef NET_WIDE
    int refused = 0;

    for (int32_t i = 0; i < NET_INPUTS; i++) { /* to the end, so that vectors may take it */
        refused |= is_refused(x[i]);
    }
    if (refused != 0) {
        return -1;
    }
#else
    for (int32_t i = 0; i < NET_INPUTS; i++) {
        if (is_refused(x[i]) != 0) {
            return -1;
        }
    }
#endif
    for (int32_t i = 0; i < 16; i++) {
        s->in_values[i] = (uint8_t)nearest(x[i]);
    }
    run(s, y);
    return 0;
}

int net_step_bits(net_state *s, const uint8_t *bits, int32_t *y)
{
    for (int32_t at = 0; at < NET_INPUTS; at++) {
        const uint32_t bit = ((uint32_t)bits[at / 8] >> ((uint32_t)at % 8u)) & 1u;

        s->in_values[at] = (uint8_t)bit;
    }
    run(s, y);
    return 0;
}

int net_step_events(net_state *s, const uint16_t *index, int32_t n, int32_t *y)
{
    for (int32_t i = 0; i < n; i++) {
        const int32_t at = index[i];

        if (at >= NET_INPUTS) {
            return -1;
        }
    }
    (void)memset(s->in_values, 0, sizeof s->in_values);
    for (int32_t i = 0; i < n; i++) {
        s->in_values[index[i]] = 1;
    }
    run(s, y);
    return 0;
}
