//! Runs of runbooks: from step to step, held, escalated and stopped.

use switchback_config::model::{Method, RunbookStep};

use super::*;
use crate::command::{RunbookAct, RunbookCommand, RunbookStart, StepTurn};
use crate::state::{RunHoldKind, RunbookRun, StepStatus};

const STEPS: &str = "steps:
  - {name: Assess, duration: 10s}
  - {name: Decide, action: \"flag > traffic\"}
  - {name: Execute}
  - {name: Verify}
  - {name: Call somebody}
";

fn plan(text: &str) -> Vec<RunbookStep> {
    switchback_config::parse_runbook(text)
        .expect("a runbook")
        .steps
}

fn about(act: RunbookAct) -> Command {
    Command::Runbook(Box::new(RunbookCommand {
        service: shop(),
        act,
    }))
}

fn start(plan: Vec<RunbookStep>) -> Command {
    about(RunbookAct::Start(RunbookStart {
        runbook: "rollback".into(),
        plan,
        trigger: None,
        since: None,
        method: None,
        may_restore: false,
    }))
}

fn report(step: usize, turn: StepTurn) -> Command {
    about(RunbookAct::Report {
        step,
        findings: vec![format!("{turn:?}")],
        turn,
    })
}

fn tick(step: usize, method: Option<Method>) -> Command {
    about(RunbookAct::Tick {
        step,
        skip: false,
        method,
        may_restore: false,
    })
}

fn run(play: &Play) -> RunbookRun {
    play.world.state.services["shop"]
        .runbook
        .clone()
        .expect("a run")
}

#[test]
fn run_goes_from_step_to_step_and_a_late_report_counts_for_nothing() {
    let mut play = Play::new();
    play.must(start(plan(STEPS)));
    assert!(play.must(report(0, StepTurn::Done)));
    assert!(!play.must(report(0, StepTurn::Done)), "it has gone on");
    play.must(report(1, StepTurn::Chose(Method::Traffic)));
    play.must(report(2, StepTurn::RolledBack(Some(7))));
    play.must(report(3, StepTurn::Done));
    let at = run(&play);
    assert_eq!((at.step, at.status(), at.rollback), (4, "waiting", Some(7)));
    assert!(
        !play.must(report(4, StepTurn::Done)),
        "it waits for somebody"
    );
    play.must(tick(4, None));
    let ended = run(&play);
    assert_eq!(ended.status(), "completed");
    assert!(
        ended
            .steps
            .iter()
            .all(|step| step.status == StepStatus::Done)
    );
    assert_eq!(play.act(tick(4, None)), Err(Refusal::NoRunbook(shop())));
    assert_eq!(play.weights(), [80, 20, 0], "it moves no traffic by itself");
    play.must(start(plan(STEPS)));
}

#[test]
fn way_that_did_not_help_is_remembered_and_the_decision_comes_again() {
    let mut play = Play::new();
    play.must(start(plan(STEPS)));
    play.must(report(0, StepTurn::Done));
    play.must(report(1, StepTurn::Chose(Method::Flag)));
    play.must(report(2, StepTurn::Done));
    play.must(report(3, StepTurn::Escalate));
    let at = run(&play);
    assert_eq!(
        (at.step, at.method, at.tried.as_slice()),
        (1, None, &[Method::Flag][..])
    );
    let statuses: Vec<StepStatus> = at.steps.iter().map(|step| step.status).collect();
    use StepStatus::{Done, Pending, Running};
    assert_eq!(statuses, [Done, Running, Pending, Pending, Pending]);
    let hold = StepTurn::Hold(RunHoldKind::Tick, "by hand".into());
    play.must(report(1, hold));
    // Whoever names a way wants it gone.
    play.must(tick(1, Some(Method::Traffic)));
    let at = run(&play);
    assert_eq!(
        (at.step, at.method, at.status()),
        (2, Some(Method::Traffic), "running")
    );
}

#[test]
fn way_that_did_not_help_is_held_where_no_step_decides() {
    for turn in [
        // Refused, and gone without help.
        vec![(0, StepTurn::Escalate)],
        vec![(0, StepTurn::RolledBack(Some(7))), (1, StepTurn::Escalate)],
    ] {
        let mut play = Play::new();
        play.must(start(plan(
            "steps: [{name: Execute}, {name: Verify}, {name: Communicate}]",
        )));
        for (step, turn) in turn {
            play.must(report(step, turn));
        }
        let at = run(&play);
        assert_eq!(
            (at.step, at.status(), at.tried.as_slice()),
            (0, "waiting", &[Method::Traffic][..])
        );
        assert_eq!(at.at_work(), None, "nothing is done again unasked");
        // Another way, which does not help either; then it was gone by hand.
        play.must(tick(0, Some(Method::Flag)));
        assert!(run(&play).at_work().is_some());
        play.must(report(0, StepTurn::Escalate));
        let at = run(&play);
        assert_eq!(at.tried, [Method::Traffic, Method::Flag]);
        assert_eq!(at.status(), "waiting");
        play.must(tick(0, None));
        assert_eq!(run(&play).step, 1);
    }
}

#[test]
fn run_of_a_trigger_may_restore_only_by_an_operator_who_agrees_to_a_way_back() {
    let tick = |step: usize, may_restore: bool| {
        about(RunbookAct::Tick {
            step,
            skip: false,
            method: None,
            may_restore,
        })
    };
    let mut play = Play::new();
    play.must(about(RunbookAct::Start(RunbookStart {
        runbook: "rollback".into(),
        plan: plan("steps: [{name: Drain}, {name: Decide, approve: true}, {name: Execute}]"),
        trigger: Some("error rate > 5% for 1m".into()),
        since: None,
        method: None,
        may_restore: false,
    })));
    play.must(tick(0, true));
    assert!(!run(&play).may_restore, "a queue was drained");
    play.must(tick(1, false));
    assert!(!run(&play).may_restore, "agreed to by who may not");
    let hold = || StepTurn::Hold(RunHoldKind::Approval, "config".into());
    play.must(report(1, hold()));
    play.must(tick(1, true));
    assert!(run(&play).may_restore);
    play.must(report(1, StepTurn::Chose(Method::Config)));
    play.must(report(2, StepTurn::Escalate));
    assert!(!run(&play).may_restore, "that way did not help");
}

#[test]
fn step_that_takes_too_long_is_noted_once_on_both_sides_of_its_time() {
    let mut play = Play::new();
    let progress = || Command::Progress { service: shop() };
    play.must(start(plan(STEPS)));
    // Every command takes a second.
    for _ in 0..9 {
        assert!(!play.must(progress()));
    }
    assert!(play.must(progress()));
    assert!(run(&play).steps[0].overdue);
    assert!(!play.must(progress()));
}

#[test]
fn run_that_is_approved_first_begins_with_the_tick_and_one_is_enough() {
    let mut play = Play::new();
    let steps = "steps: [{name: Decide, approve: true}, {name: Execute}]";
    play.must(start(plan(steps)));
    assert_eq!(run(&play).at_work(), None);
    let second = play.act(start(plan(steps)));
    assert_eq!(second, Err(Refusal::RunbookRunning("rollback".into())));
    let wrong = play.act(tick(1, None));
    assert_eq!(
        wrong,
        Err(Refusal::NotThisStep {
            asked: 2,
            current: 1
        })
    );
    play.must(tick(0, None));
    assert!(run(&play).at_work().is_some());
    let twice = play.act(tick(0, None));
    assert!(
        matches!(twice, Err(Refusal::InvalidRunbook(_))),
        "{twice:?}"
    );
    play.must(about(RunbookAct::Stop));
    assert_eq!(run(&play).status(), "stopped");
}

#[test]
fn run_survives_the_way_to_the_disk_and_back() {
    let mut play = Play::new();
    play.must(start(plan(STEPS)));
    play.must(report(0, StepTurn::Done));
    let text = serde_json::to_string(&play.world.state).expect("JSON");
    let back: State = serde_json::from_str(&text).expect("a state");
    assert_eq!(back, play.world.state);
}
