//! The judge of switchback: counts and times in, verdicts out.
//!
//! Per watched version it sees four whole numbers a tick — requests and failures of the canary and of
//! stable since the last tick — and the time, and answers Continue, Hold or Rollback. It is pure: no
//! clock, no I/O, no randomness, constant time and memory. The same code therefore decides live, in
//! simulations and in tests.
//!
//! Two witnesses must agree. The first asks whether the canary fails more than stable usually does
//! ([`Judge`], five CUSUM charts against [`baseline`]); its threshold keeps the mean time between
//! false rollbacks above a promised period at any traffic. The second asks whether the canary is worse
//! than stable *right now* ([`likelihood`]); it is what keeps shared outages from rolling anything
//! back. Plain rules ([`RuleState`], [`SignalState`]) stand beside both. After a rollback [`Recovery`]
//! asks whether it has helped; [`StableCheck`] notices when stable is the broken one; [`UsualTimes`]
//! says how long stable's requests usually take. A [`Recorder`] keeps what a judge was told, so that
//! anybody can convince themselves of its verdict later.

pub mod baseline;
mod exact;
mod explain;
mod judge;
pub mod likelihood;
mod looks;
mod recovery;
mod replay;
mod rule;
mod signal;
mod stable;
mod usual;

pub use explain::Explanation;
pub use judge::{Control, Counts, HoldReason, Judge, Reading, Settings, Verdict};
pub use looks::{Look, SignalRecorder, SignalTape};
pub use recovery::{Recovered, Recovery};
pub use replay::{Input, Machine, Mismatch, Recorder, Tape, What};
pub use rule::RuleState;
pub use signal::{SignalStanding, SignalState};
pub use stable::StableCheck;
pub use usual::UsualTimes;
