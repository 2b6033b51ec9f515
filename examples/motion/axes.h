/* Changes of sensor values as spike counts: the encoder `axes` of stl-deploy, in integers.
 *
 * SPDX-License-Identifier: BSD-3-Clause
 *
 *     static axes_state encoder;
 *
 *     axes_init(&encoder);                    before the first sample of each sequence
 *     axes_step(&encoder, sample, x);         for each sample; x goes to net_step
 *
 * Channel 2a of x counts how many units axis a rose, channel 2a + 1 how many it fell: 0 to 15 a step, the excess comes in
 * later steps. The first sample is the level that changes are counted from. Define before this file is included:
 * AXES, values in a sample, and AXES_UNIT, the change that one spike stands for, in steps of the sensor's converter.
 */
#ifndef AXES_H
#define AXES_H

#include <stdint.h>

enum { AXES_MOST = 15 };

typedef struct axes_state {
    int32_t level[AXES];
    int32_t begun;
} axes_state;

static inline void axes_init(axes_state *s)
{
    s->begun = 0;
}

static inline void axes_step(axes_state *s, const int16_t *sample, int32_t *x)
{
    int32_t a;

    for (a = 0; a < AXES; a++) {
        int32_t moved;

        if (s->begun == 0) {
            s->level[a] = sample[a];
        }
        moved = (sample[a] - s->level[a]) / AXES_UNIT;
        if (moved > AXES_MOST) {
            moved = AXES_MOST;
        }
        if (moved < -AXES_MOST) {
            moved = -AXES_MOST;
        }
        s->level[a] += moved * AXES_UNIT;
        x[2 * a] = (moved > 0) ? moved : 0;
        x[(2 * a) + 1] = (moved < 0) ? -moved : 0;
    }
    s->begun = 1;
}

#endif
