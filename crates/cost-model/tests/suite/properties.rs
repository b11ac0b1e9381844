use std::collections::BTreeMap;

use maskwright_blueprint::{
    AttentionKind, AttentionShape, BlockMask, BlockSize, Blueprint, Digest, HeadId, HeadMask, Linear, ModelShape,
    ModuleShape, Precision, Provenance,
};
use maskwright_cost_model::{Cost, CostModel, Dataflow, DeviceProfile, Figure, MatrixHeads, Softmax, Work};
use proptest::{prelude::*, sample::select};

use crate::self_attention;

/// Rounding of sums of up to a few thousand terms.
const ROUNDING: f64 = 1e-9;

/// A mask in which cell values 0 to 3 stand for skipped and the device's precisions, coarsest first.
#[derive(Debug, Clone)]
struct Drawn {
    shape: AttentionShape,
    block_size: BlockSize,
    cells: Vec<u8>,
}

fn drawn() -> impl Strategy<Value = Drawn> {
    // A unit for matrices asks for multiples of 32.
    let head_dim = prop_oneof![2 => 1..40u32, 1 => select(vec![32, 64_u32])];
    (1..200u32, 1..200u32, head_dim, select(&BlockSize::ALL[..]), any::<bool>()).prop_flat_map(
        |(queries, keys, head_dim, block_size, causal)| {
            let (kind, keys) = match causal {
                true => (AttentionKind::CausalSelfAttention, queries),
                false => (AttentionKind::CrossAttention, keys),
            };
            let shape = AttentionShape { kind, heads: 2, queries, keys, head_dim, windows: 1 };
            let columns = block_size.cover(keys) as usize;
            prop::collection::vec(0..4u8, block_size.cover(queries) as usize * columns).prop_map(move |mut cells| {
                for (at, row) in cells.chunks_mut(columns).enumerate() {
                    if row[..kind.columns_of(at, columns)].iter().all(|cell| *cell == 0) {
                        row[0] = 1;
                    }
                }
                Drawn { shape, block_size, cells }
            })
        },
    )
}

impl Drawn {
    fn mask(&self, precisions: &[Precision]) -> HeadMask {
        let columns = self.block_size.cover(self.shape.keys) as usize;
        let precision = |cell: u8| match cell {
            0 => None,
            level => Some(precisions[usize::from(level - 1).min(precisions.len() - 1)]),
        };
        let cells = self.cells.iter().map(|cell| precision(*cell)).collect();
        HeadMask { block_size: self.block_size, blocks: BlockMask::new(columns, cells).unwrap() }
    }

    /// The same with one cell added or raised.
    fn more(&self, at: prop::sample::Index) -> Self {
        let mut more = self.clone();
        let cell = &mut more.cells[at.index(self.cells.len())];
        *cell = (*cell + 1).min(3);
        more
    }
}

/// A device whose memories are so small that scores spill, and K and V give way, even for the heads drawn here.
fn cramped(mut profile: DeviceProfile) -> DeviceProfile {
    profile.name += ", cramped";
    for level in &mut profile.memory {
        level.bytes.value /= 512.0;
    }
    profile
}

fn everywhere() -> impl Iterator<Item = (DeviceProfile, Dataflow)> {
    let profiles = DeviceProfile::names().into_iter().map(|name| DeviceProfile::named(name).unwrap());
    let timed = [crate::calibration::core_with_kernels(), crate::calibration::core_with_a_unit_for_matrices()];
    let profiles = profiles.chain(timed);
    let profiles = profiles.flat_map(|profile| [profile.clone(), cramped(profile)]);
    profiles.flat_map(|profile| Dataflow::ALL.map(|dataflow| (profile.clone(), dataflow)))
}

fn price(model: &CostModel, mask: &HeadMask, shape: &AttentionShape, softmax: Softmax) -> Cost {
    let head = model.head(mask, shape, softmax).unwrap();
    model.total([model.module(shape, softmax), head])
}

/// Bytes that no dataflow can do without: Q and O rows and used K and V columns, each once at its finest precision. A causal row
/// ends on the diagonal.
fn compulsory(mask: &HeadMask, shape: &AttentionShape) -> f64 {
    let (blocks, size) = (&mask.blocks, mask.block_size);
    let causal = shape.kind == AttentionKind::CausalSelfAttention;
    let cell = |row: usize, column: usize| blocks.get(row, column).filter(|_| !causal || column <= row);
    let bytes = |tokens: u32, cells: &mut dyn Iterator<Item = Option<Precision>>| {
        f64::from(tokens * cells.flatten().map(Precision::bytes).max().unwrap_or(0))
    };
    let rows: f64 = (0..blocks.rows())
        .map(|row| {
            bytes(size.extent(row as u32, shape.queries), &mut (0..blocks.columns()).map(|column| cell(row, column)))
        })
        .sum();
    let columns: f64 = (0..blocks.columns())
        .map(|column| {
            let mut cells = (0..blocks.rows()).map(|row| cell(row, column));
            bytes(size.extent(column as u32, shape.keys), &mut cells)
        })
        .sum();
    2.0 * (rows + columns) * f64::from(shape.head_dim)
}

/// Cores whose kernels take all kinds of times: 16 bit is emulated; a little faster than 32 bit; as fast as 8 bit; and each as fast
/// as its width has it, with and without waiting for loads. And of those, cores where heads of 32 bit alone are left to vectors, which take less
/// for them than the unit for matrices, or more.
fn cores() -> impl Iterator<Item = DeviceProfile> {
    let figures = |of: [f64; 3]| {
        let figure = |value| Figure { value, source: "a test".into(), verified: false };
        Precision::ALL.into_iter().zip(of.map(figure)).collect::<BTreeMap<_, _>>()
    };
    let times = [
        ([0.045, 0.254, 0.163], [1.04, 0.04, 2.04], 0.12),
        ([0.045, 0.14, 0.163], [1.0, 1.6, 2.0], 0.12),
        ([0.12, 0.122, 0.13], [1.6, 2.0, 1.55], 0.15),
        ([0.04, 0.08, 0.16], [0.5, 0.6, 0.9], 0.6),
        ([0.0324, 0.0645, 0.1278], [0.43, 0.31, 0.75], 0.0),
        ([0.036, 0.068, 0.13], [0.5, 0.6, 0.9], 0.0),
        ([0.02, 0.08, 0.16], [0.5, 0.6, 0.9], 0.15),
    ];
    let cores = times.into_iter().map(move |(product, softmax, load)| {
        let mut core = crate::calibration::core_with_kernels();
        let kernels = core.kernels.as_mut().unwrap();
        (kernels.product_cycles, kernels.softmax_cycles) = (figures(product), figures(softmax));
        (kernels.run_cycles.value, kernels.pack_cycles) = (1100.0, figures([0.8, 1.0, 2.8]));
        kernels.load_cycles.value = load;
        core
    });
    cores.flat_map(|core| {
        let with_unit = |factor: f64| {
            let mut core = core.clone();
            core.matrix.heads = Some(MatrixHeads { least_block: 8, head_dim_multiple: 8 });
            let mut vectors = core.kernels.clone().unwrap();
            vectors.product_cycles.values_mut().for_each(|figure| figure.value *= factor);
            vectors.run_cycles.value *= factor;
            core.vector_kernels = Some(vectors);
            core
        };
        [with_unit(0.9), with_unit(1.1), core]
    })
}

#[test]
fn raising_a_block_of_8_never_pays_although_two_share_a_vector() {
    for mut core in cores() {
        // A run costs much, or hardly anything; the others' room in a vector decides then.
        for (run, head_dim) in [(1100.0, 64), (1100.0, 512), (1.0, 64), (1.0, 16), (1.0, 8)] {
            let kernels = core.kernels.as_mut().unwrap();
            (kernels.run_cycles.value, kernels.mix_cycles.value) = (run, 0.1 * run);
            // Of a single row packing would decide alone.
            kernels.pack_cycles.values_mut().for_each(|figure| figure.value = 0.001);
            let model = CostModel::new(&core, Dataflow::Flash, 1).unwrap();
            let (kind, keys) = (AttentionKind::CrossAttention, 8 * 16 - 3);
            let shape = AttentionShape { kind, heads: 1, queries: 16, keys, head_dim, windows: 1 };
            // So many blocks of each precision, 8 bit first or last: the last block is ragged. Beside a row that needs hardly
            // anything packed, or everything.
            let cost = |counts: [usize; 3], (reversed, beside): (bool, Option<Precision>)| {
                let mut cells: Vec<_> =
                    Precision::ALL.into_iter().zip(counts).flat_map(|(p, count)| vec![Some(p); count]).collect();
                if reversed {
                    cells.reverse();
                }
                let mut all = vec![None; 16 - cells.len()];
                all.extend(cells);
                all.push(Some(Precision::Single));
                all.extend([beside; 15]);
                let mask = HeadMask { block_size: BlockSize::B8, blocks: BlockMask::new(16, all).unwrap() };
                price(&model, &mask, &shape, Softmax::Float).seconds.0
            };
            let all = (0..5_usize.pow(3)).map(|code| [code % 5, code / 5 % 5, code / 25]);
            for counts in all.filter(|counts| counts.iter().sum::<usize>() > 0) {
                for (from, to) in [(3, 0), (3, 1), (3, 2), (0, 1), (0, 2), (1, 2)] {
                    let mut more = counts;
                    more[to] += 1;
                    if from < 3 && counts[from] == 0 {
                        continue;
                    }
                    if from < 3 {
                        more[from] -= 1;
                    }
                    for order in [(false, None), (true, None), (false, Some(Precision::Single))] {
                        let (less, more) = (cost(counts, order), cost(more, order));
                        let kernels = core.kernels.as_ref().unwrap();
                        assert!(
                            less <= more * (1.0 + ROUNDING),
                            "{counts:?} {from} {to} {order:?} {head_dim}: {less} > {more} with {kernels:?}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn raising_one_block_of_a_long_row_never_pays_whatever_kernels_take() {
    for core in cores() {
        let product = core.kernels.as_ref().unwrap().product_cycles.clone();
        let model = CostModel::new(&core, Dataflow::Flash, 1).unwrap();
        for (tokens, head_dim, block_size) in
            [(1536, 8, BlockSize::B16), (256, 64, BlockSize::B16), (256, 64, BlockSize::B8)]
        {
            let shape = self_attention(1, tokens, head_dim);
            let columns = block_size.cover(tokens) as usize;
            // The last two: from nothing to 8 and to 32 bit.
            for [coarse, fine] in [[0, 1], [0, 2], [1, 2], [3, 0], [3, 2]] {
                for already in usize::from(coarse == 3)..5 {
                    let cost = |of_first: usize| {
                        let row = |row: usize| if row == 0 { of_first } else { already };
                        let level = |at: usize| if at % columns < row(at / columns) { fine } else { coarse };
                        let cells = (0..columns * columns).map(|at| Precision::ALL.get(level(at)).copied()).collect();
                        let mask = HeadMask { block_size, blocks: BlockMask::new(columns, cells).unwrap() };
                        price(&model, &mask, &shape, Softmax::Float).seconds.0
                    };
                    let (less, more) = (cost(already), cost(already + 1));
                    assert!(
                        less <= more * (1.0 + ROUNDING),
                        "{product:?} {shape:?} {coarse} {fine} {already}: {less} > {more}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_block_more_or_a_finer_one_never_costs_less(
        head in drawn(),
        at in any::<prop::sample::Index>(),
        softmax in select(vec![Softmax::Float, Softmax::Integer]),
    ) {
        for (profile, dataflow) in everywhere() {
            let model = CostModel::new(&profile, dataflow, 2).unwrap();
            let cost = |head: &Drawn| price(&model, &head.mask(&profile.precisions()), &head.shape, softmax);
            let (less, more) = (cost(&head), cost(&head.more(at)));
            let slack = 1.0 + ROUNDING;
            prop_assert!(less.seconds.0 <= more.seconds.0 * slack, "{} {dataflow}: {} > {}", profile.name, less.seconds, more.seconds);
            prop_assert!(less.joules.value.0 <= more.joules.value.0 * slack, "{} {dataflow}: {} > {}", profile.name, less.joules.value, more.joules.value);
            prop_assert!(less.dram_bytes.0 <= more.dram_bytes.0 * slack, "{} {dataflow}: {} > {}", profile.name, less.dram_bytes, more.dram_bytes);
        }
    }

    #[test]
    fn energy_power_utilisation_and_traffic_are_possible(head in drawn(), softmax in select(vec![Softmax::Float, Softmax::Integer])) {
        for (profile, dataflow) in everywhere() {
            let model = CostModel::new(&profile, dataflow, 3).unwrap();
            let mask = head.mask(&profile.precisions());
            let cost = price(&model, &mask, &head.shape, softmax);
            let limit = profile.energy.limit_watts.value * cost.seconds.0 * (1.0 + ROUNDING);
            prop_assert!(cost.joules.low.0 <= cost.joules.value.0 && cost.joules.value.0 <= cost.joules.high.0);
            prop_assert!(cost.joules.high.0 <= limit, "{} {dataflow}: {} J above {limit} J", profile.name, cost.joules.high.0);
            prop_assert!(cost.peak_watts.0 * (1.0 + ROUNDING) >= cost.joules.value.0 / cost.seconds.0, "{} {dataflow}", profile.name);
            prop_assert!(cost.utilisation > 0.0 && cost.utilisation <= 1.0, "{} {dataflow}: {}", profile.name, cost.utilisation);
            let needed = 3.0 * compulsory(&mask, &head.shape);
            prop_assert!(cost.dram_bytes.0 * (1.0 + ROUNDING) >= needed, "{} {dataflow}: {} of {needed}", profile.name, cost.dram_bytes.0);
            let terms: f64 = cost.terms.iter().map(|term| term.seconds.0).sum();
            prop_assert!((terms / cost.seconds.0 - 1.0).abs() < ROUNDING, "{} {dataflow}", profile.name);
        }
    }

    #[test]
    fn heads_modules_and_the_rest_add_up_to_the_model(head in drawn(), dataflow in select(&Dataflow::ALL[..])) {
        let profile = DeviceProfile::named("cpu-avx512").unwrap();
        let model = CostModel::new(&profile, dataflow, 4).unwrap();
        let (masks, shape) = ([head.mask(&Precision::ALL), HeadMask::dense(&head.shape, BlockSize::B32, Precision::Half)], &head.shape);
        let of = ModelShape {
            name: "one module".into(),
            digest: Digest::of(["one module"]),
            modules: vec![ModuleShape { name: "attention".into(), shape: *shape }],
            linears: vec![Linear { rows: shape.queries, inputs: 24, outputs: 48, count: 3 }],
            elementwise: 1000,
        };
        let work = Work::of(&Blueprint::new(of, vec![masks.to_vec()], Provenance::default()).unwrap());
        let module = model.module(shape, Softmax::Float);
        let heads = masks.each_ref().map(|mask| model.head(mask, shape, Softmax::Float).unwrap());
        let attention = model.total([module, heads[0], heads[1]]);
        prop_assert_eq!(model.attention(&work).unwrap(), attention.clone());
        let mut changed = work.clone();
        changed.set_head(HeadId { module: 0, head: 1 }, &masks[0]).unwrap();
        let twice = model.total([module, heads[0], heads[0]]);
        prop_assert_eq!(model.attention(&changed).unwrap(), twice);
        let all = model.end_to_end(&work).unwrap();
        let rest = model.total([model.rest(&work)]);
        prop_assert!((all.seconds.0 / (attention.seconds.0 + rest.seconds.0) - 1.0).abs() < ROUNDING);
        prop_assert!((all.dram_bytes.0 / (attention.dram_bytes.0 + rest.dram_bytes.0) - 1.0).abs() < ROUNDING);
    }
}

#[test]
fn a_full_mask_costs_what_the_dense_shape_costs() {
    let all = self_attention(3, 197, 64);
    let causal = AttentionShape { kind: AttentionKind::CausalSelfAttention, ..all };
    for ((profile, dataflow), shape) in everywhere().flat_map(|of| [(of.clone(), all), (of, causal)]) {
        let model = CostModel::new(&profile, dataflow, 8).unwrap();
        for block_size in BlockSize::ALL {
            for precision in profile.precisions() {
                let full = model.head(&HeadMask::dense(&shape, block_size, precision), &shape, Softmax::Float).unwrap();
                let module = model.module(&shape, Softmax::Float);
                let bare = model.attention(&Work::bare(&shape, block_size, precision).unwrap()).unwrap();
                assert_eq!(model.total([module, full, full, full]), bare, "{} {dataflow}", profile.name);
            }
        }
    }
}

/// Weights pass DRAM once for the whole batch, so that eight examples take less than eight times one.
#[test]
fn a_batch_shares_its_weights() {
    let work = Work {
        modules: vec![],
        linears: vec![Linear { rows: 1, inputs: 768, outputs: 3072, count: 12 }],
        elementwise: 0,
    };
    let profile = DeviceProfile::named("h200").unwrap();
    let seconds = |batch| CostModel::new(&profile, Dataflow::Flash, batch).unwrap().end_to_end(&work).unwrap().seconds;
    assert!(seconds(8).0 < 1.1 * seconds(1).0, "{} and {}", seconds(8), seconds(1));
    let error = CostModel::new(&profile, Dataflow::Flash, 0).unwrap_err().to_string();
    assert_eq!(error, "a batch holds 1 to 65536 examples, not 0");
}

/// One 8-token block keeps a 16-row unit as busy as a 16-token block does: rows are padded to the native tile.
#[test]
fn a_small_block_costs_a_whole_native_tile() {
    let model = CostModel::new(&DeviceProfile::named("mas-edge").unwrap(), Dataflow::Flash, 1).unwrap();
    let shape = |tokens| AttentionShape {
        kind: AttentionKind::SelfAttention,
        heads: 1,
        queries: tokens,
        keys: tokens,
        head_dim: 64,
        windows: 1,
    };
    let products = |size: BlockSize| {
        let shape = shape(size.tokens());
        let cost =
            model.total([model.head(&HeadMask::dense(&shape, size, Precision::Half), &shape, Softmax::Float).unwrap()]);
        cost.terms.iter().find(|term| term.name == "Q K^T").unwrap().seconds
    };
    assert_eq!(products(BlockSize::B8), products(BlockSize::B16));
    assert_eq!(products(BlockSize::B32) / products(BlockSize::B16), 4.0 / 2.0); // two bands on two cores
}

/// Attention's share of BERT-Base's arithmetic: 2 N 768 of 2 N 768 + 4 * 768^2 + 2 * 768 * 3072 for each token and layer.
#[test]
fn the_whole_model_holds_more_than_attention() {
    let model = CostModel::new(&DeviceProfile::named("h200").unwrap(), Dataflow::Flash, 1).unwrap();
    for (tokens, percent) in [(128, 2.7), (512, 10.0), (4096, 47.1)] {
        let shape = self_attention(12, tokens, 64);
        let mut work = Work::bare(&shape, BlockSize::B32, Precision::Half).unwrap();
        work.linears = vec![
            Linear { rows: tokens, inputs: 768, outputs: 768, count: 4 },
            Linear { rows: tokens, inputs: 768, outputs: 3072, count: 1 },
            Linear { rows: tokens, inputs: 3072, outputs: 768, count: 1 },
        ];
        work.elementwise = u64::from(tokens) * (4 * 768 + 3072);
        let (attention, whole) = (model.attention(&work).unwrap(), model.end_to_end(&work).unwrap());
        assert!((100.0 * attention.operations / whole.operations - percent).abs() < 0.05, "{tokens} tokens");
        assert!(attention.seconds.0 < whole.seconds.0 && attention.joules.value.0 < whole.joules.value.0);
        let names: Vec<_> = whole.terms.iter().map(|term| term.name).collect();
        assert!(names.ends_with(&["linears", "elementwise"]), "{names:?}");
    }
}
