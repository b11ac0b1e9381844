use maskwright_blueprint::{BlockSize, HeadId, Precision};

/// Why a blueprint was not exported.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExportError {
    #[error("there is no target `{name}`; {help}")]
    UnknownTarget { name: String, help: String },
    #[error(
        "the target takes blocks of {} tokens, {head} has blocks of {found}: search with such block sizes, or choose \
         another target",
        list(allowed)
    )]
    BlockSize { head: HeadId, found: BlockSize, allowed: Vec<BlockSize> },
    #[error(
        "the target takes precisions of {}, {head} has a block of {found}: search with such precisions, or choose another \
         target",
        list(allowed)
    )]
    Precision { head: HeadId, found: Precision, allowed: Vec<Precision> },
    #[error(
        "the target takes one mask for all heads of a module, {head} has another than head 0: search with one mask a \
         module, or choose another target"
    )]
    PerHead { head: HeadId },
    #[error(
        "the target takes only causal self-attention, in {head} query block {row} attends to the later key block {column}: \
         choose another target"
    )]
    NotCausal { head: HeadId, row: usize, column: usize },
}

/// `8, 16 or 32`.
fn list<T: ToString>(items: &[T]) -> String {
    match items.iter().map(T::to_string).collect::<Vec<_>>().as_slice() {
        [] => "none".into(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}
