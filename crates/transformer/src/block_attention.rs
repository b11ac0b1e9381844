//! Attention under block masks as an operation of our own: forward by `maskwright-kernels`, the very arithmetic that is
//! deployed, and backward over active blocks alone (`docs/decisions/503`).

#![cfg_attr(
    feature = "libtorch",
    allow(deprecated, reason = "burn 0.22 has this backend; docs/backends.md says what it is for")
)]

mod flex;
mod gradients;
#[cfg(feature = "libtorch")]
mod libtorch;
mod operand;
mod products;

use std::sync::{Arc, Mutex, PoisonError};

use burn::{
    backend::{
        Autodiff, Backend, Dispatch,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use maskwright_blueprint::{AttentionKind, AttentionShape, BlockMask, BlockSize, HeadMask, Precision};
use maskwright_kernels::{AttentionPlan, Inputs, Kernel, KernelError, PlanOptions, Workspace};
use rayon::prelude::*;

use gradients::{HeadGradients, HeadInputs, Room, add_gradients};
use operand::Operand;

/// One module's masks for one number of queries, ready to run.
///
/// Examples are computed side by side, each by one thread, so that the result does not depend on the number of threads.
#[derive(Debug)]
pub(crate) struct BlockAttention {
    plan: AttentionPlan,
    heads: Vec<HeadBlocks>,
    /// Only so many first queries are read, by a plan with one query more, which sets the scale of 8-bit queries.
    read: Option<usize>,
    rooms: Arc<Rooms>,
}

/// What threads work in; all modules of a model share it, for one works at a time.
#[derive(Debug, Default)]
pub(crate) struct Rooms {
    forward: Pool<ForwardRoom>,
    backward: Pool<Room>,
}

/// One head's active blocks.
#[derive(Debug)]
struct HeadBlocks {
    /// Tokens of a block's side.
    size: usize,
    /// For each query block and each of [`Precision::ALL`], the key blocks, left to right.
    rows: Vec<[Vec<u32>; 3]>,
}

/// One pass over a batch.
#[derive(Debug, Clone)]
pub(crate) struct BlockCall {
    pub attention: Arc<BlockAttention>,
    /// Keys of each example that are no padding, which is on the right; none where there is no padding.
    pub live_keys: Option<Arc<[usize]>>,
    /// The same for queries, in cross-attention; in self-attention they are as many as the keys.
    pub live_queries: Option<Arc<[usize]>>,
}

/// One example's tensors, `[heads, tokens, head_dim]`, and what plans work in: as much as the largest so far needs.
#[derive(Debug, Default)]
struct ForwardRoom {
    workspace: Option<Workspace>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    out: Vec<f32>,
}

/// Memory for as many threads as have ever worked at once.
#[derive(Debug)]
struct Pool<T>(Mutex<Vec<T>>);

/// Attention `[batch, heads, queries, head_dim]` of q `[batch, heads, queries, head_dim]`, k and v
/// `[batch, heads, keys, head_dim]`, which lie in memory; only of the first queries where no others are read. What stands for
/// padded queries of self-attention is zero.
pub(crate) fn block_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, call: BlockCall) -> Tensor<4> {
    let [q, k, v] = [q, k, v].map(Tensor::into_dispatch);
    Tensor::from_dispatch(<Dispatch as AttendsBlocks>::attend_blocks(q, k, v, call))
}

impl BlockAttention {
    /// For `queries` of the masks' queries and, in self-attention, as many keys: the masks' first rows and columns.
    pub(crate) fn new(
        shape: &AttentionShape,
        masks: &[HeadMask],
        queries: usize,
        rooms: Arc<Rooms>,
    ) -> Result<Self, KernelError> {
        let shape = AttentionShape {
            queries: queries as u32,
            keys: match shape.kind {
                AttentionKind::CrossAttention => shape.keys,
                AttentionKind::SelfAttention | AttentionKind::CausalSelfAttention => queries as u32,
            },
            ..*shape
        };
        let masks: Vec<HeadMask> = masks.iter().map(|mask| first_blocks(mask, &shape)).collect();
        Self::of(shape, &masks, None, rooms)
    }

    /// For the first `read` of `tokens` tokens of self-attention, each of which is a query that sets the scale of 8-bit ones.
    /// `read` is less than `tokens`.
    pub(crate) fn first_queries(
        shape: &AttentionShape,
        masks: &[HeadMask],
        (read, tokens): (usize, usize),
        rooms: Arc<Rooms>,
    ) -> Result<Self, KernelError> {
        let (queries, keys) = (read as u32 + 1, tokens as u32);
        let shape = AttentionShape { kind: AttentionKind::CrossAttention, queries, keys, ..*shape };
        let masks: Vec<HeadMask> = masks.iter().map(|mask| first_blocks(mask, &shape)).collect();
        Self::of(shape, &masks, Some(read), rooms)
    }

    /// For the query at `position`, and a second one to set the scale of 8-bit queries; in causal self-attention, for the
    /// keys up to it. Fits every position of the same block of the smallest size.
    pub(crate) fn next_query(
        shape: &AttentionShape,
        masks: &[HeadMask],
        position: usize,
        rooms: Arc<Rooms>,
    ) -> Result<Self, KernelError> {
        let keys = match shape.kind {
            // Blocks are multiples of the smallest: no later one is reached.
            AttentionKind::CausalSelfAttention => {
                (position + 1).next_multiple_of(BlockSize::B8.tokens() as usize).min(shape.keys as usize) as u32
            }
            AttentionKind::SelfAttention | AttentionKind::CrossAttention => shape.keys,
        };
        let shape = AttentionShape { kind: AttentionKind::CrossAttention, queries: 2, keys, ..*shape };
        let row = |mask: &HeadMask| {
            let columns = mask.block_size.cover(keys) as usize;
            let cells = mask.blocks.row(position / mask.block_size.tokens() as usize)[..columns].to_vec();
            let blocks = BlockMask::new(columns, cells).expect("each row of a mask keeps a block that its queries see");
            HeadMask { block_size: mask.block_size, blocks }
        };
        Self::of(shape, &masks.iter().map(row).collect::<Vec<_>>(), None, rooms)
    }

    fn of(
        shape: AttentionShape,
        masks: &[HeadMask],
        read: Option<usize>,
        rooms: Arc<Rooms>,
    ) -> Result<Self, KernelError> {
        // Candidates and examples run side by side already. Blocks are computed as the mask says, not more finely where
        // that is faster on this CPU: another device decides otherwise, and the backward pass rounds as the mask says.
        let plan = AttentionPlan::with_options(masks, shape, PlanOptions::on(Kernel::fastest()))?;
        let heads = masks.iter().map(|mask| HeadBlocks::new(mask, shape.kind)).collect();
        Ok(Self { plan, heads, read, rooms })
    }

    fn attend(&self, out: &mut [f32], [q, k, v]: [&Operand<'_>; 3], example: usize, live: Live) {
        let &AttentionShape { heads, queries, keys, head_dim, .. } = self.plan.shape();
        let (d, heads, queries, keys) = (head_dim as usize, heads as usize, queries as usize, keys as usize);
        let read = self.read_of(live.queries);
        let mut room = self.rooms.forward.take(ForwardRoom::default);
        let workspace = room.workspace.get_or_insert_with(|| self.plan.workspace());
        workspace.reserve(&self.plan);
        room.q.resize(heads * queries * d, 0.0);
        room.k.resize(heads * keys * d, 0.0);
        room.v.resize(heads * keys * d, 0.0);
        room.out.resize(heads * queries * d, 0.0);
        for head in 0..heads {
            let gather = |from: &Operand<'_>, live: usize, to: &mut [f32]| {
                let from = from.tokens(example, head, live);
                to.chunks_exact_mut(d)
                    .take(live)
                    .enumerate()
                    .for_each(|(at, to)| to.copy_from_slice(from.token(at, d)));
            };
            let of_head = |tokens: usize| head * tokens * d..(head + 1) * tokens * d;
            gather(q, read, &mut room.q[of_head(queries)]);
            room.q[of_head(queries)][read * d..].fill(0.0); // padding must not set the scale of 8-bit values
            if self.read.is_some() {
                // The queries that nobody reads do.
                room.q[of_head(queries)][(queries - 1) * d] = q.tokens(example, head, live.queries).largest(d);
            }
            gather(k, live.keys, &mut room.k[of_head(keys)]);
            gather(v, live.keys, &mut room.v[of_head(keys)]);
        }
        let inputs = Inputs::new(&room.q, &room.k, &room.v).live_keys(live.keys);
        self.plan.run(inputs, &mut room.out, workspace).expect("the room is of the plan's size");
        // [queries, heads, head_dim]
        for (query, out) in out.chunks_exact_mut(heads * d).take(read).enumerate() {
            for (head, out) in out.chunks_exact_mut(d).enumerate() {
                out.copy_from_slice(&room.out[(head * queries + query) * d..][..d]);
            }
        }
        self.rooms.forward.give(room);
    }

    /// How many of so many queries are read.
    fn read_of(&self, queries: usize) -> usize {
        self.read.map_or(queries, |read| read.min(queries))
    }

    /// Gradients `[tokens, heads, head_dim]` of one example.
    fn differentiate(&self, to: [&mut [f32]; 3], [q, k, v, gradient]: [&Operand<'_>; 4], example: usize, live: Live) {
        let AttentionShape { kind, head_dim, .. } = *self.plan.shape();
        let d = head_dim as usize;
        let [to_q, to_k, to_v] = to;
        let mut room = self.rooms.backward.take(Room::default);
        for (head, blocks) in self.heads.iter().enumerate() {
            let inputs = HeadInputs {
                blocks,
                causal: kind == AttentionKind::CausalSelfAttention,
                head_dim: d,
                q: q.tokens(example, head, live.queries),
                k: k.tokens(example, head, live.keys),
                v: v.tokens(example, head, live.keys),
                gradient: gradient.tokens(example, head, self.read_of(live.queries)),
            };
            let (q, k, v) = (&mut to_q[head * d..], &mut to_k[head * d..], &mut to_v[head * d..]);
            add_gradients(&inputs, &mut HeadGradients { q, k, v, row: self.heads.len() * d }, &mut room);
        }
        self.rooms.backward.give(room);
    }
}

impl HeadBlocks {
    fn new(mask: &HeadMask, kind: AttentionKind) -> Self {
        let row = |row: usize| {
            let cells = mask.blocks.row(row)[..kind.columns_of(row, mask.blocks.columns())].iter().zip(0..);
            Precision::ALL.map(|precision| {
                cells.clone().filter(|(cell, _)| **cell == Some(precision)).map(|(_, column)| column).collect()
            })
        };
        Self { size: mask.block_size.tokens() as usize, rows: (0..mask.blocks.rows()).map(row).collect() }
    }

    fn uses(&self, precision: Precision) -> bool {
        self.rows.iter().any(|row| !row[precision.index()].is_empty())
    }
}

/// The rows and columns that cover a shape.
fn first_blocks(mask: &HeadMask, shape: &AttentionShape) -> HeadMask {
    let (rows, columns) = (mask.block_size.cover(shape.queries) as usize, mask.block_size.cover(shape.keys) as usize);
    if (mask.blocks.rows(), mask.blocks.columns()) == (rows, columns) {
        return mask.clone();
    }
    let cells = (0..rows).flat_map(|row| mask.blocks.row(row)[..columns].iter().copied()).collect();
    let blocks =
        BlockMask::new(columns, cells).expect("each row of self-attention keeps a block at or left of the diagonal");
    HeadMask { block_size: mask.block_size, blocks }
}

/// Tokens of an example that are no padding.
#[derive(Clone, Copy)]
struct Live {
    queries: usize,
    keys: usize,
}

impl BlockCall {
    /// `[batch, heads, queries, head_dim]` of the attention of queries of the dimensions `q`.
    fn outputs(&self, [batch, heads, queries, head_dim]: [usize; 4]) -> [usize; 4] {
        [batch, heads, self.attention.read_of(queries), head_dim]
    }

    /// Writes attention `[batch, queries, heads, head_dim]` over zeros.
    fn attend(&self, out: &mut [f32], [q, k, v]: [&Operand<'_>; 3]) {
        let (queries, keys) = (q.dims()[2], k.dims()[2]);
        let of_example: usize = self.outputs(q.dims())[1..].iter().product();
        let examples = out.par_chunks_mut(of_example.max(1)).enumerate();
        examples.for_each(|(example, out)| {
            self.attention.attend(out, [q, k, v], example, self.live(example, queries, keys));
        });
    }

    /// Writes the gradients by q, k and v, `[batch, tokens, heads, head_dim]` each, over zeros.
    fn differentiate(&self, [to_q, to_k, to_v]: [&mut [f32]; 3], operands: [&Operand<'_>; 4]) {
        let ([_, heads, queries, head_dim], keys) = (operands[0].dims(), operands[1].dims()[2]);
        let of = |tokens: usize| (tokens * heads * head_dim).max(1);
        let examples =
            to_q.par_chunks_mut(of(queries)).zip(to_k.par_chunks_mut(of(keys)).zip(to_v.par_chunks_mut(of(keys))));
        examples.enumerate().for_each(|(example, (to_q, (to_k, to_v)))| {
            let live = self.live(example, queries, keys);
            self.attention.differentiate([to_q, to_k, to_v], operands, example, live);
        });
    }

    fn live(&self, example: usize, queries: usize, keys: usize) -> Live {
        let live_keys = self.live_keys.as_ref().map_or(keys, |live| live[example]);
        let crosses =
            self.attention.plan.shape().kind == AttentionKind::CrossAttention && self.attention.read.is_none();
        let live_queries = match crosses {
            true => self.live_queries.as_ref().map_or(queries, |live| live[example]),
            false => live_keys,
        };
        Live { queries: live_queries, keys: live_keys }
    }
}

#[backend_extension(Flex, LibTorch: cfg(feature = "libtorch"), Autodiff)]
trait AttendsBlocks: Backend {
    fn attend_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: BlockCall,
    ) -> FloatTensor<Self>;

    /// The loss's gradients by q, k and v from the one by the output.
    fn attend_blocks_backward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        gradient: FloatTensor<Self>,
        call: BlockCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>);
}

impl<B: Backend + AttendsBlocks, C: CheckpointStrategy> AttendsBlocks for Autodiff<B, C> {
    fn attend_blocks(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        call: BlockCall,
    ) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct Attended;

        impl<B: Backend + AttendsBlocks> Backward<B, 3> for Attended {
            type State = ([FloatTensor<B>; 3], BlockCall);

            fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
                let gradient = grads.consume::<B>(&ops.node);
                let ([q, k, v], call) = ops.state;
                let (q, k, v) = B::attend_blocks_backward(q, k, v, gradient, call);
                for (parent, gradient) in ops.parents.into_iter().zip([q, k, v]) {
                    if let Some(parent) = parent {
                        grads.register::<B>(parent.id, gradient);
                    }
                }
            }
        }

        let nodes = [q.node(), k.node(), v.node()];
        let [q, k, v] = [q, k, v].map(|x| x.primitive().clone());
        match Attended.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let state = ([q.clone(), k.clone(), v.clone()], call.clone());
                prep.finish(state, B::attend_blocks(q, k, v, call))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::attend_blocks(q, k, v, call)),
        }
    }

    fn attend_blocks_backward(
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: FloatTensor<Self>,
        _: BlockCall,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("a backward pass is not differentiated again")
    }
}

impl<T> Default for Pool<T> {
    fn default() -> Self {
        Self(Mutex::new(Vec::new()))
    }
}

impl<T> Pool<T> {
    fn take(&self, make: impl FnOnce() -> T) -> T {
        let free = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        free.unwrap_or_else(make)
    }

    fn give(&self, room: T) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(room);
    }
}

#[cfg(test)]
mod tests;
