//! The RON form of a blueprint. Each mask is checked against the model as soon as it is read, so that an error points
//! at the mask that does not fit and not at the end of the file.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor},
};

use crate::{Blueprint, BlueprintError, HeadId, HeadMask, ModelShape, Provenance, blueprint::check_mask};

/// The version of the form that this program writes, and the only one it reads.
const VERSION: u32 = 1;

impl Serialize for Blueprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename = "Blueprint")]
        struct File<'a> {
            version: u32,
            model: &'a ModelShape,
            masks: &'a [Vec<HeadMask>],
            provenance: &'a Provenance,
        }

        File { version: VERSION, model: self.model(), masks: self.masks(), provenance: &self.provenance }
            .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Blueprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_struct("Blueprint", &["version", "model", "masks", "provenance"], FileVisitor)
    }
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    Version,
    Model,
    Masks,
    Provenance,
}

#[derive(Deserialize)]
#[serde(try_from = "u32")]
struct Version;

impl TryFrom<u32> for Version {
    type Error = BlueprintError;

    fn try_from(found: u32) -> Result<Self, BlueprintError> {
        if found == VERSION { Ok(Self) } else { Err(BlueprintError::Version { found }) }
    }
}

struct FileVisitor;

impl<'de> Visitor<'de> for FileVisitor {
    type Value = Blueprint;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a blueprint: (version: 1, model: (..), masks: [..], provenance: (..))")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut file: A) -> Result<Blueprint, A::Error> {
        let (mut version, mut model, mut masks, mut provenance) = (None, None, None, None);
        while let Some(key) = file.next_key()? {
            match key {
                Key::Version => {
                    once("version", &version)?;
                    version = Some(file.next_value::<Version>()?);
                }
                Key::Model => {
                    once("model", &model)?;
                    let read: ModelShape = file.next_value()?;
                    read.check().map_err(A::Error::custom)?;
                    model = Some(read);
                }
                Key::Masks => {
                    once("masks", &masks)?;
                    masks = Some(file.next_value_seed(Masks { model: model.as_ref() })?);
                }
                Key::Provenance => {
                    once("provenance", &provenance)?;
                    provenance = Some(file.next_value()?);
                }
            }
        }
        version.ok_or_else(|| A::Error::missing_field("version"))?;
        let model = model.ok_or_else(|| A::Error::missing_field("model"))?;
        let masks = masks.ok_or_else(|| A::Error::missing_field("masks"))?;
        Blueprint::new(model, masks, provenance.unwrap_or_default()).map_err(A::Error::custom)
    }
}

fn once<T, E: serde::de::Error>(key: &'static str, before: &Option<T>) -> Result<(), E> {
    if before.is_some() { Err(E::duplicate_field(key)) } else { Ok(()) }
}

/// All modules' masks; checked while reading if the file says the model first, as ours do.
struct Masks<'a> {
    model: Option<&'a ModelShape>,
}

impl<'de> DeserializeSeed<'de> for Masks<'_> {
    type Value = Vec<Vec<HeadMask>>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Masks<'_> {
    type Value = Vec<Vec<HeadMask>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list with one list of masks for each attention module")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let expected = self.model.map(|model| model.modules.len());
        let mut modules = Vec::new();
        while let Some(heads) = list.next_element_seed(Heads { model: self.model, module: modules.len() })? {
            modules.push(heads);
            if expected.is_some_and(|expected| modules.len() > expected) {
                break;
            }
        }
        match expected {
            Some(expected) if expected != modules.len() => {
                Err(A::Error::custom(BlueprintError::Modules { modules: expected, found: modules.len() }))
            }
            _ => Ok(modules),
        }
    }
}

/// One module's masks.
struct Heads<'a> {
    model: Option<&'a ModelShape>,
    module: usize,
}

impl<'de> DeserializeSeed<'de> for Heads<'_> {
    type Value = Vec<HeadMask>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Heads<'_> {
    type Value = Vec<HeadMask>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list with one mask for each head")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let module = self.module;
        let model = self.model.filter(|model| module < model.modules.len());
        let heads = model.map(|model| model.modules[module].shape.heads);
        let mut masks = Vec::new();
        while let Some(mask) = list.next_element::<HeadMask>()? {
            if let Some(model) = model.filter(|_| heads > Some(masks.len() as u32)) {
                let head = HeadId { module: module as u32, head: masks.len() as u32 };
                check_mask(model, head, &mask).map_err(A::Error::custom)?;
            }
            masks.push(mask);
        }
        match heads {
            Some(heads) if heads as usize != masks.len() => {
                Err(A::Error::custom(BlueprintError::Heads { module, heads, found: masks.len() }))
            }
            _ => Ok(masks),
        }
    }
}
