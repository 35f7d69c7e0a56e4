//! Hooks: whom to tell what happens to a service, and what to ask before its stable changes.
//!
//! The words of the file and the kinds of the event stream meet in one table here, so that a hook can
//! be made for everything that is told anywhere, and nothing else.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Name;
use crate::units::TimeSpan;

/// Declares [`HookEvent`] with its words and the kinds of the event stream.
macro_rules! hook_events {
    ($($(#[doc = $doc:literal])+ $name:ident = $word:literal, $kind:literal;)+) => {
        /// What a hook can be made for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum HookEvent {
            $($(#[doc = $doc])+ #[serde(rename = $word)] $name,)+
        }

        impl HookEvent {
            /// Every event, in the order of this table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// As written in `on`.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)+
                }
            }

            /// As told in the event stream.
            #[must_use]
            pub const fn kind(self) -> &'static str {
                match self {
                    $(Self::$name => $kind,)+
                }
            }
        }
    };
}

hook_events! {
    /// Asked before another backend becomes stable; not told in the event stream.
    BeforeSwitch = "before_switch", "before_switch";
    /// A version lost its traffic, by an operator, the judge, a rule or its health.
    Rollback = "rollback", "rolled_back";
    /// A rollback was due and could not be done.
    RollbackHeld = "rollback_held", "rollback_held";
    /// Errors are back to usual after a rollback.
    Recovered = "recovered", "recovered";
    /// They are not: the cause is likely elsewhere.
    RollbackDidNotHelp = "rollback_did_not_help", "rollback_did_not_help";
    /// A feature flag went off with a rollback.
    FlagOff = "flag_off", "flag_off";
    /// A signal of a rule has no data.
    SignalMissing = "signal_missing", "signal_missing";
    /// It has data again.
    SignalBack = "signal_back", "signal_back";
    /// Another backend is stable.
    Switch = "switch", "switched";
    /// The canary of a rollout is stable.
    Promote = "promote", "promoted";
    /// A rollout has begun.
    RolloutStart = "rollout_start", "rollout_started";
    /// Its canary got more.
    RolloutAdvance = "rollout_advance", "rollout_advanced";
    /// It stands still.
    RolloutPause = "rollout_pause", "rollout_paused";
    /// It goes on.
    RolloutResume = "rollout_resume", "rollout_resumed";
    /// It is over without a promotion.
    RolloutEnd = "rollout_end", "rollout_ended";
    /// Somebody set the split.
    Weights = "weights", "weights_changed";
    /// A version is kept out.
    Block = "block", "blocked";
    /// It may come back.
    Unblock = "unblock", "unblocked";
    /// Another version was registered.
    BackendSet = "backend_set", "backend_set";
    /// An earlier state is back.
    Restore = "restore", "restored";
    /// Weights that were set for a while have ended.
    LeaseEnd = "lease_end", "lease_ended";
    /// The file has taken over what the API had set.
    OverrideEnd = "override_end", "override_ended";
    /// The previous stable is no longer where rollback goes.
    WindowEnd = "window_end", "window_ended";
    /// File and state contradict each other.
    Conflict = "conflict", "conflict";
    /// The judge would roll back, and freezes instead.
    JudgeHold = "judge_hold", "judge_hold";
    /// The judge would roll back, and only tells.
    JudgeNotify = "judge_notify", "judge_notify";
    /// A plain rule fires about stable while no other version has weight; nothing follows.
    RuleFired = "rule_fired", "rule_fired";
    /// It holds no more.
    RuleCleared = "rule_cleared", "rule_cleared";
    /// Stable itself is the one that fails.
    StableFailing = "stable_failing", "stable_failing";
    /// A version gets no more requests: its workers should take no new jobs.
    VersionClosed = "version_closed", "version_closed";
    /// It has finished all requests that it had.
    VersionDrained = "version_drained", "version_drained";
    /// A rollback was rehearsed, and everything held.
    DrillPassed = "drill_passed", "drill_passed";
    /// A rollback was rehearsed, and something did not hold.
    DrillFailed = "drill_failed", "drill_failed";
    /// A runbook was begun, by its trigger or by somebody.
    RunbookStart = "runbook_start", "runbook_started";
    /// A step of a runbook waits for somebody.
    RunbookWait = "runbook_wait", "runbook_waits";
    /// A step of a runbook takes longer than it should.
    RunbookOverdue = "runbook_overdue", "runbook_overdue";
    /// A way back did not help; the runbook goes on with the next one.
    RunbookEscalate = "runbook_escalate", "runbook_escalated";
    /// A text for a status page.
    RunbookStatus = "runbook_status", "runbook_status";
    /// A runbook is done, or was stopped.
    RunbookEnd = "runbook_end", "runbook_ended";
    /// A hook did not agree with a switch, or did not answer.
    BeforeSwitchFailed = "before_switch_failed", "before_switch_failed";
}

impl HookEvent {
    /// The event that a kind of the event stream stands for.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<Self> {
        // The database contradicts them as well.
        let kind = match kind {
            "schema_conflict" => Self::Conflict.kind(),
            kind => kind,
        };
        let mut told = Self::ALL.iter().copied();
        told.find(|event| event.kind() == kind && *event != Self::BeforeSwitch)
    }

    /// What `on: [all]` means: everything that is told after it happened to whoever operates. What
    /// workers want to know is told with every change, and has to be asked for by its name.
    pub fn told() -> impl Iterator<Item = Self> {
        let all = Self::ALL.iter().copied();
        all.filter(|event| {
            !matches!(
                event,
                Self::BeforeSwitch | Self::VersionClosed | Self::VersionDrained
            )
        })
    }
}

/// Somebody to tell, or to ask.
///
/// Invariant: `on` is exactly [`HookEvent::BeforeSwitch`] if and only if `gate` is set; `action` is set
/// unless the gate has a condition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hook {
    /// Its name, by which deliveries and metrics call it.
    pub name: Name,
    /// When it is told.
    pub on: Vec<HookEvent>,
    /// What is done.
    #[serde(flatten)]
    pub action: Option<HookAction>,
    /// The way back that its program goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub carries_out: Option<CarriedOut>,
    /// How long one attempt may take.
    pub timeout: TimeSpan,
    /// Attempts after the first.
    pub retries: u32,
    /// What has to hold before another backend becomes stable.
    #[serde(flatten)]
    pub gate: Option<Gate>,
}

/// A way back that a program goes when a version was rolled back. It ends when all is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CarriedOut {
    /// Which.
    pub way: CarriedWay,
    /// The backend that it brings back.
    pub backend: Name,
}

/// A way back that somebody else goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum CarriedWay {
    /// The previous image is deployed in place of the new one.
    ImageRevert,
    /// The previous version replaces the new one, instance by instance.
    RollingRedeploy,
}

/// What a hook does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum HookAction {
    /// Posts to a URL.
    Http(HttpHook),
    /// Runs a program.
    Run(RunHook),
}

/// A request to somebody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HttpHook {
    /// Whereto: an http or https URL.
    #[serde(rename = "http")]
    pub url: String,
    /// The method, if it is not POST: PURGE or BAN, for caches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Shape of the body.
    pub preset: Preset,
    /// File with the secrets that sign it, one a line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<PathBuf>,
    /// Further headers, by names in lower case.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// PEM file with the authorities to trust instead of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
}

/// A program, started without a shell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RunHook {
    /// The program and its arguments.
    pub run: Vec<String>,
    /// Further variables of its environment.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
}

/// The shape of a request's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// CloudEvents 1.0, structured JSON.
    Cloudevents,
    /// An incoming webhook of Slack, or of whatever understands those.
    Slack,
    /// Alerts for version 2 of Alertmanager's API.
    Alertmanager,
}

/// What has to hold before another backend becomes stable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gate {
    /// Looked at until it holds, after the action.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Until>,
    /// What happens if the action fails or the condition does not hold in time.
    pub on_failure: GateFailure,
}

/// A condition that is looked at again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Until {
    /// How it is looked at.
    #[serde(flatten)]
    pub check: Check,
    /// From one look to the next.
    pub every: TimeSpan,
    /// How long it is waited for.
    pub deadline: TimeSpan,
}

/// How a condition is looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// A GET of this URL is answered 2xx.
    Http(String),
    /// This program exits 0.
    Run(Vec<String>),
}

/// What a failed gate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum GateFailure {
    /// Stable stays as it is.
    Refuse,
    /// It is noted, and the switch goes on.
    Continue,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_kinds_are_unique_and_lead_back() {
        for event in HookEvent::told() {
            assert_eq!(HookEvent::of_kind(event.kind()), Some(event));
        }
        let mut words: Vec<_> = HookEvent::ALL.iter().map(|event| event.word()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), HookEvent::ALL.len());
        assert_eq!(HookEvent::of_kind("before_switch"), None);
        assert_eq!(HookEvent::of_kind("reloaded"), None);
        let of_schema = HookEvent::of_kind("schema_conflict");
        assert_eq!(of_schema, Some(HookEvent::Conflict));
    }
}
