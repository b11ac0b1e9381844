//! Cross-entropy as an operation of our own on flex: the loss and its gradient in a few passes over each row while that is
//! in the first cache.
//!
//! burn's operations write some fifteen tensors of the size of the scores, and take one exponential at a time through
//! the C library: a third of a translator's training step (`docs/decisions/509`). Other backends have quick ones of their
//! own.

use std::sync::Arc;

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, Flex,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind, unary},
        },
        backend_extension,
        flex::FlexTensor,
        tensor::FloatTensor,
    },
    nn::loss::CrossEntropyLossConfig,
    tensor::{
        DType, Device, Tensor, TensorData,
        activation::{log_softmax, softmax},
    },
};
use rayon::prelude::*;

use crate::{
    memory::owned,
    vectorised::{exp_of_negative, mul_add, vectorised},
};

/// What each row of class scores should say.
#[derive(Debug, Clone)]
pub struct Targets {
    /// A class for each row.
    pub labels: Vec<u32>,
    /// Share of a label that is spread evenly over all classes (Szegedy et al. 2016, arXiv 1512.00567), 0 to 1.
    pub smoothing: f32,
    /// Another model's class scores `[rows, classes]`, and the share of the target that is their softmax, 0 to 1
    /// (distillation: Hinton et al. 2015, arXiv 1503.02531; temperature 1).
    pub teacher: Option<(Tensor<2>, f32)>,
}

impl Targets {
    /// Labels alone.
    pub fn labels(labels: Vec<u32>) -> Self {
        Self { labels, smoothing: 0.0, teacher: None }
    }
}

/// Mean cross-entropy `[1]`, in nats, of class scores `[rows, classes]` with `targets`; NaN where a score of the model or the teacher
/// is not finite.
///
/// # Panics
/// When there is not one label for each row, a label is no class, or the teacher's scores have another shape.
pub fn cross_entropy(scores: Tensor<2>, targets: Targets) -> Tensor<1> {
    let [rows, classes] = scores.dims();
    assert_eq!(targets.labels.len(), rows, "one label for each row");
    assert!(targets.labels.iter().all(|label| (*label as usize) < classes), "labels are classes");
    if let Some((teacher, _)) = &targets.teacher {
        assert_eq!(teacher.dims(), [rows, classes], "the teacher has an opinion of each row and class");
    }
    match scores.device() == Device::flex() {
        true => {
            let wanted = Arc::new(Wanted::of(targets, classes));
            Tensor::from_dispatch(<Dispatch as CrossEntropy>::cross_entropy(scores.into_dispatch(), wanted))
        }
        false => composed(scores, targets),
    }
}

/// The same of burn's operations.
fn composed(scores: Tensor<2>, Targets { labels, smoothing, teacher }: Targets) -> Tensor<1> {
    let device = scores.device();
    let labels: Vec<i32> = labels.into_iter().map(|label| label as i32).collect();
    let labels = Tensor::from_data(labels.as_slice(), &device);
    let of_labels = CrossEntropyLossConfig::new().with_smoothing((smoothing > 0.0).then_some(smoothing)).init(&device);
    let hard = of_labels.forward(scores.clone(), labels);
    let Some((teacher, share)) = teacher else { return hard };
    let teacher = if device.is_autodiff() { Tensor::from_inner(teacher) } else { teacher };
    let soft = -(softmax(teacher, 1) * log_softmax(scores, 1)).sum_dim(1).mean();
    hard.mul_scalar(1.0 - share) + soft.mul_scalar(share)
}

/// [`Targets`] where they lie. A row's target is `label` at its label, `every` at each class, and `teacher` times the
/// teacher's softmax; together 1.
#[derive(Debug)]
struct Wanted {
    labels: Vec<u32>,
    label: f32,
    every: f32,
    teacher: f32,
    teacher_scores: Vec<f32>,
}

impl Wanted {
    fn of(Targets { labels, smoothing, teacher }: Targets, classes: usize) -> Self {
        let (teacher_scores, share) = match teacher {
            Some((scores, share)) => (scores.into_data().try_to_vec().expect("models compute in f32"), share),
            None => (Vec::new(), 0.0),
        };
        let label = (1.0 - share) * (1.0 - smoothing);
        Self { labels, label, every: (1.0 - share) * smoothing / classes as f32, teacher: share, teacher_scores }
    }

    /// The loss of all rows, whose scores become its gradient.
    fn differentiate(&self, scores: &mut [f32]) -> f32 {
        let rows = self.labels.len();
        let classes = scores.len() / rows.max(1);
        let row = |(at, scores): (usize, &mut [f32])| {
            let teacher = if self.teacher > 0.0 { &self.teacher_scores[at * classes..][..classes] } else { &[] };
            row(scores, teacher, self, self.labels[at] as usize)
        };
        let by_row = scores.par_chunks_mut(classes.max(1)).with_min_len(CHUNK.div_ceil(classes.max(1))).enumerate();
        let losses: Vec<f32> = by_row.map(row).collect();
        (losses.into_iter().map(f64::from).sum::<f64>() / rows as f64) as f32
    }
}

/// Numbers that one thread takes at a time.
const CHUNK: usize = 1 << 15;

#[backend_extension(Flex, Autodiff)]
trait CrossEntropy: Backend {
    fn cross_entropy(scores: FloatTensor<Self>, wanted: Arc<Wanted>) -> FloatTensor<Self>;

    /// With the gradient by the scores.
    fn cross_entropy_and_gradient(
        scores: FloatTensor<Self>,
        wanted: Arc<Wanted>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);

    /// The gradient by the scores of what the cross-entropy goes into, from the one by the cross-entropy.
    fn cross_entropy_backward(gradient: FloatTensor<Self>, by_loss: FloatTensor<Self>) -> FloatTensor<Self>;
}

impl CrossEntropy for Flex {
    fn cross_entropy(scores: FlexTensor, wanted: Arc<Wanted>) -> FlexTensor {
        Self::cross_entropy_and_gradient(scores, wanted).0
    }

    fn cross_entropy_and_gradient(scores: FlexTensor, wanted: Arc<Wanted>) -> (FlexTensor, FlexTensor) {
        assert_eq!(scores.dtype(), DType::F32, "models compute in f32");
        let mut gradient = owned(scores);
        let loss = wanted.differentiate(gradient.storage_mut());
        (FlexTensor::from_data(TensorData::new(vec![loss], [1])), gradient)
    }

    fn cross_entropy_backward(gradient: FlexTensor, by_loss: FlexTensor) -> FlexTensor {
        let by_loss = by_loss.to_contiguous();
        let by_loss: &[f32] = by_loss.as_slice().expect("it is contiguous and f32");
        let (by_loss, mut gradient) = (by_loss[0], owned(gradient));
        let chunks = gradient.storage_mut::<f32>().par_chunks_mut(CHUNK);
        chunks.for_each(|chunk| chunk.iter_mut().for_each(|x| *x *= by_loss));
        gradient
    }
}

impl<B: Backend + CrossEntropy, C: CheckpointStrategy> CrossEntropy for Autodiff<B, C> {
    fn cross_entropy(scores: FloatTensor<Self>, wanted: Arc<Wanted>) -> FloatTensor<Self> {
        #[derive(Debug)]
        struct CrossEntropyStep;

        impl<B: Backend + CrossEntropy> Backward<B, 1> for CrossEntropyStep {
            /// The gradient by the scores.
            type State = FloatTensor<B>;

            fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
                let gradient = ops.state;
                let by_scores = |by_loss| B::cross_entropy_backward(gradient, by_loss);
                unary::<B, _>(ops.parents, ops.node, grads, by_scores);
            }
        }

        match CrossEntropyStep.prepare::<C>([scores.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let (loss, gradient) = B::cross_entropy_and_gradient(scores.into_primitive(), wanted);
                prep.finish(gradient, loss)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::cross_entropy(scores.into_primitive(), wanted)),
        }
    }

    fn cross_entropy_and_gradient(_: FloatTensor<Self>, _: Arc<Wanted>) -> (FloatTensor<Self>, FloatTensor<Self>) {
        unreachable!("a gradient is asked for by a backward pass alone")
    }

    fn cross_entropy_backward(_: FloatTensor<Self>, _: FloatTensor<Self>) -> FloatTensor<Self> {
        unreachable!("a backward pass is not differentiated again")
    }
}

vectorised! {
    fn row = row_of(scores: &mut [f32], teacher: &[f32], wanted: &Wanted, label: usize) -> f32
}

/// The loss of one row, whose scores become the gradient of the mean over all rows. `teacher` is empty where nothing
/// follows it.
///
/// With `m` the largest score and `Z` the sum of `exp(z - m)`, the loss is `ln Z - sum of target (z - m)`, and its gradient
/// `exp(z - m) / Z - target`.
#[inline(always)]
fn row_of<const FLOATS: usize>(scores: &mut [f32], teacher: &[f32], wanted: &Wanted, label: usize) -> f32 {
    let share = 1.0 / wanted.labels.len() as f32;
    let Softmax { largest, total, sum } = softmax_of::<FLOATS>(scores);
    let mut agreement = wanted.label * (scores[label] - largest);
    if wanted.every > 0.0 {
        agreement += wanted.every * (total - scores.len() as f32 * largest);
    }
    if teacher.is_empty() {
        for z in scores.iter_mut() {
            *z = share * mul_add::<FLOATS>(exp_of_negative::<FLOATS>(*z - largest), 1.0 / sum, -wanted.every);
        }
    } else {
        let of_teacher = softmax_of::<FLOATS>(teacher);
        let (largest, weights) = ([largest, of_teacher.largest], [1.0 / sum, wanted.teacher / of_teacher.sum]);
        agreement += follow::<FLOATS>(scores, teacher, largest, weights, wanted.every, share);
    }
    scores[label] -= share * wanted.label;
    sum.ln() - agreement
}

/// What a row's softmax is made of.
struct Softmax {
    largest: f32,
    /// Of the scores themselves.
    total: f32,
    /// Of `exp(z - largest)`; NaN where a score is NaN or infinite.
    sum: f32,
}

/// Turns a row's scores into the gradient but for the label's part; how far the teacher agrees with them.
#[inline(always)]
fn follow<const FLOATS: usize>(
    scores: &mut [f32],
    teacher: &[f32],
    largest: [f32; 2],
    weights: [f32; 2],
    every: f32,
    share: f32,
) -> f32 {
    let mut agreement = [0.0; LANES];
    let (whole, rest) = scores.as_chunks_mut::<LANES>();
    let (of_whole, of_rest) = teacher.split_at(whole.len() * LANES);
    let mut some = |scores: &mut [f32], teacher: &[f32]| {
        for ((z, teacher), agreement) in scores.iter_mut().zip(teacher).zip(&mut agreement) {
            let above = *z - largest[0];
            let target = weights[1] * exp_of_negative::<FLOATS>(*teacher - largest[1]);
            *agreement = mul_add::<FLOATS>(target, above, *agreement);
            *z = share * (mul_add::<FLOATS>(exp_of_negative::<FLOATS>(above), weights[0], -every) - target);
        }
    };
    whole.iter_mut().zip(of_whole.as_chunks::<LANES>().0).for_each(|(scores, teacher)| some(scores, teacher));
    some(rest, of_rest);
    agreement.iter().sum()
}

/// Numbers that are added up side by side.
const LANES: usize = 32;

#[inline(always)]
fn softmax_of<const FLOATS: usize>(values: &[f32]) -> Softmax {
    let (mut largest, mut total) = ([f32::NEG_INFINITY; LANES], [0.0; LANES]);
    let (whole, rest) = values.as_chunks::<LANES>();
    for values in whole.iter().map(<[f32; LANES]>::as_slice).chain([rest]) {
        for ((x, largest), total) in values.iter().zip(&mut largest).zip(&mut total) {
            *largest = if *x > *largest { *x } else { *largest };
            *total += x;
        }
    }
    let largest = largest.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let total: f32 = total.iter().sum();
    let mut sum = [0.0; LANES];
    for values in whole.iter().map(<[f32; LANES]>::as_slice).chain([rest]) {
        for (x, sum) in values.iter().zip(&mut sum) {
            *sum += exp_of_negative::<FLOATS>(x - largest);
        }
    }
    // The exponential of what is no number would be one.
    let is_number = largest.is_finite() && total.is_finite();
    Softmax { largest, total, sum: if is_number { sum.iter().sum() } else { f32::NAN } }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng, rngs::ChaCha8Rng};

    use super::*;

    /// Scores, teacher's scores and labels.
    fn drawn(rows: usize, classes: usize) -> (Vec<f32>, Vec<f32>, Vec<u32>) {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let mut values = || (0..rows * classes).map(|_| rng.random_range(-9.0..9.0_f32)).collect::<Vec<_>>();
        let (scores, teacher) = (values(), values());
        (scores, teacher, (0..rows).map(|_| rng.random_range(0..classes as u32)).collect())
    }

    fn tensor(values: &[f32], classes: usize) -> Tensor<2> {
        Tensor::from_data(TensorData::new(values.to_vec(), [values.len() / classes, classes]), &Device::flex())
    }

    /// By the definition, in double precision: the loss and its gradient.
    fn by_definition(scores: &[f32], teacher: &[f32], labels: &[u32], smoothing: f64, share: f64) -> (f64, Vec<f64>) {
        let (rows, classes) = (labels.len(), scores.len() / labels.len());
        let softmax = |z: &[f32]| {
            let powers: Vec<f64> = z.iter().map(|z| f64::from(*z).exp()).collect();
            let sum: f64 = powers.iter().sum();
            powers.into_iter().map(|power| power / sum).collect::<Vec<_>>()
        };
        let (mut loss, mut gradient) = (0.0, Vec::new());
        for ((z, w), label) in scores.chunks(classes).zip(teacher.chunks(classes)).zip(labels) {
            for ((class, p), q) in softmax(z).into_iter().enumerate().zip(softmax(w)) {
                let hard = if class == *label as usize { 1.0 - smoothing } else { 0.0 } + smoothing / classes as f64;
                let target = (1.0 - share) * hard + share * q;
                loss -= target * p.ln() / rows as f64;
                gradient.push((p - target) / rows as f64);
            }
        }
        (loss, gradient)
    }

    #[test]
    fn loss_and_gradient_are_those_of_the_definition() {
        for (rows, classes) in [(1, 1), (3, 2), (4, 10), (5, 33), (2, 64), (3, 1000)] {
            let (scores, teacher, labels) = drawn(rows, classes);
            for (smoothing, share) in [(0.0, 0.0), (0.1, 0.0), (0.0, 0.5), (0.1, 0.3), (0.0, 1.0)] {
                let case = format!("{rows} rows, {classes} classes, smoothing {smoothing}, share {share}");
                let x = Tensor::from_inner(tensor(&scores, classes)).require_grad();
                let targets = Targets {
                    labels: labels.clone(),
                    smoothing: smoothing as f32,
                    teacher: (share > 0.0).then(|| (tensor(&teacher, classes), share as f32)),
                };
                let composed = composed(tensor(&scores, classes), targets.clone()).into_scalar::<f32>();
                let loss = cross_entropy(x.clone(), targets);
                let gradient = x.grad(&loss.clone().mul_scalar(3.0).backward()).unwrap();
                let gradient: Vec<f32> = gradient.into_data().try_to_vec().unwrap();
                let (exact, by_scores) = by_definition(&scores, &teacher, &labels, smoothing, share);
                let loss = f64::from(loss.into_scalar::<f32>());
                assert!((loss - exact).abs() < 2e-6 * exact.max(1.0), "{case}: {loss} and {exact}");
                assert!((f64::from(composed) - exact).abs() < 4e-6 * exact.max(1.0), "{case}: {composed} and {exact}");
                for (found, exact) in gradient.into_iter().zip(by_scores) {
                    assert!((f64::from(found) - 3.0 * exact).abs() < 5e-7, "{case}: {found} and {}", 3.0 * exact);
                }
            }
        }
    }

    #[test]
    fn what_is_no_number_gives_none_and_large_scores_are_no_trouble() {
        let loss = |scores: &[f32]| {
            let targets = Targets { labels: vec![0], smoothing: 0.1, teacher: None };
            cross_entropy(tensor(scores, scores.len()), targets).into_scalar::<f32>()
        };
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(loss(&[1.0, odd, 0.0]).is_nan());
        }
        assert!(loss(&[f32::NAN; 3]).is_nan());
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let teacher = Some((tensor(&[0.0, odd, 1.0], 3), 0.5));
            let targets = Targets { labels: vec![0], smoothing: 0.0, teacher };
            assert!(cross_entropy(tensor(&[0.0, 1.0, 2.0], 3), targets).into_scalar::<f32>().is_nan());
        }
        let found = loss(&[1e4, 0.0, -1e4]);
        assert!((found - 1000.0).abs() < 1e-2, "{found}"); // a thirtieth of 1e4 and of 2e4
    }

    #[test]
    fn scores_that_others_hold_stay_as_they_were() {
        let scores = tensor(&[0.5, -1.0, 2.0, 0.0], 2);
        cross_entropy(scores.clone(), Targets::labels(vec![0, 1]));
        assert_eq!(scores.into_data().try_to_vec::<f32>().unwrap(), [0.5, -1.0, 2.0, 0.0]);
    }
}
