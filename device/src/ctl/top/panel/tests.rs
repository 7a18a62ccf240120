// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::*;
use crate::ctl::top::samples::fault;
use crate::ctl::top::samples::status;

fn drawn(panel: &mut Panel, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| panel.draw(frame)).unwrap();
    let buffer = terminal.backend().buffer();
    buffer
        .content()
        .chunks(usize::from(width))
        .map(|line| {
            line.iter()
                .map(ratatui::buffer::Cell::symbol)
                .collect::<String>()
        })
        .map(|line| line.trim_end().to_owned())
        .collect()
}

fn press(panel: &mut Panel, keys: &str) -> Reaction {
    keys.chars()
        .map(|key| {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                '\u{8}' => KeyCode::Backspace,
                key => KeyCode::Char(key),
            };
            panel.key(KeyEvent::from(code))
        })
        .last()
        .unwrap_or(Reaction::Nothing)
}

fn panel(fifos: u16) -> Panel {
    let mut panel = Panel::default();
    panel.update(status(fifos));
    panel
}

#[test]
fn levels_rates_and_faults_fit_80_by_24() {
    let mut panel = panel(2);
    let mut now = status(2);
    now.device.uptime_ms += 1_000;
    now.fifos[1].capacity = 65_536;
    now.fifos[1].rx.level = 32_768;
    now.fifos[1].rx.entered = 2_000_000;
    now.fifos[1].tx.interrupts = 77;
    now.fifos[0].hangup = true;
    now.fifos[0].hangup_by_control = true;
    now.faults
        .push(fault("drop-interrupt,fifo=1,on=rx,count=1", 1));
    panel.update(now);
    let lines = drawn(&mut panel, 80, 24);
    let text = lines.join("\n");
    assert!(lines[0].contains("up 6 s; a VMM is connected"), "{text}");
    assert!(lines[2].starts_with("▶ 0"), "{text}");
    assert!(lines[3].contains("hung up by ctl"), "{text}");
    assert!(
        lines[4].contains("rx ████████········   32768/65536     2.0M      0"),
        "{text}"
    );
    assert!(
        lines[5].contains("tx ················       0/65536        0     77"),
        "{text}"
    );
    assert!(
        text.contains("1      drop-interrupt,fifo=1,on=rx,count=1  active"),
        "{text}"
    );
    assert_eq!(lines[23], HELP, "{text}");
}

/// A look right after a command's says nothing of rates.
#[test]
fn rates_are_kept_until_enough_time_has_passed() {
    let mut panel = panel(1);
    let mut later = status(1);
    later.device.uptime_ms += 1_000;
    later.fifos[0].rx.entered = 500;
    panel.update(later.clone());
    later.device.uptime_ms += 10;
    later.fifos[0].rx.entered = 600;
    panel.update(later.clone());
    assert_eq!(panel.rates[&0].rx.bytes, 500.0);
    later.device.uptime_ms += 990;
    panel.update(later);
    assert_eq!(panel.rates[&0].rx.bytes, 100.0);
}

/// The selected one of many is on the screen, however small that is.
#[test]
fn many_fifos_scroll() {
    let mut panel = panel(40);
    press(&mut panel, &"j".repeat(60));
    let lines = drawn(&mut panel, 80, 10);
    assert!(
        lines.iter().any(|line| line.starts_with("▶ 39")),
        "{lines:?}"
    );
    press(&mut panel, &"k".repeat(60));
    let lines = drawn(&mut panel, 80, 10);
    assert!(
        lines.iter().any(|line| line.starts_with("▶ 0")),
        "{lines:?}"
    );
    drawn(&mut panel, 5, 2);
}

#[test]
fn keys_are_for_the_selected_fifo() {
    let mut panel = panel(2);
    assert_eq!(
        press(&mut panel, "jc"),
        Reaction::Do(Command::Clear { fifo: 1 })
    );
    assert_eq!(
        press(&mut panel, "kh"),
        Reaction::Do(Command::Hangup { fifo: 0, on: true })
    );
    let spec = "drop-interrupt,fifo=0,on=rx,count=1".to_owned();
    assert_eq!(
        press(&mut panel, "i"),
        Reaction::Do(Command::FaultAdd { spec })
    );
    assert_eq!(press(&mut panel, "q"), Reaction::Quit);
}

#[test]
fn hang_up_is_taken_back_where_it_holds() {
    let mut panel = Panel::default();
    let mut now = status(1);
    now.fifos[0].hangup_by_control = true;
    panel.update(now);
    assert_eq!(
        press(&mut panel, "h"),
        Reaction::Do(Command::Hangup { fifo: 0, on: false })
    );
}

/// Pressed again before the daemon has answered, `h` takes back what is on its way: a look that came before it says nothing of it.
#[test]
fn hang_up_pressed_twice_at_once_is_ordered_and_taken_back() {
    let mut panel = panel(2);
    let hangup = |fifo, on| Reaction::Do(Command::Hangup { fifo, on });
    assert_eq!(press(&mut panel, "h"), hangup(0, true));
    assert_eq!(press(&mut panel, "h"), hangup(0, false));
    assert_eq!(press(&mut panel, "jh"), hangup(1, true));
    assert_eq!(press(&mut panel, "kh"), hangup(0, true));
    // The look before the commands, then the outcomes of all but the last.
    panel.update(status(2));
    for _ in 0..3 {
        panel.say("done".to_owned());
    }
    panel.update(status(2));
    assert_eq!(press(&mut panel, "h"), hangup(0, false));
    panel.say("done".to_owned());
    panel.say("refused".to_owned());
    // What the daemon says now is how it is, whatever was ordered.
    panel.update(status(2));
    assert_eq!(press(&mut panel, "h"), hangup(0, true));
}

/// While a line is edited, letters are letters; Esc leaves the line, not the panel.
#[test]
fn a_line_is_edited_and_pushed_with_its_newline() {
    let mut panel = panel(2);
    press(&mut panel, "jpqx\u{8}c");
    let lines = drawn(&mut panel, 80, 24);
    assert_eq!(lines[22], "push to FIFO 1: qc");
    assert_eq!(lines[23], EDITING);
    let push = Command::Push {
        fifo: 1,
        text: Some("qc\n".to_owned()),
        base64: None,
    };
    assert_eq!(press(&mut panel, "\n"), Reaction::Do(push));
    assert_eq!(press(&mut panel, "pz\u{1b}"), Reaction::Nothing);
    assert_eq!(
        press(&mut panel, "c"),
        Reaction::Do(Command::Clear { fifo: 1 })
    );
    let quit = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    press(&mut panel, "p");
    assert_eq!(panel.key(quit), Reaction::Quit);
}

#[test]
fn before_the_first_answer_keys_do_nothing() {
    let mut panel = Panel::default();
    assert_eq!(press(&mut panel, "pchi\njk"), Reaction::Nothing);
    let lines = drawn(&mut panel, 80, 24);
    assert!(lines[0].contains("not answered"), "{lines:?}");
}
