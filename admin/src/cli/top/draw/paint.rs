//! How things are set apart. Nothing is told by a colour alone: each stands beside words or a mark, and
//! without colours there is still bold, dim and reversed.

use ratatui::style::{Color, Modifier, Style};

use super::super::facts::Level;

/// Styles, with or without colours.
#[derive(Clone, Copy, Debug)]
pub(in crate::cli::top) struct Paint {
    pub(in crate::cli::top) colours: bool,
}

impl Paint {
    fn coloured(self, colour: Color) -> Style {
        match self.colours {
            true => Style::new().fg(colour),
            false => Style::new(),
        }
    }

    /// How badly somebody is needed.
    pub(super) fn level(self, level: Level) -> Style {
        match level {
            Level::Well => self.coloured(Color::Green),
            Level::Note => self.coloured(Color::Cyan),
            Level::Attention => self.coloured(Color::Yellow).add_modifier(Modifier::BOLD),
            Level::Alarm => self.coloured(Color::Red).add_modifier(Modifier::BOLD),
        }
    }

    /// A health, which is also written.
    pub(super) fn health(self, health: &str) -> Style {
        self.level(match health {
            "healthy" => Level::Well,
            "unknown" => Level::Attention,
            _ => Level::Alarm,
        })
    }

    /// Heads, names.
    pub(super) const fn strong(self) -> Style {
        Style::new().add_modifier(Modifier::BOLD)
    }

    /// What can be overlooked.
    pub(super) const fn faint(self) -> Style {
        Style::new().add_modifier(Modifier::DIM)
    }

    /// What keys are about; a mark stands before it, too.
    pub(super) const fn chosen(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// The first and the last line.
    pub(super) const fn edge(self) -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }
}
