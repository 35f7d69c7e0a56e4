//! Conditions on the state: `If-Match` for writes, `If-None-Match` for reads (RFC 9110, section 13).
//!
//! The state's tag is its revision. Counters go on between revisions, so a `304` says that nobody has
//! changed anything, not that no request was served.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use super::problem::Problem;

/// Tags that a caller can list in one request; more are no conversation.
const TAGS_MAX: usize = 32;

/// What `If-Match` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum IfMatch {
    /// Nothing: no header, or `*` (there always is a state).
    #[default]
    Any,
    /// One of these revisions. Empty: tags that no state of ours can have.
    OneOf(Vec<u64>),
}

impl IfMatch {
    /// What the headers of a write ask for.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let Some(tags) = tags(headers, header::IF_MATCH)? else {
            return Ok(Self::Any);
        };
        // By the strong comparison: a weak tag never matches.
        let strong = tags.iter().filter(|tag| !tag.weak);
        Ok(Self::OneOf(strong.filter_map(Tag::revision).collect()))
    }

    /// The revision that a change must find, given the one that is current: the current one if it is
    /// among those asked for, otherwise one that is not. The controller looks again when it decides.
    pub(super) fn expected(&self, current: u64) -> Option<u64> {
        match self {
            Self::Any => None,
            Self::OneOf(revisions) if revisions.contains(&current) => Some(current),
            // No state will ever have the last number.
            Self::OneOf(revisions) => Some(revisions.first().copied().unwrap_or(u64::MAX)),
        }
    }
}

/// One entity tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tag<'a> {
    weak: bool,
    opaque: &'a str,
}

impl Tag<'_> {
    fn revision(&self) -> Option<u64> {
        let plain = self.opaque.bytes().all(|byte| byte.is_ascii_digit());
        let canonical = plain && (self.opaque == "0" || !self.opaque.starts_with('0'));
        self.opaque.parse().ok().filter(|_| canonical)
    }
}

/// The tags of all lines of a header; none without the header, or for `*`.
fn tags(headers: &HeaderMap, name: HeaderName) -> Result<Option<Vec<Tag<'_>>>, Problem> {
    let invalid = || {
        let detail = format!("{name} holds revisions in quotes, for example \"12\", or *");
        Problem::bad_request("invalid_condition", detail)
    };
    let mut tags = Vec::new();
    let (mut lines, mut star) = (0, false);
    for line in headers.get_all(&name) {
        lines += 1;
        let mut rest = line.to_str().map_err(|_| invalid())?.trim();
        star |= rest == "*";
        if rest == "*" {
            continue;
        }
        loop {
            let (tag, after) = tag(rest).ok_or_else(invalid)?;
            tags.push(tag);
            if tags.len() > TAGS_MAX {
                return Err(invalid());
            }
            match after.trim_start().strip_prefix(',') {
                Some(next) => rest = next.trim_start(),
                None if after.trim_start().is_empty() => break,
                None => return Err(invalid()),
            }
        }
    }
    match (lines, star) {
        (0, _) | (1, true) => Ok(None),
        (_, true) => Err(invalid()),
        (_, false) => Ok(Some(tags)),
    }
}

/// The tag a text begins with, and what comes after it. A bare revision is understood, too: what is typed
/// by hand loses its quotes easily.
fn tag(text: &str) -> Option<(Tag<'_>, &str)> {
    let end = text
        .find(|next: char| !next.is_ascii_digit())
        .unwrap_or(text.len());
    if end > 0 {
        let (opaque, rest) = text.split_at(end);
        return Some((
            Tag {
                weak: false,
                opaque,
            },
            rest,
        ));
    }
    let (weak, quoted) = match text.strip_prefix("W/") {
        Some(quoted) => (true, quoted),
        None => (false, text),
    };
    let (opaque, rest) = quoted.strip_prefix('"')?.split_once('"')?;
    let plain = opaque.bytes().all(|byte| byte.is_ascii_graphic());
    plain.then_some((Tag { weak, opaque }, rest))
}

/// Tags an answer with the state it shows, or says that the caller has it already.
pub(super) fn tagged(
    headers: &HeaderMap,
    revision: u64,
    response: Response,
) -> Result<Response, Problem> {
    let has_it = if headers.contains_key(header::IF_NONE_MATCH) {
        // By the weak comparison: what is compared is the revision alone.
        tags(headers, header::IF_NONE_MATCH)?
            .is_none_or(|tags| tags.iter().any(|tag| tag.revision() == Some(revision)))
    } else {
        false
    };
    let mut response = if has_it {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        response
    };
    if let Ok(value) = HeaderValue::try_from(format!("\"{revision}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn if_match(lines: &[&str]) -> Result<IfMatch, Problem> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::IF_MATCH, line.parse().unwrap());
        }
        IfMatch::of(&headers)
    }

    #[test]
    fn tags_are_read_from_lists_and_several_lines() {
        let one_of = |revisions: &[u64]| Ok(IfMatch::OneOf(revisions.to_vec()));
        assert_eq!(if_match(&[]), Ok(IfMatch::Any));
        assert_eq!(if_match(&["*"]), Ok(IfMatch::Any));
        assert_eq!(if_match(&["\"12\""]), one_of(&[12]));
        assert_eq!(
            if_match(&["\"12\" ,  \"13\"", "\"14\""]),
            one_of(&[12, 13, 14])
        );
        assert_eq!(
            if_match(&["W/\"12\""]),
            one_of(&[]),
            "weak tags never match"
        );
        assert_eq!(
            if_match(&["\"abc\", \"012\", \"\""]),
            one_of(&[]),
            "not ours"
        );
    }

    #[test]
    fn what_is_no_tag_is_refused() {
        for line in [
            "\"12",
            "12\"",
            "\"1\" \"2\"",
            "\"1\",",
            "",
            "*, \"1\"",
            "w/\"1\"",
            "\"1 2\"",
        ] {
            assert!(if_match(&[line]).is_err(), "{line}");
        }
        assert!(if_match(&["*", "\"1\""]).is_err());
        assert!(if_match(&[&vec!["\"1\""; TAGS_MAX].join(",")]).is_ok());
        assert!(if_match(&[&vec!["\"1\""; TAGS_MAX + 1].join(",")]).is_err());
    }

    #[test]
    fn only_a_listed_revision_is_expected() {
        let list = IfMatch::OneOf(vec![3, 5]);
        assert_eq!(list.expected(5), Some(5));
        assert_ne!(list.expected(4), Some(4));
        assert_ne!(IfMatch::OneOf(Vec::new()).expected(0), Some(0));
        assert_eq!(IfMatch::Any.expected(4), None);
    }
}
