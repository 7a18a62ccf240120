// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

use std::fs;
use std::path::Path;
use std::process::Command;
use std::process::Stdio;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::super::chain;
use super::super::event::Event;
use super::super::event::Place;
use super::super::event::Timeline;
use super::super::report::Report;
use super::super::report::tests::small;
use super::*;
use crate::load;

/// What can be done with the page by hand, done in it; the results are left in its title's data.
const HANDS: &str = r#"<script>
const t = window.timeline, c = t.canvas, box = c.getBoundingClientRect(), result = {};
const pointer = (kind, [x, y]) => c.dispatchEvent(new PointerEvent(kind, {clientX: box.left + x, clientY: box.top + y, pointerId: 1}));
const press = (key) => document.dispatchEvent(new KeyboardEvent('keydown', {key}));
const span = () => { const [from, to] = t.shown(); return to - from; };
result.events = t.events; result.chains = t.chains; result.ready = performance.now(); result.draws = t.milliseconds;
press('0'); const all = span();
c.dispatchEvent(new WheelEvent('wheel', {deltaY: -400, clientX: box.left + 500, clientY: box.top + 40, cancelable: true}));
result.wheel = span() / all;
press('+'); result.plus = span() / all; press('-'); press('0'); result.back = span() / all;
const before = t.shown()[0];
pointer('pointerdown', [600, 40]); pointer('pointermove', [500, 40]); pointer('pointerup', [500, 40]);
result.dragged = t.shown()[0] - before > 0;
press('0');
pointer('pointermove', t.place(t.events - 1));
result.tip = document.getElementById('tip').innerText;
const search = document.getElementById('search');
search.value = 'position=0'; search.dispatchEvent(new Event('input'));
result.found = t.matches(); result.matches = document.getElementById('matches').value;
result.steps = document.getElementById('steps').rows.length;
result.wide = document.documentElement.scrollWidth <= window.innerWidth;
document.documentElement.dataset.result = JSON.stringify(result);
for (const data of document.querySelectorAll('script')) data.remove();
</script>"#;

/// Opens the page in a browser without a window, and does all that; `None` where there is no browser.
fn by_hand(page: &str, dir: &Path, shot: Option<&Path>) -> Option<Value> {
    let path = dir.join("page.html");
    let page = page.replace("</body>", &format!("{HANDS}</body>"));
    fs::write(&path, page).unwrap();
    let browser = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| {
            let mut version = Command::new(name);
            let version = version.arg("--version").stdout(Stdio::null());
            let status = version.stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        })?;
    let mut command = Command::new(browser);
    command
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--window-size=1000,800",
            "--host-resolver-rules=MAP * ~NOTFOUND",
        ])
        .arg(format!("--user-data-dir={}", dir.join("profile").display()));
    match shot {
        Some(shot) => command.arg(format!("--screenshot={}", shot.display())),
        None => command.arg("--dump-dom"),
    };
    let output = command
        .arg(format!("file://{}", path.display()))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let dom = String::from_utf8_lossy(&output.stdout);
    if shot.is_some() {
        return Some(Value::Null);
    }
    let result = dom
        .split("data-result=\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let result = result
        .unwrap_or_else(|| panic!("no result: {}", dom.chars().take(3000).collect::<String>()));
    Some(
        serde_json::from_str(
            &result
                .replace("&quot;", "\"")
                .replace("&gt;", ">")
                .replace("&amp;", "&"),
        )
        .unwrap(),
    )
}

/// `count` events of a stream: a write in six, and a chain for each of them.
fn stream(count: usize) -> Report {
    let names = [
        (
            Place::Task(7),
            "sys_write",
            "fd: 1, buf: 55d0c0de, count: 64 -> 0x40",
        ),
        (Place::Driver(0), "write", ""),
        (Place::Driver(0), "send", ""),
        (Place::Daemon, "pop", ""),
        (Place::Daemon, "push", ""),
        (Place::Driver(1), "receive", ""),
    ];
    let events = (0..count)
        .zip(names.iter().cycle())
        .map(|(n, (place, name, text))| {
            let position = 64 * (n / names.len());
            let text = match *name {
                "sys_write" => (*text).to_owned(),
                "send" | "receive" => format!(
                    "device=virtio1 fifo=0 messages=1 position={}",
                    position + 64
                ),
                _ => format!("fifo=0 position={position} bytes=64"),
            };
            Event {
                ns: 1_000_000_000 + 10_000 * n as u64,
                lasts: if *name == "sys_write" { 15_000 } else { 0 },
                place: *place,
                cpu: Some(0),
                pid: 7,
                name: (*name).into(),
                text: text.into(),
            }
        });
    let timeline = Timeline {
        events: events.collect(),
        tasks: std::collections::HashMap::from([(7, "writer".to_owned())]),
        ..Timeline::default()
    };
    Report {
        chains: chain::link(&timeline, &|_| true, 0),
        timeline,
        ..small()
    }
}

#[test]
fn the_page_needs_no_network_and_its_texts_stay_texts() {
    let page = page(&small());
    assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("src="));
    assert!(page.contains("&lt;/script&gt;"));
    let mut wild = small();
    wild.timeline.events[0].text = "comm=</script><b>".into();
    wild.timeline.events[0].name = "<!--".into();
    let wild = super::page(&wild);
    assert!(!wild.contains("<b>") && !wild.contains("<!--"));
}

#[test]
fn the_page_is_used_by_wheel_keys_pointer_and_search() {
    let dir = tempfile::tempdir().unwrap();
    let Some(result) = by_hand(&page(&stream(600)), dir.path(), None) else {
        eprintln!("\n# SKIP there is no Chromium: apt-get install chromium");
        return;
    };
    assert_eq!(
        (&result["events"], &result["chains"]),
        (&600.into(), &100.into()),
        "{result}"
    );
    let number = |name: &str| result[name].as_f64().unwrap();
    assert!(
        number("wheel") < 0.7 && number("plus") < number("wheel"),
        "{result}"
    );
    assert!((number("back") - 1.0).abs() < 1e-9, "{result}");
    assert_eq!(result["dragged"], true, "{result}");
    let tip = result["tip"].as_str().unwrap();
    for part in ["receive", "driver, CPU 1", "position", "6400", "virtio1"] {
        assert!(tip.contains(part), "{part}: {tip}");
    }
    assert_eq!(result["matches"], "1 of 3", "{result}");
    // The header, and each step of a chain.
    assert_eq!(result["steps"], 7, "{result}");
    assert_eq!(result["wide"], true, "{result}");
}

/// What `work` makes, and how many times as long it took as it would with a CPU to itself: judged by a thread that always wants one.
fn with_slowdown<T>(work: impl FnOnce() -> T) -> (T, u32) {
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let made = work();
        let slowdown = load::slowdown(std::process::id());
        ended.store(true, Ordering::Relaxed);
        (made, slowdown)
    })
}

/// Prints how long the page takes; docs/trace.md has a figure.
#[test]
#[ignore = "takes seconds, and a gigabyte: run by `cargo lab test`"]
fn a_million_events_open_in_under_three_seconds() {
    const LIMIT_MS: f64 = 3_000.0;
    let dir = tempfile::tempdir().unwrap();
    let page = page(&stream(1_000_000));
    let (result, slowdown) = with_slowdown(|| by_hand(&page, dir.path(), None));
    let Some(result) = result else {
        eprintln!("\n# SKIP there is no Chromium: apt-get install chromium");
        return;
    };
    eprintln!("{result}, on a machine that is slower by {slowdown}");
    assert_eq!(result["events"], 1_000_000);
    let ready = result["ready"].as_f64().unwrap();
    assert!(
        ready < LIMIT_MS * f64::from(slowdown),
        "{result} {slowdown}"
    );
}
