// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A grading as one page that opens without a network, light and dark.

use std::path::Path;

use maud::DOCTYPE;
use maud::Markup;
use maud::PreEscaped;
use maud::html;

use super::catalog::Catalog;
use super::outcome::Outcome;
use super::outcome::Verdict;
use super::report;
use super::report::Grading;

const STYLE: &str = include_str!("page.css");

/// The page.
///
/// `folder` is where it will be: links to other pages are relative to it.
pub fn render(grading: &Grading, catalog: &Catalog, folder: &Path) -> String {
    let lang = catalog.lang;
    let page = html! {
        (DOCTYPE)
        html lang=(catalog.lang.tag()) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Grading of " (grading.driver) }
                style { (PreEscaped(STYLE)) }
            }
            body {
                h1 { "Grading of " code { (grading.driver) } }
                p { (grading.counts(lang)) ". Kernel: " (grading.kernel) "." }
                @if let Some(error) = &grading.error { p { strong { (lang.label("no verdict")) ": " } (error) } }
                table {
                    thead { tr { th { (lang.label("rule")) } th { "" } th { (lang.label("verdict")) } th { (lang.label("seconds")) } th { (lang.label("what holds")) } } }
                    tbody { @for outcome in &grading.rules { (row(outcome, catalog, folder)) } }
                }
            }
        }
    };
    page.into_string()
}

fn row(outcome: &Outcome, catalog: &Catalog, folder: &Path) -> Markup {
    let rule = catalog.rule_of(outcome);
    let lang = catalog.lang;
    html! {
        tr id=(outcome.id) class=(class(outcome.verdict)) {
            td { code { (outcome.id) } }
            td { @if outcome.must { "M" } @else { "O" } }
            td.verdict { (outcome.verdict.word()) }
            td.number { (format!("{:.3}", outcome.seconds)) }
            td {
                @if let Some(rule) = rule { (rule.says) }
                @if outcome.verdict != Verdict::Pass {
                    dl {
                        @for (word, text) in report::details(outcome) {
                            dt { (lang.label(word)) }
                            dd {
                                @if word == "trace" { a href=(link(text, folder)) { (text) } }
                                @else { pre { (text) } }
                            }
                        }
                        @if let (Some(rule), Verdict::Fail) = (rule, outcome.verdict) {
                            @for (word, text) in report::advice(rule, catalog) {
                                dt { (lang.label(word)) }
                                dd { @if text.starts_with("cargo ") { code { (text) } } @else { (text) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The page at `path`, as seen from `folder`: the two may be moved together.
fn link(path: &str, folder: &Path) -> String {
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let folder = if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    };
    let (page, folder) = (absolute(Path::new(path)), absolute(folder));
    let relative = page.strip_prefix(&folder);
    let path = relative.unwrap_or(&page).display().to_string();
    // What would end the path of an address.
    ["%", "#", "?"].iter().fold(path, |path, mark| {
        let code = mark.bytes().map(|byte| format!("%{byte:02X}"));
        path.replace(mark, &code.collect::<String>())
    })
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "pass",
        Verdict::Fail => "fail",
        Verdict::Absent | Verdict::Unreached => "open",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::outcome::End;
    use super::*;

    #[test]
    fn a_page_is_linked_from_its_own_folder() {
        for folder in ["", ".", "./"] {
            assert_eq!(link("traces/x.html", Path::new(folder)), "traces/x.html");
        }
        assert_eq!(link("a/b/x.html", Path::new("a")), "b/x.html");
        assert_eq!(link("/b/x#1?%.html", Path::new("/b")), "x%231%3F%25.html");
        assert_eq!(link("/b/x.html", Path::new("/a")), "/b/x.html");
    }

    #[test]
    fn the_page_explains_a_failure_and_fetches_nothing() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut end = End::fail("write", "5 & more", "<script>");
        end.trace = "a/traces/read.wakes.html".to_owned();
        let rules = vec![end.outcome("read.wakes", true, Duration::ZERO)];
        let grading = Grading::new(Path::new("a<b.c"), "stock", rules);
        let page = render(
            &grading,
            &Catalog::load(repository).unwrap(),
            Path::new("a"),
        );
        assert!(
            page.contains(r#"<a href="traces/read.wakes.html">a/traces/read.wakes.html</a>"#),
            "{page}"
        );
        assert!(page.contains("a&lt;b.c") && page.contains("5 &amp; more"));
        assert!(!page.contains("<script") && !page.contains("http"));
        assert!(page.contains("wake_up_interruptible") && page.contains("prefers-color-scheme"));
    }
}
