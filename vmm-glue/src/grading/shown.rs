// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause

//! A rule's program as `--show` prints it: one C file, the rule first, and of the frame only what the rule uses.
//!
//! It knows how grader/rules is written: an item begins in the first column after an empty line, and a function's comment and attributes
//! stand directly above it. It must not know what a rule is about.

use std::collections::BTreeSet;

/// A function of a header.
struct Function {
    name: String,
    /// Its comment, or nothing.
    comment: String,
    /// Attributes that callers have to know, or nothing.
    attributes: String,
    /// Return type, name and parameters.
    signature: String,
    /// From the brace on.
    body: String,
}

/// The headers, taken apart.
#[derive(Default)]
struct Frame {
    includes: Vec<String>,
    /// Types, macros, variables.
    definitions: Vec<String>,
    functions: Vec<Function>,
}

/// One C file made of a rule's `program` and the headers that it includes, which `header` reads by name.
pub fn program<E>(
    program: &str,
    mut header: impl FnMut(&str) -> Result<String, E>,
) -> Result<String, E> {
    let mut frame = Frame::default();
    let mut own = Vec::new();
    for line in program.lines() {
        if let Some(name) = line.strip_prefix("#include \"") {
            frame.add(&header(name.trim_end_matches('"'))?);
        } else if line.starts_with("#include <") {
            frame.include(line);
        } else if !line.starts_with("// SPDX") {
            own.push(line);
        }
    }
    let own = own.join("\n");
    let direct = frame.named_by(&own);
    let used = frame.used_by(&direct);
    let mut text = String::from("#define _GNU_SOURCE\n");
    for line in &frame.includes {
        text.push_str(line);
        text.push('\n');
    }
    for definition in &frame.definitions {
        text.push_str(&format!("\n{definition}\n"));
    }
    text.push_str("\n/* The rule's tools, which are at the end of this file. */\n");
    let functions = |names: &BTreeSet<&str>| -> Vec<_> {
        let wanted = |function: &&Function| names.contains(function.name.as_str());
        frame.functions.iter().filter(wanted).collect()
    };
    for function in functions(&direct) {
        text.push_str(&format!(
            "{}{}{};\n",
            function.comment, function.attributes, function.signature
        ));
    }
    text.push_str(&format!("\n{}\n", own.trim()));
    for function in functions(&used) {
        // Those that are declared above have been described there.
        if !direct.contains(function.name.as_str()) {
            text.push_str(&format!("\n{}{}", function.comment, function.attributes));
        } else {
            text.push('\n');
        }
        text.push_str(&format!("{}\n{}\n", function.signature, function.body));
    }
    Ok(text)
}

impl Frame {
    fn include(&mut self, line: &str) {
        if !self.includes.iter().any(|had| had == line) {
            self.includes.push(line.to_owned());
        }
    }

    fn add(&mut self, header: &str) {
        for item in items(header) {
            let is_guarded = |line: &&str| {
                let guards = ["#ifndef ", "#endif", "#define _GNU_SOURCE"];
                let is_empty_macro = line.starts_with("#define ") && line.ends_with("_H");
                !is_empty_macro && !guards.iter().any(|guard| line.starts_with(guard))
            };
            if let Some(function) = function(&item) {
                self.functions.push(function);
                continue;
            }
            let mut kept = Vec::new();
            for line in item.lines().filter(is_guarded) {
                if line.starts_with("#include") {
                    self.include(line);
                } else {
                    kept.push(line);
                }
            }
            // The comment above a file's guard is for who reads that file.
            if kept.iter().any(|line| !line.starts_with(['/', ' '])) {
                self.definitions.push(kept.join("\n"));
            }
        }
    }

    /// Names of the functions that a rule with this text uses, by itself or by a macro.
    fn named_by(&self, own: &str) -> BTreeSet<&str> {
        let definitions = self.definitions.iter().map(String::as_str);
        let named = definitions
            .chain([own])
            .flat_map(|text| self.named_in(text));
        named.map(|function| function.name.as_str()).collect()
    }

    fn named_in(&self, text: &str) -> Vec<&Function> {
        let names: BTreeSet<_> = identifiers(text).into_iter().collect();
        let is_named = |function: &&Function| names.contains(function.name.as_str());
        self.functions.iter().filter(is_named).collect()
    }

    /// Names of the functions that a program with these needs, `main` among them.
    fn used_by<'a>(&'a self, direct: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
        let is_first = |function: &&Function| {
            function.name == "main" || direct.contains(function.name.as_str())
        };
        let mut open: Vec<_> = self.functions.iter().filter(is_first).collect();
        let mut used = BTreeSet::new();
        while let Some(function) = open.pop() {
            if used.insert(function.name.as_str()) {
                open.extend(self.named_in(&function.body));
            }
        }
        used
    }
}

/// What stands between empty lines, a function in one piece.
fn items(text: &str) -> Vec<String> {
    let mut items: Vec<String> = Vec::new();
    for part in text.trim().split("\n\n") {
        match items.last_mut() {
            Some(last) if part.starts_with(['\t', '}']) => {
                last.push_str("\n\n");
                last.push_str(part);
            }
            _ => items.push(part.to_owned()),
        }
    }
    items
}

/// A function's parts, if the item is one.
fn function(item: &str) -> Option<Function> {
    let (head, body) = item.split_once("\n{\n")?;
    let (above, signature) = head.rsplit_once('\n').unwrap_or(("", head));
    let name = signature.split('(').next()?.rsplit([' ', '*']).next()?;
    let (attributes, comment): (Vec<_>, Vec<_>) =
        (above.lines()).partition(|line| line.starts_with("__attribute__"));
    // All that is shown is used.
    let attributes = attributes.concat().replace(", unused", "");
    let attributes = attributes.replace("__attribute__((unused))", "");
    let lines = |text: String| if text.is_empty() { text } else { text + "\n" };
    Some(Function {
        name: name.to_owned(),
        comment: lines(comment.join("\n")),
        attributes: lines(attributes),
        signature: signature.to_owned(),
        // The last function of a header may have the end of its guard behind it.
        body: format!("{{\n{}", body.trim_end_matches("\n#endif")),
    })
}

/// Names in C text: not those of members, nor what is in comments and strings.
fn identifiers(text: &str) -> Vec<&str> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = Vec::new();
    let mut rest = text;
    let mut is_member = false;
    while let Some(first) = rest.chars().next() {
        let len = if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |at| at + 2)
        } else if first == '"' || first == '\'' {
            quoted(rest, first)
        } else if is_name(first) {
            rest.find(|c| !is_name(c)).unwrap_or(rest.len())
        } else {
            first.len_utf8()
        };
        let (token, behind) = rest.split_at(len);
        if is_name(first) && !is_member {
            names.push(token);
        }
        is_member = token == "." || rest.starts_with("->") || is_member && token == ">";
        rest = behind;
    }
    names
}

/// Length of a literal, quotes included.
fn quoted(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if !escaped && c == quote {
            return at + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    const FRAME: &str = "/* About the file. */\n#ifndef A_H\n#define A_H\n#include <stdio.h>\n\n#define LIMIT 3\n\n\
        static int level;\n\nstatic void rule(void);\n\n\
        /* Says it. */\n__attribute__((noreturn, unused))\nstatic void say(const char *text)\n{\n\tputs(text);\n\n\thelp();\n}\n\n\
        static int help(void)\n{\n\treturn '\\'' + x.never;\n}\n\n\
        __attribute__((unused))\nstatic int never(void)\n{\n\treturn 0;\n}\n\n\
        int main(void)\n{\n\trule();\n}\n#endif\n";

    fn shown(rule: &str) -> String {
        let read = |_: &str| Ok::<_, Infallible>(FRAME.to_owned());
        program(rule, read).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn the_rule_comes_before_what_it_uses_and_what_it_does_not_use_is_left_out() {
        let text = shown("#include \"a.h\"\n\nstatic void rule(void)\n{\n\tsay(\"never(\");\n}\n");
        assert_eq!(
            text,
            "#define _GNU_SOURCE\n#include <stdio.h>\n\n#define LIMIT 3\n\nstatic int level;\n\nstatic void rule(void);\n\n\
             /* The rule's tools, which are at the end of this file. */\n\
             /* Says it. */\n__attribute__((noreturn))\nstatic void say(const char *text);\n\n\
             static void rule(void)\n{\n\tsay(\"never(\");\n}\n\n\
             static void say(const char *text)\n{\n\tputs(text);\n\n\thelp();\n}\n\n\
             static int help(void)\n{\n\treturn '\\'' + x.never;\n}\n\nint main(void)\n{\n\trule();\n}\n"
        );
    }

    #[test]
    fn a_function_that_is_only_named_is_used() {
        let text = shown("#include \"a.h\"\nint (*call)(void) = never;");
        assert!(text.contains("static int never(void)\n{"));
        assert!(!text.contains("help"));
    }
}
