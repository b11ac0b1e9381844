#ifndef MASKWRIGHT_H
#define MASKWRIGHT_H

/* Generated from crates/kernels/src/c_api.rs by cbindgen: `MASKWRIGHT_UPDATE_HEADER=1 cargo test -p maskwright-kernels --test c_abi`; a test compares. */

#include <stddef.h>
#include <stdint.h>

// How a call ended.
typedef enum maskwright_status {
  // Done.
  maskwright_status_OK = 0,
  // A pointer is null that must not be.
  maskwright_status_NULL_POINTER = 1,
  // A length does not fit the plan or the mask.
  maskwright_status_LENGTH = 2,
  // A mask, block size, precision or shape is impossible.
  maskwright_status_MASK = 3,
  // The CPU cannot do what was asked for, or the environment names no kernel.
  maskwright_status_KERNEL = 4,
  // The workspace has too little room for the plan.
  maskwright_status_WORKSPACE = 5,
  // A fault of this library; an output may be half written.
  maskwright_status_INTERNAL = 6,
} maskwright_status;

// What an attention module's keys are.
typedef enum maskwright_kind {
  // Queries and keys are the same tokens.
  maskwright_kind_SELF_ATTENTION = 0,
  // Self-attention in which no token attends to a later one.
  maskwright_kind_CAUSAL_SELF_ATTENTION = 1,
  // Keys come from another sequence.
  maskwright_kind_CROSS_ATTENTION = 2,
} maskwright_kind;

// Attention of one module under its masks. Immutable: threads may share it.
typedef struct maskwright_plan maskwright_plan;

// Memory that a call works in; one call at a time.
typedef struct maskwright_workspace maskwright_workspace;

// Size of one attention module, and how it is computed.
typedef struct maskwright_module {
  // One of `maskwright_kind`.
  uint32_t kind;
  uint32_t heads;
  // Query tokens.
  uint32_t queries;
  // Key tokens; as many as queries for self-attention.
  uint32_t keys;
  // Width of a head: a multiple of 8, at most 512.
  uint32_t head_dim;
  // Threads that a call may use; 0 takes all.
  uint32_t threads;
  // 0: softmax of 8-bit blocks in floating point; 1: in integers.
  uint32_t integer_softmax;
} maskwright_module;

// One head's mask.
typedef struct maskwright_mask {
  // Side of a block in tokens: 8, 16 or 32.
  uint32_t block_size;
  // `ceil(queries / block_size) * ceil(keys / block_size)` bytes, row by row: 1, 2 or 4 for the bytes an element of the
  // block's arithmetic has at least (see `maskwright_plan_new`), 0 for a skipped block.
  const uint8_t *blocks;
  // How many bytes `blocks` has.
  size_t len;
} maskwright_mask;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Makes a plan of one mask a head, and puts it into `plan`; free it with `maskwright_plan_free`. The masks are copied.
//
// A block is computed at least as finely as its mask says: when the plan is made, it decides for each row whether the blocks
// of one precision are computed as finer ones because that is faster on the kernel at hand. 8-bit blocks under
// an integer softmax stay what they are. `maskwright_plan_promoted_blocks` says how many became finer, and
// `maskwright_plan_new_as_masked` makes plans without that choice.
//
// # Safety
// `module` and `plan` point to what they say, `masks` to `mask_count` masks, and each mask's `blocks` to `len` bytes; null
// pointers are refused.
enum maskwright_status maskwright_plan_new(const struct maskwright_module *module,
                                           const struct maskwright_mask *masks,
                                           size_t mask_count,
                                           struct maskwright_plan **plan);

// The same, but every block is computed as its mask says, also where a finer precision would be faster.
//
// # Safety
// As for `maskwright_plan_new`.
enum maskwright_status maskwright_plan_new_as_masked(const struct maskwright_module *module,
                                                     const struct maskwright_mask *masks,
                                                     size_t mask_count,
                                                     struct maskwright_plan **plan);

// Frees a plan; null is nothing to free.
//
// # Safety
// `plan` is null or a plan, and is not used again.
void maskwright_plan_free(struct maskwright_plan *plan);

// Makes a workspace for calls of `plan` and of plans that need no more; free it with `maskwright_workspace_free`.
//
// # Safety
// `plan` is a plan that was not freed, `workspace` points to a pointer; null is refused.
enum maskwright_status maskwright_workspace_new(const struct maskwright_plan *plan,
                                                struct maskwright_workspace **workspace);

// Makes room in `workspace` for calls of `plan`, too, as where layers that run one after the other share one. Allocates where
// there is not enough yet.
//
// # Safety
// `plan` is a plan and `workspace` a workspace, both not freed; null is refused. No other call uses `workspace` at the same time.
enum maskwright_status maskwright_workspace_reserve(struct maskwright_workspace *workspace,
                                                    const struct maskwright_plan *plan);

// Frees a workspace; null is nothing to free.
//
// # Safety
// `workspace` comes from `maskwright_workspace_new` and is not used again.
void maskwright_workspace_free(struct maskwright_workspace *workspace);

// Computes attention: `q` and `out` are `[heads, queries, head_dim]`, `k` and `v` `[heads, keys, head_dim]`, row-major and
// dense; `out` overlaps none of the others. Each length is in floats. Only the first `live_keys` keys exist, the rest is
// padding and never read; SIZE_MAX stands for all. Nothing is written unless the status is OK or INTERNAL.
//
// # Safety
// Every pointer points to what it says, arrays to as many floats as their length; null is refused. No other call uses
// `workspace` at the same time.
enum maskwright_status maskwright_run(const struct maskwright_plan *plan,
                                      const float *q,
                                      size_t q_len,
                                      const float *k,
                                      size_t k_len,
                                      const float *v,
                                      size_t v_len,
                                      size_t live_keys,
                                      float *out,
                                      size_t out_len,
                                      struct maskwright_workspace *workspace);

// The name of the instructions that `plan` computes with: `portable`, `avx2`, `avx512-vnni`, `avx512` or `amx`; empty for null. Not to be freed.
//
// # Safety
// `plan` is null or a plan that was not freed.
const char *maskwright_plan_kernel(const struct maskwright_plan *plan);

// How many active blocks `plan` computes more finely than their masks say, of all heads; 0 for null.
//
// # Safety
// `plan` is null or a plan that was not freed.
size_t maskwright_plan_promoted_blocks(const struct maskwright_plan *plan);

// What went wrong with the last call of this thread that did not end well: one sentence, empty if none. It stays until
// the thread's next call of this library, and is not to be freed.
const char *maskwright_error_message(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MASKWRIGHT_H */
