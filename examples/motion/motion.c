/* The class of a recording, sample by sample: ./motion < recording.csv
 *
 * SPDX-License-Identifier: BSD-3-Clause
 *
 * A line is a sample: AXES integers with commas between them, from -32768 to 32767. Firmware calls the same functions
 * with samples from the sensor. Compile with the C folder's net.c and net_decide.c, -DAXES=6 -DAXES_UNIT=100.
 */
#include <stdio.h>
#include <stdlib.h>

#include "axes.h"
#include "net.h"
#include "net_decide.h"

static int read_sample(const char *text, int16_t *sample)
{
    int a;

    for (a = 0; a < AXES; a++) {
        char *end;
        const long value = strtol(text, &end, 10);

        if (end == text || value < INT16_MIN || value > INT16_MAX)
            return -1;
        sample[a] = (int16_t)value;
        while (*end == ' ' || *end == '\t' || *end == '\r')
            end++;
        if (*end != ((a + 1 < AXES) ? ',' : '\n') && !(a + 1 == AXES && *end == '\0'))
            return -1;
        text = end + 1;
    }
    return 0;
}

int main(void)
{
    static axes_state encoder;
    static net_state net;
    static net_decision decision;
    char line[512];
    long number = 0;

    axes_init(&encoder);
    net_init(&net);
    net_decide_init(&decision);
    while (fgets(line, sizeof line, stdin) != NULL) {
        int16_t sample[AXES];
        int32_t x[2 * AXES], y[NET_OUTPUTS];

        number++;
        if (read_sample(line, sample) != 0) {
            fprintf(stderr, "line %ld: expected %d integers of 16 bits with commas between them\n", number, AXES);
            return 2;
        }
        axes_step(&encoder, sample, x);
        if (net_step(&net, x, y) != 0) {
            fprintf(stderr, "line %ld: counts beyond those that the network takes\n", number);
            return 1;
        }
        net_decide(&decision, y);
    }
    if (number == 0) {
        fprintf(stderr, "expected a sample in each line; found none\n");
        return 2;
    }
    printf("%d\n", net_class(&decision));
    return 0;
}
