use serde::{Deserialize, Serialize};

use crate::{BlueprintError, Digest, Joules, Seconds};

/// Where a blueprint comes from: enough to find it again, and the figures that were true when it was made.
///
/// No dates and no machine names: the same search gives the same bytes.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Provenance {
    /// Program and version that wrote it: `maskwright 0.1.0`.
    pub tool: String,
    /// What proposed the mask: `searched`, `shuffled`, a baseline's name, `dense`, or whatever a hand wrote.
    pub origin: String,
    /// The configuration file of the search, as it was named.
    pub config: Option<String>,
    /// Digest of the resolved configuration.
    pub config_digest: Option<Digest>,
    pub seed: Option<u64>,
    /// Task whose accuracy was measured.
    pub task: Option<String>,
    /// Digest of the weights that were fine-tuned under this mask; those of a search's answer lie beside the blueprint.
    pub tuned_weights: Option<Digest>,
    /// Digest of the vocabulary that was learnt for those weights, which lies beside them; left out of the files of models
    /// that learn none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vocabulary: Option<Digest>,
    pub predicted: Option<Predicted>,
    pub accuracy: Option<Accuracy>,
    /// Left out of files where nothing was measured, so that those are written as they always were.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub measured: Option<Measured>,
}

impl Provenance {
    /// Refuses figures that nothing can have, and texts that would write over a terminal.
    pub(crate) fn check(&self) -> Result<(), BlueprintError> {
        let Self { tool, origin, config, task, predicted, accuracy, measured, .. } = self;
        let texts =
            [("tool", Some(tool)), ("origin", Some(origin)), ("config", config.as_ref()), ("task", task.as_ref())];
        for (what, text) in texts {
            plain(what, text.map_or("", |text| text))?;
        }
        if let Some(Predicted { device, dataflow, seconds, speedup, end_to_end_speedup, joules, .. }) = predicted {
            plain("predicted.device", device)?;
            plain("predicted.dataflow", dataflow)?;
            not_below_zero("predicted.seconds", seconds.0)?;
            not_below_zero("predicted.speedup", *speedup)?;
            not_below_zero("predicted.end_to_end_speedup", *end_to_end_speedup)?;
            not_below_zero("predicted.joules", joules.0)?;
        }
        if let Some(Accuracy { split, dense, masked, drop, second, translation, .. }) = accuracy {
            plain("accuracy.split", split)?;
            share("accuracy.dense", *dense)?;
            share("accuracy.masked", *masked)?;
            share("accuracy.drop", drop.0.abs())?;
            if let Some(SecondAccuracy { name, dense, masked }) = second {
                plain("accuracy.second.name", name)?;
                share("accuracy.second.dense", *dense)?;
                share("accuracy.second.masked", *masked)?;
            }
            for quality in translation.iter().flat_map(|of| [of.dense, of.masked]) {
                not_below_zero("accuracy.translation.bleu", quality.bleu)?;
                not_below_zero("accuracy.translation.chrf", quality.chrf)?;
            }
        }
        if let Some(Measured { cpu, kernel, seconds, speedup, .. }) = measured {
            plain("measured.cpu", cpu)?;
            plain("measured.kernel", kernel)?;
            not_below_zero("measured.seconds", seconds.0)?;
            not_below_zero("measured.speedup", *speedup)?;
        }
        Ok(())
    }
}

pub(crate) fn plain(what: &'static str, text: &str) -> Result<(), BlueprintError> {
    match text.chars().any(char::is_control) {
        true => Err(BlueprintError::Provenance {
            what,
            found: text.escape_debug().to_string(),
            allowed: "names hold no control characters",
        }),
        false => Ok(()),
    }
}

fn not_below_zero(what: &'static str, value: f64) -> Result<(), BlueprintError> {
    within(what, value, f64::MAX, "it is zero or more, and finite")
}

fn share(what: &'static str, value: f64) -> Result<(), BlueprintError> {
    within(what, value, 1.0, "it is a share of one")
}

fn within(what: &'static str, value: f64, most: f64, allowed: &'static str) -> Result<(), BlueprintError> {
    match (0.0..=most).contains(&value) {
        true => Ok(()),
        false => Err(BlueprintError::Provenance { what, found: value.to_string(), allowed }),
    }
}

/// What a machine took; never a prediction. Only whoever asks for it gets it into a file, so that searches stay
/// reproducible to the byte.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Measured {
    pub cpu: String,
    /// Instructions that the attention kernels used.
    pub kernel: String,
    pub threads: u32,
    /// Attention of all modules, one example, inputs in the caches: the sum over modules of the middle one of the least
    /// disturbed calls.
    pub seconds: Seconds,
    /// Attention: dense at single precision over this mask, both measured.
    pub speedup: f64,
}

/// What the cost model says; never a measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Predicted {
    pub device: String,
    pub dataflow: String,
    pub batch: u32,
    /// Attention of all modules.
    pub seconds: Seconds,
    /// Attention: dense at single precision over this mask.
    pub speedup: f64,
    /// Whole model: dense at single precision over this mask.
    pub end_to_end_speedup: f64,
    /// Attention of all modules.
    pub joules: Joules,
}

/// Measured accuracy, shares in [0, 1].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accuracy {
    /// Which examples: `validation` or `test`.
    pub split: String,
    pub examples: u64,
    pub dense: f64,
    pub masked: f64,
    pub drop: AccuracyDrop,
    /// Of tasks that report a figure beside accuracy; left out of the files of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub second: Option<SecondAccuracy>,
    /// Of tasks that ask for a translation; left out of the files of others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub translation: Option<TranslationAccuracy>,
}

/// What a task reports beside accuracy, of one model: a share in [0, 1], higher is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondMetric {
    /// As tables of results call it: `F1`, `top-5`, `accuracy, mismatched`.
    pub name: String,
    pub value: f64,
}

/// A [`SecondMetric`] of the dense and of the masked model, measured on the same examples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SecondAccuracy {
    pub name: String,
    pub dense: f64,
    pub masked: f64,
}

/// How well the dense and the masked model translate, measured on the same sentences.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslationAccuracy {
    pub dense: TranslationQuality,
    pub masked: TranslationQuality,
}

/// How well translations match their references, in points from 0 to 100 as tables of results have them; higher is better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TranslationQuality {
    /// Papineni et al. 2002, as sacrebleu computes it.
    pub bleu: f64,
    /// Popović 2015, as sacrebleu computes it.
    pub chrf: f64,
}

/// Dense accuracy minus masked accuracy, in points of [0, 1]; positive is worse.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AccuracyDrop(pub f64);
