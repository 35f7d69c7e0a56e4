//! What people, pipelines and files may ask for.

use std::sync::Arc;
use std::time::Duration;

use indexmap::IndexMap;
use switchback_config::model::{Bake, Config, Name, Step};
use switchback_config::units::{Percent, TimeSpan};

use super::Chance;
use crate::command::{Command, FlagChange, StartRollout};

const SERVICES: [&str; 2] = ["shop", "cart"];
const BACKENDS: [&str; 3] = ["blue", "green", "red"];
const FLAGS: [&str; 2] = ["checkout", "search"];

/// Files, as they might follow one another.
pub(crate) fn files() -> Vec<Arc<Config>> {
    let variants = [
        ("blue", "blue: 90, green: 10, red: 0", "2"),
        ("blue", "blue: 50, green: 50, red: 0", "2"),
        ("green", "blue: 0, green: 100, red: 0", "2"),
        ("blue", "blue: 90, green: 10, red: 0", "4"),
        ("blue", "blue: 1, green: 99, red: 0", "5"),
        ("red", "blue: 10, green: 0, red: 100", "4"),
    ];
    let files = variants.map(|(stable, weights, label)| {
        let service = |name: &str, stable: &str, weights: &str| {
            format!(
                r#"
  {name}:
    stable: {stable}
    weights: {{{weights}}}
    rollback: {{window: 2h}}
    backends:
      blue: {{version: "1", endpoints: ["http://127.0.0.1:1"]}}
      green: {{version: "{label}", endpoints: ["http://127.0.0.1:2"]}}
      red: {{version: "3", endpoints: ["http://127.0.0.1:3"]}}"#
            )
        };
        let text = format!(
            r#"
version: 1
listeners: {{web: {{address: "127.0.0.1:0"}}}}
routes: [{{path: /cart, service: cart}}, {{service: shop}}]
services:{}{}
"#,
            service("shop", stable, weights),
            service("cart", "blue", "blue: 100, green: 0, red: 0"),
        );
        let parsed = switchback_config::parse(&text);
        let config = parsed.config.ok_or(parsed.diagnostics);
        Arc::new(config.expect("valid"))
    });
    files.into()
}

/// One of the files.
pub(super) fn file(chance: &mut Chance, files: &[Arc<Config>]) -> Arc<Config> {
    files[chance.below(files.len())].clone()
}

/// A backend of a service.
pub(super) fn backend(chance: &mut Chance) -> (Name, Name) {
    let service = SERVICES[usize::from(chance.one_in(4))];
    (service.into(), BACKENDS[chance.below(3)].into())
}

/// Something that somebody asks for.
pub(super) fn command(chance: &mut Chance, files: &[Arc<Config>]) -> Command {
    let (service, backend) = backend(chance);
    let force = chance.one_in(8);
    match chance.below(26) {
        0..5 => weights(chance, service),
        5..7 => Command::Rollback {
            service,
            force,
            cut: false,
        },
        7..9 => Command::Switch {
            service,
            to: backend,
            force,
        },
        9 => Command::Block {
            service,
            backend,
            force,
        },
        10..13 => Command::Unblock { service, backend },
        13 => Command::SetBackend {
            service,
            backend,
            version: ["1", "2", "3", "6", "7"][chance.below(5)].into(),
            endpoints: vec!["http://127.0.0.1:9".parse().expect("an endpoint")],
            declared: crate::command::Declared::default(),
            force,
        },
        14..17 => rollout(chance, service, backend, force),
        17..19 => Command::Promote {
            service,
            full: chance.one_in(2),
            force,
        },
        19 => Command::Pause { service },
        20 => Command::Resume { service },
        21 => Command::Acknowledge,
        22..24 => flag(chance),
        _ => Command::Reload {
            config: file(chance, files),
        },
    }
}

/// A flag that the file does not name: made, turned off and on again, forgotten.
fn flag(chance: &mut Chance) -> Command {
    let change = match chance.below(4) {
        0 => FlagChange::Off,
        1 => FlagChange::On,
        2 => FlagChange::Unset,
        _ => FlagChange::Set(Box::new(
            switchback_config::parse_flag("default: true").expect("a flag"),
        )),
    };
    Command::ChangeFlag {
        flag: FLAGS[chance.below(2)].into(),
        change,
    }
}

fn weights(chance: &mut Chance, service: Name) -> Command {
    let table = BACKENDS.map(|backend| {
        let weight = [0, 0, 5, 50, 100][chance.below(5)];
        (Name::from(backend), weight)
    });
    let lease = chance
        .one_in(3)
        .then_some(TimeSpan(Duration::from_secs(20)));
    Command::SetWeights {
        service,
        weights: IndexMap::from(table),
        lease,
    }
}

fn rollout(chance: &mut Chance, service: Name, canary: Name, force: bool) -> Command {
    let step = |percent: u32| Step {
        weight: Percent::from_millionths(percent * 10_000),
        span: Some(TimeSpan(Duration::from_millis(500))),
        requests: Some(0),
        approve: false,
    };
    let bake = Bake {
        holdback: Percent::from_millionths(20_000),
        span: TimeSpan(Duration::from_secs(10)),
    };
    Command::StartRollout(Box::new(StartRollout {
        service,
        canary: Some(canary),
        steps: Some(vec![step(10), step(50)]),
        bake: Some(chance.one_in(2).then_some(bake)),
        fast: chance.one_in(6),
        force,
        key: None,
    }))
}
