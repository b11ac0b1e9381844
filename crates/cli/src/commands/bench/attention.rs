use std::{num::NonZeroUsize, time::Duration};

use maskwright_blueprint::{BlockSize, Precision, Seconds};
use maskwright_cost_model::Softmax;
use maskwright_kernels::{Int8Softmax, Kernel, Normalisation, Phases, Promotion};
use serde::{Serialize, Serializer};

use crate::{
    answer::Answer,
    arguments::{BenchAttentionArguments, PromotionOfBlocks, SoftmaxOf8Bit},
    error::CliError,
    measure::{
        Bench, Floats, Host, Inputs, MeasureError, Peaks, Precisions, Sampling, Spread, Tensors, Timings, Workload,
    },
    steps::Steps,
    table::{percent, table},
};

/// What `--json` prints.
#[derive(Serialize)]
struct Measured {
    host: Host,
    /// Of one core, in this run.
    peak: Peaks,
    /// Over 8-bit scores.
    softmax: Softmax,
    promotion: PromotionOfBlocks,
    /// Over the cases: how much longer the middle sample took than the least, in the middle case.
    spread: f64,
    rows: Vec<Row>,
}

/// One case; every figure is measured.
#[derive(Serialize)]
struct Row {
    heads: u32,
    tokens: u32,
    head_dim: u32,
    block_size: BlockSize,
    /// Share of the scores that is computed.
    density: f64,
    #[serde(serialize_with = "as_text")]
    precision: Precisions,
    /// Share of the blocks that were computed more finely than that.
    promoted: f64,
    threads: NonZeroUsize,
    #[serde(serialize_with = "inputs_as_text")]
    inputs: Inputs,
    median_seconds: f64,
    p10_seconds: f64,
    p90_seconds: f64,
    /// Billions of operations a second in the median call: two for each multiply-accumulate of a computed score.
    gflops: f64,
    /// Of the seconds that the products alone take at the measured peak of as many cores, which is that of their precision or
    /// of a finer one, whichever is highest: 1 is as fast as the machine can.
    peak_fraction: f64,
    /// Where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    phases: Option<Shares>,
}

/// Shares of the time on one thread; they add up to one.
#[derive(Debug, Clone, Copy, Serialize)]
struct Shares {
    packing: f64,
    scores: f64,
    softmax: f64,
    values: f64,
    rows: f64,
}

/// A case and what was measured of it so far.
struct Case {
    workload: Workload,
    spread: Spread,
    threads: NonZeroUsize,
    inputs: Inputs,
    bench: Bench,
    timings: Timings,
    phases: Option<Phases>,
}

/// Above this much disturbance, figures are said to be noisy.
const NOISY: f64 = 0.05;

/// Calls of hot samples are repeated for this long.
const SAMPLE: Duration = Duration::from_micros(200);

pub(super) fn run(arguments: &BenchAttentionArguments) -> Result<Answer, CliError> {
    let kernel = Kernel::from_environment().map_err(MeasureError::from)?;
    let host = Host::of(kernel);
    let mut peak = Peaks::default();
    let mut rows = Vec::new();
    let mut spreads = Timings::default();
    let steps = Steps::new("attention", arguments.tokens.len() as u64 * u64::from(arguments.repetitions));
    for &tokens in &arguments.tokens {
        let mut cases = cases(arguments, tokens, kernel)?;
        measure(&mut cases, arguments, kernel, &mut peak, &steps)?;
        for case in &cases {
            spreads.add(case.timings.spread());
        }
        rows.extend(cases);
    }
    drop(steps);
    // Peaks of the whole run: shares of one length and those of another have the same measure.
    let rows = rows.iter().map(|case| case.row(&peak)).collect();
    let (softmax, promotion) = (arguments.softmax.into(), arguments.promotion);
    let measured = Measured { host, peak, softmax, promotion, spread: spreads.median(), rows };
    match arguments.json {
        true => Ok(Answer::json("bench attention", &measured)),
        false => Ok(Answer::text(measured.in_words(arguments))),
    }
}

fn cases(arguments: &BenchAttentionArguments, tokens: u32, kernel: Kernel) -> Result<Vec<Case>, CliError> {
    let mut cases = Vec::new();
    for &block_size in &arguments.block_sizes {
        for &density in &arguments.densities {
            for &precisions in &arguments.precisions {
                let spread = Spread { block_size, density, precisions };
                let workload = Workload::draw(arguments.heads, tokens, arguments.head_dim, |_| spread, arguments.seed)?;
                for &threads in &arguments.threads {
                    for &inputs in &arguments.inputs {
                        let (softmax, promotion) = (arguments.softmax.into(), arguments.promotion.into());
                        let bench = Bench::new(&workload, kernel, threads, softmax, promotion)?;
                        let (workload, timings) = (workload.clone(), Timings::default());
                        let phases = arguments.phases.then(Phases::default);
                        cases.push(Case { workload, spread, threads, inputs, bench, timings, phases });
                    }
                }
            }
        }
    }
    Ok(cases)
}

/// Cases of one length, in turn.
fn measure(
    cases: &mut [Case],
    arguments: &BenchAttentionArguments,
    kernel: Kernel,
    peak: &mut Peaks,
    steps: &Steps,
) -> Result<(), CliError> {
    let Some(first) = cases.first() else { return Ok(()) };
    let (tokens, values) = (first.workload.shape.queries, first.workload.values());
    let tensors = Tensors::of_values(values, arguments.seed);
    let mut out = Floats::zeroed(values);
    for _ in 0..arguments.repetitions {
        peak.improve(kernel).map_err(MeasureError::from)?;
        for case in &mut *cases {
            let sampling = Sampling { least: SAMPLE, inputs: case.inputs };
            case.timings.add(case.bench.sample(&tensors, &mut out, sampling)?);
            if let Some(phases) = &mut case.phases {
                *phases += case.bench.phases(&tensors, &mut out, case.inputs)?;
            }
        }
        steps.advance(&format!("{tokens} tokens"));
    }
    Ok(())
}

impl Case {
    fn row(&self, peak: &Peaks) -> Row {
        let shape = &self.workload.shape;
        let operations = self.workload.scores().map(|scores| 4.0 * scores as f64 * f64::from(shape.head_dim));
        let promoted = self.bench.promoted_blocks();
        let reached = |of: Precision| if promoted > 0 { peak.at_least(of) } else { peak.of(of) };
        let seconds = |(of, operations): (Precision, f64)| operations / reached(of);
        let ideal: f64 = Precision::ALL.into_iter().zip(operations).map(seconds).sum();
        let median = self.timings.median();
        Row {
            heads: shape.heads,
            tokens: shape.queries,
            head_dim: shape.head_dim,
            block_size: self.spread.block_size,
            density: self.workload.density(),
            precision: self.spread.precisions,
            promoted: promoted as f64 / self.workload.blocks() as f64,
            threads: self.threads,
            inputs: self.inputs,
            median_seconds: median,
            p10_seconds: self.timings.quantile(0.1),
            p90_seconds: self.timings.quantile(0.9),
            gflops: operations.iter().sum::<f64>() / median / 1e9,
            peak_fraction: ideal / median / self.threads.get() as f64,
            phases: self.phases.as_ref().map(Shares::of),
        }
    }
}

impl Shares {
    fn of(phases: &Phases) -> Self {
        let of = |phase| phases.share(phase);
        Self {
            packing: of(phases.packing),
            scores: of(phases.scores),
            softmax: of(phases.softmax),
            values: of(phases.values),
            rows: of(phases.rows),
        }
    }
}

impl Row {
    /// With a star where some blocks were computed more finely.
    fn precision_in_words(&self) -> String {
        let Self { precision, promoted, .. } = self;
        if *promoted > 0.0 { format!("{precision} *") } else { precision.to_string() }
    }
}

impl Measured {
    /// What the stars mean; nothing where there are none.
    fn promotion_in_words(&self) -> String {
        let most = self.rows.iter().map(|row| row.promoted).fold(0.0, f64::max);
        match most > 0.0 {
            true => format!(
                "* some of these blocks, at most {}, were computed at a finer precision, because that is faster; `--promotion \
                 never` forbids it\n",
                percent((most * 1000.0).ceil() / 1000.0)
            ),
            false => String::new(),
        }
    }

    /// Where the time goes, as a table; nothing where nobody asked.
    fn phases_in_words(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .filter_map(|row| {
                let Shares { packing, scores, softmax, values, rows } = row.phases?;
                let [packing, scores, softmax, values, rows] = [packing, scores, softmax, values, rows].map(percent);
                let (tokens, size, inputs) = (row.tokens.to_string(), row.block_size.to_string(), row.inputs.name());
                let (density, precision) = (percent(row.density), row.precision_in_words());
                Some([tokens, size, density, precision, inputs.into(), packing, scores, softmax, values, rows])
            })
            .collect();
        if rows.is_empty() {
            return String::new();
        }
        let headings = [
            "tokens",
            "block size",
            "density",
            "precision",
            "inputs",
            "packing",
            "scores",
            "softmax",
            "values",
            "rows",
        ];
        let softmax = match self.softmax {
            Softmax::Float => "",
            Softmax::Integer => ", with the integer softmax at 8 bit",
        };
        format!("\nshares of the time on one thread, measured{softmax}\n\n{}\n", table(headings, rows))
    }

    fn in_words(&self, arguments: &BenchAttentionArguments) -> String {
        let Self { host, peak, .. } = self;
        let rows = self.rows.iter().map(|row| {
            [
                row.tokens.to_string(),
                row.block_size.to_string(),
                percent(row.density),
                row.precision_in_words(),
                row.threads.to_string(),
                row.inputs.name().into(),
                Seconds(row.median_seconds).to_string(),
                format!("{} to {}", Seconds(row.p10_seconds), Seconds(row.p90_seconds)),
                format!("{:.1}", row.gflops),
                percent(row.peak_fraction),
            ]
        });
        let headings = [
            "\ntokens",
            "block\nsize",
            "\ndensity",
            "\nprecision",
            "\nthreads",
            "\ninputs",
            "median\nmeasured",
            "10th to 90th percentile\nmeasured",
            "GFLOP/s\nmeasured",
            "share\nof peak",
        ];
        let giga = |of: f64| format!("{:.1}", of / 1e9);
        let mut text = format!(
            "{} heads of width {}, kernel {} on {}\n\n{}\n\n{}one core at {:.2} GHz reached {} GFLOP/s at fp32, {} at bf16, \
             {} GOP/s at int8 in this run; that is the peak\n",
            arguments.heads,
            arguments.head_dim,
            host.kernel,
            host.cpu,
            table(headings, rows),
            self.promotion_in_words(),
            peak.clock_hertz / 1e9,
            giga(peak.of(Precision::Single)),
            giga(peak.of(Precision::Half)),
            giga(peak.of(Precision::Int8)),
        );
        text += &self.phases_in_words();
        if self.spread > NOISY {
            text += &format!(
                "this machine was noisy: the middle sample took {} longer than the least; what else runs on it?\n",
                percent(self.spread)
            );
        }
        text
    }
}

impl From<SoftmaxOf8Bit> for Int8Softmax {
    fn from(of: SoftmaxOf8Bit) -> Self {
        match of {
            SoftmaxOf8Bit::Float => Self::Float,
            SoftmaxOf8Bit::Integer => Self::Integer(Normalisation::default()),
        }
    }
}

impl From<PromotionOfBlocks> for Promotion {
    fn from(of: PromotionOfBlocks) -> Self {
        match of {
            PromotionOfBlocks::WhereFaster => Self::WhereFaster,
            PromotionOfBlocks::Never => Self::Never,
        }
    }
}

fn as_text<S: Serializer>(precisions: &Precisions, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(precisions)
}

fn inputs_as_text<S: Serializer>(inputs: &Inputs, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(inputs.name())
}
