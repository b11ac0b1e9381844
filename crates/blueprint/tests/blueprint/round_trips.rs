//! What is written is read back as it was.

use maskwright_blueprint::{BlockMask, Blueprint, parse_ron, to_ron};
use proptest::prelude::*;

use crate::models::{any_blueprint, any_mask};

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    #[test]
    fn a_mask_survives_its_text(mask in (1..9_usize, 1..9_usize).prop_flat_map(|(rows, columns)| any_mask(rows, columns))) {
        prop_assert_eq!(&mask.to_string().parse::<BlockMask>().unwrap(), &mask);
        prop_assert_eq!(parse_ron::<BlockMask>(&to_ron(&mask), "mask.ron".as_ref()).unwrap(), mask);
    }

    #[test]
    fn a_blueprint_survives_ron(blueprint in any_blueprint()) {
        let read: Blueprint = parse_ron(&blueprint.to_ron(), "blueprint.ron".as_ref()).unwrap();
        prop_assert_eq!(read.digest(), blueprint.digest());
        prop_assert_eq!(read, blueprint);
    }

    #[test]
    fn a_blueprint_survives_safetensors(blueprint in any_blueprint()) {
        let bytes = blueprint.to_safetensors();
        let read = Blueprint::from_safetensors(&bytes).unwrap();
        prop_assert_eq!(read.digest(), blueprint.digest());
        prop_assert_eq!(read.to_safetensors(), bytes);
        prop_assert_eq!(read, blueprint);
    }

    #[test]
    fn density_lies_above_0_and_at_most_at_1(blueprint in any_blueprint()) {
        prop_assert!(blueprint.density() > 0.0 && blueprint.density() <= 1.0);
    }
}
