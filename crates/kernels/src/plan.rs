use std::num::NonZeroUsize;

use maskwright_blueprint::{AttentionKind, AttentionShape, HeadMask, Precision};

use crate::{
    Inputs, Kernel, KernelError, Normalisation, Workspace, inputs,
    kernel::Instructions,
    packed::{Head, PackedHead},
    phases::{Laps, Phases, Stopwatch},
    row::{self, Band, Row},
    tile::Job,
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
/// Precision by block: `Single` is f32 throughout. `Half` is bf16 operands (queries, keys, weights, values rounded to
/// nearest even) with f32 sums. `Int8` is symmetric integers with one scale a head for each of q, k and v, taken from
/// the call's own numbers, and exact sums. The softmax is one over all active blocks of a row, whatever their
/// precision.
#[derive(Debug, Clone)]
pub struct AttentionPlan {
    shape: AttentionShape,
    options: PlanOptions,
    instructions: Instructions,
    rows: Vec<Row>,
    /// Key block columns; rows hold ranges of them.
    columns: Vec<u32>,
    bands: Vec<Band>,
    workspace: WorkspaceSize,
}

/// How a plan computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlanOptions {
    pub kernel: Kernel,
    /// Threads of rayon's current pool that a call may use; one never touches the pool.
    pub threads: NonZeroUsize,
    pub int8_softmax: Int8Softmax,
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
    /// The kernel that [`Kernel::from_environment`] chooses, every thread of rayon's current pool, float softmax.
    pub fn new() -> Result<Self, KernelError> {
        let threads = NonZeroUsize::new(rayon::current_num_threads()).unwrap_or(NonZeroUsize::MIN);
        Ok(Self { kernel: Kernel::from_environment()?, threads, int8_softmax: Int8Softmax::default() })
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
}

impl AttentionPlan {
    /// For the heads of one module, one mask a head, with [`PlanOptions::new`].
    pub fn new(masks: &[HeadMask], shape: AttentionShape) -> Result<Self, KernelError> {
        Self::with_options(masks, shape, PlanOptions::new()?)
    }

    /// The same as `options` say.
    pub fn with_options(masks: &[HeadMask], shape: AttentionShape, options: PlanOptions) -> Result<Self, KernelError> {
        check_masks(masks, &shape)?;
        let instructions = options.kernel.instructions()?;
        let (rows, columns) = row::rows(masks, &shape);
        let bands = row::bands(&rows, band_count(options.threads, rows.len()));
        let uses = |mask: &HeadMask, precision| mask.blocks.cells().contains(&Some(precision));
        let integer_keys = match options.int8_softmax {
            Int8Softmax::Float => 0,
            Int8Softmax::Integer(_) => rows.iter().map(Row::int8_keys).max().unwrap_or(0),
        };
        let workspace = WorkspaceSize {
            queries: shape.queries as usize,
            keys: shape.keys as usize,
            head_dim: shape.head_dim as usize,
            heads: masks.iter().map(|mask| Precision::ALL.map(|precision| uses(mask, precision))).collect(),
            bands: bands.len(),
            integer_keys,
        };
        Ok(Self { shape, options, instructions, rows, columns, bands, workspace })
    }

    pub fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    pub fn options(&self) -> &PlanOptions {
        &self.options
    }

    /// Memory for calls of [`run`](Self::run), which allocates none itself.
    pub fn workspace(&self) -> Workspace {
        Workspace::new(&self.workspace)
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
        if workspace.size != self.workspace {
            return Err(KernelError::Workspace);
        }
        let call = Call { plan: self, inputs, live_keys };
        match &mut workspace.scratch[..] {
            [scratch] => call.attend_heads(&mut workspace.heads, out, scratch, &mut ()),
            scratch => {
                call.pack(0, &mut workspace.heads);
                call.attend(&self.bands, &workspace.heads, out, scratch);
            }
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
        let Some(scratch) = workspace.scratch.first_mut().filter(|_| workspace.size == self.workspace) else {
            return Err(KernelError::Workspace);
        };
        let mut laps = Laps::start();
        Call { plan: self, inputs, live_keys }.attend_heads(&mut workspace.heads, out, scratch, &mut laps);
        Ok(laps.phases)
    }
}

/// One run of a plan.
#[derive(Clone, Copy)]
struct Call<'a> {
    plan: &'a AttentionPlan,
    inputs: Inputs<'a>,
    live_keys: usize,
}

impl Call<'_> {
    /// Packs `heads`, the first of which is head `first`.
    fn pack(self, first: usize, heads: &mut [PackedHead]) {
        if heads.len() > 1 && self.plan.options.threads.get() > 1 {
            let middle = heads.len() / 2;
            let (left, right) = heads.split_at_mut(middle);
            rayon::join(|| self.pack(first, left), || self.pack(first + middle, right));
            return;
        }
        for (at, packed) in heads.iter_mut().enumerate() {
            self.pack_head(first + at, packed);
        }
    }

    fn pack_head(self, head: usize, packed: &mut PackedHead) {
        let (q, k, v) = self.head(head);
        let head = Head { q, k, v, uses: self.plan.workspace.heads[head] };
        self.plan.instructions.pack(packed, head, self.plan.shape.head_dim as usize);
    }

    /// Head by head, in the same room where there is only one, so that what has been packed is still in the cache.
    fn attend_heads(
        self,
        heads: &mut [PackedHead],
        out: &mut [f32],
        scratch: &mut Scratch,
        watch: &mut impl Stopwatch,
    ) {
        let d = self.plan.shape.head_dim as usize;
        let mut out = out;
        for rows in self.plan.rows.chunk_by(|a, b| a.head == b.head) {
            let head = rows[0].head;
            let packed = if let [shared] = heads { shared } else { &mut heads[head] };
            self.pack_head(head, packed);
            watch.lap(|phases| &mut phases.packing);
            for row in rows {
                let (here, rest) = out.split_at_mut(row.queries.len() * d);
                self.attend_row(row, packed, here, scratch, watch);
                out = rest;
            }
        }
    }

    /// Computes neighbouring `bands` into their part of the output, each with its own scratch.
    fn attend(self, bands: &[Band], heads: &[PackedHead], out: &mut [f32], scratch: &mut [Scratch]) {
        let d = self.plan.shape.head_dim as usize;
        match (bands, scratch) {
            ([], _) | (_, []) => {}
            ([band], [scratch, ..]) => {
                let mut out = out;
                for row in &self.plan.rows[band.rows.clone()] {
                    let (here, rest) = out.split_at_mut(row.queries.len() * d);
                    self.attend_row(row, &heads[row.head], here, scratch, &mut ());
                    out = rest;
                }
            }
            (bands, scratch) => {
                let middle = bands.len() / 2;
                let (left, right) = bands.split_at(middle);
                let (out_left, out_right) = out.split_at_mut(left.iter().map(|band| band.queries).sum::<usize>() * d);
                let (scratch_left, scratch_right) = scratch.split_at_mut(middle);
                rayon::join(
                    || self.attend(left, heads, out_left, scratch_left),
                    || self.attend(right, heads, out_right, scratch_right),
                );
            }
        }
    }

    fn attend_row(
        self,
        row: &Row,
        packed: &PackedHead,
        out: &mut [f32],
        scratch: &mut Scratch,
        watch: &mut impl Stopwatch,
    ) {
        let d = self.plan.shape.head_dim as usize;
        let (q, _, v) = self.head(row.head);
        let job = Job {
            row,
            columns: &self.plan.columns,
            head_dim: d,
            live_keys: self.live_keys,
            causal: self.plan.shape.kind == AttentionKind::CausalSelfAttention,
            int8_softmax: self.plan.options.int8_softmax,
            q,
            v,
            packed,
        };
        self.plan.instructions.attend_row(&job, out, scratch, watch);
    }

    /// Queries and live keys and values of one head.
    fn head(&self, head: usize) -> (&[f32], &[f32], &[f32]) {
        let AttentionShape { queries, keys, head_dim, .. } = self.plan.shape;
        let part = |values, tokens: u32, used: usize| {
            let len = tokens as usize * head_dim as usize;
            let all: &[f32] = values;
            &all[head * len..][..used * head_dim as usize]
        };
        let Inputs { q, k, v, .. } = self.inputs;
        (part(q, queries, queries as usize), part(k, keys, self.live_keys), part(v, keys, self.live_keys))
    }
}

/// Several bands a thread, so that one that started late still finds work; one thread needs only one.
fn band_count(threads: NonZeroUsize, rows: usize) -> usize {
    match threads.get() {
        1 => 1,
        threads => threads.saturating_mul(4).min(rows),
    }
}

/// Refuses what no kernel and no oracle computes.
pub(crate) fn check_masks(masks: &[HeadMask], shape: &AttentionShape) -> Result<(), KernelError> {
    let &AttentionShape { kind, heads, queries, keys, head_dim } = shape;
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
        .try_for_each(|(head, mask)| mask.check(shape).map_err(|source| KernelError::Mask { head, source }))
}
