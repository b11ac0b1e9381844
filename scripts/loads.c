/* How many loads a core does in the time of two 512-bit products, and what that costs the innermost loops of the kernels
   (docs/decisions/208). Needs AVX-512; prints the least of many runs.

       gcc -O2 scripts/loads.c -o /tmp/loads && taskset -c 1 /tmp/loads */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define REPEAT2(x) x x
#define REPEAT4(x) REPEAT2(x) REPEAT2(x)
#define REPEAT8(x) REPEAT4(x) REPEAT4(x)
#define FMA(sum, a, b) "vfmadd231ps %%zmm" #a ", %%zmm" #b ", %%zmm" #sum "\n"
#define EIGHT_SUMS(a, b) FMA(0, a, b) FMA(1, a, b) FMA(2, a, b) FMA(3, a, b) FMA(4, a, b) FMA(5, a, b) FMA(6, a, b) FMA(7, a, b)
#define SIXTEEN_SUMS(a, b) EIGHT_SUMS(a, b) FMA(8, a, b) FMA(9, a, b) FMA(10, a, b) FMA(11, a, b) FMA(12, a, b) FMA(13, a, b) FMA(14, a, b) FMA(15, a, b)
#define KEYS(n, at) "vmovups " #at "(%1), %%zmm" #n "\n"
#define QUERY "vbroadcastss 8(%1), %%zmm30\n"
/* One query's word with one, two or three vectors of keys. */
#define ONE(a) QUERY FMA(a, 30, 24)
#define TWO(a, b) QUERY FMA(a, 30, 24) FMA(b, 30, 25)
#define THREE(a, b, c) QUERY FMA(a, 30, 24) FMA(b, 30, 25) FMA(c, 30, 26)
#define FOUR(a, b, c, d) THREE(a, b, c) FMA(d, 30, 27)

#define LOOP(name, body)                                                                                     \
    static void name(long times, const float *at) {                                                          \
        __asm__ volatile("1:\n" body "dec %0\njnz 1b\nvzeroupper\n" : "+r"(times) : "r"(at)                   \
                         : "rax", "rcx", "rdx", "r8", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", \
                           "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "memory"); \
    }

LOOP(products, SIXTEEN_SUMS(30, 31))
LOOP(loads_512, REPEAT8("vmovups (%1), %%zmm0\nvmovups 64(%1), %%zmm1\n"))
LOOP(loads_256, REPEAT8("vmovups (%1), %%ymm0\nvmovups 64(%1), %%ymm1\n"))
LOOP(repeated, REPEAT8("vbroadcastss (%1), %%zmm0\nvbroadcastss 64(%1), %%zmm1\n"))
LOOP(scalars, REPEAT4("mov (%1), %%rax\nmov 64(%1), %%rcx\nmov 128(%1), %%rdx\nmov 192(%1), %%r8\n"))
LOOP(eight_by_one, KEYS(24, 0) ONE(0) ONE(1) ONE(2) ONE(3) ONE(4) ONE(5) ONE(6) ONE(7))
LOOP(eight_by_two, KEYS(24, 0) KEYS(25, 64) TWO(0, 1) TWO(2, 3) TWO(4, 5) TWO(6, 7) TWO(8, 9) TWO(10, 11) TWO(12, 13) TWO(14, 15))
LOOP(four_by_three, KEYS(24, 0) KEYS(25, 64) KEYS(26, 128) THREE(0, 1, 2) THREE(3, 4, 5) THREE(6, 7, 8) THREE(9, 10, 11))
LOOP(eight_by_three, KEYS(24, 0) KEYS(25, 64) KEYS(26, 128) THREE(0, 1, 2) THREE(3, 4, 5) THREE(6, 7, 8) THREE(9, 10, 11)
     THREE(12, 13, 14) THREE(15, 16, 17) THREE(18, 19, 20) THREE(21, 22, 23))
LOOP(four_by_four, KEYS(24, 0) KEYS(25, 64) KEYS(26, 128) KEYS(27, 192) FOUR(0, 1, 2, 3) FOUR(4, 5, 6, 7) FOUR(8, 9, 10, 11) FOUR(12, 13, 14, 15))
LOOP(five_by_four, KEYS(24, 0) KEYS(25, 64) KEYS(26, 128) KEYS(27, 192) FOUR(0, 1, 2, 3) FOUR(4, 5, 6, 7) FOUR(8, 9, 10, 11) FOUR(12, 13, 14, 15)
     FOUR(16, 17, 18, 19))
LOOP(six_by_four, KEYS(24, 0) KEYS(25, 64) KEYS(26, 128) KEYS(27, 192) FOUR(0, 1, 2, 3) FOUR(4, 5, 6, 7) FOUR(8, 9, 10, 11) FOUR(12, 13, 14, 15)
     FOUR(16, 17, 18, 19) FOUR(20, 21, 22, 23))

static const struct { const char *name; void (*run)(long, const float *); double loads, products; } LOOPS[] = {
    {"512-bit loads", loads_512, 16, 0}, {"256-bit loads", loads_256, 16, 0}, {"32 bits in 512", repeated, 16, 0}, {"scalars", scalars, 16, 0},
    {"8 queries by 1", eight_by_one, 9, 8}, {"8 by 2", eight_by_two, 10, 16}, {"4 by 3", four_by_three, 7, 12},
    {"8 by 3", eight_by_three, 11, 24}, {"4 by 4", four_by_four, 8, 16},
    {"5 by 4", five_by_four, 9, 20}, {"6 by 4", six_by_four, 10, 24},
};
enum { COUNT = sizeof LOOPS / sizeof *LOOPS, TIMES = 2000, RUNS = 4000 };

static double seconds(void (*run)(long, const float *), const float *at) {
    struct timespec begun, ended;
    clock_gettime(CLOCK_MONOTONIC, &begun);
    run(TIMES, at);
    clock_gettime(CLOCK_MONOTONIC, &ended);
    return (ended.tv_sec - begun.tv_sec + 1e-9 * (ended.tv_nsec - begun.tv_nsec)) / TIMES;
}

int main(void) {
    float *at = aligned_alloc(4096, 4096);
    if (!at) return 1;
    for (int n = 0; n < 1024; n++) at[n] = 1;
    double least[COUNT], of_products = 1;
    for (int n = 0; n < COUNT; n++) least[n] = 1;
    for (int run = 0; run < RUNS; run++) {
        double once = seconds(products, at);
        of_products = once < of_products ? once : of_products;
        for (int n = 0; n < COUNT; n++) {
            once = seconds(LOOPS[n].run, at);
            least[n] = once < least[n] ? once : least[n];
        }
    }
    double cycle = of_products / 8; /* two of 16 products */
    for (int n = 0; n < COUNT; n++) {
        double cycles = least[n] / cycle;
        printf("%-15s %5.2f cycles", LOOPS[n].name, cycles);
        if (LOOPS[n].products) printf(" a word, %.0f for products\n", LOOPS[n].products / 2);
        else printf(", %.2f a load\n", cycles / LOOPS[n].loads);
    }
    free(at);
    return 0;
}
