//! The order in which a dataflow issues its work, and when each piece of it runs.

use maskwright_blueprint::{AttentionShape, Seconds};

use crate::{
    Band, Dataflow, FlatStages, HeadWork, Softmax, Span, Timeline, Unit, Units,
    cost::Kind,
    fuse_max, layered,
    machine::Machine,
    mas,
    plan::{Plan, Stages, dram_cycles},
    traffic::{key_bytes, query_bytes},
};

/// Longer schedules are cut off: nobody reads more bars.
const MOST_TILES: usize = 512;

/// Pieces in which a head's first K arrives, so that its first scores begin before all of it is there.
const PIECES: u32 = 8;

/// A unit's work for one core.
struct Job {
    unit: Unit,
    label: String,
    cycles: f64,
    /// Jobs that have to be done before.
    after: Vec<usize>,
}

/// Jobs in order of issue; each unit takes its own in this order.
#[derive(Default)]
struct Jobs(Vec<Job>);

impl Jobs {
    fn add(&mut self, unit: Unit, label: String, cycles: f64, after: &[Option<usize>]) -> usize {
        self.0.push(Job { unit, label, cycles, after: after.iter().copied().flatten().collect() });
        self.0.len() - 1
    }

    fn run(self, machine: &Machine) -> Vec<Span> {
        let mut free = [0.0f64; 3];
        let mut ends: Vec<f64> = Vec::with_capacity(self.0.len());
        let mut spans = Vec::with_capacity(self.0.len());
        for job in self.0 {
            let ready = job.after.iter().map(|at| ends[*at]).fold(0.0, f64::max);
            let lane = match (job.unit, machine.units) {
                (Unit::Vector, Units::Shared) => Unit::Matrix as usize,
                (unit, _) => unit as usize,
            };
            let start = free[lane].max(ready);
            let end = start + job.cycles;
            free[lane] = end;
            ends.push(end);
            let seconds = |cycles: f64| Seconds(cycles / machine.hertz);
            // A job without a name is only a meeting point.
            if !job.label.is_empty() {
                spans.push(Span { unit: job.unit, label: job.label, start: seconds(start), end: seconds(end) });
            }
        }
        spans
    }
}

/// What one core does for the heads that it gets of a module, one example at a time; `plan` says in how many row tiles.
pub(crate) fn timeline(
    machine: &Machine,
    device: &str,
    dataflow: Dataflow,
    heads: &[&HeadWork],
    shape: &AttentionShape,
    softmax: Softmax,
    plan: impl Fn(&HeadWork) -> (usize, Plan),
) -> Timeline {
    let mut jobs = Jobs::default();
    let mut streamed = Vec::new();
    let (mut shown, mut complete) = (0, true);
    for (at, head) in heads.iter().enumerate() {
        let (rows, plan) = plan(head);
        let count = if matches!(dataflow, Dataflow::LayerWise | Dataflow::SoftPipe) { 1 } else { rows };
        let dram = plan.bytes.last().copied().unwrap_or(0.0);
        let mut tiles = mas::tiles(&mas::native_stages(machine, head, shape, softmax), count);
        // An online softmax also rescales its output.
        let softmaxes: f64 = tiles.iter().map(|tile| tile.softmax).sum();
        for tile in &mut tiles {
            tile.softmax *= plan.vector_busy / softmaxes;
        }
        let room = MOST_TILES - shown;
        let dram = dram * room.min(tiles.len()) as f64 / tiles.len() as f64;
        complete &= tiles.len() <= room;
        tiles.truncate(room);
        shown += tiles.len();
        match (dataflow, machine.flat_stages) {
            (Dataflow::LayerWise | Dataflow::SoftPipe, _) => {
                layers(&mut jobs, machine, dataflow, &plan, head, shape);
            }
            (Dataflow::Flat, FlatStages::Sequential) => in_sequence(&mut jobs, machine, &tiles, dram, Loads::First),
            (Dataflow::TileFlow, _) => in_sequence(&mut jobs, machine, &tiles, dram, Loads::Ahead),
            (Dataflow::FuseMax, _) => {
                let bands = &head.bands_of(machine.tile_queries)[..tiles.len()];
                waterfall(&mut jobs, machine, bands, shape.head_dim, dram);
            }
            _ => streamed.push(Streamed::new(machine, head, shape, tiles, dram)),
        }
        if shown == MOST_TILES {
            complete &= at + 1 == heads.len();
            break;
        }
    }
    let mut pipeline = Pipeline::default();
    for (at, head) in streamed.iter().enumerate() {
        pipeline.head(&mut jobs, at + 1, head, streamed.get(at + 1));
    }
    pipeline.drain(&mut jobs);
    let spans = jobs.run(machine);
    let end = spans.iter().map(|span| span.end).fold(Seconds::ZERO, Seconds::max);
    Timeline { kind: Kind::Predicted, device: device.into(), dataflow, spans, end, complete }
}

/// One operator after the other, each beside its transfers.
fn layers(
    jobs: &mut Jobs,
    machine: &Machine,
    dataflow: Dataflow,
    plan: &Plan,
    head: &HeadWork,
    shape: &AttentionShape,
) {
    let before = jobs.0.len().checked_sub(1);
    // The last job of every stage waits for the stage's other jobs, so that it alone carries the order on.
    let mut stage = |label: &str, work: &[(Unit, &str, f64)], bytes: f64, before: Option<usize>| {
        let mut done: Vec<Option<usize>> = work
            .iter()
            .map(|(unit, label, cycles)| Some(jobs.add(*unit, (*label).into(), *cycles, &[before])))
            .collect();
        done.push(Some(jobs.add(Unit::Dram, label.into(), dram_cycles(machine, bytes), &[before])));
        Some(jobs.add(Unit::Matrix, String::new(), 0.0, &done))
    };
    let scores = (Unit::Matrix, "C", plan.qk + plan.blocks);
    let softmax = (Unit::Vector, "P", plan.vector_busy);
    let output = (Unit::Matrix, "O", plan.pv);
    if dataflow == Dataflow::LayerWise {
        let [first, second, third] = layered::layer_wise_bytes(head, shape);
        let scores = stage("Q, K in, C out", &[scores], first, before);
        let softmax = stage("C in, P out", &[softmax], second, scores);
        stage("P, V in, O out", &[output], third, softmax);
    } else {
        let [first, second] = layered::soft_pipe_bytes(head, shape);
        let softmax = stage("Q, K in, P out", &[scores, softmax], first, before);
        stage("P, V in, O out", &[output], second, softmax);
    }
}

/// Whether a tile's loads run while the tile before it is in work.
#[derive(Clone, Copy, PartialEq)]
enum Loads {
    First,
    Ahead,
}

fn in_sequence(jobs: &mut Jobs, machine: &Machine, tiles: &[Stages], dram: f64, loads: Loads) {
    let transfer = dram_cycles(machine, dram) / tiles.len() as f64;
    let mut last = jobs.0.len().checked_sub(1);
    let mut ahead = None;
    for (at, tile) in tiles.iter().enumerate() {
        let label = |what: &str| format!("{what}{}", at + 1);
        let mut fetch = |tile: usize, after: Option<usize>| {
            jobs.add(Unit::Dram, format!("Q, K, V{tile}"), 0.75 * transfer, &[after])
        };
        let load = match loads {
            Loads::First => fetch(at + 1, last),
            Loads::Ahead => {
                let load = ahead.unwrap_or_else(|| fetch(at + 1, None));
                ahead = (at + 1 < tiles.len()).then(|| fetch(at + 2, None));
                load
            }
        };
        let scores = jobs.add(Unit::Matrix, label("C"), tile.product, &[Some(load), last]);
        let softmax = jobs.add(Unit::Vector, label("P"), tile.softmax, &[Some(scores)]);
        let output = jobs.add(Unit::Matrix, label("O"), tile.product, &[Some(softmax)]);
        let store = jobs.add(Unit::Dram, label("O"), 0.25 * transfer, &[Some(output)]);
        last = Some(if loads == Loads::First { store } else { output });
    }
}

/// One head for the pipeline, in cycles of one core.
struct Streamed {
    tiles: Vec<Stages>,
    /// Loading one tile's Q, and storing its O.
    rows: f64,
    /// Loading K, and loading V.
    keys: f64,
    /// Loading again, for every tile but the first, what gave way to scores; P never does.
    again: f64,
}

impl Streamed {
    fn new(machine: &Machine, head: &HeadWork, shape: &AttentionShape, tiles: Vec<Stages>, dram: f64) -> Self {
        let count = tiles.len() as f64;
        let rows = dram_cycles(machine, query_bytes(head, shape.head_dim)) / count;
        let keys = dram_cycles(machine, key_bytes(head.whole(), shape.head_dim));
        let rest = dram_cycles(machine, dram) - 2.0 * rows * count - 2.0 * keys;
        // Traffic is a sum of many terms: what rounding leaves is no reload.
        let again = if rest > 1e-6 * keys { rest / (count - 1.0).max(1.0) } else { 0.0 };
        Self { tiles, rows, keys, again }
    }
}

/// FuseMax's phases: both units begin one together, and transfers run ahead.
fn waterfall(jobs: &mut Jobs, machine: &Machine, bands: &[Band], head_dim: u32, dram: f64) {
    let transfer = dram_cycles(machine, dram) / bands.len() as f64;
    let mut last = jobs.0.len().checked_sub(1);
    let mut ahead = None;
    for (at, band) in bands.iter().enumerate() {
        let label = |what: &str| format!("{what}{}", at + 1);
        let mut fetch = |tile: usize| jobs.add(Unit::Dram, format!("Q, K, V{tile}"), 0.75 * transfer, &[]);
        let load = ahead.unwrap_or_else(|| fetch(at + 1));
        ahead = (at + 1 < bands.len()).then(|| fetch(at + 2));
        for phase in fuse_max::phases(machine, *band, head_dim) {
            let mut done = Vec::new();
            for (unit, name, cycles) in
                [(Unit::Matrix, phase.names[0], phase.matrix), (Unit::Vector, phase.names[1], phase.vector)]
            {
                if cycles > 0.0 {
                    done.push(Some(jobs.add(unit, label(name), cycles, &[Some(load), last])));
                }
            }
            last = Some(jobs.add(Unit::Matrix, String::new(), 0.0, &done));
        }
        jobs.add(Unit::Dram, label("O"), 0.25 * transfer, &[last]);
    }
}

/// Two streams over the tiles of all heads: `O_{i-2}` and `C_i` on the matrix unit beside `P_{i-1}` on the other.
#[derive(Default)]
struct Pipeline {
    /// Tiles whose scores were issued and whose output was not.
    open: Vec<Open>,
    /// Scores of the last two tiles, the later one second: a tile's queries lie where those of the one before the last lay.
    scores: [Option<usize>; 2],
    /// K and V that were loaded while the head before was in work.
    loaded: Option<[usize; 2]>,
}

/// One tile between its scores and its output.
struct Open {
    label: String,
    stages: Stages,
    scores: usize,
    softmax: Option<usize>,
    values: usize,
    store: f64,
}

impl Pipeline {
    /// Issues head `number`; `next` is the head whose K and V arrive meanwhile.
    fn head(&mut self, jobs: &mut Jobs, number: usize, head: &Streamed, next: Option<&Streamed>) {
        let name = |what: &str, at: usize| format!("{what}{number}.{}", at + 1);
        let count = head.tiles.len();
        let (mut keys, mut values) =
            self.loaded.take().map_or((None, None), |[keys, values]| (Some(keys), Some(values)));
        let next = next.filter(|_| head.again == 0.0);
        for (at, tile) in head.tiles.iter().enumerate() {
            let queries = jobs.add(Unit::Dram, name("Q", at), head.rows, &[self.scores[0]]);
            let scores = match keys {
                None => {
                    let mut scores = queries;
                    for piece in 0..PIECES {
                        let part = 1.0 / f64::from(PIECES);
                        let arrived = jobs.add(Unit::Dram, format!("K{number}"), head.keys * part, &[]);
                        if piece == 0 {
                            self.output(jobs);
                        }
                        let ready = [Some(queries), Some(arrived)];
                        scores = jobs.add(Unit::Matrix, name("C", at), tile.product * part, &ready);
                        keys = Some(arrived);
                    }
                    values = Some(jobs.add(Unit::Dram, format!("V{number}"), head.keys, &[]));
                    scores
                }
                Some(_) => {
                    let mut ready = vec![Some(queries), keys];
                    if head.again > 0.0 && at > 0 {
                        let after = [self.scores[1]];
                        ready.push(Some(jobs.add(Unit::Dram, name("again ", at), head.again, &after)));
                    }
                    self.output(jobs);
                    jobs.add(Unit::Matrix, name("C", at), tile.product, &ready)
                }
            };
            self.scores = [self.scores[1], Some(scores)];
            self.softmax(jobs);
            let values = values.expect("the first tile loads V");
            let label = format!("{number}.{}", at + 1);
            self.open.push(Open { label, stages: *tile, scores, softmax: None, values, store: head.rows });
            if let Some(next) = next {
                // K in the first half of the tiles, V in the second.
                let of_values = 2 * (at + 1) > count;
                let what = if of_values { "V" } else { "K" };
                let share = 2.0 * next.keys / count as f64;
                let arrived = jobs.add(Unit::Dram, format!("{what}{}", number + 1), share, &[]);
                let [keys, _] = self.loaded.unwrap_or([arrived; 2]);
                self.loaded = Some(if of_values { [keys, arrived] } else { [arrived; 2] });
            }
        }
    }

    /// Softmax of the newest tile, beside the scores of the one after it.
    fn softmax(&mut self, jobs: &mut Jobs) {
        if let Some(tile) = self.open.last_mut().filter(|tile| tile.softmax.is_none()) {
            let label = format!("P{}", tile.label);
            tile.softmax = Some(jobs.add(Unit::Vector, label, tile.stages.softmax, &[Some(tile.scores)]));
        }
    }

    /// Output of the oldest tile, once two are open.
    fn output(&mut self, jobs: &mut Jobs) {
        if self.open.len() >= 2 {
            self.finish_oldest(jobs);
        }
    }

    fn finish_oldest(&mut self, jobs: &mut Jobs) {
        let tile = self.open.remove(0);
        let label = format!("O{}", tile.label);
        let output = jobs.add(Unit::Matrix, label.clone(), tile.stages.product, &[tile.softmax, Some(tile.values)]);
        jobs.add(Unit::Dram, label, tile.store, &[Some(output)]);
    }

    fn drain(&mut self, jobs: &mut Jobs) {
        self.softmax(jobs);
        while !self.open.is_empty() {
            self.finish_oldest(jobs);
        }
    }
}
