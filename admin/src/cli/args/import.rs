//! Arguments of `import`.

use clap::ValueEnum;

/// Whose file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ImportTool {
    /// Argo Rollouts: a Rollout, and the `AnalysisTemplate`s beside it
    Argo,
    /// Flagger: a Canary
    Flagger,
}
