/* golden
 *
 * SPDX-License-Identifier: BSD-3-Clause
 * Copyright (c) 2026, the stl-deploy authors: the code. The weights are the network author's.
 *
 * Made by stl-deploy of one version from net.nir: integers only, no allocation, no floating point.
 *
 *     static net_state state;
 *
 *     net_init(&state);
 *     for (step = 0; step < steps; step++)
 *         if (net_step(&state, x, y) != 0)
 *             ... x is out of range
 *
 * All memory is in the state: several networks and several states of one may run side by side, in threads too, as long
 * as each state is stepped by one caller at a time. net_init comes before the first step of every new sequence.
 *
 * Input: 16 integers from 0 to 3 a step, in the order [1, 4, 4].
 * Output: 3 integers a step, in the order [3]; each stands for 1 times itself.
 *
 * Memory, in bytes, and synaptic operations a step. RAM is the state, sizeof(net_state) = 170; code, the stack and
 * the caller's arrays come on top: y has 12 bytes, x 64 as int32_t, 16 as int8_t, 2 as bits, 2 for each event.
 *
 *   layer                       flash      RAM  synops, at most    measured  what
 *   in                              0       16                               input, 1 x 4 x 4
 *   lif1                            6       64                               neurons, 2 x 4 x 4
 *   conv1                          18        0              200          12  convolution, 2 x 4 x 4
 *   pool1                           0        8               32              neurons, 2 x 2 x 2, largest of 2 x 2
 *   lif2                            3        9                               neurons, 3
 *   fc                             24        0               24           4  dense, 3
 *   out                             0        0                               output, 3
 *   shared                          0       72
 *   padding                         0        1
 *   total                          51      170              256          16
 */
#ifndef NET_H
#define NET_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    NET_INPUTS = 16,
    NET_OUTPUTS = 3,
    NET_INPUT_MIN = 0,
    NET_INPUT_MAX = 3,
    NET_STATE_BYTES = 170,
    NET_SPIKES = 43
};

/* Everything that lasts from step to step, and what a step works with. Its members are of no concern to callers. */
typedef struct net_state {
    int16_t lif1_v[32]; /* potentials, in 64ths */
    int16_t lif2_v[3]; /* potentials, in 64ths */
    union {
        int16_t s16[32];
    } scratch; /* sums of the layer at work */
    uint8_t in_values[16]; /* channels last */
    uint8_t pool1_spikes[8]; /* 1 where a neuron fired */
    uint8_t lif2_spikes[3]; /* 1 where a neuron fired */
    uint8_t row_spikes[8]; /* spikes of the row of neurons at work */
#ifdef NET_DEBUG
    uint32_t begun; /* whether net_init has been called: net_step asserts it */
#endif
#ifdef NET_RECORD
    /* For verification: every neuron's spike of the last step, layer by layer. Unlike x and y, images stand channels last.
     * from 0: lif1, [H, W, C] = [4, 4, 2]
     * from 32: pool1, [H, W, C] = [2, 2, 2]
     * from 40: lif2, [3]
     */
    uint8_t recorded[NET_SPIKES];
#endif
} net_state;

/* Bring every neuron to rest: before the first step of each sequence. Compiled with -DNET_DEBUG, your sources too, a
 * step of a state that was never initialised fails an assertion. */
void net_init(net_state *s);

/* One time step. Returns 0, or -1 if a value of x is below NET_INPUT_MIN or above NET_INPUT_MAX: then
 * the step is not taken. Compiled with -DNET_SATURATE, such a value counts as the nearest one in range instead.
 * x has NET_INPUTS values, y NET_OUTPUTS. */
int net_step(net_state *s, const int32_t *x, int32_t *y);

/* The same, with other forms of input. */
int net_step_int8(net_state *s, const int8_t *x, int32_t *y);

/* Input i is bit i % 8 of byte i / 8; always returns 0. */
int net_step_bits(net_state *s, const uint8_t *bits, int32_t *y);

/* The n inputs whose places are listed are 1, all others 0; a place may be listed twice. Returns -1 for a place that is
 * none: then the step is not taken. */
int net_step_events(net_state *s, const uint16_t *index, int32_t n, int32_t *y);

#ifdef __cplusplus
}
#endif

#endif
