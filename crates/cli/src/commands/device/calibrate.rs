//! Measuring the machine at hand and writing its profile.

mod rounds;
mod samples;
mod template;

use std::num::NonZeroUsize;

use maskwright_blueprint::{AttentionKind, AttentionShape, BlockSize, Precision, Seconds, check_writable, write_whole};
use maskwright_cost_model::{
    BreakEven, Calibration, CalibrationRecord, CostError, CostModel, Dataflow, DeviceProfile, HeldOutShape,
    PredictionError, Sample, Softmax, Work, calibrate_kernels,
};
use maskwright_kernels::Kernel;
use serde::Serialize;

use crate::{
    answer::Answer,
    arguments::{CalibrateArguments, Peer},
    error::CliError,
    measure::{Host, MeasureError},
    table::{percent, table, wrapped},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Written {
    file: String,
    device: String,
    /// Above this much disturbance, figures are noisy.
    noisy: bool,
    record: CalibrationRecord,
}

/// Above this much disturbance, a calibration is said to be noisy.
const NOISY: f64 = 0.05;

pub(super) fn run(arguments: &CalibrateArguments) -> Result<Answer, CliError> {
    let unwritable = |source| CliError::Write { path: arguments.out.clone(), source };
    check_writable(&arguments.out).map_err(unwritable)?;
    let kernel = Kernel::from_environment().map_err(MeasureError::from)?;
    let host = Host::of(kernel);
    let mut drawn = samples::draw(kernel, arguments.threads, arguments.seed)?;
    let measured = rounds::measure(&mut drawn, kernel, arguments)?;
    let date = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let note = format!("{} thread(s) on {}, kernel {kernel}, {date}", arguments.threads, host.cpu);
    let template = template::template(&measured, kernel, arguments.threads, &note)?;
    let sample = |of: &samples::Drawn| Sample { module: of.module(), seconds: Seconds(of.seconds) };
    let fit: Vec<Sample> = drawn.fit.iter().map(sample).collect();
    let held_out: Vec<Sample> = drawn.held_out.iter().flatten().flatten().map(sample).collect();
    let Calibration { mut profile, held_out } = calibrate_kernels(&template, &fit, &held_out, &note)?;
    let model = CostModel::new(&profile, Dataflow::Flash, 1)?;
    let (shapes, regrets) = by_shape(&model, &drawn)?;
    let record = CalibrationRecord {
        cpu: host.cpu,
        kernel: kernel.name().into(),
        threads: arguments.threads.get() as u32,
        governor: host.governor,
        date,
        fitted: fit.len() as u32,
        rounds: measured.rounds,
        spread: drawn.spread(),
        held_out,
        least_rank_correlation: shapes.iter().map(|shape| shape.error.rank_correlation).fold(1.0, f64::min),
        mean_pick_regret: regrets.iter().sum::<f64>() / regrets.len().max(1) as f64,
        worst_pick_regret: shapes.iter().map(|shape| shape.worst_pick_regret).fold(0.0, f64::max),
        shapes,
        break_even: break_even(&model, &arguments.peer)?,
    };
    profile.calibrated = Some(record.clone());
    write_whole(&arguments.out, profile.to_ron().as_bytes()).map_err(unwritable)?;
    let file = arguments.out.display().to_string();
    let written = Written { file, device: profile.name.clone(), noisy: record.spread > NOISY, record };
    match arguments.json {
        true => Ok(Answer::json("device calibrate", &written)),
        false => Ok(Answer::text(in_words(&written, &profile))),
    }
}

/// How good the model is at each shape of [`samples::HELD_OUT`], and how much slower than the fastest what it picks is, for
/// every set of masks of equal density.
fn by_shape(model: &CostModel, drawn: &samples::All) -> Result<(Vec<HeldOutShape>, Vec<f64>), CostError> {
    let pair = |of: &samples::Drawn| -> Result<(Seconds, Seconds), CostError> {
        let work = Work { modules: vec![of.module()], linears: Vec::new(), elementwise: 0 };
        Ok((model.attention(&work)?.seconds, Seconds(of.seconds)))
    };
    let (mut shapes, mut regrets) = (Vec::new(), Vec::new());
    for (samples::Shape { tokens, heads, head_dim }, of_shape) in samples::HELD_OUT.into_iter().zip(&drawn.held_out) {
        let (mut all, first) = (Vec::new(), regrets.len());
        for candidates in of_shape {
            let pairs: Vec<_> = candidates.iter().map(pair).collect::<Result<_, _>>()?;
            regrets.push(PredictionError::of(&pairs).pick_regret);
            all.extend(pairs);
        }
        let worst_pick_regret = regrets[first..].iter().copied().fold(0.0, f64::max);
        shapes.push(HeldOutShape { tokens, heads, head_dim, error: PredictionError::of(&all), worst_pick_regret });
    }
    Ok((shapes, regrets))
}

/// Dense attention that break-even densities are stated for.
const HEADS: u32 = 12;
const HEAD_DIM: u32 = 64;
const TOKENS: u32 = 512;

fn break_even(model: &CostModel, peers: &[Peer]) -> Result<Vec<BreakEven>, CostError> {
    let mut all = Vec::new();
    let mut add = |against: &str, tokens: u32, precision: Precision, dense: Seconds| -> Result<(), CostError> {
        for block_size in BlockSize::ALL {
            let shape = shape(tokens);
            let density = model.break_even_density(&shape, block_size, precision, Softmax::Float, dense)?;
            all.push(BreakEven { against: against.into(), tokens, block_size, precision, density });
        }
        Ok(())
    };
    for precision in Precision::ALL {
        let mut best = Seconds(f64::INFINITY);
        for block_size in BlockSize::ALL {
            best = best.min(model.attention(&Work::bare(&shape(TOKENS), block_size, precision)?)?.seconds);
        }
        add("our kernel", TOKENS, precision, best)?;
    }
    for peer in peers {
        for precision in Precision::ALL {
            add(&peer.name, peer.tokens, precision, Seconds(peer.seconds))?;
        }
    }
    Ok(all)
}

fn shape(tokens: u32) -> AttentionShape {
    let kind = AttentionKind::SelfAttention;
    AttentionShape { kind, heads: HEADS, queries: tokens, keys: tokens, head_dim: HEAD_DIM, windows: 1 }
}

fn in_words(written: &Written, profile: &DeviceProfile) -> String {
    let Written { file, record, .. } = written;
    let error = &record.held_out;
    let mut text = format!(
        "{}: {}, kernel {}, {} thread{}\n\nheld out, {} masks, predicted against measured: off by {} on average, {} in \
         the middle, {} at the 95th percentile; {} are within 10 %; the mask it would pick among {} of equal density is {} \
         slower than the fastest on average, {} at worst",
        file,
        record.cpu,
        record.kernel,
        record.threads,
        if record.threads == 1 { "" } else { "s" },
        error.samples,
        percent(error.mean),
        percent(error.median),
        percent(error.percentile_95),
        percent(error.within_tenth),
        samples::CANDIDATES,
        percent(record.mean_pick_regret),
        percent(record.worst_pick_regret),
    );
    text = text.lines().map(|line| wrapped(line, 100)).collect::<Vec<_>>().join("\n");
    let rows = record.shapes.iter().map(|HeldOutShape { tokens, heads, head_dim, error, worst_pick_regret }| {
        [
            format!("{heads} x {tokens} tokens x {head_dim}"),
            percent(error.mean),
            percent(error.within_tenth),
            format!("{:.4}", error.rank_correlation),
            percent(*worst_pick_regret),
        ]
    });
    let headings = ["heads held out", "off by", "within 10 %", "rank correlation", "worst pick"];
    text += &format!("\n\n{}", table(headings, rows));
    let density = |of: Option<f64>| of.map_or("never".into(), percent);
    let rows = record.break_even.chunks(BlockSize::ALL.len()).filter_map(|sizes| {
        let first = sizes.first()?;
        let of = |at: usize| sizes.get(at).map_or_else(String::new, |of| density(of.density));
        Some([format!("{}, {} tokens", first.against, first.tokens), first.precision.to_string(), of(0), of(1), of(2)])
    });
    let headings = [
        "\nfaster than dense",
        "\nblocks in",
        "block 8 below\npredicted",
        "16 below\npredicted",
        "32 below\npredicted",
    ];
    text += &format!("\n\n{}\n\n", table(headings, rows));
    text += &format!(
        "fitted to {} masks, to the least disturbed of {} rounds; the middle round took {} longer than the least\n",
        record.fitted,
        record.rounds,
        percent(record.spread)
    );
    if written.noisy {
        text += "that is noisy: something else runs on this machine; what it disturbs counts little, but repeat this when it is quiet\n";
    }
    let device = if file == "host.ron" { &profile.name } else { file };
    text + &format!("next: `maskwright cost BLUEPRINT --device {device}`\n")
}

/// Threads as a number of a profile.
fn cores(threads: NonZeroUsize) -> f64 {
    threads.get() as f64
}
