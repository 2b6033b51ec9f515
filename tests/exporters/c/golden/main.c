/* Runs the network on stdin: int32 little-endian B, T, then x [B, T, NET_INPUTS]; writes y [B, T, NET_OUTPUTS].
 * "net --decide MARGIN" stops each sample once it is sure by so much, and writes its class and the steps it took
 * [B, 2] instead.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net_decide.h"
#include "net.h"

static void refuse(const char *found)
{
    fprintf(stderr, "net: expected int32 B and T, then x [B, T, %d]; found %s\n", NET_INPUTS, found);
    exit(2);
}

static int32_t read_number(void)
{
    unsigned char bytes[4];
    uint32_t number;

    if (fread(bytes, 1, sizeof bytes, stdin) != sizeof bytes)
        refuse("an input that ends early");
    number = bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
    return number <= INT32_MAX ? (int32_t)number : (int32_t)(number - UINT32_MAX - 1);
}

static void write_number(int32_t number)
{
    const uint32_t bits = (uint32_t)number;
    const unsigned char bytes[4] = {
        (unsigned char)bits, (unsigned char)(bits >> 8), (unsigned char)(bits >> 16), (unsigned char)(bits >> 24)
    };

    fwrite(bytes, 1, sizeof bytes, stdout);
}

/* The margin of --decide, from 0; -1: none is asked for. */
static int32_t margin_of(int argc, char **argv)
{
    char *end = NULL;
    long margin = -1;

    if (argc == 1)
        return -1;
    if (argc == 3 && strcmp(argv[1], "--decide") == 0)
        margin = strtol(argv[2], &end, 10);
    if (end == NULL || *end != '\0' || end == argv[2] || margin < 0 || margin > INT32_MAX) {
        fputs("net: expected --decide MARGIN, an integer from 0\n", stderr);
        exit(2);
    }
    return (int32_t)margin;
}

int main(int argc, char **argv)
{
    const int32_t margin = margin_of(argc, argv);
    static net_state state;
    static int32_t x[NET_INPUTS], y[NET_OUTPUTS];
    net_decision decision;
    const int32_t samples = read_number();
    const int32_t steps = read_number();

    if (samples < 1 || steps < 1) {
        fprintf(stderr, "net: expected B and T from 1; found B = %ld and T = %ld\n", (long)samples, (long)steps);
        return 2;
    }
    for (int32_t sample = 0; sample < samples; sample++) {
        int32_t taken = 0;

        net_decide_init(&decision);
        net_init(&state);
        for (int32_t step = 0; step < steps; step++) {
            for (int32_t i = 0; i < NET_INPUTS; i++)
                x[i] = read_number();
            if (margin >= 0 && net_sure(&decision, margin))
                continue;
            if (net_step(&state, x, y) != 0) {
                fprintf(stderr, "net: sample %ld, step %ld: the input holds a value outside %d to %d\n",
                        (long)sample, (long)step, NET_INPUT_MIN, NET_INPUT_MAX);
                return 2;
            }
            net_decide(&decision, y);
            taken++;
            if (margin >= 0)
                continue;
            for (int32_t i = 0; i < NET_OUTPUTS; i++)
                write_number(y[i]);
#ifdef NET_RECORD
            fwrite(state.recorded, 1, sizeof state.recorded, stdout);
#endif
        }
        if (margin >= 0) {
            write_number(net_class(&decision));
            write_number(taken);
        }
    }
    if (getchar() != EOF)
        refuse("bytes after them");
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fputs("net: the output cannot be written\n", stderr);
        return 1;
    }
    return 0;
}
