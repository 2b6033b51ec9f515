/* golden
 *
 * Made by stl-deploy of one version from net.nir: integers only, no allocation, no floating point.
 *
 * Input: 16 whole numbers from 0 to 3 a step, in the order [1, 4, 4].
 * Output: 3 whole numbers a step, in the order [3]; each stands for 1 times itself.
 *
 * Memory, in bytes (code and stack come on top), and synaptic operations a step:
 *
 *   layer                       flash      RAM  synops, at most    measured  what
 *   in                              0       16                               input, 1 x 4 x 4
 *   lif1                            6      128                               neurons, 2 x 4 x 4
 *   conv1                          18        0              200          12  convolution, 2 x 4 x 4
 *   pool1                           0        8               32              neurons, 2 x 2 x 2, largest of 2 x 2
 *   lif2                            3       15                               neurons, 3
 *   fc                             24        0               24           4  dense, 3
 *   out                             0        0                               output, 3
 *   shared                          0       72
 *   total                          51      239              256          16
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
    NET_INPUT_MAX = 3
};

/* Bring every neuron to rest: before the first step of each sample. */
void net_reset(void);

/* One time step. Returns 0, or -1 if a value of x is below NET_INPUT_MIN or above NET_INPUT_MAX: then
 * the step is not taken. */
int net_step(const int32_t *x, int32_t *y);

#ifdef NET_RECORD
/* For verification: every neuron's spike of the last step, layer by layer. */
enum { NET_SPIKES = 43 };
extern uint8_t net_spikes[NET_SPIKES];
#endif

#ifdef __cplusplus
}
#endif

#endif
