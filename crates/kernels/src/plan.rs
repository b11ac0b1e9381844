use std::{
    num::NonZeroUsize,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask};

use crate::{
    Inputs, Kernel, KernelError, Normalisation, Promotion, Workspace,
    crew::{self, Parts},
    inputs,
    kernel::Instructions,
    packed::{Head, Largest, Pack, PackedHead},
    phases::{Phases, Stopwatch},
    promotion,
    row::{self, Row},
    shared_heads::SharedHeads,
    tile::{AttendRows, Job, Next},
    workspace::{Scratch, WorkspaceSize},
};

/// The widest head that is computed: with more features, differences of 8-bit scores would need more than 24 bits.
pub const MAX_HEAD_DIM: u32 = 512;

/// The attention of one module under its masks, made once and run many times.
///
/// Always true: every mask fits the shape, the kernel's instructions exist on this CPU, and the result does not depend
/// on the number of threads, to the bit. A plan is immutable and can be shared; each concurrent call has its own
/// [`Workspace`].
///
/// Precision by block, where [`Promotion`] does not choose a finer one: `Single` is f32 throughout. `Half` is bf16 operands
/// (queries, keys, weights, values rounded to nearest even) with f32 sums. `Int8` is symmetric integers with one scale a
/// head for each of q, k and v, taken from the call's own numbers, and exact sums. The softmax is one over all active
/// blocks of a row, whatever their precision.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    shape: AttentionShape,
    options: PlanOptions,
    instructions: Instructions,
    rows: Vec<Row>,
    /// Key block columns; rows hold ranges of them.
    columns: Vec<u32>,
    /// Neighbouring rows of one head, of about equal work.
    bands: Vec<Range<usize>>,
    /// The bands that each thread begins with.
    shares: Vec<Range<usize>>,
    /// For each head, and each of [`Precision::ALL`](maskwright_blueprint::Precision::ALL): whether it has such blocks.
    uses: Vec<[bool; 3]>,
    /// For each head and each block of its keys, see [`Head::forms`].
    forms: Vec<Vec<u8>>,
    workspace: WorkspaceSize,
    input_and_output_bytes: usize,
}

/// How a plan computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanOptions {
    pub kernel: Kernel,
    /// Threads that a call may use, 256 at most, the calling one among them. The others belong to the process, help one call at a time,
    /// and look out for the next one for a sixth of a millisecond before they sleep.
    pub threads: NonZeroUsize,
    pub int8_softmax: Int8Softmax,
    pub promotion: Promotion,
}

/// How 8-bit blocks turn scores into weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Int8Softmax {
    /// An exponential in f32, rounded to 1/255.
    #[default]
    Float,
    /// The table of [`IntegerSoftmax`](crate::IntegerSoftmax), over all 8-bit blocks of a row at once.
    Integer(Normalisation),
}

impl PlanOptions {
    /// The kernel that [`Kernel::from_environment`] chooses, a thread for each CPU that the process may use, float softmax,
    /// finer precisions where they are faster.
    pub fn new() -> Result<Self, KernelError> {
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let (int8_softmax, promotion) = (Int8Softmax::default(), Promotion::default());
        Ok(Self { kernel: Kernel::from_environment()?, threads, int8_softmax, promotion })
    }

    /// One thread of a kernel, whatever the environment says, float softmax, every block as the mask says.
    pub fn on(kernel: Kernel) -> Self {
        let (int8_softmax, promotion) = (Int8Softmax::default(), Promotion::Never);
        Self { kernel, threads: NonZeroUsize::MIN, int8_softmax, promotion }
    }

    pub fn kernel(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    pub fn threads(self, threads: NonZeroUsize) -> Self {
        Self { threads, ..self }
    }

    pub fn int8_softmax(self, int8_softmax: Int8Softmax) -> Self {
        Self { int8_softmax, ..self }
    }

    pub fn promotion(self, promotion: Promotion) -> Self {
        Self { promotion, ..self }
    }
}

impl AttentionPlan {
    /// For the heads of one module, one mask a head, with [`PlanOptions::new`].
    pub fn new(masks: &[HeadMask], shape: AttentionShape) -> Result<Self, KernelError> {
        Self::with_options(masks, shape, PlanOptions::new()?)
    }

    /// The same as `options` say. Starts the threads that help, where there are too few of them.
    pub fn with_options(masks: &[HeadMask], shape: AttentionShape, options: PlanOptions) -> Result<Self, KernelError> {
        check_masks(masks, &shape)?;
        let instructions = options.kernel.instructions()?;
        let integer = matches!(options.int8_softmax, Int8Softmax::Integer(_));
        let (rows, columns) = row::rows(masks, &shape, |mask| promotion::of_head(mask, &shape, &options, integer));
        let workers = options.threads.get().min(rows.len()).min(crew::MOST_HELPERS + 1);
        let bands = row::bands(&rows, workers.saturating_mul(BANDS_A_THREAD));
        let shares = row::shares(&rows, &bands, workers);
        crew::enlist(workers - 1);
        let mut uses = vec![[false; 3]; masks.len()];
        let mut forms: Vec<Vec<u8>> = masks.iter().map(|mask| vec![0; mask.blocks.columns()]).collect();
        for row in &rows {
            for (at, blocks) in row.blocks.iter().enumerate() {
                uses[row.head][at] |= !blocks.is_empty();
                for &column in &columns[blocks.clone()] {
                    let forms = &mut forms[row.head][column as usize];
                    *forms = (at as u8 + 1).max(*forms);
                }
            }
        }
        let integer_keys = match options.int8_softmax {
            Int8Softmax::Float => 0,
            Int8Softmax::Integer(_) => rows.iter().map(Row::int8_keys).max().unwrap_or(0),
        };
        let workspace = WorkspaceSize {
            queries: shape.queries as usize,
            keys: shape.keys as usize,
            head_dim: shape.head_dim as usize,
            heads: masks.len(),
            uses: [0, 1, 2].map(|at| uses.iter().any(|uses| uses[at])),
            workers,
            integer_keys,
        };
        let tokens = 2 * (workspace.queries + workspace.keys); // of q and the output, of k and v
        let input_and_output_bytes = tokens * shape.heads as usize * workspace.head_dim * size_of::<f32>();
        Ok(Self {
            shape,
            options,
            instructions,
            rows,
            columns,
            uses,
            forms,
            bands,
            shares,
            workspace,
            input_and_output_bytes,
        })
    }

    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Blocks of all heads that are computed more finely than their mask says; see [`Promotion`]. 0 where that is
    /// [`Never`](Promotion::Never).
    pub fn promoted_blocks(&self) -> usize {
        self.rows.iter().map(|row| row.promoted).sum()
    }

    /// What a workspace for its calls has to hold.
    pub(crate) fn needs(&self) -> &WorkspaceSize {
        &self.workspace
    }

    /// Memory for calls of [`run`](Self::run), which allocates none itself.
    pub fn workspace(&self) -> Workspace {
        Workspace::new(self.workspace)
    }

    /// Computes attention into `out`, `[heads, queries, head_dim]`, every element of which is written.
    ///
    /// Numbers that are not finite: a NaN or an infinity in a query makes that query's output NaN, one in a live key
    /// makes NaN or, where its score is minus infinity, nothing; one in a live value makes NaN or infinity. That
    /// concerns queries whose row has the key's block; other queries are as if it were not there. In a head with 8-bit
    /// blocks, where all numbers share a scale, every query with such a block gets NaN. A call always ends.
    pub fn run(&self, inputs: Inputs<'_>, out: &mut [f32], workspace: &mut Workspace) -> Result<(), KernelError> {
        let live_keys = inputs.check(&self.shape)?;
        inputs::check_length("out", out, &self.shape, self.shape.queries)?;
        if !workspace.fits(&self.workspace) {
            return Err(KernelError::Workspace);
        }
        let call = Call { plan: self, inputs, live_keys };
        match &mut workspace.scratch[..self.workspace.workers] {
            [scratch] => call.attend_heads(workspace.heads.first(), out, scratch, &mut Stopwatch::default()),
            _ => call.attend_bands(out, workspace),
        }
        Ok(())
    }

    /// The same on one thread, whatever the options say, with the time of each phase.
    pub fn run_in_phases(
        &self,
        inputs: Inputs<'_>,
        out: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<Phases, KernelError> {
        let live_keys = inputs.check(&self.shape)?;
        inputs::check_length("out", out, &self.shape, self.shape.queries)?;
        let fits = workspace.fits(&self.workspace);
        let Some(scratch) = workspace.scratch.first_mut().filter(|_| fits) else {
            return Err(KernelError::Workspace);
        };
        let mut watch = Stopwatch::start();
        Call { plan: self, inputs, live_keys }.attend_heads(workspace.heads.first(), out, scratch, &mut watch);
        Ok(watch.phases)
    }
}

impl AttentionPlan {
    /// Of a head that `uses` some precisions.
    fn instructions_of(&self, uses: &[bool; 3], block_size: usize) -> Instructions {
        let [int8, half, _] = uses;
        self.instructions.of_head(block_size, self.shape.head_dim as usize, !(int8 | half))
    }
}

/// One run of a plan.
#[derive(Clone, Copy)]
struct Call<'a> {
    plan: &'a AttentionPlan,
    inputs: Inputs<'a>,
    live_keys: usize,
}

impl<'a> Call<'a> {
    fn pack_head(self, &Row { head: at, block_size, .. }: &Row, largest: [Largest; 3], packed: &mut PackedHead) {
        let (q, k, v) = self.head(at);
        let head = Head { q, k, v, uses: self.plan.uses[at], forms: &self.plan.forms[at], largest, block_size };
        let head_dim = self.plan.shape.head_dim as usize;
        self.plan.instructions_of(&self.plan.uses[at], head.block_size).run(Pack { packed, head, head_dim });
    }

    /// Head by head, in the same room, so that what has been packed is still in the cache.
    fn attend_heads(self, packed: &mut PackedHead, out: &mut [f32], scratch: &mut Scratch, watch: &mut Stopwatch) {
        let d = self.plan.shape.head_dim as usize;
        let (mut out, mut largest) = (out, Default::default());
        for rows in self.plan.rows.chunk_by(|a, b| a.head == b.head) {
            let first = &rows[0];
            self.pack_head(first, largest, packed);
            watch.lap(|phases| &mut phases.packing);
            let next = self.next(Some(first.head + 1).filter(|&next| next < self.plan.uses.len()));
            let queries: usize = rows.iter().map(|row| row.queries.len()).sum();
            let (here, rest) = out.split_at_mut(queries * d);
            largest = self.attend_rows(rows, packed, here, &next, scratch, watch);
            out = rest;
        }
    }

    /// Each thread its share of the bands, then what is left of others'. A head is packed by the thread that comes to it
    /// first, which has it in its cache then.
    fn attend_bands(self, out: &mut [f32], workspace: &mut Workspace) {
        let Workspace { heads, scratch, next, .. } = workspace;
        heads.forget();
        for (next, share) in next.iter_mut().zip(&self.plan.shares) {
            *next = AtomicUsize::new(share.start);
        }
        let (heads, next, workers) = (&*heads, &next[..], self.plan.workspace.workers);
        let (out, scratch) = (Parts::of(out), Parts::of(scratch));
        crew::together(workers - 1, &|worker| {
            // SAFETY: no two workers have the same number.
            let scratch = &mut unsafe { scratch.part(worker..worker + 1) }[0];
            let mut known = Known::default();
            for share in (worker..workers).chain(0..worker) {
                loop {
                    let at = next[share].fetch_add(1, Ordering::Relaxed);
                    if at >= self.plan.shares[share].end {
                        break;
                    }
                    // Who draws the next band of a share is likely to be who has drawn this one.
                    let next = self.plan.bands[..self.plan.shares[share].end].get(at + 1);
                    // SAFETY: every number is drawn once, and is a band of its own.
                    known =
                        unsafe { self.attend_band(&self.plan.bands[at], next, known, heads, worker, &out, scratch) };
                }
            }
        });
    }

    /// Gives what it has found of the next band's head.
    ///
    /// # Safety
    /// The band's part of the output is in nobody else's hands.
    #[expect(clippy::too_many_arguments, reason = "those of `attend_rows`, and whose they are")]
    unsafe fn attend_band(
        self,
        band: &Range<usize>,
        next: Option<&Range<usize>>,
        known: Known,
        heads: &SharedHeads,
        worker: usize,
        out: &Parts<'_, f32>,
        scratch: &mut Scratch,
    ) -> Known {
        let AttentionShape { queries, head_dim, .. } = self.plan.shape;
        let rows = &self.plan.rows[band.clone()];
        let (first, last) = (&rows[0], &rows[rows.len() - 1]);
        let at = |query: usize| (first.head * queries as usize + query) * head_dim as usize;
        // SAFETY: rows are different queries, and these are the band's.
        let out = unsafe { out.part(at(first.queries.start)..at(last.queries.end)) };
        let next = next.map(|next| self.plan.rows[next.start].head).filter(|&next| next != first.head);
        let of_next = self.next(next);
        let largest = if known.head == Some(first.head) { known.largest } else { Default::default() };
        let mut known = Known { head: next, largest: Default::default() };
        heads.with(
            first.head,
            worker,
            |packed| self.pack_head(first, largest, packed),
            |packed| {
                known.largest = self.attend_rows(rows, packed, out, &of_next, scratch, &mut Stopwatch::default());
            },
        );
        known
    }

    /// What is packed after the head at hand.
    fn next(self, head: Option<usize>) -> Next<'a> {
        let Some(head) = head else { return Next::default() };
        let (q, k, v) = self.head(head);
        let bytes = [q, k, v].map(size_of_val).iter().sum::<usize>();
        let mut next = Next::of([q, k, v]);
        // Heads of several precisions are looked through while they are packed, part by part in the innermost cache.
        next.looks = self.plan.uses[head] == [true, false, false] && bytes <= LOOKED_AT_UP_TO;
        next
    }

    /// Rows of one head. Gives what it has found of the next one.
    fn attend_rows(
        self,
        rows: &[Row],
        packed: &PackedHead,
        out: &mut [f32],
        next: &Next<'a>,
        scratch: &mut Scratch,
        watch: &mut Stopwatch,
    ) -> [Largest; 3] {
        let (q, _, v) = self.head(rows[0].head);
        let job = Job {
            block_size: rows[0].block_size,
            columns: &self.plan.columns,
            head_dim: self.plan.shape.head_dim as usize,
            live_keys: self.live_keys,
            causal: self.plan.shape.kind == AttentionKind::CausalSelfAttention,
            int8_softmax: self.plan.options.int8_softmax,
            four: false,
            output_is_far: self.plan.input_and_output_bytes > OUTPUT_IS_FAR_ABOVE,
            q,
            v,
            packed,
        };
        let instructions = self.plan.instructions_of(&self.plan.uses[rows[0].head], job.block_size);
        instructions.run(AttendRows { job, rows, out, next, scratch, watch })
    }

    /// Queries and live keys and values of one head.
    fn head(self, head: usize) -> (&'a [f32], &'a [f32], &'a [f32]) {
        let AttentionShape { queries, keys, head_dim, .. } = self.plan.shape;
        let part = |values: &'a [f32], tokens: u32, used: usize| {
            let len = tokens as usize * head_dim as usize;
            &values[head * len..][..used * head_dim as usize]
        };
        let Inputs { q, k, v, .. } = self.inputs;
        (part(q, queries, queries as usize), part(k, keys, self.live_keys), part(v, keys, self.live_keys))
    }
}

/// Bytes of inputs and output above which a tile asks for its output's cache lines before those of the next head (docs/decisions/209).
const OUTPUT_IS_FAR_ABOVE: usize = 8 << 20;

/// Bytes of a head's inputs up to which its largest numbers are looked for ahead: with more, what has been looked through is no longer in the
/// second cache when it is packed (docs/decisions/209).
const LOOKED_AT_UP_TO: usize = 512 << 10;

/// What a thread knows of a head that it has not packed.
#[derive(Default, Clone, Copy)]
struct Known {
    head: Option<usize>,
    largest: [Largest; 3],
}

/// Bands that there are about for each thread, so that one that started late still finds work.
const BANDS_A_THREAD: usize = 8;

/// Refuses what no kernel and no oracle computes.
pub(crate) fn check_masks(masks: &[HeadMask], shape: &AttentionShape) -> Result<(), KernelError> {
    let &AttentionShape { kind, heads, queries, keys, head_dim, .. } = shape;
    if masks.len() != heads as usize || masks.is_empty() {
        return Err(KernelError::Heads { heads, found: masks.len() });
    }
    if queries == 0 || keys == 0 {
        return Err(KernelError::NoTokens { queries, keys });
    }
    if kind != AttentionKind::CrossAttention && queries != keys {
        return Err(KernelError::NotSquare { queries, keys });
    }
    if head_dim == 0 || !head_dim.is_multiple_of(8) || head_dim > MAX_HEAD_DIM {
        return Err(KernelError::HeadDim { found: head_dim });
    }
    masks
        .iter()
        .enumerate()
        .try_for_each(|(head, mask)| mask.check(shape).map_err(|fault| KernelError::Mask { head, fault }))
}
