//! What is looked at, and what a key means. Pure: nothing is asked or drawn here.

use jiff::Timestamp;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;

use super::facts;
use super::feed::{Act, Look, News, Order};
use super::pace::Paces;
use crate::cli::look::everywhere;
use crate::cli::verbs::text;

/// Longest text that is searched for.
const SEARCH_MAX: usize = 64;

/// Everything that is known, and where somebody is in it.
#[derive(Debug)]
pub(super) struct Screen {
    /// Whose services these are.
    pub(super) server: String,
    /// The last answer of `/v1/services`.
    pub(super) answer: Value,
    /// What the services did lately.
    pub(super) paces: Paces,
    /// When the server last answered, and what is wrong if it does not.
    pub(super) link: Link,
    /// The last rollback of a service.
    pub(super) incident: Option<(String, Value)>,
    /// The service that keys are about.
    pub(super) chosen: Option<String>,
    /// Only services that have this somewhere.
    pub(super) search: String,
    /// What is being done.
    pub(super) mode: Mode,
    /// The details have the screen to themselves.
    pub(super) is_open: bool,
    /// Lines of the details that are above the screen.
    pub(super) scroll: u16,
    /// What came of the last order.
    pub(super) said: Option<String>,
}

/// Whether what is shown is so.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Link {
    /// When the server last answered.
    pub(super) seen: Timestamp,
    /// Why it does not answer since.
    pub(super) lost: Option<String>,
}

/// What keys are for.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Mode {
    /// Looking.
    Look,
    /// Typing what to search for.
    Search,
    /// Reading what keys do.
    Help,
    /// Waiting for what an order would do.
    Asking(Order),
    /// Asking whether to carry it out. With the answer to the dry run.
    Confirm(Order, Value),
    /// Waiting for what comes of it.
    Doing(Order),
    /// Reading why an order is refused.
    Refused(Order, String),
}

/// What somebody wants that is not done here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// Away.
    Quit,
    /// To know what an order would do.
    Plan(Order),
    /// To have it carried out.
    Do(Order),
}

impl Screen {
    /// The first look.
    pub(super) fn new(server: String, look: Look) -> Self {
        let mut screen = Self {
            server,
            answer: Value::Null,
            paces: Paces::default(),
            link: Link {
                seen: look.when,
                lost: None,
            },
            incident: None,
            chosen: None,
            search: String::new(),
            mode: Mode::Look,
            is_open: false,
            scroll: 0,
            said: None,
        };
        screen.take(look);
        screen
    }

    fn take(&mut self, look: Look) {
        if self.link.lost.take().is_some() {
            // What happened meanwhile is not spread over the time.
            self.paces.forget();
        }
        self.link.seen = look.when;
        self.answer = look.answer;
        let services = facts::list(&self.answer["services"]);
        self.paces.add(look.at, services, &look.times);
        self.keep_choice();
    }

    /// All services.
    pub(super) fn services(&self) -> &[Value] {
        facts::list(&self.answer["services"])
    }

    /// Services that are searched for.
    pub(super) fn found(&self) -> Vec<&Value> {
        let wanted = self.search.to_lowercase();
        let services = self.services().iter();
        services
            .filter(|service| matches(service, &wanted))
            .collect()
    }

    /// The service that keys are about.
    pub(super) fn chosen(&self) -> Option<&Value> {
        let chosen = self.chosen.as_deref()?;
        self.found()
            .into_iter()
            .find(|service| service["name"] == *chosen)
    }

    /// Keeps the chosen service, or chooses the first if it is not there any more.
    fn keep_choice(&mut self) {
        if self.chosen().is_none() {
            let first = self.found().first().map(|first| text(&first["name"]));
            self.choose(first);
        }
    }

    fn choose(&mut self, service: Option<String>) {
        if self.chosen != service {
            self.chosen = service;
            self.scroll = 0;
        }
    }

    /// Goes so many services down, or up.
    fn step(&mut self, by: isize) {
        let found = self.found();
        let here = found
            .iter()
            .position(|service| Some(facts::word(&service["name"])) == self.chosen.as_deref());
        let last = found.len().saturating_sub(1);
        let there = here.unwrap_or(0).saturating_add_signed(by).min(last);
        let name = found.get(there).map(|service| text(&service["name"]));
        self.choose(name);
    }

    /// Takes in what has come.
    pub(super) fn hear(&mut self, news: News) {
        match news {
            News::Look(look) => self.take(*look),
            News::Lost(cause) => self.link.lost = Some(cause),
            News::Incident(service, incident) => self.incident = Some((service, incident)),
            News::Planned(order, result) if self.mode == Mode::Asking(order.clone()) => {
                self.mode = match result {
                    Ok(plan) => Mode::Confirm(order, plan),
                    Err(why) => Mode::Refused(order, why),
                };
            }
            News::Planned(..) => {}
            News::Done(order, result) => {
                if self.mode == Mode::Doing(order.clone()) {
                    self.mode = Mode::Look;
                }
                match result {
                    Ok(answer) => self.said = Some(outcome(&order, &answer)),
                    Err(why) => self.mode = Mode::Refused(order, why),
                }
            }
        }
    }

    /// What a key does. Whoever is to do more than to remember something gets it as a wish.
    pub(super) fn press(&mut self, key: KeyEvent) -> Option<Wish> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return (key.code == KeyCode::Char('c')).then_some(Wish::Quit);
        }
        match self.mode.clone() {
            Mode::Look => self.press_looking(key.code),
            Mode::Search => {
                self.press_searching(key.code);
                None
            }
            Mode::Help | Mode::Refused(..) => {
                self.mode = Mode::Look;
                None
            }
            Mode::Confirm(order, plan) => self.press_confirming(key.code, order, &plan),
            // Away from the question; what was asked for already goes on, and tells its end.
            Mode::Asking(_) | Mode::Doing(_) => {
                if matches!(key.code, KeyCode::Esc | KeyCode::Char('q')) {
                    self.mode = Mode::Look;
                }
                None
            }
        }
    }

    fn press_looking(&mut self, key: KeyCode) -> Option<Wish> {
        const PAGE: isize = 10;
        match key {
            KeyCode::Char('q') => return Some(Wish::Quit),
            KeyCode::Char('?' | 'h') => self.mode = Mode::Help,
            KeyCode::Char('/') => self.mode = Mode::Search,
            KeyCode::Char('r') => return self.ask(Act::Rollback),
            KeyCode::Char('p') => return self.pause_or_resume(),
            KeyCode::Enter => self.is_open = !self.is_open,
            KeyCode::Esc if self.is_open => self.is_open = false,
            KeyCode::Esc => {
                self.search.clear();
                self.keep_choice();
            }
            KeyCode::Down | KeyCode::Char('j') if self.is_open => {
                self.scroll = self.scroll.saturating_add(1)
            }
            KeyCode::Up | KeyCode::Char('k') if self.is_open => {
                self.scroll = self.scroll.saturating_sub(1)
            }
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            _ => {}
        }
        None
    }

    fn press_searching(&mut self, key: KeyCode) {
        match key {
            KeyCode::Enter | KeyCode::Down => self.mode = Mode::Look,
            KeyCode::Esc => {
                self.search.clear();
                self.mode = Mode::Look;
            }
            KeyCode::Backspace => {
                self.search.pop();
            }
            KeyCode::Char(character) if self.search.len() < SEARCH_MAX => {
                self.search.push(character)
            }
            _ => {}
        }
        self.keep_choice();
    }

    fn press_confirming(&mut self, key: KeyCode, order: Order, plan: &Value) -> Option<Wish> {
        match key {
            KeyCode::Char('y') if plan["changed"] != false => {
                self.mode = Mode::Doing(order.clone());
                Some(Wish::Do(order))
            }
            KeyCode::Char('y' | 'n' | 'q') | KeyCode::Esc => {
                self.mode = Mode::Look;
                None
            }
            _ => None,
        }
    }

    fn pause_or_resume(&mut self) -> Option<Wish> {
        let act = match facts::rollout_status(self.chosen()?) {
            Some("paused") => Act::Resume,
            Some(_) => Act::Pause,
            None => {
                let service = self.chosen.clone().unwrap_or_default();
                self.said = Some(format!("{service}: no rollout is under way"));
                return None;
            }
        };
        self.ask(act)
    }

    fn ask(&mut self, act: Act) -> Option<Wish> {
        let service = text(&self.chosen()?["name"]);
        let order = Order { service, act };
        self.said = None;
        self.mode = Mode::Asking(order.clone());
        Some(Wish::Plan(order))
    }
}

/// Whether a service has a text in its name, its backends, their versions or what is to be said of it.
fn matches(service: &Value, wanted: &str) -> bool {
    let has = |text: &str| text.to_lowercase().contains(wanted);
    has(facts::word(&service["name"]))
        || facts::backends(service)
            .any(|(name, backend)| has(name) || has(facts::word(&backend["version"])))
        || facts::concerns(service).iter().any(|(_, words)| has(words))
}

/// What came of an order, in a line.
fn outcome(order: &Order, answer: &Value) -> String {
    let Order { service, act } = order;
    if answer["changed"] == false {
        return format!("{service}: nothing to change");
    }
    let weights = answer["weights"].as_object().into_iter().flatten();
    let weights: Vec<String> = weights
        .map(|(name, weight)| format!("{name}={weight}"))
        .collect();
    let everywhere = everywhere(answer);
    let durable = match answer["durable"] == false {
        true => ", not yet durable",
        false => "",
    };
    let what = match act {
        Act::Rollback => format!("rolled back to {}", weights.join(" ")),
        Act::Pause => "the rollout is paused".into(),
        Act::Resume => "the rollout goes on".into(),
    };
    format!(
        "{service}: {what}, revision {}, in force {everywhere}{durable}",
        answer["revision"]
    )
}

#[cfg(test)]
mod tests;
