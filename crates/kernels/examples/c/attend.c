/* Two heads of 40 tokens, in blocks of 16 and of 8. Prints the largest difference of a mean over ones from one, and what a
   wrong length is answered with. Built and run by `cargo test -p maskwright-kernels --test c_abi`. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "maskwright.h"

enum { HEADS = 2, TOKENS = 40, HEAD_DIM = 32, VALUES = HEADS * TOKENS * HEAD_DIM };

static void check(maskwright_status status) {
    if (status != maskwright_status_OK) {
        fprintf(stderr, "%s\n", maskwright_error_message());
        exit(1);
    }
}

int main(void) {
    /* Bytes an element: 4 is f32, 2 bf16, 1 int8; 0 is skipped. */
    static const uint8_t coarse[] = {4, 0, 0, 2, 4, 0, 0, 1, 4};
    static const uint8_t fine[] = {4, 0, 0, 0, 0, 1, 4, 0, 0, 0, 1, 1, 4, 0, 0, 1, 0, 1, 4, 0, 1, 0, 0, 1, 4};
    const maskwright_mask masks[HEADS] = {{16, coarse, sizeof coarse}, {8, fine, sizeof fine}};
    const maskwright_module module = {
        .kind = maskwright_kind_SELF_ATTENTION, .heads = HEADS, .queries = TOKENS, .keys = TOKENS, .head_dim = HEAD_DIM,
        .threads = 1,
    };
    maskwright_plan *plan;
    maskwright_workspace *workspace;
    check(maskwright_plan_new(&module, masks, HEADS, &plan));
    check(maskwright_workspace_new(plan, &workspace));

    static float q[VALUES], v[VALUES], out[VALUES];
    for (int at = 0; at < VALUES; at++) {
        q[at] = sinf((float)at);
        v[at] = 1;
    }
    check(maskwright_run(plan, q, VALUES, q, VALUES, v, VALUES, SIZE_MAX, out, VALUES, workspace));
    double worst = 0; /* a weighted mean of ones is one */
    for (int at = 0; at < VALUES; at++) worst = fmax(worst, fabs(out[at] - 1));
    printf("worst %.1e\n", worst);

    maskwright_status refused =
        maskwright_run(plan, q, VALUES - 1, q, VALUES, v, VALUES, SIZE_MAX, out, VALUES, workspace);
    printf("%d: %s\n", refused, maskwright_error_message());
    maskwright_workspace_free(workspace);
    maskwright_plan_free(plan);
    return worst < 1e-2 ? 0 : 1;
}
