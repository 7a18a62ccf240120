// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! docs/rules.md and its translation: made from the catalog in each language, and compared with what is there.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::catalog::Catalog;
use super::catalog::Rule;
use super::lang::Lang;

/// The English page, from docs/.
const ENGLISH: &str = "rules.md";
/// The Chinese one.
const CHINESE: &str = "rules.zh-CN.md";

/// Words of the page itself.
struct Words {
    top: &'static str,
    tested: &'static str,
    by_the_lab: &'static str,
    source: &'static str,
    lesson: &'static str,
    /// Between a label and its text, and at a sentence's end.
    marks: [&'static str; 2],
    /// What a lesson's page is called, behind its id.
    page: &'static str,
}

fn words(lang: Lang) -> Words {
    match lang {
        Lang::En => Words {
            top: "<!-- Made from grader/rules.toml by a test of vmm-glue: `UPDATE_PAGES=1 cargo test -p fifo-lab rules_page`. -->\n\
                  # Rules of the grader\n\n**English** · [中文](rules.zh-CN.md)\n\n\
                  `cargo lab grade PATH` tests a driver by these rules, in this order. M: every globalfifo driver has to pass, in memory or \
                  behind a device. O: optional, told as *not there* where the driver does not have it. `cargo lab grade --show RULE` prints \
                  the test as a C program; [grader.md](grader.md) says how a rule is run.\n",
            tested: "Tested",
            by_the_lab: "by the lab itself",
            source: "Source",
            lesson: "; lesson ",
            marks: [": ", "."],
            page: ".md",
        },
        Lang::Zh => Words {
            top: "<!-- 由 vmm-glue 的一个测试根据 grader/rules.zh-CN.toml 生成：`UPDATE_PAGES=1 cargo test -p fifo-lab rules_page`。 -->\n\
                  # 评分规则\n\n[English](rules.md) · **中文**\n\n\
                  `cargo lab grade PATH` 依次按下面这些规则测试驱动。M：每个 globalfifo 驱动都必须通过，不论 FIFO 在内存里还是在设备里。O：可选，\
                  驱动没有这项功能时记为*未提供*（not there）。`cargo lab grade --show RULE` 把测试打印成一个 C 程序；\
                  [grader.zh-CN.md](grader.zh-CN.md) 说明规则怎样运行。\n",
            tested: "测试",
            by_the_lab: "由实验环境自己进行",
            source: "出处",
            lesson: "；课程 ",
            marks: ["：", "。"],
            page: ".zh-CN.md",
        },
    }
}

/// The page; of the translated one what stands below its first line.
fn page(catalog: &Catalog) -> String {
    let lang = catalog.lang;
    let words = words(lang);
    let [colon, stop] = words.marks;
    let mut page = format!(
        "<!-- SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause -->\n{}",
        words.top
    );
    let mut family = "";
    for rule in &catalog.rules {
        if rule.family() != family {
            family = rule.family();
            let _ = write!(page, "\n## {family}\n");
        }
        let lines = [
            (label(lang, "why"), rule.why.clone()),
            (words.source, source(rule, &words)),
            (words.tested, tested(catalog, rule, &words)),
            (label(lang, "hint"), escape(&rule.hint)),
        ];
        let _ = write!(
            page,
            "\n### {}\n{}{colon}{}{stop}\n\n",
            rule.id,
            rule.class(),
            rule.says
        );
        for (label, text) in lines {
            let _ = writeln!(page, "- {label}{colon}{text}{stop}");
        }
    }
    page
}

/// A failure's label, as it begins a line of a page.
fn label(lang: Lang, word: &'static str) -> &'static str {
    match word {
        "why" if lang == Lang::En => "Why",
        "hint" if lang == Lang::En => "Hint",
        word => lang.label(word),
    }
}

fn source(rule: &Rule, words: &Words) -> String {
    let lesson = rule.lesson.as_ref().map_or(String::new(), |lesson| {
        format!("{}[{lesson}](lessons/{lesson}{})", words.lesson, words.page)
    });
    format!("{}{lesson}", rule.source)
}

fn tested(catalog: &Catalog, rule: &Rule, words: &Words) -> String {
    match catalog.program(rule) {
        Some(_) => format!("[rules/{0}.c](../grader/rules/{0}.c)", rule.id),
        None => words.by_the_lab.to_owned(),
    }
}

/// Characters that Markdown would take for its own.
fn escape(text: &str) -> String {
    text.replace('*', "\\*")
        .replace('_', "\\_")
        .replace('<', "&lt;")
}

/// The first line of a translation of this page (vmm-glue/tests/translations.rs).
fn first_line(english: &str) -> String {
    let hash = blake3::hash(english.as_bytes()).to_hex();
    format!(
        "<!-- Translation of {ENGLISH}, BLAKE3 {} -->\n",
        &hash[..16]
    )
}

#[test]
fn rules_page_is_what_the_rules_make_in_each_language() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let made = |lang| page(&Catalog::load_in(repository, lang).unwrap());
    let english = made(Lang::En);
    let chinese = first_line(&english) + &made(Lang::Zh);
    for (name, page) in [(ENGLISH, english), (CHINESE, chinese)] {
        let path = repository.join("docs").join(name);
        if std::env::var_os("UPDATE_PAGES").is_some() {
            fs::write(&path, &page).unwrap();
        }
        assert_eq!(
            fs::read_to_string(&path).unwrap_or_default(),
            page,
            "{name}"
        );
    }
}
