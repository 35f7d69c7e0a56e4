//! What is done about versions that fail the copies of stable's requests.

use switchback_config::model::OnFailure;

use super::Keeper;
use crate::command::{Asked, Command, Failing};
use crate::observer::MirrorAlert;

impl Keeper {
    /// Blocks a version that no user has met, or only says so, as the service's settings have it.
    pub(super) fn heed_mirror(&mut self, alert: MirrorAlert) {
        let MirrorAlert {
            service,
            backend,
            version,
            sentence,
            action,
        } = alert;
        if action != OnFailure::Rollback {
            let kind = match action {
                OnFailure::Hold => "judge_hold",
                _ => "judge_notify",
            };
            let message = format!("{backend}: {sentence}");
            self.events
                .emit(kind, Some(&service), "judge", message, None);
            return;
        }
        let asked = Asked {
            by: "judge".into(),
            ..Asked::by_itself("judge", Some(sentence.clone()))
        };
        let failing = Failing {
            service,
            backend,
            version,
            sentence,
        };
        let command = Command::Reject { failing };
        if let Ok(decision) = self.decide_now(&command, &asked)
            && decision.changes(&self.world)
        {
            self.apply_now(&command, &asked, &decision);
        }
    }
}
