//! `top`: all services live in a terminal, with the red button at hand.
//!
//! [`feed`] asks the API that the other verbs ask, [`screen`] knows what is looked at and what keys mean,
//! [`draw`] writes it down, [`terminal`] is given back as it was, whatever happens. Numbers that may not be
//! so any more are not shown.

mod draw;
mod facts;
mod feed;
mod pace;
mod screen;
mod terminal;
#[cfg(test)]
mod tests;

use std::io::stdout;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use ratatui::crossterm::event::Event;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinHandle;

use super::Failed;
use super::args::Output;
use super::client::Client;
use draw::Paint;
use feed::News;
use screen::{Screen, Wish};
use terminal::Live;

/// News that are not yet looked at.
const NEWS_MAX: usize = 16;

/// The clock goes on, also when nothing comes.
const TICK: Duration = Duration::from_secs(1);

/// Shows services until somebody has seen enough.
pub(super) async fn top(client: Client) -> Result<u8, Failed> {
    if client.output != Output::Table {
        let message = "top draws a table; for programs there is: switchback status --watch -o json";
        return Err(Failed::with_code(message, 2));
    }
    terminal::require()?;
    // What is wrong from the beginning is said as every verb says it.
    let first = feed::look(&client).await?;
    let mut screen = Screen::new(client.url(), first);
    let paint = Paint {
        colours: anstream::AutoStream::choice(&stdout()) != anstream::ColorChoice::Never,
    };
    let mut inputs = Inputs::start(client)?;
    let mut live = Live::enter()?;
    loop {
        inputs.look_at(screen.chosen.clone());
        live.0
            .draw(|frame| draw::draw(frame, &screen, paint, Timestamp::now()))?;
        match inputs.next().await {
            Input::Typed(Event::Key(key)) => match screen.press(key) {
                Some(Wish::Quit) => return Ok(0),
                Some(Wish::Plan(order)) => inputs.send(order, true),
                Some(Wish::Do(order)) => inputs.send(order, false),
                None => {}
            },
            // A new size is drawn for like anything else.
            Input::Typed(_) | Input::Tick => {}
            Input::News(news) => {
                if matches!(news, News::Done(..)) {
                    inputs.wake.notify_one();
                }
                screen.hear(news);
            }
            Input::Broken => return Err(Failed::new("the part that asks the API has ended")),
            Input::End => return Ok(0),
        }
    }
}

/// Something to do.
enum Input {
    Typed(Event),
    News(News),
    Tick,
    /// Nobody asks the API any more.
    Broken,
    /// Of the terminal, or asked for by a signal.
    End,
}

/// Where it comes from.
struct Inputs {
    client: Arc<Client>,
    wake: Arc<Notify>,
    focus: watch::Sender<Option<String>>,
    tell: mpsc::Sender<News>,
    news: mpsc::Receiver<News>,
    typed: mpsc::Receiver<Event>,
    ticks: tokio::time::Interval,
    watching: JoinHandle<()>,
    signals: [Signal; 3],
}

impl Inputs {
    fn start(client: Client) -> Result<Self, Failed> {
        let kinds = [
            SignalKind::terminate(),
            SignalKind::interrupt(),
            SignalKind::hangup(),
        ];
        let [terminate, interrupt, hangup] = kinds.map(signal);
        let signals = [terminate?, interrupt?, hangup?];
        let (tell, news) = mpsc::channel(NEWS_MAX);
        let (focus, focused) = watch::channel(None);
        let (client, wake) = (Arc::new(client), Arc::new(Notify::new()));
        let watching = feed::watch(client.clone(), wake.clone(), focused, tell.clone());
        Ok(Self {
            client,
            wake,
            focus,
            tell,
            news,
            typed: terminal::events(),
            ticks: tokio::time::interval(TICK),
            watching: tokio::spawn(watching),
            signals,
        })
    }

    /// Whose last rollback is wanted.
    fn look_at(&self, service: Option<String>) {
        self.focus.send_if_modified(|focus| {
            let is_new = *focus != service;
            *focus = service;
            is_new
        });
    }

    /// Sends an order, or asks what would come of it; the answer is among the news.
    fn send(&self, order: feed::Order, dry_run: bool) {
        let (client, tell) = (self.client.clone(), self.tell.clone());
        tokio::spawn(async move {
            let news = feed::send(client, order, dry_run).await;
            // Somebody may have left in the meantime.
            let _ = tell.send(news).await;
        });
    }

    async fn next(&mut self) -> Input {
        let [terminate, interrupt, hangup] = &mut self.signals;
        tokio::select! {
            biased;
            _ = terminate.recv() => Input::End,
            _ = interrupt.recv() => Input::End,
            _ = hangup.recv() => Input::End,
            typed = self.typed.recv() => typed.map_or(Input::End, Input::Typed),
            news = self.news.recv() => news.map_or(Input::End, Input::News),
            _ = &mut self.watching => Input::Broken,
            _ = self.ticks.tick() => Input::Tick,
        }
    }
}
