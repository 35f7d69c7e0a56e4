//! Keeps a page and what it loads on one version, against asset skew.
//!
//! A page of one version that asks the other one for its scripts gets 404, or worse, a script that does not
//! fit. So a request may say which version its page came from, in a cookie that switchback sets or in a header
//! that the page's own code sets, and goes there for as long as that version has weight and works. That is
//! split traffic like any other, also for the judge. A file that the picked version does not have is looked
//! for at the other one, once, for safe requests below configured paths only; the other one may have no weight
//! any more, but is never a blocked one.

use std::rc::Rc;

use switchback_config::model::AffinityKey;

use crate::balance::{Pick, is_available};
use crate::choice::Choice;
use crate::forward::Answer;
use crate::head::RequestHead;
use crate::headers;
use crate::request::Request;
use crate::rescue::Tries;
use crate::split::key_hash;
use crate::view::ServiceView;

/// What a service keeps together.
#[derive(Debug, PartialEq, Eq)]
pub struct Pin {
    /// Where a request says which version its page came from.
    pub key: Option<AffinityKey>,
    /// Path prefixes of files that belong to one version.
    pub assets: Vec<String>,
    /// What stands for each backend's version: in a cookie a word that every cookie may have, in a header the
    /// label itself.
    pub words: Vec<String>,
    /// Where files are looked for that a backend does not have.
    pub elsewhere: Vec<Option<usize>>,
}

impl Pin {
    /// What stands for a version.
    #[must_use]
    pub fn word(key: Option<&AffinityKey>, version: &str) -> String {
        match key {
            Some(AffinityKey::Header(_)) => version.to_owned(),
            Some(AffinityKey::Cookie(_)) | None => {
                format!("{:016x}", key_hash(version.as_bytes()))
            }
        }
    }

    /// The backend whose version a request's page came from.
    fn named(&self, head: &RequestHead) -> Option<usize> {
        let word = match self.key.as_ref()? {
            AffinityKey::Cookie(name) => headers::cookie(head, name)?,
            AffinityKey::Header(name) => head.fields.values(name.as_bytes()).next()?,
        };
        let mut words = self.words.iter();
        words.position(|known| known.as_bytes() == word)
    }

    fn is_asset(&self, path: &[u8]) -> bool {
        self.assets.iter().any(|prefix| {
            let prefix = prefix.trim_end_matches('/').as_bytes();
            path.strip_prefix(prefix)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        })
    }
}

/// The backend that a request's page came from, while it may be had.
pub(crate) fn pinned(request: &Request<'_>, service: &ServiceView) -> Option<usize> {
    let backend = service.service.pin.as_ref()?.named(request.head)?;
    let is_there = service.service.is_open(backend)
        && is_available(request.worker, &service.backends[backend]);
    is_there.then_some(backend)
}

/// Who a request counts for: the client's key, or its address where clients stay on a version without having
/// one. One client must not be the judge of it.
pub(crate) fn judged_as(
    request: &Request<'_>,
    service: &ServiceView,
    key: Option<u64>,
) -> Option<u64> {
    if key.is_some() {
        return key;
    }
    service.service.pin.as_ref()?.key.as_ref()?;
    let trusted = &request.view.snapshot.trusted_proxies;
    let address = headers::client_address(request.head, request.client.peer.ip(), trusted);
    Some(match address {
        std::net::IpAddr::V4(address) => key_hash(&address.octets()),
        std::net::IpAddr::V6(address) => key_hash(&address.octets()),
    })
}

/// The cookie that keeps a client on the version which answers, if it does not have it.
pub(crate) fn cookie(
    request: &Request<'_>,
    service: &ServiceView,
    choice: &Choice,
) -> Option<String> {
    let pin = service.service.pin.as_ref()?;
    let Some(AffinityKey::Cookie(name)) = &pin.key else {
        return None;
    };
    let backend = choice.backend;
    let is_split = matches!(choice.pick, Pick::Split | Pick::Rescue);
    let is_page = is_split && !pin.is_asset(request.head.path());
    if !is_page || pin.named(request.head) == Some(backend) {
        return None;
    }
    let secure = request.client.secure;
    Some(headers::pin_cookie(name, &pin.words[backend], secure))
}

/// Where to look for a file that the picked version does not have. Like every repetition it is one of two
/// attempts. It has no budget: where two versions have equal shares, half of all files are looked for twice, and
/// that is what was asked for.
pub(crate) fn elsewhere(
    request: &Request<'_>,
    service: &Rc<ServiceView>,
    answer: &Answer,
    tries: Tries,
) -> Option<usize> {
    let pin = service.service.pin.as_ref()?;
    if answer.head.status != 404
        || tries.begun > 0
        || answer.claim.pick != Pick::Split
        || !request.head.is_safe()
        || !answer.upload.is_repeatable()
        || !pin.is_asset(request.head.path())
    {
        return None;
    }
    let other = pin.elsewhere.get(answer.claim.backend).copied().flatten()?;
    let may_be_asked =
        !service.service.blocked[other] && is_available(request.worker, &service.backends[other]);
    may_be_asked.then_some(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(key: AffinityKey) -> Pin {
        Pin {
            words: ["1", "2"].map(|label| Pin::word(Some(&key), label)).into(),
            key: Some(key),
            assets: vec!["/assets".into(), "/static/".into()],
            elsewhere: vec![Some(1), Some(0)],
        }
    }

    #[test]
    fn files_are_told_apart_by_whole_segments() {
        let pin = pin(AffinityKey::Cookie("v".into()));
        for (path, is_asset) in [
            ("/assets", true),
            ("/assets/", true),
            ("/assets/a.js", true),
            ("/assetsx/a.js", false),
            ("/static/a.css", true),
            ("/", false),
        ] {
            assert_eq!(pin.is_asset(path.as_bytes()), is_asset, "{path}");
        }
    }

    #[test]
    fn words_of_cookies_have_nothing_that_a_cookie_may_not_have() {
        let pin = pin(AffinityKey::Cookie("v".into()));
        assert_ne!(pin.words[0], pin.words[1]);
        let plain = |word: &String| word.len() == 16 && word.bytes().all(|b| b.is_ascii_hexdigit());
        assert!(pin.words.iter().all(plain), "{:?}", pin.words);
        let header = AffinityKey::Header("x-version".into());
        assert_eq!(Pin::word(Some(&header), "4 2;"), "4 2;");
    }
}
