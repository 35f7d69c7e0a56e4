//! What the judge would have done about recorded traffic: an access log in, verdicts out.
//!
//! Lines are read, put into the order in which their requests ended, and heard by one [`world::World`] for
//! each combination of settings and injected faults. A world is the product's own counting, judging and
//! deciding, driven by the log's clock; nothing here judges. The answer depends on the log and the
//! arguments alone.
//!
//! What a log cannot say is not invented: weights and roles come from the file, health and signals from
//! outside are left out, a combined log tells whole seconds and no backends (its lines are then spread by the
//! file's weights, as the proxy would have spread them).

mod dates;
mod injection;
mod line;
mod names;
mod order;
mod report;
mod settings;
mod spread;
mod tally;
#[cfg(test)]
mod tests;
mod world;

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::time::Duration;

use memchr::memchr;
use switchback_config::model::{Config, Name};
use switchback_proxy::outcome::Outcome;
use switchback_proxy::replay;
use switchback_proxy::split::key_hash;

use crate::drill::shadow::MARK;
use dates::Dates;
pub use injection::Injection;
use line::Line;
use names::{Names, Place};
use order::{HORIZON_MS, Order};
use report::Skipped;
pub use report::{FaultReport, LogReport, Report, Run, VersionReport};
pub use settings::{Settings, SettingsError, simulated};
use spread::Spread;
pub use tally::Verdict;
pub use world::Told;
use world::{Observation, World};

/// Longest line; what is longer is no line of an access log.
const LINE_BYTES_MAX: usize = 1 << 20;

/// A line may be so much earlier than one before it.
const DISORDER_MS_MAX: i64 = 60_000;

/// A response that is open for so long has worked.
const OPEN_MAX: Duration = Duration::from_secs(30);

/// No request takes longer, whatever the log says.
const TOOK_MAX: Duration = Duration::from_secs(86_400);

/// What to simulate.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Each set of settings, the file's own first. All have the same services and backends.
    pub settings: Vec<Settings>,
    /// Faults, each of which gets courses of its own.
    pub faults: Vec<Injection>,
    /// Only this service; lines that name none are of it.
    pub service: Option<Name>,
    /// Also lines that name a backend are spread by the file's weights.
    pub spread: bool,
}

/// Nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The log cannot be read to its end.
    #[error("read the log: {0}")]
    Read(#[from] io::Error),
    /// A fault is for a backend that is not there, or for one of several.
    #[error("{words}: {reason}")]
    Fault {
        /// The fault.
        words: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The file has no such service.
    #[error("the file has no service {service}; it has {known}")]
    UnknownService {
        /// The service that was asked for.
        service: Name,
        /// Those that are there.
        known: String,
    },
    /// Lines name no service, and the file has several.
    #[error(
        "line {line} names no service, and the file has {known}: which one is the log of? --service"
    )]
    WhichService {
        /// The first such line.
        line: u64,
        /// Those that are there.
        known: String,
    },
}

/// Reads a log and tells what would have happened. `progress` hears how many bytes were read so far.
///
/// # Errors
/// When the log cannot be read, or the plan does not fit the file. Lines that cannot be read are
/// counted and told in the report.
pub fn simulate(
    mut log: impl Read,
    plan: &Plan,
    mut progress: impl FnMut(u64),
) -> Result<Report, SimulateError> {
    let mut simulation = Simulation::new(plan)?;
    let mut buffer = vec![0; LINE_BYTES_MAX];
    let (mut filled, mut read) = (0, 0_u64);
    // The rest of a line that is too long is passed over.
    let mut passing = false;
    loop {
        let count = log.read(&mut buffer[filled..])?;
        read += count as u64;
        progress(read);
        let end = filled + count;
        let mut start = 0;
        while let Some(length) = memchr(b'\n', &buffer[start..end]) {
            match std::mem::take(&mut passing) {
                true => simulation.skip_long(),
                false => simulation.take(&buffer[start..start + length])?,
            }
            start += length + 1;
        }
        if count == 0 {
            match passing {
                true => simulation.skip_long(),
                false if start < end => simulation.take(&buffer[start..end])?,
                false => {}
            }
            return Ok(simulation.finish());
        }
        passing |= start == 0 && end == buffer.len();
        if passing {
            start = end;
        }
        buffer.copy_within(start..end, 0);
        filled = end - start;
    }
}

/// Lines that say nothing about a version, by what they are.
type SetAside = BTreeMap<&'static str, u64>;

const NOT_SPLIT: &str = "not split by weight: preview, copies, diverted";
const NO_SERVICE: &str = "of no service: refused, redirected";
const UNKNOWN_SERVICE: &str = "of services that the file does not have";
const OF_DRILLS: &str = "of drills: switchback's own requests";
const NOT_ASKED: &str = "of services that were not asked for";
const UNKNOWN_BACKEND: &str = "of backends that the file does not have, or of none";

struct Simulation<'a> {
    plan: &'a Plan,
    config: &'a Config,
    names: Names,
    dates: Dates,
    spread: Spread,
    order: Order<Observation>,
    worlds: Vec<World>,
    line: u64,
    /// The service of lines that name none.
    only: Option<usize>,
    /// First and latest time of all lines.
    span: Option<(i64, i64)>,
    skipped: Skipped,
    set_aside: SetAside,
    spread_lines: u64,
}

impl<'a> Simulation<'a> {
    fn new(plan: &'a Plan) -> Result<Self, SimulateError> {
        let config = &*plan.settings[0].config;
        let only = match &plan.service {
            Some(service) => Some(config.services.get_index_of(service).ok_or_else(|| {
                SimulateError::UnknownService {
                    service: service.clone(),
                    known: known(config),
                }
            })?),
            None if config.services.len() == 1 => Some(0),
            None => None,
        };
        for fault in &plan.faults {
            check_fault(config, fault)?;
        }
        Ok(Self {
            plan,
            config,
            names: Names::new(config),
            dates: Dates::default(),
            spread: Spread::new(config),
            order: Order::default(),
            worlds: Vec::new(),
            line: 0,
            only,
            span: None,
            skipped: Skipped::default(),
            set_aside: SetAside::new(),
            spread_lines: 0,
        })
    }

    fn skip_long(&mut self) {
        self.line += 1;
        let reason = "it is longer than 1 MiB";
        self.skipped.add(reason, self.line, LINE_BYTES_MAX);
    }

    /// Reads one line.
    fn take(&mut self, text: &[u8]) -> Result<(), SimulateError> {
        self.line += 1;
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return Ok(());
        }
        let line = match line::read(text, &mut self.dates) {
            Ok(line) => line,
            Err(fault) => {
                self.skipped.add(fault.reason, self.line, fault.column);
                return Ok(());
            }
        };
        let (first_ms, latest_ms) = self.span.unwrap_or((line.time_ms, line.time_ms));
        if line.time_ms < latest_ms - DISORDER_MS_MAX && !is_long(&line, latest_ms) {
            let reason = "it is a minute earlier than a line before it: the log is not in order";
            self.skipped.add(reason, self.line, 1);
            return Ok(());
        }
        self.span = Some((first_ms.min(line.time_ms), latest_ms.max(line.time_ms)));
        match self.observe(&line)? {
            Ok((at_ms, seen)) => self.hear(at_ms, seen),
            Err(what) => *self.set_aside.entry(what).or_default() += 1,
        }
        Ok(())
    }

    /// What a line says about a version, and when its request ended; or what it is instead.
    fn observe(
        &mut self,
        line: &Line<'_>,
    ) -> Result<Result<(i64, Observation), &'static str>, SimulateError> {
        let spread = self.plan.spread || !line.names_backends;
        if !line.pick.is_empty() {
            return Ok(Err(NOT_SPLIT));
        }
        let service = match (line.service, self.only) {
            ([], _) if line.names_backends => return Ok(Err(NO_SERVICE)),
            ([], Some(only)) => only,
            ([], None) => {
                return Err(SimulateError::WhichService {
                    line: self.line,
                    known: known(self.config),
                });
            }
            (name, _) => match self.names.service(name) {
                Some(service) => service,
                // As they were written once.
                None if name.ends_with(MARK.as_bytes()) => return Ok(Err(OF_DRILLS)),
                None => return Ok(Err(UNKNOWN_SERVICE)),
            },
        };
        if self.plan.service.is_some() && Some(service) != self.only {
            return Ok(Err(NOT_ASKED));
        }
        let client = key_hash(line.client);
        let place = match spread {
            true => self.spread_to(service, client),
            false => self.names.place(service, line),
        };
        let Some(place) = place else {
            return Ok(Err(UNKNOWN_BACKEND));
        };
        let rescue = &self.config.services[service].rescue;
        let took = line.took_us.map(Duration::from_micros);
        let outcome = outcome(line, spread);
        let ended = match (took, line.error) {
            (None, _) => Duration::ZERO,
            (Some(took), []) => took.min(OPEN_MAX),
            (Some(took), _) => took.min(TOOK_MAX),
        };
        let seen = Observation {
            place,
            line: self.line,
            began_ms: line.time_ms,
            outcome,
            took,
            client,
            rescued: !line.rescued_from.is_empty() && !spread,
            rescuable: replay::is_rescuable(rescue, line.method),
        };
        let ended_ms = i64::try_from(ended.as_millis()).unwrap_or(0);
        Ok(Ok((line.time_ms + ended_ms, seen)))
    }

    fn spread_to(&mut self, service: usize, client: u64) -> Option<Place> {
        self.spread_lines += 1;
        Some(Place {
            service,
            backend: self.spread.next(service, client)?,
            label: 0,
        })
    }

    fn hear(&mut self, at_ms: i64, seen: Observation) {
        if self.worlds.is_empty() {
            self.begin(at_ms, seen.began_ms);
        }
        let Self {
            order,
            worlds,
            names,
            ..
        } = self;
        order.add(at_ms, seen, |at_ms, due| hear(worlds, names, at_ms, due));
    }

    /// One world for each combination, in the order in which they are reported.
    fn begin(&mut self, at_ms: i64, start_ms: i64) {
        let origin_ms = at_ms - HORIZON_MS;
        for settings in &self.plan.settings {
            let faults = self.plan.faults.iter().cloned().map(Some);
            for fault in [None].into_iter().chain(faults) {
                let world = World::new(&settings.config, fault, origin_ms, start_ms);
                self.worlds.push(world);
            }
        }
    }

    fn finish(mut self) -> Report {
        let (worlds, names) = (&mut self.worlds, &self.names);
        self.order
            .finish(|at_ms, due| hear(worlds, names, at_ms, due));
        for world in &mut self.worlds {
            world.end();
        }
        let each = self.plan.faults.len() + 1;
        let runs = self.worlds.iter().enumerate().map(|(index, world)| {
            let settings = &self.plan.settings[index / each];
            Run::new(settings, world)
        });
        let log = LogReport {
            lines: self.line,
            from: self.span.map(|(first_ms, _)| world::timestamp(first_ms)),
            to: self.span.map(|(_, latest_ms)| world::timestamp(latest_ms)),
            skipped: self.skipped.total(),
            skipped_because: self.skipped.reasons(),
            set_aside: self.set_aside,
            spread: self.spread_lines,
        };
        Report {
            log,
            runs: runs.collect(),
        }
    }
}

/// Every world hears of what ended in one millisecond, and looks.
fn hear(worlds: &mut [World], names: &Names, at_ms: i64, due: &[Observation]) {
    for world in worlds {
        world.pass_until(at_ms);
        for seen in due {
            world.hear(at_ms, seen, names);
        }
        world.look(at_ms);
    }
}

/// Whether a line is early only because its request began long before it ended.
fn is_long(line: &Line<'_>, latest_ms: i64) -> bool {
    let took_ms = line.took_us.map_or(0, |took_us| took_us / 1_000);
    let ended_ms = line.time_ms + i64::try_from(took_ms).unwrap_or(0);
    ended_ms >= latest_ms - DISORDER_MS_MAX
}

/// How the backend's attempt ended; of a request that is spread, the whole request.
fn outcome(line: &Line<'_>, spread: bool) -> Outcome {
    let told = match (line.rescued_outcome, line.error) {
        ([_, ..], _) if !spread => replay::outcome_of_class(line.rescued_outcome),
        (_, []) => None,
        (_, error) => replay::outcome_of_error(error),
    };
    told.unwrap_or(match (line.names_backends, line.status) {
        // nginx's word for a client that went away.
        (false, 499) => Outcome::ClientGone,
        (_, status) => Outcome::Status(status),
    })
}

fn known(config: &Config) -> String {
    let names: Vec<&str> = config.services.keys().map(String::as_str).collect();
    names.join(", ")
}

/// Whether a fault hits one backend of the file, and exactly one.
fn check_fault(config: &Config, fault: &Injection) -> Result<(), SimulateError> {
    let named = fault.service.as_deref();
    let services = config.services.iter();
    let services = services.filter(|(name, _)| named.is_none_or(|named| named == name.as_str()));
    let having = services.filter(|(_, service)| service.backends.contains_key(&fault.backend));
    let found: Vec<&str> = having.map(|(name, _)| name.as_str()).collect();
    let reason = match found[..] {
        [_] => return Ok(()),
        [] => format!("the file has no backend {} there", fault.backend),
        _ => format!(
            "{} is a backend of {}: write SERVICE/{}",
            fault.backend,
            found.join(", "),
            fault.backend
        ),
    };
    Err(SimulateError::Fault {
        words: fault.words.clone(),
        reason,
    })
}
