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

/// Ends the label of a load of what was on chip before.
pub(crate) const AGAIN: &str = "again";

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
                waterfall(&mut jobs, machine, bands, (shape.head_dim, softmax), dram);
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
    /// Loading one tile's Q, and storing its O; scores that spill pass with them.
    rows: f64,
    /// Loading K, and loading V.
    keys: f64,
    /// Loading again, for every tile but the first, what of K gave way to scores.
    keys_again: f64,
    /// The same of V, which gives way only after K.
    values_again: f64,
}

impl Streamed {
    fn new(machine: &Machine, head: &HeadWork, shape: &AttentionShape, tiles: Vec<Stages>, dram: f64) -> Self {
        let count = tiles.len() as f64;
        let rows = dram_cycles(machine, query_bytes(head, shape.head_dim)) / count;
        let keys = dram_cycles(machine, key_bytes(head.whole(), shape.head_dim));
        let rest = dram_cycles(machine, dram) - 2.0 * rows * count - 2.0 * keys;
        // Traffic is a sum of many terms: what rounding leaves is no reload.
        let again = if rest > 1e-6 * keys { rest / (count - 1.0).max(1.0) } else { 0.0 };
        let keys_again = again.min(keys);
        let values_again = (again - keys_again).min(keys);
        let spilled = (again - keys_again - values_again) * (count - 1.0).max(1.0) / count;
        Self { tiles, rows: rows + spilled / 2.0, keys, keys_again, values_again }
    }
}

/// FuseMax's phases: both units begin one together, and transfers run ahead.
fn waterfall(jobs: &mut Jobs, machine: &Machine, bands: &[Band], (head_dim, softmax): (u32, Softmax), dram: f64) {
    let transfer = dram_cycles(machine, dram) / bands.len() as f64;
    let mut last = jobs.0.len().checked_sub(1);
    let mut ahead = None;
    for (at, band) in bands.iter().enumerate() {
        let label = |what: &str| format!("{what}{}", at + 1);
        let mut fetch = |tile: usize| jobs.add(Unit::Dram, format!("Q, K, V{tile}"), 0.75 * transfer, &[]);
        let load = ahead.unwrap_or_else(|| fetch(at + 1));
        ahead = (at + 1 < bands.len()).then(|| fetch(at + 2));
        for phase in fuse_max::phases(machine, *band, head_dim, softmax) {
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
    /// Pieces of products that took pieces of K or V, the last two: their places are free for the pieces after the next.
    pieces: [Option<usize>; 2],
    /// K and V that were loaded while the head before was in work.
    loaded: Option<[usize; 2]>,
}

/// One tile between its scores and its output.
struct Open {
    label: String,
    stages: Stages,
    scores: usize,
    softmax: Option<usize>,
    /// V, and what of it is loaded again.
    values: usize,
    values_again: Arrival,
    store: f64,
}

/// What a product waits for piece by piece, in cycles of DRAM.
#[derive(Default)]
struct Arrival {
    label: String,
    cycles: f64,
    pieces: u32,
}

impl Arrival {
    /// K and V give way and come again a quarter at a time.
    fn again(of: &str, number: usize, cycles: f64) -> Self {
        Self { label: format!("{of}{number} {AGAIN}"), cycles, pieces: 4 }
    }
}

impl Pipeline {
    /// Issues head `number`; `next` is the head whose K and V arrive meanwhile.
    fn head(&mut self, jobs: &mut Jobs, number: usize, head: &Streamed, next: Option<&Streamed>) {
        let name = |what: &str, at: usize| format!("{what}{number}.{}", at + 1);
        let count = head.tiles.len();
        let (mut keys, mut values) =
            self.loaded.take().map_or((None, None), |[keys, values]| (Some(keys), Some(values)));
        let next = next.filter(|_| head.keys_again == 0.0);
        for (at, tile) in head.tiles.iter().enumerate() {
            let queries = jobs.add(Unit::Dram, name("Q", at), head.rows, &[self.scores[0]]);
            let store = self.output(jobs);
            let arrival = match keys {
                // So that the first scores begin before all of K is there.
                None => Arrival { label: format!("K{number}"), cycles: head.keys, pieces: PIECES },
                Some(_) if at > 0 => Arrival::again("K", number, head.keys_again),
                Some(_) => Arrival::default(),
            };
            let scores = self.product(jobs, &name("C", at), tile.product, [Some(queries), keys], &arrival);
            store.into_iter().for_each(|store| store.issue(jobs));
            keys = keys.or(Some(scores));
            let values = *values.get_or_insert_with(|| jobs.add(Unit::Dram, format!("V{number}"), head.keys, &[]));
            self.scores = [self.scores[1], Some(scores)];
            self.softmax(jobs);
            self.open.push(Open {
                label: format!("{number}.{}", at + 1),
                stages: *tile,
                scores,
                softmax: None,
                values,
                values_again: Arrival::again("V", number, if at > 0 { head.values_again } else { 0.0 }),
                store: head.rows,
            });
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

    /// A product that begins as soon as the first piece of what it waits for is there.
    fn product(
        &mut self,
        jobs: &mut Jobs,
        label: &str,
        cycles: f64,
        ready: [Option<usize>; 2],
        arrival: &Arrival,
    ) -> usize {
        if arrival.cycles == 0.0 {
            return jobs.add(Unit::Matrix, label.into(), cycles, &ready);
        }
        let share = 1.0 / f64::from(arrival.pieces);
        let mut last = None;
        for _ in 0..arrival.pieces {
            let free = self.pieces[0];
            let arrived = jobs.add(Unit::Dram, arrival.label.clone(), arrival.cycles * share, &[free]);
            let [a, b] = ready;
            let done = jobs.add(Unit::Matrix, label.into(), cycles * share, &[a, b, Some(arrived)]);
            self.pieces = [self.pieces[1], Some(done)];
            last = Some(done);
        }
        last.expect("an arrival has pieces")
    }

    /// Softmax of the newest tile, beside the scores of the one after it.
    fn softmax(&mut self, jobs: &mut Jobs) {
        if let Some(tile) = self.open.last_mut().filter(|tile| tile.softmax.is_none()) {
            let label = format!("P{}", tile.label);
            tile.softmax = Some(jobs.add(Unit::Vector, label, tile.stages.softmax, &[Some(tile.scores)]));
        }
    }

    /// Output of the oldest tile, once two are open.
    fn output(&mut self, jobs: &mut Jobs) -> Option<Store> {
        (self.open.len() >= 2).then(|| self.finish_oldest(jobs))
    }

    fn finish_oldest(&mut self, jobs: &mut Jobs) -> Store {
        let tile = self.open.remove(0);
        let label = format!("O{}", tile.label);
        let ready = [tile.softmax, Some(tile.values)];
        let output = self.product(jobs, &label, tile.stages.product, ready, &tile.values_again);
        Store { label, cycles: tile.store, output }
    }

    fn drain(&mut self, jobs: &mut Jobs) {
        self.softmax(jobs);
        while !self.open.is_empty() {
            self.finish_oldest(jobs).issue(jobs);
        }
    }
}

/// An output on its way; it is issued behind the loads of the scores that follow it, which would wait for it else.
struct Store {
    label: String,
    cycles: f64,
    output: usize,
}

impl Store {
    fn issue(self, jobs: &mut Jobs) {
        jobs.add(Unit::Dram, self.label, self.cycles, &[Some(self.output)]);
    }
}
