//! Certificates of listeners that are about to expire: seen in a metric, warned about in events.
//!
//! A warning comes with the start, with every new set of certificates, and once a day.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use switchback_config::defaults::CERTIFICATE_WARNING;
use tokio::sync::watch;

use crate::events::Events;

/// How often certificates are looked at that nobody has changed.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// A certificate that a listener uses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CertificateView {
    /// The listener.
    pub(crate) listener: String,
    /// The first name it is valid for.
    pub(crate) name: String,
    /// When it expires, in seconds since 1970.
    pub(crate) expires: u64,
}

impl CertificateView {
    pub(crate) fn new(listener: &str, names: Vec<String>, expires: SystemTime) -> Self {
        let since = expires.duration_since(UNIX_EPOCH);
        Self {
            listener: listener.into(),
            name: names.into_iter().next().unwrap_or_default(),
            expires: since.unwrap_or_default().as_secs(),
        }
    }

    /// What to warn about at a time, in seconds since 1970.
    fn warning(&self, now: u64) -> Option<String> {
        let Self {
            listener,
            name,
            expires,
        } = self;
        let at = i64::try_from(*expires).ok();
        let at = at.and_then(|at| Timestamp::from_second(at).ok());
        let at = at.map_or_else(String::new, |at| at.to_string());
        match expires.checked_sub(now) {
            None | Some(0) => Some(format!(
                "the certificate for {name} of listener {listener} has expired at {at}: clients refuse it; put a new one into its file"
            )),
            Some(left) if left < CERTIFICATE_WARNING.as_secs() => Some(format!(
                "the certificate for {name} of listener {listener} expires in {} days, at {at}; put a new one into its file",
                left / (24 * 3600)
            )),
            Some(_) => None,
        }
    }
}

/// Warns about certificates for as long as the process runs.
pub(crate) async fn watch(mut certificates: watch::Receiver<Vec<CertificateView>>, events: Events) {
    let mut warned = Vec::new();
    loop {
        let now = u64::try_from(Timestamp::now().as_second()).unwrap_or(0);
        let current = certificates.borrow_and_update().clone();
        // A new set of certificates is no reason to say again what was said of the old ones.
        for certificate in current.iter().filter(|one| !warned.contains(*one)) {
            if let Some(message) = certificate.warning(now) {
                events.emit("certificate_expires", None, "switchback", message, None);
            }
        }
        tokio::select! {
            changed = certificates.changed() => match changed {
                Ok(()) => warned = current,
                Err(_) => return,
            },
            () = tokio::time::sleep(LOOK) => warned.clear(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_warned_about_within_two_weeks_of_their_end() {
        let certificate = CertificateView {
            listener: "secure".into(),
            name: "shop.example".into(),
            expires: 2_000_000_000,
        };
        let limit = CERTIFICATE_WARNING.as_secs();
        let at = |left: u64| certificate.warning(2_000_000_000 - left);
        assert_eq!(at(limit), None);
        let soon = at(limit - 1).expect("a warning");
        assert!(
            soon.contains("expires in 13 days, at 2033-05-18T03:33:20Z"),
            "{soon}"
        );
        assert!(
            soon.contains("shop.example") && soon.contains("secure"),
            "{soon}"
        );
        assert!(at(1).expect("a warning").contains("in 0 days"));
        assert!(at(0).expect("a warning").contains("has expired"));
        assert!(certificate.warning(2_000_000_001).is_some());
    }
}
