//! One suite for every kernel that this CPU can run.

mod against_oracle;
mod calls;
mod contract;
mod integer_attention;
mod integer_softmax;
mod numbers;
mod random;
