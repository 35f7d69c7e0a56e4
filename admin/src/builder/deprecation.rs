//! What clients of a route are told about its end, in the words of RFC 9745 and RFC 8594.

use jiff::Timestamp;
use switchback_config::model::{Deprecation, HeaderChanges, Route};
use switchback_config::units::Date;

/// The changes to responses of a route, with what is said about its end.
pub(super) fn response_headers(route: &Route) -> HeaderChanges {
    let mut changes = route.response_headers.clone();
    let Some(Deprecation {
        since,
        sunset,
        link,
    }) = &route.deprecation
    else {
        return changes;
    };
    // A backend does not know better than the file that takes it away.
    if let Some(since) = since {
        let date = format!("@{}", since.seconds());
        changes.set.insert("deprecation".into(), date);
    }
    if let Some(sunset) = sunset {
        changes.set.insert("sunset".into(), http_date(*sunset));
    }
    if let Some(link) = link {
        let relations = [
            ("deprecation", since.is_some()),
            ("sunset", sunset.is_some()),
        ];
        for (relation, _) in relations.into_iter().filter(|(_, told)| *told) {
            let value = format!("<{link}>; rel=\"{relation}\"");
            changes.add.push(("link".into(), value));
        }
    }
    changes
}

/// `Sat, 01 May 2027 00:00:00 GMT`
fn http_date(date: Date) -> String {
    let seconds = i64::try_from(date.seconds()).unwrap_or(i64::MAX);
    let at = Timestamp::from_second(seconds).unwrap_or(Timestamp::MAX);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
