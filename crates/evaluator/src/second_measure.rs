use maskwright_blueprint::{ModelShape, SecondMetric};
use maskwright_transformer::Model;

use crate::{
    Examples, ImageFolderError, TaskData, Treatment, accuracy,
    class_scores::{answers, found_classes, logits_by_part, share},
    f1, top_k,
};

/// What a task reports beside accuracy: a share in [0, 1], higher is better. No search sees it.
#[derive(Debug, Clone, PartialEq)]
pub enum SecondMeasure {
    /// F1 of class 1 on the test split.
    F1,
    /// Share of the test split's labels that are among the five highest scores.
    Top5,
    /// Accuracy on these examples, a second test split: of MNLI, genres that the training split does not have.
    Mismatched(Examples),
}

impl SecondMeasure {
    /// As tables of results call it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::F1 => "F1",
            Self::Top5 => "top-5",
            Self::Mismatched(_) => "accuracy, mismatched",
        }
    }
}

/// Accuracy on the test split of a model of this shape, and what the task reports beside it. The split is computed once.
pub(crate) fn accuracy_and_second(
    model: &Model,
    shape: &ModelShape,
    data: &TaskData,
    treatment: Treatment<'_>,
) -> Result<(f64, Option<SecondMetric>), ImageFolderError> {
    let labels = data.test.labels();
    let (mut found, mut top_5) = (Vec::with_capacity(labels.len()), 0.0);
    logits_by_part(model, shape, &data.test, treatment, |part, scores| {
        if data.second == Some(SecondMeasure::Top5) {
            let [_, classes] = scores.dims();
            let values = scores.clone().into_data().convert::<f32>();
            let values: Vec<f32> = values.try_to_vec().expect("just converted to f32");
            let weight = part.labels().len() as f64 / labels.len() as f64;
            top_5 += weight * top_k(&values, classes, part.labels(), 5);
        }
        found.extend(found_classes(scores));
    })?;
    let second = |measure: &SecondMeasure| -> Result<SecondMetric, ImageFolderError> {
        let value = match measure {
            SecondMeasure::F1 => f1(&found, labels, 1),
            SecondMeasure::Top5 => top_5,
            SecondMeasure::Mismatched(examples) => share(&answers(model, shape, examples, treatment)?),
        };
        Ok(SecondMetric { name: measure.name().into(), value })
    };
    Ok((accuracy(&found, labels), data.second.as_ref().map(second).transpose()?))
}
