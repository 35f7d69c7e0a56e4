//! The watch over a version that gets only copies: would it fail users, if it had some?
//!
//! One side are the copies, the other the originals of exactly these. All of stable's traffic would
//! be more numbers but another mix: only some methods, and bodies up to a bound, are copied, and a
//! version that fails as often as stable does on those must not be blamed for what stable never
//! serves otherwise. In pairs a request that nobody can answer counts on both sides, so the second
//! witness errs towards the version. What is usual is learnt from the originals too.
//!
//! It exists while the version has no share; afterwards its own users say more, and the judge of
//! [`super::watch::Watch`] starts from nothing. The two never judge one version at the same time, so
//! both keep the promise about false rollbacks together. A verdict blocks the version; there is no
//! weight to take.

use std::sync::Arc;
use std::time::Duration;

use switchback_config::model::{OnFailure, Rollback, Service};
use switchback_judge::{Control, Counts, Settings, Verdict};
use switchback_proxy::snapshot;
use switchback_proxy::stats::mirrored::PairCells;

use super::case::Trouble;
use super::recorder::Recorded;
use crate::evidence::{MIRRORED, VersionEvidence};

/// What was found about a version that gets copies.
#[derive(Clone, Debug, PartialEq)]
pub struct MirrorAlert {
    /// Its service.
    pub service: String,
    /// Its backend.
    pub backend: String,
    /// Its label.
    pub version: String,
    /// The finding in one sentence.
    pub sentence: String,
    /// What is to be done.
    pub action: OnFailure,
}

/// The watch over one version.
#[derive(Debug)]
pub(super) struct MirrorWatch {
    backend: String,
    version: String,
    settings: Rollback,
    judge: Recorded,
    pairs: Arc<PairCells>,
    /// What each worker had counted at the last look.
    seen: Vec<[u64; 2]>,
    reported: bool,
}

impl MirrorWatch {
    /// The watch that should be now: none, the one before, or a new one.
    pub(super) fn follow(
        before: Option<Self>,
        now: Duration,
        file: &Service,
        service: &snapshot::Service,
    ) -> Option<Self> {
        let mirror = service.mirror.as_ref()?;
        let pairs = mirror.judged.as_ref()?;
        match before {
            Some(same) if Arc::ptr_eq(&same.pairs, pairs) && same.settings == file.rollback => {
                Some(same)
            }
            _ => Some(Self::new(now, file, &service.backends[mirror.to], pairs)),
        }
    }

    fn new(
        now: Duration,
        file: &Service,
        backend: &snapshot::Backend,
        pairs: &Arc<PairCells>,
    ) -> Self {
        let canaries = file.backends.len().saturating_sub(1);
        let judges = u32::try_from(canaries).unwrap_or(u32::MAX);
        Self {
            backend: backend.name.to_string(),
            version: backend.version.to_string(),
            settings: file.rollback.clone(),
            judge: Recorded::new(Settings::new(&file.rollback, judges), now),
            pairs: pairs.clone(),
            seen: pairs.read().collect(),
            reported: false,
        }
    }

    /// Looks at the pairs; tells once that the version fails.
    pub(super) fn tick(&mut self, now: Duration, service: &str) -> Option<MirrorAlert> {
        let counts = self.take_counts();
        let verdict = self.judge.tick(now, counts, Control::Compared);
        if verdict != Verdict::Rollback || std::mem::replace(&mut self.reported, true) {
            return None;
        }
        Some(MirrorAlert {
            service: service.to_owned(),
            backend: self.backend.clone(),
            version: self.version.clone(),
            sentence: format!("{MIRRORED}{}", self.judge.judge().explain()),
            action: self.settings.on_failure,
        })
    }

    /// What was seen, for the record of a block.
    pub(super) fn evidence(&self, now: Duration) -> VersionEvidence {
        VersionEvidence {
            backend: self.backend.clone(),
            version: self.version.clone(),
            seconds: self.judge.seconds(now),
            judges: vec![self.judge.evidence(Trouble::Errors, None, now, true)],
            ..VersionEvidence::default()
        }
    }

    /// The pairs since the last look, with the copies as the canary's requests.
    fn take_counts(&mut self) -> Counts {
        let mut counts = Counts::default();
        for (seen, read) in self.seen.iter_mut().zip(self.pairs.read()) {
            let [copies, originals] = [0, 1].map(|side| read[side].wrapping_sub(seen[side]));
            *seen = read;
            counts = counts.plus(Counts {
                canary_requests: copies >> 32,
                canary_failures: copies & 0xffff_ffff,
                stable_requests: originals >> 32,
                stable_failures: originals & 0xffff_ffff,
            });
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use switchback_config::parse;

    use super::*;

    const FILE: &str = "version: 1
listeners: {web: {address: \"127.0.0.1:8080\"}}
routes: [{service: shop}]
services:
  shop:
    stable: blue
    backends:
      blue: {version: \"1\", endpoints: [\"http://127.0.0.1:9001\"]}
      green: {version: \"2\", endpoints: [\"http://127.0.0.1:9002\"]}
    mirror: {to: green, judge: true}
";

    fn watch(pairs: &Arc<PairCells>) -> MirrorWatch {
        let config = parse(FILE).config.expect("valid");
        let backend = snapshot::Backend {
            name: "green".into(),
            version: "2".into(),
            endpoints: Vec::new(),
            stats: switchback_proxy::stats::BackendStats::new(2),
        };
        MirrorWatch::new(Duration::ZERO, &config.services["shop"], &backend, pairs)
    }

    /// Pairs in each of so many looks, of which every tenth request fails where it is said.
    fn alerts(looks: u64, copies_fail: bool, originals_fail: bool) -> Vec<MirrorAlert> {
        let pairs = PairCells::new(2, None);
        let mut watch = watch(&pairs);
        let mut alerts = Vec::new();
        for look in 0..looks {
            for number in 0..20_usize {
                let bad = number.is_multiple_of(10);
                pairs.record(number % 2, bad && copies_fail, bad && originals_fail);
            }
            alerts.extend(watch.tick(Duration::from_millis(50 * look), "shop"));
        }
        alerts
    }

    #[test]
    fn version_that_fails_its_copies_is_told_of_once() {
        let alerts = alerts(200, true, false);
        assert_eq!(alerts.len(), 1);
        let sentence = &alerts[0].sentence;
        let beginning = "of mirrored requests, canary failed ";
        assert!(sentence.starts_with(beginning), "{sentence}");
        assert!(sentence.contains(", stable 0 of "), "{sentence}");
        assert_eq!((&*alerts[0].backend, &*alerts[0].version), ("green", "2"));
    }

    #[test]
    fn requests_that_nobody_can_answer_say_nothing() {
        assert_eq!(alerts(2_000, true, true), []);
        assert_eq!(alerts(2_000, false, true), []);
        assert_eq!(alerts(2_000, false, false), []);
    }

    #[test]
    fn every_pair_counts_once_on_both_sides() {
        let pairs = PairCells::new(2, None);
        pairs.record(0, true, false);
        let mut watch = watch(&pairs);
        pairs.record(0, true, false);
        pairs.record(1, false, true);
        pairs.record(1, true, true);
        let expected = Counts {
            canary_requests: 3,
            canary_failures: 2,
            stable_requests: 3,
            stable_failures: 2,
        };
        assert_eq!(watch.take_counts(), expected, "since it began");
        assert_eq!(watch.take_counts(), Counts::default());
    }
}
