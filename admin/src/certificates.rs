//! Certificates that are about to expire: seen in a metric, warned about in events.
//!
//! All that are shown to others: to clients of listeners, of the admin API and of flags, and to backends that
//! ask for one.
//!
//! A warning comes with the start, with every new set of certificates, and once a day.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use switchback_config::defaults::CERTIFICATE_WARNING;
use switchback_config::model::Config;
use switchback_proxy::tls::name_and_expiry;
use tokio::sync::watch;

use crate::events::Events;
use crate::files::{FileError, read};

/// How often certificates are looked at that nobody has changed.
const LOOK: Duration = Duration::from_secs(24 * 3600);

/// A certificate that is shown to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CertificateView {
    /// The section of the file that names it.
    pub(crate) section: String,
    /// The first name it is valid for, or its subject.
    pub(crate) name: String,
    /// When it expires, in seconds since 1970.
    pub(crate) expires: u64,
}

impl CertificateView {
    pub(crate) fn new(section: String, name: String, expires: SystemTime) -> Self {
        let since = expires.duration_since(UNIX_EPOCH);
        Self {
            section,
            name,
            expires: since.unwrap_or_default().as_secs(),
        }
    }

    /// What to warn about at a time, in seconds since 1970.
    fn warning(&self, now: u64) -> Option<String> {
        let Self {
            section,
            name,
            expires,
        } = self;
        let at = i64::try_from(*expires).ok();
        let at = at.and_then(|at| Timestamp::from_second(at).ok());
        let at = at.map_or_else(String::new, |at| at.to_string());
        match expires.checked_sub(now) {
            None | Some(0) => Some(format!(
                "the certificate for {name} in {section} has expired at {at}: it is refused; put a new one into its file"
            )),
            Some(left) if left < CERTIFICATE_WARNING.as_secs() => Some(format!(
                "the certificate for {name} in {section} expires in {} days, at {at}; put a new one into its file",
                left / (24 * 3600)
            )),
            Some(_) => None,
        }
    }
}

/// The certificates that a file names beside those of listeners.
///
/// # Errors
/// When a file cannot be read or is no good.
pub(crate) fn beside_listeners(
    config: &Config,
    base: &Path,
) -> Result<Vec<CertificateView>, FileError> {
    let admin = config.admin.tls.as_ref();
    let admin = admin.map(|tls| ("admin.tls".to_owned(), &tls.certificate));
    let ofrep = config.ofrep.as_ref().and_then(|ofrep| ofrep.tls.as_ref());
    let ofrep = ofrep.map(|tls| ("ofrep.tls".to_owned(), &tls.certificate));
    let backends = config.services.iter().flat_map(|(service, settings)| {
        settings.backends.iter().filter_map(move |(name, backend)| {
            let section = format!("services.{service}.backends.{name}.tls");
            Some((section, backend.tls.client_certificate.as_ref()?))
        })
    });
    let all = admin.into_iter().chain(ofrep).chain(backends);
    let views = all.map(|(section, path)| {
        let (name, expires) =
            name_and_expiry(&read(base, path, &section)?).map_err(|cause| FileError::Tls {
                key: section.clone(),
                path: base.join(path),
                cause,
            })?;
        Ok(CertificateView::new(section, name, expires))
    });
    views.collect()
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
            section: "listeners.secure.tls".into(),
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
            soon.contains("shop.example in listeners.secure.tls"),
            "{soon}"
        );
        assert!(at(1).expect("a warning").contains("in 0 days"));
        assert!(at(0).expect("a warning").contains("has expired"));
        assert!(certificate.warning(2_000_000_001).is_some());
    }
}
