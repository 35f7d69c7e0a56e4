//! How many instances follow a write, where several share one state.

use serde::Serialize;
use utoipa::ToSchema;

use crate::cluster::Acknowledged;

/// Whether the other instances follow a write. Nothing is said where there are none, and where nothing has
/// changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Followed {
    /// Instances of the cluster on which every worker follows; left out: the instance is alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    applied: Option<usize>,
    /// Instances of the cluster that are alive: all of them follow.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 3)]
    of: Option<usize>,
    /// Milliseconds until the last of them had said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 9)]
    slowest_ms: Option<u64>,
}

impl From<Option<Acknowledged>> for Followed {
    fn from(acknowledged: Option<Acknowledged>) -> Self {
        let Some(Acknowledged {
            applied,
            of,
            slowest,
        }) = acknowledged
        else {
            return Self::default();
        };
        Self {
            applied: Some(applied),
            of: Some(of),
            slowest_ms: Some(u64::try_from(slowest.as_millis()).unwrap_or(u64::MAX)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn nothing_is_said_of_others_where_there_are_none() {
        assert_eq!(json!(Followed::from(None)), json!({}));
    }

    #[test]
    fn all_that_follow_are_counted_with_the_slowest() {
        let acknowledged = Acknowledged {
            applied: 3,
            of: 3,
            slowest: Duration::from_micros(12_900),
        };
        let said = json!({"applied": 3, "of": 3, "slowest_ms": 12});
        assert_eq!(json!(Followed::from(Some(acknowledged))), said);
    }
}
