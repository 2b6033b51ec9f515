/* Runs a network on an emulated board. The host's files are reached by semihosting: net.in holds int32 B, T and
 * x [B, T, NET_INPUTS], in int32, or with -DVALUE=float in float32, as y is then; net.out gets y [B, T, NET_OUTPUTS] and, if recorded, the spikes of each step, then at the end
 * the ticks spent in net_init and net_step as one uint32. Built with MARKS the ticks of each layer come before them, as
 * so many uint32. Nothing here is part of a network.
 * Built with AXES and AXES_UNIT, net.in holds raw samples instead, int16 [B, T, AXES]: each is encoded (axes.h), and the
 * class so far follows y in net.out, as one int32. */
#include <stdint.h>
#include <string.h>

#include "net.h"

#ifndef VALUE
#define VALUE int32_t
#endif

#ifdef AXES
#include "axes.h"
#include "net_decide.h"
#endif

extern uint32_t data_load[], data_start[], data_end[], bss_start[], bss_end[], stack_top[];

int main(void);
void start(void);

#ifdef __riscv
__asm__(".section .vectors, \"ax\"\n.globl begin\nbegin:\nla sp, stack_top\nj start\n.text\n");
#else
__attribute__((section(".vectors"), used)) static void *const vectors[] = { stack_top, (void *)start };
#endif

enum { OPEN = 1, CLOSE = 2, WRITE = 5, READ = 6, STOP = 0x18, READ_BINARY = 1, WRITE_BINARY = 5 };

static int32_t host(int32_t operation, const void *arguments)
{
#ifdef __riscv
    register int32_t a0 __asm__("a0") = operation;
    register const void *a1 __asm__("a1") = arguments;

    __asm__ volatile(".option push\n.option norvc\n.balign 16\nslli x0, x0, 0x1f\nebreak\nsrai x0, x0, 7\n.option pop"
                     : "+r"(a0) : "r"(a1) : "memory");
    return a0;
#else
    register int32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = arguments;

    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
#endif
}

static int32_t open_file(const char *name, uint32_t mode)
{
    const uint32_t arguments[] = { (uint32_t)name, mode, strlen(name) };

    return host(OPEN, arguments);
}

static void stop(int failed)
{
    host(STOP, (const void *)(uintptr_t)(failed ? 0x20023 : 0x20026));
    for (;;)
        ;
}

/* Semihosting returns how many bytes were not read or written. */
static void move(int32_t operation, int32_t file, void *to, uint32_t size)
{
    const uint32_t arguments[] = { (uint32_t)file, (uint32_t)to, size };

    if (host(operation, arguments) != 0)
        stop(1);
}

#ifdef __riscv
static void begin_ticks(void)
{
}

/* A tick is an instruction. */
static uint32_t ticks_now(void)
{
    uint32_t count;

    __asm__ volatile("csrr %0, minstret" : "=r"(count) : : "memory");
    return count;
}
#else
/* CMSDK timer 0 counts down; with one instruction a nanosecond a tick is 10^9 instructions over its rate. */
static volatile uint32_t *const timer = (volatile uint32_t *)TIMER;

static void begin_ticks(void)
{
    timer[1] = UINT32_MAX;
    timer[2] = UINT32_MAX;
    timer[0] = 1;
}

static uint32_t ticks_now(void)
{
    return -timer[1];
}
#endif

#ifdef MARKS
static uint32_t layer_ticks[MARKS], marked_at;
static int32_t layer_now;

/* Ends the ticks of one layer and begins those of another. */
void mark(int32_t layer)
{
    const uint32_t now = ticks_now();

    layer_ticks[layer_now] += now - marked_at;
    layer_now = layer;
    marked_at = now;
}
#endif

int main(void)
{
    static net_state state;
    static VALUE x[NET_INPUTS], y[NET_OUTPUTS];
    const int32_t in = open_file("net.in", READ_BINARY);
    const int32_t out = open_file("net.out", WRITE_BINARY);
    int32_t size[2];
    uint32_t ticks = 0;
#ifdef AXES
    static axes_state encoder;
    static net_decision decision;
    int32_t class_so_far;
    int16_t raw[AXES];
#endif

    if (in < 0 || out < 0)
        stop(1);
    move(READ, in, size, sizeof size);
    begin_ticks();
    for (int32_t sample = 0; sample < size[0]; sample++)
        for (int32_t step = 0; step < size[1]; step++) {
            uint32_t before;

#ifdef AXES
            move(READ, in, raw, sizeof raw);
#else
            move(READ, in, x, sizeof x);
#endif
            before = ticks_now();
#ifdef MARKS
            layer_now = 0;
            marked_at = before;
#endif
            if (step == 0)
                net_init(&state);
#ifdef AXES
            if (step == 0) {
                axes_init(&encoder);
                net_decide_init(&decision);
            }
            axes_step(&encoder, raw, x);
#endif
            if (net_step(&state, x, y) != 0)
                stop(1);
#ifdef MARKS
            mark(0);
#endif
#ifdef AXES
            net_decide(&decision, y);
            class_so_far = net_class(&decision);
#endif
            ticks += ticks_now() - before;
            move(WRITE, out, y, sizeof y);
#ifdef AXES
            move(WRITE, out, &class_so_far, sizeof class_so_far);
#endif
#ifdef NET_RECORD
            move(WRITE, out, state.recorded, sizeof state.recorded);
#endif
        }
#ifdef MARKS
    move(WRITE, out, layer_ticks, sizeof layer_ticks);
#endif
    move(WRITE, out, &ticks, sizeof ticks);
    {
        const uint32_t file = (uint32_t)out;

        host(CLOSE, &file);
    }
    stop(0);
}

void start(void)
{
    const uint32_t *from = data_load;

#ifdef __ARM_FP
    *(volatile uint32_t *)0xe000ed88 |= 0xfu << 20; /* CPACR: the float unit is off after a reset */
    __asm__ volatile("dsb\nisb");
#elif defined __riscv_flen
    __asm__ volatile("csrs mstatus, %0" : : "r"(0x2000));
#endif
    for (uint32_t *to = data_start; to < data_end;)
        *to++ = *from++;
    for (uint32_t *to = bss_start; to < bss_end;)
        *to++ = 0;
    main();
}
