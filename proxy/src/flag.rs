//! What a feature flag says to one who asks.
//!
//! [`evaluate`] is pure and is used wherever flags are asked for: by applications over the network, and
//! by workers that tell backends in a request header. Keys are spread by the same hash as affinity
//! ([`crate::split`]), and the first share lies at the same end as a canary's: who gets a flag of 5 %
//! and who gets a canary of 5 % are the same users.
//!
//! A kill switch is only believed while its state can be read; [`Trust`] remembers whether it could,
//! and when. In doubt it is off.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release,
};
use std::time::{Duration, Instant};

use serde_json::{Map, Value};
use switchback_config::model::{Condition, Flag, FlagRule, Name};
use switchback_config::units::Percent;

/// All flags in force. Immutable, but for its counters.
#[derive(Debug)]
pub struct FlagTable {
    /// By name.
    pub flags: BTreeMap<Name, Arc<LiveFlag>>,
    /// Whether kill switches are believed.
    pub trust: Arc<Trust>,
}

impl FlagTable {
    /// No flags.
    #[must_use]
    pub const fn empty(trust: Arc<Trust>) -> Self {
        Self {
            flags: BTreeMap::new(),
            trust,
        }
    }
}

/// A flag in force, and how often each of its variants was the answer.
#[derive(Debug)]
pub struct LiveFlag {
    /// The flag; not enabled if it was turned off.
    pub flag: Flag,
    served: Vec<AtomicU64>,
}

impl LiveFlag {
    /// A flag that nobody has asked for.
    #[must_use]
    pub fn new(flag: Flag) -> Self {
        let served = flag.variants.keys().map(|_| AtomicU64::new(0)).collect();
        Self { flag, served }
    }

    /// The same flag with other contents; variants that are still there keep their counts.
    #[must_use]
    pub fn with(&self, flag: Flag) -> Self {
        let next = Self::new(flag);
        for (variant, served) in next.flag.variants.keys().zip(&next.served) {
            served.store(self.served(variant), Relaxed);
        }
        next
    }

    /// Notes that a variant was the answer.
    pub fn count(&self, variant: &str) {
        if let Some(index) = self.flag.variants.get_index_of(variant) {
            self.served[index].fetch_add(1, Relaxed);
        }
    }

    /// How often a variant was the answer.
    #[must_use]
    pub fn served(&self, variant: &str) -> u64 {
        let index = self.flag.variants.get_index_of(variant);
        index.map_or(0, |index| self.served[index].load(Relaxed))
    }
}

/// Whether what is known of kill switches can be believed.
#[derive(Debug)]
pub struct Trust {
    start: Instant,
    /// When the state was last found readable: milliseconds since `start`.
    seen_ms: AtomicU64,
    doubted: AtomicBool,
}

impl Trust {
    /// The state was read at the start.
    #[must_use]
    pub fn new(start: Instant) -> Arc<Self> {
        Arc::new(Self {
            start,
            seen_ms: AtomicU64::new(0),
            doubted: AtomicBool::new(false),
        })
    }

    /// The state was readable at this time.
    pub fn confirm(&self, at: Instant) {
        let since = at.saturating_duration_since(self.start).as_millis();
        let ms = u64::try_from(since).unwrap_or(u64::MAX);
        self.seen_ms.store(ms, Release);
        self.doubted.store(false, Release);
    }

    /// It is not readable, or was lost.
    pub fn doubt(&self) {
        self.doubted.store(true, Release);
    }

    /// How long ago the state was last found readable; none: by now it is not.
    #[must_use]
    pub fn age(&self, now: Instant) -> Option<Duration> {
        if self.doubted.load(Acquire) {
            return None;
        }
        let seen = self.start + Duration::from_millis(self.seen_ms.load(Acquire));
        Some(now.saturating_duration_since(seen))
    }

    /// Whether a flag says what it should.
    fn holds(&self, flag: &Flag, now: Instant) -> bool {
        flag.age_max()
            .is_none_or(|most| self.age(now).is_some_and(|age| age <= most))
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The hash of the targeting key, if there is one.
    pub key: Option<u64>,
    /// What else is known of the asker.
    pub context: &'a Map<String, Value>,
}

/// What a flag says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer<'a> {
    /// Name of the variant.
    pub variant: &'a str,
    /// Its value.
    pub value: &'a Value,
    /// Why this one.
    pub reason: Reason,
}

/// Why a flag says what it says, in the words of OpenFeature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It says this to everybody.
    Static,
    /// No rule concerns this asker.
    Default,
    /// A rule does.
    TargetingMatch,
    /// By the targeting key.
    Split,
    /// The flag is not in use.
    Disabled,
    /// The state of this kill switch cannot be read.
    Error,
}

impl Reason {
    /// As OpenFeature writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "STATIC",
            Self::Default => "DEFAULT",
            Self::TargetingMatch => "TARGETING_MATCH",
            Self::Split => "SPLIT",
            Self::Disabled => "DISABLED",
            Self::Error => "ERROR",
        }
    }
}

/// What the flag says depends on a targeting key, and there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoKey;

/// What a flag says to one who asks. Costs no allocation.
///
/// # Errors
/// [`NoKey`].
pub fn evaluate<'a>(
    flag: &'a Flag,
    trust: &Trust,
    now: Instant,
    asker: Asker<'_>,
) -> Result<Answer<'a>, NoKey> {
    if !trust.holds(flag, now) {
        return Ok(answer(flag, &flag.off, Reason::Error));
    }
    if !flag.enabled {
        return Ok(answer(flag, &flag.off, Reason::Disabled));
    }
    let rule = flag.rules.iter().find(|rule| matches(rule, asker.context));
    if let Some(rule) = rule {
        return match &rule.serve {
            Some(variant) => Ok(answer(flag, variant, Reason::TargetingMatch)),
            None => split(flag, rule.shares.iter(), asker.key),
        };
    }
    if !flag.shares.is_empty() {
        return split(flag, flag.shares.iter(), asker.key);
    }
    let reason = match flag.rules.is_empty() {
        true => Reason::Static,
        false => Reason::Default,
    };
    Ok(answer(flag, &flag.default, reason))
}

fn answer<'a>(flag: &'a Flag, variant: &'a str, reason: Reason) -> Answer<'a> {
    const NOTHING: &Value = &Value::Null;
    // Validation made sure that the variant exists.
    let value = flag.variants.get(variant).unwrap_or(NOTHING);
    Answer {
        variant,
        value,
        reason,
    }
}

/// The variant of a key: shares follow each other from the low end of all hashes.
fn split<'a>(
    flag: &'a Flag,
    shares: impl Iterator<Item = (&'a Name, &'a Percent)>,
    key: Option<u64>,
) -> Result<Answer<'a>, NoKey> {
    let key = u128::from(key.ok_or(NoKey)?);
    let mut parts = 0;
    for (variant, share) in shares {
        parts += u128::from(share.millionths());
        if key < (parts << 64) / u128::from(Percent::WHOLE) {
            return Ok(answer(flag, variant, Reason::Split));
        }
    }
    Ok(answer(flag, &flag.default, Reason::Split))
}

fn matches(rule: &FlagRule, context: &Map<String, Value>) -> bool {
    let mut conditions = rule.when.iter();
    conditions.all(|(attribute, condition)| holds(condition, context.get(attribute)))
}

fn holds(condition: &Condition, value: Option<&Value>) -> bool {
    let is_one_of = |list: &[Value]| value.is_some_and(|v| list.iter().any(|l| same(l, v)));
    let text = |wanted: &Option<String>, test: fn(&str, &str) -> bool| {
        wanted.as_ref().is_none_or(|wanted| {
            let text = value.and_then(Value::as_str);
            text.is_some_and(|text| test(text, wanted))
        })
    };
    let number = |bound: Option<f64>, test: fn(&f64, &f64) -> bool| {
        bound.is_none_or(|bound| {
            let number = value.and_then(Value::as_f64);
            number.is_some_and(|number| test(&number, &bound))
        })
    };
    (condition.is.is_empty() || is_one_of(&condition.is))
        && !is_one_of(&condition.not)
        && text(&condition.starts_with, |text, wanted| {
            text.starts_with(wanted)
        })
        && text(&condition.ends_with, |text, wanted| text.ends_with(wanted))
        && text(&condition.contains, |text, wanted| text.contains(wanted))
        && number(condition.above, f64::gt)
        && number(condition.below, f64::lt)
}

/// Whether two values are the same; 5 and 5.0 are.
fn same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        _ => one == other,
    }
}

/// Which flags the backends of a service are told.
#[derive(Debug)]
pub struct FlagHeader {
    /// The request header, in lower case.
    pub header: String,
    /// The flags, in this order.
    pub flags: Vec<(Name, Arc<LiveFlag>)>,
    /// Whether kill switches are believed.
    pub trust: Arc<Trust>,
}

impl FlagHeader {
    /// Whether both tell the same.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let mut pairs = self.flags.iter().zip(&other.flags);
        self.header == other.header
            && self.flags.len() == other.flags.len()
            && pairs.all(|(one, other)| one.0 == other.0 && Arc::ptr_eq(&one.1, &other.1))
    }

    /// What is told of a client with this key: `new-checkout=on, button=blue`. Without a key, flags that
    /// need one say what they say to everybody else.
    #[must_use]
    pub fn text(&self, key: Option<u64>, now: Instant) -> String {
        let mut text = String::with_capacity(32 * self.flags.len());
        let asker = Asker {
            key,
            context: &Map::new(),
        };
        for (name, live) in &self.flags {
            let said = evaluate(&live.flag, &self.trust, now, asker);
            let variant = said.map_or(&*live.flag.default, |answer| answer.variant);
            let comma = if text.is_empty() { "" } else { ", " };
            let _ = write!(text, "{comma}{name}={variant}");
        }
        text
    }
}

/// What the backend of one request is told, once it is known whose request it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told(RefCell<Option<(Arc<FlagHeader>, String)>>);

impl Told {
    /// Works it out, if the service has anything to tell.
    pub(crate) fn decide(&self, header: Option<&Arc<FlagHeader>>, key: Option<u64>, now: Instant) {
        if header.is_none() && self.0.borrow().is_none() {
            return;
        }
        *self.0.borrow_mut() = header.map(|header| (header.clone(), header.text(key, now)));
    }

    /// Hands the header and its value on.
    pub(crate) fn tell<T>(&self, tell: impl FnOnce(Option<(&str, &str)>) -> T) -> T {
        let told = self.0.borrow();
        tell(
            told.as_ref()
                .map(|(header, text)| (&*header.header, &**text)),
        )
    }
}

#[cfg(test)]
mod tests;
