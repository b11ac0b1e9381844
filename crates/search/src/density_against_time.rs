use std::{collections::BTreeSet, fs, path::Path};

use maskwright_blueprint::Blueprint;
use maskwright_evaluator::Regression;
use serde::Serialize;

use crate::{Candidate, Pricing, SearchError};

/// Predicted seconds of attention against density, over blueprints of one model, and a straight line through them.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DensityAgainstTime {
    /// Device of the prediction.
    pub device: String,
    /// Density, and predicted seconds of attention: one point for each set of masks, however many files hold it.
    pub points: Vec<(f64, f64)>,
    /// How many of the points' densities differ.
    pub densities: usize,
    /// None through fewer than three points, and when all have one density.
    pub line: Option<Line>,
}

/// The line `seconds = intercept + slope * density` of least squares.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Line {
    pub slope: f64,
    pub intercept: f64,
    /// R^2, the share in [0, 1] of the variance of the seconds that the line explains; left out for fewer than
    /// [`FEWEST_DENSITIES`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r_squared: Option<f64>,
}

/// With fewer densities than these a line of two figures goes through the points almost whatever they are.
pub const FEWEST_DENSITIES: usize = 5;

impl DensityAgainstTime {
    /// Of every blueprint of the same model that lies beside `file`, and of dense attention.
    pub(crate) fn beside(
        file: &Path,
        blueprint: &Blueprint,
        pricing: &Pricing,
        device: &str,
    ) -> Result<Self, SearchError> {
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let listed = fs::read_dir(folder).map_err(|source| SearchError::Io { path: folder.into(), source })?;
        let mut files: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
        files.sort_unstable();
        let beside = files.iter().filter(|path| path.extension().is_some_and(|ending| ending == "ron"));
        let fitting = beside.filter_map(|path| Blueprint::load(path).ok());
        let fitting = fitting.filter(|of| of.model().modules == blueprint.model().modules);
        let mut seen = BTreeSet::new();
        let mut points = Vec::new();
        for of in fitting.chain([pricing.dense(pricing.finest())]) {
            if seen.insert(Candidate::new(of.masks().iter().flatten().cloned().collect()).digest()) {
                // One that this device cannot compute has no time on it.
                points.extend(pricing.predicted(&of).ok().map(|predicted| (of.density(), predicted.seconds.0)));
            }
        }
        Ok(Self::through(device, points))
    }

    fn through(device: &str, points: Vec<(f64, f64)>) -> Self {
        let mut densities: Vec<f64> = points.iter().map(|(density, _)| *density).collect();
        densities.sort_unstable_by(f64::total_cmp);
        densities.dedup();
        let densities = densities.len();
        let line = Regression::through(&points).filter(|_| points.len() > 2);
        let line = line.map(|Regression { slope, intercept, r_squared }| Line {
            slope,
            intercept,
            r_squared: (densities >= FEWEST_DENSITIES).then_some(r_squared),
        });
        Self { device: device.into(), points, densities, line }
    }
}

#[cfg(test)]
mod tests {
    use maskwright_blueprint::{
        AttentionKind, AttentionShape, BlockSize, Digest, HeadMask, ModelShape, ModuleShape, Precision, Provenance,
    };
    use maskwright_cost_model::{Dataflow, DeviceProfile};

    use super::*;
    use crate::Objective;

    #[test]
    fn the_line_through_density_and_time_keeps_its_names_in_json() {
        let on_a_line = |count: u32| (0..count).map(|at| (f64::from(at), f64::from(1 + 2 * at))).collect::<Vec<_>>();
        let json = |points| serde_json::to_value(DensityAgainstTime::through("any", points)).unwrap();
        let five = json(on_a_line(5));
        assert_eq!(five["line"], serde_json::json!({ "slope": 2.0, "intercept": 1.0, "r_squared": 1.0 }));
        assert_eq!((&five["densities"], five["points"].as_array().unwrap().len()), (&5.into(), 5));
        assert_eq!(json(on_a_line(2))["line"], serde_json::Value::Null);
    }

    #[test]
    fn below_five_densities_nothing_is_said_of_how_well_a_line_fits() {
        let four = DensityAgainstTime::through("any", vec![(0.1, 1.0), (0.2, 2.0), (0.2, 2.5), (0.3, 3.0), (1.0, 9.0)]);
        assert_eq!((four.points.len(), four.densities), (5, 4));
        assert!(four.line.is_some_and(|line| line.r_squared.is_none()), "{four:?}");
    }

    #[test]
    fn masks_that_lie_there_twice_count_once() {
        let of = AttentionShape {
            heads: 1,
            queries: 64,
            keys: 64,
            head_dim: 16,
            kind: AttentionKind::SelfAttention,
            windows: 1,
        };
        let shape = ModelShape {
            name: "tiny".into(),
            digest: Digest::of(["tiny"]),
            modules: vec![ModuleShape { name: "layer.0.attention".into(), shape: of }],
            linears: vec![],
            elementwise: 0,
        };
        let device = DeviceProfile::open("cpu-avx512").unwrap();
        let pricing = Pricing::new(&device, Dataflow::Flash, 1, Objective::Latency, &shape).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, size: BlockSize| {
            let candidate = Candidate::from_fn(&shape, |_, of| HeadMask::dense(of, size, Precision::Int8));
            let blueprint = candidate.blueprint(&shape, Provenance::default());
            fs::write(folder.path().join(name), blueprint.to_ron()).unwrap();
            blueprint
        };
        let blueprint = write("a.ron", BlockSize::B8);
        write("b.ron", BlockSize::B8);
        write("c.ron", BlockSize::B16);
        fs::write(folder.path().join("dense.ron"), pricing.dense(pricing.finest()).to_ron()).unwrap();
        let found = DensityAgainstTime::beside(&folder.path().join("a.ron"), &blueprint, &pricing, "any").unwrap();
        // Blocks of 8, blocks of 16, and dense attention: all of them whole.
        assert_eq!((found.points.len(), found.densities, found.line), (3, 1, None));
    }
}
