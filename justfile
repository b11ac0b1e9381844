# Every recipe is cargo lines that also work without just.

# Formatting and lints, as CI sees them.
check:
    cargo fmt --all --check
    cargo clippy --release --workspace --all-targets -- -D warnings

# All tests, those of the documentation included.
test:
    cargo test --release --workspace

# The main job on a fraction of its evaluations: half a minute once the dense model is trained.
quick:
    cargo run --release -- search search-configs/quickstart.ron --set evaluations=32 --set finalists=1 --set 'baselines=["Random"]'

# The main job: a small ViT on Fashion-MNIST, in minutes.
demo:
    cargo run --release -- search search-configs/quickstart.ron

# Benchmarks of the crates that have hot paths.
bench:
    cargo bench -p maskwright-kernels -p maskwright-cost-model

# The API documentation, and the generated command reference.
docs:
    cargo doc --workspace --no-deps
    cargo run --release -- reference > docs/reference/cli.md

# Everything that a change must pass.
ci:
    bash .ci/run
