//! What an evaluation costs: BERT with random weights on random tokens, blocks of 16 at density .3 in three precisions.
//!
//! `bert mini` (4 layers, 256 wide, 128 tokens) says how many candidates are measured in a second on 128 examples: when none
//! has anything in common with another, and when each differs from the one before in two heads, as in a search.
//!
//! `bert base` (12 layers, 768 wide, 512 tokens, batches of 8) says how much memory an evaluation and three steps of fine-tuning
//! take, on Linux.

use std::{env, error::Error, fs, io, io::Write, ops::ControlFlow, time::Instant};

use burn::tensor::Device;
use maskwright_blueprint::{BlockMask, BlockSize, Blueprint, HeadMask, ModelShape, Precision, Provenance};
use maskwright_evaluator::{DenseModel, Evaluator, Examples, Recipe, TaskData, Training, Treatment};
use maskwright_transformer::{BertConfig, Model, TokenisedTexts};
use rand::{RngExt, SeedableRng, rngs::ChaCha12Rng};

const BASE: BertConfig = BertConfig { width: 768, layers: 12, heads: 12, mlp: 3072, length: 512, ..BertConfig::MINI };

fn main() -> Result<(), Box<dyn Error>> {
    match env::args().nth(1).as_deref() {
        Some("mini") => rates(),
        Some("base") => memory(),
        _ => Err("say `mini` or `base`".into()),
    }
}

fn rates() -> Result<(), Box<dyn Error>> {
    let evaluator = evaluator(&BertConfig::MINI, 128);
    let mut generator = ChaCha12Rng::seed_from_u64(1);
    let shape = evaluator.shape().clone();
    let fresh: Vec<Blueprint> = (0..16).map(|_| blueprint(&shape, &heads(&shape, &mut generator))).collect();
    let mut edited = heads(&shape, &mut generator);
    let edits: Vec<Blueprint> = (0..64)
        .map(|_| {
            for _ in 0..2 {
                let head = generator.random_range(0..edited.len());
                edited[head] = mask(&shape, &mut generator);
            }
            blueprint(&shape, &edited)
        })
        .collect();
    evaluator.measure(&[Blueprint::dense(shape, BlockSize::B32, Precision::Single)])?; // the first pass takes fresh memory
    let mut out = io::stdout();
    for (name, candidates) in [("nothing in common", &fresh), ("two heads changed", &edits)] {
        let begun = Instant::now();
        candidates.chunks(8).for_each(|batch| drop(evaluator.measure(batch).expect("texts are in memory")));
        let rate = candidates.len() as f64 / begun.elapsed().as_secs_f64();
        let known = 100.0 * evaluator.reused_layers();
        writeln!(out, "{name}: {rate:.2} candidates a second; {known:.0} % of all layers so far were known")?;
    }
    Ok(())
}

fn memory() -> Result<(), Box<dyn Error>> {
    let mut out = io::stdout();
    let mut say = |stage: &str, begun: Instant| match peak() {
        Some(mebibytes) => writeln!(out, "{stage}: {mebibytes} MiB at most, {:.1} s", begun.elapsed().as_secs_f64()),
        None => writeln!(out, "{stage}: this system does not tell how much memory a process took"),
    };
    let begun = Instant::now();
    let evaluator = evaluator(&BASE, 8);
    let shape = evaluator.shape().clone();
    say("model, and its answers to a batch of 8", begun)?;
    let mut generator = ChaCha12Rng::seed_from_u64(1);
    let candidate = blueprint(&shape, &heads(&shape, &mut generator));
    let begun = Instant::now();
    evaluator.measure(std::slice::from_ref(&candidate))?;
    say("one candidate measured", begun)?;
    let begun = Instant::now();
    Training {
        name: "three steps",
        section: "fine_tune",
        examples: &texts(&BASE, 24),
        recipe: &Recipe { epochs: 1, batch: 8, ..Recipe::default() },
        treatment: Treatment::Masked(&candidate),
        teacher: None,
        judge: None,
        seed: 1,
        store: None,
    }
    .run(evaluator.dense().clone(), &mut |_| ControlFlow::Continue(()))?;
    say("three steps of fine-tuning", begun)?;
    Ok(())
}

fn evaluator(config: &BertConfig, examples: usize) -> Evaluator {
    let model = Model::Bert(config.init(7, &Device::flex()));
    let validation = texts(config, examples + 1);
    let data = TaskData::new(validation.clone(), validation.clone(), validation);
    let shape = model.shape("bert");
    let dense = DenseModel { shape, model, data, tokeniser: None, cached: false, drawn: Vec::new(), ignored: 0 };
    Evaluator::new(dense, examples)
}

/// Texts of full length.
fn texts(config: &BertConfig, count: usize) -> Examples {
    let mut generator = ChaCha12Rng::seed_from_u64(2);
    let length = config.length as usize;
    let tokens = (0..count * length).map(|_| generator.random_range(0..config.vocabulary)).collect();
    let (token_types, lengths) = (vec![0; count * length], vec![length; count]);
    let texts = TokenisedTexts { length, tokens, token_types, lengths, truncated: 0 };
    Examples::texts(texts, (0..count as u32).map(|at| at % 2).collect())
}

fn heads(shape: &ModelShape, generator: &mut ChaCha12Rng) -> Vec<HeadMask> {
    shape.heads().map(|_| mask(shape, generator)).collect()
}

/// The diagonal and some other blocks, four in ten of all in 8 bit, four in 16 bit, two in single precision.
fn mask(shape: &ModelShape, generator: &mut ChaCha12Rng) -> HeadMask {
    use Precision::{Half, Int8, Single};
    let blocks = BlockSize::B16.cover(shape.modules[0].shape.queries) as usize;
    let others = (0.3 * (blocks * blocks) as f64 - blocks as f64) / (blocks * (blocks - 1)) as f64;
    let cells = (0..blocks * blocks).map(|at| {
        let active = at % (blocks + 1) == 0 || generator.random_bool(others);
        active.then(|| [Int8, Int8, Half, Half, Single][generator.random_range(0..5)])
    });
    let blocks = BlockMask::new(blocks, cells.collect()).expect("the diagonal is active");
    HeadMask { block_size: BlockSize::B16, blocks }
}

fn blueprint(shape: &ModelShape, heads: &[HeadMask]) -> Blueprint {
    let masks = heads.chunks(shape.modules[0].shape.heads as usize).map(<[HeadMask]>::to_vec).collect();
    Blueprint::new(shape.clone(), masks, Provenance::default()).expect("the masks fit")
}

/// Most memory that was resident at once, in MiB.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(kibibytes.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}
