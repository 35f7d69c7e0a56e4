//! Runbooks: what is done when a release has gone wrong, as steps that are timed and ticked.
//!
//! The form is the one that people keep beside their services: a trigger in words, and steps with a name, an
//! action and a duration. What a step does is told by its name, unless `kind` says so; a step whose
//! name says nothing is somebody's to do. The same type serves the file and the recorded state: a run
//! keeps the steps it was started with.

use std::str::FromStr;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{Name, RateRule, Rule, Service};
use crate::units::{Percent, TimeSpan, UnitError};

/// What is done when a release has gone wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Runbook {
    /// What starts it by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trigger: Option<Trigger>,
    /// The services it is for; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<Name>,
    /// What is done, one after the other.
    pub steps: Vec<RunbookStep>,
}

/// A runbook, or the file that it is in.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum RunbookSource {
    /// A file beside the configuration, which is not read yet.
    File(String),
    /// The runbook.
    Runbook(Runbook),
}

impl Runbook {
    /// Whether it is for this service.
    #[must_use]
    pub fn is_for(&self, service: &str) -> bool {
        self.services.is_empty() || self.services.iter().any(|name| name == service)
    }

    /// Adds the rule of its trigger to the services that it is for, unless they have it.
    pub(crate) fn arm(&self, services: &mut IndexMap<Name, Service>) {
        let Some(trigger) = &self.trigger else { return };
        let rule = Rule::Rate(trigger.rule.clone());
        for (name, service) in services {
            if self.is_for(name) && !service.rollback.rules.contains(&rule) {
                service.rollback.rules.push(rule.clone());
            }
        }
    }
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunbookStep {
    /// Its name.
    pub name: String,
    /// What is to be done, in words. Of a decision: the methods in the order of preference.
    pub action: String,
    /// How long it may take, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub duration: Option<String>,
    /// What it does.
    pub kind: StepKind,
    /// Whether somebody has to agree before it begins.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub approve: bool,
}

impl RunbookStep {
    /// How long it may take, if that is a time.
    #[must_use]
    pub fn limit(&self) -> Option<TimeSpan> {
        self.duration.as_deref().and_then(|text| limit(text).ok())?
    }

    /// The methods of a decision, in the order of preference.
    #[must_use]
    pub fn methods(&self) -> Vec<Method> {
        methods(&self.action).unwrap_or_else(|_| Method::ALL.to_vec())
    }
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Writes down error rate, users and requests concerned.
    Assess,
    /// Chooses how to go back.
    Decide,
    /// Goes back.
    Execute,
    /// Waits until errors are back to usual, or tries the next method.
    Verify,
    /// Tells hooks, with a text for a status page.
    Communicate,
    /// Leaves the report of the incident.
    PostIncident,
    /// Waits for somebody to tick it.
    Manual,
}

impl StepKind {
    /// The words of each kind in the names of steps.
    const NAMED: [(&'static str, Self); 12] = [
        ("assess", Self::Assess),
        ("decide", Self::Decide),
        ("execute", Self::Execute),
        ("verify", Self::Verify),
        ("communicate", Self::Communicate),
        ("notify", Self::Communicate),
        ("post-incident", Self::PostIncident),
        ("post incident", Self::PostIncident),
        ("postincident", Self::PostIncident),
        ("post-mortem", Self::PostIncident),
        ("postmortem", Self::PostIncident),
        ("retrospective", Self::PostIncident),
    ];

    /// What a step of this name does.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let name = name.to_lowercase();
        let mut named = Self::NAMED.iter();
        let found = named.find(|(word, _)| name.contains(word));
        found.map_or(Self::Manual, |(_, kind)| *kind)
    }

    /// As written in `kind`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Assess => "assess",
            Self::Decide => "decide",
            Self::Execute => "execute",
            Self::Verify => "verify",
            Self::Communicate => "communicate",
            Self::PostIncident => "post_incident",
            Self::Manual => "manual",
        }
    }
}

/// A way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// The flags of the failing version go off.
    Flag,
    /// What was in force before the last change comes back.
    Config,
    /// All traffic goes back: of a canary, or to the previous stable.
    Traffic,
    /// The previous version is deployed again, by whoever deploys.
    Redeploy,
}

impl Method {
    /// All, the fastest first.
    pub const ALL: [Self; 4] = [Self::Flag, Self::Config, Self::Traffic, Self::Redeploy];

    /// What each is called in the action of a decision.
    const NAMED: [(&'static str, Self); 17] = [
        ("feature flag", Self::Flag),
        ("feature flags", Self::Flag),
        ("flag", Self::Flag),
        ("kill switch", Self::Flag),
        ("config", Self::Config),
        ("config revert", Self::Config),
        ("configuration", Self::Config),
        ("blue/green", Self::Traffic),
        ("blue-green", Self::Traffic),
        ("canary", Self::Traffic),
        ("switch", Self::Traffic),
        ("rollback", Self::Traffic),
        ("traffic", Self::Traffic),
        ("redeploy", Self::Redeploy),
        ("rolling redeploy", Self::Redeploy),
        ("rolling", Self::Redeploy),
        ("image", Self::Redeploy),
    ];

    /// As written in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Flag => "flag",
            Self::Config => "config",
            Self::Traffic => "traffic",
            Self::Redeploy => "redeploy",
        }
    }
}

/// Reads `Feature flag > config > blue/green > redeploy`. An action without `>` names no order.
pub(crate) fn methods(action: &str) -> Result<Vec<Method>, UnitError> {
    if !action.contains('>') {
        return Ok(Method::ALL.to_vec());
    }
    let mut found = Vec::new();
    for written in action.split('>') {
        let word = written.trim().to_lowercase();
        let known = Method::NAMED.iter().find(|(name, _)| *name == word);
        let Some((_, method)) = known else {
            let words: Vec<&str> = Method::NAMED.iter().map(|(name, _)| *name).collect();
            return Err(UnitError::new(
                format!("{:?} is no way back that is understood", written.trim()),
                format!("the words understood are: {}", words.join(", ")),
            ));
        };
        if !found.contains(method) {
            found.push(*method);
        }
    }
    Ok(found)
}

/// Reads how long a step may take: `2 min`. What does not begin with a number is for people to read.
pub(crate) fn limit(text: &str) -> Result<Option<TimeSpan>, UnitError> {
    match text.trim().starts_with(|c: char| c.is_ascii_digit()) {
        true => text.trim().parse().map(Some),
        false => Ok(None),
    }
}

/// What starts a runbook: a plain rule in the words of people.
///
/// A rule is about the version that changed last, and looks at stable while there is none; with `after
/// deployment`, what it finds then starts nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Trigger {
    text: String,
    rule: RateRule,
    after_deployment: bool,
}

impl Trigger {
    /// Whether it is only about a version that changed.
    #[must_use]
    pub const fn is_after_deployment(&self) -> bool {
        self.after_deployment
    }

    /// As it is written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The rule that it stands for.
    #[must_use]
    pub const fn rule(&self) -> &RateRule {
        &self.rule
    }
}

impl From<Trigger> for String {
    fn from(trigger: Trigger) -> Self {
        trigger.text
    }
}

/// The words that a trigger may have.
const TRIGGER_WORDS: &str = "the words understood are: \"error rate\" (or error_rate, errors), \">\" (or above, over, exceeds, more than), a percent, \"for\" and a time, then optionally \"after deployment\" (or deploy, release, rollout, switch) and \"and not stable\"; for example: Error rate > 5% for 5 minutes after deployment";

/// Shortest time of a rule about requests: it is looked at in whole seconds.
const SPAN_MIN: std::time::Duration = std::time::Duration::from_secs(1);

impl FromStr for Trigger {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let lower = text.to_lowercase().replace('>', " > ");
        let mut words = TriggerWords(lower.split_whitespace().collect());
        words.expect(&[&["error", "rate"], &["error_rate"], &["errors"]])?;
        words.expect(&[
            &[">"],
            &["is", "above"],
            &["above"],
            &["over"],
            &["exceeds"],
            &["more", "than"],
        ])?;
        let threshold = words.percent()?;
        words.expect(&[&["for"]])?;
        let span = words.span()?;
        let after_deployment = words.skip(&[&["after"]]);
        if after_deployment {
            words.skip(&[&["a"], &["the"], &["each"], &["every"], &["any"]]);
            let nouns: [&[&str]; 5] = [
                &["deployment"],
                &["deploy"],
                &["release"],
                &["rollout"],
                &["switch"],
            ];
            words.expect(&nouns)?;
        }
        let not_stable = words.skip(&[&["and", "not", "stable"]]);
        if !words.0.is_empty() {
            return Err(words.misunderstood());
        }
        if span.0 < SPAN_MIN || threshold.millionths() >= Percent::WHOLE {
            let reason = "this rule could never fire, or would at once";
            return Err(UnitError::new(reason, "use less than 100%, for 1s or more"));
        }
        Ok(Self {
            text: text.to_owned(),
            after_deployment,
            rule: RateRule {
                threshold,
                span,
                not_stable,
            },
        })
    }
}

/// The words of a trigger that are not read yet.
struct TriggerWords<'a>(Vec<&'a str>);

impl TriggerWords<'_> {
    /// Takes one of these, if it comes next.
    fn skip(&mut self, choices: &[&[&str]]) -> bool {
        let next = choices.iter().find(|words| self.0.starts_with(words));
        let count = next.map_or(0, |words| words.len());
        self.0.drain(..count);
        count > 0
    }

    fn expect(&mut self, choices: &[&[&str]]) -> Result<(), UnitError> {
        match self.skip(choices) {
            true => Ok(()),
            false => Err(self.misunderstood()),
        }
    }

    fn percent(&mut self) -> Result<Percent, UnitError> {
        let Some(first) = self.0.first().copied() else {
            return Err(self.misunderstood());
        };
        let text = format!("{}%", first.trim_end_matches('%'));
        let Ok(percent) = text.parse() else {
            return Err(self.misunderstood());
        };
        self.0.remove(0);
        if !first.ends_with('%') {
            self.expect(&[&["%"], &["percent"]])?;
        }
        Ok(percent)
    }

    fn span(&mut self) -> Result<TimeSpan, UnitError> {
        let ends = self
            .0
            .iter()
            .position(|word| matches!(*word, "after" | "and"));
        let count = ends.unwrap_or(self.0.len());
        let Ok(span) = self.0[..count].concat().parse() else {
            return Err(self.misunderstood());
        };
        self.0.drain(..count);
        Ok(span)
    }

    fn misunderstood(&self) -> UnitError {
        let reason = match self.0.first() {
            Some(word) => format!("{word:?} is not understood here in a trigger"),
            None => "this trigger ends too early".into(),
        };
        UnitError::new(reason, TRIGGER_WORDS)
    }
}

impl super::Config {
    /// The runbook of this name, once its file is read.
    #[must_use]
    pub fn runbook(&self, name: &str) -> Option<&Runbook> {
        match self.runbooks.get(name)? {
            RunbookSource::Runbook(runbook) => Some(runbook),
            RunbookSource::File(_) => None,
        }
    }

    /// Takes in a runbook that was read from its file.
    ///
    /// # Errors
    /// The name of a service that it is for and that there is not.
    pub fn adopt_runbook(&mut self, name: &str, runbook: Runbook) -> Result<(), Name> {
        let mut named = runbook.services.iter();
        if let Some(unknown) = named.find(|service| !self.services.contains_key(*service)) {
            return Err(unknown.clone());
        }
        runbook.arm(&mut self.services);
        let source = RunbookSource::Runbook(runbook);
        let before = self.runbooks.insert(name.to_owned(), source);
        if let Some(RunbookSource::File(path)) = before {
            self.runbook_files.push(path.into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> String {
        String::from(text.parse::<Trigger>().expect(text).rule().clone())
    }

    #[test]
    fn trigger_in_the_words_of_people_is_a_plain_rule() {
        for (text, expected) in [
            (
                "Error rate > 5% for 5 minutes after deployment",
                "error_rate > 5% for 5m",
            ),
            ("error_rate>0.5% for 30s", "error_rate > 0.5% for 30s"),
            (
                "Errors above 2 percent for 1 hour",
                "error_rate > 2% for 1h",
            ),
            (
                "error rate exceeds 10 % for 90 sec after a release and not stable",
                "error_rate > 10% for 90s and not stable",
            ),
        ] {
            assert_eq!(rule(text), expected, "{text}");
            assert_eq!(String::from(text.parse::<Trigger>().expect(text)), text);
        }
    }

    #[test]
    fn trigger_that_is_not_understood_names_the_word_and_those_that_are() {
        for (text, word) in [
            ("Latency > 500ms for 5 minutes", "\"latency\""),
            ("Error rate < 5% for 5 minutes", "\"<\""),
            ("Error rate > lots for 5 minutes", "\"lots\""),
            ("Error rate > 5 for 5 minutes", "\"for\""),
            ("Error rate > 5% for ages", "\"ages\""),
            ("Error rate > 5% for 5 minutes after lunch", "\"lunch\""),
            ("Error rate > 5% for 5 minutes and more", "\"and\""),
            ("Error rate >", "too early"),
            ("", "too early"),
            ("Error rate > 100% for 5 minutes", "never fire"),
        ] {
            let error = text.parse::<Trigger>().expect_err(text);
            assert!(error.reason.contains(word), "{text}: {}", error.reason);
            assert!(!error.repair.is_empty());
        }
        let error = "Latency".parse::<Trigger>().expect_err("no rule");
        assert!(error.repair.contains("\"error rate\""), "{}", error.repair);
    }

    #[test]
    fn order_of_methods_is_read_from_the_action() {
        let read = |text: &str| methods(text).map_err(|error| error.repair);
        assert_eq!(
            read("Feature flag > config > blue/green > redeploy"),
            Ok(Method::ALL.to_vec())
        );
        assert_eq!(
            read("canary > Kill switch"),
            Ok(vec![Method::Traffic, Method::Flag])
        );
        assert_eq!(read("Ask around"), Ok(Method::ALL.to_vec()));
        let repair = read("flag > pray").expect_err("no such method");
        assert!(repair.contains("blue/green"), "{repair}");
    }

    #[test]
    fn step_does_what_its_name_says() {
        for (name, kind) in [
            ("Assess impact", StepKind::Assess),
            ("Decide rollback method", StepKind::Decide),
            ("Execute rollback", StepKind::Execute),
            ("Verify recovery", StepKind::Verify),
            ("Communicate", StepKind::Communicate),
            ("Post-incident", StepKind::PostIncident),
            ("Drain the queue", StepKind::Manual),
        ] {
            assert_eq!(StepKind::of_name(name), kind, "{name}");
        }
    }

    #[test]
    fn duration_that_begins_with_a_number_is_a_time() {
        assert_eq!(
            limit("2 min").map(|l| l.map(|l| l.to_string())),
            Ok(Some("2m".into()))
        );
        assert_eq!(limit("Varies (see speed table)"), Ok(None));
        assert_eq!(limit("After recovery"), Ok(None));
        assert!(limit("2 moments").is_err());
    }
}
