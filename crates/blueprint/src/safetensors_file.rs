//! The safetensors form of a blueprint: what a program without a RON parser reads.
//!
//! With L modules, module `n` having H heads over Q query and K key tokens, and the finest block size `f` in that
//! module:
//!
//! | tensor | type and shape | holds |
//! | --- | --- | --- |
//! | `tokens` | U32 `[L, 2]` | Q and K of each module |
//! | `block_size` | U16 `[L, most heads]` | block size of each head; 0 behind a module's last head |
//! | `mask.l<n>` | U8 `[H, ceil(Q / f), ceil(K / f)]` | bytes per element of each block; 0 = skipped |
//!
//! Heads of one module may differ in block size, one tensor cannot. So a tensor has the grid of the module's finest
//! head, and each block of a coarser head fills the finer blocks that it covers. Who ignores `block_size` still reads
//! the right mask; who wants head `h` in its own blocks takes every `block_size[n, h] / f`-th row and column.
//!
//! The metadata are strings: `format`, `version`, `model_name`, `model_digest`, `blueprint_digest`, and, as RON, `model`
//! and `provenance`.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError};

use crate::{
    BlockMask, BlockSize, Blueprint, BlueprintError, HeadId, HeadMask, MaskError, ModelShape, Precision, RonError,
    read_whole,
    tensor_file::{MOST_BYTES, TensorFile, Tensors},
    to_ron,
};

const FORMAT: &str = "maskwright blueprint";
const VERSION: &str = "1";

/// Why a safetensors file is no blueprint.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SafetensorsError {
    #[error("{} cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} is no blueprint in safetensors form", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: Box<SafetensorsError>,
    },
    #[error("the file is larger than {limit} bytes, more than any blueprint needs")]
    TooLarge { limit: u64 },
    #[error(
        "no safetensors file: its first eight bytes make the header {found} bytes long, a blueprint's has at most {limit}"
    )]
    Header { found: u64, limit: u64 },
    #[error("these bytes are no whole safetensors file: get it again, or write it anew")]
    Container(#[from] SafeTensorError),
    #[error("the metadata have no `{key}`: blueprints that maskwright wrote have")]
    NoMetadata { key: &'static str },
    #[error("the metadata say format `{found}`; a blueprint says `{FORMAT}`")]
    Format { found: String },
    #[error("this program reads version {VERSION} of the safetensors form, the file says `{found}`")]
    Version { found: String },
    #[error("`{key}` in the metadata cannot be read")]
    Ron {
        key: &'static str,
        #[source]
        source: Box<RonError>,
    },
    #[error("there is no tensor `{name}`")]
    NoTensor { name: String },
    #[error("there are {found} tensors, the model has {expected}: `tokens`, `block_size` and one for each module")]
    Tensors { found: usize, expected: usize },
    #[error("tensor `{name}` is {found}, the model takes {expected}")]
    Tensor { name: String, found: String, expected: String },
    #[error("module {module} has {expected:?} query and key tokens in `model`, but {found:?} in `tokens`")]
    Tokens { module: usize, found: [u32; 2], expected: [u32; 2] },
    #[error("block_size[{module}, {slot}] is {found}, behind the last of {heads} heads; 0 stands there")]
    BehindLastHead { module: usize, slot: usize, found: u16, heads: u32 },
    #[error("{head}: {fault}")]
    Mask { head: HeadId, fault: MaskError },
    #[error("{head} has blocks of {block_size} tokens, but `mask.l{}` differs within the one of row {row}, column {column}", head.module)]
    SplitBlock { head: HeadId, block_size: BlockSize, row: usize, column: usize },
    #[error(transparent)]
    Blueprint(#[from] BlueprintError),
    #[error("`{key}` says {found}, the content gives {expected}: the file was changed")]
    Digest { key: &'static str, found: String, expected: String },
}

impl Blueprint {
    /// The safetensors form that [`Blueprint::from_safetensors`] reads; the same blueprint gives the same bytes.
    pub fn to_safetensors(&self) -> Vec<u8> {
        let model = self.model();
        let most_heads = model.modules.iter().map(|module| module.shape.heads as usize).max().unwrap_or(0);
        let tokens = model.modules.iter().flat_map(|of| [of.shape.queries, of.shape.keys]);
        let block_sizes = self.masks().iter().flat_map(|heads| {
            let sizes = heads.iter().map(|mask| mask.block_size.tokens() as u16);
            sizes.chain(std::iter::repeat(0)).take(most_heads)
        });

        let mut tensors = Tensors::default();
        tensors.push("tokens", "U32", vec![model.modules.len(), 2], tokens.flat_map(u32::to_le_bytes));
        let shape = vec![model.modules.len(), most_heads];
        tensors.push("block_size", "U16", shape, block_sizes.flat_map(u16::to_le_bytes));
        for (module, heads) in self.masks().iter().enumerate() {
            let grid = Grid::of(model, module, heads.iter().map(|mask| mask.block_size));
            let blocks = heads.iter().flat_map(|mask| grid.refine(mask));
            tensors.push(&mask_name(module), "U8", grid.shape(heads.len()), blocks);
        }
        tensors.into_file(BTreeMap::from([
            ("format", FORMAT.to_owned()),
            ("version", VERSION.to_owned()),
            ("model_name", model.name.clone()),
            ("model_digest", model.digest.to_string()),
            ("blueprint_digest", self.digest().to_string()),
            ("model", to_ron(model)),
            ("provenance", to_ron(&self.provenance)),
        ]))
    }

    /// Reads and checks the safetensors form, whoever wrote it.
    pub fn from_safetensors(bytes: &[u8]) -> Result<Self, SafetensorsError> {
        let file = TensorFile::open(bytes)?;
        let expect = |key, found: &str, expected: String| {
            if found == expected {
                Ok(())
            } else {
                Err(SafetensorsError::Digest { key, found: found.into(), expected })
            }
        };
        match (file.string("format")?, file.string("version")?) {
            (FORMAT, VERSION) => {}
            (FORMAT, found) => return Err(SafetensorsError::Version { found: shorten(found) }),
            (found, _) => return Err(SafetensorsError::Format { found: shorten(found) }),
        }
        let model: ModelShape = file.ron("model")?;
        model.check()?;
        expect("model_digest", file.string("model_digest")?, model.digest.to_string())?;
        expect("model_name", file.string("model_name")?, model.name.clone())?;

        let block_sizes = read_block_sizes(&file, &model)?;
        let masks = block_sizes
            .iter()
            .enumerate()
            .map(|(module, sizes)| read_masks(&file, &model, module, sizes))
            .collect::<Result<_, _>>()?;
        let blueprint = Self::new(model, masks, file.ron("provenance")?)?;
        expect("blueprint_digest", file.string("blueprint_digest")?, blueprint.digest().to_string())?;
        Ok(blueprint)
    }

    /// Reads and checks a safetensors file.
    pub fn load_safetensors(path: &Path) -> Result<Self, SafetensorsError> {
        let named = |source| SafetensorsError::File { path: path.into(), source: Box::new(source) };
        let bytes = read_whole(path, MOST_BYTES).map_err(|source| match source.kind() {
            io::ErrorKind::FileTooLarge => named(SafetensorsError::TooLarge { limit: MOST_BYTES }),
            _ => SafetensorsError::Io { path: path.into(), source },
        })?;
        Self::from_safetensors(&bytes).map_err(named)
    }
}

/// The grid of one module's tensor: that of its finest head.
struct Grid {
    finest: BlockSize,
    rows: usize,
    columns: usize,
}

impl Grid {
    fn of(model: &ModelShape, module: usize, block_sizes: impl Iterator<Item = BlockSize>) -> Self {
        let shape = &model.modules[module].shape;
        let finest = block_sizes.min().unwrap_or(BlockSize::B32);
        Self { finest, rows: finest.cover(shape.queries) as usize, columns: finest.cover(shape.keys) as usize }
    }

    fn shape(&self, heads: usize) -> Vec<usize> {
        vec![heads, self.rows, self.columns]
    }

    /// Finer blocks along one side of a block of `size`.
    fn ratio(&self, size: BlockSize) -> usize {
        (size.tokens() / self.finest.tokens()) as usize
    }

    /// One head's mask on this grid, row by row.
    fn refine<'a>(&self, mask: &'a HeadMask) -> impl Iterator<Item = u8> + use<'a> {
        let (ratio, rows, columns) = (self.ratio(mask.block_size), self.rows, self.columns);
        (0..rows).flat_map(move |row| {
            (0..columns).map(move |column| {
                mask.blocks.get(row / ratio, column / ratio).map_or(0, |precision| precision.bytes() as u8)
            })
        })
    }

    /// The mask of which `bytes` are the refinement.
    fn coarsen(&self, bytes: &[u8], head: HeadId, block_size: BlockSize) -> Result<HeadMask, SafetensorsError> {
        let ratio = self.ratio(block_size);
        let mut cells = Vec::new();
        for row in (0..self.rows).step_by(ratio) {
            for column in (0..self.columns).step_by(ratio) {
                let block = bytes[row * self.columns + column];
                let rows = row..self.rows.min(row + ratio);
                let columns = column..self.columns.min(column + ratio);
                if rows.into_iter().any(|row| bytes[row * self.columns..][columns.clone()].iter().any(|&b| b != block))
                {
                    let (row, column) = (row / ratio, column / ratio);
                    return Err(SafetensorsError::SplitBlock { head, block_size, row, column });
                }
                cells.push(match block {
                    0 => None,
                    width => Some(Precision::try_from(u32::from(width)).map_err(at(head))?),
                });
            }
        }
        let blocks = BlockMask::new(self.columns.div_ceil(ratio), cells).map_err(at(head))?;
        Ok(HeadMask { block_size, blocks })
    }
}

/// `[module][head]`; refuses sizes that are none, and anything but 0 behind a module's last head.
fn read_block_sizes(file: &TensorFile<'_>, model: &ModelShape) -> Result<Vec<Vec<BlockSize>>, SafetensorsError> {
    let modules = model.modules.len();
    if file.tensors() != modules + 2 {
        return Err(SafetensorsError::Tensors { found: file.tensors(), expected: modules + 2 });
    }
    let tokens = file.tensor("tokens", Dtype::U32, &[modules, 2])?;
    for (module, (found, of)) in tokens.as_chunks::<8>().0.iter().zip(&model.modules).enumerate() {
        let [a, b, c, d, e, f, g, h] = *found;
        let found = [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])];
        let expected = [of.shape.queries, of.shape.keys];
        if found != expected {
            return Err(SafetensorsError::Tokens { module, found, expected });
        }
    }

    let most_heads = model.modules.iter().map(|of| of.shape.heads as usize).max().unwrap_or(0);
    let sizes = file.tensor("block_size", Dtype::U16, &[modules, most_heads])?;
    let read_row = |(module, row): (usize, &[u8])| {
        let heads = model.modules[module].shape.heads;
        let sizes = row.as_chunks::<2>().0.iter().map(|bytes| u16::from_le_bytes(*bytes));
        let mut read = Vec::new();
        for (slot, found) in sizes.enumerate() {
            if slot < heads as usize {
                let head = HeadId { module: module as u32, head: slot as u32 };
                read.push(BlockSize::try_from(u32::from(found)).map_err(at(head))?);
            } else if found != 0 {
                return Err(SafetensorsError::BehindLastHead { module, slot, found, heads });
            }
        }
        Ok(read)
    };
    sizes.chunks(2 * most_heads).enumerate().map(read_row).collect()
}

fn read_masks(
    file: &TensorFile<'_>,
    model: &ModelShape,
    module: usize,
    block_sizes: &[BlockSize],
) -> Result<Vec<HeadMask>, SafetensorsError> {
    let grid = Grid::of(model, module, block_sizes.iter().copied());
    let blocks = file.tensor(&mask_name(module), Dtype::U8, &grid.shape(block_sizes.len()))?;
    let heads = blocks.chunks(grid.rows * grid.columns).zip(block_sizes).enumerate();
    heads
        .map(|(head, (blocks, &size))| grid.coarsen(blocks, HeadId { module: module as u32, head: head as u32 }, size))
        .collect()
}

fn mask_name(module: usize) -> String {
    format!("mask.l{module}")
}

fn at(head: HeadId) -> impl Fn(MaskError) -> SafetensorsError {
    move |fault| SafetensorsError::Mask { head, fault }
}

/// Enough of a stranger's text to recognise it by.
fn shorten(text: &str) -> String {
    text.chars().take(40).collect()
}
