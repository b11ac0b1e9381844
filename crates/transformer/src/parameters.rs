use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use burn::{
    module::Param,
    nn::{Embedding, EmbeddingConfig, Linear, LinearConfig},
    tensor::{Device, Tensor, TensorData},
};
use rand::{SeedableRng, rngs::ChaCha12Rng};

use crate::{CheckpointError, Loading, initialise::draw_gaussian, layer_norm::LayerNorm, tensor_files::TensorFiles};

/// Hands a family its parameters by name, from a checkpoint or drawn at random, and notes what is wrong with them.
///
/// A family asks for every tensor with the shape that its configuration gives; [`Parameters::finish`] then refuses the
/// checkpoint with all that was missing, misshapen or left over.
#[derive(Debug)]
pub(crate) struct Parameters {
    files: Option<(TensorFiles, PathBuf)>,
    generator: ChaCha12Rng,
    device: Device,
    /// Whether a classifier for another number of classes is replaced.
    replaces_classifier: bool,
    used: BTreeSet<String>,
    ignored: BTreeSet<String>,
    drawn: Vec<String>,
    faults: Vec<String>,
    failure: Option<CheckpointError>,
}

/// Standard deviation of freshly drawn tables (Devlin et al. 2019, arXiv 1810.04805).
const TABLE_DEVIATION: f32 = 0.02;

impl Parameters {
    /// From files.
    pub fn from_files(files: TensorFiles, folder: &Path, loading: &Loading, device: &Device) -> Self {
        Self {
            files: Some((files, folder.into())),
            replaces_classifier: loading.classes.is_some(),
            ..Self::drawn(loading.seed, device)
        }
    }

    /// Every matrix drawn from `seed`, biases zero, normalisations the identity.
    pub fn drawn(seed: u64, device: &Device) -> Self {
        Self {
            files: None,
            generator: ChaCha12Rng::seed_from_u64(seed),
            device: device.clone(),
            replaces_classifier: false,
            used: BTreeSet::new(),
            ignored: BTreeSet::new(),
            drawn: Vec::new(),
            faults: Vec::new(),
            failure: None,
        }
    }

    /// `prefix.` where the checkpoint's names start with it, else nothing: a checkpoint of a bare body has no prefix.
    pub fn prefix(&self, prefix: &str) -> String {
        let prefix = format!("{prefix}.");
        let found = self.files.as_ref().is_some_and(|(files, _)| files.names().any(|name| name.starts_with(&prefix)));
        if found { prefix } else { String::new() }
    }

    /// `[inputs, outputs]` from the checkpoint's `[outputs, inputs]` (or `[outputs, channels, height, width]` for a
    /// patch projection) and a bias.
    pub fn linear(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let bias = Some(self.constant(&format!("{name}.bias"), [outputs], 0.0));
        Linear { bias, ..self.linear_without_bias(name, inputs, outputs) }
    }

    /// The same without a bias.
    pub fn linear_without_bias(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        self.projection(name, &[outputs, inputs])
    }

    /// A layer of a classifier: drawn where the checkpoint lacks it, or has it for other classes than were asked for.
    pub fn classifier(&mut self, name: &str, inputs: usize, outputs: usize) -> Linear {
        let Some((files, _)) = &self.files else { return self.linear(name, inputs, outputs) };
        let found = files.shape(&format!("{name}.weight"));
        let other_classes = found.is_some_and(|shape| shape.len() == 2 && shape[0] != outputs && shape[1] == inputs);
        if found.is_some() && !(other_classes && self.replaces_classifier) {
            return self.linear(name, inputs, outputs);
        }
        self.ignore(&format!("{name}."));
        self.drawn.extend([format!("{name}.weight"), format!("{name}.bias")]);
        let files = self.files.take();
        let linear = self.linear(name, inputs, outputs);
        self.files = files;
        linear
    }

    /// The product with a convolution's kernel whose stride is its size: `shape` is
    /// `[outputs, channels, height, width]`.
    pub fn patches(&mut self, name: &str, shape: [usize; 4]) -> Linear {
        let bias = Some(self.constant(&format!("{name}.bias"), [shape[0]], 0.0));
        Linear { bias, ..self.projection(name, &shape) }
    }

    fn projection(&mut self, name: &str, shape: &[usize]) -> Linear {
        let (outputs, inputs) = (shape[0], shape[1..].iter().product::<usize>());
        let deviation = (2.0 / (inputs + outputs) as f32).sqrt(); // Glorot & Bengio 2010
        let values = self
            .values(&format!("{name}.weight"), shape, |generator, count| draw_gaussian(generator, count, deviation));
        let mut linear = LinearConfig::new(inputs, outputs).with_bias(false).init(&self.device);
        linear.weight = self.param(transposed(&values, inputs), [inputs, outputs]);
        linear
    }

    /// A layer normalisation over `width` values.
    pub fn norm(&mut self, name: &str, width: usize, epsilon: f64) -> LayerNorm {
        let gamma = self.constant(&format!("{name}.weight"), [width], 1.0);
        let beta = self.constant(&format!("{name}.bias"), [width], 0.0);
        LayerNorm::new(gamma, beta, epsilon)
    }

    /// A table of `rows` vectors.
    pub fn embedding(&mut self, name: &str, rows: usize, width: usize) -> Embedding {
        self.embedding_of(name, rows, width, TABLE_DEVIATION)
    }

    /// A table of `rows` vectors that is drawn with this standard deviation.
    pub fn embedding_of(&mut self, name: &str, rows: usize, width: usize, deviation: f32) -> Embedding {
        let mut embedding = EmbeddingConfig::new(rows, width).init(&self.device);
        embedding.weight = self.drawn_table(&format!("{name}.weight"), [rows, width], deviation);
        embedding
    }

    /// A tensor by its full name.
    pub fn table<const D: usize>(&mut self, name: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        self.drawn_table(name, shape, TABLE_DEVIATION)
    }

    fn drawn_table<const D: usize>(&mut self, name: &str, shape: [usize; D], deviation: f32) -> Param<Tensor<D>> {
        let values = self.values(name, &shape, |generator, count| draw_gaussian(generator, count, deviation));
        self.param(values, shape)
    }

    /// A tensor by its full name that has one value everywhere where it is not from a checkpoint.
    pub fn constant<const D: usize>(&mut self, name: &str, shape: [usize; D], drawn: f32) -> Param<Tensor<D>> {
        let values = self.values(name, &shape, |_, count| vec![drawn; count]);
        self.param(values, shape)
    }

    /// The first of these modules whose weight the checkpoint has; the first of all if it has none.
    pub fn first_of<'a>(&self, modules: &[&'a str]) -> &'a str {
        let has = |module: &&&str| {
            self.files.as_ref().is_some_and(|(files, _)| files.shape(&format!("{module}.weight")).is_some())
        };
        modules.iter().find(has).unwrap_or(&modules[0])
    }

    /// Leaves out every tensor whose name starts so.
    pub fn ignore(&mut self, prefix: &str) {
        if let Some((files, _)) = &self.files {
            self.ignored.extend(files.names().filter(|name| name.starts_with(prefix)).map(String::from));
        }
    }

    /// The names of the tensors that were drawn for want of them, and of those that were ignored and not used after all;
    /// or why the checkpoint is refused.
    pub fn finish(mut self) -> Result<(Vec<String>, Vec<String>), CheckpointError> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        if let Some((files, folder)) = self.files {
            let unknown = files.names().filter(|name| !self.used.contains(*name) && !self.ignored.contains(*name));
            self.faults.extend(unknown.map(|name| format!("`{}` is no tensor of this model", name.escape_debug())));
            if !self.faults.is_empty() {
                return Err(CheckpointError::Weights { folder, faults: self.faults });
            }
        }
        Ok((self.drawn, self.ignored.difference(&self.used).cloned().collect()))
    }

    /// The checkpoint's values; without a checkpoint, drawn ones. Nothing where the checkpoint is at fault: it will be
    /// refused, and the shape that its configuration claims may be huge.
    fn values(
        &mut self,
        name: &str,
        shape: &[usize],
        draw: impl FnOnce(&mut ChaCha12Rng, usize) -> Vec<f32>,
    ) -> Vec<f32> {
        let Some((files, _)) = &self.files else { return draw(&mut self.generator, shape.iter().product()) };
        self.used.insert(name.into());
        match files.shape(name) {
            Some(found) if found == shape => match files.values(name) {
                Ok(values) => {
                    if let Some(at) = values.iter().position(|value| !value.is_finite()) {
                        let (value, count) = (values[at], values.len());
                        self.faults.push(format!("`{name}` {shape:?} holds {value}, number {} of {count}", at + 1));
                    }
                    return values;
                }
                Err(error) => self.failure = Some(error),
            },
            Some(found) => self.faults.push(format!("`{name}` has shape {found:?} instead of {shape:?}")),
            None => self.faults.push(format!("`{name}` {shape:?} is missing")),
        }
        Vec::new()
    }

    fn param<const D: usize>(&self, values: Vec<f32>, shape: [usize; D]) -> Param<Tensor<D>> {
        let shape = if values.is_empty() { [0; D] } else { shape };
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device))
    }
}

/// Rows of `columns` values as columns.
fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns.min(values.len())).flat_map(|column| values[column..].iter().step_by(columns).copied()).collect()
}
