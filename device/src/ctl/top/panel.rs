// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! The panel: what is on the screen, and what each key means. It must not know the terminal or the daemon.

use std::collections::HashMap;

use ratatui::Frame;
use ratatui::crossterm::event::KeyCode;
use ratatui::crossterm::event::KeyEvent;
use ratatui::crossterm::event::KeyModifiers;
use ratatui::layout::Constraint;
use ratatui::layout::Layout;
use ratatui::layout::Position;
use ratatui::layout::Rect;
use ratatui::style::Modifier;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::text::Text;
use ratatui::widgets::Cell;
use ratatui::widgets::Paragraph;
use ratatui::widgets::Row;
use ratatui::widgets::Table;
use ratatui::widgets::TableState;

use super::rates;
use super::rates::Rate;
use super::rates::Rates;
use crate::control::protocol::Command;
use crate::control::protocol::DirectionStatus;
use crate::control::protocol::FaultStatus;
use crate::control::protocol::FifoStatus;
use crate::control::protocol::Status;
use crate::ctl::show;

/// Keys, on the last line of the screen.
const HELP: &str = "↑↓ FIFO  p push a line  c clear  h hang up  i drop the next interrupt  q quit";
/// Keys while a line is edited.
const EDITING: &str = "Enter push  Esc leave it";
/// Cells of a level's bar.
const BAR: usize = 16;
/// Lines of a FIFO: one for each direction.
const LINES: u16 = 2;
/// Longest line that is taken, in bytes: it is one of a person.
const LONGEST: usize = 1024;
/// Lines that faults have at most, their heading included.
const FAULTS: u16 = 7;

/// Shortest time that rates are from, in milliseconds.
const SHORTEST: u64 = 90;

/// What a key leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Reaction {
    /// At most another screen.
    Nothing,
    /// The end.
    Quit,
    /// A command for the daemon.
    Do(Command),
}

/// What is shown.
#[derive(Debug, Default)]
pub struct Panel {
    status: Option<Status>,
    /// What the next rates are from.
    earlier: Option<Status>,
    rates: HashMap<u16, Rates>,
    table: TableState,
    /// FIFOs that a command which is on its way hangs up or no longer does.
    hangups: HashMap<u16, bool>,
    /// Commands whose outcome is not known yet.
    on_their_way: usize,
    /// The line that is edited, if one is.
    line: Option<String>,
    said: String,
}

impl Panel {
    /// The device now. Looks less than [`SHORTEST`] apart make no rate: one would say little.
    pub fn update(&mut self, status: Status) {
        let since = self.earlier.as_ref().map(|earlier| {
            let uptime = status.device.uptime_ms;
            uptime.saturating_sub(earlier.device.uptime_ms)
        });
        if since.is_none_or(|since| since >= SHORTEST) {
            if let Some(earlier) = &self.earlier {
                self.rates = rates::between(earlier, &status);
            }
            self.earlier = Some(status.clone());
        }
        // The daemon was asked after the last command had been carried out.
        if self.on_their_way == 0 {
            self.hangups.clear();
        }
        let last = status.fifos.len().saturating_sub(1);
        let selected = self.table.selected().unwrap_or_default();
        self.table.select(Some(selected.min(last)));
        self.status = Some(status);
    }

    /// What a command has led to.
    pub fn say(&mut self, text: String) {
        self.on_their_way = self.on_their_way.saturating_sub(1);
        self.said = text;
    }

    /// What a key means now.
    pub fn key(&mut self, key: KeyEvent) -> Reaction {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let reaction = match (key.code, self.line.take()) {
            (KeyCode::Char('c' | 'C'), _) if control => Reaction::Quit,
            (code, Some(line)) => self.edit(code, control, line),
            (code, None) => self.act(code),
        };
        if let Reaction::Do(command) = &reaction {
            self.on_their_way += 1;
            if let Command::Hangup { fifo, on } = command {
                self.hangups.insert(*fifo, *on);
            }
        }
        reaction
    }

    fn edit(&mut self, code: KeyCode, control: bool, mut line: String) -> Reaction {
        match code {
            KeyCode::Esc => return Reaction::Nothing,
            KeyCode::Enter => {
                line.push('\n');
                return self.on_the_selected(|fifo| Command::Push {
                    fifo: fifo.fifo,
                    text: Some(line),
                    base64: None,
                });
            }
            KeyCode::Backspace => {
                line.pop();
            }
            KeyCode::Char('u') if control => line.clear(),
            KeyCode::Char(letter) if !control && line.len() + letter.len_utf8() < LONGEST => {
                line.push(letter);
            }
            _ => {}
        }
        self.line = Some(line);
        Reaction::Nothing
    }

    fn act(&mut self, code: KeyCode) -> Reaction {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Reaction::Quit,
            KeyCode::Up | KeyCode::Char('k') => self.table.select_previous(),
            KeyCode::Down | KeyCode::Char('j') => {
                let last = self.fifos().len().saturating_sub(1);
                let next = self
                    .table
                    .selected()
                    .map_or(0, |selected| selected.saturating_add(1));
                self.table.select(Some(next.min(last)));
            }
            KeyCode::Char('p') if self.selected().is_some() => self.line = Some(String::new()),
            KeyCode::Char('c') => {
                return self.on_the_selected(|fifo| Command::Clear { fifo: fifo.fifo });
            }
            KeyCode::Char('h') => {
                return self.on_the_selected(|fifo| {
                    let ordered = self.hangups.get(&fifo.fifo).copied();
                    Command::Hangup {
                        fifo: fifo.fifo,
                        on: !ordered.unwrap_or(fifo.hangup_by_control),
                    }
                });
            }
            KeyCode::Char('i') => {
                return self.on_the_selected(|fifo| Command::FaultAdd {
                    spec: format!("drop-interrupt,fifo={},on=rx,count=1", fifo.fifo),
                });
            }
            _ => {}
        }
        Reaction::Nothing
    }

    fn on_the_selected(&self, command: impl FnOnce(&FifoStatus) -> Command) -> Reaction {
        self.selected()
            .map_or(Reaction::Nothing, |fifo| Reaction::Do(command(fifo)))
    }

    fn fifos(&self) -> &[FifoStatus] {
        self.status.as_ref().map_or(&[], |status| &status.fifos)
    }

    fn selected(&self) -> Option<&FifoStatus> {
        self.fifos().get(self.table.selected()?)
    }

    /// Draws all of it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let faults = self.status.as_ref().map_or(&[][..], |it| &it.faults);
        let lines = u16::try_from(faults.len()).unwrap_or(u16::MAX);
        let lines = match lines {
            0 => 0,
            _ => lines.saturating_add(1).min(FAULTS),
        };
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1 + LINES),
            Constraint::Length(lines),
            Constraint::Length(1),
            Constraint::Length(1),
        ]);
        let [head, fifos, below, said, help] = areas.areas(frame.area());
        let summary = match &self.status {
            Some(status) => show::summary(&status.device),
            None => "the daemon has not answered yet".to_owned(),
        };
        frame.render_widget(Paragraph::new(summary), head);
        frame.render_widget(faults_table(faults, lines), below);
        self.draw_fifos(frame, fifos);
        self.draw_said(frame, said);
        let keys = if self.line.is_some() { EDITING } else { HELP };
        let reversed = Style::new().add_modifier(Modifier::REVERSED);
        frame.render_widget(Paragraph::new(keys).style(reversed), help);
    }

    fn draw_fifos(&mut self, frame: &mut Frame<'_>, area: Rect) {
        let rows: Vec<_> = self
            .fifos()
            .iter()
            .map(|fifo| row(fifo, self.rates.get(&fifo.fifo)))
            .collect();
        let widths = [
            Constraint::Length(4),
            Constraint::Min(14),
            Constraint::Length(2),
            Constraint::Length(u16::try_from(BAR).unwrap_or_default()),
            Constraint::Length(15),
            Constraint::Length(6),
            Constraint::Length(6),
        ];
        let bold = Style::new().add_modifier(Modifier::BOLD);
        let headings = [
            "FIFO",
            "KIND, STATE",
            "",
            "LEVEL",
            "  BYTES",
            "   B/S",
            " IRQ/S",
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(headings).style(bold))
            .row_highlight_style(bold)
            .highlight_symbol(Text::from("▶ \n  "));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    fn draw_said(&self, frame: &mut Frame<'_>, area: Rect) {
        let Some(line) = &self.line else {
            frame.render_widget(Paragraph::new(self.said.as_str()), area);
            return;
        };
        let fifo = self.selected().map_or(0, |fifo| fifo.fifo);
        let text = Line::from(format!("push to FIFO {fifo}: {line}"));
        let width = u16::try_from(text.width()).unwrap_or(u16::MAX);
        // The end of a line that is too long is what is edited.
        let hidden = (width + 1).saturating_sub(area.width);
        frame.render_widget(Paragraph::new(text).scroll((0, hidden)), area);
        frame.set_cursor_position(Position::new(area.x + width - hidden, area.y));
    }
}

fn row<'text>(fifo: &FifoStatus, rates: Option<&Rates>) -> Row<'text> {
    let both =
        |rx: String, tx: String| Cell::from(Text::from(vec![Line::from(rx), Line::from(tx)]));
    let rate = |of: fn(&Rate) -> f64| {
        let shown = |rate: Option<Rate>| {
            let text = rate.map_or_else(|| "-".to_owned(), |rate| rates::short(of(&rate)));
            format!("{text:>6}")
        };
        both(shown(rates.map(|it| it.rx)), shown(rates.map(|it| it.tx)))
    };
    let host = match show::state(fifo) {
        "ok" => show::host(fifo.host).to_owned(),
        state => state.to_owned(),
    };
    let capacity = fifo.capacity;
    let inside = |direction: &DirectionStatus| format!("{:>7}/{capacity}", direction.level);
    Row::new([
        Cell::from(fifo.fifo.to_string()),
        both(fifo.kind.clone(), host),
        both("rx".to_owned(), "tx".to_owned()),
        both(bar(&fifo.rx, capacity), bar(&fifo.tx, capacity)),
        both(inside(&fifo.rx), inside(&fifo.tx)),
        rate(|it| it.bytes),
        rate(|it| it.interrupts),
    ])
    .height(LINES)
}

/// How full a direction is: a cell for each sixteenth, and one for the first byte.
fn bar(direction: &DirectionStatus, capacity: usize) -> String {
    let full = (direction.level * BAR).div_ceil(capacity.max(1)).min(BAR);
    format!("{}{}", "█".repeat(full), "·".repeat(BAR - full))
}

/// The newest faults, as many as there are lines for.
fn faults_table<'text>(faults: &[FaultStatus], lines: u16) -> Paragraph<'text> {
    if faults.is_empty() {
        return Paragraph::default();
    }
    let shown = usize::from(lines.saturating_sub(1));
    let newest = faults.get(faults.len().saturating_sub(shown)..);
    let table = show::faults(newest.unwrap_or_default());
    let mut lines: Vec<_> = table
        .lines()
        .map(|line| Line::from(line.to_owned()))
        .collect();
    if let Some(heading) = lines.first_mut() {
        heading.style = Style::new().add_modifier(Modifier::BOLD);
    }
    Paragraph::new(lines)
}

#[cfg(test)]
mod tests;
