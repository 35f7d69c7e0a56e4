//! Hooks as written.

use super::TextItem;
use crate::decode::{Table, Words, section};
use crate::model::{CarriedWay, GateFailure, Preset};
use crate::units::TimeSpan;

section! {
    /// Somebody to tell what happens: exactly one of `http` and `run`.
    Hook {
        /// Name of the hook in lists and metrics. Default: hook-1, hook-2 and so on.
        name: String,
        /// Events: rollback, switch, promote and others, `all` (but version_closed and version_drained), or before_switch alone.
        on: Vec<TextItem>,
        /// URL to post to.
        http: String,
        /// Program and arguments to run, without a shell.
        run: Vec<TextItem>,
        /// Method of the request, such as PURGE for caches. Default: POST.
        method: String,
        /// Body of the request: `cloudevents` (default), `slack` or `alertmanager`.
        preset: Preset,
        /// File with secrets that sign the request (Standard Webhooks), one a line; two while they change.
        secret_file: String,
        /// Further headers of the request.
        headers: Table<String>,
        /// PEM file with the authorities to trust instead of the system's.
        ca: String,
        /// Further variables of the program's environment.
        env: Table<String>,
        /// What the program carries out when it is told of a rollback: its times are those of this way back.
        carries_out: CarriedOut,
        /// How long one attempt may take. Default: 5s, 5m for programs.
        timeout: TimeSpan,
        /// Attempts after the first, 0 to 20. Default: 5, 0 for programs and before_switch.
        retries: u32,
        /// Of before_switch: a condition that must hold.
        until: Until,
        /// Of before_switch: `refuse` (default) or `continue`.
        on_failure: GateFailure,
    }
}

section! {
    /// A way back that a program goes, and ends when it is gone.
    CarriedOut {
        /// `image_revert` or `rolling_redeploy`.
        way: CarriedWay,
        /// The backend that it brings back; what is rolled back otherwise is not its business.
        backend: String,
    }
}

section! {
    /// A condition that is looked at until it holds: exactly one of `http` and `run`.
    Until {
        /// URL that must answer 2xx to a GET.
        http: String,
        /// Program and arguments that must exit 0.
        run: Vec<TextItem>,
        /// From one look to the next. Default: 2s.
        every: TimeSpan,
        /// How long it is waited for. Default: 10m.
        deadline: TimeSpan,
    }
}

impl Words for CarriedWay {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("image_revert", Self::ImageRevert),
        ("rolling_redeploy", Self::RollingRedeploy),
    ];
}

impl Words for Preset {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("cloudevents", Self::Cloudevents),
        ("slack", Self::Slack),
        ("alertmanager", Self::Alertmanager),
    ];
}

impl Words for GateFailure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("refuse", Self::Refuse), ("continue", Self::Continue)];
}
