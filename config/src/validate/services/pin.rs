//! Which requests stay on the version that their page came from.

use super::super::texts;
use crate::decode::{Context, Spanned};
use crate::defaults::ASSET_PREFIXES_MAX;
use crate::diagnostic::Code;
use crate::model::{Affinity, AffinityKey, Pin};
use crate::raw;

/// Reads what keeps a page and its files together.
pub(super) fn pin(
    written: &Spanned<raw::Pin>,
    affinity: Option<&Affinity>,
    cx: &Context<'_>,
) -> Option<Pin> {
    let raw = &written.value;
    let key = match (&raw.cookie, &raw.header) {
        (Some(_), Some(header)) => {
            let reason = "a page names its version in a cookie or in a header, not in both";
            cx.error(Code::Contradiction, header, reason, "remove one of the two");
            return None;
        }
        (Some(cookie), None) => {
            if !texts::is_token(&cookie.value) {
                let reason = format!("{:?} is not a cookie name", cookie.value);
                let repair = "use letters, digits, - and _";
                cx.error(Code::InvalidValue, cookie, reason, repair);
            }
            let key = AffinityKey::Cookie(cookie.value.clone());
            if affinity.is_some_and(|affinity| affinity.key == key) {
                let reason = "this cookie has the client's key already";
                cx.error(Code::Contradiction, cookie, reason, "use another name");
            }
            Some(key)
        }
        (None, Some(header)) => {
            let name = texts::header_name(&header.value, header.into(), cx)?;
            Some(AffinityKey::Header(name))
        }
        (None, None) => None,
    };
    let listed = raw.assets.as_ref().map(|assets| &assets.value[..]);
    let listed = listed.unwrap_or_default();
    if key.is_none() && listed.is_empty() {
        let reason = "this keeps nothing together";
        let repair = "write pin: {cookie: sb_version, assets: [/assets]}";
        cx.error(Code::MissingKey, written, reason, repair);
        return None;
    }
    if listed.len() > ASSET_PREFIXES_MAX {
        let reason = format!("{} paths are more than {ASSET_PREFIXES_MAX}", listed.len());
        cx.error(Code::TooLarge, written, reason, "use shorter prefixes");
        return None;
    }
    let assets = listed
        .iter()
        .filter_map(|path| texts::path_prefix(path, cx));
    Some(Pin {
        key,
        assets: assets.collect(),
    })
}
