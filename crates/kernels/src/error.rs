use maskwright_blueprint::MaskError;

/// Why attention was not computed. Nothing is written to the output when one of these comes back.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    #[error("the module has {heads} heads, but {found} masks were given: give one mask a head")]
    Heads { heads: u32, found: usize },
    #[error("the mask of head {head} does not fit: {fault}")]
    Mask { head: usize, fault: MaskError },
    #[error("head_dim is a multiple of 8 from 8 to {max}, not {found}", max = crate::MAX_HEAD_DIM)]
    HeadDim { found: u32 },
    #[error("attention over {queries} queries and {keys} keys has no scores: give at least one token of each")]
    NoTokens { queries: u32, keys: u32 },
    #[error("self-attention has as many keys as queries, not {keys} and {queries}: use cross-attention for other keys")]
    NotSquare { queries: u32, keys: u32 },
    #[error("{heads} heads of {tokens} tokens of {head_dim} values are more than memory can address")]
    TooLarge { heads: u32, tokens: u32, head_dim: u32 },
    #[error(
        "`{operand}` holds {found} values, this plan needs {expected}: {heads} heads x {tokens} tokens x {head_dim}"
    )]
    Length { operand: &'static str, found: usize, expected: usize, heads: u32, tokens: u32, head_dim: u32 },
    #[error("{found} live keys are more than the {keys} keys of this plan")]
    LiveKeys { found: usize, keys: u32 },
    #[error(
        "this workspace has too little room for the plan: take one from its `workspace()`, or `reserve` room for it"
    )]
    Workspace,
    #[error("`{given}` is no kernel of this build: MASKWRIGHT_KERNEL is one of {known}, or unset for the fastest")]
    UnknownKernel { given: String, known: String },
    #[error("this CPU cannot run kernel `{kernel}`: it can run {available}")]
    Unsupported { kernel: &'static str, available: String },
}
