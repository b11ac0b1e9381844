use std::sync::Arc;

use maskwright_blueprint::{AttentionShape, HeadMask, Linear, Precision};

use crate::{
    Cost, CostError, Dataflow, DeviceProfile, HeadCost, HeadWork, ModuleWork, Softmax, Timeline, Work,
    head_cost::{self, Busy, Exposed, Mapping},
    kernel_times,
    machine::Machine,
    mas, schedule,
    work::check_shape,
};

/// Prices work on one device under one dataflow, at one batch.
///
/// ```
/// # use maskwright_blueprint::*;
/// # use maskwright_cost_model::*;
/// let shape = AttentionShape { kind: AttentionKind::SelfAttention, heads: 12, queries: 512, keys: 512, head_dim: 64, windows: 1 };
/// let model = CostModel::new(&DeviceProfile::named("jetson-agx-xavier")?, Dataflow::Flash, 1)?;
/// let half = model.attention(&Work::bare(&shape, BlockSize::B16, Precision::Half)?)?;
/// let single = model.attention(&Work::bare(&shape, BlockSize::B16, Precision::Single)?)?;
/// assert!(half.seconds < single.seconds && half.joules.value < single.joules.value);
/// # Ok::<(), CostError>(())
/// ```
#[derive(Debug, Clone)]
pub struct CostModel {
    device: String,
    machine: Machine,
    dataflow: Dataflow,
    batch: u32,
    linears: Precision,
}

/// More examples at once than any of our uses needs; keeps products of counts far from overflow.
const MOST_BATCH: u32 = 1 << 16;

impl CostModel {
    /// Linears are priced at 16 bit where the device has it, else at its finest precision; see
    /// [`CostModel::with_linears`].
    pub fn new(profile: &DeviceProfile, dataflow: Dataflow, batch: u32) -> Result<Self, CostError> {
        if batch == 0 || batch > MOST_BATCH {
            return Err(CostError::Batch { batch, limit: MOST_BATCH });
        }
        let machine = Machine::of(profile);
        let linears = if machine.supports(Precision::Half) { Precision::Half } else { machine.finest() };
        Ok(Self { device: profile.name.clone(), machine, dataflow, batch, linears })
    }

    /// The same model with linears at another precision.
    pub fn with_linears(mut self, precision: Precision) -> Result<Self, CostError> {
        self.check(precision)?;
        self.linears = precision;
        Ok(self)
    }

    /// Name of the device.
    pub fn device(&self) -> &str {
        &self.device
    }

    pub fn dataflow(&self) -> Dataflow {
        self.dataflow
    }

    pub fn batch(&self) -> u32 {
        self.batch
    }

    /// Precision of the linears.
    pub fn linears(&self) -> Precision {
        self.linears
    }

    /// Attention of all modules: `Q K^T`, softmax and `P V`.
    pub fn attention(&self, work: &Work) -> Result<Cost, CostError> {
        Ok(Cost::of(&self.machine, &self.attention_sum(work)?))
    }

    /// The whole model: attention, linears, and elementwise operations.
    pub fn end_to_end(&self, work: &Work) -> Result<Cost, CostError> {
        let attention = self.attention_sum(work)?;
        let rest = self.rest(work);
        Ok(Cost::of(&self.machine, &(attention + rest)))
    }

    /// One head's mask. [`CostModel::total`] of the costs of all heads of one module is that module's
    /// [`CostModel::attention`].
    pub fn head(&self, mask: &HeadMask, shape: &AttentionShape, softmax: Softmax) -> Result<HeadCost, CostError> {
        mask.check(shape)?;
        self.head_work(&HeadWork::of(mask, shape), shape, softmax)
    }

    /// One head that was counted before.
    pub fn head_work(&self, head: &HeadWork, shape: &AttentionShape, softmax: Softmax) -> Result<HeadCost, CostError> {
        check_shape(shape)?;
        self.mapped(&self.mapping(head, shape, softmax), head, shape, softmax)
    }

    /// What a module costs beside its heads: launch, first load, last store. It depends on the shape alone.
    pub fn module(&self, shape: &AttentionShape, softmax: Softmax) -> HeadCost {
        let machine = &self.machine;
        let precision = machine.finest();
        let rows = f64::from(machine.tile_queries.min(shape.queries));
        let keys = f64::from(machine.tile_keys.min(shape.keys));
        let width = f64::from(precision.bytes()) * f64::from(shape.head_dim);
        let timed = self.dataflow == Dataflow::Flash && machine.kernels.is_some();
        let transfers = match timed && kernel_times::fits_the_caches(machine, shape) {
            true => 0.0,
            false => (2.0 * rows + keys) * width / machine.dram().bytes_per_s,
        };
        let pipeline = match self.dataflow {
            Dataflow::Mas => {
                let keys = Precision::ALL.map(|level| if level <= precision { shape.keys } else { 0 });
                let band = crate::Band { queries: machine.tile_queries.min(shape.queries), keys };
                mas::fill_cycles(machine, shape, band, softmax) / machine.hertz
            }
            _ => 0.0,
        };
        let exposed = Exposed { fill: machine.launch_seconds + transfers + pipeline, ..Exposed::default() };
        HeadCost { exposed, ..HeadCost::default() }
    }

    /// What the units of one core do when, for the heads of a module that this core gets.
    pub fn timeline(&self, module: &ModuleWork) -> Result<Timeline, CostError> {
        let (machine, shape) = (&self.machine, &module.shape);
        check_shape(shape)?;
        let mine: Vec<&HeadWork> =
            module.heads.iter().step_by(machine.cores as usize).map(|head| head.as_ref()).collect();
        for head in &mine {
            self.check_head(head)?;
        }
        let plan = |head: &HeadWork| {
            let mapping = self.mapping(head, shape, module.softmax);
            let rows = match mapping {
                Mapping::Mas(level) => head.bands[level].len(),
                _ => head.bands_of(machine.tile_queries).len(),
            };
            (rows, head_cost::plan(machine, &mapping, head, shape, module.softmax))
        };
        Ok(schedule::timeline(machine, &self.device, self.dataflow, &mine, shape, module.softmax, plan))
    }

    /// The cost of parts together.
    pub fn total(&self, parts: impl IntoIterator<Item = HeadCost>) -> Cost {
        Cost::of(&self.machine, &parts.into_iter().sum())
    }

    /// Linears and elementwise operations alone, to be added to parts in [`CostModel::total`].
    pub fn rest(&self, work: &Work) -> HeadCost {
        let linears: HeadCost = work.linears.iter().map(|linear| self.linear(linear)).sum();
        linears + self.elementwise(work.elementwise)
    }

    fn attention_sum(&self, work: &Work) -> Result<HeadCost, CostError> {
        let mut sum = HeadCost::default();
        for ModuleWork { shape, softmax, heads, .. } in &work.modules {
            check_shape(shape)?;
            sum = sum + self.module(shape, *softmax);
            // Heads often have the same block size as the one before, and sometimes the same mask.
            let mut last: Option<(&Arc<HeadWork>, Mapping, HeadCost)> = None;
            for head in heads {
                let (mapping, cost) = match last {
                    Some((same, mapping, cost)) if Arc::ptr_eq(same, head) => (mapping, cost),
                    Some((before, mapping, _)) if before.block_size == head.block_size => {
                        (mapping, self.mapped(&mapping, head, shape, *softmax)?)
                    }
                    _ => {
                        let mapping = self.mapping(head, shape, *softmax);
                        (mapping, self.mapped(&mapping, head, shape, *softmax)?)
                    }
                };
                last = Some((head, mapping, cost));
                sum = sum + cost;
            }
        }
        Ok(sum)
    }

    /// One attention module of some work, or all of them.
    pub(crate) fn layer(&self, work: &Work) -> Result<HeadCost, CostError> {
        self.attention_sum(work)
    }

    /// Cycles of one lane for one element of a softmax in floating point.
    pub(crate) fn softmax_lane_cycles(&self) -> f64 {
        self.machine.float_softmax_lane_cycles()
    }

    fn mapping(&self, head: &HeadWork, shape: &AttentionShape, softmax: Softmax) -> Mapping {
        Mapping::choose(&self.machine, self.dataflow, head.block_size, shape, softmax)
    }

    fn mapped(
        &self,
        mapping: &Mapping,
        head: &HeadWork,
        shape: &AttentionShape,
        softmax: Softmax,
    ) -> Result<HeadCost, CostError> {
        self.check_head(head)?;
        // Windows share the masks and nothing else: to the device they are examples.
        let examples = f64::from(self.batch) * f64::from(shape.windows);
        Ok(head_cost::price(&self.machine, mapping, examples, head, shape, softmax))
    }

    /// Work that is nothing but its counts, for one example: units and transfers run at once where the device can.
    pub(crate) fn roofline(&self, macs: f64, precision: Precision, lane_cycles: f64, bytes: f64) -> HeadCost {
        let (machine, batch) = (&self.machine, f64::from(self.batch));
        let (macs, lane_cycles, bytes) = (macs * batch, lane_cycles * batch, bytes * batch);
        let matrix = machine.mac_seconds(macs, precision);
        let vector = machine.lane_seconds(lane_cycles);
        let combined = machine.together(matrix, vector);
        let mut by_precision = [0.0; 3];
        by_precision[precision.index()] = macs;
        let mut cost = HeadCost {
            exposed: Exposed {
                qk: matrix / 2.0,
                softmax: combined - matrix,
                pv: matrix / 2.0,
                memory: (bytes / machine.dram().bytes_per_s - combined).max(0.0),
                ..Exposed::default()
            },
            busy: Busy { matrix, vector, ..Busy::default() },
            mac_joules: macs * machine.joules_per_mac[precision.index()],
            lane_joules: lane_cycles * machine.joules_per_lane_cycle,
            macs,
            ideal: machine.ideal_seconds(by_precision),
            ..HeadCost::default()
        };
        self.through_all_levels(&mut cost, bytes);
        cost
    }

    /// Multiply-accumulates of the vector unit, one each cycle of a lane: convolutions and recurrences.
    pub(crate) fn macs_on_lanes(&self, precision: Precision, macs: f64, bytes: f64) -> HeadCost {
        HeadCost { macs: macs * f64::from(self.batch), ..self.on_lanes(precision, macs, bytes) }
    }

    /// Work of the vector unit that is no softmax.
    fn on_lanes(&self, precision: Precision, lane_cycles: f64, bytes: f64) -> HeadCost {
        let mut cost = self.roofline(0.0, precision, lane_cycles, bytes);
        cost.exposed = Exposed { elementwise: cost.exposed.total(), ..Exposed::default() };
        cost.busy.elementwise = std::mem::take(&mut cost.busy.vector);
        cost
    }

    /// `max(compute, memory)`: weights pass once for the whole batch, activations once in and once out.
    fn linear(&self, linear: &Linear) -> HeadCost {
        let batch = f64::from(self.batch);
        let rows = f64::from(linear.rows) * f64::from(linear.count);
        let activations = rows * (f64::from(linear.inputs) + f64::from(linear.outputs));
        let width = f64::from(self.linears.bytes());
        let bytes = (linear.weights() as f64 / batch + activations) * width;
        let mut cost = self.roofline(linear.macs() as f64, self.linears, 0.0, bytes);
        let launch = self.machine.launch_seconds * f64::from(linear.count);
        cost.busy.overhead = launch;
        cost.exposed = Exposed { linears: cost.exposed.total() + launch, ..Exposed::default() };
        cost
    }

    /// Every element is read and written once.
    fn elementwise(&self, elements: u64) -> HeadCost {
        let elements = elements as f64;
        let bytes = 2.0 * elements * f64::from(self.linears.bytes());
        let lane_cycles = elements * self.machine.elementwise_lane_cycles;
        self.on_lanes(self.linears, lane_cycles, bytes)
    }

    fn through_all_levels(&self, cost: &mut HeadCost, bytes: f64) {
        for (at, level) in self.machine.levels.iter().enumerate() {
            cost.bytes[at] = bytes;
            cost.busy.levels[at] = bytes / level.bytes_per_s;
            cost.memory_joules += bytes * level.joules_per_byte;
        }
        cost.watts = cost.phase_watts(&self.machine);
    }

    fn check_head(&self, head: &HeadWork) -> Result<(), CostError> {
        let used = Precision::ALL.into_iter().filter(|precision| head.blocks[precision.index()] > 0);
        used.into_iter().try_for_each(|precision| self.check(precision))
    }

    fn check(&self, precision: Precision) -> Result<(), CostError> {
        if self.machine.supports(precision) {
            return Ok(());
        }
        let supported = Precision::ALL.into_iter().filter(|precision| self.machine.supports(*precision));
        Err(CostError::Precision {
            device: self.device.clone(),
            precision,
            supported: supported.map(|precision| precision.to_string()).collect::<Vec<_>>().join(", "),
        })
    }
}
