use std::str::FromStr;

use maskwright_blueprint::{Blueprint, nearest};

use crate::{Capability, ExportError, c_header, identifier::identifier, rust_table, tables::Tables};

/// A form that deployment builds read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Target {
    /// The neutral binary: one tensor of block widths for each module.
    Safetensors,
    /// A C11 header with constant tables, for firmware.
    CHeader,
    /// A Rust module with constant tables, without `std`.
    RustTable,
}

/// One exported file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// After the model, of letters, digits and `_`: `mask_tiny_vit.h`.
    pub file_name: String,
    pub bytes: Vec<u8>,
}

impl Target {
    /// Every target, in the order in which they are listed to people.
    pub const ALL: [Self; 3] = [Self::Safetensors, Self::CHeader, Self::RustTable];

    /// As it is typed: `c-header`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Safetensors => "safetensors",
            Self::CHeader => "c-header",
            Self::RustTable => "rust-table",
        }
    }

    /// What it can express.
    pub const fn capability(self) -> Capability {
        match self {
            Self::Safetensors | Self::CHeader | Self::RustTable => Capability::ANY_MASK,
        }
    }

    /// The blueprint in this form, or why it has none.
    pub fn export(self, blueprint: &Blueprint) -> Result<Exported, ExportError> {
        self.capability().check(blueprint)?;
        let name = identifier(&blueprint.model().name);
        let (ending, bytes) = match self {
            Self::Safetensors => ("safetensors", blueprint.to_safetensors()),
            Self::CHeader => ("h", c_header::write(blueprint, &name, &Tables::of(blueprint)).into_bytes()),
            Self::RustTable => ("rs", rust_table::write(blueprint, &Tables::of(blueprint)).into_bytes()),
        };
        Ok(Exported { file_name: format!("{name}.{ending}"), bytes })
    }
}

impl FromStr for Target {
    type Err = ExportError;

    fn from_str(name: &str) -> Result<Self, ExportError> {
        Self::ALL.into_iter().find(|target| target.name() == name).ok_or_else(|| {
            let help = nearest(name, &Self::ALL.map(Self::name));
            ExportError::UnknownTarget { name: name.chars().take(40).collect(), help }
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
